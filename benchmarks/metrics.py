"""Do our metrics give what the packages that people use give? The same random features,
in float64, and how long each takes.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/metrics.py [--case=NAME]

Features are ReLUs of correlated normals, as a network's last layer has them, the
generated ones with another mean and scale. torchmetrics' kernel distance is a mean over
subsets: here it has one, of all. Differences are relative. Exit code 1 above 1e-6, but
that the packages' Fréchet distances do not count where samples are fewer than
dimensions: what they take roots of then is rounding errors, and the cross term is
compared with the sum of the singular values of one sample times the other, which needs
none.
"""

import argparse
import contextlib
import io
import os
import sys
import time
import warnings
from importlib.metadata import version

import numpy as np

MOST = 1e-6
# name -> real features, generated ones, their dimensions
CASES = {
    "wide": (10_000, 10_000, 128),
    "uneven": (3000, 1000, 64),
    "few": (100, 100, 512),  # fewer than dimensions: covariances without full rank
    "inception": (2500, 2500, 2048),
    "inception_few": (1000, 1000, 2048),
}
PAIRS = 5000  # of more, the packages' tables of distances would take gigabytes


def features(n, m, dimensions):  # -> [n, D], [m, D]
    """Of rank 50 and a little noise: few directions matter, as in a network's."""
    random = np.random.RandomState(0)
    mix = random.randn(min(50, dimensions), dimensions) / 7
    draw = lambda n, scale, shift: np.maximum(
        random.randn(n, len(mix)) @ mix * scale + random.randn(n, dimensions) / 5 + shift, 0
    )
    return draw(n, 1.0, 0.0), draw(m, 0.9, 0.1)


def identity_network(dimensions):
    """A network whose features are its input."""
    import torch

    net = torch.nn.Identity()
    net.num_features = dimensions
    return net


def of_torchmetrics(metric, real, fake, **more):
    """The value of a metric of torchmetrics."""
    import torch

    made = metric(feature=identity_network(real.shape[1]), **more)
    made.update(torch.from_numpy(real), real=True)
    made.update(torch.from_numpy(fake), real=False)
    return made.compute()


def torchmetrics_frechet(real, fake):
    from torchmetrics.image.fid import FrechetInceptionDistance

    return dict(frechet=float(of_torchmetrics(FrechetInceptionDistance, real, fake)))


def pytorch_fid(real, fake):
    from pytorch_fid.fid_score import calculate_frechet_distance

    moments = (part for x in (real, fake) for part in (x.mean(0), np.cov(x, rowvar=False)))
    return dict(frechet=float(calculate_frechet_distance(*moments)))


def singular_values(real, fake):
    """|m_a - m_b|^2 + tr(S_a + S_b) - 2 |A B^T|_* / sqrt((n - 1)(m - 1)), A and B the
    centred samples: the trace of the root without a root.
    """
    a, b = real - real.mean(0), fake - fake.mean(0)
    n, m = len(a) - 1, len(b) - 1
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum() / (n * m) ** 0.5
    return dict(
        frechet=float(
            ((real.mean(0) - fake.mean(0)) ** 2).sum()
            + (a**2).sum() / n
            + (b**2).sum() / m
            - 2 * cross
        )
    )


def torchmetrics_kid(real, fake):
    from torchmetrics.image.kid import KernelInceptionDistance

    return dict(
        kid=float(
            of_torchmetrics(KernelInceptionDistance, real, fake, subsets=1, subset_size=len(real))[
                0
            ]
        )
    )


def package_prdc(real, fake):
    from prdc import compute_prdc

    return {name: float(value) for name, value in compute_prdc(real, fake, nearest_k=5).items()}


def torchmetrics_score(real, fake):
    """Of probabilities whose logits are the first ten features."""
    import torch
    from torchmetrics.image.inception import InceptionScore

    made = InceptionScore(feature=torch.nn.Identity(), splits=1)
    made.update(torch.from_numpy(fake[:, :10]))
    return dict(classifier_score=float(made.compute()[0]))


def ours():
    """name -> function of (real, fake)."""
    from scipy.special import softmax

    from aigc_jax.metrics.classifier_scores import classifier_score
    from aigc_jax.metrics.frechet import squared_frechet_distance
    from aigc_jax.metrics.kid import unbiased_squared_mmd
    from aigc_jax.metrics.precision_recall import prdc

    return {
        "frechet": lambda a, b: dict(frechet=squared_frechet_distance(a, b)),
        "kid": lambda a, b: dict(kid=unbiased_squared_mmd(a, b)),
        "prdc": prdc,
        "classifier_score": lambda a, b: dict(
            classifier_score=classifier_score(softmax(b[:, :10], axis=1))
        ),
    }


# (ours, theirs, the function, most examples of each kind, whether it needs as many of
# one kind as of the other)
SIDES = (
    ("frechet", "torchmetrics", torchmetrics_frechet, None, False),
    ("frechet", "pytorch-fid", pytorch_fid, None, False),
    ("frechet", "singular values", singular_values, 3000, False),
    ("kid", "torchmetrics", torchmetrics_kid, PAIRS, True),
    ("prdc", "prdc", package_prdc, PAIRS, False),
    ("classifier_score", "torchmetrics", torchmetrics_score, None, False),
)


def timed(function, *arguments):
    begun = time.perf_counter()
    # Silences what the packages print and warn of.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = function(*arguments)
    return values, time.perf_counter() - begun


def compare(case) -> float:
    """Prints a case's lines; the largest difference."""
    n, m, dimensions = CASES[case]
    real, fake = features(n, m, dimensions)
    worst, known = 0.0, ours()
    for name, package, theirs, most, equal in SIDES:
        most = min(most or max(n, m), min(n, m) if equal else max(n, m))
        a, b = real[:most], fake[:most]
        timed(theirs, a[:50], b[:50])  # what is imported first
        (mine, seconds), (other, others) = timed(known[name], a, b), timed(theirs, a, b)
        for key, value in mine.items():
            difference = (
                abs(value - other[key]) / max(abs(other[key]), 1e-300)
                if value != other[key]
                else 0.0
            )
            exact = (
                key != "frechet" or min(len(a), len(b)) > dimensions or package == "singular values"
            )
            worst = max(worst, difference) if exact else worst
            sizes = f"{len(a):,} and {len(b):,} of {dimensions:,}"
            print(
                f"| {sizes} | {key} | {package} | {value:.10g} | {difference:.1e} | "
                f"{seconds:.2f} | {others:.2f} |",
                flush=True,
            )
    return worst


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--case", choices=CASES)
    args = arguments.parse_args()
    packages = ", ".join(
        f"{name} {version(name)}"
        for name in ("numpy", "torch", "torchmetrics", "pytorch-fid", "prdc", "scipy")
    )
    print(f"{os.cpu_count()} cores, {packages}\n")
    print(
        "| features | value | against | ours | relative difference | seconds, ours | theirs "
        "|\n|---|---|---|---|---|---|---|"
    )
    worst = max(compare(case) for case in ([args.case] if args.case else CASES))
    print(f"\nlargest difference {worst:.1e} (at most {MOST:.0e})")
    return int(not worst <= MOST)


if __name__ == "__main__":
    sys.exit(main())
