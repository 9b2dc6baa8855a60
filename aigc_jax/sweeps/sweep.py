"""The directory of a sweep: its trials, their groups, statuses and rows."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from aigc_jax.core.config import (
    fill_defaults,
    flatten_config,
    from_json,
    hash_of,
    identity_difference,
    override,
    to_json,
)
from aigc_jax.sweeps.evidence import Results, differing_keys, to_cell
from aigc_jax.sweeps.trials import FINAL, Trial, check_distinct, check_id, groups_of
from aigc_jax.training.run_dir import RunDir, checkpoint_rows
from aigc_jax.utils import documents
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.locks import exclusive_lock, is_held


class Group:
    """The group in SWEEP/groups/<hash>, with the directories of its members."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        stored = RunDir(path).read_json("group.json")
        if stored is None:
            raise UserError(f"{path} is not a group of a sweep: group.json is missing")
        self.stored = stored
        self.members = [check_id(m["id"], path / "group.json") for m in self.stored["members"]]
        self.dirs = [RunDir(path.parent.parent / "trials" / name) for name in self.members]

    def configs(self) -> list:
        """Return the members' configs; keys that they lack get their defaults, such as
        keys that a later version added.
        """
        stored = [m["config"] for m in self.stored["members"]]
        first = fill_defaults(from_json(stored[0]))
        changes = [{"seed": c["seed"]} | {f"hp.{k}": v for k, v in c["hp"].items()} for c in stored]
        return [override(first, change) for change in changes]

    def statuses(self) -> list[str]:
        """Return the status of every member, in order."""
        return [d.known_status() for d in self.dirs]

    def finished(self) -> bool:
        """Return whether every member has a final status."""
        return all(status in FINAL for status in self.statuses())

    def held(self) -> bool:
        """Return whether another process holds the group's lock."""
        return is_held(self.path)

    def is_damaged(self) -> bool:
        """Return whether the config or the rows of any trial cannot be read."""
        try:
            for run in self.dirs:
                run.read_json("config.json")
                run.rows()
            self.check_rows()
            return False
        except UserError:
            return True

    def check_rows(self) -> None:
        """Raise a UserError where the rows of an unfinished trial, which has no
        checkpoint of its own, have changed since the newest checkpoint of the group.
        """
        while True:
            saved = self._saved_rows()
            try:
                unfinished = (run for run in self.dirs if run.known_status() not in FINAL)
                for run in unfinished:
                    run.check_rows(saved.get(run.path.name))
                return
            except UserError:
                if saved == self._saved_rows():
                    raise  # else a resuming group has cut the rows: read again

    def _saved_rows(self) -> dict[str, dict]:
        """Return {trial: length and SHA-256 of its rows} at the newest checkpoint of
        the group, or of the last rung in which the trial was trained.
        """
        out: dict[str, dict] = {}
        members = self.members
        for number, _ in enumerate((self.stored.get("halving") or {}).get("rungs", ())):
            folder = self.path / f"rung_{number}"
            out |= zip(members, checkpoint_rows(folder / "checkpoints"), strict=False)
            ended = documents.peek(folder / "rung.json")
            if not ended:
                return out
            members = [name for name in members if name in ended["kept"]]
        out |= zip(members, checkpoint_rows(self.path / "checkpoints"), strict=False)
        return out

    def clear(self) -> None:
        """Delete the checkpoints, plans and trial outputs, to train the group again."""
        for folder in (self.path, *self.path.glob("rung_*")):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            for name in ("plan.json", "rung.json"):
                (folder / name).unlink(missing_ok=True)
        for run in self.dirs:
            run.clear()

    def give_up(self, reason: str) -> None:
        """Mark unfinished members as crashed, whatever status their processes wrote."""
        for run, status in zip(self.dirs, self.statuses(), strict=True):
            if status not in (*FINAL, "failed: crashed"):
                run.path.mkdir(parents=True, exist_ok=True)
                run.status("failed: crashed", run.read_status().get("step", 0), reason=reason)


class Sweep:
    """A sweep's directory."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, trials: list[Trial], source: str, extra: dict | None = None) -> None:
        """Add trials to the sweep; trials that are in no group yet form new groups.

        A trial with the config of a stored trial is that trial, whatever its name.

        Args:
          trials: the trials.
          source: the file of the config or of the experiment.
          extra: further entries of group.json (halving).

        Raises:
          UserError: the directory contains trials of another config or of another
            halving. Raised before anything is written.
        """
        extra = extra or {}
        with disk_errors(self.path), exclusive_lock(self.path):
            groups = self.all_groups()
            self._check_halving(groups, extra.get("halving"))
            existing = [
                Trial(member["id"], member["overrides"], config)
                for group in groups
                for member, config in zip(group.stored["members"], group.configs(), strict=True)
            ]
            self._check_config(trials, existing)
            names = {hash_of(t.config): t.id for t in existing}
            new = [t for t in trials if hash_of(t.config) not in names]
            check_distinct([*existing, *new])
            (self.path / "groups").mkdir(parents=True, exist_ok=True)
            for members in groups_of(new):
                self._write_group(members, extra)
            names |= {hash_of(t.config): t.id for t in new}
            has_file = (self.path / "sweep.json").exists()
            known = {t["id"]: t for t in self.stored()["trials"]} if has_file else {}
            for trial in trials:
                name = names[hash_of(trial.config)]
                known.setdefault(name, dict(id=name, overrides=trial.overrides))
            best, mode = (
                (trials[0].config.best_metric, trials[0].config.best_mode)
                if trials
                else ("", "min")
            )
            document = dict(source=source, best=best, best_mode=mode, trials=list(known.values()))
            documents.write(self.path / "sweep.json", document)

    def _check_halving(self, groups: Sequence, halving: dict | None) -> None:
        """Raise a UserError if the groups have another halving: trials stopped by other
        rules are not comparable.
        """
        for group in groups:
            before = group.stored.get("halving")
            require(
                before == halving,
                f"{self.path} holds a sweep with halving = {before}, not "
                f"{halving}: use another work directory",
            )

    def _check_config(self, trials: Sequence[Trial], existing: Sequence) -> None:
        """Raise a UserError if configs differ in a key that neither trial overrides.

        existing: the stored trials. Trials of one source that override the same keys
        are equal in all other keys, so only one trial per set of keys is compared.
        """
        new = {frozenset(t.overrides): t for t in trials}
        old = {frozenset(t.overrides): t for t in existing}
        for keys, trial in new.items():
            for others, before in old.items():
                pairs = identity_difference(before.config, trial.config)
                different = {k: pair for k, pair in pairs.items() if k not in keys | others}
                lines = "; ".join(
                    f"config.{k} is {a!r} in the stored sweep and {b!r} in this sweep"
                    for k, (a, b) in sorted(different.items())
                )
                require(
                    not different,
                    f"{self.path} holds a sweep of another config: {lines}; use another "
                    "work directory, or vary the key in the grid",
                )

    def _write_group(self, members: list[Trial], extra: dict) -> None:
        text = "\n".join([*(m.id for m in members), json.dumps(extra or None)])
        folder = self.path / "groups" / hashlib.sha256(text.encode()).hexdigest()[:12]
        entries = [dict(id=m.id, overrides=m.overrides, config=to_json(m.config)) for m in members]
        folder.mkdir(exist_ok=True)
        document = dict(members=entries) | extra
        documents.write(folder / "group.json", document)

    def stored(self) -> dict:
        """Return the contents of sweep.json. Raise a UserError if the directory is not
        a sweep, or if an id could be a path.
        """
        document = documents.read(self.path / "sweep.json")
        if document is None:
            raise UserError(f"{self.path} is not a sweep directory: sweep.json is missing")
        for trial in document["trials"]:
            check_id(trial["id"], self.path / "sweep.json")
        return document

    def all_groups(self) -> list[Group]:
        """Return the groups on disk, sorted by name."""
        return [Group(p.parent) for p in sorted((self.path / "groups").glob("*/group.json"))]

    def groups(self) -> list[Group]:
        """Return the groups, in the order of their first trials."""
        order = {t["id"]: i for i, t in enumerate(self.stored()["trials"])}
        return sorted(
            self.all_groups(), key=lambda g: min(order.get(m, len(order)) for m in g.members)
        )

    def trial(self, name: str) -> RunDir:
        """Return the directory of a trial, which may not exist yet."""
        return RunDir(self.path / "trials" / name)

    def results(self) -> Results:
        """Return the rows of all trials, and all trials, also those without a row."""
        leaves = self._leaves()
        trials = [t["id"] for t in self.stored()["trials"]]
        for group in self.all_groups():
            group.check_rows()
        rows = {name: self.trial(name).rows() for name in trials}
        measured = {key for own in rows.values() for row in own for key in row}
        # A key and a metric may have the same name, such as "precision".
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

    def _status(self, name: str) -> dict:
        return dict(status=self.trial(name).known_status())

    def rows(self) -> list[dict]:
        """Return the rows of all trials, in the order of the trials: {trial, varied
        keys, seed, step, split, values}.
        """
        return self.results().rows

    def _leaves(self) -> dict[str, dict]:
        """Return {trial: {key: value}} of the config of every trial."""
        out: dict[str, dict] = {}
        for group in self.all_groups():
            stored = [from_json(m["config"]) for m in group.stored["members"]]
            full = flatten_config(fill_defaults(stored[0]))
            each = zip(group.members, stored, strict=True)
            out |= {name: full | flatten_config(config) for name, config in each}
        for trial in self.stored()["trials"]:
            require(
                trial["id"] in out,
                f"{self.path / 'sweep.json'} lists the trial {trial['id']}, which no "
                "group.json contains: the same sweep command creates its group again",
            )
        return out

    def varied(self, leaves: dict[str, dict] | None = None) -> list[str]:
        """Return the keys in which the trials' configs differ, except the seed and
        `run.*`; overridden keys come first, in the order of the overrides.
        """
        leaves = leaves or self._leaves()
        trials = self.stored()["trials"]
        overridden = [key for t in trials for key in t["overrides"]]
        keys = differing_keys([leaves[t["id"]] for t in trials], overridden)
        return [key for key in keys if key != "seed" and not key.startswith("run.")]
