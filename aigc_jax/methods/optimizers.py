"""Optimisers and schedules as functions of traced hyper-parameters: a learning rate is
data, not code.

An optimiser is rebuilt from `state.hp` inside the traced step; only its state lives
between steps.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from aigc_jax.core.hparams import READ_BY
from aigc_jax.core.trees import widen
from aigc_jax.methods.schedules import SCHEDULES
from aigc_jax.utils.errors import UserError, choose, listing, require


def clip(most):
    """Gradients whose joint norm is above `most` scaled to it (Pascanu et al. 2013,
    algorithm 1); 0 leaves all as they are. As optax's, with the squares summed 32 rows
    at a time: on CPUs XLA sums what is longer in a tree of small windows, which took a
    tenth of a small GPT's step. Columns stay apart: they may lie on several devices.
    """

    def squares(g):  # [...] -> []
        total = g.reshape(-1, g.shape[-1] if g.ndim > 1 else 1) ** 2
        while len(total) > 32 and len(total) % 32 == 0:
            total = total.reshape(32, -1, total.shape[-1]).sum(0)
        return total.sum()

    def update(grads, state, params=None):
        norm = jnp.sqrt(sum(map(squares, jax.tree.leaves(grads))))
        factor = jnp.where(most > 0, jnp.minimum(1.0, most / jnp.maximum(norm, 1e-30)), 1.0)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def adam(lr, hp, eps=1e-8):
    """-lr m / (sqrt(v) + eps), m and v the bias-corrected moving averages of gradients
    and their squares (Kingma & Ba 2015, algorithm 1).
    """
    return optax.adam(lr, b1=hp["beta1"], b2=hp["beta2"], eps=eps)


def adamw(lr, hp):
    """Adam with decoupled weight decay, -lr (m / (sqrt(v) + eps) + decay w) (Loshchilov
    & Hutter 2019), after clipping of the gradients' joint norm. Decayed are weights
    that multiply: kernels and embeddings; not biases nor the scales of norms.
    """
    decayed = lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key.endswith(("kernel", "embedding")), params
    )
    return optax.chain(
        clip(hp["clip"]),
        optax.adamw(
            lr, b1=hp["beta1"], b2=hp["beta2"], weight_decay=hp["weight_decay"], mask=decayed
        ),
    )


def adagrad(lr, hp):
    """-lr g / sqrt(s + 1e-7), s the sum of all squared gradients (Duchi et al. 2011,
    figure 1); 0 where s is 0.
    """
    return optax.adagrad(lr, initial_accumulator_value=0.0)


def rmsprop(lr, hp):
    """-lr g / sqrt(v + 1e-8), v = beta2 v + (1 - beta2) g^2 from 0 (Tieleman & Hinton
    2012). The 1e-8 stands inside the root, as in optax and TensorFlow; PyTorch's stands
    outside, -lr g / (sqrt(v) + 1e-8).
    """
    return optax.rmsprop(lr, decay=hp["beta2"])


def sgd(lr, hp):
    """-lr m, m = beta1 m + g from 0: undamped momentum (Polyak 1964; PyTorch's)."""
    return optax.sgd(lr, momentum=hp["beta1"])


class Optimizer(NamedTuple):
    """An update rule, and the hyper-parameters that it reads."""

    make: Callable  # (lr, hp) -> optax transformation
    hparams: tuple[str, ...]  # what it reads of hp, names of `core.keys.HP`


RULES: dict[str, Callable] = {
    "adam": adam,
    "adam_1e-4": partial(adam, eps=1e-4),  # Burda et al. 2016, section 5
    "adamw": adamw,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
OPTIMIZERS = {name: Optimizer(rule, READ_BY["optimizer"][name]) for name, rule in RULES.items()}


# config.moments -> dtype of an optimiser's state
MOMENTS = {"": None, "bfloat16": jnp.bfloat16}


def stored(rule, dtype=None):
    """An optimiser whose state lies in `dtype`, or in that of the parameters, and is
    worked on in float32 where that is narrower.
    """
    narrow = lambda x: x.astype(dtype) if dtype and jnp.issubdtype(x.dtype, jnp.floating) else x

    def update(grads, state, params=None):
        updates, new = rule.update(widen(grads), widen(state), params)
        return updates, jax.tree.map(lambda x, old: x.astype(old.dtype), new, state)

    return optax.GradientTransformation(
        lambda params: jax.tree.map(narrow, rule.init(params)), update
    )


def make(config):
    """`optimizer(lr, hp, step) -> optax transformation` of a config with `optimizer`,
    `schedule` and `steps`.
    """
    rule = choose(OPTIMIZERS, config.optimizer, "config.optimizer").make
    schedule = choose(SCHEDULES, config.schedule.name, "config.schedule.name")
    end, warmup = config.steps, config.schedule.warmup
    require(
        warmup < end, f"config.schedule.warmup = {warmup} steps must be below config.steps = {end}"
    )
    kept = choose(MOMENTS, config.moments, "config.moments")
    update = lambda lr, hp, step: stored(rule(lr * schedule(step, end, warmup), hp), kept)
    if not config.frozen:
        return update
    stays = frozen(config)
    labels = lambda params: jax.tree.map({False: "trained", True: "frozen"}.get, stays(params))
    return lambda *now: optax.multi_transform(
        dict(trained=update(*now), frozen=optax.set_to_zero()), labels
    )


def frozen(config):
    """params -> the same tree of whether each stays as it is: does its path, such as
    layer_0/kernel, match config.frozen?
    """
    try:
        pattern = re.compile(config.frozen)
    except re.error as e:
        raise UserError(
            f"config.frozen = {config.frozen!r} is no regular expression: {e}"
        ) from None
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: bool(config.frozen and pattern.search(name(path))), params
    )


def check_frozen(config, params):
    """Raise a UserError unless config.frozen leaves some of a method's {network:
    parameters} to train and, where it is given, matches some.
    """
    stays = jax.tree.leaves({name: frozen(config)(net) for name, net in params.items()})
    require(
        not all(stays),
        f"config.frozen = {config.frozen!r} matches all parameters: nothing is left to train",
    )
    paths = jax.tree_util.tree_leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    require(
        any(stays) or not config.frozen,
        f"config.frozen = {config.frozen!r} matches no parameter "
        f"after its first part; there are {listing(names)}",
    )


def apply(optimizer, grads, opt, params):
    """One update: (new params, new optimiser state)."""
    updates, opt = optimizer.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt


def average(mean, new, decay, step):
    """Exponential moving average, leaf by leaf: d * mean + (1 - d) * new with d =
    min(decay, (1 + step) / (10 + step)), so that in short runs too the first, untrained
    weights are forgotten: after `step` steps it holds about the last tenth of them.
    """
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda m, n: (decay * m + (1 - decay) * n).astype(m.dtype), mean, new)
