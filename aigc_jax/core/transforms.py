"""Four transforms of a step: `feed_batches`, `repeat_steps`, `vectorize` and `shard`
turn it into one compiled program that trains any number of trials for any number of
steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aigc_jax.core import axes
from aigc_jax.core.method import PyTree
from aigc_jax.core.rng import SAMPLE, fold_in


def traced_once(f: Callable) -> Callable:
    """Return f, traced once for all calls with the same shapes and inlined into the
    program that calls it.
    """
    return jax.jit(lambda *args: f(*args), inline=True)  # jit's cache is keyed by identity


def feed_batches(step: Callable, source: Callable) -> Callable:
    """Turn (state, batch) -> ... into (state, arrays) -> ..., which takes its batch,
    source(arrays, key, step), inside the program.
    """
    return lambda state, arrays: step(state, source(arrays, state.key, state.step))


def repeat_steps(step: Callable, capacity: int = 1024) -> Callable:
    """Return (state, arrays, n) -> (state, metrics [capacity]), which does n steps. n
    is traced, so that one program serves every length; it must not exceed the capacity.

    Row i of the metrics is that of the i-th of these steps; rows from n on are zero.
    """

    def run(state, arrays, n):
        once = traced_once(step)
        shapes = jax.eval_shape(once, state, arrays)[1]
        buffer = jax.tree.map(lambda s: jnp.zeros((capacity, *s.shape), s.dtype), shapes)

        def body(i, carry):
            state, buffer = carry
            state, metrics = once(state, arrays)
            return state, jax.tree.map(lambda b, m: b.at[i].set(m), buffer, metrics)

        return jax.lax.fori_loop(0, n, body, (state, buffer))

    return run


def evaluate_batches(
    evaluate: Callable, take: Callable, batch_size: int, constrain: Callable = lambda batch: batch
) -> Callable:
    """Return (state, arrays, start, count, first, last) -> sums of `evaluate` over the
    batches first .. last - 1 of the split in rows start .. start + count - 1 of the
    arrays.

    The last batch of the split is padded with its last row at weight 0. All four
    numbers are traced, so that one program serves every split.
    """

    def run(state, arrays, start, count, first, last):
        once = traced_once(evaluate)

        def batch(i):
            index = i * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
            rows = start + jnp.minimum(index, count - 1)
            places = constrain(
                dict(rows=rows, index=index, weight=(index < count).astype(jnp.float32))
            )
            return constrain(take(arrays, places.pop("rows"))) | places

        def body(i, sums):
            return jax.tree.map(jnp.add, sums, once(state, batch(i)))

        shapes = jax.eval_shape(lambda: once(state, batch(first)))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(first, last, body, zero)

    return run


def sample_batch(
    sampler: Callable, take: Callable, constrain: Callable = lambda batch: batch
) -> Callable:
    """Return (state, arrays, seed, rows [B], index [B], class [B]) -> samples [B, ...],
    conditioned on these rows of the arrays, or of these classes.

    A sample depends only on the state's key, the user's seed, its index and its row or
    class, not on how many are drawn at once.
    """

    def run(state, arrays, seed, rows, index, label):
        places = constrain({"rows": rows, "index": index, "class": label})
        batch = constrain(take(arrays, places.pop("rows"))) | places
        return sampler(state, fold_in(state.key, SAMPLE, seed), batch)

    return run


ROUTES = {
    "vmap": lambda g, states, chunk: (
        jax.lax.map(g, states, batch_size=chunk) if chunk else jax.vmap(g)(states)
    ),
    "map": lambda g, states, chunk: jax.lax.map(g, states),
}


def vectorize(f: Callable, route: str = "vmap", chunk: int = 0) -> Callable:
    """Return f(state, ...) for states with a leading trial axis [N, ...]; all trials
    share the arguments after the state.

    Args:
      f: (state, ...) -> results, for one trial.
      route: "vmap" runs all trials at once, or chunks of them sequentially; "map" runs
        the trials sequentially, in the same program.
      chunk: trials of a chunk for "vmap"; 0: all trials at once.
    """
    apply = ROUTES[route]
    return lambda states, *rest: apply(lambda state: f(state, *rest), states, chunk)


def per_device(f: Callable, mesh: Mesh) -> Callable:
    """Return a vectorized f(states, *rest) that each device of a mesh runs on its part
    of the examples, with the collectives of `axes`. Equivalent to jax.pmap, which since
    JAX 0.8 is a shard_map too.
    """

    def run(*args):
        with axes.data_axis("data"):
            return f(*args)

    return jax.shard_map(
        run, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
    )


def shard(
    f: Callable, mesh: Mesh, specs: PyTree, arrays: PyTree, rest: int, donate: bool = False
) -> Callable:
    """Return the jit of a vectorized f(states, arrays, *rest) over a mesh, with results
    sharded along the trial axis.

    Each part of the trial axis runs f on its own trials by a shard_map: XLA would not
    partition a loop over that axis, and partitions the VQ-VAE incorrectly on CPUs
    (docs/LOG.md).

    Args:
      f: (states, arrays, *rest) -> results with a leading trial axis.
      mesh: a mesh with the axes of `core.mesh.AXES`.
      specs: PartitionSpecs of the states.
      arrays: shardings of the arrays.
      rest: number of further arguments, which are replicated.
      donate: reuse the states' buffers for the new states, the first of the results.
    """
    if mesh.shape["trial"] > 1:
        f = jax.shard_map(
            f,
            mesh=mesh,
            in_specs=(PartitionSpec("trial"), *(PartitionSpec(),) * (1 + rest)),
            out_specs=PartitionSpec("trial"),
            axis_names={"trial"},
            check_vma=False,
        )
    states = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )
    trial, everywhere = (
        NamedSharding(mesh, PartitionSpec("trial")),
        NamedSharding(mesh, PartitionSpec()),
    )
    return jax.jit(
        f,
        in_shardings=(states, arrays, *(everywhere,) * rest),
        out_shardings=(states, trial) if donate else trial,
        donate_argnums=(0,) if donate else (),
    )
