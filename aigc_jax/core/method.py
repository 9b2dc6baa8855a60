"""Four concepts and the functions that join them: a Method steps a TrainState; feed,
repeat, vectorize and shard make of one step the one compiled program that trains any
number of trials for any number of steps.

Shapes: N trials, B batch, T time, D features, H heads or height, W width, C channels, Z
latent, V vocabulary.
Keys:   a state's key never changes. What a key is for is folded in: the step's number,
        or one of the streams below.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.struct
import jax

Array = jax.Array
PyTree = Any


@flax.struct.dataclass
class TrainState:
    """A whole trial: resuming needs nothing else, not even the position in the data."""

    step: Array  # []  steps done
    key: Array  # []  threefry; never advanced: the key of a step is fold_in(key, step)
    params: PyTree  # {"net": ...}, or {"g": ..., "d": ...}
    opt: PyTree  # the optimiser's state, under the same names
    extra: PyTree  # averaged weights, batch statistics, codebooks, a recurrent carry; {} where none
    hp: dict[str, Array]  # traced hyper-parameters, each []

    if TYPE_CHECKING:  # what flax.struct.dataclass adds

        def replace(self, **changes: Any) -> "TrainState":
            """Return a copy with these fields."""
            ...


class Language(NamedTuple):
    """What writing text needs of a method (`methods.decoding`)."""

    net: Any  # carry(batch, length), capacity, carry_axis
    apply: Callable  # (params, tokens [B, T], carry) -> (logits [B, T, V], carry)
    # How an answer begins: (params, source [B, S], mask [B, S], length) -> carry.
    begin: Callable | None = None


class Method(NamedTuple):
    """All that the rest of the code knows of a GAN, a VAE or a language model: pure
    functions.

    A batch is a dict of arrays [B, ...] with `index` [B], which keys the noise of an
    example: its place in the batch when training, in the split when evaluating; and
    then `weight` [B], 0 for padding. A sampler's has `class` [B], the class that is to
    be drawn: the examples' own `label` may be another.
    """

    init: Callable  # (key, hp) -> TrainState
    step: Callable  # (TrainState, batch) -> (TrainState, {name: []})
    evaluate: Callable  # (TrainState, batch) -> sums, which add over batches
    summarize: Callable  # (sums as float64 NumPy) -> {name: float}
    samplers: dict[str, Callable]  # (TrainState, key, batch) -> [B, ...]
    # Sampler -> (rows, columns) of the grid that its samples form.
    sheets: dict[str, tuple[int, int]] = {}
    # Samplers whose arrays are of the shape of examples without being any: they are
    # kept as they are.
    maps: tuple[str, ...] = ()
    language: Language | None = None  # of a method that writes text
    # Platform -> options of the compiler that suit its network better than those of
    # `training.compilation.COMPILER`.
    compiler: dict[str, dict] = {}
