"""Data sets: splits, prepared data, missing or damaged files."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import section

from aigc_jax import data
from aigc_jax.data import dataset as datasets
from aigc_jax.data import records
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.data.downloads import SOURCES
from aigc_jax.data.images import IDX, read_amat, read_gzipped_idx
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit


def test_image_values_are_bitwise_equal_on_host_and_in_jit():
    """Every grey level is equal to the last bit, regardless of fusion: the features of
    a run do not depend on where its data are stored.
    """
    for levels, x in (
        (1, np.arange(2)),
        (16, np.arange(17)),
        (255, np.arange(256)),
        (2, np.linspace(0, 2, 1001, dtype=np.float32)),
    ):
        x = x.astype(np.uint8 if x.dtype.kind == "i" else np.float32).reshape(-1, 1, 1, 1)
        ds = datasets.wrap_image_arrays(dict(x=x), dict(train=(0, len(x))), levels, {})
        here, there = (
            ds.take(ds.arrays, np.arange(len(x)))["x"],
            jax.jit(ds.take)(ds.arrays, jnp.arange(len(x)))["x"],
        )
        np.testing.assert_array_equal(here, there)
        np.testing.assert_allclose(here.ravel(), x.ravel() * (2 / levels) - 1, atol=1e-7)
        assert here.min() == -1 and here.max() == 1


def test_digits_match_scikit_learn():
    ds = data.load(section("digits"))
    assert ds.splits == dict(train=(0, 1439), valid=(1439, 179), test=(1618, 179))
    x = ds.take(ds.arrays, np.arange(1797))["x"]
    assert x.shape == (1797, 8, 8, 1) and x.dtype == np.float32 and x.min() == -1 and x.max() == 1
    from sklearn.datasets import load_digits

    raw = load_digits()
    key = lambda images: sorted(np.ascontiguousarray(i).tobytes() for i in images)
    # The same images in another order.
    assert key((x[..., 0] + 1) * 8) == key(raw.images.astype(np.float32))
    np.testing.assert_allclose(jax.jit(ds.take)(ds.arrays, jnp.arange(9))["x"], x[:9], atol=1e-7)


@pytest.mark.parametrize("name, count, reach", [("ring", 8, 1.1), ("grid", 25, 4.3)])
def test_mixtures_match_their_specification(name, count, reach):
    ds = data.load(section(name))
    assert ds.spec.n_train == 100_000 and len(ds.spec.centres) == count
    x = ds.take(ds.arrays, np.arange(100_000))["x"].astype(np.float64)
    distance = x[:, None] - ds.spec.centres[None]
    nearest = (distance**2).sum(-1).argmin(1)
    residual = distance[np.arange(len(x)), nearest]
    assert residual.std() == pytest.approx(ds.spec.sigma, rel=0.02)
    assert np.bincount(nearest).min() > 0.9 * 100_000 / count and np.abs(x).max() < reach


def test_mnist_and_fashion_mnist_load(real_data):
    for name in ("mnist", "fashion_mnist"):
        ds = data.load(section(name), str(real_data))
        assert {k: n for k, (_, n) in ds.splits.items()} == dict(
            train=55_000, valid=5_000, test=10_000
        )
        x = ds.take(ds.arrays, np.arange(100))["x"]
        assert x.shape == (100, 28, 28, 1) and x.min() == -1 and x.max() == 1
    assert datasets.hash_arrays_and_splits(ds) != datasets.hash_arrays_and_splits(
        data.load(section("mnist"))
    )


def test_damaged_or_missing_mnist_files_are_refused(real_data, tmp_path):
    for name in ("mnist", "fashion_mnist"):
        folder = tmp_path / name
        folder.mkdir()
        for file in IDX:
            whole = (real_data / name / file).read_bytes()
            for other in IDX:
                if not (folder / other).exists():
                    (folder / other).symlink_to(real_data / name / other)
            (folder / file).unlink()
            for bad in (
                whole[:1],
                whole[: len(whole) // 2],
                whole[:-1],
                whole[:50] + bytes([whole[50] ^ 1]) + whole[51:],
            ):
                (folder / file).write_bytes(bad)
                with pytest.raises(UserError, match=f"{file} is damaged.*--download"):
                    data.load(section(name), str(tmp_path))
            (folder / file).unlink()
            with pytest.raises(
                UserError,
                match=f"{file} is missing in .*aigc data --name={name} --download",
            ):
                data.load(section(name), str(tmp_path))


def test_binarized_mnist_loads_and_damage_is_refused(real_data, tmp_path, monkeypatch):
    ds = data.load(section("binarized_mnist"), str(real_data))
    assert {k: n for k, (_, n) in ds.splits.items()} == dict(
        train=50_000, valid=10_000, test=10_000
    )
    assert ds.spec.levels == 1 and ds.spec.classes == 0 and ds.spec.shape == (28, 28, 1)
    x = ds.take(ds.arrays, np.arange(100))["x"]
    assert set(np.unique(x)) == {-1, 1} and 0.05 < (x == 1).mean() < 0.25
    # Binarization preserves the mean image of MNIST.
    grey = data.load(section("mnist"), str(real_data)).arrays["x"][:50_000].mean(0) / 255
    assert np.abs(ds.arrays["x"][:50_000].mean(0) - grey).max() < 0.02
    # Uncompressed files are accepted too; truncated or changed archives are
    # refused.
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    for file in SOURCES["binarized_mnist"].checksums:
        packed = (real_data / "binarized_mnist" / (file + ".gz")).read_bytes()
        (folder / file).write_bytes(gzip.decompress(packed))
    assert datasets.hash_arrays_and_splits(
        data.load(section("binarized_mnist"), str(tmp_path))
    ) == datasets.hash_arrays_and_splits(ds)
    (folder / file).unlink()
    for bad in (
        packed[:1000],
        packed[:-1],
        b"",
        gzip.compress(b"0 1\n"),
        packed[:5000] + b"x" + packed[5001:],
    ):
        (folder / (file + ".gz")).write_bytes(bad)
        with pytest.raises(UserError, match=f"{file}.gz is damaged"):
            data.load(section("binarized_mnist"), str(tmp_path))


@pytest.mark.parametrize("raw", [b"", b"0 1\n", b"2 " * 784, b"0 " * 783 + b"0"])
def test_invalid_amat_files_are_refused(tmp_path, raw):
    (tmp_path / "x.amat").write_bytes(raw)
    with pytest.raises(UserError, match="no lines of 784 zeros and ones"):
        read_amat(tmp_path / "x.amat")


def test_missing_data_set_error_lists_searched_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AIGC_DATA_DIR", str(tmp_path / "a"))
    with pytest.raises(UserError) as e:
        data.load(section("mnist"), str(tmp_path / "b"))
    for place in (tmp_path / "b", tmp_path / "a", tmp_path / "tensorflow_datasets"):
        assert str(place / "mnist") in str(e.value)
    assert "train-images-idx3-ubyte.gz" in str(e.value) and "--download" in str(e.value)


def test_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(
        UserError, match="config.data.name = 'minst' is none of .*; did you mean 'mnist'"
    ):
        data.load(section("minst"))


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(s).to_bytes(4, "big") for s in array.shape)
    return gzip.compress(head + array.tobytes())


def small_mnist(folder):
    """Writes the four files of MNIST with random images; returns their checksums."""
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    for part, n in (("train", 5_010), ("t10k", 20)):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(
            idx(random.randint(0, 256, (n, 28, 28)).astype(np.uint8))
        )
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            idx(random.randint(0, 10, n).astype(np.uint8))
        )
    return {file: file_sha256(folder / file) for file in IDX}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0",
        b"\0\0\x08\x01",
        b"\0\0\x08\x01\0\0\0\x09abc",
        b"\0\0\x0d\x01\0\0\0\x01a",
        b"\0\0\x08\xff\0\0",
        b"PK not idx",
    ],
)
def test_invalid_idx_files_are_refused(tmp_path, raw):
    for written in (gzip.compress(raw), raw, gzip.compress(raw)[:-3]):
        (tmp_path / "f.gz").write_bytes(written)
        with pytest.raises(UserError, match="f.gz"):
            read_gzipped_idx(tmp_path / "f.gz")


def test_directory_prepared_by_tensorflow_datasets_loads(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds
    from PIL import Image

    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)
    random = np.random.RandomState(0)
    made = {
        n: (random.randint(0, 256, (k, 28, 28, 1)).astype(np.uint8), random.randint(0, 10, k))
        for n, k in (("train", 5_003), ("test", 4))
    }

    class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")
        name = "mnist"

        def _info(self):
            features = dict(
                image=tfds.features.Image(shape=(28, 28, 1)),
                label=tfds.features.ClassLabel(num_classes=10),
            )
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(name) for name in made}

        def _generate_examples(self, name):
            for i, (x, y) in enumerate(zip(*made[name], strict=True)):
                yield i, dict(image=Image.fromarray(x[..., 0]), label=int(y))

    monkeypatch.setattr(Mnist, "pkg_dir_path", tmp_path, raising=False)
    Mnist(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    ds = data.load(section("mnist"), str(tmp_path))
    assert ds.splits == dict(train=(0, 3), valid=(3, 5000), test=(5003, 4))
    key = lambda a: sorted(i.tobytes() for i in a)
    assert key(ds.arrays["x"][:5003]) == key(made["train"][0])
    assert sorted(ds.arrays["label"][5003:].tolist()) == sorted(made["test"][1].tolist())

    # The same data read by record, as the data set "tfds".
    monkeypatch.setattr(records.Feature, "__array__", lambda *_, **__: pytest.fail("read whole"))
    there = data.load(section("tfds", path="mnist"), str(tmp_path))
    assert (
        there.splits == dict(train=(0, 4503), valid=(4503, 500), test=(5003, 4))
        and there.spec.classes == 10
        and there.spec.levels == 255
    )
    rows = random.randint(0, 5007, (4, 8))
    batch = there.take(there.arrays, rows.ravel())
    label_of = {x.tobytes(): y for part in made.values() for x, y in zip(*part, strict=True)}
    pictures = there.arrays["x"][rows]
    assert (
        pictures.shape == (4, 8, 28, 28, 1)
        and [label_of[x.tobytes()] for x in pictures.reshape(32, 28, 28, 1)]
        == batch["label"].tolist()
    )
    np.testing.assert_array_equal(
        batch["x"].reshape(pictures.shape),
        (2 * pictures.astype(np.float32) - 255) * np.float32(1 / 255),
    )
    assert key(there.arrays["x"][5003:]) == key(made["test"][0])
    version = tmp_path / "mnist" / "3.0.1"
    same = data.load(section("tfds", path=str(version)), "")
    assert hash_arrays_and_splits(same) == hash_arrays_and_splits(there)
    (version / "more").write_text("")
    assert hash_arrays_and_splits(
        data.load(section("tfds", path=str(version)), "")
    ) != hash_arrays_and_splits(there)
    for path, words in (
        ("", "must name a prepared data set"),
        ("mnits", "is neither a directory with a dataset_info.json.*did you mean 'mnist'"),
    ):
        with pytest.raises(UserError, match=words):
            data.load(section("tfds", path=path), str(tmp_path))
    shard = next(version.glob("*train.array_record*"))
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be read"):
        data.load(section("tfds", path=str(version)), "").arrays["x"][:5000]
    (version / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read without TensorFlow|has no feature image"):
        data.load(section("tfds", path=str(version)), "")
