"""The directory of a sweep: its trials, their groups, statuses and rows."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax.sweeps.evidence import Results, list_varied_keys, to_csv_cell
from aigc_jax.sweeps.presentation import Presentation
from aigc_jax.sweeps.trials import FINAL, Trial, check_distinct_trials, check_trial_id, group_trials
from aigc_jax.training.config import (
    fill_defaults,
    flatten_config,
    from_json_dict,
    override,
    to_json_dict,
)
from aigc_jax.training.config_identity import differing_identity_leaves, hash_identity
from aigc_jax.training.run_dir import DAMAGED, INTERRUPTED, RESUMABLE, RunDir, read_row_digests
from aigc_jax.utils import documents
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.files import require_local_path, suggest_sibling
from aigc_jax.utils.locks import exclusive_lock, is_locked


class Group:
    """The group in SWEEP/groups/<hash>, with the directories of its members. Raise a
    UserError where group.json is missing.

    Attributes:
      members: the names of its trials.
      stored: the contents of group.json.
      dirs: the run directory of each member.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        stored = RunDir(path).read_json("group.json")
        if stored is None:
            raise UserError(f"{path} is not a group of a sweep: group.json is missing")
        self.stored = stored
        self.members = [
            check_trial_id(m["id"], path / "group.json") for m in self.stored["members"]
        ]
        self.dirs = [RunDir(path.parent.parent / "trials" / name) for name in self.members]

    def configs(self) -> list[ConfigDict]:  # of each member
        """Return the members' configs; keys that they lack get their defaults, such as
        keys that a later version added.
        """
        stored = [m["config"] for m in self.stored["members"]]
        first = fill_defaults(from_json_dict(stored[0]), with_method_defaults=False)
        changes = [{"seed": c["seed"]} | {f"hp.{k}": v for k, v in c["hp"].items()} for c in stored]
        return [override(first, change) for change in changes]

    def statuses(self) -> list[str]:  # of each member
        """Return the status of every member, in order. A member runs while the group is
        locked, perhaps by a process of another host.
        """
        found = [d.describe_status() for d in self.dirs]
        if INTERRUPTED in found and self.is_locked():
            return ["running" if status == INTERRUPTED else status for status in found]
        return found

    def is_finished(self) -> bool:
        """Return whether every member has a final status."""
        return all(status in FINAL for status in self.statuses())

    def is_locked(self) -> bool:  # by another process
        """Return whether another process holds the group's lock."""
        return is_locked(self.path)

    def is_damaged(self) -> bool:
        """Return whether the config or the rows of any trial cannot be read."""
        try:
            for run in self.dirs:
                run.read_json("config.json")
                run.read_rows()
            self.check_unfinished_rows()
            return False
        except UserError:
            return True

    def check_unfinished_rows(self) -> None:  # raises if changed since the checkpoint
        """Raise a UserError where the rows of an unfinished trial, which has no
        checkpoint of its own, have changed since the newest checkpoint of the group.
        """
        for error in self.find_changed_rows().values():
            raise error

    def find_changed_rows(self) -> dict[str, UserError]:  # {trial: error}
        """Return the errors of `check_unfinished_rows`."""
        while True:
            saved = self._rows_at_checkpoint()
            found = {run.path.name: _find_changed_rows(run, saved) for run in self.dirs}
            if not any(found.values()) or saved == self._rows_at_checkpoint():
                return {name: error for name, error in found.items() if error}
            # else a resuming group has cut the rows: read again

    def _rows_at_checkpoint(self) -> dict[str, dict]:
        """Return {trial: length and SHA-256 of its rows} at the newest checkpoint of
        the group, or of the last rung in which the trial was trained.
        """
        out: dict[str, dict] = {}
        members = self.members
        for number, _ in enumerate((self.stored.get("halving") or {}).get("rungs", ())):
            folder = self.path / f"rung_{number}"
            out |= zip(members, read_row_digests(folder / "checkpoints"), strict=False)
            ended = documents.peek(folder / "rung.json")
            if not ended:
                return out
            members = [name for name in members if name in ended["kept"]]
        out |= zip(members, read_row_digests(self.path / "checkpoints"), strict=False)
        return out

    def delete_outputs(self) -> None:  # and checkpoints and plans
        """Delete the checkpoints, plans and trial outputs, to train the group again."""
        for folder in (self.path, *self.path.glob("rung_*")):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            for name in ("plan.json", "rung.json"):
                (folder / name).unlink(missing_ok=True)
        for run in self.dirs:
            run.clear()

    def mark_crashed(self, reason: str) -> None:  # the unfinished members
        """Mark unfinished members as crashed, whatever status their processes wrote."""
        for run, status in zip(self.dirs, self.statuses(), strict=True):
            if status not in (*FINAL, "failed: crashed"):
                run.path.mkdir(parents=True, exist_ok=True)
                run.write_status("failed: crashed", run.read_status().get("step", 0), reason=reason)


def _find_changed_rows(run: RunDir, saved: dict[str, dict]) -> UserError | None:
    """Return the error of an unfinished trial whose rows differ from those `saved`."""
    try:
        if run.describe_status() not in FINAL:
            run.verify_rows(saved.get(run.path.name))
    except UserError as e:
        return e
    return None


class Sweep:
    """A sweep's directory."""

    def __init__(self, path: str | Path) -> None:
        require_local_path(path)
        self.path = Path(path)

    def add_trials(
        self, trials: list[Trial], source: str, group_entries: dict | None = None
    ) -> None:  # in new groups
        """Add trials to the sweep; trials that are in no group yet form new groups.

        A trial with the config of a stored trial is that trial, whatever its name.

        Args:
          trials: the trials.
          source: the file of the config or of the experiment.
          group_entries: further entries of group.json (halving).

        Raises:
          UserError: the directory contains trials of another config or of another
            halving. Raised before anything is written.
        """
        group_entries = group_entries or {}
        with convert_disk_errors(self.path), exclusive_lock(self.path):
            groups = self.groups_by_name()
            self._check_halving(groups, group_entries.get("halving"))
            existing = [
                Trial(member["id"], member["overrides"], config)
                for group in groups
                for member, config in zip(group.stored["members"], group.configs(), strict=True)
            ]
            self._check_same_config(trials, existing)
            names = {hash_identity(t.config): t.id for t in existing}
            new = [t for t in trials if hash_identity(t.config) not in names]
            check_distinct_trials([*existing, *new])
            (self.path / "groups").mkdir(parents=True, exist_ok=True)
            for members in group_trials(new):
                self._write_group(members, source, group_entries)
            names |= {hash_identity(t.config): t.id for t in new}
            has_file = (self.path / "sweep.json").exists()
            before = self.read_sweep_json() if has_file else {"trials": []}
            known = {t["id"]: t for t in before["trials"]}
            for trial in trials:
                name = names[hash_identity(trial.config)]
                known.setdefault(name, dict(id=name, overrides=trial.overrides))
            best, mode = (
                (trials[0].config.best_metric, trials[0].config.best_mode)
                if trials
                else ("", "min")
            )
            document = dict(source=source, best=best, best_mode=mode, trials=list(known.values()))
            if "view" in before:
                document["view"] = before["view"]
            # Of the first trials: later ones do not make it another sweep.
            document["hash"] = before.get("hash") or documents.json_sha256([*known])[:12]
            documents.write(self.path / "sweep.json", document)

    def _check_halving(self, groups: Sequence[Group], halving: dict | None) -> None:
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

    def _check_same_config(
        self, new_trials: Sequence[Trial], stored_trials: Sequence[Trial]
    ) -> None:
        """Raise a UserError if configs differ in a key that neither trial overrides.

        Trials of one source that override the same keys are equal in all other keys, so
        only one trial per set of keys is compared.
        """
        new = {frozenset(t.overrides): t for t in new_trials}
        old = {frozenset(t.overrides): t for t in stored_trials}
        for keys, trial in new.items():
            for others, before in old.items():
                pairs = differing_identity_leaves(before.config, trial.config)
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

    def _write_group(self, members: list[Trial], source: str, group_entries: dict) -> None:
        """Write the group.json of new trials, in a directory named by a hash of their
        names and of the halving.
        """
        text = "\n".join([*(m.id for m in members), json.dumps(group_entries or None)])
        folder = self.path / "groups" / hashlib.sha256(text.encode()).hexdigest()[:12]
        entries = [
            dict(id=m.id, overrides=m.overrides, config=to_json_dict(m.config)) for m in members
        ]
        folder.mkdir(exist_ok=True)
        document = dict(source=source, members=entries) | group_entries
        documents.write(folder / "group.json", document)

    def read_sweep_json(self) -> dict:
        """Return the contents of sweep.json. Raise a UserError if the directory is not
        a sweep, or if an id could be a path.
        """
        document = documents.read(self.path / "sweep.json")
        if document is None:
            what = (
                "is a run, not a sweep" if (self.path / "config.json").exists() else "is no sweep"
            )
            near = "" if self.path.exists() else suggest_sibling(self.path)
            raise UserError(f"{self.path} {what}: sweep.json is missing{near}")
        for trial in document["trials"]:
            check_trial_id(trial["id"], self.path / "sweep.json")
        return document

    def groups_by_name(self) -> list[Group]:  # sorted
        """Return the groups on disk, sorted by name."""
        return [Group(p.parent) for p in sorted((self.path / "groups").glob("*/group.json"))]

    def groups(self) -> list[Group]:  # in the order of their first trials
        """Return the groups, in the order of their first trials."""
        order = {t["id"]: i for i, t in enumerate(self.read_sweep_json()["trials"])}
        return sorted(
            self.groups_by_name(), key=lambda g: min(order.get(m, len(order)) for m in g.members)
        )

    def read_hash(self) -> str:  # "": without a readable sweep.json
        """Return the hash that identifies the sweep, whatever its directory."""
        return (documents.peek(self.path / "sweep.json") or {}).get("hash", "")

    def trial_dir(self, trial_id: str) -> RunDir:  # may not exist
        """Return the directory of a trial, which may not exist yet."""
        return RunDir(self.path / "trials" / trial_id)

    def read_results(self) -> Results:  # also trials without rows
        """Return the rows of all trials, and all trials, also those without a row."""
        flat_configs = self.read_flat_configs()
        trials = [t["id"] for t in self.read_sweep_json()["trials"]]
        groups = self.groups_by_name()
        rows, damage = self._read_rows(groups, trials)
        statuses = {n: s for g in groups for n, s in zip(g.members, g.statuses(), strict=True)}
        measured = {key for own in rows.values() for row in own for key in row}
        # A key and a metric may have the same name, such as "precision".
        keys = {f"config.{k}" if k in measured else k: k for k in self.varied_keys(flat_configs)}
        known = {
            name: dict(
                trial=name,
                **{
                    column: to_csv_cell(flat_configs[name].get(key)) for column, key in keys.items()
                },
                seed=flat_configs[name]["seed"],
            )
            for name in trials
        }
        return Results(
            rows=[known[name] | row for name in trials for row in rows[name]],
            trials=[
                known[name]
                | (
                    dict(status=DAMAGED, failure=damage[name])
                    if name in damage
                    else self._status(name, statuses[name], rows[name])
                )
                for name in trials
            ],
            varied=list(keys),
            best=self.read_sweep_json()["best"],
            mode=self.read_sweep_json()["best_mode"],
        )

    def _read_rows(
        self, groups: Sequence[Group], trials: Sequence[str]
    ) -> tuple[dict[str, list[dict]], dict[str, str]]:  # {trial: rows}, {trial: damage}
        """Return the rows of all trials, none of a damaged one, and what is damaged."""
        errors = {name: e for group in groups for name, e in group.find_changed_rows().items()}
        rows: dict[str, list[dict]] = {}
        for name in trials:
            rows[name] = []
            try:
                self.trial_dir(name).read_json("config.json")
                if name not in errors:
                    rows[name] = self.trial_dir(name).read_rows()
            except UserError as e:
                errors[name] = e
        return rows, {name: str(e) for name, e in errors.items()}

    def _status(self, name: str, status: str, rows: list[dict]) -> dict:
        """Return the `status` column of a trial, and `failure`: "d_loss at step 12" of
        a diverged trial, "at step 8 of 16" of an interrupted one.
        """
        if status in RESUMABLE:
            return dict(status=status, failure=self.trial_dir(name).describe_step(rows))
        stored = self.trial_dir(name).read_status()
        if "metric" not in stored:
            return dict(status=status)
        return dict(status=status, failure=f"{stored['metric']} at step {stored['step']:,}")

    def rows(self) -> list[dict]:  # {trial, varied keys, seed, step, split, values}
        """Return the rows of all trials, in the order of the trials: {trial, varied
        keys, seed, step, split, values}.
        """
        return self.read_results().rows

    def read_flat_configs(self) -> dict[str, dict]:  # {trial: {key: value}}
        """Return {trial: {key: value}} of the config of every trial."""
        out: dict[str, dict] = {}
        for group in self.groups_by_name():
            stored = [from_json_dict(m["config"]) for m in group.stored["members"]]
            full = flatten_config(fill_defaults(stored[0]))
            each = zip(group.members, stored, strict=True)
            out |= {name: full | flatten_config(config) for name, config in each}
        for trial in self.read_sweep_json()["trials"]:
            require(
                trial["id"] in out,
                f"{self.path / 'sweep.json'} lists the trial {trial['id']}, which no "
                "group.json contains: the same sweep command creates its group again",
            )
        return out

    def varied_keys(
        self, flat_configs: dict[str, dict] | None = None
    ) -> list[str]:  # except seed and run.*
        """Return the keys in which the trials' configs differ, except the seed and
        `run.*`; overridden keys come first, in the order of the overrides.

        Args:
          flat_configs: {trial: {key: value}} of all configs; None: read from the
            groups.
        """
        flat_configs = flat_configs or self.read_flat_configs()
        trials = self.read_sweep_json()["trials"]
        overridden = [key for t in trials for key in t["overrides"]]
        return list_varied_keys([flat_configs[t["id"]] for t in trials], overridden)

    def read_view(self) -> Presentation | None:
        """Return how table.md shows the sweep; None before it is written."""
        stored = self.read_sweep_json().get("view")
        return Presentation(**stored) if stored else None

    def store_view(self, view: Presentation) -> None:
        """Store how table.md shows the sweep, while its lock is held."""
        document = self.read_sweep_json()
        if document.get("view") != view._asdict():
            documents.write(self.path / "sweep.json", document | dict(view=view._asdict()))
