"""The user's own array_record files: a record is the contents of an image file, or a
text in UTF-8. Records are read one by one, so that their number is limited only by the
disk.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files, rows, streamed_texts
from aigc_jax.data.dataset import Dataset
from aigc_jax.data.decoding import is_image_file
from aigc_jax.data.fingerprints import hash_files
from aigc_jax.data.npz import convert_labels
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import is_regular_file, require_regular_file

# Split -> prefixes of the names of its files.
SPLITS = dict(train=("train",), valid=("val", "dev"), test=("test",))
SUFFIX = ".array_record"
SHARD = re.compile(r"-(\d{5,})-of-(\d{5,})")
AT_ONCE = 256  # records in memory at once where all records are read


class Records:
    """The records of the files of a split as `rows.Rows`, bytes.

    Args:
      paths: the files, whose records are concatenated.
      where: the directory and the split, for error messages.
    """

    def __init__(self, paths: list[Path], where: str) -> None:
        try:
            from array_record.python.array_record_data_source import ArrayRecordDataSource
        except ImportError:
            raise UserError(
                "config.data.name = 'array_record' needs the package array_record, which exists "
                "for Linux: pip install array_record"
            ) from None
        self.where = where
        try:
            self._source = ArrayRecordDataSource(list(map(str, paths)))
        except Exception as e:  # a damaged file raises exceptions of many types
            raise UserError(f"{where} cannot be read: {first_line(e)}") from None

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        for low in range(0, len(self), AT_ONCE):
            yield from self.read_rows(np.arange(low, min(low + AT_ONCE, len(self))))

    def read_rows(self, rows: np.ndarray) -> list[Any]:  # [n] -> n records
        """Return these records; raise a UserError where they cannot be read."""
        try:
            return list(self._source.__getitems__(rows.tolist()))
        except Exception as e:
            raise UserError(f"{self.where} has records that cannot be read: {first_line(e)}") from e


class TextRecords(Records):
    """The records of the files of a split as texts."""

    def read_rows(self, rows: np.ndarray) -> list[str]:  # [n] -> n texts
        """Return these texts; raise a UserError where they cannot be read."""
        texts = []
        for row, record in zip(rows, super().read_rows(rows), strict=True):
            text = decode_text_record(record)
            if text is None:
                raise UserError(
                    f"{self.where}: record {row:,} is not a text in UTF-8, as the first record is"
                )
            texts.append(text)
        return texts


def load_array_records(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load the files train*, val* (or dev*) and test* in the directory data.path whose
    names contain .array_record, sorted by name.

    All records are contents of image files, or all are texts in UTF-8. The classes of
    images are in train_labels.npy, valid_labels.npy and test_labels.npy, integers [n]
    in the order of the records. A missing validation split is a tenth of train, and
    train alone is divided by data.split.
    """
    root = files.find_config_directory(config.path, data_dir, config.name, "array_record files")
    require(
        not is_regular_file(root / "dataset_info.json"),
        f"config.data.path = {config.path!r} was prepared by tensorflow-datasets: set "
        "config.data.name = 'tfds'",
    )
    paths = find_split_files(root, config.path)
    sources = {split: Records(found, f"{root}: {split}") for split, found in paths.items()}
    for split, records in sources.items():
        require(len(records) > 0, f"{root}: the files of {split} have no records")
    (first,) = sources["train"].read_rows(np.zeros(1, np.int64))
    label_paths = [p for split in paths if (p := root / f"{split}_labels.npy").exists()]
    every = [path for found in paths.values() for path in found]
    fingerprint = hash_files([*every, *label_paths])
    about = dict(source=str(root), licence="the user's own")
    holds = f"config.data.path = {config.path!r} holds"
    if is_image_file(first):
        rows.refuse_keys(config, rows.OF_TEXTS, "texts", f"{holds} images")
        labels = read_labels(root, {split: len(records) for split, records in sources.items()})
        return rows.make_decoded_image_dataset(config, sources, labels, fingerprint, about)
    require(
        decode_text_record(first) is not None,
        f"{root}: the first record of train is {describe_record(first)}; records are the "
        "contents of image files, or texts in UTF-8",
    )
    rows.refuse_keys(config, rows.OF_IMAGES, "images", f"{holds} texts")
    require(not label_paths, f"{root} has {label_paths and label_paths[0].name}, and holds texts")
    texts = {split: TextRecords(found, f"{root}: {split}") for split, found in paths.items()}
    return streamed_texts.make_streamed_window_dataset(config, texts, fingerprint, about)


def find_split_files(root: Path, config_path: str) -> dict[str, list[Path]]:
    """Return {split: its files, sorted by name}; raise a UserError where train has
    none, or a shard is missing.

    Args:
      root: the directory.
      config_path: its name in the config, for error messages.
    """
    found = {
        split: sorted(p for p in root.iterdir() if SUFFIX in p.name and p.name.startswith(names))
        for split, names in SPLITS.items()
    }
    require(found["train"], f"config.data.path = {config_path!r} has no file train*{SUFFIX}")
    for paths in found.values():
        for path in paths:
            require_regular_file(path)
        require_all_shards(root, [path.name for path in paths])
    return {split: paths for split, paths in found.items() if paths}


def require_all_shards(root: Path, names: list[str]) -> None:
    """Raise a UserError where one of the shards is missing that the names of the others
    declare, such as train-00000-of-00008.array_record.

    Args:
      root: the directory, for the message.
      names: of files.
    """
    groups: dict[str, list[str]] = {}
    for name in filter(SHARD.search, names):
        groups.setdefault(SHARD.sub(r"-*-of-\2", name, count=1), []).append(name)
    for pattern, present in groups.items():
        found = SHARD.search(present[0])
        assert found is not None  # true of every name in a group
        every = (pattern.replace("*", f"{i:0{len(found[1])}}", 1) for i in range(int(found[2])))
        missing = next((name for name in every if name not in set(present)), "")
        require(not missing, f"{root}: the shard {missing} is missing")


def read_labels(root: Path, counts: dict[str, int]) -> dict[str, np.ndarray]:  # int32 [n]
    """Return {split: labels} from the files of labels, or {} without any.

    Args:
      root: the directory.
      counts: {split: number of records}.
    """
    paths = {split: root / f"{split}_labels.npy" for split in counts}
    if not any(path.exists() for path in paths.values()):
        return {}
    labels = {}
    for split, path in paths.items():
        require_regular_file(path)
        try:
            array = np.load(path, allow_pickle=False, mmap_mode="r")
        except Exception as e:  # a damaged file raises exceptions of many types
            raise UserError(f"{path} cannot be read: {first_line(e)}") from None
        labels[split] = convert_labels(str(path), array, counts[split])
    return labels


def decode_text_record(record: bytes) -> str | None:  # None: no text
    """Return a record as text, or None where it is not UTF-8 or has a NUL."""
    try:
        text = record.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def describe_record(record: bytes) -> str:
    """Return a description of a record that is neither an image file nor a text."""
    if is_tf_example(record):
        return (
            "a tf.train.Example, which config.data.name = 'tfds' reads if prepared by that library"
        )
    return f"{len(record):,} bytes that begin with {record[:8].hex(' ')}"


def is_tf_example(record: bytes) -> bool:
    """Return whether a record is a message with one field of number 1 that contains
    all other bytes, as a tf.train.Example is.
    """
    length = 0  # base 128, the lowest digit first, whose last digit is below 128
    for i, digit in enumerate(record[1:10]):
        length |= (digit & 0x7F) << (7 * i)
        if digit < 0x80:
            return record[:1] == b"\n" and len(record) == 2 + i + length
    return False
