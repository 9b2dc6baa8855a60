"""The interface of a data set: its arrays, its splits, and its batches as a pure
function of (arrays, key, step).
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.utils.errors import UserError, require

# split -> (index of its first example, number of examples)
Bounds = dict[str, tuple[int, int]]


class Spec(NamedTuple):
    """The static properties of a data set that methods, metrics and plots may use."""

    # "image": [H, W, C] in [-1, 1]; "points": [D]; "text": windows of [T] tokens;
    # "pairs": rows of [S] and [T] tokens
    kind: str
    shape: tuple[int, ...]
    n_train: int
    classes: int = 0
    centres: Any = None  # of a mixture of M Gaussians: the means [M, D]
    sigma: float = 0.0  # of a mixture: the standard deviation along each axis
    # Pixels have levels + 1 equidistant values; 0: continuous values.
    levels: int = 0
    vocabulary: int = 0  # of text: the number of tokens
    start: int = 0  # of text: the token that precedes a text; -1: none
    mask: int = -1  # of text: the mask token; -1: none
    class_names: tuple[str, ...] = ()  # of data whose classes have names

    def label_classes(self) -> tuple[str, ...]:
        """Return the names of the classes: their numbers where the data have none."""
        return self.class_names or tuple(map(str, range(self.classes)))


class Dataset(NamedTuple):
    """A data set whose splits are consecutive ranges of the same arrays, so that one
    program serves all splits.
    """

    # Name -> array with the examples as its leading axis: a NumPy array, a memory map,
    # or an object that reads the indexed rows (and has shape, dtype, nbytes and len).
    arrays: dict[str, Any]
    splits: Bounds  # train, valid, test -> (start, count)
    # (arrays, rows [B]) -> batch: the inputs of the networks, from NumPy or JAX arrays.
    take: Callable
    spec: Spec
    about: dict[str, Any]  # for the user: location, size, licence, checksums
    # (arrays, rows, words uint32 [B]) -> batch: replaces `take` in training. The random
    # words, constant within an epoch, augment the examples.
    vary: Callable | None = None
    tokenizer: Tokenizer | None = None  # of text: decodes the tokens


def make_text_spec(
    tokenizer: Tokenizer, shape: tuple[int, ...], n_train: int, start_token: int, kind: str = "text"
) -> Spec:
    """Return the spec of a data set of tokens.

    Args:
      tokenizer: determines the vocabulary and the mask token.
      shape: (T,) of the windows, or (S, T) of the sources and the targets of pairs.
      n_train: number of training examples.
      start_token: the token that precedes a text; -1: none.
      kind: "text" or "pairs".
    """
    mask = -1 if tokenizer.mask is None else tokenizer.mask
    return Spec(kind, shape, n_train, vocabulary=tokenizer.size, start=start_token, mask=mask)


def require_end_token(tokenizer: Tokenizer) -> int:
    """Return the end-of-text token, which separates texts; raise a UserError where the
    tokenizer has none.
    """
    if tokenizer.end is None:
        raise UserError(
            "config.data.tokenizer = 'file': the tokenizer has no end-of-text token, which must "
            "separate the texts of the data"
        )
    return tokenizer.end


def make_dataset_without_arrays(spec: Spec) -> Dataset:
    """Return a data set that has the spec alone: enough to build a method and to draw
    unconditional samples.
    """
    return Dataset(
        {},
        {name: (0, spec.n_train) for name in ("train", "valid", "test")},
        lambda arrays, rows: {},
        spec,
        {},
    )


def spec_to_json(spec: Spec) -> dict:
    """Return the spec as a JSON object; `spec_from_json` is the inverse."""
    return spec._asdict() | dict(
        centres=None if spec.centres is None else np.asarray(spec.centres).tolist()
    )


def spec_from_json(fields: dict) -> Spec:
    """Return the spec of a JSON object that `spec_to_json` made."""
    centres = None if fields["centres"] is None else np.array(fields["centres"])
    names = tuple(fields.get("class_names", ()))
    return Spec(**fields | dict(shape=tuple(fields["shape"]), centres=centres, class_names=names))


def make_image_dataset(
    splits: dict[str, dict[str, np.ndarray]], white: int, about: dict, num_classes: int = 0
) -> Dataset:  # x of 0 .. white [n, H, W, C], label [n]
    """Return a data set of images.

    Args:
      splits: {"train": {"x": [n, H, W, C], "label": [n]}, ...}, where x has uint8
        values 0 .. white, or floats in that range; labels are optional.
      white: the value of white; black is 0.
      about: `Dataset.about`.
      num_classes: 0 without labels.
    """
    arrays, bounds = join_splits(splits)
    return wrap_image_arrays(arrays, bounds, white, about, num_classes)


def wrap_image_arrays(
    arrays: dict[str, Any], bounds: Bounds, white: int, about: dict, num_classes: int = 0
) -> Dataset:  # x of 0 .. white [n, H, W, C], label [n]
    """Return a data set of images from arrays that store the splits consecutively.

    Args:
      arrays: x [n, H, W, C], uint8 0 .. white or floats in that range, and optionally
        label [n]; of any kind that can be indexed by rows.
      bounds: {split: (start, count)}.
      white: the value of white; black is 0.
      about: `Dataset.about`, with {name: number of examples} of named classes.
      num_classes: 0 without labels.
    """
    discrete_levels = white if arrays["x"].dtype == np.uint8 else 0
    spec = Spec(
        "image",
        arrays["x"].shape[1:],
        bounds["train"][1],
        num_classes,
        levels=discrete_levels,
    )
    names = tuple(about.get("classes", ()))
    if names != spec.label_classes():
        spec = spec._replace(class_names=names)

    def take(arrays, rows):
        batch = {name: array[rows] for name, array in arrays.items()}
        # 2 x - white is exact, so that only the product rounds, and the result is the
        # same on every device.
        return batch | dict(
            x=(np.float32(2) * batch["x"].astype(np.float32) - np.float32(white))
            * np.float32(1 / white)
        )

    return Dataset(arrays, bounds, take, spec, about)


def make_point_dataset(
    splits: dict[str, dict[str, np.ndarray]],
    about: dict,
    centres: np.ndarray | None = None,
    sigma: float = 0.0,
) -> Dataset:  # x [n, D], centres [M, D]
    """Return a data set of points, without scaling.

    Args:
      splits: {"train": {"x": float32 [n, D]}, ...}.
      about: `Dataset.about`.
      centres: means [M, D] of a known mixture of Gaussians; None for other data.
      sigma: standard deviation of the mixture along each axis.
    """
    arrays, bounds = join_splits(splits)
    spec = Spec("points", arrays["x"].shape[1:], bounds["train"][1], 0, centres, sigma)
    return Dataset(
        arrays, bounds, lambda arrays, rows: {k: a[rows] for k, a in arrays.items()}, spec, about
    )


def join_splits(
    splits: dict[str, dict[str, np.ndarray]],
) -> tuple[dict[str, np.ndarray], Bounds]:  # -> {name: [N, ...]}, {split: (start, count)}
    """Return the concatenated arrays of all splits, and {split: (start, count)}.

    Args:
      splits: {"train": {name: [n, ...]}, "valid": ...}, with "test" or without.
    """
    bounds = make_consecutive_bounds(
        {
            name: len(next(iter(splits[name].values())))
            for name in ("train", "valid", "test")
            if name in splits
        }
    )
    names = [name for name in bounds if name in splits]
    return {k: np.concatenate([splits[name][k] for name in names]) for k in splits["train"]}, bounds


def make_consecutive_bounds(counts: dict[str, int]) -> Bounds:  # {split: (start, count)}
    """Return {split: (start, count)} of consecutive splits with `counts` examples.
    Without a test split, the valid split is used for both.

    Args:
      counts: {split: number of examples}, in the order of the arrays.

    Raises:
      UserError: a split is empty.
    """
    for name, count in counts.items():
        require(
            count > 0,
            f"the {name} split is empty: {sum(counts.values()):,} examples are too few to split",
        )
    starts = np.cumsum([0, *list(counts.values())[:-1]]).tolist()
    bounds = dict(zip(counts, zip(starts, counts.values(), strict=True), strict=True))
    return bounds | dict(test=bounds.get("test", bounds["valid"]))


def split_80_10_10(
    arrays: dict[str, np.ndarray], seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:  # {name: [n, ...]} -> {split: {name: [m, ...]}}
    """Split arrays into 80 % train, 10 % valid and 10 % test by a permutation that
    depends only on the seed and the number of examples.

    Args:
      arrays: {name: [n, ...]}.
      seed: of the permutation.
    """
    n = len(next(iter(arrays.values())))
    order = np.random.RandomState(seed).permutation(n)
    tenth = n // 10
    cuts = dict(
        train=order[: n - 2 * tenth],
        valid=order[n - 2 * tenth : n - tenth],
        test=order[n - tenth :],
    )
    return {name: {k: a[rows] for k, a in arrays.items()} for name, rows in cuts.items()}


PIECE_BYTES = 2**26  # read at once


def hash_arrays_and_splits(dataset: Dataset) -> str:  # SHA-256
    """Return the SHA-256 of the arrays, or of their `identity` where they have one, and
    of the bounds of the splits, so that a resumed run cannot continue with other data.
    """
    digest = hashlib.sha256(repr(sorted(dataset.splits.items())).encode())
    for name, array in sorted(dataset.arrays.items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        if getattr(array, "identity", ""):  # reading all records would take hours
            digest.update(array.identity.encode())
            continue
        # In blocks of rows: arrays may be larger than the memory.
        each = max(1, PIECE_BYTES * len(array) // max(array.nbytes, 1))
        for low in range(0, len(array), each):
            digest.update(np.ascontiguousarray(array[low : low + each]).view(np.uint8).data)
    return digest.hexdigest()
