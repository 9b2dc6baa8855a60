"""Arrays in .npz files of users: values, channels, labels, limits, damage."""

import os

import numpy as np
import pytest
from tiny_configs import section

from aigc_jax import data
from aigc_jax.utils import memory
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit


def npz(path, **arrays):
    return load_npz(path, arrays)


def load_npz(path, arrays=None, **more):
    if arrays:
        np.savez(path, **arrays)
    return data.load(section("npz", path=str(path), **more))


def test_npz_loads_images_points_and_explicit_splits(tmp_path):
    random = np.random.RandomState(0)
    bytes_ = random.randint(0, 256, (100, 5, 4, 3)).astype(np.uint8)
    ds = npz(tmp_path / "a.npz", x=bytes_, label=random.randint(0, 7, 100))
    assert (
        [n for _, n in ds.splits.values()] == [80, 10, 10]
        and ds.spec.kind == "image"
        and ds.spec.classes <= 7
    )
    floats = (bytes_[..., 0] / 127.5 - 1).astype(np.float64)
    ds = npz(tmp_path / "b.npz", x=floats)
    assert ds.spec.shape == (5, 4, 1)
    np.testing.assert_allclose(
        np.sort(ds.take(ds.arrays, np.arange(100))["x"].ravel()), np.sort(floats.ravel()), atol=1e-6
    )
    ds = npz(tmp_path / "c.npz", x=random.randn(50, 6))
    assert ds.spec.kind == "points" and ds.spec.shape == (6,)
    ds = npz(tmp_path / "d.npz", train_x=bytes_[:3], valid_x=bytes_[3:5], test_x=bytes_[5:9])
    assert ds.splits == dict(train=(0, 3), valid=(3, 2), test=(5, 4))
    np.testing.assert_array_equal(ds.arrays["x"], bytes_[:9])


def levels(ds):
    """The features of a data set in row order, in [-1, 1]."""
    return np.asarray(ds.take(ds.arrays, np.arange(len(ds.arrays["x"])))["x"])


def random_integers(*shape, top=256, seed=0):
    return np.random.RandomState(seed).randint(0, top, shape)


def test_npz_value_range_is_inferred_when_unambiguous(tmp_path):
    """Every dtype and range of the same images gives equal features."""
    grey, bits = random_integers(40, 5, 6), random_integers(40, 5, 6, top=2)
    splits = lambda x: dict(train_x=x[:20], valid_x=x[20:30], test_x=x[30:])
    for right, forms, top in (
        (
            grey / 127.5 - 1,
            (
                grey.astype(np.uint8),
                grey.astype(np.int16),
                grey,
                grey.astype(np.float32),
                grey.astype(">u2"),
                grey / 255,
                (grey / 255).astype(np.float16),
                grey / 127.5 - 1,
            ),
            255,
        ),
        (
            bits * 2 - 1,
            (
                bits.astype(bool),
                bits.astype(np.uint8),
                bits,
                bits.astype(np.float16),
                bits * 2 - 1,
                bits * 2.0 - 1,
            ),
            1,
        ),
    ):
        for form in forms:
            ds = npz(tmp_path / "a.npz", **splits(form))
            rounding = 1e-3 if form.dtype == np.float16 else 1e-6
            np.testing.assert_allclose(
                levels(ds)[..., 0], right, atol=rounding, err_msg=f"{form.dtype}"
            )
            counted = form.min() >= 0 and (form == np.rint(form)).all()
            assert (
                ds.spec.levels == (top if counted else 0)
                and (ds.arrays["x"].dtype == np.uint8) == counted
            )


def test_npz_ambiguous_values_require_the_range(tmp_path):
    dark, zeros, real = (
        random_integers(20, 5, 6, top=17),
        np.zeros((20, 5, 6)),
        np.abs(np.random.RandomState(0).randn(20, 5, 6)) * 50,
    )
    for x, words in (
        (
            dark.astype(np.uint8),
            r"spans \[0, 16\] in integers, which leaves .* ambiguous: set "
            r"config.data.range to .* 0..255",
        ),
        (zeros, "set config.data.range to the values of black and white, 0..255 or 0..1 or -1..1"),
        (real, "set config.data.range to .* 0..255"),
        (random_integers(20, 5, 6, top=4096), "scale them to 0..255, 0..1 or -1..1"),
        (dark - 20, "scale them"),
    ):
        with pytest.raises(UserError, match=words):
            npz(tmp_path / "a.npz", x=x)
    for x, known, low, high in (
        (dark, "0..255", 0, 255),
        (zeros, "0..1", 0, 1),
        (zeros, "-1..1", -1, 1),
        (real.clip(0, 255), "0..255", 0, 255),
    ):
        ds = load_npz(tmp_path / "a.npz", dict(train_x=x, valid_x=x, test_x=x), range=known)
        np.testing.assert_allclose(
            levels(ds)[:20, ..., 0], (x - low) * 2 / (high - low) - 1, atol=1e-5
        )
    with pytest.raises(
        UserError, match=r"spans \[0, 16\] in integers, and config.data.range = '0..1'"
    ):
        load_npz(tmp_path / "a.npz", dict(x=dark), range="0..1")
    with pytest.raises(
        UserError,
        match="config.data.range = '0..2' is none of auto, 0..255, 0..1, -1..1; did you mean",
    ):
        load_npz(tmp_path / "a.npz", dict(x=dark), range="0..2")


def test_npz_channel_layout_is_inferred_when_unambiguous(tmp_path):
    for shape, layout in (
        ((20, 6, 5, 3), "NHWC"),
        ((20, 3, 6, 5), "NCHW"),
        ((20, 1, 28, 28), "NCHW"),
        ((20, 4, 4, 1), "NHWC"),
        ((20, 2, 6, 5), "NCHW"),
        ((20, 6, 5, 4), "NHWC"),
    ):
        x = random_integers(*shape)
        ds = npz(tmp_path / "a.npz", train_x=x, valid_x=x, test_x=x)
        right = x if layout == "NHWC" else np.moveaxis(x, 1, 3)
        np.testing.assert_array_equal(ds.arrays["x"][:20], right)
        assert ds.about["values"] == f"0..255, {layout}"
    for shape in ((20, 3, 5, 3), (20, 1, 9, 3), (20, 16, 16, 16), (20, 2, 9, 2)):
        with pytest.raises(
            UserError,
            match="whose channel axis is ambiguous: set config.data.layout to NHWC or NCHW",
        ):
            npz(tmp_path / "a.npz", x=random_integers(*shape))
        assert load_npz(
            tmp_path / "a.npz", dict(x=random_integers(*shape)), layout="NCHW"
        ).spec.shape == (
            *shape[2:],
            shape[1],
        )
        assert (
            load_npz(tmp_path / "a.npz", dict(x=random_integers(*shape)), layout="NHWC").spec.shape
            == shape[1:]
        )
    with pytest.raises(UserError, match=r"\(28, 28, 3\): one image \[H, W, C\]"):
        npz(tmp_path / "a.npz", x=random_integers(28, 28, 3))


def test_npz_labels_are_validated(tmp_path):
    x = random_integers(20, 5, 6)
    for bad, words in (
        (10**9, "label of example 3 is 1000000000; labels are integers from 0 to 65,535"),
        (2**32, "is 4294967296"),
        (-1, "is -1"),
        (2**64 - 1, "is 18446744073709551615"),
        (0.5, "example 3 is 0.5"),
        (np.nan, "is nan"),
    ):
        label = np.zeros(20, np.uint64 if bad == 2**64 - 1 else np.array(bad).dtype)
        label[3] = bad
        with pytest.raises(UserError, match=words):
            npz(tmp_path / "a.npz", x=x, label=label)
    for label in (
        np.arange(20, dtype=np.uint8) % 2,
        np.arange(20) % 2 == 1,
        np.arange(20.0) % 2,
        (np.arange(20) % 2).astype(">i8"),
    ):
        ds = npz(
            tmp_path / "a.npz",
            train_x=x,
            train_label=label,
            valid_x=x,
            valid_label=label,
            test_x=x,
            test_label=label,
        )
        assert (
            ds.spec.classes == 2
            and ds.arrays["label"].dtype == np.int32
            and ds.arrays["label"][:20].tolist() == [0, 1] * 10
        )
    for label in (
        np.zeros(19, int),
        np.zeros((20, 1), int),
        np.zeros((20, 10)),
        np.array(["a"] * 20),
        np.zeros(20, complex),
    ):
        with pytest.raises(UserError, match=r"it must be integers from 0, \[20\]"):
            npz(tmp_path / "a.npz", x=x, label=label)


def test_npz_ignores_other_arrays_and_refuses_other_files(tmp_path, monkeypatch):
    x = random_integers(20, 5, 6)
    # An array of objects, which only a pickle can store.
    assert npz(tmp_path / "a.npz", x=x, names=np.array([None] * 20)).spec.n_train == 16
    np.save(tmp_path / "b.npy", x)
    with pytest.raises(UserError, match="is a single array .* np.savez"):
        load_npz(tmp_path / "b.npy")
    monkeypatch.setattr(memory, "physical_bytes", lambda: 2**20)
    with pytest.raises(UserError, match="its arrays need 16.4 MB, but this machine has 1.05 MB"):
        npz(tmp_path / "a.npz", x=np.zeros((2000, 32, 32)))
    os.mkfifo(tmp_path / "c.npz")
    with pytest.raises(UserError, match="is a FIFO, and must be a regular file"):
        load_npz(tmp_path / "c.npz")


@pytest.mark.parametrize(
    "arrays, word",
    [
        (dict(y=np.zeros(3)), "no array 'x'"),
        (dict(x=np.zeros(3)), "it must be"),
        (dict(x=np.zeros((9, 2), int)), "must be floats"),
        (dict(x=np.zeros((3, 2))), "too few"),
        (dict(x=np.full((20, 2), np.nan)), "not finite"),
        (dict(x=np.full((20, 2, 2), -3.0)), r"scale them to 0..255, 0..1 or -1..1"),
        (dict(x=np.array([None] * 20)), "is not a readable"),
        (dict(x=np.full((20, 2), 1e300)), "not finite in float32, the first in example 0"),
        (dict(x=np.zeros((20, 2), complex)), "of numbers"),
        (dict(x=np.zeros((0, 8, 8))), "is empty"),
        (dict(x=np.zeros((20, 8, 0))), "is empty"),
        (dict(x=np.array(["a"] * 20)), "of numbers"),
        (dict(x=np.full((20, 4, 4), np.inf)), "not finite"),
        (dict(x=np.zeros((20, 2)), label=np.zeros(3, int)), "label"),
        (dict(x=np.zeros((20, 2)), label=np.full(20, -1)), "label"),
        (dict(train_x=np.zeros((3, 2))), "no valid_x"),
        (
            dict(train_x=np.zeros((3, 2)), valid_x=np.zeros((3, 2)), test_x=np.zeros((3, 4))),
            "differ",
        ),
    ],
)
def test_invalid_npz_arrays_are_refused(tmp_path, arrays, word):
    with pytest.raises(UserError, match=word) as e:
        npz(tmp_path / "bad.npz", **arrays)
    assert "bad.npz" in str(e.value) or word == "too few"


def test_missing_or_damaged_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 8, 8), np.uint8))
    content = (tmp_path / "a.npz").read_bytes()
    for bad in (b"", content[: len(content) // 2], content[:-5]):
        (tmp_path / "a.npz").write_bytes(bad)
        with pytest.raises(UserError, match=r"is not a (readable )?\.npz file"):
            data.load(section("npz", path=str(tmp_path / "a.npz")))
    with pytest.raises(UserError, match="no such file"):
        data.load(section("npz", path=str(tmp_path / "none.npz")))
    with pytest.raises(UserError, match="must name"):
        data.load(section("npz"))
