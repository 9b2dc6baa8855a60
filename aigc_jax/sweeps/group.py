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
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax import methods
from aigc_jax.core import config as configs
from aigc_jax.core.distributed import StopSignal
from aigc_jax.data.dataset import Dataset
from aigc_jax.sweeps.engines.base import EXIT_LOCKED, EXIT_PREEMPTED
from aigc_jax.sweeps.route import load_or_choose_route
from aigc_jax.sweeps.sweep import Group
from aigc_jax.sweeps.trials import ROUTES
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.resume import ParentRung
from aigc_jax.training.train import Options, open_trials, prepare, train
from aigc_jax.training.trial import Trial, select_trial
from aigc_jax.utils import documents
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import UserError, choose, require
from aigc_jax.utils.locks import try_lock
from aigc_jax.utils.terminal import print_warning


def train_group(
    path: str | Path,
    route: str = "auto",
    halve: bool = False,
    download: bool = False,
    report: Callable[[str], None] = print_warning,
) -> int:
    """Train a group of a sweep until it is finished or preempted; return an exit code,
    EXIT_LOCKED if another process trains the group.
    """
    choose(ROUTES, route, "route")
    group = Group(Path(path))
    with disk_errors(group.path), try_lock(group.path) as mine:
        if not mine:
            return EXIT_LOCKED
        if group.finished():
            return 0
        dataset, resolved = prepare(group.configs(), download)
        training = GroupTraining(group, resolved, dataset, route, halve, report)
        if group.stored.get("halving") is None:
            training.train(group.path, training.everyone)
        else:
            training.halve()
    return EXIT_PREEMPTED if training.is_preempted(training.everyone) else 0


class GroupTraining:
    """The training of a group's trials, which successive halving reduces rung by rung.
    Trials are numbered by their positions in the group.
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

    def train(
        self,
        folder: Path,
        chosen: list[int],
        stop_at: int | None = None,
        parent: ParentRung | None = None,
    ) -> None:
        """Train the chosen trials as one program with checkpoints in a folder."""
        folder.mkdir(exist_ok=True)
        pick = lambda values: [values[i] for i in chosen]
        changes = [
            {key: [None, value] for key, value in member["overrides"].items()}
            for member in self.group.stored["members"]
        ]
        dirs = [d.path for d in pick(self.group.dirs)]
        with (
            StopSignal() as stop,
            open_trials(pick(self.resolved), dirs, self.dataset, pick(changes)) as trials,
        ):
            programs = load_or_choose_route(
                folder,
                pick(self.group.members),
                [trial.config for trial in trials],
                self.dataset,
                self.route,
                self.halve_chunk,
            )
            options = Options(stop_at=stop_at, parent=parent, report=self.report)
            train(programs, trials, folder, stop, options)

    def halve(self) -> None:
        """Train to each rung and continue with the best trials as a smaller program."""
        halving, first = self.group.stored["halving"], self.resolved[0]
        n_train, examples = self.dataset.spec.n_train, methods.examples_per_step(first)
        parent, chosen = None, self.everyone
        for number, rung in enumerate(halving["rungs"]):
            folder = self.group.path / f"rung_{number}"
            ended = documents.read(folder / "rung.json")
            if ended is None:
                stop_at = configs.steps_of(rung, "rung", n_train, examples)
                self.train(folder, chosen, stop_at, parent)
                if not self.is_alive(chosen) or self.is_preempted(chosen):
                    return
                ended = self.end_rung(folder, chosen)
            for i in chosen:
                status = ended["stopped"].get(self.group.members[i])
                # A damaged STATUS.json is restored from rung.json.
                if status and not self.group.dirs[i].read_status():
                    self.group.dirs[i].write_json("STATUS.json", status)
            survivors = [i for i in chosen if self.group.members[i] in ended["kept"]]
            parent, chosen = ParentRung(folder, [chosen.index(i) for i in survivors]), survivors
        self.train(self.group.path, chosen, None, parent)

    def is_alive(self, chosen: list[int]) -> bool:
        """Return whether any of the trials has not failed."""
        statuses = self.group.statuses()
        return any(not statuses[i].startswith("failed") for i in chosen)

    def is_preempted(self, chosen: list[int]) -> bool:
        """Return whether any of the trials was preempted."""
        statuses = self.group.statuses()
        return any(statuses[i] == "preempted" for i in chosen)

    def end_rung(self, folder: Path, chosen: list[int]) -> dict:
        """Rank the trials at a rung, and export and stop those that do not continue.
        Return the contents of rung.json.
        """
        group, halving = self.group, self.group.stored["halving"]
        newest = Checkpoints(folder / "checkpoints").newest(print_warning)
        if newest is None:
            raise UserError(f"{folder} has no good checkpoint, and its rung is not ranked yet")
        state, best, meta = newest
        values = [self.rung_value(i, meta["step"]) for i in chosen]
        sign = dict(min=1, max=-1)[halving["mode"]]
        # Values that are not finite rank last; ties are broken by name.
        scores = {
            i: (value is None, 0 if value is None else sign * value, group.members[i])
            for i, value in zip(chosen, values, strict=True)
        }
        ranked = sorted(chosen, key=scores.__getitem__)
        survivors = ranked[: max(1, -(-len(chosen) // halving["factor"]))]
        for place, i in enumerate(chosen):
            if i not in survivors and not scores[i][0]:
                trial = Trial(self.resolved[i], group.dirs[i], best=meta["best"][place])
                trial.export(meta["step"], select_trial(state, place), select_trial(best, place))
                rank = dict(rank=ranked.index(i) + 1, of=len(ranked), best=trial.best)
                group.dirs[i].status("stopped", meta["step"], **rank)
        stopped = {
            group.members[i]: group.dirs[i].read_status() for i in chosen if i not in survivors
        }
        ended = dict(step=meta["step"], kept=[group.members[i] for i in survivors], stopped=stopped)
        documents.write(folder / "rung.json", ended)
        return ended

    def rung_value(self, i: int, step: int) -> float | None:
        """Return the value by which trial i is ranked at a step; None if it failed."""
        metric = self.group.stored["halving"]["metric"]
        split, name = metric.split("/")
        run = self.group.dirs[i]
        if run.read_status().get("status", "").startswith("failed"):
            return None
        rows = [row for row in run.rows() if row["step"] == step and row["split"] == split]
        metrics = [k for k in (rows[-1] if rows else {}) if k not in ("step", "split")]
        require(
            name in metrics,
            f"halving: no row of step {step} has the metric {metric!r}; available: "
            + ", ".join(f"{split}/{k}" for k in metrics),
        )
        return rows[-1][name]
