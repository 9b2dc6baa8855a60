"""Images that tensorflow-datasets prepared as array_record files, read record by
record: their number is limited only by the disk.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files
from aigc_jax.data.dataset import Dataset, make_consecutive_bounds, wrap_image_arrays
from aigc_jax.data.fingerprints import hash_files
from aigc_jax.data.rows import HELD_OUT
from aigc_jax.utils.errors import UserError, first_line, format_suggestion, require
from aigc_jax.utils.files import expand_user, is_regular_file, require_regular_file


class Records:
    """Concatenated sources of records. The records of the last requested rows are
    cached, so that each feature of a batch reuses them.

    Args:
      sources: data sources of tensorflow-datasets, which have `__getitems__`.
      identity: a hash that identifies the contents.
      where: the directory, for error messages.
    """

    def __init__(self, sources: Sequence, identity: str, where: Path) -> None:
        self.sources, self.starts, self.identity, self.where = (
            sources,
            np.cumsum([0, *map(len, sources)]),
            identity,
            where,
        )
        self._lock = threading.Lock()
        self._last: tuple[np.ndarray | None, list[dict]] = (None, [])

    def read_rows(self, rows: np.ndarray) -> list[dict]:
        """Return the records of `rows` [n], in that order; raise a UserError where a
        record cannot be read. The result of the last call is cached for all features.
        """
        with self._lock:
            if self._last[0] is None or not np.array_equal(self._last[0], rows):
                self._last = rows.copy(), self._read_rows(rows)
            return self._last[1]

    def _read_rows(self, rows: np.ndarray) -> list[dict]:
        which = np.searchsorted(self.starts, rows, side="right") - 1
        records: list[dict] = [{}] * len(rows)
        for i in np.unique(which):
            positions = np.flatnonzero(which == i)
            part = self._read(i, (rows[positions] - self.starts[i]).tolist())
            for place, record in zip(positions, part, strict=True):
                records[place] = record
        return records

    def _read(self, i, rows):
        try:
            return self.sources[i].__getitems__(rows)
        except Exception as e:  # a damaged file raises exceptions of many types
            raise UserError(
                f"{self.where} has records that cannot be read: {first_line(e)}"
            ) from None


class Feature:
    """One feature of all records as an array [n, ...] that reads only indexed rows.

    Args:
      records: all records.
      name: of the feature.
      shape: of the feature of one record.
      dtype: that its values are converted to.
    """

    def __init__(self, records: Records, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self.records, self.name, self.dtype = records, name, np.dtype(dtype)
        self.shape, self.identity = (int(records.starts[-1]), *shape), records.identity
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, at):
        rows = np.arange(*at.indices(len(self))) if isinstance(at, slice) else np.asarray(at)
        values = [
            np.asarray(record[self.name], self.dtype)
            for record in self.records.read_rows(rows.reshape(-1))
        ]
        return np.array(values, self.dtype).reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype=None, copy=None):
        return self[:].astype(dtype or self.dtype, copy=False)


def open_tfds_sources(
    version_dir: Path,
) -> tuple[Any, dict[str, Any]]:  # builder, {split: data source}
    """Return the builder of a prepared version, and {split: data source}."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(version_dir)
        return builder, {
            split: builder.as_data_source(split)
            for split in ("train", "validation", "test")
            if split in builder.info.splits
        }
    except Exception as e:
        # A damaged directory raises exceptions of many types; other formats need
        # TensorFlow.
        raise UserError(
            f"{version_dir} cannot be read without TensorFlow ({first_line(e)}); prepare it with "
            "file_format='array_record'"
        ) from None


def require_image_feature(
    builder: Any, version_dir: Path
) -> tuple[dict, tuple[int, int, int]]:  # all features, [H, W, C]
    """Return the features of a prepared version, and the shape of its images."""
    features = (
        dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    )
    shape = getattr(features.get("image"), "shape", None)
    if shape is None or len(shape) != 3 or None in shape or features["image"].np_dtype != np.uint8:
        raise UserError(
            f"{version_dir} has no feature image of bytes [H, W, C], all of one size; it has "
            + (", ".join(features) or "none")
        )
    return features, shape


def load_tfds_images(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load images that tensorflow-datasets prepared.

    The records have a feature `image`, uint8 [H, W, C], and optionally a class `label`.
    data.path is the directory of a prepared version, or the name of a data set in the
    search directories. The splits are train, validation (by default the last tenth of
    train) and test (by default validation).
    """
    folder = find_tfds_version(config.path, data_dir)
    parts = sorted(p for p in folder.iterdir() if not p.is_dir())
    for part in parts:
        require_regular_file(part)
    builder, sources = open_tfds_sources(folder)
    features, shape = require_image_feature(builder, folder)
    require(
        "train" in sources,
        f"{folder} has no split train; it has {', '.join(builder.info.splits) or 'none'}",
    )
    counts = {split: len(source) for split, source in sources.items()}
    if "validation" not in counts:
        num_valid = counts["train"] // HELD_OUT
        counts = dict(train=counts["train"] - num_valid, validation=num_valid) | {
            k: n for k, n in counts.items() if k == "test"
        }
    records = Records(list(sources.values()), hash_files(parts), folder)
    arrays, classes = dict(x=Feature(records, "image", shape, np.uint8)), 0
    if "label" in features:
        arrays["label"], classes = (
            Feature(records, "label", (), np.int32),
            features["label"].num_classes,
        )
    about = dict(
        source=f"{folder} (prepared by tensorflow-datasets)",
        licence=(builder.info.redistribution_info.license or "none stated"),
    )
    return wrap_image_arrays(
        arrays,
        make_consecutive_bounds(
            {"valid" if k == "validation" else k: n for k, n in counts.items()}
        ),
        255,
        about,
        classes,
    )


def find_tfds_version(config_path: str, data_dir: str) -> Path:
    """Return the directory of the prepared data set that config.data.path names. Raise
    a UserError where none exists, with the most similar existing name.

    Args:
      config_path: config.data.path, a directory with a dataset_info.json, or the name
        of a data set.
      data_dir: a directory to search before the default ones; "" for none.
    """
    require(
        config_path != "",
        "config.data.path = '' must name a prepared data set for config.data.name = 'tfds'",
    )
    folder = expand_user(config_path)
    version = (
        folder
        if is_regular_file(folder / "dataset_info.json")
        else files.find_newest_tfds_version(config_path, data_dir)
    )
    if version is None:
        known = [
            p.parent.parent.name
            for root in files.list_search_directories(data_dir)
            for p in root.glob("*/*/dataset_info.json")
        ]
        raise UserError(
            f"config.data.path = {config_path!r} is neither a directory with a dataset_info.json, "
            "nor a prepared data set, for config.data.name = 'tfds' (searched "
            f"{files.list_places(config_path, data_dir)}); where TensorFlow is installed, prepare "
            f"it with: tfds build {config_path} --file_format=array_record --data_dir="
            f"{files.list_search_directories(data_dir)[0]}{format_suggestion(config_path, known)}"
        )
    return version
