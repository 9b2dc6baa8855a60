"""What a data set is to the rest of the code, and its batches as a pure function of (arrays, key, step)."""

import functools
import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core import DATA, fold
from aigc_jax.errors import choose, require


class Spec(NamedTuple):
    """What methods, metrics and pictures may know of a data set."""

    kind: str  # "image": [H, W, C] in [-1, 1]; "points": [D]; "text": windows of [T] tokens
    shape: tuple[int, ...]
    n_train: int
    classes: int = 0
    centres: Any = None  # [M, D] of a mixture of M Gaussians
    sigma: float = 0.0  # its standard deviation, along each axis
    levels: int = 0  # of an image: its values are levels + 1 equidistant ones; 0 where they are continuous
    vocabulary: int = 0  # of text: how many tokens there are
    start: int = 0  # of text: the token after which one begins; -1 where none is
    mask: int = -1  # of text: the token that hides another; -1 where none is


class Dataset(NamedTuple):
    """All splits lie in the same arrays, one after another, so that one program serves each of them."""

    arrays: dict[str, Any]  # leading axis: examples. NumPy's, mapped ones, or what reads the rows that index it (shape, dtype, nbytes, len)
    splits: dict[str, tuple[int, int]]  # train, valid, test -> (start, count)
    take: Callable  # (arrays, rows [B]) -> batch: the examples as the networks see them; for NumPy and JAX arrays
    spec: Spec
    about: dict[str, Any]  # where it lies, size, licence, checksums: for people
    vary: Callable | None = None  # (arrays, rows, words uint32 [B]) -> batch: what training takes instead; a word lasts an epoch
    tokenizer: Any = None  # of text: the `tokenizers.Tokenizer` that its numbers stand for


def text_spec(tokenizer, shape, n_train: int, start: int, kind: str = "text") -> Spec:
    """The spec of a data set of a tokenizer's tokens."""
    mask = -1 if tokenizer.mask is None else tokenizer.mask
    return Spec(kind, shape, n_train, vocabulary=tokenizer.size, start=start, mask=mask)


def end_of(tokenizer) -> int:
    """The token between texts; a UserError where the tokenizer has none."""
    require(
        tokenizer.end is not None,
        "config.data.tokenizer = 'file': the tokenizer has no end of text, which must stand between "
        "the texts of the data",
    )
    return tokenizer.end


def without_arrays(spec: Spec) -> Dataset:
    """A stand-in that knows the spec alone: enough to build a method and to draw what is conditioned on nothing."""
    return Dataset({}, {name: (0, spec.n_train) for name in ("train", "valid", "test")}, lambda arrays, rows: {}, spec, {})


def spec_to_json(spec: Spec) -> dict:
    return spec._asdict() | dict(centres=None if spec.centres is None else np.asarray(spec.centres).tolist())


def spec_from_json(plain: dict) -> Spec:
    centres = None if plain["centres"] is None else np.array(plain["centres"])
    return Spec(**plain | dict(shape=tuple(plain["shape"]), centres=centres))


def images(splits: dict[str, dict[str, np.ndarray]], levels: int, about: dict, classes: int = 0) -> Dataset:
    """A data set of pictures: {"train": {"x": uint8 [n, H, W, C], "label": [n]}, ...} with values 0 .. levels, or floats in between."""
    return images_of(*join(splits), levels, about, classes)


def images_of(arrays, bounds, levels: int, about: dict, classes: int = 0) -> Dataset:
    """Likewise, of arrays that hold the splits one after another, at these bounds."""
    whole = levels if arrays["x"].dtype == np.uint8 else 0
    spec = Spec("image", arrays["x"].shape[1:], bounds["train"][1], classes, levels=whole)

    def take(arrays, rows):
        batch = {name: array[rows] for name, array in arrays.items()}
        # 2 x - levels is exact, so that only the product rounds, and it is the same number wherever it is computed
        return batch | dict(x=(np.float32(2) * batch["x"].astype(np.float32) - np.float32(levels)) * np.float32(1 / levels))

    return Dataset(arrays, bounds, take, spec, about)


def points(splits: dict[str, dict[str, np.ndarray]], about: dict, centres=None, sigma=0.0) -> Dataset:
    """A data set of points: {"train": {"x": float32 [n, D]}, ...}, as they are."""
    arrays, bounds = join(splits)
    spec = Spec("points", arrays["x"].shape[1:], bounds["train"][1], 0, centres, sigma)
    return Dataset(arrays, bounds, lambda arrays, rows: {k: a[rows] for k, a in arrays.items()}, spec, about)


def join(splits):
    """The arrays of all splits one after another, and {split: (start, count)}."""
    bounds = bounds_of({name: len(next(iter(splits[name].values()))) for name in ("train", "valid", "test") if name in splits})
    names = [name for name in bounds if name in splits]
    return {k: np.concatenate([splits[name][k] for name in names]) for k in splits["train"]}, bounds


def bounds_of(counts: dict[str, int]) -> dict[str, tuple[int, int]]:
    """{split: (start, count)} of splits with so many examples, one after another. Without a test split, the valid one is both."""
    for name, count in counts.items():
        require(count > 0, f"the {name} split is empty: {sum(counts.values())} examples are too few to divide")
    starts = np.cumsum([0, *list(counts.values())[:-1]]).tolist()
    bounds = dict(zip(counts, zip(starts, counts.values(), strict=True), strict=True))
    return bounds | dict(test=bounds.get("test", bounds["valid"]))


def divide(arrays: dict[str, np.ndarray], seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """80 % train, 10 % valid, 10 % test, by a permutation that is always the same."""
    n = len(next(iter(arrays.values())))
    order = np.random.RandomState(seed).permutation(n)
    tenth = n // 10
    cuts = dict(train=order[: n - 2 * tenth], valid=order[n - 2 * tenth : n - tenth], test=order[n - tenth :])
    return {name: {k: a[rows] for k, a in arrays.items()} for name, rows in cuts.items()}


PIECE_BYTES = 2**26  # that are read at once


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the arrays, or of what they call their identity, and of where the splits lie, so that a resumed run cannot go on with other data."""
    digest = hashlib.sha256(repr(sorted(dataset.splits.items())).encode())
    for name, array in sorted(dataset.arrays.items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        if hasattr(array, "identity"):  # of records that it would take hours to read
            digest.update(array.identity.encode())
            continue
        each = max(1, PIECE_BYTES * len(array) // max(array.nbytes, 1))  # rows: arrays may be larger than the memory
        for low in range(0, len(array), each):
            digest.update(np.ascontiguousarray(array[low : low + each]).view(np.uint8).data)
    return digest.hexdigest()


def mix(x):
    """A bijection of 32-bit words whose every output bit depends on every input bit (MurmurHash3's finalizer)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def permute(index, keys, n: int):  # [B], [B, R] or [1, R] -> [B]
    """Where a keyed pseudo-random permutation of 0 .. n-1 sends each index, in O(1) an index,
    without a table; of NumPy arrays and of JAX's the same.

    R rounds of a Feistel network on the digits of a two-digit number of radices a * b >= n; what falls past n is sent on
    until it does not (cycle walking: Black & Rogaway 2002, sections 3 and 4). a and b lie next to sqrt(n), so that few do.
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)

    def network(x):
        left, right = x // b, x % b
        for r in range(keys.shape[-1]):
            if r % 2:
                right = (right + mix(left ^ keys[:, r]) % b) % b
            else:
                left = (left + mix(right ^ keys[:, r]) % a) % a
        return left * b + right

    if isinstance(index, np.ndarray):
        x = network(index.astype(np.uint32))
        while (x >= n).any():
            x = np.where(x < n, x, network(x))
        return x
    walk = lambda x: jnp.where(x < n, x, network(x))  # noqa: E731
    return jax.lax.while_loop(lambda x: jnp.any(x >= n), walk, network(index.astype(jnp.uint32)))


ROUNDS = 6
FIXED_KEYS = mix(np.arange(1, ROUNDS + 1, dtype=np.uint32))[None]


def fixed_order(index: np.ndarray, count: int) -> np.ndarray:  # [n] -> int64 [n]
    """Numbers `index` of a pseudo-random order of 0 .. count-1 that is the same on every machine;
    it repeats after `count`.

    Whatever takes a part of a split (metrics, samples that are conditioned on examples) takes it in
    this order: splits may be sorted by class, or hold the classes one after another, where the
    first n, every k-th, or any other arithmetic progression would miss some of them.
    """
    return permute(np.asarray(index, np.int64) % count, FIXED_KEYS, count).astype(np.int64)


def divided_product(r, b: int, n: int):
    """(r b // n, r b mod n) of unsigned numbers r < n < 2^30, whose product may be too long for 32 bits: digit after digit of b."""
    bits = 31 - n.bit_length()  # of a digit: the rest moved on by it, and r times it, make less than 2^32
    whole, rest = jnp.zeros_like(r), jnp.zeros_like(r)
    for i in reversed(range(-(-b.bit_length() // bits))):
        part = (rest << bits) + r * np.uint32(b >> (i * bits) & (2**bits - 1))
        whole, rest = (whole << bits) + part // n, part % n
    return whole, rest


def endless(n: int, batch_size: int) -> Callable:
    """step -> (place [B], each): the examples of a step in an endless stream of epochs of n.

    Example i of step s is number p = s B + i of the stream; its epoch is p // n, its place there p mod n. A batch may begin in
    one epoch and end in the next. `each(f)` is f(epoch) for every example, computed once an epoch.
    """
    require(n < 2**30, f"{n:,} training examples are more than 2^30")
    epochs = batch_size // n + 2  # that a batch may touch

    def at(step):
        step = step.astype(jnp.uint32)
        whole, rest = divided_product(step % n, batch_size, n)
        first = (step // n) * batch_size + whole
        offset = rest + jnp.arange(batch_size, dtype=jnp.uint32)
        each = lambda f: jax.vmap(lambda e: f(first + e))(jnp.arange(epochs, dtype=jnp.uint32))[offset // n]
        return offset % n, each

    return at


def shuffled(n: int, batch_size: int) -> Callable:
    """(key, step) -> rows [B]: step after step runs through 0 .. n-1 in a new order each epoch, without a remainder: a row is
    where the permutation of its epoch sends an example's place in it."""
    at = endless(n, batch_size)

    def rows(key, step):
        place, each = at(step)
        keys = each(lambda epoch: jax.random.bits(fold(key, DATA, epoch), (ROUNDS,), jnp.uint32))
        return permute(place, keys, n).astype(jnp.int32)

    return rows


def varied(n: int, batch_size: int) -> Callable:
    """(key, step) -> uint32 [B]: a word for each example, the same for all of its epoch."""
    at = endless(n, batch_size)
    return lambda key, step: at(step)[1](lambda epoch: jax.random.bits(fold(key, DATA, epoch, 1), (), jnp.uint32))


def shuffle(key_of: Callable, dataset: Dataset, config, batch_size: int) -> Callable:
    """Every example once an epoch, in a new order; varied, where the data set can be."""
    n = dataset.splits["train"][1]
    parts = dict(rows=shuffled(n, batch_size)) | ({} if dataset.vary is None else dict(words=varied(n, batch_size)))
    return lambda key, step: {name: f(key_of(key, config.seed), step) for name, f in parts.items()}


def streams(dataset: Dataset, config, batch_size: int) -> Callable:
    """B contiguous streams, for truncated back-propagation: the example of stream b follows, step after step, the one before it.

    Each has n // B examples and then begins anew, which `fresh` [B] says; up to B - 1 examples at the end are left out.
    """
    n = dataset.splits["train"][1]
    require(n >= batch_size, f"config.batch_size = {batch_size} streams (config.data.order = 'stream') must not outnumber the {n} training examples")
    per = n // batch_size
    first = per * np.arange(batch_size, dtype=np.int32)
    return lambda key, step: dict(rows=first + step % per, fresh=jnp.full(batch_size, step % per == 0))


# config.data.order -> (dataset, config.data, batch_size) -> (key, step) -> rows [B] and what goes with them
ORDERS = {
    "trial": functools.partial(shuffle, lambda key, seed: key),
    "shared": functools.partial(shuffle, lambda key, seed: jax.random.key(seed)),
    "stream": streams,
}


def places(dataset: Dataset, config, batch_size: int) -> Callable:
    """(key, step) -> {"rows": [B], ...} of the training split, and perhaps "words" [B] by which they vary, or what else is to be known of them."""
    require(batch_size > 0, f"config.batch_size gives {batch_size} examples a step; it must be at least 1")
    return choose(ORDERS, config.order, "config.data.order")(dataset, config, batch_size)


def source(dataset: Dataset, config, batch_size: int, lay=lambda batch: batch, whole=lambda places: places) -> Callable:
    """`source(arrays, key, step) -> batch` of the training split. `lay` divides the batch over the devices; `whole` keeps what it is of on all of
    them, which is less work than agreeing on it."""
    at = places(dataset, config, batch_size)

    def draw(arrays, key, step):
        picked = lay(whole(at(key, step)) | dict(index=jnp.arange(batch_size, dtype=jnp.int32)))
        chosen = [picked.pop(name) for name in ("rows", "words") if name in picked]
        return lay((dataset.vary if len(chosen) == 2 else dataset.take)(arrays, *chosen)) | picked

    return draw
