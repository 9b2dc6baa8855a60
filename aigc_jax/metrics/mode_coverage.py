"""The number of modes that a generator covers, and the quality of samples (Srivastava
et al. 2017; Lin et al. 2018, section 4.1).
"""

import math
from collections.abc import Callable

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs
from aigc_jax.utils.errors import require


def stacked_mode_statistics(
    classes: np.ndarray, num_modes: int
) -> dict[str, float]:  # [n] -> stacked_modes, stacked_kl from uniform in nats
    """Return the number of classes, of `num_modes`, that occur among samples, and
    KL(q || p) in nats, q the class frequencies, p uniform (Srivastava et al. 2017; Lin
    et al. 2018, section 4.2).

    Args:
      classes: integers [n] in 0 .. num_modes - 1, the class of each sample.
      num_modes: the number of classes.
    """
    share = np.bincount(classes, minlength=num_modes) / len(classes)
    share = share[share > 0]
    return dict(
        stacked_modes=float(len(share)), stacked_kl=float((share * np.log(share * num_modes)).sum())
    )


def classify_digit_triples(
    images: np.ndarray, extract: Callable
) -> np.ndarray | None:  # [n, H, W, 3] -> 100 a + 10 b + c [n]
    """Return 100 a + 10 b + c, where a, b and c are the digits that a classifier
    assigns to the three colour channels separately; None if a probability is not
    finite.

    Args:
      images: [n, H, W, 3] in [-1, 1].
      extract: images [n, H, W, 1] -> (features, probabilities [n, 10]).

    Raises:
      UserError: the images do not have three channels, or the classifier ten classes.
    """
    p = (
        [extract(images[..., c : c + 1])[1] for c in range(images.shape[-1])]
        if images.ndim == 4
        else []
    )
    require(
        len(p) == 3 and all(x.shape[1] == 10 for x in p),
        "config.metrics: 'stacked_modes' is for images of three digits, one per colour "
        "channel: config.data.name = 'stacked_mnist' with config.extractor = 'classifier'",
    )
    if not np.isfinite(p).all():
        return None
    a, b, c = (x.argmax(1) for x in p)
    return 100 * a + 10 * b + c


def stacked_modes(
    inputs: MetricInputs,
) -> dict[str, float]:  # stacked_modes, stacked_kl from uniform in nats
    """The number of the 1,000 triples of digits that occur among the samples, each
    colour channel classified separately, and KL(q || uniform) in nats.

    Srivastava et al. 2017; Lin et al. 2018, section 4.2, with 26,000 samples. Among n
    perfect samples about 1,000 (1 - exp(-n / 1,000)) triples occur, and the divergence
    is about 999 / 2 n.
    """
    triples = classify_digit_triples(inputs.draw("prior"), inputs.extract)
    return (
        dict(stacked_modes=math.nan, stacked_kl=math.nan)
        if triples is None
        else stacked_mode_statistics(triples, 1000)
    )


def modes(
    inputs: MetricInputs,
) -> dict[str, float]:  # modes, high_quality, reverse_kl from uniform in nats
    """The number of modes of a known mixture that have a high-quality sample, the share
    of high-quality samples, and KL(q || uniform) of the nearest modes.

    For samples in the plane, with the data's centres and standard deviation sigma:

    modes         number of modes with a high-quality sample, which is one within 3
                  sigma (Euclidean) of its nearest mode
    high_quality  the share of samples of high quality
    reverse_kl    KL(q || p) in nats, where q are the shares of samples nearest to each
                  mode, and p is uniform
    """
    spec = inputs.spec
    require(
        spec.centres is not None,
        "config.metrics: 'modes' needs data with known modes, config.data.name = 'ring' or 'grid'",
    )
    samples = np.asarray(inputs.draw("prior"), np.float64)
    if not np.isfinite(samples).all():
        return dict(modes=0.0, high_quality=0.0, reverse_kl=math.nan)
    distance = np.linalg.norm(samples[:, None] - spec.centres[None], axis=-1)
    nearest = distance.argmin(axis=1)
    high = distance.min(axis=1) <= 3 * spec.sigma
    share = np.bincount(nearest, minlength=len(spec.centres)) / len(samples)
    kl = float(np.sum(share[share > 0] * np.log(share[share > 0] * len(spec.centres))))
    return dict(
        modes=float(len(np.unique(nearest[high]))), high_quality=float(high.mean()), reverse_kl=kl
    )
