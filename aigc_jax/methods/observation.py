"""What pictures are to a likelihood p(x | z): shared by the methods that have a
decoder.

Bernoulli likelihoods see pictures in [0, 1], all others in [-1, 1]. With
config.binarize = "dynamic" grey levels are probabilities, from which black and white is
drawn anew each step (Salakhutdinov & Murray 2008).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aigc_jax.core.rng import EVALUATE, fold
from aigc_jax.methods.losses import likelihoods
from aigc_jax.methods.networks import working
from aigc_jax.utils.errors import choose, require

BINARIZE = ("none", "dynamic")


class Observation(NamedTuple):
    """What a likelihood p(x | z) takes from a batch, returns, and shows as images."""

    scale: str  # of the `methods.losses.likelihoods.Likelihood`
    target: Callable  # (batch, key) -> x [B, *shape], whose likelihood is meant
    # (hp, x [B, *shape], location [..., B, *shape], scale) -> log p(x | z) [..., B]
    log_prob: Callable
    # real numbers [..., *shape] -> the range of x: (0, 1), (-1, 1), or of points all
    squash: Callable
    picture: Callable  # location -> the expected picture, in [-1, 1]
    show: Callable  # x -> itself, in [-1, 1]
    bits: float  # dimensions times log 2 where bits per dimension mean something, else 0


def held_out(config):
    """The key by which held-out pictures become black and white: once and for all,
    alike for every trial.
    """
    return fold(jax.random.key(config.data.seed), EVALUATE)


def observe(config, spec) -> Observation:
    """config.likelihood and config.binarize for data of the given spec; a UserError
    where they do not go together.
    """
    likelihood, dtype = (
        choose(likelihoods.LIKELIHOODS, config.likelihood, "config.likelihood"),
        working(config),
    )
    choose(dict.fromkeys(BINARIZE), config.binarize, "config.binarize")
    black, name = config.likelihood == "bernoulli", f"config.data.name = {config.data.name!r}"
    if black:
        require(
            spec.levels == 1 or (config.binarize == "dynamic" and spec.kind == "image"),
            f"config.likelihood = 'bernoulli' is for black and white, and {name} is not: "
            "config.binarize = 'dynamic' draws such "
            "pictures from grey ones, config.data.name = 'binarized_mnist' has them",
        )
    else:
        require(
            config.binarize == "none",
            f"config.binarize = {config.binarize!r} goes with config.likelihood = "
            f"'bernoulli', not {config.likelihood!r}",
        )
        require(
            spec.levels or not likelihood.discrete,
            f"config.likelihood = {config.likelihood!r} is for whole grey levels, and "
            f"{name} has none",
        )
    axes = tuple(range(-len(spec.shape), 0))

    def target(batch, key):
        x = ((batch["x"] + 1) / 2 if black else batch["x"]).astype(dtype)
        if config.binarize == "none":
            return x
        uniform = jax.vmap(lambda i: jax.random.uniform(fold(key, i), spec.shape, dtype))(
            batch["index"]
        )
        return (uniform < x).astype(dtype)

    def log_prob(hp, x, location, scale):
        scale = 2 * jnp.log(hp["sigma"]) if likelihood.scale == "hp" else scale
        return likelihood.log_prob(x, location, scale, spec.levels).sum(axes)

    def show(x):
        return 2 * x - 1 if black else x

    bits = math.log(2) * math.prod(spec.shape) if likelihood.discrete and not black else 0.0
    squash = jax.nn.sigmoid if black else jnp.tanh if spec.kind == "image" else lambda x: x
    return Observation(
        likelihood.scale,
        target,
        log_prob,
        squash,
        lambda location: show(likelihood.mean(location)),
        show,
        bits,
    )
