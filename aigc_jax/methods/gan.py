"""Generative adversarial networks (Goodfellow et al. 2014): a game between a generator
and a discriminator.

One step: `critic_steps` updates of the discriminator, each on real examples and noise
of its own, then one update of the generator against the discriminator that came out, on
the noise of the last of them. With the same noise and the same generator, the last
discriminator loss and the generator loss contain one and the same generator pass; the
compiler merges the two (a test counts the matrix products).

The menu, every part with every other: config.loss (`methods.losses.gan.GAN`),
config.network (`models.gan_dcgan.NETWORKS`), and in config.game

regularizers   of `gan_penalties`, several at once
condition      how labels come in (`gan_networks`)
pack           examples that the discriminator judges together (Lin et al. 2018)
unroll         updates that the generator looks ahead: its loss is that against the
               discriminator after so many more updates on the same batch,
               differentiated through them (Metz et al. 2017, eq. 7)
augment        of `augment`, on whatever the discriminator sees in training
"""

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Method, TrainState
from aigc_jax.core.rng import EVALUATE, INIT, fold
from aigc_jax.methods import gan_penalties, optimizers
from aigc_jax.methods.gan_networks import Players
from aigc_jax.methods.gan_penalties import PICTURES_ONLY, REGULARIZERS, Position
from aigc_jax.methods.losses import gan as gan_losses
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import ROW, between, check_images, check_keys
from aigc_jax.models.discriminator import GROUP, group_size
from aigc_jax.models.normalization import BatchNorm
from aigc_jax.utils.errors import choose, require

KEYS = ("network", "z", "loss", "critic_steps", "optimizer", "schedule.name", "schedule.warmup")

# Examples of noise whose statistics normalize a generator that is sampled.
STANDING = 128
# Keys of an update are folded with these; its noise is keyed by examples.
AUGMENT, PENALTY, OTHER = (2**31 + i for i in range(3))


def examples(config) -> int:
    """Training examples a step: each critic update has its own, as many as it judges
    together for each logit.
    """
    return config.batch_size * config.critic_steps * config.game.pack


def coupled(config, devices=False) -> str:
    """What makes the loss no mean over examples, or ''; over devices, whose parts are
    whole packs, and whose moments are those of all.
    """
    game, (g, d) = config.game, (config.model[side] for side in "gd")
    reasons = {
        "config.model.g.norm = 'batch'": g.get("norm") == "batch" and not devices,
        "config.model.d.norm = 'batch'": d.get("norm") == "batch" and not devices,
        "config.model.d.minibatch_std = True": d.get("minibatch_std"),
        f"config.game.pack = {game.pack}": game.pack > 1 and not devices,
        f"config.game.unroll = {game.unroll}": game.unroll > 0,
        f"config.loss = {config.loss!r}": config.loss == "relativistic_average",
        f"config.game.regularizers = {game.regularizers}": not {
            "dragan",
            "mode_seeking",
        }.isdisjoint(game.regularizers),
    }
    return next((reason for reason, there in reasons.items() if there), "")


def examine(config, spec):
    """A UserError where the parts of the config do not suit one another or the data."""
    check_keys(config, KEYS)
    check_images(config, spec)
    require(
        config.critic_steps > 0, f"config.critic_steps = {config.critic_steps} must be at least 1"
    )
    require(
        config.batch_size >= config.game.pack,
        f"config.batch_size = {config.batch_size} must be at least config.game.pack = "
        f"{config.game.pack}",
    )
    require(
        config.game.unroll >= 0, f"config.game.unroll = {config.game.unroll} must not be negative"
    )
    size, pack = config.batch_size, config.game.pack
    for count, what in (
        (size, f"config.batch_size = {size}"),
        (size // pack, f"config.batch_size = {size} by config.game.pack = {pack}"),
    ):
        require(
            not config.model.d.get("minibatch_std") or group_size(count) > 1,
            f"config.model.d.minibatch_std = True takes deviations among two "
            f"to {GROUP} examples, and none of these numbers divides the {count} of {what}",
        )
    for i, name in enumerate(config.game.regularizers):
        choose(REGULARIZERS, name, f"config.game.regularizers[{i}]")
        require(
            spec.kind == "image" or name not in PICTURES_ONLY,
            f"config.game.regularizers[{i}] = {name!r} is for pictures",
        )


def make(config, spec, gradients=mean_gradients) -> Method:
    """The game of config.loss between the two networks config.model.g and
    config.model.d (see KEYS for the rest).
    """
    examine(config, spec)
    loss = choose(gan_losses.GAN, config.loss, "config.loss")
    optimizer, players, game = optimizers.make(config), Players(config, spec), config.game
    cross_entropy = lambda logits, label: token_losses.cross_entropy(
        logits, label, 0.0, spec.classes
    ).mean()

    def init(key, hp):
        params, stats = players.init(fold(key, INIT))
        opt = {name: optimizer(hp["lr_" + name], hp, 0).init(p) for name, p in params.items()}
        return TrainState(jnp.int32(0), key, params, opt, dict(ema=params["g"], stats=stats), hp)

    def play(params, stats, hp, batch, key, side):
        """The loss of one side, ([], {its metrics, stats: of both}); real and generated
        examples are batches of their own (Radford et al. 2016, section 3).
        """
        label, index = batch.get("label"), batch["index"]
        z = players.noise(key, index)
        fake, g_stats = players.generate(params["g"], stats["g"], z, label, train=True)
        change = dict(key=fold(key, AUGMENT), index=index) if game.augment else {}
        (real_logits, real_classes), d_stats = players.discriminate(
            params["d"], stats["d"], batch["x"], label, True, **change
        )
        (fake_logits, fake_classes), d_stats = players.discriminate(
            params["d"], d_stats, fake, label, True, **change
        )

        def position():
            d = lambda x: players.discriminate(params["d"], stats["d"], x, label, True)[0][0]
            g = lambda z: players.generate(params["g"], stats["g"], z, label, True)[0]
            return Position(
                d,
                g,
                batch["x"],
                fake,
                z,
                players.noise(fold(key, OTHER), index),
                fold(key, PENALTY),
                index,
            )

        if side == "discriminator":
            value = loss.discriminator_loss(real_logits, fake_logits, hp["smoothing"]).mean()
        else:
            value = loss.generator_loss(real_logits, fake_logits).mean()
        metrics = {f"{side[0]}_loss": value}
        if game.condition == "auxiliary":
            named = cross_entropy(fake_classes, label) + (
                cross_entropy(real_classes, label) if side == "discriminator" else 0
            )
            metrics[f"{side[0]}_classes"] = named
            value = value + hp["auxiliary"] * named
        penalty, each = gan_penalties.total(game.regularizers, hp, side, position)
        return value + penalty, metrics | each | dict(stats=dict(g=g_stats, d=d_stats))

    def step(state, batch):
        key, hp = fold(state.key, state.step), state.hp

        def update(params, opt, g, stats, batch, key, nudge=0.0):
            """One update of the discriminator against the generator g; `nudge` is added
            to its gradient.
            """
            play_d = lambda d, batch, key: play(
                dict(g=g, d=d), stats, hp, batch, key, "discriminator"
            )
            grads, metrics = gradients(play_d, params, batch, key)
            stats = metrics.pop("stats")
            grads = jax.tree.map(lambda x: x + nudge, grads) if nudge else grads
            params, opt = optimizers.apply(
                optimizer(hp["lr_d"], hp, state.step), grads, opt, params
            )
            return gan_penalties.bounded(game.regularizers, hp, params), opt, metrics, stats["d"]

        def critic(i, carry):
            params, opt, d_stats = carry
            stats = dict(g=state.extra["stats"]["g"], d=d_stats)
            part = minibatch(batch, i, config.critic_steps)
            params, opt, metrics, d_stats = update(
                params, opt, state.params["g"], stats, part, fold(key, i)
            )
            return (params, opt, d_stats), metrics

        last = config.critic_steps - 1
        carry = (state.params["d"], state.opt["d"], state.extra["stats"]["d"])
        # The last is outside the loop, where the compiler sees both generator passes.
        if last:
            carry = jax.lax.fori_loop(0, last, lambda i, carry: critic(i, carry)[0], carry)
        (d_params, d_opt, d_stats), d_metrics = critic(last, carry)
        stats = dict(g=state.extra["stats"]["g"], d=d_stats)

        def ahead(g, batch, key):
            """The discriminator after `unroll` more updates against g, a function of g.
            Where a gradient is exactly 0, Adam's root has no derivative: hence the
            nudge.
            """
            once = lambda carry, _: (
                update(carry[0], carry[1], g, stats, batch, key, nudge=1e-12)[:2],
                None,
            )
            return jax.lax.scan(once, (d_params, d_opt), None, game.unroll)[0][0]

        def play_g(g, batch, key):
            d = ahead(g, batch, key) if game.unroll else d_params
            return play(dict(g=g, d=d), stats, hp, batch, key, "generator")

        grads, g_metrics = gradients(
            play_g, state.params["g"], minibatch(batch, last, config.critic_steps), fold(key, last)
        )
        g_params, g_opt = optimizers.apply(
            optimizer(hp["lr_g"], hp, state.step), grads, state.opt["g"], state.params["g"]
        )
        new = g_metrics.pop("stats")
        ema = optimizers.average(state.extra["ema"], g_params, hp["ema_decay"], state.step)
        return TrainState(
            step=state.step + 1,
            key=state.key,
            params=dict(g=g_params, d=d_params),
            opt=dict(g=g_opt, d=d_opt),
            extra=dict(ema=ema, stats=dict(g=new["g"], d=d_stats)),
            hp=hp,
        ), d_metrics | g_metrics

    def evaluate(state, batch):
        """The game as it stands: raw weights; the noise is the same at every
        evaluation. Packs that are not whole do not count.
        """
        stats = state.extra["stats"]
        batch = jax.tree.map(lambda x: x[: len(x) // game.pack * game.pack], batch)
        label = batch.get("label")
        z = players.noise(fold(state.key, EVALUATE), batch["index"])
        fake, _ = players.generate(state.params["g"], stats["g"], z, label)
        (real, classes), _ = players.discriminate(state.params["d"], stats["d"], batch["x"], label)
        (fake, _), _ = players.discriminate(state.params["d"], stats["d"], fake, label)
        values = dict(real_logit=real, fake_logit=fake)
        if not loss.relative:  # a two-sample loss has no sum over examples
            values |= dict(
                d_loss=loss.discriminator_loss(real, fake), g_loss=loss.generator_loss(real, fake)
            )
        if loss.boundary is not None:
            values |= dict(
                real_accuracy=(real > loss.boundary), fake_accuracy=(fake < loss.boundary)
            )
        if classes is not None:
            values |= dict(class_accuracy_real=classes.argmax(-1) == label)
        weight = batch["weight"].reshape(-1, game.pack).min(-1)
        return {name: jnp.sum(v * weight) for name, v in values.items()} | dict(
            weight=jnp.sum(weight)
        )

    def summarize(sums):
        return {
            name: float(np.float64(v) / np.float64(sums["weight"]))
            for name, v in sums.items()
            if name != "weight"
        }

    def standing(state):
        """The statistics of the averaged generator over noise that is always the same
        ("standing statistics", Brock et al. 2019). It never trained: running
        statistics, averaged or not, are those of other weights.
        """
        stats = dict(state.extra["stats"]["g"])
        if "batch_stats" not in stats:
            return stats
        zeros = stats | dict(batch_stats=jax.tree.map(jnp.zeros_like, stats["batch_stats"]))
        index = jnp.arange(STANDING, dtype=jnp.int32)
        _, new = players.generate(
            state.extra["ema"],
            zeros,
            players.noise(fold(state.key, EVALUATE), index),
            in_turn(index),
            train=True,
        )
        # Running moments that began at zero hold this share of the batch's.
        moments = jax.tree.map(lambda s: s / (1 - BatchNorm.momentum), new["batch_stats"])
        return stats | dict(batch_stats=moments)

    def in_turn(index):  # [B] -> [B]: the classes one after another
        return index % max(players.classes, 1)

    def prior(state, key, batch):
        """Images of the averaged generator for noise ~ N(0, 1), by class."""
        z = players.noise(key, batch["index"])
        return players.generate(state.extra["ema"], standing(state), z, batch.get("class"))[0]

    def interpolation(state, key, batch):
        """Rows of images between two draws of noise, on the sphere (White 2016)."""
        z, row = between(players.noise, key, batch["index"], players.dtype)
        return players.generate(state.extra["ema"], standing(state), z, in_turn(row))[0]

    sheets = dict(interpolation=(ROW, ROW)) | (
        dict(prior=(ROW, players.classes)) if players.classes else {}
    )
    return Method(
        init, step, evaluate, summarize, dict(prior=prior, interpolation=interpolation), sheets
    )


def minibatch(batch, i, count):
    """Every count-th example, from the i-th on: a part that is spread over the devices
    as the whole is.
    """
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:])[:, i], batch)
