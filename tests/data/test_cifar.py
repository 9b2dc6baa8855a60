"""CIFAR-10 in its binary and Python forms: archives, directories, prepared data and
downloads; damaged files and pickles that would execute code are refused.
"""

import os
import pickle
import tarfile
import warnings

import numpy as np
import pytest
from ml_collections import ConfigDict
from pickles import pickled, python2

from aigc_jax.data import cifar, images, load
from aigc_jax.data import schema as data_schema
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.data.downloads import SOURCES
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit

COUNT = 20
RANDOM = np.random.RandomState(0)
PICTURES = {
    name: RANDOM.randint(0, 256, (COUNT, 3072)).astype(np.uint8)
    for name in (*cifar.TRAIN, cifar.TEST)
}
LABELS = {name: RANDOM.randint(0, 10, COUNT).tolist() for name in PICTURES}


@pytest.fixture(autouse=True)
def small_cifar(monkeypatch, tmp_path):
    monkeypatch.setattr(cifar, "RECORDS", COUNT)
    monkeypatch.setattr(images, "VALID", 10)
    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def load_cifar(root, **more):
    return load(ConfigDict(data_schema.DEFAULTS | dict(name="cifar10")).lock(), str(root), **more)


def write(folder, form):
    folder.mkdir(parents=True)
    for name in PICTURES:
        rows = np.concatenate([np.array(LABELS[name], np.uint8)[:, None], PICTURES[name]], axis=1)
        raw = rows.tobytes() if form == "binary" else pickled(PICTURES[name], LABELS[name])
        (folder / cifar.FORMS[form][2].format(name)).write_bytes(raw)


def pack(root, form, monkeypatch):
    """Writes the archive of a form and registers its checksum."""
    archive, folder, _ = cifar.FORMS[form]
    write(root / "made" / folder, form)
    with tarfile.open(root / archive, "w:gz") as tar:
        tar.add(root / "made" / folder, folder)
    monkeypatch.setitem(SOURCES["cifar10"].checksums, archive, file_sha256(root / archive))
    return root / archive


def test_handwritten_pickles_load_as_arrays():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core was renamed
        for x in (PICTURES["test_batch"], np.asfortranarray(PICTURES["test_batch"])):
            got = pickle.loads(pickled(x, LABELS["test_batch"]), encoding="bytes")
            np.testing.assert_array_equal(got[b"data"], x)
            assert (
                got[b"labels"] == LABELS["test_batch"]
                and got[b"data"].flags.f_contiguous == x.flags.f_contiguous
            )


@pytest.mark.parametrize("below", ["cifar10", "."])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["binary", "python"])
def test_both_forms_load_equal_images_packed_or_unpacked(
    tmp_path, monkeypatch, form, packed, below
):
    root = tmp_path / "root"
    (root / below).mkdir(parents=True)
    if packed:
        archive = pack(tmp_path, form, monkeypatch)
        archive.rename(root / below / archive.name)
    else:
        write(root / below / cifar.FORMS[form][1], form)
    before = sorted(root.rglob("*"))
    ds = load_cifar(root)
    assert (
        ds.splits == dict(train=(0, 90), valid=(90, 10), test=(100, 20))
        and ds.spec.classes == 10
        and ds.spec.levels == 255
    )
    x, label = ds.arrays["x"], ds.arrays["label"]
    assert x.dtype == np.uint8 and x.shape == (120, 32, 32, 3) and label.dtype == np.int32
    for row in range(32):
        for colour in range(3):  # red, green and blue planes in row-major order
            here = 1024 * colour + 32 * row
            np.testing.assert_array_equal(
                x[:, row, :, colour], np.concatenate(list(PICTURES.values()))[:, here : here + 32]
            )
    assert label.tolist() == sum(LABELS.values(), [])
    assert sorted(root.rglob("*")) == before  # nothing is unpacked to the disk


def test_fortran_order_arrays_load_unchanged():
    x = PICTURES["test_batch"]
    for order in (np.ascontiguousarray, np.asfortranarray):
        np.testing.assert_array_equal(
            cifar.parse_python_batch("x", pickled(order(x), [0] * COUNT))[0], x
        )


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("inside", [False, True])
def test_pickles_cannot_execute_code(tmp_path, inside):
    write(tmp_path / "cifar-10-batches-py", "python")
    mark, evil = tmp_path / "touched", Evil(tmp_path / "touched")
    raw = pickle.dumps({b"data": evil, b"labels": [0] * COUNT} if inside else evil, protocol=3)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(raw)
    with pytest.raises(UserError, match="data_batch_2 refers to posix.system, which is not data"):
        load_cifar(tmp_path)
    assert not mark.exists()
    pickle.loads(raw)  # a plain load does execute the code
    assert mark.exists()


X, NONE = PICTURES["test_batch"], [0] * COUNT


@pytest.mark.parametrize(
    "raw, words",
    [
        (pickled(X, NONE)[:-1], "is not a readable pickle"),
        (pickled(X, NONE)[:1000], "is not a readable pickle"),
        (b"", "is not a readable pickle"),
        (pickle.dumps([1, 2]), "no data and labels"),
        (pickle.dumps({b"data": 1}), "no data and labels"),
        (pickled(X[:, :5], NONE), r"its data are not uint8 \[20, 3072\]"),
        (pickled(X[:3], NONE), "its data are not uint8"),
        (pickled(X.view(np.int8), NONE), "its data are not uint8"),
        (pickled(X.astype(np.float32), NONE), "its data are not uint8"),
        (pickled(np.full((COUNT, 3072), None), NONE), "its data are not uint8"),  # dtype object
        (
            pickled(X, NONE).replace(python2(X.tobytes()), python2(X.tobytes()[:-1])),
            "its data are not uint8",
        ),
        (pickled(X.tobytes(), NONE), "its data are not uint8"),
        (pickled(X, NONE[1:]), "its labels are not a list of 20"),
        (pickled(X, 3), "its labels are not a list of 20"),
        (pickled(X, NONE[2:] + [10, 0]), "the label of record 18 is none of 0 to 9"),
        (pickled(X, [0, -1] + NONE[2:]), "the label of record 1 is none of 0 to 9"),
        (pickled(X, [[0]] + NONE[1:]), "the label of record 0 is none of 0 to 9"),
    ],
)
def test_invalid_python_batches_are_refused(raw, words):
    with pytest.raises(UserError, match=words) as e:
        cifar.parse_batch("python", "here/test_batch", raw)
    assert str(e.value).startswith("here/test_batch") and "\n" not in str(e.value)


def test_damaged_or_missing_files_are_refused(tmp_path):
    with pytest.raises(
        UserError, match="cifar10: cifar-10-binary.tar.gz not found .* --name=cifar10 --download"
    ):
        load_cifar(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    write(file.parent, "binary")
    whole = file.read_bytes()
    for bad in (whole[:-7], whole + b"\0", b""):
        file.write_bytes(bad)
        with pytest.raises(
            UserError,
            match=f"data_batch_3.bin has {len(bad):,} bytes; a batch of CIFAR-10 has 61,460",
        ):
            load_cifar(tmp_path)
    file.write_bytes(whole[: 3073 * 4] + b"\x0a" + whole[3073 * 4 + 1 :])
    with pytest.raises(
        UserError, match="data_batch_3.bin: the label of record 4 is none of 0 to 9"
    ):
        load_cifar(tmp_path)
    file.unlink()
    with pytest.raises(
        UserError, match="cifar10: data_batch_3.bin is missing in .*cifar-10-batches-bin"
    ):
        load_cifar(tmp_path)


@pytest.mark.parametrize("below", ["cifar10", "."])
@pytest.mark.parametrize("form", ["binary", "python"])
def test_truncated_or_changed_archives_are_refused(tmp_path, monkeypatch, form, below):
    archive = pack(tmp_path, form, monkeypatch)
    whole, half = archive.read_bytes(), archive.stat().st_size // 2
    file = tmp_path / "root" / below / archive.name
    file.parent.mkdir(parents=True)
    for bad in (
        b"",
        whole[:half],
        whole[:-1],
        whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
    ):
        file.write_bytes(bad)
        with pytest.raises(
            UserError,
            match=rf"cifar10: .*{archive.name} is damaged \({len(bad):,} bytes.*--name=cifar10 "
            r"--download",
        ):
            load_cifar(tmp_path / "root")


def test_downloaded_archive_loads(tmp_path, monkeypatch):
    archive, root = pack(tmp_path, "binary", monkeypatch), tmp_path / "root"

    def fetch(directory, names, data_dir):
        assert (directory, list(names), data_dir) == ("cifar10", [archive.name], str(root))
        (root / directory).mkdir(parents=True)
        archive.rename(root / directory / archive.name)

    monkeypatch.setattr(images, "download_missing_files", fetch)
    with pytest.raises(UserError, match="not found"):
        load_cifar(root)
    first, again = load_cifar(root, download=True), load_cifar(root)
    assert hash_arrays_and_splits(first) == hash_arrays_and_splits(again) and first.splits[
        "test"
    ] == (100, 20)
    assert first.about == again.about


def test_directory_prepared_by_tensorflow_datasets_loads(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds
    from PIL import Image

    made = {
        n: (RANDOM.randint(0, 256, (k, 32, 32, 3)).astype(np.uint8), RANDOM.randint(0, 10, k))
        for n, k in (("train", 13), ("test", 4))
    }

    class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.2")
        name = "cifar10"

        def _info(self):
            features = dict(
                id=tfds.features.Text(),
                image=tfds.features.Image(shape=(32, 32, 3)),
                label=tfds.features.ClassLabel(num_classes=10),
            )
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(name) for name in made}

        def _generate_examples(self, name):
            for i, (x, y) in enumerate(zip(*made[name], strict=True)):
                yield i, dict(id=str(i), image=Image.fromarray(x), label=int(y))

    monkeypatch.setattr(Cifar10, "pkg_dir_path", tmp_path, raising=False)
    Cifar10(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    ds = load_cifar(tmp_path)
    assert ds.splits == dict(train=(0, 3), valid=(3, 10), test=(13, 4)) and ds.spec.classes == 10
    key = lambda x, label: sorted((i.tobytes(), int(y)) for i, y in zip(x, label, strict=True))
    assert key(ds.arrays["x"][:13], ds.arrays["label"][:13]) == key(*made["train"])
    assert key(ds.arrays["x"][13:], ds.arrays["label"][13:]) == key(*made["test"])
