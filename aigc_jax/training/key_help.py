"""Config keys in words: types, ranges, values and origins, for listings and the
reference. This module does not import jax.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aigc_jax.core.schema import (
    ABOVE_ZERO,
    BELOW_ONE,
    DURATION,
    FLOAT,
    INTS,
    INTS2,
    NAMES,
    REQUIRED,
    Key,
)
from aigc_jax.data.schema import list_data_keys
from aigc_jax.training.config import find_allowed_keys, flatten_config, list_method_defaults
from aigc_jax.training.config_files import LoadedConfig
from aigc_jax.utils.disk import hide_paths
from aigc_jax.utils.python_files import REPOSITORY

_TYPES = {
    bool: "True or False",
    int: "integer",
    float: "number",
    str: "text",
    int | None: "integer or None",
    float | None: "number or None",
    DURATION: "duration, such as '1000 steps', '10 epochs', '1e6 examples' or 'never'",
    NAMES: "names, separated by commas",
    INTS: "integers, such as (64, 128)",
    INTS2: "tuples of integers, such as ((200, 100), (50,))",
}


class ExplainedKey(NamedTuple):
    """A key of a config with its value and where the value comes from."""

    key: Key
    value: Any  # REQUIRED: a hyper-parameter or field that is not set
    origin: str  # a file, "command line", or "default of ..."


def format_number(number: float) -> str:
    """Return a number as a person writes it: 1,048,576 or 0.0002."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def format_value(value: Any) -> str:
    """Return a config value as it may be written on the command line."""
    if value is REQUIRED:
        return "(to be set)"
    if isinstance(value, tuple) and all(isinstance(entry, str) for entry in value):
        return ",".join(value) or "()"
    return value or "''" if isinstance(value, str) else str(value)


def describe_range(key: Key) -> str:  # "1 to 1,000", or "" for no range
    """Return the range of a key's numbers in words."""
    if key.low is None or key.high is None:
        return ""
    low = "above 0" if key.low == ABOVE_ZERO else format_number(key.low)
    if key.high == FLOAT:
        return low if key.low == ABOVE_ZERO else f"at least {low}"
    return f"{low} to {'below 1' if key.high == BELOW_ONE else format_number(key.high)}"


def describe_type(key: Key) -> str:  # "integer, 1 to 1,000 pixels"
    """Return the type, range and unit of a key's values in words."""
    if key.allowed:
        return _TYPES[NAMES] if key.type == NAMES else "a name"
    words = ", ".join(filter(None, (_TYPES[key.type], describe_range(key))))
    return f"{words} {key.unit}".strip()


def explain_config(
    loaded: LoadedConfig, config: ConfigDict
) -> dict[str, ExplainedKey]:  # by name, in the order of the schemas
    """Return every key that a config may contain, with its value and origin.

    Keys that the config's choices do not read are left out.

    Args:
      loaded: the config of the file.
      config: the same config after overrides on the command line.
    """
    before, leaves = flatten_config(loaded.config), flatten_config(config)
    usual = list_method_defaults(leaves)
    read = {f"data.{name}" for name in list_data_keys(leaves["data.name"])}
    out = {}
    for name, key in find_allowed_keys(leaves).items():
        unread_data = name.startswith("data.") and name not in read
        if unread_data or name.startswith("hp.") and name not in leaves:
            continue
        value = leaves.get(name, key.default)
        if name in leaves and before.get(name, key.default) != value:
            origin = "command line"
        elif name in loaded.origins:
            origin = hide_paths(str(loaded.origins[name]), REPOSITORY)
        else:
            origin = f"default of {leaves['method']}" if name in usual else "default"
        out[name] = ExplainedKey(key, value, origin)
    return out
