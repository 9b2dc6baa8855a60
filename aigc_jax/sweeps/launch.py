"""Running the groups of a sweep: jobs for an engine, and a second attempt for groups
that crashed.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from aigc_jax.sweeps import plots
from aigc_jax.sweeps.engines.base import (
    EXIT_LOCKED,
    EXIT_PREEMPTED,
    EXIT_REFUSED,
    Engine,
    ExitStatus,
    Job,
)
from aigc_jax.sweeps.status import SweepStatus
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import FINAL, Trial, group_trials
from aigc_jax.training import config as configs
from aigc_jax.utils.errors import mark_argument, require
from aigc_jax.utils.locks import try_lock
from aigc_jax.utils.quantities import format_count, format_size
from aigc_jax.utils.subprocesses import interpreter_arguments
from aigc_jax.utils.terminal import print_table, print_text, print_warning
from aigc_jax.utils.text_table import Table


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
    sweep: Sweep, engine: Engine, group_flags: dict, report: Callable, view: SweepStatus
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
