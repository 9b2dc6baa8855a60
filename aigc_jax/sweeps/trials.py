"""Trials from overrides of a config, and groups of trials that differ only in `seed`
and `hp`.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aigc_jax.training import config as configs
from aigc_jax.training import config_identity
from aigc_jax.utils.errors import UserError, format_suggestion, join_names, require

ROUTES = dict.fromkeys(("auto", "vmap", "map"))  # requestable routes of a group
FINAL = ("done", "stopped", "failed: diverged")  # final statuses: never trained again
ID = re.compile(r"[A-Za-z0-9.,=_+-]*[0-9a-f]{12}")  # of a trial: a slug and a hash, never a path


class Trial(NamedTuple):
    """One run of a sweep: overrides of its base config."""

    id: str
    overrides: dict
    config: ConfigDict  # as in its file, durations unresolved


def make_trials(base: ConfigDict, overrides_per_trial: Iterable[dict]) -> list[Trial]:
    """Return the trials of a sweep over a config.

    Args:
      base: the config of all trials.
      overrides_per_trial: {config key: value} of each trial.

    Raises:
      UserError: an unknown key, an invalid value, no trial, or two equal trials.
    """
    out = []
    for number, changes in enumerate(overrides_per_trial):
        if not isinstance(changes, dict):
            raise UserError(
                f"trial {number} of the sweep is {changes!r}: each must be a dict of "
                "overrides, such as {'hp.lr': 1e-3, 'seed': 0}"
            )
        config = configs.override(base, changes)
        configs.validate_config(config)
        name = f"{make_trial_slug(changes)}-{config_identity.hash_identity(config)}".lstrip("-")
        out.append(
            Trial(name, {key: configs.flatten_config(config)[key] for key in changes}, config)
        )
    require(out, "the sweep has no trial")
    check_distinct_trials(out)
    return out


def check_distinct_trials(trials: list[Trial]) -> None:
    """Raise a UserError if two trials are the same run, or may be: the number of steps
    per epoch is unknown until the data are loaded.
    """
    # identity without durations -> [(number, durations)]
    by_identity: dict[str, list[tuple[int, list[tuple[str, Any]]]]] = {}
    unit = lambda length: length.split()[-1] if isinstance(length, str) else "steps"
    for number, trial in enumerate(trials):
        rest = config_identity.identity_leaves(trial.config)
        lengths = [
            (name, rest.pop(name)) for name in configs.duration_keys(trial.config) if name in rest
        ]
        others = by_identity.setdefault(json.dumps(rest, sort_keys=True), [])
        for other, theirs in others:
            both = f"trials {other} and {number} of the sweep"
            differ = [
                (name, a, b) for (name, a), (_, b) in zip(theirs, lengths, strict=True) if a != b
            ]
            require(differ, f"{both} are the same: {trials[other].overrides} and {trial.overrides}")
            name, a, b = differ[0]
            require(
                any(unit(a) == unit(b) for _, a, b in differ),
                f"{both} differ in config.{name} alone, {a!r} and {b!r}, "
                "which may be the same run: use one unit for both",
            )
        others.append((number, lengths))


def make_trial_slug(overrides: dict) -> str:  # "lr=0.001,seed=3"
    """Return a human-readable name of overrides: 'lr=0.001,seed=3'."""
    text = ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in overrides.items())
    return re.sub(r"[^A-Za-z0-9.,=_+-]+", "_", text)[:60].strip("_")


def static_config_json(config: ConfigDict) -> str:  # without seed and hp
    """Return the part of the config that the trials of one program share, as JSON."""
    static = {
        k: v
        for k, v in config_identity.identity_leaves(config).items()
        if k != "seed" and not k.startswith("hp.")
    }
    return json.dumps(static, sort_keys=True)


def group_trials(trials: Iterable[Trial]) -> list[list[Trial]]:  # of one static config each
    """Group trials by their static keys, in the order of the groups' first trials."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(static_config_json(trial.config), []).append(trial)
    for members in groups.values():
        configs.check_trials_per_program(members[0].config, len(members))
    return list(groups.values())


def check_trial_id(trial_id: object, source_path: Path) -> str:  # returns trial_id
    """Return a trial's id, a directory's name. Raise a UserError if it is invalid."""
    if not isinstance(trial_id, str) or not ID.fullmatch(trial_id):
        raise UserError(
            f"{source_path} names a trial {trial_id!r}, which is not a trial id such as "
            "'lr=0.001,seed=3-0123456789ab'; the file was changed by another program"
        )
    return trial_id


def find_full_key(name: str, trial_configs: Iterable[ConfigDict]) -> str:
    """Return the only key of the configs that is `name` or ends in `name`: "hp.lr" for
    "lr". Raise a UserError if no key or several keys match.
    """
    keys = list(
        dict.fromkeys(key for config in trial_configs for key in configs.flatten_config(config))
    )
    matches = [key for key in keys if key == name] or [k for k in keys if k.endswith(f".{name}")]
    hint = format_suggestion(name, [key.rsplit(".", 1)[-1] for key in keys])
    require(matches, f"no key of the sweep's configs ends in {name}{hint}")
    require(
        len(matches) == 1,
        f"{name} is ambiguous: use a dict with one of the keys {join_names(matches)}",
    )
    return matches[0]
