"""The concepts of the package: a `Method` steps a `TrainState`, evaluates it and draws
samples. `core.transforms` turns its step into one compiled program of any number of
trials.

Shapes: N trials, B batch, T time, D features, H heads or height, W width, C channels, Z
latent, V vocabulary.
Keys:   a state's key never changes. Its uses are folded in: the number of the step, or
        one of the streams of `core.rng`.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.struct
import jax

Array = jax.Array
PyTree = Any


@flax.struct.dataclass
class TrainState:
    """The state of one trial. Resuming needs nothing else, not even a position in the
    data.
    """

    step: Array  # []  steps done
    key: Array  # []  threefry; never advanced: the key of a step is fold_in(key, step)
    params: PyTree  # {"net": ...}, or {"g": ..., "d": ...}
    opt: PyTree  # the optimiser's state, under the same names
    extra: PyTree  # averaged weights, batch statistics, codebooks, a recurrent carry; {} where none
    hp: dict[str, Array]  # traced hyper-parameters, each []

    if TYPE_CHECKING:  # added by flax.struct.dataclass

        def replace(self, **changes: Any) -> "TrainState":
            """Return a copy with these fields."""
            ...


class Language(NamedTuple):
    """The interface of a method that generates text, for `methods.text_decoder`."""

    net: Any  # carry(batch, length), capacity, carry_axis
    apply: Callable  # (params, tokens [B, T], carry) -> (logits [B, T, V], carry)
    # The initial carry of an output: (params, source [B, S], mask [B, S], length) ->
    # carry.
    begin: Callable | None = None


class GridLabels(NamedTuple):
    """The names of rows and columns of a sampler's image grid.

    Attributes:
      columns: name of each column, such as the classes.
      column_title: what the columns are, such as "class".
      rows: name of each row, repeated for further rows; () with a `row_title`:
        numbers from 1.
      row_title: what the rows are, such as "latent".
      images: names of the images [K, ...] that are stacked for each sample.
      has_ends: whether the first and the last column are end points, which are marked.
    """

    columns: tuple[str, ...] = ()
    column_title: str = ""
    rows: tuple[str, ...] = ()
    row_title: str = ""
    images: tuple[str, ...] = ()
    has_ends: bool = False


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A kind of samples that a method draws, and the inputs that drawing them needs."""

    draw: Callable  # (TrainState, key, batch) -> [B, ...]
    # Whether the batch needs examples of a split, besides `index` and `class`.
    conditioned: bool = False
    grid: tuple[int, int] | None = None  # rows and columns, where the samples form a grid
    classes: int = 0  # number of classes that `class` can select
    # Whether arrays of the shape of examples are images, and stored in files as images.
    is_image: bool = True
    labels: GridLabels = GridLabels()  # of the grid's rows and columns
    # How samples that are no images are drawn: a key of `inference.sheets.FIGURES`.
    figure: str = ""
    # (TrainState, key, batch) -> the latents [B, Z] of the samples, if a batch can set
    # them: by "latents" [B, Z], NaN for those that are drawn.
    latents: Callable | None = None

    def __call__(self, state: TrainState, key: Array, batch: dict[str, Array]) -> Array:
        """Return samples [B, ...]."""
        return self.draw(state, key, batch)


class Method(NamedTuple):
    """A GAN, a VAE or a language model as pure functions: the interface between methods
    and the rest of the package.

    A batch is a dict of arrays [B, ...]. `index` [B] keys the noise of an example: its
    place in the batch when training, in the split when evaluating, which also has
    `weight` [B], 0 for padding. A sampler's batch has `class` [B], the class to draw,
    which need not be the examples' own `label`.
    """

    init: Callable  # (key, hp) -> TrainState
    step: Callable  # (TrainState, batch) -> (TrainState, {name: []})
    evaluate: Callable  # (TrainState, batch) -> sums, which add over batches
    summarize: Callable  # (sums as float64 NumPy) -> {name: float}
    samplers: dict[str, Sampler]  # the first is drawn while training
    language: Language | None = None  # of a method that generates text
    # Platform -> compiler options that suit the method's network better than those of
    # `training.compilation.COMPILER`.
    compiler: dict[str, dict] = {}
