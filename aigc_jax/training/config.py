"""Configs: defaults, checks, overriding keys, resolving durations.

A config has three kinds of keys, all declared in the `schema` module of the package
that reads them:
  hp.*, seed   traced numbers: may differ between trials of one compiled program; part
               of a run's identity
  run.*        how a run is executed: may change between resumptions; not part of its
               identity
  the rest     static: shapes, names, counts; part of a run's identity

`training.config_files` loads configs, `training.config_identity` defines identities.
This module does not import jax.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.core.durations import duration_to_steps
from aigc_jax.core.schema import DURATION, REQUIRED, Key
from aigc_jax.core.values import convert_value
from aigc_jax.data import schema as data
from aigc_jax.methods.hparams import DEFAULTS
from aigc_jax.methods.schema import METHODS, READ_BY, applicable_hparams
from aigc_jax.models import schema as models
from aigc_jax.training.schema import BASE, allowed_keys
from aigc_jax.utils.errors import (
    UserError,
    format_key_suggestion,
    format_suggestion,
    require,
    short_repr,
)


def fill_defaults(config: ConfigDict, with_method_defaults: bool = True) -> ConfigDict:
    """Return a locked copy with the defaults of omitted keys. All keys and values are
    checked.

    Of `model`, only the keys that are set and the method's defaults are in the result;
    of `hp`, all that the config's choices read.

    Args:
      config: a config, in which keys may be missing.
      with_method_defaults: whether the defaults of the method are set. They are not
        for the stored config of a run, which was complete when the run was made.

    Raises:
      UserError: a key does not exist, is not read by the config's choices, or is
        missing; or a value is invalid.
    """
    leaves = flatten_config(config)
    table = find_allowed_keys(leaves)
    values = {
        name: convert_value(find_key(table, name, leaves), value) for name, value in leaves.items()
    }
    presets = list_method_defaults(values) if with_method_defaults else {}
    values = _add_hparams(presets | values, presets)
    defaults = {
        name: key.default
        for name, key in table.items()
        if key.default is not REQUIRED and not name.startswith(("model.", "hp."))
    }
    out = nest_config(
        {name: (defaults | values)[name] for name in table if name in defaults or name in values}
    )
    validate_config(out)
    return out


def list_method_defaults(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return {key: value} of the defaults of a config's method and network, without
    hyper-parameters that no key of `leaves` reads.

    Args:
      leaves: {key: value}, with at least the method, and the network of a method of
        several networks without default.
    """
    defaults = METHODS[leaves["method"]].defaults
    network = leaves.get("network", defaults.get("network", ""))
    out = defaults | models.DEFAULTS.get((leaves["method"], network), {})
    read = {f"hp.{name}" for name in applicable_hparams(out | dict(leaves))}
    return {name: v for name, v in out.items() if name in read or not name.startswith("hp.")}


def _add_hparams(values: dict[str, Any], presets: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with the defaults of the hyper-parameters that they read."""
    defaults = {
        f"hp.{name}": presets.get(f"hp.{name}", DEFAULTS[name])
        for name in applicable_hparams(values)
    }
    return {k: v for k, v in defaults.items() if v is not REQUIRED} | values


def validate_config(config: ConfigDict) -> None:
    """Raise a UserError unless the config has all required keys of its method and
    network, no other keys, and no key of `data` that its data set does not read.
    """
    leaves = flatten_config(config)
    table = find_allowed_keys(leaves)
    for name in leaves:
        find_key(table, name, leaves)
    for name, key in table.items():
        missing = key.default is REQUIRED and not name.startswith("hp.") and name not in leaves
        require(not missing, f"config.{name} is missing; {_describe_method(leaves)} needs it")
    check_hparams(leaves)
    reject_unread_data_keys(leaves)


def check_hparams(leaves: dict[str, Any]) -> None:  # required ones are set, no others
    """Raise a UserError unless the leaves contain every hyper-parameter without a
    default that their choices read, and no hyper-parameter that their choices do not
    read.
    """
    names = applicable_hparams(leaves)
    choice = f"config.method = {leaves['method']!r} with config.optimizer = {leaves['optimizer']!r}"
    for name in (key.removeprefix("hp.") for key in leaves if key.startswith("hp.")):
        if name not in names:
            raise UserError(
                f"config.hp.{name} is not read by {choice}, which reads {', '.join(names)}"
                + (describe_readers(name, leaves) or format_suggestion(name, names))
            )
    for name in names:
        has_value = f"hp.{name}" in leaves or DEFAULTS[name] is not REQUIRED
        require(has_value, f"config.hp.{name} is missing; {choice} reads {', '.join(names)}")


def describe_readers(name: str, leaves: dict[str, Any]) -> str:  # "; config.x = 'y' reads it" or ""
    """Return the values of the config's keys that read a hyper-parameter.

    Args:
      name: of the hyper-parameter, without "hp.".
      leaves: the leaves of the config; a key that it lacks has no value to suggest.
    """
    found = {
        key: [choice for choice, read in table.items() if name in read]
        for key, table in READ_BY.items()
        if key in leaves and key != "method"
    }
    readers = [f"config.{key} = {' or '.join(map(repr, c))}" for key, c in found.items() if c]
    return f"; {' or '.join(readers)} reads it" if readers else ""


def reject_unread_data_keys(leaves: Mapping[str, Any]) -> None:
    """Raise a UserError for a key of `data` that is set but not read by the data set.

    Args:
      leaves: {dotted key: value} of a config with all keys of `data`; other keys are
        ignored.
    """
    read = data.list_data_keys(leaves["data.name"])
    for key in data.DATA:
        last = key.name.removeprefix("data.")
        unread = last not in read and leaves[key.name] != key.default
        require(
            not unread,
            f"config.{key.name} = {short_repr(leaves[key.name])} is not read by "
            f"config.data.name = {leaves['data.name']!r}"
            + f", which reads {', '.join(f'data.{k}' for k in read)}",
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


def find_allowed_keys(leaves: Mapping[str, Any]) -> dict[str, Key]:
    """Return {name: key} of all keys that a config with these leaves may contain. Raise
    a UserError if the method, or the network of a method without default, is missing.
    """
    method_key = next(key for key in BASE if key.name == "method")
    require(
        "method" in leaves,
        f"config.method is missing; it is one of {', '.join(method_key.allowed)}",
    )
    method = convert_value(method_key, leaves["method"])
    keys, defaults = METHODS[method].keys, METHODS[method].defaults
    network = next((key for key in keys if key.name == "network"), None)
    if network is None:
        return allowed_keys(method)
    require(
        "network" in leaves or "network" in defaults,
        f"config.network is missing; for config.method = {method!r} it is one of "
        f"{', '.join(network.allowed)}",
    )
    return allowed_keys(
        method, convert_value(network, leaves.get("network", defaults.get("network")))
    )


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
    near = _describe_owners(name) + format_key_suggestion(name, allowed, leaves)
    raise UserError(
        f"config.{short_repr(name, quote_strings=False)}: no such key of "
        f"{_describe_method(leaves)}{near}"
    )


def list_all_keys() -> list[str]:
    """Return the names of the keys of all methods and networks."""
    tables = (allowed_keys(*base) for base in models.MODEL)
    return list(dict.fromkeys(name for table in tables for name in table))


def _describe_owners(name: str) -> str:  # "; only config.method = 'gan' has it" or ""
    """Return which methods have a key, for error messages of another method."""
    owners = {method: None for method, net in models.MODEL if name in allowed_keys(method, net)}
    return f"; only config.method = {' or '.join(map(repr, owners))} has it" if owners else ""


def flatten_config(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Return {"a.b": value} of every leaf, in the config's order."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            out |= flatten_config(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def nest_config(leaves: dict[str, Any]) -> ConfigDict:
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
    sets them too; those that only the new choices read get their defaults. Keys that a
    new method or network lacks are removed where they have their defaults. Combinations
    of values are not checked (`validate_config` does).

    Args:
      config: a complete config.
      overrides: {dotted key: value}. A string is parsed by the type of its key, as on
        the command line.

    Raises:
      UserError: an unknown key, a wrong type, or a value out of range.
    """
    leaves = flatten_config(config)
    first = {name: overrides[name] for name in ("method", "network") if name in overrides}
    table = find_allowed_keys(leaves | first)  # method and network determine which keys exist
    changes = {
        name: convert_value(find_key(table, name, leaves), value)
        for name, value in overrides.items()
    }
    out = leaves | changes
    unread = {*applicable_hparams(leaves)} - {*applicable_hparams(out)}
    for name in {f"hp.{name}" for name in unread} - {*changes}:
        out.pop(name, None)
    if first:
        defaults = {name: key.default for name, key in find_allowed_keys(leaves).items()}
        defaults |= list_method_defaults(leaves)
        for name in defaults.keys() & leaves.keys() - table.keys():
            if leaves[name] == defaults[name]:
                out.pop(name, None)
    presets = list_method_defaults(out)
    return nest_config(_add_hparams((presets if first else {}) | out, presets))


def duration_keys(config: ConfigDict) -> list[str]:  # names such as "steps"
    """Return the names of the config's durations."""
    known = flatten_config(config)
    return [
        name
        for name, key in find_allowed_keys(known).items()
        if key.type == DURATION and name in known
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
    out = nest_config(known | lengths)
    require(out.steps > 0, f"config.steps = {out.steps!r} must be at least 1 step")
    require(
        out.best_metric == "" or out.best_metric.startswith("valid/"),
        f"config.best_metric = {out.best_metric!r} must name a metric of the valid split, such as "
        "'valid/frechet_pixels'",
    )
    return out


def resolve_hparams(config: ConfigDict) -> dict[str, float]:  # names without "hp."
    """Return {name without "hp.": value} of every hyper-parameter that the choices of a
    complete config read.
    """
    return {name: config.hp[name] for name in applicable_hparams(flatten_config(config))}


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


def check_trials_per_program(config: ConfigDict, num_trials: int) -> None:
    """Raise a UserError if `num_trials` trials cannot be trained by one program."""
    require(
        config.run.data_placement == "device" or num_trials == 1 or config.data.order != "trial",
        f"config.run.data_placement = {config.run.data_placement!r} feeds the same batches to all "
        "trials of a group: config.data.order = 'trial' must be 'shared' or 'stream'",
    )


def differing_leaves(old: dict, new: dict) -> dict[str, list]:  # {key: [old, new]}
    """Return {key: [old, new]} of the leaves that differ, in their order; None where a
    side lacks the key.
    """
    return {
        k: [old.get(k), new.get(k)] for k in dict.fromkeys((*old, *new)) if old.get(k) != new.get(k)
    }
