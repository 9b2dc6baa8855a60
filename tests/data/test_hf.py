"""Data sets that Hugging Face's library `datasets` saved to disk: columns, splits, and
one-line errors for files that cannot be used.
"""

import io
import json
import os
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from ml_collections import ConfigDict
from PIL import Image

from aigc_jax import data
from aigc_jax.data import arrow, tokenizers
from aigc_jax.data import schema as data_schema
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.data.windows import make_window_dataset
from aigc_jax.utils.errors import UserError

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("own_cache")]
datasets.disable_progress_bars()
CLASSES = ["shirt", "shoe", "bag"]
TEXTS = [f"Text {i} of many, {i * i} in all.\n" for i in range(150)]


def section(path, **more):
    return ConfigDict(
        data_schema.DEFAULTS | dict(name="hf", path=str(path), size=8, length=8) | more
    )


def load(path, **more):
    return data.load(section(path, **more | dict(length=data_schema.DEFAULTS["length"])))


def load_text(path, **more):
    return data.load(section(path, **dict(size=data_schema.DEFAULTS["size"]) | more))


def pixels(count, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, 8, 8, 3)).astype(np.uint8)


def png(image) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def image_dataset(images, label=None, name="label"):
    """A data set of images, with a column of classes if there are labels."""
    rows = dict(image=[dict(bytes=png(image), path=None) for image in images])
    features = dict(image=datasets.Image())
    if label is not None:
        rows[name], features[name] = list(label), datasets.ClassLabel(names=CLASSES)
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def save(saved, path) -> Path:
    """Save a data set, or {split: data set}."""
    saved = datasets.DatasetDict(saved) if isinstance(saved, dict) else saved
    saved.save_to_disk(path)
    return path


def write_arrow(path, table, options=None):
    """Replace the only file of a data set."""
    with (
        pa.OSFile(str(path / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema, options=options) as writer,
    ):
        writer.write_table(table)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_images_and_labels_are_those_of_the_rows(tmp_path):
    """The rows are sorted by class; the fixed shuffle divides each class evenly."""
    images, label = pixels(300), np.repeat(np.arange(3), 100)
    saved = image_dataset(images, label)
    saved.save_to_disk(tmp_path / "a", num_shards=3)
    ds = load(tmp_path / "a")
    assert ds.splits == dict(train=(0, 240), valid=(240, 30), test=(270, 30))
    assert ds.about["classes"] == dict.fromkeys(CLASSES, 100) and ds.spec.classes == 3
    assert ds.spec.shape == (8, 8, 3) and ds.spec.levels == 255
    x = np.asarray(ds.arrays["x"])
    order = [next(i for i in range(300) if (images[i] == image).all()) for image in x]
    assert sorted(order) == list(range(300)) and order != list(range(300))
    np.testing.assert_array_equal(ds.arrays["label"], label[order])
    assert all(np.bincount(ds.arrays["label"][240:]) > 10)
    rows = np.array([[299, 0], [7, 7]])
    np.testing.assert_array_equal(ds.arrays["x"][rows], x[rows])
    batch = ds.take(ds.arrays, rows[0])
    np.testing.assert_allclose(batch["x"], x[rows[0]] / 127.5 - 1, atol=1e-6)
    grey = load(tmp_path / "a", colour="grey", size=16)
    assert grey.arrays["x"].shape == (300, 16, 16, 1)
    assert hash_arrays_and_splits(grey) != hash_arrays_and_splits(ds)


def test_splits_of_a_dataset_dict_are_unchanged(tmp_path):
    parts = {name: pixels(20, i) for i, name in enumerate(("validation", "test", "train"))}
    path = save({name: image_dataset(x) for name, x in parts.items()}, tmp_path / "a")
    ds = load(path)
    assert ds.splits == dict(train=(0, 20), valid=(20, 20), test=(40, 20)) and not ds.spec.classes
    x = np.asarray(ds.arrays["x"])
    for i, name in enumerate(("train", "validation", "test")):
        np.testing.assert_array_equal(x[20 * i : 20 * i + 20], parts[name])


def test_missing_validation_split_is_a_tenth_of_train(tmp_path):
    train, test = pixels(50), pixels(10, 1)
    ds = load(save(dict(train=image_dataset(train), test=image_dataset(test)), tmp_path / "a"))
    assert ds.splits == dict(train=(0, 45), valid=(45, 5), test=(50, 10))
    x = np.asarray(ds.arrays["x"])
    np.testing.assert_array_equal(np.sort(x[:50].sum((1, 2, 3))), np.sort(train.sum((1, 2, 3))))
    np.testing.assert_array_equal(x[50:], test)
    alone = load(save(dict(test=image_dataset(train)), tmp_path / "b"))
    undivided = load(save(image_dataset(train), tmp_path / "c"), split="80/10/10")
    np.testing.assert_array_equal(alone.arrays["x"], undivided.arrays["x"])
    assert load(tmp_path / "c", split="90/10").splits == dict(
        train=(0, 45), valid=(45, 5), test=(45, 5)
    )
    with pytest.raises(UserError, match="has no split train; it has left, right"):
        load(save(dict(left=image_dataset(test), right=image_dataset(test)), tmp_path / "d"))


def test_texts_are_tokenized_as_the_same_texts_in_memory(tmp_path):
    """Read one by one, the texts give the tokens and splits of `text` data sets."""
    path = save(datasets.Dataset.from_dict(dict(text=[*TEXTS, "", None])), tmp_path / "a")
    for more in (
        dict(tokenizer="bytes"),
        dict(tokenizer="characters", lower=True, split="90/10"),
        dict(tokenizer="bpe", vocabulary=270),
    ):
        ds, texts = load_text(path, **more), make_window_dataset(section(path, **more), TEXTS, {})
        assert ds.splits == texts.splits and ds.spec == texts.spec
        assert ds.about["text"] == texts.about["text"]
        np.testing.assert_array_equal(ds.arrays["tokens"], texts.arrays["tokens"])
        rows, words = np.arange(9), np.arange(9).astype(np.uint32)
        for mine, theirs in (
            (ds.take(ds.arrays, rows), texts.take(texts.arrays, rows)),
            (ds.vary(ds.arrays, rows, words), texts.vary(texts.arrays, rows, words)),
        ):
            assert mine.keys() == theirs.keys()
            for name in mine:
                np.testing.assert_array_equal(mine[name], theirs[name])


def test_texts_are_tokenized_once_and_follow_their_splits(tmp_path, monkeypatch, capsys):
    parts = dict(train=TEXTS[:100], validation=TEXTS[100:120], test=TEXTS[120:])
    path = save(
        {k: datasets.Dataset.from_dict(dict(text=v)) for k, v in parts.items()}, tmp_path / "a"
    )
    calls = []
    real = tokenizers.build
    monkeypatch.setattr(tokenizers, "build", lambda *args: calls.append(args) or real(*args))
    first, again = load_text(path), load_text(path)
    assert len(calls) == 1 and hash_arrays_and_splits(first) == hash_arrays_and_splits(again)
    assert isinstance(again.arrays["tokens"].parts[0].base, np.memmap)
    text = first.tokenizer.decode(np.asarray(first.arrays["tokens"]))
    assert [text.index(parts[name][0]) for name in parts] == sorted(
        text.index(parts[name][0]) for name in parts
    )
    start, _ = first.splits["test"]
    begin = first.take(first.arrays, np.arange(start, start + 3))["tokens"][:, :-1].reshape(-1)
    assert TEXTS[120].startswith(first.tokenizer.decode(begin)[:20])
    load_text(path, control="drop")
    assert len(calls) == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    uncached = load_text(path)
    assert "tokens cannot be cached in" in capsys.readouterr().err
    assert hash_arrays_and_splits(uncached) == hash_arrays_and_splits(first)
    np.testing.assert_array_equal(uncached.arrays["tokens"], first.arrays["tokens"])
    two = load_text(
        save(
            dict(
                train=datasets.Dataset.from_dict(dict(text=TEXTS)),
                test=datasets.Dataset.from_dict(dict(text=TEXTS[:9])),
            ),
            tmp_path / "b",
        )
    )
    assert two.splits["valid"] != two.splits["test"] and two.about["text"]["documents"] == 159


def test_single_large_text_is_divided_by_position(tmp_path):
    path = save(datasets.Dataset.from_dict(dict(book=["".join(TEXTS)])), tmp_path / "a")
    ds = load_text(path, tokenizer="characters")
    texts = make_window_dataset(section(path, tokenizer="characters"), ["".join(TEXTS)], {})
    assert ds.splits == texts.splits and ds.about["text"]["documents"] == 1


def test_two_columns_of_strings_are_pairs(tmp_path):
    numbers = [str(n) for n in range(1000, 1200)]
    rows = dict(en=numbers, de=[n[::-1] for n in numbers], n=list(range(200)))
    path = save(datasets.Dataset.from_dict(rows), tmp_path / "a")
    columns = dict(input_column="en", target_column="de")
    ds = load_text(path, **columns)
    assert ds.spec.kind == "pairs" and sum(n for _, n in ds.splits.values()) == 200
    batch = ds.take(ds.arrays, np.arange(5))
    for source, target in zip(batch["source"], batch["tokens"], strict=True):
        source, target = (ds.tokenizer.decode_until_end(x) for x in (source, target[1:]))
        assert source == target[::-1] and source in numbers
    one = load_text(path, prefix_lm=True, **columns | dict(length=12))
    assert one.spec.kind == "text"
    assert ds.tokenizer.decode_until_end(one.arrays["tokens"][0][1:])[4] == "\n"
    own = {
        k: datasets.Dataset.from_dict({c: v[i::2] for c, v in rows.items()})
        for i, k in enumerate(("train", "validation"))
    }
    assert load_text(save(own, tmp_path / "b"), **columns).splits["train"] == (0, 100)


@pytest.mark.parametrize(
    "rows, more, words",
    [
        (dict(a=["x"] * 9, b=["y"] * 9), {}, "'' must name .* a .string., b .string."),
        (dict(n=[1] * 9), {}, "input_column = '' must name .* columns n .integer."),
        (dict(text=["x"] * 9), dict(input_column="txet"), "none of .*did you mean 'text'"),
        (dict(text=["x"] * 9, n=[1.0] * 9), dict(input_column="n"), "must be .*n .double."),
        (dict(text=["x"] * 9, n=[1] * 9), dict(target_column="n"), "another column of string"),
        (dict(text=["x"] * 9), dict(target_column="text"), "another column of string"),
        (dict(text=["x"] * 9), dict(prefix_lm=True), "target_column to the targets"),
        (dict(text=["x"] * 9), dict(colour="grey"), "colour = 'grey' is for images, and"),
        (dict(text=["x"] * 9), dict(size=8), "size = 8 is for images, and"),
    ],
)
def test_ambiguous_and_wrong_columns_are_refused(tmp_path, rows, more, words):
    path = save(datasets.Dataset.from_dict(rows), tmp_path / "a")
    with pytest.raises(UserError, match=words):
        load_text(path, **more)


def test_ambiguous_classes_are_refused_and_chosen(tmp_path):
    label = np.arange(60) % 3
    two = image_dataset(pixels(60), label).add_column("number", (label * 2).tolist())
    assert load(save(two, tmp_path / "a")).spec.classes == 3
    assert load(tmp_path / "a", target_column="number").spec.classes == 5
    more = two.cast_column("number", datasets.ClassLabel(names=list("abcde")))
    with pytest.raises(UserError, match=r"must name the class .* number \(class\)"):
        load(save(more, tmp_path / "b"))
    assert list(load(tmp_path / "b", target_column="number").about["classes"]) == list("abcde")
    integers = image_dataset(pixels(60)).add_column("label", label.tolist())
    assert load(save(integers, tmp_path / "c")).about["classes"] == {"0": 20, "1": 20, "2": 20}
    with pytest.raises(UserError, match="tokenizer = 'words' is for texts, and .* holds images"):
        load(tmp_path / "c", tokenizer="words")
    captions = integers.add_column("caption", ["a bag"] * 60)
    assert load(save(captions, tmp_path / "d")).spec.kind == "image"
    assert load_text(tmp_path / "d", input_column="caption").spec.kind == "text"


def test_missing_values_are_refused(tmp_path):
    some = image_dataset(pixels(30), np.arange(30) % 3)
    hole = some.cast_column("image", datasets.Image(decode=False))
    hole = hole.map(
        lambda row, i: dict(image=dict(bytes=None, path="/etc/passwd")) if i == 3 else row,
        with_indices=True,
        features=some.features,
        load_from_cache_file=False,
    )
    table = hole.data.table  # `save_to_disk` would open the path
    path = save(some, tmp_path / "a")
    write_arrow(path, table)
    ds = load(path)
    with pytest.raises(UserError, match="image of train has no value in row 3: remove the row"):
        ds.arrays["x"][:]
    for value, words in ((None, "label of train has missing values"), (-1, "is -1; labels")):
        other = some.cast_column("label", datasets.Value("int64"))
        label = [value if i == 2 else 0 for i in range(30)]
        other = other.remove_columns("label").add_column("label", pa.array(label, pa.int64()))
        with pytest.raises(UserError, match=words):
            load(save(other, tmp_path / str(value)))


def test_image_that_cannot_be_decoded_is_named(tmp_path):
    saved = image_dataset(pixels(30))
    rows = [
        row["bytes"] for row in saved.cast_column("image", datasets.Image(decode=False))["image"]
    ]
    rows[7] = rows[7][:40]
    features = datasets.Features(image=datasets.Image())
    bad = datasets.Dataset.from_dict(
        dict(image=[dict(bytes=b, path=None) for b in rows]), features=features
    )
    ds = load(save(bad, tmp_path / "a"))
    with pytest.raises(UserError, match=r"the image in row 7 of train cannot be decoded \(.*\): r"):
        np.asarray(ds.arrays["x"])


def test_invalid_directories_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither state.json nor dataset_dict.json: write it by"):
        load(tmp_path / "empty")
    path = save(image_dataset(pixels(30)), tmp_path / "a")
    good = (path / "state.json").read_text()
    for name in ("../a/data-00000-of-00001.arrow", "/etc/passwd", "..", ""):
        edit_json(path / "state.json", _data_files=[dict(filename=name)])
        with pytest.raises(UserError, match="names a file outside of its directory"):
            load(path)
    edit_json(path / "state.json", _data_files=[])
    with pytest.raises(UserError, match="has no data files"):
        load(path)
    (path / "state.json").write_text(good[:-9])
    with pytest.raises(UserError, match="state.json is damaged: it is not JSON"):
        load(path)
    (path / "state.json").write_text(good)
    file = path / "data-00000-of-00001.arrow"
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(UserError, match="data-00000-of-00001.arrow: no such file"):
        load(path)
    os.mkfifo(file)
    with pytest.raises(UserError, match="is a FIFO, and must be a regular file"):
        load(path)
    file.unlink()
    table = pa.ipc.open_stream(pa.py_buffer(content)).read_all()
    for options, tables, words in (
        (pa.ipc.IpcWriteOptions(compression="zstd"), table, "compressed"),
        (None, table.rename_columns(["other"]), "input_column = ''"),
    ):
        write_arrow(path, tables, options)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match=words):
            patch.setattr(arrow, "COPIED_BYTES", 100)
            load(path)


def test_wrong_offsets_in_a_file_are_refused_before_they_are_read(tmp_path):
    """Arrow would read outside of the file by them."""
    path = save(datasets.Dataset.from_dict(dict(text=TEXTS)), tmp_path / "a")
    file = path / "data-00000-of-00001.arrow"
    content = bytearray(file.read_bytes())
    offsets = np.cumsum([0, *map(len, TEXTS)]).astype("<i4").tobytes()
    at = content.index(offsets[:64])
    content[at + 40 : at + 44] = np.array([2**30], "<i4").tobytes()
    file.write_bytes(content)
    with pytest.raises(UserError, match="text of train is damaged: "):
        load_text(path)


def test_fingerprint_follows_the_contents(tmp_path):
    path = save(image_dataset(pixels(30), np.arange(30) % 3), tmp_path / "a")
    first = hash_arrays_and_splits(load(path))
    assert hash_arrays_and_splits(load(path)) == first
    file = path / "data-00000-of-00001.arrow"
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 9] ^= 1
    file.write_bytes(content)
    assert hash_arrays_and_splits(load(path)) != first


def test_library_is_not_imported_and_its_absence_is_a_one_line_error(tmp_path, monkeypatch):
    path = save(image_dataset(pixels(30)), tmp_path / "a")
    for name in [n for n in sys.modules if n.split(".")[0] == "datasets"]:
        monkeypatch.delitem(sys.modules, name)
    np.asarray(load(path).arrays["x"])
    assert "datasets" not in sys.modules
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(UserError, match=r"needs the package pyarrow: pip install 'aigc_jax\[hf\]'"):
        load(path)
