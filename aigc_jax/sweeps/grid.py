"""Sweeps as lists of overrides such as {"hp.lr": 1e-3, "seed": 0}, made by products,
zipping, seeds and random draws.
"""

import itertools
import math
import random as _random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aigc_jax.utils.errors import mark_argument, require


def values(key: str, *choices: Any) -> list[dict]:  # [{key: choice}, ...]
    """Return one override per value: values("hp.lr", 1e-4, 1e-3)."""
    return [{key: choice} for choice in choices]


MOST_TRIALS = 100_000  # of a sweep: each trial is a directory

Draw = Callable[[_random.Random], Any]  # draws a value


def seeds(num_seeds: int) -> list[dict]:  # [{"seed": 0}, ...]
    """Return overrides of the seed by 0 .. num_seeds - 1."""
    require(
        0 < num_seeds <= MOST_TRIALS,
        f"seeds({num_seeds}): the number of seeds must be 1 to {MOST_TRIALS:,}",
    )
    return values("seed", *range(num_seeds))


def product(*sweeps: Iterable[dict]) -> list[dict]:
    """Return the Cartesian product of sweeps; the last sweep varies fastest, and the
    last value wins if several sweeps set a key.
    """
    factors = [list(sweep) for sweep in sweeps]
    count = math.prod(map(len, factors))
    require(
        count <= MOST_TRIALS,
        f"the product of {len(factors)} sweeps has {count:,} trials; "
        f"at most {MOST_TRIALS:,} are allowed",
    )
    return [_merge_overrides(parts) for parts in itertools.product(*factors)]


def zipped(*sweeps: Sequence[dict]) -> list[dict]:  # of equal lengths
    """Return the i-th overrides of all sweeps merged, for each i; the sweeps must have
    equal lengths.
    """
    lengths = [len(list(sweep)) for sweep in sweeps]
    require(
        len(set(lengths)) <= 1,
        f"zipped sweeps must be of one length, not {', '.join(map(str, lengths))}",
    )
    return [_merge_overrides(parts) for parts in zip(*sweeps, strict=True)]


def chain(*sweeps: Iterable[dict]) -> list[dict]:  # concatenated
    """Return the concatenation of sweeps."""
    return [dict(part) for sweep in sweeps for part in sweep]


def _merge_overrides(overrides: Iterable[dict]) -> dict:
    """Return one dict of several; the last value of a key wins."""
    out: dict = {}
    for changes in overrides:
        out |= changes
    return out


def loguniform(low: float, high: float) -> Draw:  # 6 digits
    """Return a draw for `random`: a log-uniform number from low to high, rounded to 6
    significant digits.
    """
    require(0 < low < high, f"loguniform({low}, {high}) needs 0 < low < high")
    return lambda draw: float(f"{math.exp(draw.uniform(math.log(low), math.log(high))):.6g}")


def uniform(low: float, high: float) -> Draw:  # 6 digits
    """Return a draw for `random`: a uniform number from low to high, rounded to 6
    significant digits.
    """
    require(low < high, f"uniform({low}, {high}) needs low < high")
    return lambda draw: float(f"{draw.uniform(low, high):.6g}")


def choice(*options: Any) -> Draw:  # of one option
    """Return a draw for `random`: one of the options, with equal probabilities."""
    return lambda draw: draw.choice(options)


def random(num_trials: int, draws: dict[str, Draw], seed: int = 0) -> list[dict]:
    """Return random overrides: random(20, {"hp.lr": loguniform(1e-5, 1e-2)}). The first
    overrides do not depend on num_trials.

    Args:
      num_trials: number of trials.
      draws: {config key: draw}; a draw is a result of `loguniform`, `uniform` or
        `choice`, or any function of Python's random.Random.
      seed: the same seed gives the same overrides.
    """
    return [
        {key: f(_random.Random(f"{seed}/{i}/{key}")) for key, f in draws.items()}
        for i in range(num_trials)
    ]


def parse_grid(text: str) -> list[dict]:  # KEY=VALUE,VALUE,...
    """Parse one grid of the command line, KEY=VALUE,VALUE,..., whose values are written
    as those of config keys on the command line.

    Commas separate values, except within quotes or brackets: latent_dims=(3,),(5,). The
    quotes around a value are removed: data.path="a,b",c. Spaces around values are
    ignored. `training.config.override` converts the texts.
    """
    key, equals, choices = text.partition("=")
    require(
        bool(equals and key.strip() and choices.strip()),
        f"{mark_argument('grid')}={text} must be KEY=VALUE,VALUE,..., such as "
        f"{mark_argument('grid')} hp.lr=1e-4,3e-4",
    )
    return values(
        key.strip().removeprefix("config."),
        *map(_unquote, split_values(choices, f"{mark_argument('grid')}={text}")),
    )


QUOTES, BRACKETS = "'\"", {")": "(", "]": "["}


def split_values(choices: str, flag: str) -> list[str]:
    """Split at commas outside quotes and brackets, and strip spaces of the parts. Raise
    a UserError, which names the `flag`, for what is unbalanced or empty.
    """
    parts, quote = [""], ""
    opened: list[str] = []
    for c in choices:
        if quote:
            quote = "" if c == quote else quote
        elif c in QUOTES and (opened or not parts[-1].strip()):  # not an apostrophe, as in it's
            quote = c
        elif c in BRACKETS.values():
            opened.append(c)
        elif c in BRACKETS:
            require(
                opened and opened.pop() == BRACKETS[c],
                f"{flag} has an unmatched {c}; quote a value that contains this character",
            )
        if c == "," and not quote and not opened:
            parts.append("")
        else:
            parts[-1] += c
    left = [*opened, *quote]
    require(not left, f"{flag} has an unclosed {''.join(left[-1:])}")
    parts = [part.strip() for part in parts]
    require(
        all(parts),
        f"{flag} has an empty value; write '' for an empty string",
    )
    return parts


def _unquote(text: str) -> str:
    """Remove the quotes of a text that is one quoted text; return others unchanged."""
    quoted = len(text) > 1 and text[0] in QUOTES and text.find(text[0], 1) == len(text) - 1
    return text[1:-1] if quoted else text
