"""Learning rate and KL weight schedules, as functions of the step."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from aigc_jax.core.method import Array
from aigc_jax.utils.errors import choose, require


def constant(step: Array | int, end: int, warmup: int):
    """Return a linear warm-up to 1, then 1."""
    return jnp.minimum(1.0, (step + 1) / max(warmup, 1))


def linear(step: Array | int, end: int, warmup: int):
    """Return a linear warm-up to 1, then a linear decay to 0 at the end."""
    return constant(step, end, warmup) * jnp.clip((end - step) / max(end - warmup, 1), 0.0, 1.0)


def cosine(step: Array | int, end: int, warmup: int):
    """Return a linear warm-up to 1, then half a cosine to 0 at the end (Loshchilov &
    Hutter 2017, eq. 5).
    """
    progress = jnp.clip((step - warmup) / max(end - warmup, 1), 0.0, 1.0)
    return constant(step, end, warmup) * 0.5 * (1 + jnp.cos(jnp.pi * progress))


def inverse_sqrt(step: Array | int, end: int, warmup: int):
    """Return a linear warm-up to 1, then sqrt(warmup / step) (Vaswani et al. 2017,
    eq. 3, scaled to a peak of 1).
    """
    return constant(step, end, warmup) * jnp.sqrt(
        max(warmup, 1) / jnp.maximum(step + 1, max(warmup, 1))
    )


def burda(step: Array | int, end: int, warmup: int):
    """Return 10^(-i/7) in stage i of eight, each three times as long as its predecessor
    (Burda et al. 2016, section 5: 3^i epochs of 3,280), scaled to `end` steps.
    """
    done = step / end * (3**8 - 1) / 2
    edges = jnp.array([(3**i - 1) / 2 for i in range(1, 8)])
    return constant(step, end, warmup) * 10.0 ** (-jnp.sum(done >= edges) / 7)


# Multipliers of a traced peak learning rate: (step [], end, warmup) -> []. The end and
# the warm-up are Python integers, in steps.
SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "inverse_sqrt": inverse_sqrt,
    "burda": burda,
}
# Schedules that do not depend on the last step, so that a run may be extended.
ENDLESS = ("constant", "inverse_sqrt")

# Multipliers of the weight of a KL divergence: (step [], period) -> [].
ANNEALING = {
    "constant": lambda step, period: 1.0,
    # Bowman et al. 2016, section 3.1
    "linear": lambda step, period: jnp.minimum(1.0, (step + 1) / max(period, 1)),
    # Fu et al. 2019, eq. 6, R = 1/2
    "cyclical": lambda step, period: jnp.minimum(
        1.0, 2 * (step % max(period, 1) + 1) / max(period, 1)
    ),
}


def make_annealing(config: ConfigDict):
    """Return the schedule `weight(step) -> []` of config.anneal."""
    name, period = config.anneal.name, config.anneal.period
    rule = choose(ANNEALING, name, "config.anneal.name")
    require(
        period > 0 or name == "constant",
        f"config.anneal.period = {period} steps must be at least 1 for config.anneal.name = "
        f"{name!r}",
    )
    return lambda step: rule(step, period)
