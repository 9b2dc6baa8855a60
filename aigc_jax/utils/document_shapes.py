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
from typing import Any


class DamageError(ValueError):
    """A defect of a document; the message is a predicate such as 'is empty'."""


def _object(pairs: list[tuple]) -> dict:
    value = dict(pairs)
    require_undamaged(len(value) == len(pairs), "has a duplicate key")
    return value


def _constant(name: str) -> None:
    raise DamageError(f"contains {name}, which is not JSON")


def _float(text: str) -> float:
    value = float(text)
    require_undamaged(math.isfinite(value), f"contains {text[:20]}, which is not finite")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def parse_json_object(raw: bytes) -> dict:  # or DamageError
    """Parse a JSON object, strictly by the standard; raise a DamageError if it is
    invalid.
    """
    require_undamaged(raw.strip() != b"", "is empty")
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
    require_undamaged(isinstance(value, dict), f"is {_describe_type(value)}, not an object")
    return value


def require_undamaged(condition: bool, defect: str) -> None:  # or DamageError
    """Raise a DamageError unless the condition holds.

    Args:
      condition: whether the document is sound.
      defect: the predicate of the message, such as 'is empty'.
    """
    if not condition:
        raise DamageError(defect)


def check_json_shape(value: Any, shape: Any, name: str) -> None:  # or DamageError
    """Raise a DamageError unless a value has a shape.

    Args:
      value: a parsed JSON value.
      shape: a shape as in the module's docstring.
      name: the value's name in the message, such as "it" for a document, or a key.
    """
    if isinstance(shape, tuple):
        require_undamaged(
            any(_fits(value, one, name) for one in shape), f"has {_describe_type(value)} as {name}"
        )
    elif isinstance(shape, list):
        require_undamaged(
            isinstance(value, list), f"has {_describe_type(value)} as {name}, not a list"
        )
        for i, item in enumerate(value):
            check_json_shape(item, shape[0], f"{name}[{i}]")
    elif isinstance(shape, dict):
        require_undamaged(
            isinstance(value, dict), f"has {_describe_type(value)} as {name}, not an object"
        )
        _check_keys(value, shape, name)
    elif shape is not object:
        require_undamaged(_is_a(value, shape), f"has {_describe_type(value)} as {name}")


def _check_keys(value: dict, shape: dict, where: str) -> None:
    for key, inner in shape.items():
        if key is ...:
            continue
        name = key.removesuffix("?")
        require_undamaged(name in value or key != name, f"has no key {name!r}")
        if name in value:
            check_json_shape(value[name], inner, name)
    declared = {key.removesuffix("?") for key in shape if key is not ...}
    for key in value.keys() - declared:
        require_undamaged(... in shape, f"has an unknown key {key!r}")
        check_json_shape(value[key], shape[...], key)


def _fits(value, shape, where: str) -> bool:
    try:
        check_json_shape(value, shape, where)
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


def _describe_type(value: object) -> str:
    """Return a description of a JSON value's type, for error messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), f"the number {str(value)[:20]}")
