"""A parser of standard JSON, and checks that a value has a declared shape.

Shapes are Python types, and containers of shapes:
  int, float, str, bool, None   as in JSON; float admits int; int admits 64 bits, but
                                not a bool
  object                        any value
  [shape]                       a list of this shape
  (shape, shape)                one of several shapes
  {"key": shape, "key?": shape, ...: shape}   an object: required, optional and all
                                              other keys
"""

import json
import math


class DamageError(ValueError):
    """A defect of a document; the message is a predicate such as 'is empty'."""


def _object(pairs: list[tuple]) -> dict:
    value = dict(pairs)
    check(len(value) == len(pairs), "has a duplicate key")
    return value


def _constant(name: str) -> None:
    raise DamageError(f"contains {name}, which is not JSON")


def _float(text: str) -> float:
    value = float(text)
    check(math.isfinite(value), f"contains {text[:20]}, which is not finite")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def parse(raw: bytes) -> dict:
    """Parse a JSON object, strictly by the standard; raise a DamageError if it is
    invalid.
    """
    check(raw.strip() != b"", "is empty")
    try:
        value = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as e:
        raise DamageError(f"is not UTF-8 text at byte {e.start}") from None
    except RecursionError:
        raise DamageError("is nested too deeply") from None
    except json.JSONDecodeError as e:
        raise DamageError(f"is not JSON at line {e.lineno}, column {e.colno}") from None
    except DamageError:
        raise
    except ValueError:  # Python's limit on the digits of an integer
        raise DamageError("contains an integer of too many digits") from None
    check(isinstance(value, dict), f"is {_name(value)}, not an object")
    return value


def check(condition: bool, what: str) -> None:
    """Raise DamageError(what) unless the condition holds."""
    if not condition:
        raise DamageError(what)


def check_shape(value, shape, where: str) -> None:
    """Raise a DamageError unless a value has a shape; `where` names the value in the
    message.
    """
    if isinstance(shape, tuple):
        check(any(_fits(value, one, where) for one in shape), f"has {_name(value)} as {where}")
    elif isinstance(shape, list):
        check(isinstance(value, list), f"has {_name(value)} as {where}, not a list")
        for i, item in enumerate(value):
            check_shape(item, shape[0], f"{where}[{i}]")
    elif isinstance(shape, dict):
        check(isinstance(value, dict), f"has {_name(value)} as {where}, not an object")
        _check_keys(value, shape, where)
    elif shape is not object:
        check(_is_a(value, shape), f"has {_name(value)} as {where}")


def _check_keys(value: dict, shape: dict, where: str) -> None:
    for key, inner in shape.items():
        if key is ...:
            continue
        name = key.removesuffix("?")
        check(name in value or key != name, f"has no key {name!r}")
        if name in value:
            check_shape(value[name], inner, name)
    declared = {key.removesuffix("?") for key in shape if key is not ...}
    for key in value.keys() - declared:
        check(... in shape, f"has an unknown key {key!r}")
        check_shape(value[key], shape[...], key)


def _fits(value, shape, where: str) -> bool:
    try:
        check_shape(value, shape, where)
    except DamageError:
        return False
    return True


def _is_a(value, kind) -> bool:
    if kind is None:
        return value is None
    if kind is int or kind is float:
        integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        return integer or (kind is float and isinstance(value, float))
    return isinstance(value, kind)


def _name(value) -> str:
    """Return a description of a JSON value's type, for error messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), f"the number {str(value)[:20]}")
