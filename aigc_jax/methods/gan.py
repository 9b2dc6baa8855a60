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
from aigc_jax.methods.common import check, dtypes, network
from aigc_jax.models import gan as networks

KEYS = ("network", "z", "loss", "critic_steps", "optimizer", "schedule.name", "schedule.warmup")
HP = ("lr_g", "lr_d", "beta1", "beta2", "ema")


def examples(config) -> int:
    """Training examples a step: each critic update has its own."""
    return config.batch_size * config.critic_steps


def make(config, spec) -> Method:
    """The game of config.loss between the two networks config.model.g and config.model.d (see KEYS and HP for the rest)."""
    check(config, KEYS, HP)
    Generator, Discriminator = choose(networks.NETWORKS, config.network, "config.network")
    loss = choose(losses.GAN, config.loss, "config.loss")
    require(config.z > 0, f"config.z = {config.z} must be at least 1")
    require(config.critic_steps > 0, f"config.critic_steps = {config.critic_steps} must be at least 1")
    optimizer = optim.make(config)
    if config.network == "dcgan":
        _fits(config, spec)
    g = network(Generator, config.model.g, "model.g", config, shape=spec.shape)
    d = network(Discriminator, config.model.d, "model.d", config, shape=spec.shape)

    dtype = dtypes(config)["dtype"]

    def generate(params, key, index):  # [B] -> [B, *shape]
        return g.apply({"params": params}, noise(key, index, (config.z,), dtype))

    def discriminate(params, x):  # [B, *shape] -> [B]
        return d.apply({"params": params}, x)

    def init(key, hp):
        fresh = fold(key, INIT)
        params = dict(
            g=g.init(fold(fresh, 0), jnp.zeros((1, config.z)))["params"],
            d=d.init(fold(fresh, 1), jnp.zeros((1, *spec.shape)))["params"],
        )
        opt = {name: optimizer(hp["lr_" + name], hp, 0).init(p) for name, p in params.items()}
        return TrainState(jnp.int32(0), key, params, opt, dict(ema=params["g"]), hp)

    def step(state, batch):
        key = fold(state.key, state.step)

        def update(name, params, opt, loss, batch, key):
            grads, metrics = gradients(loss, params, batch, key)
            rule = optimizer(state.hp["lr_" + name], state.hp, state.step)
            return *optim.apply(rule, grads, opt, params), metrics

        def loss_d(params, batch, key):
            fake = generate(state.params["g"], key, batch["index"])
            value = loss.discriminator(discriminate(params, batch["x"]), discriminate(params, fake)).mean()
            return value, dict(d_loss=value)

        def loss_g(params, batch, key):
            fake = generate(params, key, batch["index"])
            value = loss.generator(discriminate(d_params, batch["x"]), discriminate(d_params, fake)).mean()
            return value, dict(g_loss=value)

        def critic(i, carry):
            params, opt, _ = carry
            return update("d", params, opt, loss_d, minibatch(batch, i, config.critic_steps), fold(key, i))

        last = config.critic_steps - 1
        carry = (state.params["d"], state.opt["d"], dict(d_loss=jnp.zeros((), dtype)))
        if last:  # all but the last in a loop; the last outside it, where the compiler sees both generator passes
            carry = jax.lax.fori_loop(0, last, critic, carry)
        d_params, d_opt, d_metrics = critic(last, carry)
        g_params, g_opt, g_metrics = update(
            "g", state.params["g"], state.opt["g"], loss_g, minibatch(batch, last, config.critic_steps), fold(key, last)
        )
        return TrainState(
            step=state.step + 1,
            key=state.key,
            params=dict(g=g_params, d=d_params),
            opt=dict(g=g_opt, d=d_opt),
            extra=dict(ema=optim.average(state.extra["ema"], g_params, state.hp["ema"])),
            hp=state.hp,
        ), d_metrics | g_metrics

    def evaluate(state, batch):
        """The game as it stands: raw weights; the noise is the same at every evaluation."""
        fake = discriminate(state.params["d"], generate(state.params["g"], fold(state.key, EVALUATE), batch["index"]))
        real = discriminate(state.params["d"], batch["x"])
        values = dict(
            d_loss=loss.discriminator(real, fake),
            g_loss=loss.generator(real, fake),
            real_accuracy=(real > 0).astype(jnp.float32),
            fake_accuracy=(fake < 0).astype(jnp.float32),
        )
        return {name: jnp.sum(v * batch["weight"]) for name, v in values.items()} | dict(weight=jnp.sum(batch["weight"]))

    def summarize(sums):
        return {name: float(np.float64(v) / np.float64(sums["weight"])) for name, v in sums.items() if name != "weight"}

    def prior(state, key, batch):
        """Pictures of the averaged generator for noise ~ N(0, 1)."""
        return generate(state.extra["ema"], key, batch["index"])

    return Method(init, step, evaluate, summarize, dict(prior=prior))


def _fits(config, spec):
    """Raise a UserError unless the convolutional networks can reach the size of the pictures."""
    require(spec.kind == "image", f"config.network = 'dcgan' draws pictures; config.data.name = {config.data.name!r} has points")
    times = 2 ** len(config.model.g.channels)
    height, width, _ = spec.shape
    require(height % times == 0 and width % times == 0, f"config.model.g.channels = {config.model.g.channels} makes multiples of "
            f"{times} pixels, not {height} x {width}; give it fewer stages")


def minibatch(batch, i, count):
    """Every count-th example, from the i-th on: a part that is spread over the devices as the whole is."""
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:])[:, i], batch)
