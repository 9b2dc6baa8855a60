"""Four transforms of a step: `feed_batches`, `repeat_steps`, `vectorize` and
`jit_sharded` turn it into one compiled program that trains any number of trials for any
number of steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aigc_jax.core import axes
from aigc_jax.core.method import PyTree
from aigc_jax.core.rng import sample_key


def trace_once(f: Callable) -> Callable:  # jitted and inlined
    """Return f, traced once for all calls with the same shapes and inlined into the
    program that calls it.
    """
    return jax.jit(lambda *args: f(*args), inline=True)  # jit's cache is keyed by identity


def feed_batches(step: Callable, take_batch: Callable) -> Callable:  # (state, arrays) -> ...
    """Turn a step (state, batch) -> ... into (state, arrays) -> ..., which takes its
    batch, source(arrays, state.key, state.step), inside the program.
    """
    return lambda state, arrays: step(state, take_batch(arrays, state.key, state.step))


def repeat_steps(
    step: Callable, max_steps: int = 1024
) -> Callable:  # (state, arrays, n) -> (state, metrics [max_steps, ...])
    """Return (state, arrays, n) -> (state, metrics [max_steps, ...]), which does n
    steps. n is traced, so that one program serves every length; it must not exceed
    max_steps.

    Row i of the metrics is that of the i-th of these steps; rows from n on are zero.

    Args:
      step: (state, arrays) -> (state, {name: metric}).
      max_steps: the most steps of a call, and rows of the metrics.
    """

    def run(state, arrays, n):
        once = trace_once(step)
        shapes = jax.eval_shape(once, state, arrays)[1]
        buffer = jax.tree.map(lambda s: jnp.zeros((max_steps, *s.shape), s.dtype), shapes)

        def body(i, carry):
            state, buffer = carry
            state, metrics = once(state, arrays)
            return state, jax.tree.map(lambda b, m: b.at[i].set(m), buffer, metrics)

        return jax.lax.fori_loop(0, n, body, (state, buffer))

    return run


def evaluate_batches(
    evaluate: Callable,
    take_rows: Callable,
    batch_size: int,
    constrain_batch: Callable[[PyTree], PyTree] = lambda batch: batch,
) -> Callable:  # (state, arrays, start, count, first, last) -> sums
    """Return (state, arrays, start, count, first, last) -> sums of `evaluate` over the
    batches first .. last - 1 of the split in rows start .. start + count - 1 of the
    arrays.

    The last batch of the split is padded with its last row at weight 0. All four
    numbers are traced, so that one program serves every split.

    Args:
      evaluate: (state, batch) -> sums, as `Method.evaluate`; the batch also has `index`
        [B], the place in the split, and `weight` [B].
      take_rows: (arrays, rows [B]) -> batch, as `Dataset.take`.
      batch_size: examples of a batch, B.
      constrain_batch: shards a batch over the devices; by default the identity.
    """

    def run(state, arrays, start, count, first, last):
        once = trace_once(evaluate)

        def batch(i):
            index = i * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
            rows = start + jnp.minimum(index, count - 1)
            places = constrain_batch(
                dict(rows=rows, index=index, weight=(index < count).astype(jnp.float32))
            )
            return constrain_batch(take_rows(arrays, places.pop("rows"))) | places

        def body(i, sums):
            return jax.tree.map(jnp.add, sums, once(state, batch(i)))

        shapes = jax.eval_shape(lambda: once(state, batch(first)))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(first, last, body, zero)

    return run


def sample_batch(
    sampler: Callable,
    take_rows: Callable,
    constrain_batch: Callable[[PyTree], PyTree] = lambda batch: batch,
) -> Callable:  # (state, arrays, seed, rows [B], places) -> [B, ...]
    """Return (state, arrays, seed, rows [B], places) -> samples [B, ...], conditioned
    on these rows of the arrays, or of these classes. The places are {"index": [B],
    "class": [B]}, and "latents" [B, Z] for a sampler whose latents are set.

    A sample depends only on the state's key, the user's seed, its index, its row or
    class and its latents, not on how many are drawn at once.

    Args:
      sampler: (state, key, batch) -> samples, as `Sampler.draw`.
      take_rows: (arrays, rows [B]) -> batch, as `Dataset.take`.
      constrain_batch: shards a batch over the devices; by default the identity.
    """

    def run(state, arrays, seed, rows, places):
        places = constrain_batch({"rows": rows} | places)
        batch = constrain_batch(take_rows(arrays, places.pop("rows"))) | places
        return sampler(state, sample_key(state.key, seed), batch)

    return run


ROUTES = {
    "vmap": lambda g, states, chunk: (
        jax.lax.map(g, states, batch_size=chunk) if chunk else jax.vmap(g)(states)
    ),
    "map": lambda g, states, chunk: jax.lax.map(g, states),
}


def vectorize(
    f: Callable, route: str = "vmap", chunk_size: int = 0
) -> Callable:  # (states [N, ...], ...) -> results [N, ...]
    """Return f(state, ...) for states with a leading trial axis [N, ...]; all trials
    share the arguments after the state.

    Args:
      f: (state, ...) -> results, for one trial.
      route: "vmap" runs all trials at once, or chunks of them sequentially; "map" runs
        the trials sequentially, in the same program.
      chunk_size: trials of a chunk for "vmap"; 0: all trials at once.
    """
    apply = ROUTES[route]
    return lambda states, *rest: apply(lambda state: f(state, *rest), states, chunk_size)


def per_device(f: Callable, mesh: Mesh) -> Callable:  # with f's signature
    """Return a vectorized f(states, *rest) that each device of a mesh runs on its part
    of the examples, with the collectives of `axes`. Equivalent to jax.pmap, which since
    JAX 0.8 is a shard_map too.

    Args:
      f: (states, *rest) -> results, with a leading trial axis; the results must be
        equal on all devices.
      mesh: a mesh with an axis `data`.
    """

    def run(*args):
        with axes.data_axis("data"):
            return f(*args)

    return jax.shard_map(
        run, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
    )


def jit_sharded(
    f: Callable,
    mesh: Mesh,
    state_specs: PyTree,
    array_shardings: PyTree,
    num_rest: int,
    donate_states: bool = False,
) -> Callable:  # (states, arrays, *rest) -> results of f
    """Return the jit of a vectorized f(states, arrays, *rest) over a mesh, with results
    sharded along the trial axis.

    Each part of the trial axis runs f on its own trials by a shard_map: XLA would not
    partition a loop over that axis, and partitions the VQ-VAE incorrectly on CPUs
    (docs/design/log.md).

    Args:
      f: (states, arrays, *rest) -> results with a leading trial axis.
      mesh: a mesh with the axes of `core.mesh.AXES`.
      state_specs: PartitionSpecs of the states.
      array_shardings: shardings of the arrays.
      num_rest: number of further arguments, which are replicated.
      donate_states: reuse the states' buffers for the new states, the first of the
        results.
    """
    if mesh.shape["trial"] > 1:
        f = jax.shard_map(
            f,
            mesh=mesh,
            in_specs=(PartitionSpec("trial"), *(PartitionSpec(),) * (1 + num_rest)),
            out_specs=PartitionSpec("trial"),
            axis_names={"trial"},
            check_vma=False,
        )
    states = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        state_specs,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )
    trial, everywhere = (
        NamedSharding(mesh, PartitionSpec("trial")),
        NamedSharding(mesh, PartitionSpec()),
    )
    return jax.jit(
        f,
        in_shardings=(states, array_shardings, *(everywhere,) * num_rest),
        out_shardings=(states, trial) if donate_states else trial,
        donate_argnums=(0,) if donate_states else (),
    )
