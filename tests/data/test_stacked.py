"""Stacked MNIST: equal values on host and device, digits of one split per example, and
1000 classes with the frequencies of their digits.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from ml_collections import ConfigDict

from aigc_jax import data
from aigc_jax.data import schema as data_schema
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.data.order import make_train_batch_reader

COUNTS = dict(train=128_000, valid=10_000, test=10_000)
# Split -> the range of MNIST rows of its digits.
OWN = dict(train=(0, 55_000), valid=(55_000, 60_000), test=(60_000, 70_000))
# The first and the last row of each split.
ROWS = np.array([0, 1, 127_999, 128_000, 137_999, 138_000, 147_999, 0])


def section(name):
    return ConfigDict(data_schema.DEFAULTS | dict(name=name)).lock()


@functools.cache
def load_stacked(folder):
    return data.load(section("stacked_mnist"), folder)


@pytest.fixture
def stacked(real_data):
    return load_stacked(str(real_data))


@pytest.fixture
def digit_indices(stacked):
    """(arrays that store each digit's row index instead of its image, a function from a
    batch to the indices [B, 3]).
    """
    arrays = dict(x=np.arange(70_000).reshape(-1, 1, 1, 1), label=stacked.arrays["label"])
    return arrays, lambda batch: np.rint(
        (batch["x"].astype(np.float64)[:, 0, 0] + 1) * 255 / 2
    ).astype(int)


def test_example_stacks_three_digits_and_their_label(stacked, digit_indices):
    arrays, of = digit_indices
    batch, place = stacked.take(stacked.arrays, ROWS), of(stacked.take(arrays, ROWS))
    assert (
        batch["x"].shape == (8, 28, 28, 3)
        and batch["x"].dtype == np.float32
        and batch["label"].dtype == np.int32
    )
    pictures = np.moveaxis(stacked.arrays["x"][place][..., 0], 1, -1)
    np.testing.assert_allclose(batch["x"], pictures / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(batch["label"], stacked.arrays["label"][place] @ [100, 10, 1])


@pytest.mark.parametrize("split", COUNTS)
def test_digits_are_uniform_within_their_split(stacked, digit_indices, split):
    """Chi-square test of how often each digit is used, for each colour and for all
    three.
    """
    (start, count), (first, end), (arrays, of) = stacked.splits[split], OWN[split], digit_indices
    assert count == COUNTS[split] and start == sum(
        n for name, n in COUNTS.items() if list(COUNTS).index(name) < list(COUNTS).index(split)
    )
    place = of(stacked.take(arrays, np.arange(start, start + count)))
    assert place.min() == first and first + (end - first) * 0.999 < place.max() + 1 <= end
    assert len(np.unique(place, axis=0)) == count  # no image is repeated
    for colours in (place[:, 0], place[:, 1], place[:, 2], place):
        assert (
            scipy.stats.chisquare(
                np.bincount(colours.ravel() - first, minlength=end - first)
            ).pvalue
            > 1e-4
        )


def test_all_1000_classes_follow_the_digit_frequencies(stacked, digit_indices):
    arrays, of = digit_indices
    label = stacked.take(arrays, np.arange(128_000))["label"]
    share = np.bincount(stacked.arrays["label"][:55_000], minlength=10) / 55_000
    expected = len(label) * np.einsum("a,b,c->abc", share, share, share).ravel()
    found = np.bincount(label, minlength=1000)
    assert len(found) == 1000 and found.min() > 0
    assert scipy.stats.chisquare(found, expected).pvalue > 1e-3


def test_numpy_and_compiled_programs_agree(stacked):
    """For NumPy and JAX arrays and rows, inside and outside of jit."""
    want = stacked.take(stacked.arrays, ROWS)
    on_device = jax.tree.map(jnp.asarray, stacked.arrays)
    ways = {
        "rows": stacked.take(stacked.arrays, jnp.asarray(ROWS)),
        "arrays": stacked.take(on_device, ROWS),
        "jit": jax.jit(stacked.take)(stacked.arrays, ROWS),
        "rows known": jax.jit(lambda arrays: stacked.take(arrays, ROWS))(stacked.arrays),
        "vmap": jax.tree.map(
            lambda a: a[:, 0],
            jax.jit(jax.vmap(stacked.take, (None, 0)))(on_device, ROWS[:, None]),
        ),
    }
    assert isinstance(want["x"], np.ndarray)
    for way, got in ways.items():
        np.testing.assert_array_equal(got["label"], want["label"], err_msg=way)
        np.testing.assert_allclose(got["x"], want["x"], atol=1e-6, err_msg=way)
        assert got["label"].dtype == want["label"].dtype and got["x"].dtype == want["x"].dtype
    for i, row in enumerate(ROWS):  # independent of the rest of the batch
        np.testing.assert_array_equal(
            stacked.take(stacked.arrays, ROWS[i : i + 1])["x"][0], want["x"][i], err_msg=f"{row}"
        )


def test_jitted_batches_cover_each_training_example_once(stacked, digit_indices):
    """An epoch of batches contains each example of the train split once."""
    arrays, of = digit_indices
    draw = jax.jit(make_train_batch_reader(stacked, section("stacked_mnist"), 8_000))
    epoch = np.concatenate(
        [
            of(jax.tree.map(np.asarray, draw(arrays, jax.random.key(0), np.int32(step))))
            for step in range(16)
        ]
    )
    in_order = of(stacked.take(arrays, np.arange(128_000)))
    np.testing.assert_array_equal(
        np.sort(epoch.view("i8,i8,i8"), axis=0), np.sort(in_order.view("i8,i8,i8"), axis=0)
    )
    assert not np.array_equal(epoch, in_order)


def test_spec_and_arrays_follow_those_of_mnist(stacked, real_data):
    mnist = data.load(section("mnist"), str(real_data))
    assert stacked.spec == mnist.spec._replace(shape=(28, 28, 3), n_train=128_000, classes=1000)
    for key, array in mnist.arrays.items():
        np.testing.assert_array_equal(stacked.arrays[key], array)  # images are stacked on demand
    found = hash_arrays_and_splits(stacked)
    assert found != hash_arrays_and_splits(mnist)
    assert found == hash_arrays_and_splits(data.load(section("stacked_mnist"), str(real_data)))
