"""Regularizers of GANs: penalties of the discriminator or the generator, and bounds on
weights.

The weight of each is the hyper-parameter of the same name, whose default is the
paper's.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array, PyTree
from aigc_jax.core.rng import fold_in
from aigc_jax.methods.augment import translation, uniform_by_index


class PenaltyInputs(NamedTuple):
    """The arguments of penalties: both networks at their current parameters, and a
    batch of B examples. A discriminator of packs of m examples returns B / m logits.
    """

    d: Callable  # x [B, *shape] -> logits [B / m], as in training
    g: Callable  # z [B, Z] -> x [B, *shape]
    real: Array  # [B, *shape]
    fake: Array  # [B, *shape]
    z: Array  # [B, Z], the noise of `fake`
    other: Array  # [B, Z], further noise
    key: Array
    index: Array  # type: ignore[assignment]  # [B]; hides tuple.index, which is unused


class Regularizer(NamedTuple):
    """Terms of the discriminator's and the generator's loss, and a bound on weights.
    None: no such term, no bound.
    """

    # Inputs -> [B / m] or [], whose mean times the weight is added to the loss
    discriminator: Callable[[PenaltyInputs], Array] | None = None
    generator: Callable[[PenaltyInputs], Array] | None = None
    # (the discriminator's parameters, max_abs=weight) -> parameters, after every update
    bound: Callable[..., PyTree] | None = None


def squared_gradient_norm(
    discriminator: Callable[[Array], Array], x: Array
) -> Array:  # [B, *shape] -> [B / m]
    """Return |grad_x d(x)|^2 for each logit, summed over all values of the examples in
    its pack.

    Args:
      discriminator: x [B, *shape] -> logits [B / m]. The gradient is that of the sum of
        all logits: each is assumed to depend on its own pack alone.
      x: examples [B, *shape].
    """
    logits, pullback = jax.vjp(discriminator, x)
    (grad,) = pullback(jnp.ones_like(logits))
    return jnp.sum(grad.reshape(len(logits), -1) ** 2, axis=-1)


def unit_gradient_norm_penalty(
    discriminator: Callable[[Array], Array], x: Array
) -> Array:  # [B, *shape] -> [B / m]
    """Return (|grad_x d(x)| - 1)^2 for each logit."""
    return (jnp.sqrt(squared_gradient_norm(discriminator, x) + 1e-12) - 1) ** 2


def gradient_penalty(inputs: PenaltyInputs) -> Array:  # -> [B / m]
    """Return (|grad d| - 1)^2 at points between real and generated examples,
    e x + (1 - e) G(z), e ~ U(0, 1) (Gulrajani et al. 2017, eq. 3).
    """
    e = uniform_by_index(inputs.key, inputs.index, (1,) * (inputs.real.ndim - 1)).astype(
        inputs.real.dtype
    )
    return unit_gradient_norm_penalty(inputs.d, e * inputs.real + (1 - e) * inputs.fake)


def dragan(inputs: PenaltyInputs) -> Array:  # -> [B / m]
    """Return (|grad d| - 1)^2 near real examples, at x + e s u / 2, with e ~ U(0, 1)
    per example, u ~ U(0, 1) per value, and s the standard deviation of the entire batch
    (Kodali et al. 2017, section 2.3, with the noise of the authors' program).
    """
    e = uniform_by_index(fold_in(inputs.key, 0), inputs.index, (1,) * (inputs.real.ndim - 1))
    u = uniform_by_index(fold_in(inputs.key, 1), inputs.index, inputs.real.shape[1:])
    return unit_gradient_norm_penalty(
        inputs.d, inputs.real + (e * u * inputs.real.std() / 2).astype(inputs.real.dtype)
    )


def r1(inputs: PenaltyInputs) -> Array:  # -> [B / m]
    """Return |grad d(x)|^2 / 2 at real examples (Mescheder et al. 2018, eq. 9)."""
    return squared_gradient_norm(inputs.d, inputs.real) / 2


def r2(inputs: PenaltyInputs) -> Array:  # -> [B / m]
    """Return |grad d(G(z))|^2 / 2 at generated examples (ibid., eq. 10)."""
    return squared_gradient_norm(inputs.d, inputs.fake) / 2


def translation_penalty(
    discriminator: Callable[[Array], Array], x: Array, key: Array, index: Array
) -> Array:  # [B, *shape] -> [B / m]
    """Return (d(x) - d(T(x)))^2, where T is `methods.augment.translation` with the key
    and the numbers [B] of the examples.
    """
    return (discriminator(x) - discriminator(translation(x, key, index))) ** 2


def consistency(inputs: PenaltyInputs) -> Array:  # -> [B / m]
    """Return the squared change of the logits of real images under small translations
    (Zhang et al. 2020, eq. 4; without mirroring, which does not preserve digits).
    """
    return translation_penalty(inputs.d, inputs.real, inputs.key, inputs.index)


def balanced_consistency(inputs: PenaltyInputs) -> Array:  # -> [B / m]
    """Return the squared change of the logits of real and of generated images under
    small translations (Zhao et al. 2021, algorithm 1).
    """
    return translation_penalty(
        inputs.d, inputs.real, fold_in(inputs.key, 0), inputs.index
    ) + translation_penalty(inputs.d, inputs.fake, fold_in(inputs.key, 1), inputs.index)


def mode_seeking(inputs: PenaltyInputs) -> Array:  # -> []
    """Return 1 / (|G(z) - G(z')| / |z - z'| + 1e-5), with mean absolute differences
    over the entire batch (Mao et al. 2019, eq. 3, minimized as in the authors'
    program).

    The penalty encourages different samples for different noise.
    """
    distance = lambda a, b: jnp.abs(a - b).mean()
    return 1 / (
        distance(inputs.fake, inputs.g(inputs.other)) / distance(inputs.z, inputs.other) + 1e-5
    )


def clip_weights(params: PyTree, max_abs: Array) -> PyTree:
    """Clip all weights to [-max_abs, max_abs] (Arjovsky et al. 2017, algorithm 1)."""
    return jax.tree.map(lambda p: jnp.clip(p, -max_abs, max_abs).astype(p.dtype), params)


# config.gan.regularizers -> regularizer
REGULARIZERS = {
    "gradient_penalty": Regularizer(gradient_penalty),
    "dragan": Regularizer(dragan),
    "r1": Regularizer(r1),
    "r2": Regularizer(r2),
    "consistency": Regularizer(consistency),
    "balanced_consistency": Regularizer(balanced_consistency),
    "mode_seeking": Regularizer(generator=mode_seeking),
    "weight_clipping": Regularizer(bound=clip_weights),
}
IMAGES_ONLY = ("consistency", "balanced_consistency")


def total_penalty(
    regularizers: Sequence[str],
    hp: dict[str, Array],
    side: Literal["discriminator", "generator"],
    make_inputs: Callable[[], PenaltyInputs],
) -> tuple[Array | float, dict[str, Array]]:  # -> weighted sum [], unweighted {name: []}
    """Return the weighted sum of the penalties of one side.

    Args:
      regularizers: their names.
      hp: hyper-parameters, with the weight of each.
      side: "discriminator" or "generator".
      make_inputs: () -> `PenaltyInputs`, called only where a penalty applies.

    Returns:
      The sum, and {name: penalty without its weight}.
    """
    value, each = 0.0, {}
    for number, name in enumerate(regularizers):
        penalty = getattr(REGULARIZERS[name], side)
        if penalty is not None:
            inputs = make_inputs()
            each[name] = penalty(inputs._replace(key=fold_in(inputs.key, number))).mean()
            value = value + hp[name] * each[name]
    return value, each


def bound_parameters(regularizers: Sequence[str], hp: dict[str, Array], params: PyTree) -> PyTree:
    """Return the discriminator's parameters after the bounds of the regularizers.

    Args:
      regularizers: their names; those without a bound are ignored.
      hp: hyper-parameters, with the weight of each, such as max_abs of `clip_weights`.
      params: the discriminator's parameters.
    """
    rules = [
        functools.partial(bound, max_abs=hp[n])
        for n in regularizers
        if (bound := REGULARIZERS[n].bound)
    ]
    return functools.reduce(lambda params, rule: rule(params), rules, params)
