"""The user's own array_record files: images with labels or texts, sharded or not, and
one-line errors for files that cannot be used.
"""

import numpy as np
import pytest
from ml_collections import ConfigDict
from option_files import write_records

from aigc_jax import data
from aigc_jax.data import fingerprints
from aigc_jax.data import schema as data_schema
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.data.windows import make_window_dataset
from aigc_jax.utils.errors import UserError

pytest.importorskip("array_record.python", reason="array_record exists for Linux only")
pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("own_cache")]
TEXTS = [f"Text {i} of many, {i * i} in all.\n" for i in range(150)]


def section(path, **more):
    return ConfigDict(data_schema.DEFAULTS | dict(name="array_record", path=str(path)) | more)


def load(path, **more):
    return data.load(section(path, **dict(size=8) | more))


def load_text(path, **more):
    return data.load(section(path, length=8, **more))


def pixels(count, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, 8, 8, 3)).astype(np.uint8)


def write_images(folder, shards=2):
    """50 training and 20 test images with labels of 3 classes."""
    train, test = pixels(50), pixels(20, 1)
    for i in range(shards):
        part = train[50 * i // shards : 50 * (i + 1) // shards]
        write_records(folder / f"train-{i:05d}-of-{shards:05d}.array_record", part)
    write_records(folder / "test.array_record", test)
    np.save(folder / "train_labels.npy", np.arange(50) % 3)
    np.save(folder / "test_labels.npy", np.arange(20) % 3)
    return train, test


def test_images_and_labels_are_those_of_the_records(tmp_path):
    train, test = write_images(tmp_path)
    ds = load(tmp_path)
    assert ds.splits == dict(train=(0, 45), valid=(45, 5), test=(50, 20)) and ds.spec.classes == 3
    x, label = np.asarray(ds.arrays["x"]), ds.arrays["label"]
    order = [next(i for i in range(50) if (train[i] == image).all()) for image in x[:50]]
    assert sorted(order) == list(range(50))
    np.testing.assert_array_equal(label[:50], np.array(order) % 3)
    np.testing.assert_array_equal(x[50:], test)
    np.testing.assert_array_equal(label[50:], np.arange(20) % 3)
    for name in ("train", "test"):
        (tmp_path / f"{name}_labels.npy").unlink()
    assert load(tmp_path).spec.classes == 0


@pytest.mark.parametrize(
    "names",
    [
        ("train.array_record", "validation.array_record"),
        ("train.array_record-00000-of-00001", "val-00000-of-00001.array_record"),
        ("train_a.array_record", "dev.array_record"),
    ],
)
def test_names_of_files_determine_the_splits(tmp_path, names):
    for i, name in enumerate(names):
        write_records(tmp_path / name, pixels(10 + i, i))
    ds = load(tmp_path)
    assert ds.splits == dict(train=(0, 10), valid=(10, 11), test=(10, 11))
    np.testing.assert_array_equal(ds.arrays["x"][10:], pixels(11, 1))


def test_texts_are_tokenized_as_the_same_texts_in_memory(tmp_path):
    write_records(tmp_path / "train-00000-of-00002.array_record", TEXTS[:70])
    write_records(tmp_path / "train-00001-of-00002.array_record", TEXTS[70:])
    for more in (dict(), dict(tokenizer="bpe", vocabulary=270, split="90/10")):
        ds = load_text(tmp_path, **more)
        texts = make_window_dataset(section(tmp_path, length=8, **more), TEXTS, {})
        assert ds.splits == texts.splits and ds.about["text"] == texts.about["text"]
        np.testing.assert_array_equal(ds.arrays["tokens"], texts.arrays["tokens"])
    write_records(tmp_path / "test.array_record", TEXTS[:20])
    assert load_text(tmp_path).about["text"]["documents"] == 170


@pytest.mark.parametrize(
    "record, words",
    [
        (b"\x00\x01\x02\xff", "first record of train is 4 bytes that begin with 00 01 02 ff"),
        (b"\n\x82\x01" + b"\n\xff" * 65, "is a tf.train.Example, which .* 'tfds'"),
        (b"", "are too few|has 0 tokens|is too long"),
    ],
)
def test_other_records_are_refused(tmp_path, record, words):
    write_records(tmp_path / "train.array_record", [record] * 20)
    with pytest.raises(UserError, match=words):
        load_text(tmp_path)


def test_invalid_directories_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no file train\*.array_record"):
        load(tmp_path / "empty")
    for name, words in (
        ("train-00001-of-00002.array_record", "shard train-00001-of-00002.array_record is missing"),
        ("train_labels.npy", "train_labels.npy: no such file"),
    ):
        write_images(tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(UserError, match=words):
            load(tmp_path / name)
    folder = tmp_path / "good"
    write_images(folder)
    for labels, words in (
        (np.arange(49), r"must be integers from 0, \[50\]"),
        (np.full(50, -1), "example 0 is -1; labels are integers"),
        (np.array([None] * 50), "train_labels.npy cannot be read"),
    ):
        np.save(folder / "train_labels.npy", labels, allow_pickle=True)
        with pytest.raises(UserError, match=words):
            load(folder)
    write_images(folder)
    with pytest.raises(UserError, match="data.tokenizer = 'words' is for texts, and .* images"):
        load(folder, tokenizer="words")
    with pytest.raises(UserError, match="data.size = 8 pixels|size = 4 .* must be between"):
        load(folder, size=4)
    (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="set config.data.name = 'tfds'"):
        load(folder)
    write_records(tmp_path / "texts" / "train.array_record", TEXTS)
    with pytest.raises(UserError, match="colour = 'grey' is for images, and .* holds texts"):
        load_text(tmp_path / "texts", colour="grey")
    np.save(tmp_path / "texts" / "train_labels.npy", np.arange(150))
    with pytest.raises(UserError, match="has train_labels.npy, and holds texts"):
        load_text(tmp_path / "texts")


def test_record_of_another_kind_is_named(tmp_path):
    write_records(tmp_path / "a" / "train.array_record", [*pixels(30), b"no image"])
    with pytest.raises(UserError, match="the image in row 30 of train cannot be decoded"):
        np.asarray(load(tmp_path / "a").arrays["x"])
    write_records(tmp_path / "b" / "train.array_record", [*TEXTS, b"\xff", "more"])
    with pytest.raises(UserError, match="record 150 is not a text in UTF-8"):
        load_text(tmp_path / "b")


def test_fingerprint_reads_pieces_of_large_files(tmp_path, monkeypatch):
    write_images(tmp_path)
    first = hash_arrays_and_splits(load(tmp_path))
    assert hash_arrays_and_splits(load(tmp_path)) == first
    np.save(tmp_path / "test_labels.npy", (np.arange(20) + 1) % 3)
    assert hash_arrays_and_splits(load(tmp_path)) != first
    read = []
    real = fingerprints.open_regular_file

    class Counted:
        def __init__(self, path):
            self.file = real(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def seek(self, at):
            self.file.seek(at)

        def read(self, n):
            read.append(n)
            return self.file.read(n)

    monkeypatch.setattr(fingerprints, "open_regular_file", Counted)
    monkeypatch.setattr(fingerprints, "HASH_BYTES", 2**16)
    content = np.random.RandomState(0).bytes(2**22)
    for name in "ab":
        (tmp_path / name).write_bytes(content)
    fingerprints.hash_files([tmp_path / "a", tmp_path / "b"])
    assert sum(read) <= 2**17
