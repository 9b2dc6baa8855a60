"""Plots of separability."""

import numpy as np

from aigc_jax.media import plots


def test_strips_of_separability_say_how_many_are_wrong():
    """Images beyond the errors are called the most alike, not misclassified."""
    scores = np.array([[-1.0, 2, 3, 4], [-3, -2, 1, 2]])
    names = plots.name_strips(scores)
    assert names[1] == "samples most like examples (2 of 4 are classified as examples)"
    assert names[2] == "examples most like samples (1 of 4 are classified as samples)"
