"""Sweeps as lists of overrides, {"hp.lr": 1e-3, "seed": 0}, and how to make them: products, pairs, seeds, random draws."""

import ast
import itertools
import math
import random as _random

from aigc_jax.errors import UserError, require


def values(key: str, *choices) -> list[dict]:
    """One override a value: values("hp.lr", 1e-4, 1e-3)."""
    return [{key: choice} for choice in choices]


def seeds(n: int) -> list[dict]:
    """Seeds 0 .. n - 1."""
    require(n > 0, f"seeds({n}): there must be at least 1")
    return values("seed", *range(n))


def product(*sweeps) -> list[dict]:
    """Each override of the first with each of the second, and so on; the last varies fastest. Of a key that several set the last counts."""
    return [_merged(parts) for parts in itertools.product(*map(list, sweeps))]


def zipped(*sweeps) -> list[dict]:
    """The first of each together, the second of each, and so on; all must be of one length."""
    lengths = [len(list(sweep)) for sweep in sweeps]
    require(len(set(lengths)) <= 1, f"zipped sweeps must be of one length, not {', '.join(map(str, lengths))}")
    return [_merged(parts) for parts in zip(*sweeps, strict=True)]


def chain(*sweeps) -> list[dict]:
    """One after another."""
    return [dict(part) for sweep in sweeps for part in sweep]


def _merged(parts) -> dict:
    out = {}
    for part in parts:
        out |= part
    return out


def loguniform(low: float, high: float):
    """exp of a uniform number between log low and log high."""
    require(0 < low < high, f"loguniform({low}, {high}) needs 0 < low < high")
    return lambda draw: float(f"{math.exp(draw.uniform(math.log(low), math.log(high))):.6g}")


def uniform(low: float, high: float):
    require(low < high, f"uniform({low}, {high}) needs low < high")
    return lambda draw: float(f"{draw.uniform(low, high):.6g}")


def choice(*options):
    return lambda draw: draw.choice(options)


def random(n: int, draws: dict, seed: int = 0) -> list[dict]:
    """n overrides whose values are drawn: random(20, {"hp.lr": loguniform(1e-5, 1e-2)}). The first m are the same however many there are."""
    return [{key: f(_random.Random(f"{seed}/{i}/{key}")) for key, f in draws.items()} for i in range(n)]


def parse(text: str) -> list[dict]:
    """One --grid of the command line: hp.lr=1e-4,3e-4; texts need no quotes, tuples have parentheses."""
    key, equals, given = text.partition("=")
    require(bool(equals and key and given), f"--grid={text} must be KEY=VALUE,VALUE,..., such as --grid hp.lr=1e-4,3e-4")
    return values(key.removeprefix("config."), *map(_literal, _split(given, text)))


def _split(given, text):
    """At the commas that are in no bracket."""
    depth, parts = 0, [""]
    for c in given:
        depth += (c in "([") - (c in ")]")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    if not all(parts):
        raise UserError(f"--grid={text} has an empty value")
    return parts


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
