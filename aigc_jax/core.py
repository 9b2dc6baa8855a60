"""Four concepts and the functions that join them: a Method steps a TrainState; feed, repeat, vectorize and shard make of
one step the one compiled program that trains any number of trials for any number of steps.

Shapes: N trials, B batch, T time, D features, H heads or height, W width, C channels, Z latent, V vocabulary.
Keys:   a state's key never changes. What a key is for is folded in: the step's number, or one of the streams below.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from aigc_jax import layout
from aigc_jax.layout import axes

Array = jax.Array
PyTree = Any

# Streams of randomness beside the steps', whose numbers lie below 2^31.
INIT, DATA, EVALUATE, SAMPLE = (2**31 + i for i in range(4))


@flax.struct.dataclass
class TrainState:
    """A trial, whole: nothing else is needed to go on, the position in the data included."""

    step: Array  # []  steps done
    key: Array  # []  threefry; never advanced: the key of a step is fold_in(key, step)
    params: PyTree  # {"net": ...}, or {"g": ..., "d": ...}
    opt: PyTree  # the optimiser's state, under the same names
    extra: PyTree  # averaged weights, batch statistics, codebooks, a recurrent carry; {} where none
    hp: dict[str, Array]  # traced hyper-parameters, each []


class Language(NamedTuple):
    """What writing text needs of a method (`decode`)."""

    net: Any  # carry(batch, length), capacity, carry_axis
    apply: Callable  # (params, tokens [B, T], carry) -> (logits [B, T, V], carry)
    begin: Callable | None = None  # of what answers to a source: (params, source [B, S], mask [B, S], length) -> carry


class Method(NamedTuple):
    """All that the rest of the code knows of a GAN, a VAE or a language model: pure functions.

    A batch is a dict of arrays [B, ...] with `index` [B], which keys the noise of an example: its place in the batch when
    training, in the split when evaluating; and then `weight` [B], 0 for padding. A sampler's has
    `class` [B], the class that is to be drawn: the examples' own `label` may be another.
    """

    init: Callable  # (key, hp) -> TrainState
    step: Callable  # (TrainState, batch) -> (TrainState, {name: []})
    evaluate: Callable  # (TrainState, batch) -> sums, which add over batches
    summarize: Callable  # (sums as float64 NumPy) -> {name: float}
    samplers: dict[str, Callable]  # (TrainState, key, batch) -> [B, ...]
    sheets: dict[str, tuple[int, int]] = {}  # rows and columns of the samplers whose samples are to be laid out so
    # Samplers whose arrays are of the shape of examples without being any: they are kept as they are.
    maps: tuple[str, ...] = ()
    language: Language | None = None  # of a method that writes text
    compiler: dict[str, dict] = {}  # platform -> options of the compiler that suit its network better than `programs.COMPILER`


def path_of(path) -> str:
    """'params/g/Dense_0/kernel' of a key path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def widen(tree: PyTree) -> PyTree:
    """Numbers narrower than float32 in float32; all else as it is."""
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.floating) else x
    return jax.tree.map(wide, tree)


def fold(key: Array, *numbers) -> Array:
    """fold_in of several numbers, one after another."""
    for number in numbers:
        key = jax.random.fold_in(key, jnp.asarray(number, jnp.uint32))
    return key


def noise(key: Array, index: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:  # [B] -> [B, *shape]
    """Standard normal numbers, each row keyed by its own index: but for rounding (the last bit may follow the vector lane
    that a number falls into) they depend on neither batching nor sharding."""
    return axes(jax.vmap(lambda i: jax.random.normal(fold(key, i), shape, dtype))(index), "examples")


def gradients(loss: Callable, params: PyTree, batch: PyTree, key: Array, rows: tuple[str, ...] = (), accumulate: int = 1,
              lay: Callable = lambda grads: grads):
    """The gradient of `loss(params, batch, key) -> ([], aux)` and aux, a dict. Every training loss is differentiated here.

    rows         names in aux of what has a row for each example; the rest are means over examples
    accumulate   over how many equal parts of the batch the gradient is averaged, one after another, in the memory of one;
                 exact for losses that are means over examples
    lay          how the gradient is laid out on the devices (`sharding.scattered`)

    Where each device runs the program by itself it takes its part of the batch, and all get the means and rows of all.
    """
    batch = layout.own(batch)

    def one(part):
        grads, aux = jax.grad(loss, has_aux=True)(params, part, key)
        means = {name: value for name, value in aux.items() if name not in rows}
        return (grads, means), {name: aux[name] for name in rows}

    if accumulate == 1:
        means, joined = one(batch)
    else:
        # every so-many-th example, so that a part is spread over the devices as the whole is
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

        def body(total, part):
            means, each = one(part)
            return jax.tree.map(jnp.add, total, means), each

        shapes = jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts))[0]
        total, joined = jax.lax.scan(body, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), parts)
        means = jax.tree.map(lambda x: x / accumulate, total)
        joined = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), joined)
    grads, aux = layout.mean(means)
    return lay(grads), aux | layout.joined(joined)


def feed(step: Callable, source: Callable) -> Callable:
    """(state, batch) -> ... becomes (state, arrays) -> ...: the batch is source(arrays, key, step), inside the program."""
    return lambda state, arrays: step(state, source(arrays, state.key, state.step))


def repeat(step: Callable, capacity: int = 1024) -> Callable:
    """(state, arrays, n) -> (state, metrics [capacity]): n steps, n traced, so that every length is the same program.

    Row i of the metrics is that of the i-th of these steps; rows from n on are zero. n must not exceed the capacity.
    """

    def run(state, arrays, n):
        shapes = jax.eval_shape(step, state, arrays)[1]
        buffer = jax.tree.map(lambda s: jnp.zeros((capacity, *s.shape), s.dtype), shapes)

        def body(i, carry):
            state, buffer = carry
            state, metrics = step(state, arrays)
            return state, jax.tree.map(lambda b, m: b.at[i].set(m), buffer, metrics)

        return jax.lax.fori_loop(0, n, body, (state, buffer))

    return run


def total(evaluate: Callable, take: Callable, batch_size: int, lay=lambda batch: batch) -> Callable:
    """(state, arrays, start, count, first, last) -> sums of `evaluate` over rows start .. start + count of the arrays, in batches, of
    which it does those from `first` on up to `last`.

    The very last batch is filled up with the last row at weight 0. All four are traced: every split is the same program.
    """

    def run(state, arrays, start, count, first, last):
        def batch(i):
            index = i * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
            rows = start + jnp.minimum(index, count - 1)
            places = lay(dict(rows=rows, index=index, weight=(index < count).astype(jnp.float32)))
            return lay(take(arrays, places.pop("rows"))) | places

        def body(i, sums):
            return jax.tree.map(jnp.add, sums, evaluate(state, batch(i)))

        shapes = jax.eval_shape(lambda: evaluate(state, batch(first)))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(first, last, body, zero)

    return run


def draw(sampler: Callable, take: Callable, lay=lambda batch: batch) -> Callable:
    """(state, arrays, seed, rows [B], index [B], class [B]) -> samples [B, ...], conditioned on
    these rows of the arrays, or of these classes.

    A sample depends on the state's key, the user's seed, its index and its row or class alone, not
    on how many are drawn at once.
    """

    def run(state, arrays, seed, rows, index, label):
        places = lay({"rows": rows, "index": index, "class": label})
        batch = lay(take(arrays, places.pop("rows"))) | places
        return sampler(state, fold(state.key, SAMPLE, seed), batch)

    return run


ROUTES = {
    "vmap": lambda g, states, chunk: jax.lax.map(g, states, batch_size=chunk) if chunk else jax.vmap(g)(states),
    "map": lambda g, states, chunk: jax.lax.map(g, states),
}


def vectorize(f: Callable, route: str = "vmap", chunk: int = 0) -> Callable:
    """f(state, ...) for states with a leading trial axis [N, ...]; what follows the state is shared by the trials.

    vmap: all trials at once, or a chunk of so many after another. map: one whole call after another, in the same program.
    """
    apply = ROUTES[route]
    return lambda states, *rest: apply(lambda state: f(state, *rest), states, chunk)


def on_each(f: Callable, mesh) -> Callable:
    """A vectorized f(states, *rest) run by each device of a mesh on its part of the examples, with what `layout` has them tell each other: what
    jax.pmap does, which since JAX 0.8 is a shard_map too, on a mesh that others share."""

    def run(*args):
        with layout.mapped("data"):
            return f(*args)

    return jax.shard_map(run, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False)


def shard(f: Callable, mesh, specs: PyTree, arrays: PyTree, rest: int, donate: bool = False) -> Callable:
    """jit of a vectorized f(states, arrays, *rest) over a mesh: the states laid out by `specs`, the arrays by the shardings `arrays`, the `rest`
    further arguments replicated, what comes out divided along the trial axis. Each part of that axis runs f on its own trials: a loop over it would
    not be divided otherwise, and what XLA divides by itself it gets wrong for the VQ-VAE on CPUs (docs/LOG.md).

    donate: the states' buffers are reused for the first part of the result, which is the new states.
    """
    if mesh.shape["trial"] > 1:
        f = jax.shard_map(f, mesh=mesh, in_specs=(PartitionSpec("trial"), *(PartitionSpec(),) * (1 + rest)), out_specs=PartitionSpec("trial"),
                          axis_names={"trial"}, check_vma=False)
    states = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec))
    trial, everywhere = NamedSharding(mesh, PartitionSpec("trial")), NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        f,
        in_shardings=(states, arrays, *(everywhere,) * rest),
        out_shardings=(states, trial) if donate else trial,
        donate_argnums=(0,) if donate else (),
    )
