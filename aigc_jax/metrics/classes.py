"""What a classifier of real pictures sees in generated ones."""

import math

import numpy as np

from aigc_jax.errors import require


def classifier_score(p: np.ndarray) -> float:  # [n, K] -> []
    """exp of the mean of KL(p(y | x) || p(y)), p(y) the mean of p(y | x) over the samples (Salimans et al. 2016, section 4): from 1, all
    alike or undecided, to K, each decided and all classes equally frequent."""
    if not np.isfinite(p).all():
        return math.nan
    p = np.asarray(p, np.float64)
    log = lambda x: np.log(np.where(x > 0, x, 1))  # 0 log 0 = 0
    return float(np.exp((p * (log(p) - log(p.mean(0)))).sum(1).mean()))


def score(given) -> dict[str, float]:
    """exp(mean KL(p(y | x) || p(y))) of a classifier's probabilities: 1 at worst, the number of classes at best.
    The Inception score of Salimans et al. 2016 where the classifier is Inception, over all samples at once. It never looks at an example."""
    return dict(classifier_score=classifier_score(given.extract(given.draw("prior"))[1]))


def stacked(classes: np.ndarray, modes: int) -> dict[str, float]:  # [n] -> 2 x []
    """Of samples that were given one of `modes` classes each: how many classes occur, and KL(q || p) in nats, q their shares, p uniform
    (Srivastava et al. 2017; Lin et al. 2018, section 4.2)."""
    share = np.bincount(classes, minlength=modes) / len(classes)
    share = share[share > 0]
    return dict(stacked_modes=float(len(share)), stacked_kl=float((share * np.log(share * modes)).sum()))


def triples(pictures: np.ndarray, extract) -> np.ndarray | None:  # [n, H, W, 3] -> [n]
    """100 a + 10 b + c of what a classifier of digits takes the three colours for, each by itself; None where what it sees is no number."""
    p = [extract(pictures[..., c : c + 1])[1] for c in range(pictures.shape[-1])] if pictures.ndim == 4 else []
    require(len(p) == 3 and all(x.shape[1] == 10 for x in p),
            "the metric 'stacked_modes' is for three digits as colours: config.data.name = 'stacked_mnist' with config.extractor = 'classifier'")
    if not np.isfinite(p).all():
        return None
    a, b, c = (x.argmax(1) for x in p)
    return 100 * a + 10 * b + c


def stacked_modes(given) -> dict[str, float]:
    """How many of the 1,000 triples of digits occur among the samples, each colour classified by itself, and KL(q || uniform) in nats.
    Srivastava et al. 2017; Lin et al. 2018, section 4.2: 26,000 samples there. Of n perfect ones about 1,000 (1 - exp(-n / 1,000))
    triples occur, and the divergence is about 999 / 2 n."""
    found = triples(given.draw("prior"), given.extract)
    return dict(stacked_modes=math.nan, stacked_kl=math.nan) if found is None else stacked(found, 1000)


def class_accuracy(given) -> dict[str, float]:
    """The share of samples that a classifier takes for the class they were drawn for.
    Classes are as frequent as in the split."""
    labels, classes = given.labels(), given.spec.classes
    require(
        labels is not None,
        "the metric 'class_accuracy' is for generators of given classes, such as "
        "config.game.condition = 'projection' makes",
    )
    p = given.extract(given.draw("prior"))[1]
    require(
        p.shape[1] == classes,
        f"the metric 'class_accuracy' needs a classifier of the {classes} classes: "
        f"this one has {p.shape[1]}",
    )
    right = p.argmax(1) == labels
    return dict(class_accuracy=float(right.mean()) if np.isfinite(p).all() else math.nan)
