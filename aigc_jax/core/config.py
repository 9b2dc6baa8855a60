"""Configs: loading a file, overriding keys, resolving durations, identity of a run.

A config has three kinds of keys, all declared in the table of `keys`:
  hp.*, seed   traced numbers: may differ between trials of one compiled program; part
               of a run's identity
  run.*        how a run is executed: may change between resumptions; not part of its
               identity
  the rest     static: shapes, names, counts; part of a run's identity
"""

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.core import keys
from aigc_jax.core.durations import UNITS, duration_to_steps, parse_duration
from aigc_jax.core.hparams import DEFAULTS, applicable_hparams, check_hparams
from aigc_jax.core.schema import DURATION, REQUIRED, Key
from aigc_jax.core.values import convert_value
from aigc_jax.utils.documents import json_sha256
from aigc_jax.utils.errors import (
    UserError,
    check_type,
    format_suggestion,
    mark_argument,
    require,
    short_repr,
)
from aigc_jax.utils.python_files import (
    convert_user_code_errors,
    find_python_file,
    import_python_file,
)

RUN, DATA = keys.section_defaults("run"), keys.section_defaults("data")  # of one section


def load(source: str | Path | ConfigDict) -> ConfigDict:  # locked, with all defaults
    """Return a locked config with all defaults.

    Args:
      source: a Python file, located by `find_python_file`, whose get_config() returns
        the config; or a ConfigDict, to which the defaults are added.

    Raises:
      UserError: the file does not exist, raises an exception, or has no get_config()
        that returns a ConfigDict; or a key or a value is invalid.
    """
    if isinstance(source, ConfigDict):
        return fill_defaults(source)
    check_type("config", source, (str, Path), "a name, a path or a ConfigDict")
    source = find_python_file(source, "config")
    module = import_python_file(source, "config")
    require(
        hasattr(module, "get_config"),
        f"{mark_argument('config')}={source} has no function get_config()",
    )
    with convert_user_code_errors(source, "config"):
        config = module.get_config()
    require(
        isinstance(config, ConfigDict),
        f"{mark_argument('config')}={source}: get_config() returns {type(config).__name__}, "
        "not a ConfigDict",
    )
    return fill_defaults(config)


def fill_defaults(config: ConfigDict) -> ConfigDict:  # a locked, checked copy
    """Return a locked copy with the table's defaults for keys that the config omits,
    except in `model` and `hp`, which contain only keys that are set. All keys and
    values are checked.
    """
    leaves = flatten_config(config)
    table = _allowed_keys(leaves)
    values = {
        name: convert_value(find_key(table, name, leaves), value) for name, value in leaves.items()
    }
    defaults = {
        name: key.default
        for name, key in table.items()
        if key.default is not REQUIRED and not name.startswith(("model.", "hp."))
    }
    out = _nest_config(
        {name: (defaults | values)[name] for name in table if name in defaults or name in values}
    )
    validate_config(out)
    return out


def validate_config(config: ConfigDict) -> None:
    """Raise a UserError unless the config has all required keys of its method and
    network, no other keys, and no key of `data` that its data set does not read.
    """
    leaves = flatten_config(config)
    table = _allowed_keys(leaves)
    for name in leaves:
        find_key(table, name, leaves)
    for name, key in table.items():
        missing = key.default is REQUIRED and not name.startswith("hp.") and name not in leaves
        require(not missing, f"config.{name} is missing; {_describe_method(leaves)} needs it")
    check_hparams(leaves)
    reject_unread_data_keys(leaves)


def reject_unread_data_keys(leaves: Mapping[str, Any]) -> None:
    """Raise a UserError for a key of `data` that is set but not read by the data set.

    Args:
      leaves: {dotted key: value} of a config with all keys of `data`; other keys are
        ignored.
    """
    read = keys.DATA_KEYS[leaves["data.name"]]
    for key in keys.DATA:
        last = key.name.removeprefix("data.")
        unread = last not in ("name", "order", "seed", *read) and leaves[key.name] != key.default
        require(
            not unread,
            f"config.{key.name} = {short_repr(leaves[key.name])} is not read by "
            f"config.data.name = {leaves['data.name']!r}"
            + (f", which reads {', '.join(f'data.{k}' for k in read)}" if read else ""),
        )
    path, tokenizer = leaves["data.tokenizer_path"], leaves["data.tokenizer"]
    require(
        path == "" or tokenizer == "file",
        f"config.data.tokenizer_path = {short_repr(path)} is not read by "
        f"config.data.tokenizer = {tokenizer!r}, only by 'file'",
    )


def _describe_method(leaves: dict[str, Any]) -> str:
    """Return the method and the network of a config, for error messages."""
    network = f" with config.network = {leaves['network']!r}" if "network" in leaves else ""
    return f"config.method = {leaves['method']!r}{network}"


def _allowed_keys(leaves: dict[str, Any]) -> dict[str, Key]:
    """Return {name: key} of all keys that a config with these leaves may contain."""
    base = {key.name: key for key in keys.BASE}
    require(
        "method" in leaves,
        f"config.method is missing; it is one of {', '.join(base['method'].allowed)}",
    )
    method = convert_value(base["method"], leaves["method"])
    network = next((key for key in keys.METHODS[method] if key.name == "network"), None)
    if network is None:
        return keys.allowed_keys(method)
    require(
        "network" in leaves,
        f"config.network is missing; for config.method = {method!r} it is one of "
        f"{', '.join(network.allowed)}",
    )
    return keys.allowed_keys(method, convert_value(network, leaves["network"]))


def find_key(allowed: dict[str, Key], name: str, leaves: dict[str, Any]) -> Key:  # or UserError
    """Return the key of this name.

    Args:
      allowed: {name: key} of the keys that the config may contain.
      name: the name of the key.
      leaves: the leaves of the config, preferred as suggestions.

    Raises:
      UserError: no key has this name, and the message suggests the nearest name; or the
        name is that of a section.
    """
    if name in allowed:
        return allowed[name]
    subkeys = [k for k in allowed if k.startswith(name + ".")]
    require(not subkeys, f"config.{name} is a section; set one of its keys: {', '.join(subkeys)}")
    near = format_suggestion(name, [k for k in leaves if k in allowed]) or format_suggestion(
        name, allowed
    )
    raise UserError(
        f"config.{short_repr(name, quote_strings=False)}: no such key of "
        f"{_describe_method(leaves)}{near}"
    )


def flatten_config(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Return {"a.b": value} of every leaf, in the config's order."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            out |= flatten_config(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _nest_config(leaves: dict[str, Any]) -> ConfigDict:
    """Return the locked config of {"a.b": value}."""
    out: dict[str, Any] = dict(hp={}, model={})
    for name, value in leaves.items():
        *parents, last = name.split(".")
        functools.reduce(lambda inner, parent: inner.setdefault(parent, {}), parents, out)[last] = (
            value
        )
    return ConfigDict(out).lock()


def override(config: ConfigDict, overrides: dict[str, Any]) -> ConfigDict:  # a locked copy
    """Return a locked copy of a config with some keys replaced.

    Hyper-parameters that only the replaced choices read are removed, unless `overrides`
    sets them too. Combinations of values are not checked (`validate_config` does).

    Args:
      config: a complete config.
      overrides: {dotted key: value}. A string is parsed by the type of its key, as on
        the command line.

    Raises:
      UserError: an unknown key, a wrong type, or a value out of range.
    """
    leaves = flatten_config(config)
    first = {name: overrides[name] for name in ("method", "network") if name in overrides}
    table = _allowed_keys(leaves | first)  # method and network determine which keys exist
    changes = {
        name: convert_value(find_key(table, name, leaves), value)
        for name, value in overrides.items()
    }
    out = leaves | changes
    for name in {f"hp.{n}" for n in {*applicable_hparams(leaves)} - {*applicable_hparams(out)}} - {
        *changes
    }:
        out.pop(name, None)
    return _nest_config(out)


def duration_keys(config: ConfigDict) -> list[str]:  # names such as "steps"
    """Return the names of the config's durations."""
    known = flatten_config(config)
    return [
        name for name, key in _allowed_keys(known).items() if key.type == DURATION and name in known
    ]


def resolve_durations(config: ConfigDict, n_train: int, examples_per_step: int) -> ConfigDict:
    """Validate a config and return a locked copy with durations as integers in steps.

    Args:
      config: a complete config.
      n_train: training examples in the data set, which are one epoch.
      examples_per_step: training examples per step, at least 1.

    Raises:
      UserError: the config is invalid, or a duration is no integer number of steps or
        exceeds 2^31 - 1 steps.
    """
    validate_config(config)
    known = flatten_config(config)
    lengths = {
        name: duration_to_steps(known[name], f"config.{name}", n_train, examples_per_step)
        for name in duration_keys(config)
    }
    out = _nest_config(known | lengths)
    require(out.steps > 0, f"config.steps = {out.steps!r} must be at least 1 step")
    require(
        out.best_metric == "" or out.best_metric.startswith("valid/"),
        f"config.best_metric = {out.best_metric!r} must name a metric of the valid split, such as "
        "'valid/frechet_pixels'",
    )
    return out


def resolve_hparams(config: ConfigDict) -> dict[str, float]:  # names without "hp."
    """Return {name without "hp.": value} of every hyper-parameter that the config's
    choices read: the config's value or the default.
    """
    return {
        name: config.hp.get(name, DEFAULTS[name])
        for name in applicable_hparams(flatten_config(config))
    }


# -- identity


def to_json_dict(config: ConfigDict) -> dict[str, Any]:
    """Return a config as dicts, lists and scalars. Inverse of `from_json_dict`."""
    return json.loads(json.dumps(config.to_dict()))


def from_json_dict(values: dict[str, Any]) -> ConfigDict:
    """Return the locked config of the output of `to_json_dict`. Lists become tuples."""

    def tuples(value):
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return ConfigDict(tuples(values)).lock()


def identity_leaves(config: ConfigDict) -> dict[str, Any]:  # those other than the defaults
    """Return the identity of a run: {name: value} of every leaf, except `run.*`, that
    differs from the table's default. Runs with equal identities are the same run.

    Durations are in steps. In a config that is not resolved, durations whose resolution
    needs the data are in epochs or examples.
    """
    known = flatten_config(config)
    table = _allowed_keys(known)
    out = {}
    for name, value in known.items():
        key = table.get(name, Key(name, None))
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


def check_trials_per_program(config: ConfigDict, num_trials: int) -> None:
    """Raise a UserError if `num_trials` trials cannot be trained by one program."""
    require(
        config.run.data_placement == "device" or num_trials == 1 or config.data.order != "trial",
        f"config.run.data_placement = {config.run.data_placement!r} feeds the same batches to all "
        "trials of a group: config.data.order = 'trial' must be 'shared' or 'stream'",
    )


def hash_identity(config: ConfigDict) -> str:  # 12 hexadecimal digits
    """Return twelve hexadecimal digits of the hash of the identity and its version."""
    return json_sha256([keys.IDENTITY_VERSION, identity_leaves(config)])[:12]


def differing_leaves(old: dict, new: dict) -> dict[str, list]:  # {key: [old, new]}
    """Return {key: [old, new]} of the leaves that differ, in their order; None where a
    side lacks the key.
    """
    return {
        k: [old.get(k), new.get(k)] for k in dict.fromkeys((*old, *new)) if old.get(k) != new.get(k)
    }


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
            for name, key in _allowed_keys(flatten_config(config)).items()
            if key.default is not REQUIRED
        }
        sides.append(defaults | flatten_config(config))
    return {
        name: [side.get(name) for side in sides]
        for name in differing_leaves(identity_leaves(old), identity_leaves(new))
    }
