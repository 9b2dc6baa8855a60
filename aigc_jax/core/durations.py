"""Durations: '1000 steps', '10 epochs', '1e6 examples' or 'never'."""

import math
import re

from aigc_jax.utils.errors import UserError, brief, nearest, require

MOST_STEPS = 2**31 - 1
# Unit -> its number of steps; 0 where that depends on the data and the batch size.
UNITS = dict(step=1, steps=1, epoch=0, epochs=0, example=0, examples=0)


def parse_duration(value: object, key: str) -> tuple[float, str]:
    """Parse '10 epochs' to (10.0, 'epochs'). A bare number is in steps; 'never' is
    (0.0, 'steps').
    """
    text = brief(value, quotes=False).strip()
    if text == "never":
        return 0.0, "steps"
    match = re.fullmatch(r"([0-9][0-9_]*\.?[0-9]*(?:[eE][+]?[0-9]+)?)(?:\s*([A-Za-z]+))?", text)
    if not match or (match[2] and match[2] not in UNITS):
        unit = nearest(match[2], UNITS) if match and match[2] else ""
        raise UserError(
            f"{key} = {brief(value)} is not a duration: write '1000 steps', '10 epochs', '1e6 "
            f"examples' or 'never'{unit}"
        )
    number = float(match[1].replace("_", ""))
    require(math.isfinite(number), f"{key} = {brief(value)} is not finite")
    return number, match[2] or "steps"


def steps_of(value: object, key: str, n_train: int, examples: int) -> int:
    """Convert a duration to steps, rounded up. An epoch has n_train examples, a step
    `examples` examples. `key` names the config key in errors.
    """
    number, unit = parse_duration(value, key)
    require(
        examples > 0 or unit.startswith("step"),
        f"{key} = {value!r} with {examples} examples per step: config.batch_size and its "
        "multipliers must be at least 1",
    )
    if unit.startswith("epoch"):
        number *= n_train / examples
    elif unit.startswith("example"):
        number /= examples
    else:
        require(number == int(number), f"{key} = {value!r} is not an integer number of steps")
    require(
        number <= MOST_STEPS, f"{key} = {value!r} is {number:.6g} steps; a run has fewer than 2^31"
    )
    return math.ceil(number - 1e-9)
