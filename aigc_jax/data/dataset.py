"""What a data set is to the rest of the code, and its batches as a pure function of
(arrays, key, step).
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.utils.errors import UserError, require

# split -> (its first example, how many)
Bounds = dict[str, tuple[int, int]]


class Spec(NamedTuple):
    """What methods, metrics and pictures may know of a data set."""

    kind: str  # "image": [H, W, C] in [-1, 1]; "points": [D]; "text": windows of [T] tokens
    shape: tuple[int, ...]
    n_train: int
    classes: int = 0
    centres: Any = None  # [M, D] of a mixture of M Gaussians
    sigma: float = 0.0  # its standard deviation, along each axis
    # Values of an image are levels + 1 equidistant ones; 0 where they are continuous.
    levels: int = 0
    vocabulary: int = 0  # of text: how many tokens there are
    start: int = 0  # of text: the token after which one begins; -1 where none is
    mask: int = -1  # of text: the token that hides another; -1 where none is


class Dataset(NamedTuple):
    """All splits lie in the same arrays, one after another, so that one program serves
    each of them.
    """

    # Name -> array with examples as its leading axis: NumPy's, a mapped one, or what
    # reads the rows that index it (and has shape, dtype, nbytes and len).
    arrays: dict[str, Any]
    splits: Bounds  # train, valid, test -> (start, count)
    # (arrays, rows [B]) -> batch: the examples as the networks see them, of NumPy's or
    # JAX's arrays.
    take: Callable
    spec: Spec
    about: dict[str, Any]  # where it lies, size, licence, checksums: for people
    # (arrays, rows, words uint32 [B]) -> batch: what training takes instead, varied by
    # the words, each of which lasts an epoch.
    vary: Callable | None = None
    tokenizer: Tokenizer | None = None  # of text: what its numbers stand for


def text_spec(
    tokenizer: Tokenizer, shape: tuple[int, ...], n_train: int, start: int, kind: str = "text"
) -> Spec:
    """The spec of a data set of a tokenizer's tokens."""
    mask = -1 if tokenizer.mask is None else tokenizer.mask
    return Spec(kind, shape, n_train, vocabulary=tokenizer.size, start=start, mask=mask)


def end_of(tokenizer: Tokenizer) -> int:
    """The token between texts; a UserError where the tokenizer has none."""
    if tokenizer.end is None:
        raise UserError(
            "config.data.tokenizer = 'file': the tokenizer has no end of text, which must stand "
            "between the texts of the data"
        )
    return tokenizer.end


def without_arrays(spec: Spec) -> Dataset:
    """A stand-in that knows the spec alone: enough to build a method and to draw what
    is conditioned on nothing.
    """
    return Dataset(
        {},
        {name: (0, spec.n_train) for name in ("train", "valid", "test")},
        lambda arrays, rows: {},
        spec,
        {},
    )


def spec_to_json(spec: Spec) -> dict:
    """Return the spec as JSON has it; `spec_from_json` is the inverse."""
    return spec._asdict() | dict(
        centres=None if spec.centres is None else np.asarray(spec.centres).tolist()
    )


def spec_from_json(plain: dict) -> Spec:
    """Return the spec that `spec_to_json` was given."""
    centres = None if plain["centres"] is None else np.array(plain["centres"])
    return Spec(**plain | dict(shape=tuple(plain["shape"]), centres=centres))


def images(
    splits: dict[str, dict[str, np.ndarray]], levels: int, about: dict, classes: int = 0
) -> Dataset:
    """A data set of pictures: {"train": {"x": uint8 [n, H, W, C], "label": [n]}, ...}
    with values 0 .. levels, or floats in between.
    """
    arrays, bounds = join(splits)
    return images_of(arrays, bounds, levels, about, classes)


def images_of(
    arrays: dict[str, Any], bounds: Bounds, levels: int, about: dict, classes: int = 0
) -> Dataset:
    """Likewise, of arrays that hold the splits one after another, at these bounds."""
    whole = levels if arrays["x"].dtype == np.uint8 else 0
    spec = Spec("image", arrays["x"].shape[1:], bounds["train"][1], classes, levels=whole)

    def take(arrays, rows):
        batch = {name: array[rows] for name, array in arrays.items()}
        # 2 x - levels is exact, so that only the product rounds, and it is the same
        # number wherever it is computed
        return batch | dict(
            x=(np.float32(2) * batch["x"].astype(np.float32) - np.float32(levels))
            * np.float32(1 / levels)
        )

    return Dataset(arrays, bounds, take, spec, about)


def points(
    splits: dict[str, dict[str, np.ndarray]],
    about: dict,
    centres: np.ndarray | None = None,
    sigma: float = 0.0,
) -> Dataset:
    """A data set of points: {"train": {"x": float32 [n, D]}, ...}, as they are."""
    arrays, bounds = join(splits)
    spec = Spec("points", arrays["x"].shape[1:], bounds["train"][1], 0, centres, sigma)
    return Dataset(
        arrays, bounds, lambda arrays, rows: {k: a[rows] for k, a in arrays.items()}, spec, about
    )


def join(splits: dict[str, dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], Bounds]:
    """The arrays of all splits one after another, and {split: (start, count)}."""
    bounds = bounds_of(
        {
            name: len(next(iter(splits[name].values())))
            for name in ("train", "valid", "test")
            if name in splits
        }
    )
    names = [name for name in bounds if name in splits]
    return {k: np.concatenate([splits[name][k] for name in names]) for k in splits["train"]}, bounds


def bounds_of(counts: dict[str, int]) -> Bounds:
    """{split: (start, count)} of splits with so many examples, one after another.
    Without a test split, the valid one is both.
    """
    for name, count in counts.items():
        require(
            count > 0,
            f"the {name} split is empty: {sum(counts.values())} examples are too few to divide",
        )
    starts = np.cumsum([0, *list(counts.values())[:-1]]).tolist()
    bounds = dict(zip(counts, zip(starts, counts.values(), strict=True), strict=True))
    return bounds | dict(test=bounds.get("test", bounds["valid"]))


def divide(arrays: dict[str, np.ndarray], seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """80 % train, 10 % valid, 10 % test, by a permutation that is always the same."""
    n = len(next(iter(arrays.values())))
    order = np.random.RandomState(seed).permutation(n)
    tenth = n // 10
    cuts = dict(
        train=order[: n - 2 * tenth],
        valid=order[n - 2 * tenth : n - tenth],
        test=order[n - tenth :],
    )
    return {name: {k: a[rows] for k, a in arrays.items()} for name, rows in cuts.items()}


PIECE_BYTES = 2**26  # that are read at once


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the arrays, or of what they call their identity, and of where the
    splits lie, so that a resumed run cannot go on with other data.
    """
    digest = hashlib.sha256(repr(sorted(dataset.splits.items())).encode())
    for name, array in sorted(dataset.arrays.items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        if hasattr(array, "identity"):  # of records that it would take hours to read
            digest.update(array.identity.encode())
            continue
        # Row by row, for arrays may be larger than the memory.
        each = max(1, PIECE_BYTES * len(array) // max(array.nbytes, 1))
        for low in range(0, len(array), each):
            digest.update(np.ascontiguousarray(array[low : low + each]).view(np.uint8).data)
    return digest.hexdigest()
