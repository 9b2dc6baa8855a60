"""A sweep: overrides of one config become trials, trials that differ in `seed` and `hp` alone become groups, groups become jobs.

SWEEP/sweep.json             what was asked for: the source, the trials in their order, the keys that vary
SWEEP/trials/<slug>-<hash>/  a run each
SWEEP/groups/<hash>/         group.json (members), plan.json (how they are one program), the stacked checkpoint, log.txt
SWEEP/rows.csv, table.md, figure.png, figure.pdf    made from the trials' rows alone

Running a sweep again does what is missing and nothing else: a trial's name is the hash of its config's identity, and a group's members
stay together for ever. Nothing here imports jax: the work is done by processes of their own (`engines`, `group`).
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from aigc_jax import config as configs
from aigc_jax import stored
from aigc_jax.errors import UserError, require
from aigc_jax.locks import alone, is_held
from aigc_jax.results import RunDir, disk_errors

ROUTES = dict.fromkeys(("auto", "vmap", "map"))  # how a group may be asked to run
FINAL = ("done", "stopped", "failed: diverged")  # results, which are never computed again


class Trial(NamedTuple):
    id: str
    overrides: dict
    config: object  # as in its file, durations unresolved


def trials_of(base, overrides) -> list[Trial]:
    """The trials of a sweep over a config; an unknown key, a wrong value or a trial that is there twice raises a UserError."""
    out = []
    for number, given in enumerate(overrides):
        if not isinstance(given, dict):
            raise UserError(f"trial {number} of the sweep is {given!r}: each must be a dict of overrides, such as {{'hp.lr': 1e-3, 'seed': 0}}")
        config = configs.override(base, given)
        configs.check(config)
        name = f"{slug(given)}-{configs.hash_of(config)}".lstrip("-")
        out.append(Trial(name, {key: configs.leaves(config)[key] for key in given}, config))
    require(out, "the sweep has no trial")
    check_distinct(out)
    return out


def check_distinct(trials: list[Trial]):
    """A UserError where two trials are one run, or may be: how many steps an epoch has is not known before the data are."""
    seen = {}  # what is not a duration -> [(number, durations)]
    unit = lambda length: length.split()[-1] if isinstance(length, str) else "steps"
    for number, trial in enumerate(trials):
        rest = configs.identity(trial.config)
        lengths = [(name, rest.pop(name)) for name in configs.durations_of(trial.config) if name in rest]
        others = seen.setdefault(json.dumps(rest, sort_keys=True), [])
        for other, theirs in others:
            both = f"trials {other} and {number} of the sweep"
            differ = [(name, a, b) for (name, a), (_, b) in zip(theirs, lengths, strict=True) if a != b]
            require(differ, f"{both} are the same: {trials[other].overrides} and {trial.overrides}")
            name, a, b = differ[0]
            require(any(unit(a) == unit(b) for _, a, b in differ), f"{both} differ in config.{name} alone, {a!r} and {b!r}, "
                    "which may be one run: give both in one unit")
        others.append((number, lengths))


def slug(overrides: dict) -> str:
    """'lr=0.001,seed=3': for people to read."""
    text = ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in overrides.items())
    return re.sub(r"[^A-Za-z0-9.,=_+-]+", "_", text)[:60].strip("_")


def static(config) -> str:
    """What the trials of one program share."""
    kept = {k: v for k, v in configs.identity(config).items() if k != "seed" and not k.startswith("hp.")}
    return json.dumps(kept, sort_keys=True)


def groups_of(trials) -> list[list[Trial]]:
    """The trials by what one program must share, in the order of their first."""
    groups = {}
    for trial in trials:
        groups.setdefault(static(trial.config), []).append(trial)
    for members in groups.values():
        configs.check_together(members[0].config, len(members))
    return list(groups.values())


class Group:
    """SWEEP/groups/<hash> and its members' directories."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        self.stored = RunDir(path).read_json("group.json")
        require(self.stored is not None, f"{path} is no group of a sweep: it has no group.json")
        self.members = [m["id"] for m in self.stored["members"]]
        self.dirs = [RunDir(path.parent.parent / "trials" / name) for name in self.members]

    def statuses(self) -> list[str]:
        return [d.read_status().get("status", "waiting") for d in self.dirs]

    def finished(self) -> bool:
        return all(status in FINAL for status in self.statuses())

    def held(self) -> bool:
        """Is another process at work on it?"""
        return is_held(self.path)

    def is_damaged(self) -> bool:
        """Is there a trial whose config or rows cannot be used?"""
        try:
            for run in self.dirs:
                run.read_json("config.json")
                run.rows()
            return False
        except UserError:
            return True

    def clear(self):
        """Remove what its trials left, to train them again."""
        for folder in (self.path, *self.path.glob("rung_*")):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            for name in ("plan.json", "rung.json"):
                (folder / name).unlink(missing_ok=True)
        for run in self.dirs:
            run.clear()

    def give_up(self, reason: str):
        """Its unfinished members crashed, whatever their processes could still say."""
        for run, status in zip(self.dirs, self.statuses(), strict=True):
            if status not in (*FINAL, "failed: crashed"):
                run.path.mkdir(parents=True, exist_ok=True)
                run.status("failed: crashed", run.read_status().get("step", 0), reason=reason)


class Sweep:
    """A directory."""

    def __init__(self, path):
        self.path = Path(path)

    def add(self, trials: list[Trial], source: str, extra: dict | None = None):
        """Record the trials. Those that are in no group yet form new ones; extra: what goes into group.json beside the members (halving)."""
        with disk_errors(self.path), alone(self.path):
            (self.path / "groups").mkdir(parents=True, exist_ok=True)
            grouped = {member for group in self.all_groups() for member in group.members}
            for members in groups_of([t for t in trials if t.id not in grouped]):
                name = hashlib.sha256("\n".join([*(m.id for m in members), json.dumps(extra)]).encode()).hexdigest()[:12]
                kept = [dict(id=m.id, overrides=m.overrides, config=configs.jsonable(m.config)) for m in members]
                folder = self.path / "groups" / name
                folder.mkdir(exist_ok=True)
                stored.write(folder / "group.json", dict(members=kept) | (extra or {}))
            known = {t["id"]: t for t in self.stored()["trials"]} if (self.path / "sweep.json").exists() else {}
            known |= {t.id: dict(id=t.id, overrides=t.overrides) for t in trials}
            best, mode = (trials[0].config.best, trials[0].config.best_mode) if trials else ("", "min")
            stored.write(self.path / "sweep.json", dict(source=source, best=best, best_mode=mode, trials=list(known.values())))

    def stored(self) -> dict:
        found = stored.read(self.path / "sweep.json")
        require(found is not None, f"{self.path} is no sweep: it has no sweep.json")
        return found

    def all_groups(self) -> list[Group]:
        return [Group(p.parent) for p in sorted((self.path / "groups").glob("*/group.json"))]

    def groups(self) -> list[Group]:
        """The groups, in the order of their first trials."""
        order = {t["id"]: i for i, t in enumerate(self.stored()["trials"])}
        return sorted(self.all_groups(), key=lambda g: min(order.get(m, len(order)) for m in g.members))

    def trial(self, name) -> RunDir:
        return RunDir(self.path / "trials" / name)

    def rows(self) -> list[dict]:
        """All rows of all trials, in the order of the trials: {trial, what varies, seed, step, split, values}."""
        keys = {*self.varied(), "seed"}  # a number that all trials share would be taken for a metric
        return [dict(trial=t["id"], **{k: _cell(v) for k, v in t["overrides"].items() if k in keys}, **row)
                for t in self.stored()["trials"] for row in self.trial(t["id"]).rows()]  # fmt: skip

    def varied(self) -> list[str]:
        """The keys that the trials differ in, but for the seed."""
        trials = self.stored()["trials"]
        keys = dict.fromkeys(key for t in trials for key in t["overrides"])
        return [key for key in keys if key != "seed" and len({json.dumps(t["overrides"].get(key)) for t in trials}) > 1]


def _cell(value):
    """A value of a config as a cell of a table; JSON made lists of its tuples."""
    if isinstance(value, list):
        return str(tuple(tuple(v) if isinstance(v, list) else v for v in value))
    return value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else str(value)
