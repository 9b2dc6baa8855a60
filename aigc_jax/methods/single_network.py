"""The training step of methods with one trained network, defined by their loss."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from aigc_jax.core.method import Array, PyTree, TrainState
from aigc_jax.core.rng import fold_in
from aigc_jax.methods import optimizers


def make_initial_state(
    key: Array,
    hp: dict[str, Array],
    params: dict[str, PyTree],
    optimizer: optimizers.ConfiguredOptimizer,
    trained: str = "net",
    extra: Mapping[str, PyTree] | None = None,
) -> TrainState:
    """Return the state before the first step.

    Args:
      key: the key of the trial, stored as it is.
      hp: hyper-parameters, with the learning rate "lr".
      params: parameters {name: tree}.
      optimizer: of the config.
      trained: name of the trained parameters, which alone have an optimiser state.
      extra: the state's `extra`; None for {}.
    """
    opt = {trained: optimizer(hp["lr"], hp, 0).init(params[trained])}
    return TrainState(jnp.int32(0), key, params, opt, dict(extra or {}), hp)


def make_single_network_step(
    make_loss: Callable,
    optimizer: optimizers.ConfiguredOptimizer,
    gradients: Callable,
    trained: str = "net",
    row_metrics: tuple[str, ...] = (),
    update_extra: Callable | None = None,
) -> Callable[[TrainState, dict[str, Array]], tuple[TrainState, dict[str, Array]]]:
    """Return (TrainState, batch) -> (TrainState, metrics {name: []}): one update of the
    parameters under `trained`.

    Args:
      make_loss: (state, batch, key) -> (loss, batch), where loss(params, batch, key) ->
        ([], metrics) is a mean over the examples of any part of the returned batch.
        Its params are {name: tree}, and its key is that of the step.
      optimizer: of the config; the step's metrics include its norms.
      gradients: as `core.gradients.mean_gradients`.
      trained: name of the trained parameters.
      row_metrics: names of metrics with one row per example, which `update_extra`
        receives.
      update_extra: (state, {name: rows}, key) -> (new state.extra, further metrics),
        called if `row_metrics` is not empty; None leaves state.extra unchanged.
    """

    def step(state, batch):
        hp, key = state.hp, fold_in(state.key, state.step)
        loss, inputs = make_loss(state, batch, key)
        loss_of_trained = lambda part, batch, key: loss(state.params | {trained: part}, batch, key)
        grads, metrics = gradients(
            loss_of_trained, state.params[trained], inputs, key, per_example_aux=row_metrics
        )
        extra, further = state.extra, {}
        if update_extra and row_metrics:
            extra, further = update_extra(
                state, {name: metrics.pop(name) for name in row_metrics}, key
            )
        params, opt = optimizers.apply_gradients(
            optimizer(hp["lr"], hp, state.step), grads, state.opt[trained], state.params[trained]
        )
        norms = optimizer.measure_norms(grads, state.params[trained], params)
        state = state.replace(
            step=state.step + 1,
            params=state.params | {trained: params},
            opt={trained: opt},
            extra=extra,
        )
        return state, metrics | further | norms

    return step
