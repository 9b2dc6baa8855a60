"""Stacked MNIST: three digits as the colour channels of one image, which makes 1,000
modes that can be counted.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data.dataset import Dataset
from aigc_jax.data.images import load_mnist
from aigc_jax.data.order import hash_uint32
from aigc_jax.utils.errors import UserError

# Examples of each split; Lin et al. 2018, section 4.2, train on 128,000.
COUNTS = dict(train=128_000, valid=10_000, test=10_000)


def load_stacked_mnist(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load MNIST, with three digits a, b, c of a split as the red, green and blue
    channels of an example, and label 100 a + 10 b + c.

    Only MNIST is stored. Channel c of example i is the digit with index mix(3 i + c)
    mod n of the n digits in the same split (`hash_uint32`), so that a batch is computed
    on the device that needs it. Che et al. 2017, section 4; Srivastava et al. 2017,
    section 4.2; Lin et al. 2018, section 4.2.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.name = "mnist"
    try:
        digits = load_mnist(config, data_dir, download)
    except UserError as e:
        raise UserError(f"stacked_mnist consists of digits of {e.args[0]}") from None
    starts = [sum(list(COUNTS.values())[:i]) for i in range(len(COUNTS))]
    bounds = {
        name: (start, count) for (name, count), start in zip(COUNTS.items(), starts, strict=True)
    }
    digit_starts, digit_counts = (
        np.array([digits.splits[name][i] for name in COUNTS], np.uint32) for i in (0, 1)
    )

    def take(arrays, rows):
        np_ = jnp if any(isinstance(a, jax.Array) for a in (rows, *arrays.values())) else np
        split = (rows >= starts[1]).astype(np.int32) + (rows >= starts[2])
        begin, count = np_.take(digit_starts, split), np_.take(digit_counts, split)
        places = [
            begin + hash_uint32(rows.astype(np.uint32) * np.uint32(3) + np.uint32(c)) % count
            for c in range(3)
        ]
        red, green, blue = (digits.take(arrays, place.astype(np.int32)) for place in places)
        x = np_.concatenate([red["x"], green["x"], blue["x"]], axis=-1)
        return dict(x=x, label=100 * red["label"] + 10 * green["label"] + blue["label"])

    spec = digits.spec._replace(
        shape=(*digits.spec.shape[:2], 3), n_train=COUNTS["train"], classes=1000
    )
    return Dataset(
        digits.arrays,
        bounds,
        take,
        spec,
        digits.about | dict(stacked="three digits per image, by a hash of its number"),
    )
