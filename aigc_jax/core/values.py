"""Conversion of config values to the types of their keys (`core.schema`), with range
checks.
"""

import ast
import math
import numbers
import typing
from typing import Any

from aigc_jax.core.durations import MOST_STEPS, UNITS, parse_duration
from aigc_jax.core.schema import (
    ABOVE_ZERO,
    BELOW_ONE,
    DURATION,
    ENTRIES,
    INTS,
    INTS2,
    NAMES,
    REQUIRED,
    Key,
)
from aigc_jax.utils.errors import UserError, choose, require, short_repr
from aigc_jax.utils.files import require_local_path

MOST_LETTERS = 4096  # maximum length of a string


def convert_value(key: Key, value: Any) -> Any:  # of key.type, or UserError
    """Convert a value, or its string form as on the command line, to the key's type.

    Raises:
      UserError: the type does not match, or the value is out of range or not allowed.
    """
    name = f"config.{key.name}"
    value = _convert_type(key.type, value, f"{name} = {short_repr(value)}", name)
    for entry in value if key.type == NAMES else ():
        is_single = value.count(entry) == 1
        require(is_single, f"{name} = {short_repr(value)} names {short_repr(entry)} more than once")
    for place, entry in _list_entries(value):
        if key.allowed:
            choose(key.allowed, entry, name + place)
        _check_range(key, entry, f"{name}{place} = {short_repr(entry)}")
    require(value != () or key.default is not REQUIRED, f"{name} = () must have at least one entry")
    return value


def _list_entries(value: Any, index: str = "") -> list[tuple[str, Any]]:  # (index, entry)
    """Return [(index, entry)] of the values that a range applies to: the entries of a
    tuple, at any depth, or the value itself.
    """
    if not isinstance(value, tuple):
        return [(index, value)]
    return [found for i, part in enumerate(value) for found in _list_entries(part, f"{index}[{i}]")]


def _check_range(key: Key, value: Any, shown: str) -> None:
    if isinstance(value, str):
        require(
            len(value) <= MOST_LETTERS and "\0" not in value,
            f"{shown} must be a string of at most {MOST_LETTERS} characters without NUL",
        )
        require_local_path(value, shown)
    if key.low is None or value is None:
        return
    require(
        value >= key.low,
        f"{shown} must be " + ("positive" if key.low == ABOVE_ZERO else f"at least {key.low:g}"),
    )
    require(
        value <= key.high,
        f"{shown} must be "
        + ("below 1" if key.high == BELOW_ONE else f"at most {_plain(key.high)}"),
    )


def _plain(number: float | None) -> str:
    return f"{number:,}" if isinstance(number, int) and abs(number) < 10**15 else f"{number:g}"


TYPES = {
    bool: "a bool (True or False)",
    int: "an integer",
    float: "a number",
    str: "a string",
    NAMES: "a tuple of names",
    INTS: "a tuple of integers, such as (64, 32)",
    INTS2: "a tuple of tuples of integers, such as ((64, 32), (16,))",
}


def _convert_type(kind: Any, value: Any, description: str, name: str) -> Any:
    """Convert `value` to a type of the table; `description` denotes the value in
    errors.
    """
    if kind == DURATION:
        return _duration(value, name)
    options = typing.get_args(kind) if typing.get_origin(kind) is not tuple else ()
    if type(None) in options:
        if value is None:
            return None
        kind = options[0]
    wrong = UserError(f"{description} is not {TYPES[kind]}")
    if kind is str:
        if not isinstance(value, str):
            raise wrong
        return value
    if isinstance(value, str):
        value = _parsed(value, kind, wrong)
    if typing.get_origin(kind) is tuple:
        value = value if isinstance(value, tuple | list) else (value,)
        require(len(value) <= ENTRIES, f"{description} must have at most {ENTRIES} entries")
        inner = typing.get_args(kind)[0]
        return tuple(
            _convert_type(inner, v, f"{description}, whose entry {i}", name)
            for i, v in enumerate(value)
        )
    return _number(kind, value, wrong)


def _parsed(text: str, kind: Any, wrong: UserError) -> Any:
    """Parse a string from the command line."""
    word = text.strip()
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if kind == NAMES and not word.startswith(("(", "[", "'", '"', "{")):
        # Names need no quotes: modes,frechet_pixels.
        return tuple(filter(None, (part.strip() for part in word.split(","))))
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if kind is float and word.lower() in ("inf", "-inf", "nan"):
            return float(word)  # reported by `_number`
        raise wrong from None


def _number(kind: Any, value: Any, wrong: UserError) -> Any:
    if kind is bool:
        if value not in (True, False) or not isinstance(value, int):
            raise wrong
        return bool(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong
    if isinstance(value, numbers.Integral):
        value = int(value)
    if kind is float:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        require(
            math.isfinite(value), str(wrong).removesuffix(" is not a number") + " is not finite"
        )
        return value + 0.0  # -0.0 is 0.0
    if not isinstance(value, int) and (not math.isfinite(value) or value != int(value)):
        raise wrong
    return int(value)


def _duration(value: Any, name: str) -> Any:
    """Check a duration, a string or an integer (if resolved), and return a string."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(
            f"{name} = {short_repr(value)} is not a duration, such as '1000 steps' or '10 epochs'"
        )
    number, unit = parse_duration(value, name)
    require(
        number <= MOST_STEPS or UNITS[unit] == 0,
        f"{name} = {short_repr(value)} is too long: a run has fewer than 2^31 steps",
    )
    return str(value)
