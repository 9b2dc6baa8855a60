"""Generative adversarial networks (Goodfellow et al. 2014): a game between a generator and a discriminator.

One step: `critic_steps` updates of the discriminator, each on real examples and noise of its own, then one update of the
generator against the discriminator that came out, on the noise of the last of them. With the same noise and the same
generator, the last discriminator loss and the generator loss contain one and the same generator pass; the compiler merges
the two (a test counts the matrix products).
"""

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax import losses, optim
from aigc_jax.core import EVALUATE, INIT, Method, TrainState, fold, gradients, noise
from aigc_jax.errors import choose, require
from aigc_jax.methods.common import check_hp, check_keys, dtypes, network
from aigc_jax.models import gan as networks
from aigc_jax.models.reductions import BatchNorm

KEYS = ("network", "z", "loss", "critic_steps", "optimizer", "schedule.name", "schedule.warmup")
HP = ("lr_g", "lr_d", "beta1", "beta2", "ema")

STANDING = 128  # examples of noise from which a normalized generator takes its statistics when it is sampled


def examples(config) -> int:
    """Training examples a step: each critic update has its own."""
    return config.batch_size * config.critic_steps


def make(config, spec) -> Method:
    """The game of config.loss between the two networks config.model.g and config.model.d (see KEYS and HP for the rest)."""
    check_keys(config, KEYS)
    check_hp(config, HP)
    Generator, Discriminator = choose(networks.NETWORKS, config.network, "config.network")
    loss = choose(losses.GAN, config.loss, "config.loss")
    require(config.z > 0, f"config.z = {config.z} must be at least 1")
    require(config.critic_steps > 0, f"config.critic_steps = {config.critic_steps} must be at least 1")
    optimizer = optim.make(config)
    g = network(Generator, config.model.g, "model.g", config, shape=spec.shape)
    d = network(Discriminator, config.model.d, "model.d", config, shape=spec.shape)

    dtype = dtypes(config)["dtype"]

    def call(net, params, stats, x, train):
        """What the network makes of x, and its running statistics after it ({} without normalization)."""
        out, new = net.apply({"params": params, "batch_stats": stats}, x, train, mutable=["batch_stats"])
        return out, new.get("batch_stats", {})

    def generate(params, stats, key, index, train=False):  # [B] -> [B, *shape]
        return call(g, params, stats, noise(key, index, (config.z,), dtype), train)

    def discriminate(params, stats, real, fake, train=False):  # 2 x [B, *shape] -> 2 x [B]
        """Logits of real and of generated examples, which are batches of their own (Radford et al. 2016, section 3)."""
        real, stats = call(d, params, stats, real, train)
        fake, stats = call(d, params, stats, fake, train)
        return (real, fake), stats

    def init(key, hp):
        fresh = fold(key, INIT)
        nets = dict(g=g.init(fold(fresh, 0), jnp.zeros((1, config.z))), d=d.init(fold(fresh, 1), jnp.zeros((1, *spec.shape))))
        params = {name: net["params"] for name, net in nets.items()}
        stats = {name: net.get("batch_stats", {}) for name, net in nets.items()}
        opt = {name: optimizer(hp["lr_" + name], hp, 0).init(p) for name, p in params.items()}
        return TrainState(jnp.int32(0), key, params, opt, dict(ema=params["g"], stats=stats), hp)

    def step(state, batch):
        key, stats = fold(state.key, state.step), state.extra["stats"]

        def update(name, params, opt, loss, batch, key):
            grads, (metrics, stats) = gradients(loss, params, batch, key)
            rule = optimizer(state.hp["lr_" + name], state.hp, state.step)
            return *optim.apply(rule, grads, opt, params), stats, metrics

        def critic(i, carry):
            params, opt, d_stats, _ = carry

            def loss_d(params, batch, key):
                fake, _ = generate(state.params["g"], stats["g"], key, batch["index"], train=True)
                logits, new = discriminate(params, d_stats, batch["x"], fake, train=True)
                value = loss.discriminator(*logits).mean()
                return value, (dict(d_loss=value), new)

            return update("d", params, opt, loss_d, minibatch(batch, i, config.critic_steps), fold(key, i))

        def loss_g(params, batch, key):
            fake, new = generate(params, stats["g"], key, batch["index"], train=True)
            logits, _ = discriminate(d_params, d_stats, batch["x"], fake, train=True)
            value = loss.generator(*logits).mean()
            return value, (dict(g_loss=value), new)

        last = config.critic_steps - 1
        carry = (state.params["d"], state.opt["d"], stats["d"], dict(d_loss=jnp.zeros((), dtype)))
        if last:  # all but the last in a loop; the last outside it, where the compiler sees both generator passes
            carry = jax.lax.fori_loop(0, last, critic, carry)
        d_params, d_opt, d_stats, d_metrics = critic(last, carry)
        g_params, g_opt, g_stats, g_metrics = update(
            "g", state.params["g"], state.opt["g"], loss_g, minibatch(batch, last, config.critic_steps), fold(key, last)
        )
        ema = optim.average(state.extra["ema"], g_params, state.hp["ema"], state.step)
        return TrainState(
            step=state.step + 1,
            key=state.key,
            params=dict(g=g_params, d=d_params),
            opt=dict(g=g_opt, d=d_opt),
            extra=dict(ema=ema, stats=dict(g=g_stats, d=d_stats)),
            hp=state.hp,
        ), d_metrics | g_metrics

    def evaluate(state, batch):
        """The game as it stands: raw weights; the noise is the same at every evaluation."""
        stats = state.extra["stats"]
        fake, _ = generate(state.params["g"], stats["g"], fold(state.key, EVALUATE), batch["index"])
        (real, fake), _ = discriminate(state.params["d"], stats["d"], batch["x"], fake)
        values = dict(
            d_loss=loss.discriminator(real, fake),
            g_loss=loss.generator(real, fake),
            real_accuracy=(real > 0).astype(jnp.float32),
            fake_accuracy=(fake < 0).astype(jnp.float32),
        )
        return {name: jnp.sum(v * batch["weight"]) for name, v in values.items()} | dict(weight=jnp.sum(batch["weight"]))

    def summarize(sums):
        return {name: float(np.float64(v) / np.float64(sums["weight"])) for name, v in sums.items() if name != "weight"}

    def standing(state):
        """The statistics of the averaged generator over noise that is always the same ("standing statistics", Brock et al. 2019). It
        never trained: running statistics, averaged or not, are those of other weights."""
        zeros = jax.tree.map(jnp.zeros_like, state.extra["stats"]["g"])
        index = jnp.arange(STANDING, dtype=jnp.int32)
        _, stats = generate(state.extra["ema"], zeros, fold(state.key, EVALUATE), index, train=True)
        return jax.tree.map(lambda s: s / (1 - BatchNorm.momentum), stats)  # from zero, one step of the running ones is this share

    def prior(state, key, batch):
        """Pictures of the averaged generator for noise ~ N(0, 1)."""
        return generate(state.extra["ema"], standing(state), key, batch["index"])[0]

    return Method(init, step, evaluate, summarize, dict(prior=prior))


def minibatch(batch, i, count):
    """Every count-th example, from the i-th on: a part that is spread over the devices as the whole is."""
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:])[:, i], batch)
