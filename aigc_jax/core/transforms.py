"""Four transforms of a step: feed, repeat, vectorize and shard make of it the one
compiled program that trains any number of trials for any number of steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aigc_jax.core import axes
from aigc_jax.core.method import PyTree
from aigc_jax.core.rng import SAMPLE, fold


def traced_once(f: Callable) -> Callable:
    """f, whose operations are found once for all calls with the same shapes, and which
    leaves no call of its own in the program.
    """
    return jax.jit(lambda *args: f(*args), inline=True)  # jit knows functions by identity


def feed(step: Callable, source: Callable) -> Callable:
    """(state, batch) -> ... becomes (state, arrays) -> ...: the batch is source(arrays,
    key, step), inside the program.
    """
    return lambda state, arrays: step(state, source(arrays, state.key, state.step))


def repeat(step: Callable, capacity: int = 1024) -> Callable:
    """(state, arrays, n) -> (state, metrics [capacity]): n steps, n traced, so that
    every length is the same program.

    Row i of the metrics is that of the i-th of these steps; rows from n on are zero. n
    must not exceed the capacity.
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


def total(
    evaluate: Callable, take: Callable, batch_size: int, lay: Callable = lambda batch: batch
) -> Callable:
    """(state, arrays, start, count, first, last) -> sums of `evaluate` over rows start
    .. start + count of the arrays, in batches, of which it does those from `first` on
    up to `last`.

    The very last batch is filled up with the last row at weight 0. All four are traced:
    every split is the same program.
    """

    def run(state, arrays, start, count, first, last):
        once = traced_once(evaluate)

        def batch(i):
            index = i * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
            rows = start + jnp.minimum(index, count - 1)
            places = lay(dict(rows=rows, index=index, weight=(index < count).astype(jnp.float32)))
            return lay(take(arrays, places.pop("rows"))) | places

        def body(i, sums):
            return jax.tree.map(jnp.add, sums, once(state, batch(i)))

        shapes = jax.eval_shape(lambda: once(state, batch(first)))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(first, last, body, zero)

    return run


def draw(sampler: Callable, take: Callable, lay: Callable = lambda batch: batch) -> Callable:
    """(state, arrays, seed, rows [B], index [B], class [B]) -> samples [B, ...],
    conditioned on these rows of the arrays, or of these classes.

    A sample depends on the state's key, the user's seed, its index and its row or class
    alone, not on how many are drawn at once.
    """

    def run(state, arrays, seed, rows, index, label):
        places = lay({"rows": rows, "index": index, "class": label})
        batch = lay(take(arrays, places.pop("rows"))) | places
        return sampler(state, fold(state.key, SAMPLE, seed), batch)

    return run


ROUTES = {
    "vmap": lambda g, states, chunk: (
        jax.lax.map(g, states, batch_size=chunk) if chunk else jax.vmap(g)(states)
    ),
    "map": lambda g, states, chunk: jax.lax.map(g, states),
}


def vectorize(f: Callable, route: str = "vmap", chunk: int = 0) -> Callable:
    """f(state, ...) for states with a leading trial axis [N, ...]; what follows the
    state is shared by the trials.

    vmap: all trials at once, or a chunk of so many after another. map: one whole call
    after another, in the same program.
    """
    apply = ROUTES[route]
    return lambda states, *rest: apply(lambda state: f(state, *rest), states, chunk)


def on_each(f: Callable, mesh: Mesh) -> Callable:
    """A vectorized f(states, *rest) run by each device of a mesh on its part of the
    examples, with what `axes` has them tell each other: what jax.pmap does, which
    since JAX 0.8 is a shard_map too, on a mesh that others share.
    """

    def run(*args):
        with axes.mapped("data"):
            return f(*args)

    return jax.shard_map(
        run, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
    )


def shard(
    f: Callable, mesh: Mesh, specs: PyTree, arrays: PyTree, rest: int, donate: bool = False
) -> Callable:
    """jit of a vectorized f(states, arrays, *rest) over a mesh: the states laid out by
    `specs`, the arrays by the shardings `arrays`, the `rest` further arguments
    replicated, what comes out divided along the trial axis. Each part of that axis runs
    f on its own trials: a loop over it would not be divided otherwise, and what XLA
    divides by itself it gets wrong for the VQ-VAE on CPUs (docs/LOG.md).

    donate: the states' buffers are reused for the first part of the result, which is
    the new states.
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
