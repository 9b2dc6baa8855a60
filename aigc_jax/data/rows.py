"""Rows of a data set on disk that are read when they are indexed: their splits, and
images that are decoded for each batch, so that their number is limited only by the
disk.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import schema
from aigc_jax.data.dataset import Dataset, make_consecutive_bounds, wrap_image_arrays
from aigc_jax.data.decoding import DECODER, check_image_keys, try_decode_image
from aigc_jax.data.order import permute_fixed
from aigc_jax.data.windows import SPLITS
from aigc_jax.utils.errors import UserError, choose, require, short_repr

HELD_OUT = 10  # without a validation split, 1 / HELD_OUT of train replaces it
AT_ONCE = 1024  # images whose files are in memory at once
OF_TEXTS, OF_IMAGES = (*schema.TOKENS, *schema.CLEANING), ("size", "colour")  # config.data.*


class Rows(Protocol):
    """Values on disk: the contents of image files, texts or labels."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def read_rows(self, rows: np.ndarray) -> list:  # [n] -> n values
        """Return the values of these rows, in this order; raise a UserError where they
        cannot be read.
        """


class Part(NamedTuple):
    """The rows of a split: consecutive rows of a source, or of its fixed shuffle."""

    source: str
    first: int
    num_rows: int
    total: int  # rows of the source
    is_shuffled: bool

    def locate(self, places: np.ndarray) -> np.ndarray:  # 0 .. num_rows - 1 -> rows of the source
        """Return the rows of the source at these places of the split."""
        places = self.first + np.asarray(places, np.int64)
        return permute_fixed(places, self.total) if self.is_shuffled else places


def divide_into_splits(
    counts: dict[str, int], split_of_tenth: Sequence[str]
) -> dict[str, Part]:  # {split: its rows}
    """Return {split: its rows}. A single source is divided by tenths of a fixed
    shuffle, because its rows may be sorted by class; so is train where no validation
    split exists.

    Args:
      counts: {"train": number of rows, "valid": ..., "test": ...}, with train.
      split_of_tenth: a value of SPLITS, for a single source.
    """
    total = counts["train"]
    tenth = lambda i: total * i // len(split_of_tenth)
    if len(counts) == 1:
        places = [
            (name, tenth(split_of_tenth.index(name)), tenth(split_of_tenth.count(name)))
            for name in dict.fromkeys(split_of_tenth)
        ]
        ends = [*(first for _, first, _ in places[1:]), total]
        return {
            name: Part("train", first, end - first, total, True)
            for (name, first, _), end in zip(places, ends, strict=True)
        }
    own = {name: Part(name, 0, n, n, False) for name, n in counts.items()}
    if "valid" in counts:
        return {name: own[name] for name in ("train", "valid", "test") if name in own}
    num_train = total - total // HELD_OUT
    return dict(
        train=Part("train", 0, num_train, total, True),
        valid=Part("train", num_train, total - num_train, total, True),
        test=own["test"],
    )


class DecodedImages:
    """Images uint8 [n, size, size, C] of all splits, consecutively, as an array that
    decodes only the indexed rows, in parallel.

    Args:
      sources: {source: contents of image files}.
      parts: {split: its rows}.
      config: the `data` section of a config, with size and colour.
      fingerprint: a hash that identifies the sources.
      where: the directory, for error messages.
    """

    def __init__(
        self,
        sources: Mapping[str, Rows],
        parts: dict[str, Part],
        config: ConfigDict,
        fingerprint: str,
        where: str,
    ) -> None:
        self.sources, self.parts, self.where = sources, list(parts.values()), where
        self.size, self.colour = config.size, config.colour
        self.starts = np.cumsum([0, *(part.num_rows for part in self.parts)])
        channels = 3 if config.colour == "rgb" else 1
        self.shape, self.dtype = (
            (int(self.starts[-1]), config.size, config.size, channels),
            np.dtype(np.uint8),
        )
        self.nbytes = int(np.prod(self.shape, dtype=np.int64))
        settings = [DECODER, config.size, config.colour, [*self.parts], fingerprint]
        self.identity = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        self._pool = ThreadPoolExecutor(os.cpu_count())
        # Of odd metadata, and of large files, which `decode_image` refuses.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, at):
        rows = np.arange(*at.indices(len(self))) if isinstance(at, slice) else np.asarray(at)
        flat = rows.reshape(-1)
        out = np.empty((len(flat), *self.shape[1:]), np.uint8)
        for low in range(0, len(flat), AT_ONCE):
            self._decode(flat[low : low + AT_ONCE], out[low : low + AT_ONCE])
        return out.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype=None, copy=None):
        return self[:].astype(dtype or self.dtype, copy=False)

    def _decode(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Write the images of these rows [n] to `out`."""
        which = np.searchsorted(self.starts, rows, side="right") - 1
        for i in np.unique(which):
            part, positions = self.parts[i], np.flatnonzero(which == i)
            inside = part.locate(rows[positions] - self.starts[i])
            contents = self.sources[part.source].read_rows(inside)
            decode = lambda content: try_decode_image(content, self.size, self.colour)
            images = self._pool.map(decode, contents)
            for position, row, image in zip(positions, inside, images, strict=True):
                if isinstance(image, str):
                    raise UserError(
                        f"{self.where}: the image in row {row:,} of {part.source} cannot be "
                        f"decoded ({image}): remove or replace it"
                    )
                out[position] = image


def make_decoded_image_dataset(
    config: ConfigDict,
    sources: Mapping[str, Rows],
    labels: Mapping[str, np.ndarray],
    fingerprint: str,
    about: dict,
    class_names: Sequence[str] = (),
) -> Dataset:
    """Return a data set of images that are decoded for each batch.

    Args:
      config: the `data` section of a config.
      sources: {"train": contents of image files, "valid": ..., "test": ...}; without
        other splits, train is divided by config.split.
      labels: {source: int32 [n]}, or {} without labels.
      fingerprint: a hash that identifies the files.
      about: `Dataset.about`, to which the classes are added.
      class_names: names of the classes; (): their numbers.
    """
    check_image_keys(config)
    parts = divide_into_splits(
        {name: len(rows) for name, rows in sources.items()},
        choose(SPLITS, config.split, "config.data.split"),
    )
    bounds = make_consecutive_bounds({name: part.num_rows for name, part in parts.items()})
    arrays: dict[str, Any] = dict(
        x=DecodedImages(sources, parts, config, fingerprint, about["source"])
    )
    num_classes = len(class_names) or 1 + max(
        (int(label.max(initial=0)) for label in labels.values()), default=-1
    )
    if num_classes > 1:
        arrays["label"] = np.concatenate(
            [labels[part.source][part.locate(np.arange(part.num_rows))] for part in parts.values()]
        )
        counts = np.bincount(arrays["label"], minlength=num_classes).tolist()
        names = class_names or [str(i) for i in range(num_classes)]
        about = about | dict(classes=dict(zip(names, counts, strict=True)))
    return wrap_image_arrays(arrays, bounds, 255, about, num_classes if num_classes > 1 else 0)


def refuse_keys(config: ConfigDict, names: Sequence[str], kind: str, contents: str) -> None:
    """Raise a UserError where one of the keys differs from its default.

    Args:
      config: the `data` section of a config.
      names: of the keys.
      kind: of the data that read the keys: "images" or "texts".
      contents: of the data set, for the message: "PATH holds images".
    """
    for name in names:
        require(
            config[name] == schema.DEFAULTS[name],
            f"config.data.{name} = {short_repr(config[name])} is for {kind}, and {contents}",
        )
