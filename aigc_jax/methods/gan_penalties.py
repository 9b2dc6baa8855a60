"""Regularizers of GANs: penalties of the discriminator or the generator, and bounds on
weights.

The weight of each is the hyper-parameter of the same name, whose default is the
paper's.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array, PyTree
from aigc_jax.core.rng import fold_in
from aigc_jax.methods.augment import translation, uniform


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
    """Terms of the discriminator's and the generator's loss, and a bound on weights."""

    # PenaltyInputs -> [..], whose mean is added to the discriminator's loss
    discriminator: Callable | None = None
    generator: Callable | None = None  # PenaltyInputs -> [], added to the generator's loss
    # (the discriminator's parameters, weight) -> parameters, after every update
    bound: Callable | None = None


def squared_gradient_norm(d, x: Array) -> Array:  # -> [B / m]
    """Return |grad_x d(x)|^2 for each logit, summed over all values of the examples in
    its pack.
    """
    logits, pullback = jax.vjp(d, x)
    (grad,) = pullback(jnp.ones_like(logits))
    return jnp.sum(grad.reshape(len(logits), -1) ** 2, axis=-1)


def gradient_norm_penalty(d, x: Array) -> Array:  # -> [B / m]
    """Return (|grad_x d(x)| - 1)^2 for each logit."""
    return (jnp.sqrt(squared_gradient_norm(d, x) + 1e-12) - 1) ** 2


def gradient_penalty(inputs):
    """Return (|grad d| - 1)^2 at points between real and generated examples,
    e x + (1 - e) G(z), e ~ U(0, 1) (Gulrajani et al. 2017, eq. 3).
    """
    e = uniform(inputs.key, inputs.index, (1,) * (inputs.real.ndim - 1)).astype(inputs.real.dtype)
    return gradient_norm_penalty(inputs.d, e * inputs.real + (1 - e) * inputs.fake)


def dragan(inputs):
    """Return (|grad d| - 1)^2 near real examples, at x + e s u / 2, with e ~ U(0, 1)
    per example, u ~ U(0, 1) per value, and s the standard deviation of the entire batch
    (Kodali et al. 2017, section 2.3, with the noise of the authors' program).
    """
    e = uniform(fold_in(inputs.key, 0), inputs.index, (1,) * (inputs.real.ndim - 1))
    u = uniform(fold_in(inputs.key, 1), inputs.index, inputs.real.shape[1:])
    return gradient_norm_penalty(
        inputs.d, inputs.real + (e * u * inputs.real.std() / 2).astype(inputs.real.dtype)
    )


def r1(inputs):
    """Return |grad d(x)|^2 / 2 at real examples (Mescheder et al. 2018, eq. 9)."""
    return squared_gradient_norm(inputs.d, inputs.real) / 2


def r2(inputs):
    """Return |grad d(G(z))|^2 / 2 at generated examples (ibid., eq. 10)."""
    return squared_gradient_norm(inputs.d, inputs.fake) / 2


def translation_penalty(d, x: Array, key: Array, index: Array):
    """Return (d(x) - d(T(x)))^2, where T is a small random translation."""
    return (d(x) - d(translation(x, key, index))) ** 2


def consistency(inputs):
    """Return the squared change of the logits of real images under small translations
    (Zhang et al. 2020, eq. 4; without mirroring, which does not preserve digits).
    """
    return translation_penalty(inputs.d, inputs.real, inputs.key, inputs.index)


def balanced_consistency(inputs):
    """Return the squared change of the logits of real and of generated images under
    small translations (Zhao et al. 2021, algorithm 1).
    """
    return translation_penalty(
        inputs.d, inputs.real, fold_in(inputs.key, 0), inputs.index
    ) + translation_penalty(inputs.d, inputs.fake, fold_in(inputs.key, 1), inputs.index)


def mode_seeking(inputs):
    """Return 1 / (|G(z) - G(z')| / |z - z'| + 1e-5), with mean absolute differences
    over the entire batch (Mao et al. 2019, eq. 3, minimized as in the authors'
    program).

    The penalty encourages different samples for different noise.
    """
    distance = lambda a, b: jnp.abs(a - b).mean()
    return 1 / (
        distance(inputs.fake, inputs.g(inputs.other)) / distance(inputs.z, inputs.other) + 1e-5
    )


def clip(params: Any, most: Array):
    """Clip all weights to [-c, c], c = `most` (Arjovsky et al. 2017, algorithm 1)."""
    return jax.tree.map(lambda p: jnp.clip(p, -most, most).astype(p.dtype), params)


# config.gan.regularizers -> regularizer
REGULARIZERS = {
    "gradient_penalty": Regularizer(gradient_penalty),
    "dragan": Regularizer(dragan),
    "r1": Regularizer(r1),
    "r2": Regularizer(r2),
    "consistency": Regularizer(consistency),
    "balanced_consistency": Regularizer(balanced_consistency),
    "mode_seeking": Regularizer(generator=mode_seeking),
    "weight_clipping": Regularizer(bound=clip),
}
IMAGES_ONLY = ("consistency", "balanced_consistency")


def total_penalty(
    names: Sequence[str], hp: dict[str, Array], side: str, make_inputs: Callable
) -> tuple[Array | float, dict[str, Array]]:  # -> [], {name: []}
    """Return the weighted sum of the penalties of one side.

    Args:
      names: names of regularizers.
      hp: hyper-parameters, with the weight of each.
      side: "discriminator" or "generator".
      make_inputs: () -> `PenaltyInputs`, called only where a penalty applies.

    Returns:
      The sum, and {name: penalty without its weight}.
    """
    value, each = 0.0, {}
    for number, name in enumerate(names):
        penalty = getattr(REGULARIZERS[name], side)
        if penalty is not None:
            inputs = make_inputs()
            each[name] = penalty(inputs._replace(key=fold_in(inputs.key, number))).mean()
            value = value + hp[name] * each[name]
    return value, each


def bound_parameters(names: Sequence[str], hp: dict[str, Array], params: PyTree):
    """Apply the regularizers' bounds to the discriminator's parameters."""
    rules = [
        functools.partial(bound, most=hp[n]) for n in names if (bound := REGULARIZERS[n].bound)
    ]
    return functools.reduce(lambda params, rule: rule(params), rules, params)
