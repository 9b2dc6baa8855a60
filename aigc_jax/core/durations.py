"""Durations: '1000 steps', '10 epochs', '1e6 examples' or 'never'."""

import math
import re

from aigc_jax.utils.errors import UserError, format_suggestion, require, short_repr

MOST_STEPS = 2**31 - 1
# Unit -> its number of steps; 0 where that depends on the data and the batch size.
UNITS = dict(step=1, steps=1, epoch=0, epochs=0, example=0, examples=0)


def parse_duration(duration: object, key: str) -> tuple[float, str]:  # (number, unit)
    """Parse '10 epochs' to (10.0, 'epochs'). A bare number is in steps; 'never' is
    (0.0, 'steps').

    Args:
      duration: the duration, a string or a number of steps.
      key: the config key, for error messages.

    Raises:
      UserError: the value is not a duration or not finite.
    """
    text = short_repr(duration, quote_strings=False).strip()
    if text == "never":
        return 0.0, "steps"
    match = re.fullmatch(r"([0-9][0-9_]*\.?[0-9]*(?:[eE][+]?[0-9]+)?)(?:\s*([A-Za-z]+))?", text)
    if not match or (match[2] and match[2] not in UNITS):
        unit = format_suggestion(match[2], UNITS) if match and match[2] else ""
        raise UserError(
            f"{key} = {short_repr(duration)} is not a duration: write '1000 steps', '10 epochs', "
            f"'1e6 examples' or 'never'{unit}"
        )
    number = float(match[1].replace("_", ""))
    require(math.isfinite(number), f"{key} = {short_repr(duration)} is not finite")
    return number, match[2] or "steps"


def duration_to_steps(
    duration: object, key: str, n_train: int, examples_per_step: int
) -> int:  # rounded up
    """Convert a duration to an integer number of steps, rounded up.

    Args:
      duration: the duration, a string or a number of steps.
      key: the config key, for error messages.
      n_train: examples of an epoch.
      examples_per_step: examples of a step.

    Raises:
      UserError: the value is not a duration, a number of steps is not an integer, or
        the steps exceed MOST_STEPS.
    """
    number, unit = parse_duration(duration, key)
    require(
        examples_per_step > 0 or unit.startswith("step"),
        f"{key} = {duration!r} with {examples_per_step} examples per step: config.batch_size and "
        "its multipliers must be at least 1",
    )
    if unit.startswith("epoch"):
        number *= n_train / examples_per_step
    elif unit.startswith("example"):
        number /= examples_per_step
    else:
        require(number == int(number), f"{key} = {duration!r} is not an integer number of steps")
    require(
        number <= MOST_STEPS,
        f"{key} = {duration!r} is {number:.6g} steps; a run has fewer than 2^31",
    )
    return math.ceil(number - 1e-9)
