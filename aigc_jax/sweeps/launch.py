"""Running the groups of a sweep: jobs for an engine, a second attempt for groups that
crashed, and the status of the sweep.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from aigc_jax.sweeps import plots
from aigc_jax.sweeps.engines.base import (
    EXIT_LOCKED,
    EXIT_PREEMPTED,
    EXIT_REFUSED,
    Engine,
    ExitStatus,
    Job,
)
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import FINAL, Trial, group_trials
from aigc_jax.training import config as configs
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.errors import mark_argument, require
from aigc_jax.utils.locks import try_lock
from aigc_jax.utils.quantities import format_count, format_duration, format_number, format_size
from aigc_jax.utils.subprocesses import interpreter_arguments
from aigc_jax.utils.terminal import StatusLine, print_table, print_text, print_warning
from aigc_jax.utils.text_table import Table

LOG_SECONDS = 5.0  # between status lines if the output is not a terminal


def make_group_job(group: Group, **flags: Any) -> Job:  # flags of the verb "group"
    """Return the job that trains a group. Its log is GROUP/log.txt.

    Args:
      group: the group.
      flags: flags of the verb `group`: route, halve, download.
    """
    return Job(
        group.name,
        interpreter_arguments("group", workdir=group.path.absolute(), **flags),
        group.path / "log.txt",
    )


def run_unfinished_groups(
    sweep: Sweep,
    engine: Engine,
    group_flags: dict | None = None,
    report: Callable[[str], None] = print_warning,
) -> bool | None:  # whether all groups are finished; None: the engine runs nothing
    """Run every unfinished group.

    A group that crashes is run once more, with half the chunk; a group that is refused
    (missing data, a wrong key) is not run again.

    Args:
      sweep: the sweep.
      engine: runs the jobs of the groups.
      group_flags: flags of the verb `group`, such as route.
      report: called with messages about groups that stopped, crashed or were refused.

    Returns:
      Whether all groups are finished; None if the engine runs nothing.
    """
    view = SweepStatus(sweep)
    try:
        return _run_groups(sweep, engine, group_flags or {}, report, view)
    except BaseException:
        view.status.end_line()
        raise


def _run_groups(
    sweep: Sweep, engine: Engine, group_flags: dict, report: Callable, view: "SweepStatus"
) -> bool | None:
    tried: set[str] = set()
    # The figures at the end need matplotlib: import it while the jobs run.
    threading.Thread(target=plots.preload_matplotlib, daemon=True).start()
    while True:
        groups = {g.name: g for g in sweep.groups() if not g.is_finished()}
        todo = [g for name, g in groups.items() if name not in tried and not g.is_locked()]
        if not groups or (not todo and all(name in tried for name in groups)):
            view.print_if_due(is_last=True)
            return not groups
        if not todo:  # other processes train the remaining groups
            view.print_if_due()
            time.sleep(1.0)
            continue
        ended = engine.run([make_group_job(g, **group_flags) for g in todo], view.print_if_due)
        if ended is None:
            return None
        if _report_stopped(ended, report):
            return False
        half = [
            make_group_job(groups[name], **group_flags, halve=True)
            for name in _crashed_groups(ended)
        ]
        _report_failed(ended, groups, report)
        again = (engine.run(half, view.print_if_due) if half else None) or {}
        if any(end.code == EXIT_PREEMPTED for end in again.values()):
            return False
        for name in _crashed_groups(again, include_refused=True):
            report(
                f"group {name} crashed again: {again[name].reason}; its log: "
                f"{groups[name].path / 'log.txt'}"
            )
            groups[name].mark_crashed(again[name].reason)
        tried |= {name for name, end in (ended | again).items() if end.code != EXIT_LOCKED}


def _crashed_groups(
    exit_statuses: dict[str, ExitStatus], include_refused: bool = False
) -> list[str]:  # their names
    """Return the names of the groups whose exit code is neither success, preemption,
    lock nor refusal; with `include_refused`, also those of refused groups.
    """
    well = {0, EXIT_LOCKED, EXIT_PREEMPTED} | (set() if include_refused else {EXIT_REFUSED})
    return [name for name, end in exit_statuses.items() if end.code not in well]


def _report_stopped(ended: dict[str, ExitStatus], report: Callable) -> bool:
    """Report the preempted groups; return whether any group was preempted."""
    stopped = {name: end for name, end in ended.items() if end.code == EXIT_PREEMPTED}
    for name, end in stopped.items():
        report(f"group {name} stopped: {end.reason}")
    return bool(stopped)


def _report_failed(
    ended: dict[str, ExitStatus], groups: dict[str, Group], report: Callable
) -> None:
    """Report the refused groups, mark their trials as failed, and report the crashed
    groups.
    """
    for name, end in ended.items():
        if end.code == EXIT_REFUSED:
            report(f"group {name} cannot be trained: {end.reason}")
            groups[name].mark_crashed(end.reason)
    for name in _crashed_groups(ended):
        report(f"group {name} crashed: {ended[name].reason}; retrying with half the chunk size")


def delete_unfinished_outputs(sweep: Sweep) -> None:  # and those of damaged groups
    """Delete the output of unfinished or damaged groups, so that they start again."""
    for group in sweep.groups_by_name():
        if group.is_finished() and not group.is_damaged():
            continue
        with try_lock(group.path) as mine:
            require(
                mine,
                f"another process is training in {group.path}: "
                f"stop that process before {mark_argument('restart')}",
            )
            group.delete_outputs()


class SweepStatus:
    """The status of a sweep: one updated line of a terminal or a notebook, or periodic
    lines of a log.
    """

    def __init__(self, sweep: Sweep, file: TextIO | None = None) -> None:
        self.sweep = sweep
        self.status = StatusLine(file, LOG_SECONDS, terminal_seconds=1.0)
        self.best, self.mode = (sweep.read_sweep_json()[key] for key in ("best", "best_mode"))
        # run directory -> (bytes of rows.jsonl that were read, best value so far)
        self.tails: dict[Path, tuple[int, float | None]] = {}

    def print_if_due(self, is_last: bool = False) -> None:
        """Print the line if it is due: every second on a terminal, every LOG_SECONDS
        in a log if it changed. `is_last` prints immediately and ends the line.
        """
        if self.status.is_due() or is_last:
            self.status.write_line(*self.format_line(), ends_line=is_last)

    def format_line(self) -> tuple[str, float]:
        """Return the counts by status, the best value so far and the remaining time, as
        a line; and the fraction of all steps that is done.
        """
        counts: dict[str, int] = {}
        left = steps_done = 0.0
        best: tuple[float, str] | None = None
        for group in self.sweep.groups():
            fraction, seconds = estimate_progress(group)
            left = max(left, seconds)
            for status in group.statuses():
                counts[status] = counts.get(status, 0) + 1
                steps_done += 1.0 if status in FINAL else fraction
            for run in group.dirs:
                value = self.read_best_value(run)
                if value is not None and (
                    best is None or (value < best[0]) == (self.mode == "min")
                ):
                    best = value, run.path.name
        parts = [f"{format_count(count)} {status}" for status, count in counts.items()]
        if best:
            name = best[1].rsplit("-", 1)[0] or best[1]
            parts.append(f"{self.best} {format_number(best[0])} ({name})")
        line = ", ".join(parts) + (f"; {format_duration(left)} left" if left else "")
        return line, steps_done / max(sum(counts.values()), 1)

    def read_best_value(self, run: RunDir) -> float | None:
        """Return the best value of config.best_metric in a trial's rows so far; reads
        only the rows that are new since the last call.
        """
        path, (done, best) = run / "rows.jsonl", self.tails.get(run.path, (0, None))
        try:
            size = path.stat().st_size
        except OSError:
            return best
        if size < done:
            done, best = 0, None
        if size > done and self.best:
            split, name = self.best.split("/")
            with open(path, "rb") as f:
                f.seek(done)
                text = f.read()
            complete = text[: text.rfind(b"\n") + 1]
            for line in complete.splitlines():
                value = _value_in(line, split, name)
                if value is not None and (best is None or (value < best) == (self.mode == "min")):
                    best = value
            self.tails[run.path] = (done + len(complete), best)
        return best


def _value_in(line: bytes, split: str, name: str) -> float | None:
    """Return a row's value of a metric; None without a value or for a malformed row,
    which raises an error where the complete file is read.
    """
    try:
        row = documents.parse_line(line, "rows.jsonl")
    except ValueError:
        return None
    return row.get(name) if row["split"] == split else None


def estimate_progress(group: Group) -> tuple[float, float]:  # fraction, seconds left
    """Return the fraction of a running group's steps that is done, and the estimated
    seconds until it ends, from its last timing; (0, 0) if unknown.
    """
    times = documents.read_lines(group.dirs[0] / "timings.jsonl", skip_invalid=True)
    stored = documents.peek(group.dirs[0] / "config.json")
    if (
        not times
        or not stored
        or "running" not in group.statuses()
        or times[-1]["steps_per_s"] <= 0
    ):
        return 0.0, 0.0
    step, steps = times[-1]["step"], stored["config"]["steps"]
    return min(step / steps, 1.0), max(steps - step, 0) / times[-1]["steps_per_s"]


def watch_sweep(sweep: Sweep) -> None:  # until it is finished
    """Show the status of a sweep until it is finished or the user interrupts."""
    view = SweepStatus(sweep)
    while not all(g.is_finished() for g in sweep.groups()):
        view.print_if_due()
        time.sleep(0.5)
    view.print_if_due(is_last=True)
    rows: list[tuple] = [(g.name, len(g.members), *count_outcomes(g)) for g in sweep.groups()]
    print_table(Table(("group", "trials", "done", "stopped", "failed", "route"), rows))


def count_outcomes(group: Group) -> tuple[int, int, int, str]:  # done, stopped, failed; route
    """Return the numbers of trials that are done, stopped and failed, and the route of
    the group's plan ("-" before it has one).
    """
    statuses, plan = group.statuses(), None
    for folder in (group.path, group.path / "rung_0"):
        plan = plan or documents.peek(folder / "plan.json")
    route = (
        "-"
        if plan is None
        else plan["route"] + (f", {plan['chunk']} at once" if plan["chunk"] else "")
    )
    count = lambda word: sum(status.startswith(word) for status in statuses)
    return count("done"), count("stopped"), count("failed"), route


def describe_groups(trials: list[Trial]) -> None:  # trains nothing
    """Print a sweep without running it: its trials, programs, steps, and the memory of
    each group's program.
    """
    groups = group_trials(trials)
    rows: list[tuple] = []
    for members in groups:
        differ = sorted({k for t in members for k in t.overrides})
        rows.append(
            (
                len(rows),
                len(members),
                ", ".join(differ),
                members[0].config.steps,
                _estimate(members),
            )
        )
    print_table(Table(("group", "trials", "keys", "steps", "memory"), rows))
    print_text(f"{format_count(len(trials), 'trial')}, {format_count(len(groups), 'program')}")


def _estimate(members: Sequence[Trial]) -> str:
    """Return the memory of the training program of all members at once, read from the
    compiled program.
    """
    from aigc_jax import data, methods
    from aigc_jax.sweeps.route import training_program_bytes
    from aigc_jax.training.memory import query_available_bytes
    from aigc_jax.training.programs import Programs

    first = members[0].config
    dataset = data.load(first.data, first.run.data_dir)
    config = configs.resolve_durations(
        first, dataset.spec.n_train, methods.examples_per_step(first)
    )
    programs = Programs(config, dataset, len(members))
    programs.start_compiling_training()
    needed, available = training_program_bytes(programs), query_available_bytes()
    return format_size(needed) + (f" of {format_size(available)}" if available else "")


def count_unfinished_trials(sweep: Sweep) -> int:
    """Return the number of trials without a final status."""
    return sum(status not in FINAL for g in sweep.groups() for status in g.statuses())
