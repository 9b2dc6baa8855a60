"""Training of one group of a sweep as one program. The route is chosen once and stored
in a plan; successive halving stops the worst trials.

GROUP/plan.json, written before the first step:
  route, chunk       as in `core.transforms.vectorize`; results depend on them bitwise,
                     so a resumed group reads them from the plan
  members            the names of the trials
  devices            the number of devices that the trials are divided among
  seconds_a_step     of each route that was timed, for all trials together
  bytes              the memory that the program of the route vmap needs, and the
                     available memory
  halved             the earlier values of chunk, with which the group crashed
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax import methods
from aigc_jax.core.distributed import StopSignal
from aigc_jax.core.durations import duration_to_steps
from aigc_jax.data.dataset import Dataset
from aigc_jax.sweeps.engines.base import EXIT_LOCKED, EXIT_PREEMPTED
from aigc_jax.sweeps.route import build_planned_programs
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import ROUTES
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.resume import ParentRung
from aigc_jax.training.train import Options, load_and_resolve, open_trials, train
from aigc_jax.training.trial import Trial, select_trial
from aigc_jax.utils import documents
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import UserError, choose, require
from aigc_jax.utils.locks import try_lock
from aigc_jax.utils.terminal import print_warning


def train_group(
    group_dir: str | Path,
    route: str = "auto",
    halve_chunk: bool = False,
    download: bool = False,
    report: Callable[[str], None] = print_warning,
) -> int:  # exit code
    """Train a group of a sweep until it is finished or preempted.

    Args:
      group_dir: SWEEP/groups/NAME.
      route: "vmap", "map" or "auto", as in `choose_route`; a group with a plan.json
        follows its plan.
      halve_chunk: halve the plan's number of trials at once, after a crash.
      download: fetch missing data.
      report: called with messages about checkpoints.

    Returns:
      An exit code: 0 if the group is finished, EXIT_PREEMPTED if any trial was
      preempted, EXIT_LOCKED if another process trains the group.

    Raises:
      UserError: the group cannot be trained, such as for missing data.
    """
    choose(ROUTES, route, "route")
    group = Group(Path(group_dir))
    with convert_disk_errors(group.path), try_lock(group.path) as mine:
        if not mine:
            return EXIT_LOCKED
        if group.is_finished():
            return 0
        dataset, resolved = load_and_resolve(group.configs(), download)
        training = GroupTraining(group, resolved, dataset, route, halve_chunk, report)
        if group.stored.get("halving") is None:
            training.train_trials(group.path, training.everyone)
        else:
            training.train_rungs()
    return EXIT_PREEMPTED if training.has_preempted_trial(training.everyone) else 0


class GroupTraining:
    """The training of a group's trials, which successive halving reduces rung by rung.
    Trials are numbered by their positions in the group.

    Args:
      group: the group.
      resolved: the config of each trial, with durations in steps.
      dataset: the data set of all trials.
      route, halve_chunk, report: route, halve and report of `train_group`.
    """

    def __init__(
        self,
        group: Group,
        resolved: Sequence[ConfigDict],
        dataset: Dataset,
        route: str,
        halve_chunk: bool,
        report: Callable[[str], None],
    ) -> None:
        self.group, self.resolved, self.dataset = group, resolved, dataset
        self.route, self.halve_chunk, self.report = route, halve_chunk, report
        self.everyone = list(range(len(resolved)))
        self.sweep_hash = Sweep(group.path.parent.parent).read_hash()

    def train_trials(
        self,
        folder: Path,
        trial_indices: list[int],
        stop_step: int | None = None,
        parent_rung: ParentRung | None = None,
    ) -> None:
        """Train some trials as one program.

        Args:
          folder: the directory of its checkpoints and plan.
          trial_indices: the positions of the trials in the group.
          stop_step: the step at which to stop, of a rung; None: the last step.
          parent_rung: the previous rung, whose states the trials begin with; None: no
            rung.
        """
        folder.mkdir(exist_ok=True)
        pick = lambda values: [values[i] for i in trial_indices]
        origins = [
            dict(
                source=self.group.stored.get("source", ""),
                changes={key: [None, value] for key, value in member["overrides"].items()},
            )
            for member in self.group.stored["members"]
        ]
        dirs = [d.path for d in pick(self.group.dirs)]
        with (
            StopSignal() as stop,
            open_trials(pick(self.resolved), dirs, self.dataset, pick(origins)) as trials,
        ):
            programs = build_planned_programs(
                folder,
                pick(self.group.members),
                [trial.config for trial in trials],
                self.dataset,
                self.route,
                self.halve_chunk,
            )
            for trial in trials:
                trial.sweep = self.sweep_hash
            options = Options(stop_at=stop_step, parent=parent_rung, report=self.report)
            train(programs, trials, folder, stop, options)
            for trial in trials:
                if trial.failed:
                    reason = trial.dir.read_status().get("reason")
                    self.report(f"{trial.dir.path.name} diverged: {reason}")

    def train_rungs(self) -> None:
        """Train to each rung and continue with the best trials as a smaller program."""
        halving, first = self.group.stored["halving"], self.resolved[0]
        n_train, examples = self.dataset.spec.n_train, methods.examples_per_step(first)
        parent, trial_indices = None, self.everyone
        for number, rung in enumerate(halving["rungs"]):
            folder = self.group.path / f"rung_{number}"
            ended = documents.read(folder / "rung.json")
            if ended is None:
                stop_at = duration_to_steps(rung, "rung", n_train, examples)
                self.train_trials(folder, trial_indices, stop_at, parent)
                if not self.has_unfailed_trial(trial_indices) or self.has_preempted_trial(
                    trial_indices
                ):
                    return
                ended = self.rank_and_stop_trials(folder, trial_indices)
            for i in trial_indices:
                status = ended["stopped"].get(self.group.members[i])
                # A damaged STATUS.json is restored from rung.json.
                if status and not self.group.dirs[i].read_status():
                    self.group.dirs[i].write_json("STATUS.json", status)
            survivors = [i for i in trial_indices if self.group.members[i] in ended["kept"]]
            parent, trial_indices = (
                ParentRung(folder, [trial_indices.index(i) for i in survivors]),
                survivors,
            )
        self.train_trials(self.group.path, trial_indices, None, parent)

    def has_unfailed_trial(self, trial_indices: list[int]) -> bool:  # any
        """Return whether any of the trials has not failed."""
        statuses = self.group.statuses()
        return any(not statuses[i].startswith("failed") for i in trial_indices)

    def has_preempted_trial(self, trial_indices: list[int]) -> bool:
        """Return whether any of the trials was preempted."""
        statuses = self.group.statuses()
        return any(statuses[i] == "preempted" for i in trial_indices)

    def rank_and_stop_trials(self, folder: Path, trial_indices: list[int]) -> dict:  # rung.json
        """Rank the trials at a rung, and export and stop those that do not continue.
        Return the contents of rung.json.
        """
        group, halving = self.group, self.group.stored["halving"]
        newest = Checkpoints(folder / "checkpoints").read_newest_valid(print_warning)
        if newest is None:
            raise UserError(f"{folder} has no good checkpoint, and its rung is not ranked yet")
        state, best, meta = newest
        values = [self.read_ranking_value(i, meta["step"]) for i in trial_indices]
        sign = dict(min=1, max=-1)[halving["mode"]]
        # Values that are not finite rank last; ties are broken by name.
        scores = {
            i: (value is None, 0 if value is None else sign * value, group.members[i])
            for i, value in zip(trial_indices, values, strict=True)
        }
        ranked = sorted(trial_indices, key=scores.__getitem__)
        survivors = ranked[: max(1, -(-len(trial_indices) // halving["factor"]))]
        for place, i in enumerate(trial_indices):
            if i not in survivors and not scores[i][0]:
                trial = Trial(self.resolved[i], group.dirs[i], best=meta["best"][place])
                trial.export_checkpoint(
                    meta["step"], select_trial(state, place), select_trial(best, place)
                )
                rank = dict(rank=ranked.index(i) + 1, of=len(ranked), best=trial.best)
                group.dirs[i].write_status("stopped", meta["step"], **rank)
        stopped = {
            group.members[i]: group.dirs[i].read_status()
            for i in trial_indices
            if i not in survivors
        }
        ended = dict(step=meta["step"], kept=[group.members[i] for i in survivors], stopped=stopped)
        documents.write(folder / "rung.json", ended)
        return ended

    def read_ranking_value(self, trial_index: int, step: int) -> float | None:  # None: failed
        """Return the value by which a trial is ranked at a step; None if the trial
        failed or the value is not finite. Raise a UserError if its row lacks the
        metric.
        """
        metric = self.group.stored["halving"]["metric"]
        split, name = metric.split("/", 1)
        run = self.group.dirs[trial_index]
        if run.read_status().get("status", "").startswith("failed"):
            return None
        rows = [row for row in run.read_rows() if row["step"] == step and row["split"] == split]
        metrics = [k for k in (rows[-1] if rows else {}) if k not in ("step", "split")]
        require(
            name in metrics,
            f"halving: no row of step {step} has the metric {metric!r}; available: "
            + ", ".join(f"{split}/{k}" for k in metrics),
        )
        return rows[-1][name]
