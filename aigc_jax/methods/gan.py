"""Generative adversarial networks (Goodfellow et al. 2014).

One step consists of `critic_steps` updates of the discriminator, each on separate real
examples and noise, followed by one update of the generator against the updated
discriminator, on the noise of the last discriminator update. The last discriminator
loss and the generator loss share their noise and generator, and so their generator
pass (`gan_networks.share_generated`). Passes of earlier discriminator updates have
noise of their own; and with gradient accumulation every part of the batch is generated
for each loss, in the memory of one part.

All options can be combined: config.loss (`methods.losses.gan.GAN`), config.network
(`models.gan_dcgan.NETWORKS`), and in config.gan

regularizers   any number of the penalties of `gan_penalties`
condition      how the networks are conditioned on labels (`gan_networks`)
pack           number of examples per discriminator input (Lin et al. 2018)
unroll         number of unrolled discriminator updates: the generator's loss is that
               against the discriminator after this number of further updates on the
               same batch, differentiated through them (Metz et al. 2017, eq. 7)
augment        augmentations of `augment`, on all discriminator inputs in training
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from aigc_jax.core import axes
from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Array, Method, PyTree, Sampler, TrainState
from aigc_jax.core.rng import EVALUATE, INIT, fold_in
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import gan_networks, gan_penalties, optimizers
from aigc_jax.methods.gan_networks import GanNetworks, Generate, share_generated
from aigc_jax.methods.gan_penalties import IMAGES_ONLY, REGULARIZERS, PenaltyInputs
from aigc_jax.methods.losses import gan as gan_losses
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import (
    check_images_or_points,
    describe_interpolation,
    describe_prior,
    interpolate_noise,
    set_latents,
    take_minibatch,
    weighted_means,
)
from aigc_jax.models.discriminator import GROUP, stddev_group_size
from aigc_jax.utils.errors import choose, require

# Streams folded into the key of an update; the noise is keyed by example.
AUGMENT, PENALTY, OTHER = (2**31 + i for i in range(3))


def examples_per_step(config: ConfigDict) -> int:
    """Return the number of training examples per step: every discriminator update takes
    batch_size packs.
    """
    return config.batch_size * config.critic_steps * config.gan.pack


def find_batch_coupling(config: ConfigDict, across_devices: bool = False) -> str:  # reason or ''
    """Return the config entry by which the loss is no mean over examples, or ''; if
    `across_devices`: over devices, where packs are complete and batch moments global.
    """
    gan, (g, d) = config.gan, (config.model[side] for side in "gd")
    reasons = {
        "config.model.g.norm = 'batch'": g.get("norm") == "batch" and not across_devices,
        "config.model.d.norm = 'batch'": d.get("norm") == "batch" and not across_devices,
        "config.model.d.minibatch_std = True": d.get("minibatch_std"),
        f"config.gan.pack = {gan.pack}": gan.pack > 1 and not across_devices,
        f"config.gan.unroll = {gan.unroll}": gan.unroll > 0,
        f"config.loss = {config.loss!r}": config.loss == "relativistic_average",
        f"config.gan.regularizers = {gan.regularizers}": not {
            "dragan",
            "mode_seeking",
        }.isdisjoint(gan.regularizers),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def validate(config: ConfigDict, spec: Spec) -> None:
    """Raise a UserError where the config is inconsistent or unsuitable for the data."""
    check_images_or_points(config, spec)
    gan_networks.validate(config, spec)
    require(
        config.critic_steps > 0, f"config.critic_steps = {config.critic_steps} must be at least 1"
    )
    require(
        config.batch_size >= config.gan.pack,
        f"config.batch_size = {config.batch_size} must be at least config.gan.pack = "
        f"{config.gan.pack}",
    )
    require(config.gan.unroll >= 0, f"config.gan.unroll = {config.gan.unroll} must not be negative")
    size, pack = config.batch_size, config.gan.pack
    for count, what in (
        (size, f"config.batch_size = {size}"),
        (size // pack, f"config.batch_size = {size}, config.gan.pack = {pack}"),
    ):
        require(
            not config.model.d.get("minibatch_std") or stddev_group_size(count) > 1,
            f"config.model.d.minibatch_std = True needs groups of two to {GROUP} "
            f"examples, and none of these sizes divides {count} ({what})",
        )
    for i, name in enumerate(config.gan.regularizers):
        choose(REGULARIZERS, name, f"config.gan.regularizers[{i}]")
        require(
            spec.kind == "image" or name not in IMAGES_ONLY,
            f"config.gan.regularizers[{i}] = {name!r} is for images",
        )


def make(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients) -> Method:
    """Return the GAN of the networks config.model.g and config.model.d with the loss
    config.loss (`methods.schema` lists the remaining keys).
    """
    validate(config, spec)
    return GAN(config, spec, gradients).as_method()


class NetworkState(NamedTuple):
    """Parameters and optimiser state of one network within a step."""

    params: PyTree
    opt: PyTree


class GAN:
    """The functions of a `core.method.Method`, as pure methods: the attributes depend
    on the config alone and never change.

    The methods share these parameters besides those of `aigc_jax.methods`: d, a
    `NetworkState`; g_params, the generator's parameters; stats, {"g": ..., "d": ...} of
    `GanNetworks`; in an update, a batch of batch_size packs and the key of that update.
    """

    def __init__(self, config: ConfigDict, spec: Spec, gradients: Callable):
        self.config, self.gan, self.spec, self.gradients = config, config.gan, spec, gradients
        self.loss = choose(gan_losses.GAN, config.loss, "config.loss")
        self.optimizer, self.networks = optimizers.make_optimizer(config), GanNetworks(config, spec)

    def as_method(self) -> Method:
        """Return the GAN as a `core.method.Method`."""
        classes = self.spec.label_classes() if self.networks.classes else ()
        samplers = dict(
            prior=Sampler(self.prior, latents=self.latents, **describe_prior(classes)),
            interpolation=Sampler(self.interpolation, **describe_interpolation(classes)),
        )
        return Method(self.init, self.step, self.evaluate, weighted_means, samplers)

    # -- training

    def init(self, key: Array, hp: dict[str, Array]) -> TrainState:
        """Return the state before the first step."""
        params, stats = self.networks.init(fold_in(key, INIT))
        opt = {n: self.optimizer(hp["lr_" + n], hp, 0).init(p) for n, p in params.items()}
        return TrainState(jnp.int32(0), key, params, opt, dict(ema=params["g"], stats=stats), hp)

    def step(
        self, state: TrainState, batch: dict[str, Array]
    ) -> tuple[TrainState, dict[str, Array]]:  # -> state, metrics {name: []}
        """Update the discriminator `critic_steps` times, then the generator once."""
        key, hp, count = fold_in(state.key, state.step), state.hp, self.config.critic_steps
        g_params, stats_g = state.params["g"], state.extra["stats"]["g"]

        def update_critic(i, carry, generate):
            d, stats_d = carry
            stats, part = dict(g=stats_g, d=stats_d), take_minibatch(batch, i, count)
            d, metrics, stats_d = self.update_discriminator(
                state, d, g_params, stats, part, fold_in(key, i), generate=generate
            )
            return (d, stats_d), metrics

        last, generate = count - 1, cast(Generate, self.networks.generate_batch)
        carry = (NetworkState(state.params["d"], state.opt["d"]), state.extra["stats"]["d"])
        if last:
            carry = jax.lax.fori_loop(
                0, last, lambda i, carry: update_critic(i, carry, generate)[0], carry
            )
        part, last_key = take_minibatch(batch, last, count), fold_in(key, last)
        if self.config.grad_accumulation_steps == 1:
            generate = share_generated(
                generate, g_params, stats_g, axes.take_device_part(part), last_key
            )
        (d, stats_d), metrics_d = update_critic(last, carry, generate)
        stats = dict(g=stats_g, d=stats_d)
        g, metrics_g, stats_g = self.update_generator(state, d, stats, part, last_key, generate)
        ema = optimizers.update_ema(state.extra["ema"], g.params, hp["ema_decay"], state.step)
        return TrainState(
            step=state.step + 1,
            key=state.key,
            params=dict(g=g.params, d=d.params),
            opt=dict(g=g.opt, d=d.opt),
            extra=dict(ema=ema, stats=dict(g=stats_g, d=stats_d)),
            hp=hp,
        ), metrics_d | metrics_g

    def update_discriminator(
        self,
        state: TrainState,
        d: NetworkState,
        g_params: PyTree,
        stats: PyTree,
        batch: dict[str, Array],
        key: Array,
        *,
        generate: Generate,
        grad_offset: float = 0.0,
    ) -> tuple[NetworkState, dict[str, Array], PyTree]:  # -> d, {name: []}, stats of d
        """Update the discriminator `d` once; `grad_offset` is added to its gradient."""
        hp = state.hp
        loss_d = lambda d, batch, key: self.side_loss(
            dict(g=g_params, d=d), stats, hp, batch, key, "discriminator", generate
        )
        grads, metrics = self.gradients(loss_d, d.params, batch, key)
        stats = metrics.pop("stats")
        grads = jax.tree.map(lambda x: x + grad_offset, grads) if grad_offset else grads
        rule = self.optimizer(hp["lr_d"], hp, state.step)
        params, opt = optimizers.apply_gradients(rule, grads, d.opt, d.params)
        params = gan_penalties.bound_parameters(self.gan.regularizers, hp, params)
        metrics |= self.optimizer.measure_norms(grads, d.params, params, "d")
        return NetworkState(params, opt), metrics, stats["d"]

    def update_generator(
        self,
        state: TrainState,
        d: NetworkState,
        stats: PyTree,
        batch: dict[str, Array],
        key: Array,
        generate: Generate,
    ) -> tuple[NetworkState, dict[str, Array], PyTree]:  # -> g, {name: []}, stats of g
        """Update the generator once against the discriminator `d`."""
        hp = state.hp

        def loss_g(g, batch, key):
            generated, d_params = generate(g, stats["g"], batch, key), d.params
            once = lambda *_: generated
            if self.gan.unroll:
                d_params = self.unroll_discriminator(state, d, g, stats, batch, key, once)
            return self.side_loss(dict(g=g, d=d_params), stats, hp, batch, key, "generator", once)

        grads, metrics = self.gradients(loss_g, state.params["g"], batch, key)
        rule = self.optimizer(hp["lr_g"], hp, state.step)
        params, opt = optimizers.apply_gradients(rule, grads, state.opt["g"], state.params["g"])
        metrics |= self.optimizer.measure_norms(grads, state.params["g"], params, "g")
        return NetworkState(params, opt), metrics, metrics.pop("stats")["g"]

    def unroll_discriminator(
        self,
        state: TrainState,
        d: NetworkState,
        g_params: PyTree,
        stats: PyTree,
        batch: dict[str, Array],
        key: Array,
        generate: Generate,
    ) -> PyTree:  # -> parameters
        """Return the parameters of `d` after `unroll` further updates, differentiable
        in g_params. The square root of Adam has no derivative where a gradient is
        exactly 0, hence the offset.
        """

        def once(d, _):
            d, *_ = self.update_discriminator(
                state, d, g_params, stats, batch, key, generate=generate, grad_offset=1e-12
            )
            return d, None

        return jax.lax.scan(once, d, None, self.gan.unroll)[0].params

    def side_loss(
        self,
        params: PyTree,
        stats: PyTree,
        hp: dict[str, Array],
        batch: dict[str, Array],
        key: Array,
        side: Literal["discriminator", "generator"],
        generate: Generate,
    ) -> tuple[Array, dict[str, Any]]:  # -> [], {name: [], "stats": {"g": ..., "d": ...}}
        """Return the loss [] of one side and its metrics {name: []} with the new
        "stats" of both networks. Real and generated examples are separate batches
        (Radford et al. 2016, section 3).

        Args:
          params: {"g": parameters, "d": parameters}.
          stats: {"g": stats, "d": stats} before the update.
          hp: hyper-parameters.
          batch: "x" [B, *shape], "index" [B], and "label" [B] where present.
          key: key of noise, augmentations and penalties.
          side: "discriminator" or "generator".
          generate: the generator's pass.
        """
        gan, networks = self.gan, self.networks
        label, index = batch.get("label"), batch["index"]
        z, fake, g_stats = generate(params["g"], stats["g"], batch, key)
        change = dict(key=fold_in(key, AUGMENT), index=index) if gan.augment else {}
        (real_logits, real_classes), d_stats = networks.discriminate(
            params["d"], stats["d"], batch["x"], label, True, **change
        )
        (fake_logits, fake_classes), d_stats = networks.discriminate(
            params["d"], d_stats, fake, label, True, **change
        )

        def penalty_inputs():
            d = lambda x: networks.discriminate(params["d"], stats["d"], x, label, True)[0][0]
            g = lambda z: networks.generate(params["g"], stats["g"], z, label, True)[0]
            other = networks.sample_noise(fold_in(key, OTHER), index)
            return PenaltyInputs(d, g, batch["x"], fake, z, other, fold_in(key, PENALTY), index)

        if side == "discriminator":
            value = self.loss.discriminator_loss(real_logits, fake_logits, hp["smoothing"]).mean()
        else:
            value = self.loss.generator_loss(real_logits, fake_logits).mean()
        metrics = {f"{side[0]}_loss": value}
        if fake_classes is not None and real_classes is not None:
            class_loss = self.class_loss(fake_classes, label) + (
                self.class_loss(real_classes, label) if side == "discriminator" else 0
            )
            metrics[f"{side[0]}_classes"] = class_loss
            value = value + hp["auxiliary"] * class_loss
        penalty, each = gan_penalties.total_penalty(gan.regularizers, hp, side, penalty_inputs)
        return value + penalty, metrics | each | dict(stats=dict(g=g_stats, d=d_stats))

    def class_loss(self, logits: Array, label: Array | None) -> Array:  # [B, K], [B] -> []
        """Return the cross-entropy of the auxiliary classifier."""
        return token_losses.cross_entropy(logits, label, 0.0, self.spec.classes).mean()

    # -- evaluation

    def evaluate(self, state: TrainState, batch: dict[str, Array]) -> dict[str, Array]:  # -> sums
        """Return sums over the batch of logits, losses and accuracies of the current
        (not averaged) weights. The noise is the same at every evaluation; incomplete
        packs are ignored.
        """
        networks, pack, loss = self.networks, self.gan.pack, self.loss
        stats = state.extra["stats"]
        batch = jax.tree.map(lambda x: x[: len(x) // pack * pack], batch)
        label = batch.get("label")
        z = networks.sample_noise(fold_in(state.key, EVALUATE), batch["index"])
        fake, _ = networks.generate(state.params["g"], stats["g"], z, label)
        (real, classes), _ = networks.discriminate(state.params["d"], stats["d"], batch["x"], label)
        (fake, _), _ = networks.discriminate(state.params["d"], stats["d"], fake, label)
        values: dict[str, Any] = dict(real_logit=real, fake_logit=fake)
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
        weight = batch["weight"].reshape(-1, pack).min(-1)
        return {name: jnp.sum(v * weight) for name, v in values.items()} | dict(
            weight=jnp.sum(weight)
        )

    # -- samples

    def generate_from_ema(
        self, state: TrainState, z: Array, label: Array | None
    ) -> Array:  # [B, Z], [B] -> [B, *shape]
        """Return images of the averaged generator for noise and classes."""
        params, stats = state.extra["ema"], state.extra["stats"]["g"]
        stats = self.networks.compute_standing_stats(params, stats, fold_in(state.key, EVALUATE))
        return self.networks.generate(params, stats, z, label)[0]

    def latents(self, state: TrainState, key: Array, batch: dict[str, Array]) -> Array:  # -> [B, Z]
        """Return the noise of `prior`, ~ N(0, 1) where the batch does not set it."""
        return set_latents(self.networks.sample_noise(key, batch["index"]), batch)

    def prior(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, *shape]
        """Return images of the averaged generator for the noise `latents`, by class."""
        return self.generate_from_ema(state, self.latents(state, key, batch), batch.get("class"))

    def interpolation(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, *shape]
        """Return spherical interpolations of two noise vectors, by row (White 2016)."""
        z, row = interpolate_noise(
            self.networks.sample_noise, key, batch["index"], self.networks.dtype
        )
        return self.generate_from_ema(state, z, self.networks.cycle_classes(row))
