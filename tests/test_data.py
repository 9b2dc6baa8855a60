"""Data sets: shuffling, splits, files that are missing or damaged, a user's own arrays."""

import functools
import gzip
import http.server
import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_configs import dataset, tiny

from aigc_jax import config as configs
from aigc_jax import data
from aigc_jax.data import dataset as datasets
from aigc_jax.data import images, records
from aigc_jax.data import npz as npz_module
from aigc_jax.errors import UserError
from aigc_jax.results import file_sha256


def section(name, **more):
    return ConfigDict(configs.DATA | dict(name=name) | more)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 97, 1000, 1437])
def test_permute_is_a_permutation(n):
    keys = jax.random.bits(jax.random.key(n), (datasets.ROUNDS,), jnp.uint32)
    got = np.asarray(datasets.permute(jnp.arange(n), jnp.tile(keys, (n, 1)), n))
    assert sorted(got.tolist()) == list(range(n))


def test_pictures_are_the_same_numbers_on_the_host_and_in_a_program():
    """Every grey level, to the last bit, whatever is fused: what a run sees does not hang on where its data lie."""
    for levels, x in ((1, np.arange(2)), (16, np.arange(17)), (255, np.arange(256)), (2, np.linspace(0, 2, 1001, dtype=np.float32))):
        x = x.astype(np.uint8 if x.dtype.kind == "i" else np.float32).reshape(-1, 1, 1, 1)
        ds = datasets.images_of(dict(x=x), dict(train=(0, len(x))), levels, {})
        here, there = ds.take(ds.arrays, np.arange(len(x)))["x"], jax.jit(ds.take)(ds.arrays, jnp.arange(len(x)))["x"]
        np.testing.assert_array_equal(here, there)
        np.testing.assert_allclose(here.ravel(), x.ravel() * (2 / levels) - 1, atol=1e-7)
        assert here.min() == -1 and here.max() == 1


def test_permute_is_as_good_as_random():
    """Over many keys each index goes everywhere equally often, and neighbours do not stay together (chi-square, 5 sigma)."""
    n, draws = 30, 4000
    keys = jax.random.bits(jax.random.key(0), (draws, datasets.ROUNDS), jnp.uint32)
    got = np.asarray(jax.vmap(lambda k: datasets.permute(jnp.arange(n), jnp.tile(k, (n, 1)), n))(keys)).astype(int)
    for table in (
        np.stack([np.bincount(got[:, i], minlength=n) for i in range(n)]),
        np.bincount(((got[:, 1:] - got[:, :-1]) % n).ravel(), minlength=n)[1:] * n / (n - 1),
    ):
        expected = table.mean()
        chi2 = ((table - expected) ** 2 / expected).sum()
        assert abs(chi2 - table.size) < 5 * np.sqrt(2 * table.size) + n


@pytest.mark.parametrize("n, batch", [(10, 3), (10, 10), (5, 12), (97, 8)])
def test_every_epoch_sees_every_example_once_in_a_new_order(n, batch):
    rows = jax.jit(datasets.shuffled(n, batch))
    key = jax.random.key(1)
    epochs = 4
    stream = np.concatenate([np.asarray(rows(key, jnp.int32(s))) for s in range(-(-n * epochs // batch))])[: n * epochs]
    orders = stream.reshape(epochs, n)
    for order in orders:
        assert sorted(order.tolist()) == list(range(n))
    assert len({tuple(o) for o in orders}) == epochs
    other = np.concatenate([np.asarray(rows(jax.random.key(2), jnp.int32(s))) for s in range(-(-n // batch))])[:n]
    assert (other != orders[0]).any()


def test_the_stream_goes_on_past_where_32_bits_would_overflow():
    n, batch, step = 60_000, 128, 2**31 - 5
    got = np.asarray(jax.jit(datasets.shuffled(n, batch))(jax.random.key(0), jnp.int32(step)))
    assert got.min() >= 0 and got.max() < n and len(np.unique(got)) > batch - 3


def test_order_follows_the_trial_or_is_shared():
    ds = dataset(tiny())
    for order, same in (("trial", False), ("shared", True)):
        source = datasets.source(ds, section("digits", order=order), 8)
        a, b = (source(ds.arrays, jax.random.key(k), jnp.int32(0)) for k in (0, 1))
        assert bool((a["label"] == b["label"]).all()) is same
        np.testing.assert_array_equal(a["index"], range(8))
    with pytest.raises(UserError, match="config.data.order = 'shred' is none of trial, shared, stream; did you mean 'shared'"):
        datasets.source(ds, section("digits", order="shred"), 8)


def test_digits():
    ds = data.load(section("digits"))
    assert ds.splits == dict(train=(0, 1439), valid=(1439, 179), test=(1618, 179))
    x = ds.take(ds.arrays, np.arange(1797))["x"]
    assert x.shape == (1797, 8, 8, 1) and x.dtype == np.float32 and x.min() == -1 and x.max() == 1
    from sklearn.datasets import load_digits

    raw = load_digits()
    key = lambda images: sorted(np.ascontiguousarray(i).tobytes() for i in images)  # noqa: E731
    assert key((x[..., 0] + 1) * 8) == key(raw.images.astype(np.float32))  # the same pictures in another order
    np.testing.assert_allclose(jax.jit(ds.take)(ds.arrays, jnp.arange(9))["x"], x[:9], atol=1e-7)


@pytest.mark.parametrize("name, count, reach", [("ring", 8, 1.1), ("grid", 25, 4.3)])
def test_mixtures_have_their_moments(name, count, reach):
    ds = data.load(section(name))
    assert ds.spec.n_train == 100_000 and len(ds.spec.centres) == count
    x = ds.take(ds.arrays, np.arange(100_000))["x"].astype(np.float64)
    distance = x[:, None] - ds.spec.centres[None]
    nearest = (distance**2).sum(-1).argmin(1)
    residual = distance[np.arange(len(x)), nearest]
    assert residual.std() == pytest.approx(ds.spec.sigma, rel=0.02)
    assert np.bincount(nearest).min() > 0.9 * 100_000 / count and np.abs(x).max() < reach


def test_mnist_and_fashion(real_data):
    for name in ("mnist", "fashion_mnist"):
        ds = data.load(section(name), str(real_data))
        assert {k: n for k, (_, n) in ds.splits.items()} == dict(train=55_000, valid=5_000, test=10_000)
        x = ds.take(ds.arrays, np.arange(100))["x"]
        assert x.shape == (100, 28, 28, 1) and x.min() == -1 and x.max() == 1
    assert datasets.fingerprint(ds) != datasets.fingerprint(data.load(section("mnist")))


def test_a_data_file_cut_or_changed_at_three_places(real_data, tmp_path):
    for name in ("mnist", "fashion_mnist"):
        folder = tmp_path / name
        folder.mkdir()
        for file in images.IDX:
            whole = (real_data / name / file).read_bytes()
            for other in images.IDX:
                if not (folder / other).exists():
                    (folder / other).symlink_to(real_data / name / other)
            (folder / file).unlink()
            for bad in (whole[:1], whole[: len(whole) // 2], whole[:-1], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]):
                (folder / file).write_bytes(bad)
                with pytest.raises(UserError, match=f"{file} is damaged.*--download"):
                    data.load(section(name), str(tmp_path))
            (folder / file).unlink()
            with pytest.raises(UserError, match=f"{file} is missing in .*python launch.py data --name={name} --download"):
                data.load(section(name), str(tmp_path))


def test_binarized_mnist(real_data, tmp_path, monkeypatch):
    ds = data.load(section("binarized_mnist"), str(real_data))
    assert {k: n for k, (_, n) in ds.splits.items()} == dict(train=50_000, valid=10_000, test=10_000)
    assert ds.spec.levels == 1 and ds.spec.classes == 0 and ds.spec.shape == (28, 28, 1)
    x = ds.take(ds.arrays, np.arange(100))["x"]
    assert set(np.unique(x)) == {-1, 1} and 0.05 < (x == 1).mean() < 0.25
    # a digit's ink is where MNIST's is: the mean picture of both is one
    grey = data.load(section("mnist"), str(real_data)).arrays["x"][:50_000].mean(0) / 255
    assert np.abs(ds.arrays["x"][:50_000].mean(0) - grey).max() < 0.02
    # plain files serve as well; packed ones that are cut or hold something else are found out
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    for file in images.AMAT:
        packed = (real_data / "binarized_mnist" / (file + ".gz")).read_bytes()
        (folder / file).write_bytes(gzip.decompress(packed))
    assert datasets.fingerprint(data.load(section("binarized_mnist"), str(tmp_path))) == datasets.fingerprint(ds)
    (folder / file).unlink()
    for bad in (packed[:1000], packed[:-1], b"", gzip.compress(b"0 1\n"), packed[:5000] + b"x" + packed[5001:]):
        (folder / (file + ".gz")).write_bytes(bad)
        with pytest.raises(UserError, match=f"{file}.gz is damaged"):
            data.load(section("binarized_mnist"), str(tmp_path))


@pytest.mark.parametrize("raw", [b"", b"0 1\n", b"2 " * 784, b"0 " * 783 + b"0"])
def test_amat_files_that_are_none(tmp_path, raw):
    (tmp_path / "x.amat").write_bytes(raw)
    with pytest.raises(UserError, match="no lines of 784 zeros and ones"):
        images.read_amat(tmp_path / "x.amat")


def test_a_data_set_that_is_nowhere_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AIGC_DATA_DIR", str(tmp_path / "a"))
    with pytest.raises(UserError) as e:
        data.load(section("mnist"), str(tmp_path / "b"))
    for place in (tmp_path / "b", tmp_path / "a", tmp_path / "tensorflow_datasets"):
        assert str(place / "mnist") in str(e.value)
    assert "train-images-idx3-ubyte.gz" in str(e.value) and "--download" in str(e.value)


def test_unknown_name():
    with pytest.raises(UserError, match="config.data.name = 'minst' is none of .*; did you mean 'mnist'"):
        data.load(section("minst"))


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(s).to_bytes(4, "big") for s in array.shape)
    return gzip.compress(head + array.tobytes())


def small_mnist(folder):
    """MNIST's four files with pictures of our own, and the checksums that they have."""
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    for part, n in (("train", 5_010), ("t10k", 20)):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(random.randint(0, 256, (n, 28, 28)).astype(np.uint8)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(random.randint(0, 10, n).astype(np.uint8)))
    return {file: file_sha256(folder / file) for file in images.IDX}


@pytest.mark.parametrize("raw", [b"", b"\0\0", b"\0\0\x08\x01", b"\0\0\x08\x01\0\0\0\x09abc", b"\0\0\x0d\x01\0\0\0\x01a",
                                 b"\0\0\x08\xff\0\0", b"PK not idx"])  # fmt: skip
def test_idx_files_that_are_none(tmp_path, raw):
    for written in (gzip.compress(raw), raw, gzip.compress(raw)[:-3]):
        (tmp_path / "f.gz").write_bytes(written)
        with pytest.raises(UserError, match="f.gz"):
            images.read_idx(tmp_path / "f.gz")


def test_download_by_the_manager_of_tensorflow_datasets(tmp_path, monkeypatch):
    """The real download manager against a server on this machine: files come, checksums are verified."""
    import tensorflow_datasets as tfds

    sums = small_mnist(tmp_path / "www")
    monkeypatch.setitem(images.CHECKSUMS, "mnist", sums)
    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    handler.log_message = lambda *a: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        Info = type(next(iter(tfds.builder_cls("mnist").url_infos.values())))

        class Builder:
            url_infos = {url + f: Info(size=(tmp_path / "www" / f).stat().st_size, checksum=s, filename=f) for f, s in sums.items()}

        monkeypatch.setattr(tfds, "builder_cls", lambda name: Builder)
        ds = data.load(section("mnist"), str(tmp_path / "got"), download=True)
        assert ds.spec.n_train == 10 and ds.splits["test"][1] == 20
        assert {f: file_sha256(tmp_path / "got" / "mnist" / f) for f in sums} == sums

        (tmp_path / "www" / images.IDX[1]).write_bytes(b"changed on the server")
        with pytest.raises(UserError, match="mnist: the download failed"):
            data.load(section("mnist"), str(tmp_path / "again"), download=True)
        server.shutdown()


def test_a_directory_prepared_by_tensorflow_datasets(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds
    from PIL import Image

    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)
    random = np.random.RandomState(0)
    made = {n: (random.randint(0, 256, (k, 28, 28, 1)).astype(np.uint8), random.randint(0, 10, k)) for n, k in (("train", 5_003), ("test", 4))}

    class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")
        name = "mnist"

        def _info(self):
            features = dict(image=tfds.features.Image(shape=(28, 28, 1)), label=tfds.features.ClassLabel(num_classes=10))
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
    key = lambda a: sorted(i.tobytes() for i in a)  # noqa: E731
    assert key(ds.arrays["x"][:5003]) == key(made["train"][0])
    assert sorted(ds.arrays["label"][5003:].tolist()) == sorted(made["test"][1].tolist())

    # the same by record, of any name
    monkeypatch.setattr(records.Feature, "__array__", lambda *_, **__: pytest.fail("read whole"))
    there = data.load(section("tfds", path="mnist"), str(tmp_path))
    assert there.splits == dict(train=(0, 4503), valid=(4503, 500), test=(5003, 4)) and there.spec.classes == 10 and there.spec.levels == 255
    rows = random.randint(0, 5007, (4, 8))
    batch = there.take(there.arrays, rows.ravel())
    label_of = {x.tobytes(): y for part in made.values() for x, y in zip(*part, strict=True)}
    pictures = there.arrays["x"][rows]
    assert pictures.shape == (4, 8, 28, 28, 1) and [label_of[x.tobytes()] for x in pictures.reshape(32, 28, 28, 1)] == batch["label"].tolist()
    np.testing.assert_array_equal(batch["x"].reshape(pictures.shape), (2 * pictures.astype(np.float32) - 255) * np.float32(1 / 255))
    assert key(there.arrays["x"][5003:]) == key(made["test"][0])
    version = tmp_path / "mnist" / "3.0.1"
    same = data.load(section("tfds", path=str(version)), "")
    assert data.fingerprint(same) == data.fingerprint(there)
    (version / "more").write_text("")
    assert data.fingerprint(data.load(section("tfds", path=str(version)), "")) != data.fingerprint(there)
    for path, words in (("", "must name a prepared data set"), ("mnits", "is no directory with a dataset_info.json.*did you mean 'mnist'")):
        with pytest.raises(UserError, match=words):
            data.load(section("tfds", path=path), str(tmp_path))
    shard = next(version.glob("*train.array_record*"))
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be read"):
        data.load(section("tfds", path=str(version)), "").arrays["x"][:5000]
    (version / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read without TensorFlow|has no feature image"):
        data.load(section("tfds", path=str(version)), "")


def npz(path, **arrays):
    return load_npz(path, arrays)


def load_npz(path, arrays=None, **more):
    if arrays:
        np.savez(path, **arrays)
    return data.load(section("npz", path=str(path), **more))


def test_npz_of_pictures_points_and_given_splits(tmp_path):
    random = np.random.RandomState(0)
    bytes_ = random.randint(0, 256, (100, 5, 4, 3)).astype(np.uint8)
    ds = npz(tmp_path / "a.npz", x=bytes_, label=random.randint(0, 7, 100))
    assert [n for _, n in ds.splits.values()] == [80, 10, 10] and ds.spec.kind == "image" and ds.spec.classes <= 7
    floats = (bytes_[..., 0] / 127.5 - 1).astype(np.float64)
    ds = npz(tmp_path / "b.npz", x=floats)
    assert ds.spec.shape == (5, 4, 1)
    np.testing.assert_allclose(np.sort(ds.take(ds.arrays, np.arange(100))["x"].ravel()), np.sort(floats.ravel()), atol=1e-6)
    ds = npz(tmp_path / "c.npz", x=random.randn(50, 6))
    assert ds.spec.kind == "points" and ds.spec.shape == (6,)
    ds = npz(tmp_path / "d.npz", train_x=bytes_[:3], valid_x=bytes_[3:5], test_x=bytes_[5:9])
    assert ds.splits == dict(train=(0, 3), valid=(3, 2), test=(5, 4))
    np.testing.assert_array_equal(ds.arrays["x"], bytes_[:9])


def levels(ds):
    """The values of a data set in the order of its rows, in [-1, 1]."""
    return np.asarray(ds.take(ds.arrays, np.arange(len(ds.arrays["x"])))["x"])


def whole(*shape, top=256, seed=0):
    return np.random.RandomState(seed).randint(0, top, shape)


def test_npz_values_are_recognised_where_they_are_certain(tmp_path):
    """Every type and range that means the same images gives the same numbers."""
    grey, bits = whole(40, 5, 6), whole(40, 5, 6, top=2)
    splits = lambda x: dict(train_x=x[:20], valid_x=x[20:30], test_x=x[30:])
    for right, forms, top in (
        (grey / 127.5 - 1, (grey.astype(np.uint8), grey.astype(np.int16), grey, grey.astype(np.float32), grey.astype(">u2"),
                            grey / 255, (grey / 255).astype(np.float16), grey / 127.5 - 1), 255),
        (bits * 2 - 1, (bits.astype(bool), bits.astype(np.uint8), bits, bits.astype(np.float16), bits * 2 - 1, bits * 2.0 - 1), 1),
    ):
        for form in forms:
            ds = npz(tmp_path / "a.npz", **splits(form))
            rounding = 1e-3 if form.dtype == np.float16 else 1e-6
            np.testing.assert_allclose(levels(ds)[..., 0], right, atol=rounding, err_msg=f"{form.dtype}")
            counted = form.min() >= 0 and (form == np.rint(form)).all()
            assert ds.spec.levels == (top if counted else 0) and (ds.arrays["x"].dtype == np.uint8) == counted


def test_npz_values_that_are_not_certain_need_the_range(tmp_path):
    dark, zeros, real = whole(20, 5, 6, top=17), np.zeros((20, 5, 6)), np.abs(np.random.RandomState(0).randn(20, 5, 6)) * 50
    for x, words in (
        (dark.astype(np.uint8), r"spans \[0, 16\] in whole numbers, which does not tell .*: set config.data.range to .* 0..255"),
        (zeros, "set config.data.range to what black and white are, 0..255 or 0..1 or -1..1"), (real, "set config.data.range to .* 0..255"),
        (whole(20, 5, 6, top=4096), "scale them to 0..255, 0..1 or -1..1"), (dark - 20, "scale them"),
    ):
        with pytest.raises(UserError, match=words):
            npz(tmp_path / "a.npz", x=x)
    for x, known, low, high in ((dark, "0..255", 0, 255), (zeros, "0..1", 0, 1), (zeros, "-1..1", -1, 1), (real.clip(0, 255), "0..255", 0, 255)):
        ds = load_npz(tmp_path / "a.npz", dict(train_x=x, valid_x=x, test_x=x), range=known)
        np.testing.assert_allclose(levels(ds)[:20, ..., 0], (x - low) * 2 / (high - low) - 1, atol=1e-5)
    with pytest.raises(UserError, match=r"spans \[0, 16\] in whole numbers, and config.data.range = '0..1'"):
        load_npz(tmp_path / "a.npz", dict(x=dark), range="0..1")
    with pytest.raises(UserError, match="config.data.range = '0..2' is none of auto, 0..255, 0..1, -1..1; did you mean"):
        load_npz(tmp_path / "a.npz", dict(x=dark), range="0..2")


def test_npz_channels_are_recognised_where_they_are_certain(tmp_path):
    for shape, layout in (((20, 6, 5, 3), "NHWC"), ((20, 3, 6, 5), "NCHW"), ((20, 1, 28, 28), "NCHW"), ((20, 4, 4, 1), "NHWC"),
                          ((20, 2, 6, 5), "NCHW"), ((20, 6, 5, 4), "NHWC")):
        x = whole(*shape)
        ds = npz(tmp_path / "a.npz", train_x=x, valid_x=x, test_x=x)
        right = x if layout == "NHWC" else np.moveaxis(x, 1, 3)
        np.testing.assert_array_equal(ds.arrays["x"][:20], right)
        assert ds.about["values"] == f"0..255, {layout}"
    for shape in ((20, 3, 5, 3), (20, 1, 9, 3), (20, 16, 16, 16), (20, 2, 9, 2)):
        with pytest.raises(UserError, match="does not tell where its channels are: set config.data.layout to NHWC or NCHW"):
            npz(tmp_path / "a.npz", x=whole(*shape))
        assert load_npz(tmp_path / "a.npz", dict(x=whole(*shape)), layout="NCHW").spec.shape == (*shape[2:], shape[1])
        assert load_npz(tmp_path / "a.npz", dict(x=whole(*shape)), layout="NHWC").spec.shape == shape[1:]
    with pytest.raises(UserError, match=r"\(28, 28, 3\): one image \[H, W, C\]"):
        npz(tmp_path / "a.npz", x=whole(28, 28, 3))


def test_npz_labels_are_bounded_and_named(tmp_path):
    x = whole(20, 5, 6)
    for bad, words in (
        (10**9, "label of example 3 is 1000000000; labels are whole numbers from 0 to 65,535"), (2**32, "is 4294967296"), (-1, "is -1"),
        (2**64 - 1, "is 18446744073709551615"), (0.5, "example 3 is 0.5"), (np.nan, "is nan"),
    ):
        label = np.zeros(20, np.uint64 if bad == 2**64 - 1 else np.array(bad).dtype)
        label[3] = bad
        with pytest.raises(UserError, match=words):
            npz(tmp_path / "a.npz", x=x, label=label)
    for label in (np.arange(20, dtype=np.uint8) % 2, np.arange(20) % 2 == 1, np.arange(20.0) % 2, (np.arange(20) % 2).astype(">i8")):
        ds = npz(tmp_path / "a.npz", train_x=x, train_label=label, valid_x=x, valid_label=label, test_x=x, test_label=label)
        assert ds.spec.classes == 2 and ds.arrays["label"].dtype == np.int32 and ds.arrays["label"][:20].tolist() == [0, 1] * 10
    for label in (np.zeros(19, int), np.zeros((20, 1), int), np.zeros((20, 10)), np.array(["a"] * 20), np.zeros(20, complex)):
        with pytest.raises(UserError, match=r"it must be whole numbers from 0, \[20\]"):
            npz(tmp_path / "a.npz", x=x, label=label)


def test_npz_reads_its_own_arrays_alone(tmp_path, monkeypatch):
    x = whole(20, 5, 6)
    assert npz(tmp_path / "a.npz", x=x, names=np.array([None] * 20)).spec.n_train == 16  # an object, which only a pickle holds
    np.save(tmp_path / "b.npy", x)
    with pytest.raises(UserError, match="is a single array .* np.savez"):
        load_npz(tmp_path / "b.npy")
    monkeypatch.setattr(npz_module.os, "sysconf", lambda name: 2**10)
    with pytest.raises(UserError, match="holds 0.0 GiB of arrays, and the memory is 0.0 GiB"):
        npz(tmp_path / "a.npz", x=np.zeros((2000, 32, 32)))
    os.mkfifo(tmp_path / "c.npz")
    with pytest.raises(UserError, match="is a FIFO, and must be a regular file"):
        load_npz(tmp_path / "c.npz")


@pytest.mark.parametrize("arrays, word", [
    (dict(y=np.zeros(3)), "no array 'x'"), (dict(x=np.zeros(3)), "it must be"), (dict(x=np.zeros((9, 2), int)), "must be floats"),
    (dict(x=np.zeros((3, 2))), "too few"), (dict(x=np.full((20, 2), np.nan)), "not finite"),
    (dict(x=np.full((20, 2, 2), -3.0)), r"scale them to 0..255, 0..1 or -1..1"), (dict(x=np.array([None] * 20)), "no readable"),
    (dict(x=np.full((20, 2), 1e300)), "not finite in float32, the first in example 0"), (dict(x=np.zeros((20, 2), complex)), "of numbers"),
    (dict(x=np.zeros((0, 8, 8))), "is empty"), (dict(x=np.zeros((20, 8, 0))), "is empty"), (dict(x=np.array(["a"] * 20)), "of numbers"),
    (dict(x=np.full((20, 4, 4), np.inf)), "not finite"),
    (dict(x=np.zeros((20, 2)), label=np.zeros(3, int)), "label"), (dict(x=np.zeros((20, 2)), label=np.full(20, -1)), "label"),
    (dict(train_x=np.zeros((3, 2))), "no valid_x"),
    (dict(train_x=np.zeros((3, 2)), valid_x=np.zeros((3, 2)), test_x=np.zeros((3, 4))), "differ"),
])  # fmt: skip
def test_npz_that_does_not_fit(tmp_path, arrays, word):
    with pytest.raises(UserError, match=word) as e:
        npz(tmp_path / "bad.npz", **arrays)
    assert "bad.npz" in str(e.value) or word == "too few"


def test_npz_that_is_missing_or_damaged(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 8, 8), np.uint8))
    whole = (tmp_path / "a.npz").read_bytes()
    for bad in (b"", whole[: len(whole) // 2], whole[:-5]):
        (tmp_path / "a.npz").write_bytes(bad)
        with pytest.raises(UserError, match="no readable .npz"):
            data.load(section("npz", path=str(tmp_path / "a.npz")))
    with pytest.raises(UserError, match="no such file"):
        data.load(section("npz", path=str(tmp_path / "none.npz")))
    with pytest.raises(UserError, match="must name"):
        data.load(section("npz"))
