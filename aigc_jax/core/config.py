"""Configs: load a file, override its keys, resolve its durations, take its identity.

A config has three kinds of keys, all of them in the table of `keys`:
  hp.*, seed   traced numbers: trials of one compiled program may differ in them; part
               of a run's identity
  run.*        how a run is carried out; may change between resumptions, no part of its
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
from aigc_jax.core.durations import UNITS, parse_duration, steps_of
from aigc_jax.core.hparams import DEFAULTS, check_hparams, hparam_names
from aigc_jax.core.schema import DURATION, REQUIRED, Key
from aigc_jax.core.values import convert
from aigc_jax.utils.documents import digest
from aigc_jax.utils.errors import UserError, argument, brief, check_type, nearest, require
from aigc_jax.utils.python_files import find_file, import_file, user_code

RUN, DATA = keys.defaults_of("run"), keys.defaults_of("data")  # of a section by itself


def load(path: str | Path) -> ConfigDict:
    """The locked, complete config that `get_config()` of a Python file returns;
    `find_file` says which file is meant. A ConfigDict is completed.
    """
    if isinstance(path, ConfigDict):
        return complete(path)
    check_type("config", path, (str, Path), "a name, a path or a ConfigDict")
    path = find_file(path, "config")
    module = import_file(path, "config")
    require(
        hasattr(module, "get_config"), f"{argument('config')}={path} has no function get_config()"
    )
    with user_code(path, "config"):
        given = module.get_config()
    require(
        isinstance(given, ConfigDict),
        f"{argument('config')}={path}: get_config() returns {type(given).__name__}, no ConfigDict",
    )
    return complete(given)


def complete(config: ConfigDict) -> ConfigDict:
    """A locked copy with the defaults of the table for what the config leaves out, but
    for those of `model` and `hp`, whose keys are there only where they are set. Every
    key and value is checked.
    """
    given = leaves(config)
    table = _table_of(given)
    values = {name: convert(find_key(table, name, given), value) for name, value in given.items()}
    kept = {
        name: key.default
        for name, key in table.items()
        if key.default is not REQUIRED and not name.startswith(("model.", "hp."))
    }
    out = _nested({name: (kept | values)[name] for name in table if name in kept or name in values})
    check(out)
    return out


def check(config: ConfigDict) -> None:
    """A UserError unless the config has the required keys of its method and network and
    no others, and no key of `data` that its data set does not read.
    """
    known = leaves(config)
    table = _table_of(known)
    for name in known:
        find_key(table, name, known)
    for name, key in table.items():
        missing = key.default is REQUIRED and not name.startswith("hp.") and name not in known
        require(not missing, f"config.{name} is missing; {_kind(known)} needs it")
    check_hparams(known)
    check_data(known)


def check_data(known: Mapping) -> None:
    """A UserError for a key of `data` that is set and that the data set does not read.
    known: {"data.name": its name, ...} of all keys of `data`, and perhaps others.
    """
    read = keys.DATA_KEYS[known["data.name"]]
    for key in keys.DATA:
        last = key.name.removeprefix("data.")
        unread = last not in ("name", "order", "seed", *read) and known[key.name] != key.default
        require(
            not unread,
            f"config.{key.name} = {brief(known[key.name])} is read by nothing in "
            f"config.data.name = {known['data.name']!r}"
            + (f", which reads {', '.join(f'data.{k}' for k in read)}" if read else ""),
        )
    path, tokenizer = known["data.tokenizer_path"], known["data.tokenizer"]
    require(
        path == "" or tokenizer == "file",
        f"config.data.tokenizer_path = {brief(path)} is read by nothing "
        f"in config.data.tokenizer = {tokenizer!r}; it goes with 'file'",
    )


def _kind(given: dict) -> str:
    network = f" with config.network = {given['network']!r}" if "network" in given else ""
    return f"config.method = {given['method']!r}{network}"


def _table_of(given: dict) -> dict[str, Key]:
    """{name: key} of what a config of these leaves may hold."""
    base = {key.name: key for key in keys.BASE}
    require(
        "method" in given,
        f"config.method is missing; it is one of {', '.join(base['method'].allowed)}",
    )
    method = convert(base["method"], given["method"])
    network = next((key for key in keys.METHODS[method] if key.name == "network"), None)
    if network is None:
        return keys.keys_of(method)
    require(
        "network" in given,
        f"config.network is missing; for config.method = {method!r} it is one of "
        f"{', '.join(network.allowed)}",
    )
    return keys.keys_of(method, convert(network, given["network"]))


def find_key(table: dict[str, Key], name: str, given: dict) -> Key:
    """The key of this name; a UserError with the nearest one where there is none, or
    where the name is a section's.
    """
    if name in table:
        return table[name]
    inside = [k for k in table if k.startswith(name + ".")]
    require(not inside, f"config.{name} is a section; set one of its keys: {', '.join(inside)}")
    near = nearest(name, [k for k in given if k in table]) or nearest(name, table)
    raise UserError(f"config.{brief(name, quotes=False)}: no such key of {_kind(given)}{near}")


def leaves(config: ConfigDict, prefix: str = "") -> dict:
    """{"a.b": value} of every leaf, in the config's order."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            out |= leaves(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _nested(values: dict) -> ConfigDict:
    """A locked config of {"a.b": value}."""
    out: dict[str, Any] = dict(hp={}, model={})
    for name, value in values.items():
        *parents, last = name.split(".")
        functools.reduce(lambda inner, parent: inner.setdefault(parent, {}), parents, out)[last] = (
            value
        )
    return ConfigDict(out).lock()


def override(config: ConfigDict, overrides: dict) -> ConfigDict:
    """A locked copy with the given dotted keys replaced. A text is parsed by the type
    of its key, as on the command line; an unknown key, a wrong type or a value out of
    range raises a UserError. What fits together is seen by `check`. Hyper-parameters
    that the choices replaced read, and the new ones do not, go with them unless they
    are given too.
    """
    known = leaves(config)
    first = {name: overrides[name] for name in ("method", "network") if name in overrides}
    table = _table_of(known | first)  # the method and the network say which keys there are
    changed = {
        name: convert(find_key(table, name, known), value) for name, value in overrides.items()
    }
    out = known | changed
    for name in {f"hp.{n}" for n in {*hparam_names(known)} - {*hparam_names(out)}} - {*changed}:
        out.pop(name, None)
    return _nested(out)


def durations_of(config: ConfigDict) -> list[str]:
    """The names of the config's durations."""
    known = leaves(config)
    return [
        name for name, key in _table_of(known).items() if key.type == DURATION and name in known
    ]


def resolve(config: ConfigDict, n_train: int, examples: int) -> ConfigDict:
    """A locked copy whose durations are integers in steps, checked."""
    check(config)
    known = leaves(config)
    lengths = {
        name: steps_of(known[name], f"config.{name}", n_train, examples)
        for name in durations_of(config)
    }
    out = _nested(known | lengths)
    require(out.steps > 0, f"config.steps = {out.steps!r} is no step at all; it must be at least 1")
    require(
        out.best == "" or out.best.startswith("valid/"),
        f"config.best = {out.best!r} must name a metric of the valid split, such as "
        "'valid/frechet_pixels'",
    )
    return out


def hparam_values(config: ConfigDict) -> dict[str, float]:
    """{name without "hp.": value} of every hyper-parameter that the config's choices
    read, its own or the default.
    """
    return {name: config.hp.get(name, DEFAULTS[name]) for name in hparam_names(leaves(config))}


# -- identity


def jsonable(config: ConfigDict) -> dict:
    """Plain dicts, lists and scalars; `from_json` is its inverse."""
    return json.loads(json.dumps(config.to_dict()))


def from_json(plain: dict) -> ConfigDict:
    """Return the locked config that `jsonable` was given; lists become tuples."""

    def tuples(value):
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return ConfigDict(tuples(plain)).lock()


def identity(config: ConfigDict) -> dict:
    """What makes two runs the same run: {name: value} of every leaf but `run.*` that
    differs from the table's default. Durations are in steps; those of a config that is
    not resolved, where that needs the data, in epochs or examples.
    """
    known = leaves(config)
    table = _table_of(known)
    out = {}
    for name, value in known.items():
        key = table.get(name, Key(name, None))
        value = _normalized(key, value)
        if not name.startswith("run.") and (
            key.default is REQUIRED or value != _normalized(key, key.default)
        ):
            out[name] = value
    return out


def _normalized(key: Key, value):
    """One spelling of a value: 1 is 1.0 where the key is a float, '1e3' and '1_000
    steps' are 1000.
    """
    if key.type == DURATION:
        number, unit = parse_duration(value, key.name)
        return math.ceil(number - 1e-9) if UNITS[unit] else f"{number!r} {unit.removesuffix('s')}s"
    return float(value) if key.type is float else value


def check_together(config: ConfigDict, count: int) -> None:
    """A UserError where so many trials cannot be one program."""
    require(
        config.run.data == "device" or count == 1 or config.data.order != "trial",
        f"config.run.data = {config.run.data!r} gives all trials "
        "of a group the same batches: config.data.order = 'trial' must be 'shared' or 'stream'",
    )


def hash_of(config: ConfigDict) -> str:
    """Twelve hexadecimal digits of the identity and its version."""
    return digest([keys.IDENTITY_VERSION, identity(config)])[:12]


def difference(old: dict, new: dict) -> dict:
    """{key: [old, new]} of the leaves that differ, in their order; None where one side
    lacks the key.
    """
    return {
        k: [old.get(k), new.get(k)] for k in dict.fromkeys((*old, *new)) if old.get(k) != new.get(k)
    }


def identity_difference(old: ConfigDict, new: ConfigDict) -> dict:
    """{key: [old, new]} of what makes two configs other runs, with the defaults of what
    one leaves out.
    """
    shown = []
    for config in (old, new):
        defaults = {
            name: key.default
            for name, key in _table_of(leaves(config)).items()
            if key.default is not REQUIRED
        }
        shown.append(defaults | leaves(config))
    return {
        name: [side.get(name) for side in shown]
        for name in difference(identity(old), identity(new))
    }
