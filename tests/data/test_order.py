"""The order of examples: permutations, epochs, streams, per trial or shared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import dataset, section, tiny

from aigc_jax.data import order as ordering
from aigc_jax.data.order import ROUNDS, make_shuffled_rows, permute_indices
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 97, 1000, 1437])
def test_permute_is_a_permutation(n):
    keys = jax.random.bits(jax.random.key(n), (ROUNDS,), jnp.uint32)
    got = np.asarray(jax.jit(permute_indices, static_argnums=2)(np.arange(n), keys[None], n))
    assert sorted(got.tolist()) == list(range(n))


def test_permute_passes_chi_square_tests():
    """Over many keys, positions are uniform for each index, and so are the differences
    of neighbours (5 sigma).
    """
    n, draws = 30, 4000
    keys = jax.random.bits(jax.random.key(0), (draws, ROUNDS), jnp.uint32)
    got = np.asarray(
        jax.jit(jax.vmap(lambda k: permute_indices(jnp.arange(n), jnp.tile(k, (n, 1)), n)))(keys)
    ).astype(int)
    for table in (
        np.stack([np.bincount(got[:, i], minlength=n) for i in range(n)]),
        np.bincount(((got[:, 1:] - got[:, :-1]) % n).ravel(), minlength=n)[1:] * n / (n - 1),
    ):
        expected = table.mean()
        chi2 = ((table - expected) ** 2 / expected).sum()
        assert abs(chi2 - table.size) < 5 * np.sqrt(2 * table.size) + n


@pytest.mark.parametrize("n, batch", [(10, 3), (10, 10), (5, 12), (97, 8)])
def test_every_epoch_visits_every_example_once_in_a_new_order(n, batch):
    rows = jax.jit(make_shuffled_rows(n, batch))
    key = jax.random.key(1)
    epochs = 4
    stream = np.concatenate(
        [np.asarray(rows(key, jnp.int32(s))) for s in range(-(-n * epochs // batch))]
    )[: n * epochs]
    orders = stream.reshape(epochs, n)
    for order in orders:
        assert sorted(order.tolist()) == list(range(n))
    assert len({tuple(o) for o in orders}) == epochs
    other = np.concatenate(
        [np.asarray(rows(jax.random.key(2), jnp.int32(s))) for s in range(-(-n // batch))]
    )[:n]
    assert (other != orders[0]).any()


def test_row_order_does_not_overflow_32_bits():
    n, batch, step = 60_000, 128, 2**31 - 5
    got = np.asarray(jax.jit(make_shuffled_rows(n, batch))(jax.random.key(0), jnp.int32(step)))
    assert got.min() >= 0 and got.max() < n and len(np.unique(got)) > batch - 3


def test_order_follows_the_trial_or_is_shared():
    ds = dataset(tiny())
    for order, same in (("trial", False), ("shared", True)):
        source = jax.jit(ordering.make_train_batch_reader(ds, section("digits", order=order), 8))
        a, b = (source(ds.arrays, jax.random.key(k), jnp.int32(0)) for k in (0, 1))
        assert bool((a["label"] == b["label"]).all()) is same
        np.testing.assert_array_equal(a["index"], range(8))
    with pytest.raises(
        UserError,
        match="config.data.order = 'shred' is none of trial, shared, stream; did you mean 'shared'",
    ):
        ordering.make_train_batch_reader(ds, section("digits", order="shred"), 8)
