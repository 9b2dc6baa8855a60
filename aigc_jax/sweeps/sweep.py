"""The directory of a sweep: its trials, groups of them, and what became of each."""

import hashlib
import json
import shutil
from pathlib import Path

from aigc_jax.core.config import (
    complete,
    from_json,
    hash_of,
    identity_difference,
    jsonable,
    leaves,
    override,
)
from aigc_jax.sweeps.evidence import Results, differing_keys, to_cell
from aigc_jax.sweeps.trials import FINAL, Trial, check_distinct, check_id, groups_of
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.locks import alone, is_held


class Group:
    """SWEEP/groups/<hash> and its members' directories."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        stored = RunDir(path).read_json("group.json")
        if stored is None:
            raise UserError(f"{path} is no group of a sweep: it has no group.json")
        self.stored = stored
        self.members = [check_id(m["id"], path / "group.json") for m in self.stored["members"]]
        self.dirs = [RunDir(path.parent.parent / "trials" / name) for name in self.members]

    def configs(self) -> list:
        """The members' configs; a key that a later version added gets its default."""
        given = [m["config"] for m in self.stored["members"]]
        first = complete(from_json(given[0]))
        changes = [{"seed": c["seed"]} | {f"hp.{k}": v for k, v in c["hp"].items()} for c in given]
        return [override(first, change) for change in changes]

    def statuses(self) -> list[str]:
        """Return the status of every member, in their order."""
        return [d.known_status() for d in self.dirs]

    def finished(self) -> bool:
        """Return whether no member is left to train."""
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

    def clear(self) -> None:
        """Remove what its trials left, to train them again."""
        for folder in (self.path, *self.path.glob("rung_*")):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            for name in ("plan.json", "rung.json"):
                (folder / name).unlink(missing_ok=True)
        for run in self.dirs:
            run.clear()

    def give_up(self, reason: str) -> None:
        """Its unfinished members crashed, whatever their processes could still say."""
        for run, status in zip(self.dirs, self.statuses(), strict=True):
            if status not in (*FINAL, "failed: crashed"):
                run.path.mkdir(parents=True, exist_ok=True)
                run.status("failed: crashed", run.read_status().get("step", 0), reason=reason)


class Sweep:
    """A directory."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, trials: list[Trial], source: str, extra: dict | None = None) -> None:
        """Record the trials. Those that are in no group yet form new ones; extra: what
        goes into group.json beside the members (halving).

        Raises a UserError, before anything is written, where the directory holds trials
        of another config or of another halving. A trial whose config is there already
        is that trial, whatever it is called.
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
            names = {hash_of(t.config): t.id for t in there}
            new = [t for t in trials if hash_of(t.config) not in names]
            check_distinct([*there, *new])
            (self.path / "groups").mkdir(parents=True, exist_ok=True)
            for members in groups_of(new):
                self._write_group(members, extra)
            names |= {hash_of(t.config): t.id for t in new}
            is_there = (self.path / "sweep.json").exists()
            known = {t["id"]: t for t in self.stored()["trials"]} if is_there else {}
            for trial in trials:
                name = names[hash_of(trial.config)]
                known.setdefault(name, dict(id=name, overrides=trial.overrides))
            best, mode = (
                (trials[0].config.best, trials[0].config.best_mode) if trials else ("", "min")
            )
            made = dict(source=source, best=best, best_mode=mode, trials=list(known.values()))
            documents.write(self.path / "sweep.json", made)

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
        """The configs of all trials may differ in nothing but what one of them
        overrides.

        there: the trials of the directory. Trials of one source that override the same
        keys share all else, so one of each such kind is compared.
        """
        new = {frozenset(t.overrides): t for t in trials}
        old = {frozenset(t.overrides): t for t in there}
        for keys, trial in new.items():
            for others, before in old.items():
                pairs = identity_difference(before.config, trial.config)
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
        kept = [dict(id=m.id, overrides=m.overrides, config=jsonable(m.config)) for m in members]
        folder.mkdir(exist_ok=True)
        made = dict(members=kept) | extra
        documents.write(folder / "group.json", made)

    def stored(self) -> dict:
        """Return sweep.json; a UserError where this is no sweep, or where an id could
        be a path.
        """
        found = documents.read(self.path / "sweep.json")
        if found is None:
            raise UserError(f"{self.path} is no sweep: it has no sweep.json")
        for trial in found["trials"]:
            check_id(trial["id"], self.path / "sweep.json")
        return found

    def all_groups(self) -> list[Group]:
        """Return the groups on disk, by name."""
        return [Group(p.parent) for p in sorted((self.path / "groups").glob("*/group.json"))]

    def groups(self) -> list[Group]:
        """The groups, in the order of their first trials."""
        order = {t["id"]: i for i, t in enumerate(self.stored()["trials"])}
        return sorted(
            self.all_groups(), key=lambda g: min(order.get(m, len(order)) for m in g.members)
        )

    def trial(self, name: str) -> RunDir:
        """Return the directory of a trial, which may not exist yet."""
        return RunDir(self.path / "trials" / name)

    def results(self) -> Results:
        """All rows of all trials, and all trials, also those without a row."""
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
        """All rows of all trials, in the order of the trials: {trial, what varies,
        seed, step, split, values}.
        """
        return self.results().rows

    def _leaves(self) -> dict[str, dict]:
        """{trial: {key: value}} of the config of every trial."""
        out: dict[str, dict] = {}
        for group in self.all_groups():
            given = [from_json(m["config"]) for m in group.stored["members"]]
            full = leaves(complete(given[0]))
            each = zip(group.members, given, strict=True)
            out |= {name: full | leaves(config) for name, config in each}
        for trial in self.stored()["trials"]:
            require(
                trial["id"] in out,
                f"{self.path / 'sweep.json'} has the trial {trial['id']}, which no "
                "group.json has: the same sweep command makes it again",
            )
        return out

    def varied(self, leaves: dict[str, dict] | None = None) -> list[str]:
        """The keys that the trials' configs differ in, but for the seed and `run.*`;
        first those that the trials override, in that order.
        """
        leaves = leaves or self._leaves()
        trials = self.stored()["trials"]
        overridden = [key for t in trials for key in t["overrides"]]
        keys = differing_keys([leaves[t["id"]] for t in trials], overridden)
        return [key for key in keys if key != "seed" and not key.startswith("run.")]
