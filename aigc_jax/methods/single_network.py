"""The training step of methods with one trained network, defined by their loss."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from aigc_jax.core.method import Array, PyTree, TrainState
from aigc_jax.core.rng import fold_in
from aigc_jax.methods import optimizers


def initial_state(
    key: Array,
    hp: dict[str, Array],
    params: dict[str, PyTree],
    optimizer: Callable,
    trained: str = "net",
    extra: Mapping[str, PyTree] | None = None,
) -> TrainState:
    """Return the state before the first step, for parameters {name: ...}. Only the
    parameters under `trained` have an optimiser state.
    """
    opt = {trained: optimizer(hp["lr"], hp, 0).init(params[trained])}
    return TrainState(jnp.int32(0), key, params, opt, dict(extra or {}), hp)


def single_network_step(
    make_loss: Callable,
    optimizer: Callable,
    gradients: Callable,
    trained: str = "net",
    rows: tuple[str, ...] = (),
    update_extra: Callable | None = None,
) -> Callable:
    """Return (TrainState, batch) -> (TrainState, {name: []}): one update of the
    parameters under `trained`.

    Args:
      make_loss: (state, batch, key) -> (loss, batch), where loss(params, batch, key) ->
        ([], metrics) is a mean over the examples of any part of the returned batch.
      optimizer: (lr, hp, step) -> optax transformation.
      gradients: as `core.gradients.mean_gradients`.
      trained: name of the trained parameters.
      rows: names of metrics with one row per example.
      update_extra: (state, {name: rows}, key) -> (new state.extra, further metrics),
        called if `rows` is not empty.
    """

    def step(state, batch):
        hp, key = state.hp, fold_in(state.key, state.step)
        loss, inputs = make_loss(state, batch, key)
        loss_of_trained = lambda part, batch, key: loss(state.params | {trained: part}, batch, key)
        grads, metrics = gradients(loss_of_trained, state.params[trained], inputs, key, rows=rows)
        extra, further = state.extra, {}
        if update_extra and rows:
            extra, further = update_extra(state, {name: metrics.pop(name) for name in rows}, key)
        params, opt = optimizers.apply_updates(
            optimizer(hp["lr"], hp, state.step), grads, state.opt[trained], state.params[trained]
        )
        state = state.replace(
            step=state.step + 1,
            params=state.params | {trained: params},
            opt={trained: opt},
            extra=extra,
        )
        return state, metrics | further

    return step
