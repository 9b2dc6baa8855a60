"""How many modes of a known mixture a generator covers, and how well (Srivastava et al. 2017; Lin et al. 2018, section 4.1)."""

import math

import numpy as np

from aigc_jax.errors import require


def modes(given) -> dict[str, float]:
    """How many modes of a known mixture have a good sample, the share of good samples, and KL(q || uniform) of the nearest modes.

    For samples in the plane, with the data's centres and standard deviation sigma:

    modes         how many have a high-quality sample: one within 3 sigma (Euclidean) of them, their nearest mode
    high_quality  the share of samples that are
    reverse_kl    KL(q || p) in nats; q: the share of samples nearest to each mode, p: uniform
    """
    spec = given.spec
    require(spec.centres is not None, "config.metrics = 'modes' needs data with known modes: config.data.name = 'ring' or 'grid'")
    samples = np.asarray(given.draw("prior"), np.float64)
    if not np.isfinite(samples).all():
        return dict(modes=0.0, high_quality=0.0, reverse_kl=math.nan)
    distance = np.linalg.norm(samples[:, None] - spec.centres[None], axis=-1)
    nearest = distance.argmin(axis=1)
    high = distance.min(axis=1) <= 3 * spec.sigma
    share = np.bincount(nearest, minlength=len(spec.centres)) / len(samples)
    kl = float(np.sum(share[share > 0] * np.log(share[share > 0] * len(spec.centres))))
    return dict(modes=float(len(np.unique(nearest[high]))), high_quality=float(high.mean()), reverse_kl=kl)
