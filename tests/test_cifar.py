"""CIFAR-10 in its binary and its Python form; what is damaged, and what would run code, is refused."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from aigc_jax import config as configs
from aigc_jax import data
from aigc_jax.data import cifar
from aigc_jax.errors import UserError
from aigc_jax.results import file_sha256

RANDOM = np.random.RandomState(0)
PICTURES = {name: RANDOM.randint(0, 256, (20, 3072)).astype(np.uint8) for name in (*cifar.BATCHES, "test_batch")}
LABELS = {name: RANDOM.randint(0, 10, 20).tolist() for name in PICTURES}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cifar, "RECORDS", 20)
    monkeypatch.setattr(cifar, "VALID", 10)
    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)


def loaded(root, **more):
    return data.load(configs.ConfigDict(configs.DATA | dict(name="cifar10")).lock(), str(root), **more)


def as_python2(content):
    """A pickle as Python 2 wrote them: byte strings as such, NumPy's functions by their old names."""
    raw = pickle.dumps(content, protocol=2)
    return raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write(folder, form):
    folder.mkdir(parents=True)
    for name in PICTURES:
        if form == "binary":
            rows = np.concatenate([np.array(LABELS[name], np.uint8)[:, None], PICTURES[name]], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            (folder / name).write_bytes(as_python2({b"data": PICTURES[name], b"labels": LABELS[name], b"batch_label": b"one"}))


def test_both_forms_packed_or_not_are_the_same_pictures(tmp_path, monkeypatch):
    found = []
    for form, (archive, folder, _) in cifar.FORMS.items():
        write(tmp_path / form / "cifar10" / folder, form)
        found.append(loaded(tmp_path / form))
        (tmp_path / f"packed_{form}").mkdir()
        with tarfile.open(tmp_path / f"packed_{form}" / archive, "w:gz") as tar:
            tar.add(tmp_path / form / "cifar10" / folder, folder)
        if form == "binary":
            monkeypatch.setitem(cifar.ARCHIVE, archive, file_sha256(tmp_path / f"packed_{form}" / archive))
        found.append(loaded(tmp_path / f"packed_{form}"))
    for ds in found:
        assert ds.splits == dict(train=(0, 90), valid=(90, 10), test=(100, 20)) and ds.spec.classes == 10 and ds.spec.levels == 255
        for key in ds.arrays:
            np.testing.assert_array_equal(ds.arrays[key], found[0].arrays[key])
    x = found[0].arrays["x"]
    assert x.shape == (120, 32, 32, 3)
    np.testing.assert_array_equal(x[0, 3, 5], PICTURES["data_batch_1"][0].reshape(3, 32, 32)[:, 3, 5])
    assert found[0].arrays["label"][100:].tolist() == LABELS["test_batch"]


class Evil:
    def __reduce__(self):
        return os.system, ("touch {}",)


def test_no_code_of_a_pickle_runs(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    write(folder, "python")
    mark = tmp_path / "touched"
    for content in (Evil(), {b"data": Evil(), b"labels": [0] * 20}):
        (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2).replace(b"touch {}", f"touch {mark}".encode()[:8]))
        with pytest.raises(UserError, match="data_batch_2 (asks for .*system, which is not data|is no readable pickle)"):
            loaded(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("change, words", [
    (lambda raw: raw[:-1], "is no readable pickle"),
    (lambda raw: pickle.dumps([1, 2]), "no data and labels"),
    (lambda raw: as_python2({b"data": PICTURES["test_batch"][:, :5], b"labels": [0] * 20}), r"has data \(20, 5\)"),
    (lambda raw: as_python2({b"data": PICTURES["test_batch"].astype(np.float32), b"labels": [0] * 20}), "no array of bytes|has data"),
    (lambda raw: as_python2({b"data": b"text", b"labels": [0] * 20}), "no array of bytes"),
    (lambda raw: as_python2({b"data": PICTURES["test_batch"], b"labels": [11] * 20}), "has a label 11; there are 10 classes"),
])  # fmt: skip
def test_python_batches_that_are_none(tmp_path, change, words):
    file = tmp_path / "cifar-10-batches-py" / "test_batch"
    write(file.parent, "python")
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(UserError, match=words):
        loaded(tmp_path)


def test_files_that_are_cut_missing_or_nowhere(tmp_path):
    with pytest.raises(UserError, match="cifar10: cifar-10-binary.tar.gz not found .* --name=cifar10 --download"):
        loaded(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    write(file.parent, "binary")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(UserError, match="data_batch_3.bin has 61453 bytes; a batch of CIFAR-10 has 61460"):
        loaded(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="data_batch_3.bin is missing"):
        loaded(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "cifar-10-python.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read from"):
        loaded(other)
    with tarfile.open(other / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("cifar-10-batches-py/else"), io.BytesIO())
    with pytest.raises(UserError, match="cifar-10-batches-py/data_batch_1 cannot be read"):
        loaded(other)
