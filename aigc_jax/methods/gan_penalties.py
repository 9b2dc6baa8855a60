"""What is added to the game beside its loss: penalties of the discriminator or the
generator, and bounds on weights.

Every one has a weight, the hyper-parameter of its name, whose default is that of its
paper.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.core.rng import fold
from aigc_jax.methods.augment import translation, uniform


class Position(NamedTuple):
    """A moment of the game, as penalties see it. B examples; a discriminator that sees
    m at once gives B / m logits.
    """

    d: Callable  # x [B, *shape] -> logits [B / m], as in training
    g: Callable  # z [B, Z] -> x [B, *shape]
    real: Array  # [B, *shape]
    fake: Array  # [B, *shape]
    z: Array  # [B, Z], the noise of `fake`
    other: Array  # [B, Z], further noise
    key: Array
    index: Array  # type: ignore[assignment]  # [B]; it hides tuple.index, which nobody calls


class Regularizer(NamedTuple):
    """What a penalty adds to either loss, and the bound that it puts on weights."""

    # Position -> [..], whose mean is added to the discriminator's loss
    discriminator: Callable | None = None
    generator: Callable | None = None  # Position -> [], added to the generator's loss
    # (the discriminator's parameters, weight) -> parameters, after every update
    bound: Callable | None = None


def slope(d, x):  # -> [B / m]
    """|grad_x d(x)| of each logit, squared: the sum over all values of the examples
    that it is of.
    """
    logits, pullback = jax.vjp(d, x)
    (grad,) = pullback(jnp.ones_like(logits))
    return jnp.sum(grad.reshape(len(logits), -1) ** 2, axis=-1)


def from_one(d, x):  # -> [B / m]
    """(|grad_x d(x)| - 1)^2"""
    return (jnp.sqrt(slope(d, x) + 1e-12) - 1) ** 2


def gradient_penalty(at):
    """(|grad d| - 1)^2 at points between real and generated examples, e x + (1 - e)
    G(z), e ~ U(0, 1) (Gulrajani et al. 2017, eq. 3).
    """
    e = uniform(at.key, at.index, (1,) * (at.real.ndim - 1)).astype(at.real.dtype)
    return from_one(at.d, e * at.real + (1 - e) * at.fake)


def dragan(at):
    """(|grad d| - 1)^2 near real examples, x + e s u / 2, e ~ U(0, 1) of an example and
    u ~ U(0, 1) of a value, s the standard deviation of the whole batch (Kodali et al.
    2017, section 2.3, with the noise of the authors' program).
    """
    e = uniform(fold(at.key, 0), at.index, (1,) * (at.real.ndim - 1))
    u = uniform(fold(at.key, 1), at.index, at.real.shape[1:])
    return from_one(at.d, at.real + (e * u * at.real.std() / 2).astype(at.real.dtype))


def r1(at):
    """|grad d(x)|^2 / 2 at real examples (Mescheder et al. 2018, eq. 9)."""
    return slope(at.d, at.real) / 2


def r2(at):
    """|grad d(G(z))|^2 / 2 at generated examples (Mescheder et al. 2018, eq. 10)."""
    return slope(at.d, at.fake) / 2


def unmoved(d, x, key, index):
    """(d(x) - d(T(x)))^2, T a small translation."""
    return (d(x) - d(translation(x, key, index))) ** 2


def consistency(at):
    """The discriminator says the same of real pictures that are moved a little (Zhang
    et al. 2020, eq. 4; no mirroring, which turns digits into something else).
    """
    return unmoved(at.d, at.real, at.key, at.index)


def balanced_consistency(at):
    """And of generated ones (Zhao et al. 2021, algorithm 1)."""
    return unmoved(at.d, at.real, fold(at.key, 0), at.index) + unmoved(
        at.d, at.fake, fold(at.key, 1), at.index
    )


def mode_seeking(at):
    """1 / (|G(z) - G(z')| / |z - z'| + 1e-5), mean absolute differences over the whole
    batch: noise that differs must give samples that do (Mao et al. 2019, eq. 3, to be
    minimized as the authors do).
    """
    apart = lambda a, b: jnp.abs(a - b).mean()
    return 1 / (apart(at.fake, at.g(at.other)) / apart(at.z, at.other) + 1e-5)


def clip(params: Any, most):
    """All weights within [-c, c] (Arjovsky et al. 2017, algorithm 1)."""
    return jax.tree.map(lambda p: jnp.clip(p, -most, most).astype(p.dtype), params)


# config.game.regularizers -> what it is
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
PICTURES_ONLY = ("consistency", "balanced_consistency")


def total(names, hp, side: str, position: Callable):  # -> [], {name: []}
    """The weighted sum of the penalties of one side, and each by itself without its
    weight; `position()` is only asked where there is one.
    """
    value, each = 0.0, {}
    for number, name in enumerate(names):
        penalty = getattr(REGULARIZERS[name], side)
        if penalty is not None:
            at = position()
            each[name] = penalty(at._replace(key=fold(at.key, number))).mean()
            value = value + hp[name] * each[name]
    return value, each


def bounded(names, hp, params):
    """The discriminator's parameters, within what is asked of them."""
    rules = [
        functools.partial(bound, most=hp[n]) for n in names if (bound := REGULARIZERS[n].bound)
    ]
    return functools.reduce(lambda params, rule: rule(params), rules, params)
