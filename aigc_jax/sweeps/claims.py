"""Verdicts on claims: numbers of committed rows beside published ones.

A outcome is a function of the rows and of the claim's tolerance alone.
"""

from typing import NamedTuple

import numpy as np

from aigc_jax.sweeps.experiment import Claim


class Comparison(NamedTuple):
    """A claim and what the rows say of it."""

    claim: Claim
    mean: float
    error: float | None  # standard error over seeds; None: of one seed
    published: float
    outcome: str  # as `decide_outcome` returns it


def compare_claim(claim: Claim, rows: list[dict]) -> Comparison:
    """Compare the number of a claim in some rows with the published one.

    Examples:
      >>> claim = Claim(
      ...     what="loss", source="a paper", published=1.9, values=lambda rows: rows,
      ...     tolerance=0.01, better="lower",
      ... )
      >>> [compare_claim(claim, rows).outcome for rows in ([1.7, 1.9], [2.0, 2.2])]
      ['reproduced', 'not reached, by 0.20']
    """
    values = np.array(list(claim.values(rows)), np.float64)
    published = float(claim.published(rows) if callable(claim.published) else claim.published)
    mean = float(values.mean()) if len(values) else float("nan")
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return Comparison(claim, mean, error, published, decide_outcome(claim, mean, published))


def decide_outcome(claim: Claim, mean: float, published: float) -> str:
    """Return "reproduced" (of a baseline: "reached"), "differs by +0.14" or "not
    reached, by 1.20". A mean that is not finite is never reproduced.
    """
    difference = mean - published
    shortfall = {"lower": difference, "higher": -difference, "": abs(difference)}[claim.better]
    if shortfall <= claim.tolerance:
        return "reached" if claim.is_baseline else "reproduced"
    if claim.better:
        return f"not reached, by {shortfall:.{claim.digits}f}"
    return f"differs by {difference:+.{claim.digits}f}"
