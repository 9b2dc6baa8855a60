"""Metrics over whole data sets: pure functions of arrays, on the host, in float64.

Each is (draw, real, spec) -> {name: float}: `draw(what)` gives `config.metric_samples` outputs of the method's sampler of
that name, for one trial; `real` is a split, {"x": [n, ...], ...}, as the networks see it. One function, one table line.
"""

from aigc_jax.errors import choose
from aigc_jax.metrics import diversity, frechet, likelihood, modes, text

# config.metrics -> function
METRICS = {
    "frechet_pixels": frechet.frechet_pixels,
    "diversity": diversity.diversity,
    "modes": modes.modes,
    "nll": likelihood.nll,
    "bleu": text.answered,
    "bleu_greedy": text.answered_greedily,
    "rouge": text.overlap,
    "variety": text.varied,
}


def find(names, key="config.metrics") -> list:
    """The functions of these names; `key` is what a misspelt one was given for."""
    return [choose(METRICS, name, f"{key}[{i}]") for i, name in enumerate(names)]
