"""A sweep: overrides of one config become trials, trials that differ in `seed` and `hp` alone become groups, groups become jobs.

SWEEP/sweep.json             what was asked for: the source, the trials in their order, the keys that vary
SWEEP/trials/<slug>-<hash>/  a run each
SWEEP/groups/<hash>/         group.json (members), plan.json (how they are one program), the stacked checkpoint, log.txt
SWEEP/rows.csv, table.md, figure.png, figure.pdf    made from the trials' rows alone

Running a sweep again does what is missing and nothing else: a trial's name is the hash of its config's identity, and a group's members
stay together for ever. A directory belongs to one config: its trials differ in nothing but what one
of them overrides, so that every difference is a column of the table. Nothing here imports jax: the
work is done by processes of their own (`engines`, `group`).
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
from aigc_jax.evidence import Results, differing_keys, to_cell
from aigc_jax.locks import alone, is_held
from aigc_jax.results import RunDir, disk_errors

ROUTES = dict.fromkeys(("auto", "vmap", "map"))  # how a group may be asked to run
FINAL = ("done", "stopped", "failed: diverged")  # results, which are never computed again
ID = re.compile(r"[A-Za-z0-9.,=_+-]*[0-9a-f]{12}")  # of a trial: a slug and a hash, never a path


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


def check_id(name, path: Path) -> str:
    """The id of a trial that a file names, which becomes a directory's name, or a UserError."""
    require(
        isinstance(name, str) and ID.fullmatch(name),
        f"{path} names a trial {name!r}, which is no id of a trial such as "
        "'lr=0.001,seed=3-0123456789ab'; the file was changed by something else",
    )
    return name


class Group:
    """SWEEP/groups/<hash> and its members' directories."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        self.stored = RunDir(path).read_json("group.json")
        require(self.stored is not None, f"{path} is no group of a sweep: it has no group.json")
        self.members = [check_id(m["id"], path / "group.json") for m in self.stored["members"]]
        self.dirs = [RunDir(path.parent.parent / "trials" / name) for name in self.members]

    def configs(self) -> list:
        """The members' configs; a key that a later version added gets its default."""
        given = [m["config"] for m in self.stored["members"]]
        first = configs.complete(configs.from_json(given[0]))
        changes = [{"seed": c["seed"]} | {f"hp.{k}": v for k, v in c["hp"].items()} for c in given]
        return [configs.override(first, change) for change in changes]

    def statuses(self) -> list[str]:
        return [d.known_status() for d in self.dirs]

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
        """Record the trials. Those that are in no group yet form new ones; extra: what goes into
        group.json beside the members (halving).

        Raises a UserError, before anything is written, where the directory holds trials of another
        config or of another halving. A trial whose config is there already is that trial, whatever
        it is called.
        """
        extra = extra or {}
        with disk_errors(self.path), alone(self.path):
            groups = self.all_groups()
            self._check_halving(groups, extra.get("halving"))
            there = [
                Trial(member["id"], member["overrides"], config)
                for group in groups
                for member, config in zip(group.stored["members"], group.configs(), strict=True)
            ]
            self._check_config(trials, there)
            names = {configs.hash_of(t.config): t.id for t in there}
            new = [t for t in trials if configs.hash_of(t.config) not in names]
            check_distinct([*there, *new])
            (self.path / "groups").mkdir(parents=True, exist_ok=True)
            for members in groups_of(new):
                self._write_group(members, extra)
            names |= {configs.hash_of(t.config): t.id for t in new}
            is_there = (self.path / "sweep.json").exists()
            known = {t["id"]: t for t in self.stored()["trials"]} if is_there else {}
            for trial in trials:
                name = names[configs.hash_of(trial.config)]
                known.setdefault(name, dict(id=name, overrides=trial.overrides))
            best, mode = (trials[0].config.best, trials[0].config.best_mode) if trials else ("", "min")
            made = dict(source=source, best=best, best_mode=mode, trials=list(known.values()))
            stored.write(self.path / "sweep.json", made)

    def _check_halving(self, groups, halving):
        """Trials that were stopped by other rules would be compared with these."""
        for group in groups:
            before = group.stored.get("halving")
            require(
                before == halving,
                f"{self.path} holds a sweep with HALVING = {before}, not "
                f"{halving}: use another work directory",
            )

    def _check_config(self, trials, there):
        """The configs of all trials may differ in nothing but what one of them overrides.

        there: the trials of the directory. Trials of one source that override the same keys share
        all else, so one of each such kind is compared.
        """
        new = {frozenset(t.overrides): t for t in trials}
        old = {frozenset(t.overrides): t for t in there}
        for keys, trial in new.items():
            for others, before in old.items():
                pairs = configs.identity_difference(before.config, trial.config)
                different = {k: pair for k, pair in pairs.items() if k not in keys | others}
                lines = "; ".join(
                    f"config.{k} is {a!r} there and {b!r} here"
                    for k, (a, b) in sorted(different.items())
                )
                require(
                    not different,
                    f"{self.path} holds a sweep of another config: {lines}; use another "
                    "work directory, or vary the key in the grid",
                )

    def _write_group(self, members: list[Trial], extra: dict):
        text = "\n".join([*(m.id for m in members), json.dumps(extra or None)])
        folder = self.path / "groups" / hashlib.sha256(text.encode()).hexdigest()[:12]
        kept = [
            dict(id=m.id, overrides=m.overrides, config=configs.jsonable(m.config)) for m in members
        ]
        folder.mkdir(exist_ok=True)
        made = dict(members=kept) | extra
        stored.write(folder / "group.json", made)

    def stored(self) -> dict:
        found = stored.read(self.path / "sweep.json")
        require(found is not None, f"{self.path} is no sweep: it has no sweep.json")
        for trial in found["trials"]:
            check_id(trial["id"], self.path / "sweep.json")
        return found

    def all_groups(self) -> list[Group]:
        return [Group(p.parent) for p in sorted((self.path / "groups").glob("*/group.json"))]

    def groups(self) -> list[Group]:
        """The groups, in the order of their first trials."""
        order = {t["id"]: i for i, t in enumerate(self.stored()["trials"])}
        return sorted(self.all_groups(), key=lambda g: min(order.get(m, len(order)) for m in g.members))

    def trial(self, name) -> RunDir:
        return RunDir(self.path / "trials" / name)

    def results(self) -> Results:
        """All rows of all trials, and all trials with what they are, also those without a row."""
        leaves = self._leaves()
        trials = [t["id"] for t in self.stored()["trials"]]
        rows = {name: self.trial(name).rows() for name in trials}
        measured = {key for own in rows.values() for row in own for key in row}
        # A key may be called as a metric is: "precision" is both.
        keys = {f"config.{k}" if k in measured else k: k for k in self.varied(leaves)}
        known = {
            name: dict(
                trial=name,
                **{column: to_cell(leaves[name].get(key)) for column, key in keys.items()},
                seed=leaves[name]["seed"],
            )
            for name in trials
        }
        return Results(
            rows=[known[name] | row for name in trials for row in rows[name]],
            trials=[known[name] | self._status(name) for name in trials],
            varied=list(keys),
            best=self.stored()["best"],
        )

    def _status(self, name) -> dict:
        return dict(status=self.trial(name).known_status())

    def rows(self) -> list[dict]:
        """All rows of all trials, in the order of the trials: {trial, what varies, seed, step, split, values}."""
        return self.results().rows

    def _leaves(self) -> dict[str, dict]:
        """{trial: {key: value}} of the config of every trial."""
        out = {}
        for group in self.all_groups():
            given = [configs.from_json(m["config"]) for m in group.stored["members"]]
            full = configs.leaves(configs.complete(given[0]))
            each = zip(group.members, given, strict=True)
            out |= {name: full | configs.leaves(config) for name, config in each}
        for trial in self.stored()["trials"]:
            require(
                trial["id"] in out,
                f"{self.path / 'sweep.json'} has the trial {trial['id']}, which no "
                "group.json has: the same sweep command makes it again",
            )
        return out

    def varied(self, leaves=None) -> list[str]:
        """The keys that the trials' configs differ in, but for the seed and `run.*`; first those
        that the trials override, in that order."""
        leaves = leaves or self._leaves()
        trials = self.stored()["trials"]
        overridden = [key for t in trials for key in t["overrides"]]
        keys = differing_keys([leaves[t["id"]] for t in trials], overridden)
        return [key for key in keys if key != "seed" and not key.startswith("run.")]
