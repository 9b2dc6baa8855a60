"""Does a generator copy its training examples?"""

import math
from collections.abc import Iterable

import numpy as np

from aigc_jax.metrics.inputs import take_part
from aigc_jax.metrics.pairwise import nearest

# A sample counts as a copy if it lies nearer to a training example than all but this
# share of the held-out examples.
NEAR = 0.01


# [n, ...], [m, ...], blocks of [N, ...] -> 2 x []
def copied(
    samples: np.ndarray, held_out: np.ndarray, train: Iterable[np.ndarray]
) -> dict[str, float]:
    """With d(x) = min over the training examples t of |x - t|,

    neighbour_distance   mean d of the samples over mean d of held-out examples: 1 where
                         samples are as far as fresh data, 0 for copies
    copies               the share of samples with d no more than the 1st percentile of
                         d among the held-out examples: 0.01 for fresh data
    """
    if not np.isfinite(samples).all():
        return dict(neighbour_distance=math.nan, copies=math.nan)
    _, distances = nearest(np.concatenate([samples, held_out]), train)
    ours, theirs = np.split(distances, [len(samples)])
    ratio = ours.mean() / theirs.mean() if theirs.mean() > 0 else math.nan
    return dict(
        neighbour_distance=float(ratio), copies=float((ours <= np.quantile(theirs, NEAR)).mean())
    )


def neighbours(given) -> dict[str, float]:
    """Mean distance of samples to their nearest training examples in pixels, over that
    of held-out ones; the share of near copies.

    Held-out are the split's examples, of the training split the valid ones, no more
    than there are samples. Nearness is Euclidean: a copy that is shifted by a pixel is
    none.
    """
    samples = given.draw("prior")
    held_out = given.of("valid" if given.split == "train" else given.split)["x"]
    train = (block["x"] for block in given.blocks("train"))
    return copied(samples, take_part(held_out, len(samples)), train)
