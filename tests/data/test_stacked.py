"""Three digits as colours: the same everywhere, of one split alone, all thousand kinds
as often as their digits say.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from ml_collections import ConfigDict

from aigc_jax import data
from aigc_jax.core import config as configs
from aigc_jax.data.dataset import fingerprint
from aigc_jax.data.order import source

COUNTS = dict(train=128_000, valid=10_000, test=10_000)
# Split -> the rows of MNIST that its digits are.
OWN = dict(train=(0, 55_000), valid=(55_000, 60_000), test=(60_000, 70_000))
# The first and the last row of each split.
ROWS = np.array([0, 1, 127_999, 128_000, 137_999, 138_000, 147_999, 0])


def section(name):
    return ConfigDict(configs.DATA | dict(name=name)).lock()


@functools.cache
def loaded(folder):
    return data.load(section("stacked_mnist"), folder)


@pytest.fixture
def stacked(real_data):
    return loaded(str(real_data))


@pytest.fixture
def places(stacked):
    """(arrays that hold each digit's own place instead of its picture, batch -> the
    places [B, 3]).
    """
    arrays = dict(x=np.arange(70_000).reshape(-1, 1, 1, 1), label=stacked.arrays["label"])
    return arrays, lambda batch: np.rint(
        (batch["x"].astype(np.float64)[:, 0, 0] + 1) * 255 / 2
    ).astype(int)


def test_an_example_is_three_digits_and_their_number(stacked, places):
    arrays, of = places
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
def test_digits_are_of_their_own_split_and_all_equally_often(stacked, places, split):
    """Chi-square of how often each digit is picked, for each colour by itself and for
    all of them.
    """
    (start, count), (first, end), (arrays, of) = stacked.splits[split], OWN[split], places
    assert count == COUNTS[split] and start == sum(
        n for name, n in COUNTS.items() if list(COUNTS).index(name) < list(COUNTS).index(split)
    )
    place = of(stacked.take(arrays, np.arange(start, start + count)))
    assert place.min() == first and first + (end - first) * 0.999 < place.max() + 1 <= end
    assert len(np.unique(place, axis=0)) == count  # no picture comes twice
    for colours in (place[:, 0], place[:, 1], place[:, 2], place):
        assert (
            scipy.stats.chisquare(
                np.bincount(colours.ravel() - first, minlength=end - first)
            ).pvalue
            > 1e-4
        )


def test_the_thousand_kinds_are_all_there_as_often_as_their_digits_say(stacked, places):
    arrays, of = places
    label = stacked.take(arrays, np.arange(128_000))["label"]
    share = np.bincount(stacked.arrays["label"][:55_000], minlength=10) / 55_000
    expected = len(label) * np.einsum("a,b,c->abc", share, share, share).ravel()
    found = np.bincount(label, minlength=1000)
    assert len(found) == 1000 and found.min() > 0
    assert scipy.stats.chisquare(found, expected).pvalue > 1e-3


def test_numpy_and_compiled_programs_agree(stacked):
    """Whichever of arrays and rows are NumPy's, in a program or out of it."""
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
    for i, row in enumerate(ROWS):  # an example is the same by itself
        np.testing.assert_array_equal(
            stacked.take(stacked.arrays, ROWS[i : i + 1])["x"][0], want["x"][i], err_msg=f"{row}"
        )


def test_training_makes_its_batches_in_the_program(stacked, places):
    """An epoch of the stream of batches has the examples of train, each once."""
    arrays, of = places
    draw = jax.jit(source(stacked, section("stacked_mnist"), 8_000))
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


def test_what_others_know_of_it(stacked, real_data):
    mnist = data.load(section("mnist"), str(real_data))
    assert stacked.spec == mnist.spec._replace(shape=(28, 28, 3), n_train=128_000, classes=1000)
    for key, array in mnist.arrays.items():
        np.testing.assert_array_equal(stacked.arrays[key], array)  # nothing else is stored
    found = fingerprint(stacked)
    assert found != fingerprint(mnist)
    assert found == fingerprint(data.load(section("stacked_mnist"), str(real_data)))
