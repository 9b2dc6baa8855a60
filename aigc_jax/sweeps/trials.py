"""Overrides of a config become trials; those that differ in `seed` and `hp`, groups."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.utils.errors import UserError, require

ROUTES = dict.fromkeys(("auto", "vmap", "map"))  # how a group may be asked to run
FINAL = ("done", "stopped", "failed: diverged")  # results, which are never computed again
ID = re.compile(r"[A-Za-z0-9.,=_+-]*[0-9a-f]{12}")  # of a trial: a slug and a hash, never a path


class Trial(NamedTuple):
    """One run of a sweep: an override of its base config."""

    id: str
    overrides: dict
    config: ConfigDict  # as in its file, durations unresolved


def trials_of(base: ConfigDict, overrides: Iterable[dict]) -> list[Trial]:
    """The trials of a sweep over a config; an unknown key, a wrong value or a trial
    that is there twice raises a UserError.
    """
    out = []
    for number, given in enumerate(overrides):
        if not isinstance(given, dict):
            raise UserError(
                f"trial {number} of the sweep is {given!r}: each must be a dict of "
                "overrides, such as {'hp.lr': 1e-3, 'seed': 0}"
            )
        config = configs.override(base, given)
        configs.check(config)
        name = f"{slug(given)}-{configs.hash_of(config)}".lstrip("-")
        out.append(Trial(name, {key: configs.leaves(config)[key] for key in given}, config))
    require(out, "the sweep has no trial")
    check_distinct(out)
    return out


def check_distinct(trials: list[Trial]) -> None:
    """A UserError where two trials are one run, or may be: how many steps an epoch has
    is not known before the data are.
    """
    # what is not a duration -> [(number, durations)]
    seen: dict[str, list[tuple[int, list[tuple[str, Any]]]]] = {}
    unit = lambda length: length.split()[-1] if isinstance(length, str) else "steps"
    for number, trial in enumerate(trials):
        rest = configs.identity(trial.config)
        lengths = [
            (name, rest.pop(name)) for name in configs.durations_of(trial.config) if name in rest
        ]
        others = seen.setdefault(json.dumps(rest, sort_keys=True), [])
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
                "which may be one run: give both in one unit",
            )
        others.append((number, lengths))


def slug(overrides: dict) -> str:
    """'lr=0.001,seed=3': for people to read."""
    text = ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in overrides.items())
    return re.sub(r"[^A-Za-z0-9.,=_+-]+", "_", text)[:60].strip("_")


def static(config: ConfigDict) -> str:
    """What the trials of one program share."""
    kept = {
        k: v for k, v in configs.identity(config).items() if k != "seed" and not k.startswith("hp.")
    }
    return json.dumps(kept, sort_keys=True)


def groups_of(trials: Iterable[Trial]) -> list[list[Trial]]:
    """The trials by what one program must share, in the order of their first."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(static(trial.config), []).append(trial)
    for members in groups.values():
        configs.check_together(members[0].config, len(members))
    return list(groups.values())


def check_id(name: object, path: Path) -> str:
    """Return a trial's id, the name of a directory; a UserError where it is none."""
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise UserError(
            f"{path} names a trial {name!r}, which is no id of a trial such as "
            "'lr=0.001,seed=3-0123456789ab'; the file was changed by something else"
        )
    return name
