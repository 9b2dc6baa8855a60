"""The identity of a run: the values of its config that determine its results.

This module does not import jax.
"""

import math
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.core.durations import UNITS, parse_duration
from aigc_jax.core.schema import DURATION, REQUIRED, Key
from aigc_jax.training.config import differing_leaves, find_allowed_keys, flatten_config
from aigc_jax.utils.documents import json_sha256

# Part of every identity. Increment when the default of an existing key changes, since a
# config without the key then denotes another run; new keys and the defaults of methods,
# which are written into the config, need no increment.
IDENTITY_VERSION = 2


def identity_leaves(config: ConfigDict) -> dict[str, Any]:  # those other than the defaults
    """Return the identity of a run: {name: value} of every leaf, except `run.*`, that
    differs from its `Key.default`. Runs with equal identities are the same run.

    Durations are in steps. In a config that is not resolved, durations whose resolution
    needs the data are in epochs or examples.
    """
    known = flatten_config(config)
    table = find_allowed_keys(known)
    out = {}
    for name, value in known.items():
        key = table.get(name, Key(name, None, ""))
        value = _normalized(key, value)
        if not name.startswith("run.") and (
            key.default is REQUIRED or value != _normalized(key, key.default)
        ):
            out[name] = value
    return out


def _normalized(key: Key, value: Any) -> Any:
    """Return the canonical form of a value: 1 becomes 1.0 where the key is a float,
    '1e3' and '1_000 steps' become 1000.
    """
    if key.type == DURATION:
        number, unit = parse_duration(value, key.name)
        return math.ceil(number - 1e-9) if UNITS[unit] else f"{number!r} {unit.removesuffix('s')}s"
    return float(value) if key.type is float else value


def hash_identity(config: ConfigDict) -> str:  # 12 hexadecimal digits
    """Return twelve hexadecimal digits of the hash of the identity and its version."""
    return json_sha256([IDENTITY_VERSION, identity_leaves(config)])[:12]


def differing_identity_leaves(
    old: ConfigDict, new: ConfigDict
) -> dict[str, list]:  # {key: [old, new]}
    """Return {key: [old, new]} of the values in which the identities of two configs
    differ, with the default where a config omits the key; None where a side has
    neither.
    """
    sides = []
    for config in (old, new):
        defaults = {
            name: key.default
            for name, key in find_allowed_keys(flatten_config(config)).items()
            if key.default is not REQUIRED
        }
        sides.append(defaults | flatten_config(config))
    return {
        name: [side.get(name) for side in sides]
        for name in differing_leaves(identity_leaves(old), identity_leaves(new))
    }
