"""Learning rate and KL weight schedules, as functions of the step.

SCHEDULES are multipliers in [0, 1] of a learning rate, (step, num_steps, warmup) -> []:

step       number of steps done, [] or a Python integer: 0 in the first step,
           num_steps - 1 in the last
num_steps  number of steps of the run, a Python integer
warmup     number of steps over which the multiplier rises to 1 linearly, a Python
           integer below `num_steps`; 0 and 1 mean no warm-up
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from aigc_jax.core.method import Array
from aigc_jax.utils.errors import choose, require


def constant(step: Array | int, num_steps: int, warmup: int) -> Array:  # -> [], in [0, 1]
    """Return a linear warm-up to 1, then 1."""
    return jnp.minimum(1.0, (step + 1) / max(warmup, 1))


def linear(step: Array | int, num_steps: int, warmup: int) -> Array:  # -> [], in [0, 1]
    """Return a linear warm-up to 1, then a linear decay to 0 at the end."""
    return constant(step, num_steps, warmup) * jnp.clip(
        (num_steps - step) / max(num_steps - warmup, 1), 0.0, 1.0
    )


def cosine(step: Array | int, num_steps: int, warmup: int) -> Array:  # -> [], in [0, 1]
    """Return a linear warm-up to 1, then half a cosine to 0 at the end (Loshchilov &
    Hutter 2017, eq. 5).
    """
    progress = jnp.clip((step - warmup) / max(num_steps - warmup, 1), 0.0, 1.0)
    return constant(step, num_steps, warmup) * 0.5 * (1 + jnp.cos(jnp.pi * progress))


def inverse_sqrt(step: Array | int, num_steps: int, warmup: int) -> Array:  # -> [], in [0, 1]
    """Return a linear warm-up to 1, then sqrt(max(warmup, 1) / (step + 1)) (Vaswani et
    al. 2017, eq. 3, scaled to a peak of 1).
    """
    return constant(step, num_steps, warmup) * jnp.sqrt(
        max(warmup, 1) / jnp.maximum(step + 1, max(warmup, 1))
    )


def burda(step: Array | int, num_steps: int, warmup: int) -> Array:  # -> [], in [0, 1]
    """Return 10^(-i/7) in stage i of eight, each three times as long as its predecessor
    (Burda et al. 2016, section 5: 3^i epochs of 3,280), scaled to `num_steps` and
    multiplied by the linear warm-up.
    """
    done = step / num_steps * (3**8 - 1) / 2
    edges = jnp.array([(3**i - 1) / 2 for i in range(1, 8)])
    return constant(step, num_steps, warmup) * 10.0 ** (-jnp.sum(done >= edges) / 7)


# config.schedule.name -> multiplier of a traced peak learning rate
SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "inverse_sqrt": inverse_sqrt,
    "burda": burda,
}
# Schedules that do not depend on the last step, so that a run may be extended.
ENDLESS = ("constant", "inverse_sqrt")

# config.anneal.name -> multiplier of the weight of a KL divergence: (step [], period)
# -> []. The period is a Python integer, in steps: the length of the rise ("linear") or
# of a cycle that rises in its first half ("cyclical").
ANNEALING: dict[str, Callable[[Array, int], Any]] = {
    "constant": lambda step, period: 1.0,
    # Bowman et al. 2016, section 3.1
    "linear": lambda step, period: jnp.minimum(1.0, (step + 1) / max(period, 1)),
    # Fu et al. 2019, eq. 6, R = 1/2
    "cyclical": lambda step, period: jnp.minimum(
        1.0, 2 * (step % max(period, 1) + 1) / max(period, 1)
    ),
}


def make_annealing(config: ConfigDict) -> Callable[[Array], Array | float]:
    """Return the schedule `weight(step) -> []`, in [0, 1], of config.anneal.

    Raises:
      UserError: if config.anneal.name is unknown, or needs a period and
        config.anneal.period is below 1.
    """
    name, period = config.anneal.name, config.anneal.period
    rule = choose(ANNEALING, name, "config.anneal.name")
    require(
        period > 0 or name == "constant",
        f"config.anneal.period = {period} steps must be at least 1 for config.anneal.name = "
        f"{name!r}",
    )
    return lambda step: rule(step, period)
