"""Optimisers and schedules as functions of traced hyper-parameters: learning rates are
data of a compiled program.

An optimiser is rebuilt from `state.hp` inside the traced step; only the optimiser state
persists between steps.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from aigc_jax.core.method import Array, PyTree
from aigc_jax.core.trees import upcast_to_float32
from aigc_jax.methods import hparams, norms
from aigc_jax.methods.schedules import SCHEDULES
from aigc_jax.utils.errors import UserError, choose, join_names, require


def clip_by_global_norm(max_norm: Array) -> optax.GradientTransformation:
    """Return the clipping of gradients to a global norm of at most `max_norm` (Pascanu
    et al. 2013, algorithm 1); 0 disables clipping.

    Equivalent to optax.clip_by_global_norm, but squares are summed 32 rows at a time:
    on CPUs XLA sums longer axes in a tree of small windows, which took a tenth of the
    step of a small GPT. Columns are not mixed: they may be sharded over devices.
    """

    def squares(g):  # [...] -> []
        total = g.reshape(-1, g.shape[-1] if g.ndim > 1 else 1) ** 2
        while len(total) > 32 and len(total) % 32 == 0:
            total = total.reshape(32, -1, total.shape[-1]).sum(0)
        return total.sum()

    def update(grads, state, params=None):
        norm = jnp.sqrt(sum(map(squares, jax.tree.leaves(grads))))
        factor = jnp.where(max_norm > 0, jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-30)), 1.0)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def adam(lr: Array, hp: dict[str, Array], eps: float = 1e-8) -> optax.GradientTransformation:
    """Return Adam: -lr m / (sqrt(v) + eps), where m and v are the bias-corrected moving
    averages of gradients and their squares (Kingma & Ba 2015, algorithm 1).

    Args:
      lr: learning rate [].
      hp: hyper-parameters, with the decays "beta1" of m and "beta2" of v.
      eps: added to the square root.
    """
    return optax.adam(lr, b1=hp["beta1"], b2=hp["beta2"], eps=eps)


def adamw(lr: Array, hp: dict[str, Array]) -> optax.GradientTransformation:
    """Return Adam with decoupled weight decay, -lr (m / (sqrt(v) + eps) + decay w)
    (Loshchilov & Hutter 2019), after clipping by global norm.

    Weight decay applies to kernels and embeddings, not to biases, normalization scales
    and low-rank adaptations. 0 as hp.grad_clip disables clipping.
    """
    decayed = lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key.endswith(("kernel", "embedding")), params
    )
    return optax.chain(
        clip_by_global_norm(hp["grad_clip"]),
        optax.adamw(
            lr, b1=hp["beta1"], b2=hp["beta2"], weight_decay=hp["weight_decay"], mask=decayed
        ),
    )


def adagrad(lr: Array, hp: dict[str, Array]) -> optax.GradientTransformation:
    """Return Adagrad: -lr g / sqrt(s + 1e-7), where s is the sum of all squared
    gradients (Duchi et al. 2011, figure 1); 0 where s is 0.
    """
    return optax.adagrad(lr, initial_accumulator_value=0.0)


def rmsprop(lr: Array, hp: dict[str, Array]) -> optax.GradientTransformation:
    """Return RMSProp: -lr g / sqrt(v + 1e-8), v = beta2 v + (1 - beta2) g^2, initially
    0 (Tieleman & Hinton 2012).

    The 1e-8 is inside the square root, as in optax and TensorFlow; in PyTorch it is
    outside, -lr g / (sqrt(v) + 1e-8).
    """
    return optax.rmsprop(lr, decay=hp["beta2"])


def sgd(lr: Array, hp: dict[str, Array]) -> optax.GradientTransformation:
    """Return SGD with undamped momentum: -lr m, m = beta1 m + g, initially 0 (Polyak
    1964; as in PyTorch).
    """
    return optax.sgd(lr, momentum=hp["beta1"])


class Optimizer(NamedTuple):
    """An update rule and the hyper-parameters that the rule reads."""

    # (learning rate [] of the step, hp) -> optax transformation
    make: Callable[[Array, dict[str, Array]], optax.GradientTransformation]
    hparams: tuple[str, ...]  # names of the entries of hp that `make` reads


RULES: dict[str, Callable] = {
    "adam": adam,
    "adam_1e-4": partial(adam, eps=1e-4),  # Burda et al. 2016, section 5
    "adamw": adamw,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
OPTIMIZERS = {
    name: Optimizer(rule, hparams.OPTIMIZERS[name].hparams) for name, rule in RULES.items()
}


# config.optimizer_dtype -> dtype of the optimiser state; None: that of the parameters
MOMENTS = {"": None, "bfloat16": jnp.bfloat16}


def with_state_dtype(
    optimizer: optax.GradientTransformation, dtype: Any | None = None
) -> optax.GradientTransformation:
    """Return an optimiser whose state is stored in `dtype` (by default the dtype of the
    parameters) and updated in float32 at least.
    """
    narrow = lambda x: x.astype(dtype) if dtype and jnp.issubdtype(x.dtype, jnp.floating) else x

    def update(grads, state, params=None):
        updates, new = optimizer.update(upcast_to_float32(grads), upcast_to_float32(state), params)
        return updates, jax.tree.map(lambda x, old: x.astype(old.dtype), new, state)

    return optax.GradientTransformation(
        lambda params: jax.tree.map(narrow, optimizer.init(params)), update
    )


class ConfiguredOptimizer(NamedTuple):
    """The optimiser of a config, and the norms that its steps report."""

    # (lr, hp, step) -> optax transformation, of the peak learning rate [], which the
    # schedule multiplies, the hyper-parameters {name: []}, and the number [] of steps
    # done
    make: Callable[[Array, dict[str, Array], Array | int], optax.GradientTransformation]
    measure_norms: norms.MeasureNorms  # as `norms.make_norms` returns

    def __call__(
        self, lr: Array, hp: dict[str, Array], step: Array | int
    ) -> optax.GradientTransformation:
        """Return the transformation of a step, as `make` does."""
        return self.make(lr, hp, step)


def make_optimizer(config: ConfigDict) -> ConfiguredOptimizer:
    """Return the optimiser of config.optimizer, config.schedule, config.steps,
    config.optimizer_dtype, config.frozen and config.run.log_norms.

    Raises:
      UserError: if one of these keys has an unknown value, the warm-up is not shorter
        than the run, or config.frozen is no regular expression.
    """
    rule = choose(OPTIMIZERS, config.optimizer, "config.optimizer").make
    schedule = choose(SCHEDULES, config.schedule.name, "config.schedule.name")
    end, warmup = config.steps, config.schedule.warmup
    require(
        warmup < end, f"config.schedule.warmup = {warmup} steps must be below config.steps = {end}"
    )
    state_dtype = choose(MOMENTS, config.optimizer_dtype, "config.optimizer_dtype")
    update = lambda lr, hp, step: with_state_dtype(
        rule(lr * schedule(step, end, warmup), hp), state_dtype
    )
    measure = norms.make_norms(config)
    if not config.frozen:
        return ConfiguredOptimizer(update, measure)
    is_frozen = make_frozen_mask(config)
    labels = lambda params: jax.tree.map({False: "trained", True: "frozen"}.get, is_frozen(params))
    partly = lambda *now: optax.multi_transform(
        dict(trained=update(*now), frozen=optax.set_to_zero()), labels
    )
    return ConfiguredOptimizer(partly, measure)


def make_frozen_mask(config: ConfigDict) -> Callable[[PyTree], PyTree]:
    """Return params -> a tree of bool: whether each parameter is frozen because its
    path, such as layer_0/kernel, contains a match of config.frozen; '' freezes none.

    Raises:
      UserError: if config.frozen is no regular expression.
    """
    try:
        pattern = re.compile(config.frozen)
    except re.error as e:
        raise UserError(
            f"config.frozen = {config.frozen!r} is not a regular expression: {e}"
        ) from None
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: bool(config.frozen and pattern.search(name(path))), params
    )


def check_frozen_pattern(config: ConfigDict, params: PyTree) -> None:
    """Raise a UserError if config.frozen matches all of a method's {network:
    parameters}, or is not empty and matches none.
    """
    is_frozen = jax.tree.leaves(
        {name: make_frozen_mask(config)(net) for name, net in params.items()}
    )
    require(
        not all(is_frozen),
        f"config.frozen = {config.frozen!r} matches all parameters: no parameter is left to train",
    )
    paths = jax.tree_util.tree_leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    require(
        any(is_frozen) or not config.frozen,
        f"config.frozen = {config.frozen!r} matches no parameter path "
        f"after the network's name; the paths are {join_names(names)}",
    )


def apply_gradients(
    optimizer: optax.GradientTransformation, grads: PyTree, opt_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:  # -> params, opt_state
    """Return (new params, new optimiser state) after one update.

    Args:
      optimizer: the transformation of this step; its hyper-parameters may differ from
        those of the step before.
      grads: the gradient, a tree like `params`.
      opt_state: the optimiser state, of `optimizer.init` or the step before.
      params: the parameters before the update.
    """
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def update_ema(average: PyTree, new: PyTree, max_decay: Array, step: Array | int) -> PyTree:
    """Return the exponential moving average d * average + (1 - d) * new of every leaf,
    with d = min(max_decay, (1 + step) / (10 + step)).

    The bound discards the untrained initial weights in short runs too: after `step`
    steps the average covers about the last tenth of the steps.

    Args:
      average: the average so far; it determines the dtypes.
      new: the values after the step, a tree like `average`.
      max_decay: upper bound [] of d, in [0, 1).
      step: number [] of steps done before this one.
    """
    decay = jnp.minimum(max_decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda m, n: (decay * m + (1 - decay) * n).astype(m.dtype), average, new)
