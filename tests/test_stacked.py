"""Three digits as colours: the same everywhere, of one split alone, of all thousand kinds."""

import jax
import numpy as np
import scipy.stats
from ml_collections import ConfigDict

from aigc_jax import config as configs
from aigc_jax import data
from aigc_jax.data.dataset import source


def loaded():
    return data.load(configs.ConfigDict(configs.DATA | dict(name="stacked_mnist")).lock())


def test_stacked_digits(real_data):
    ds = loaded()
    assert ds.spec.shape == (28, 28, 3) and ds.spec.classes == 1000 and ds.spec.n_train == 128_000
    rows = np.array([0, 127_999, 128_000, 137_999, 138_000, 147_999, 5])
    batch = ds.take(ds.arrays, rows)
    jitted = jax.jit(ds.take)(ds.arrays, rows)
    for key in batch:
        np.testing.assert_array_equal(batch[key], jitted[key])
        np.testing.assert_array_equal(batch[key][-1:], ds.take(ds.arrays, rows[-1:])[key])
    digits = (ds.arrays["x"].astype(np.float32) * np.float32(2 / 255) - 1)[..., 0].reshape(len(ds.arrays["x"]), -1)
    bounds = [(0, 55_000), (55_000, 60_000), (60_000, 70_000)]
    for picture, label, (first, end) in zip(batch["x"], batch["label"], np.repeat(bounds, 2, axis=0), strict=False):
        found = []
        for c in range(3):
            same = np.flatnonzero((digits == picture[..., c].ravel()).all(1))
            assert ((same >= first) & (same < end)).any()  # a digit of the example's own split
            found.append(int(ds.arrays["label"][same[0]]))
        assert label == 100 * found[0] + 10 * found[1] + found[2]


def test_all_thousand_modes_are_there_about_as_often_as_their_digits_say(real_data):
    ds = loaded()
    small = ds.arrays | dict(x=np.zeros((70_000, 1, 1, 1), np.uint8))  # labels alone are looked at
    label = np.concatenate([ds.take(small, np.arange(i, i + 16_000))["label"] for i in range(0, 128_000, 16_000)])
    share = np.bincount(ds.arrays["label"][:55_000], minlength=10) / 55_000
    expected = len(label) * np.einsum("a,b,c->abc", share, share, share).ravel()
    assert scipy.stats.chisquare(np.bincount(label, minlength=1000), expected).pvalue > 1e-3


def test_batches_of_stacked_digits_are_made_in_the_program(real_data):
    ds = loaded()
    config = ConfigDict(configs.DATA | dict(name="stacked_mnist"))
    batch = jax.jit(source(ds, config, 8))(ds.arrays, jax.random.key(0), np.int32(3))
    assert batch["x"].shape == (8, 28, 28, 3) and batch["label"].shape == (8,)
