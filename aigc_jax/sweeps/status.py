"""The status of a sweep, from the files of its trials: a line with bars while it runs,
a table of its groups, and the reasons of failures.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from aigc_jax.sweeps.launcher_lock import has_launcher_ended
from aigc_jax.sweeps.presentation import format_value
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import FINAL
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.errors import PROGRAM
from aigc_jax.utils.quantities import format_count, format_duration, format_number
from aigc_jax.utils.terminal import Bar, StatusLine, print_blocks
from aigc_jax.utils.text_table import Table

LOG_SECONDS = 5.0  # between status lines if the output is not a terminal
WATCH_SECONDS = 1.0  # between readings of the files
MOST_BARS = 8  # groups with a bar of their own
MOST_WATCHED = 12  # rows of a table that is redrawn on a terminal
# Columns of the table; those without a trial are left out. A status such as
# "failed: diverged" counts by its first word.
STATUSES = ("waiting", "running", "interrupted", "preempted", "done", "stopped", "failed")
UNREADABLE = "unreadable"
UNCHECKED = f"rows are not checked: {PROGRAM} report SWEEP"
STOPPED = "stopped: no process trains this sweep; the same sweep command resumes it"


class GroupStatus(NamedTuple):
    """The status of a group."""

    group: Group
    statuses: list[str]  # of each member
    step: int  # of the trials that are not finished
    steps: int | None  # of a complete trial; None: not known yet
    steps_per_second: float | None  # of all its trials together; None: not running

    @property
    def progress(self) -> float:  # from 0 to 1
        """The part of the steps of an unfinished trial that is done."""
        return min(self.step / self.steps, 1.0) if self.steps else 0.0

    @property
    def fraction(self) -> float:  # from 0 to 1
        """The part of the steps of all trials that is done."""
        finished = sum(status in FINAL for status in self.statuses)
        left = len(self.statuses) - finished
        return (finished + left * self.progress) / max(len(self.statuses), 1)

    @property
    def seconds_left(self) -> float | None:
        """The estimated seconds until it ends; None: not running."""
        if not self.steps or not self.steps_per_second:
            return None
        return max(self.steps - self.step, 0) / self.steps_per_second

    @property
    def label(self) -> str:  # "" where the groups of the sweep differ in no key
        """The overrides that its trials share, except `seed` and `hp.*`."""
        overrides = self.group.stored["members"][0]["overrides"]
        return ", ".join(
            f"{key}={format_value(value)}"
            for key, value in overrides.items()
            if key != "seed" and not key.startswith("hp.")
        )

    def count(self, word: str) -> int:
        """Return the number of trials by a word of STATUSES, or UNREADABLE."""
        words = [status.split(":")[0] for status in self.statuses]
        if word == UNREADABLE:
            return sum(found not in STATUSES for found in words)
        return words.count(word)

    def format_bar(self) -> Bar:
        """Return name, step, speed and remaining time of a running group."""
        name = self.label or f"group {self.group.name}"
        parts = [name, format_count(len(self.statuses), "trial")]
        if self.steps:
            parts.append(f"step {format_count(self.step)}/{format_count(self.steps)}")
        if self.steps_per_second is not None:
            parts.append(f"{format_number(self.steps_per_second)} steps/s")
        if self.seconds_left is not None:
            parts.append(f"{format_duration(self.seconds_left)} left")
        return Bar("  ".join(parts), self.fraction)


def read_group_status(group: Group) -> GroupStatus:
    """Return the status of a group, with the step and speed of the last timing of an
    unfinished trial.
    """
    statuses = group.statuses()
    unfinished = (d for d, s in zip(group.dirs, statuses, strict=True) if s not in FINAL)
    run = next(unfinished, group.dirs[0])
    times = documents.read_lines(run / "timings.jsonl", skip_invalid=True)
    stored = documents.peek(run / "config.json")
    if not times or not stored:
        return GroupStatus(group, statuses, 0, None, None)
    last, steps = times[-1], stored["config"]["steps"]
    speed = last["steps_per_s"] if "running" in statuses and last["steps_per_s"] > 0 else None
    return GroupStatus(group, statuses, last["step"], steps, speed)


class SweepStatus:
    """The status of a sweep: one updated line of a terminal or a notebook, on terminals
    with a bar for each running group, or periodic lines of a log.
    """

    def __init__(self, sweep: Sweep, file: TextIO | None = None) -> None:
        self.sweep = sweep
        self.status = StatusLine(file, LOG_SECONDS, terminal_seconds=1.0)
        self.best, self.mode = (sweep.read_sweep_json()[key] for key in ("best", "best_mode"))
        # run directory -> (bytes of rows.jsonl that were read, best value so far)
        self.tails: dict[Path, tuple[int, float | None]] = {}

    def read_groups(self) -> list[GroupStatus]:
        """Return the status of every group."""
        return [read_group_status(group) for group in self.sweep.groups()]

    def print_if_due(self, is_last: bool = False) -> None:
        """Print the line if it is due: every second on a terminal, every LOG_SECONDS
        in a log if it changed. `is_last` prints immediately and ends the line.
        """
        if self.status.is_due() or is_last:
            groups = self.read_groups()
            running = [g for g in groups if "running" in g.statuses]
            bars = [g.format_bar() for g in running[:MOST_BARS]]
            if len(running) > MOST_BARS:
                bars.append(Bar(f"and {format_count(len(running) - MOST_BARS)} more groups"))
            self.status.write_line(
                *self.format_line(groups), ends_line=is_last, details=() if is_last else bars
            )

    def format_line(self, groups: Sequence[GroupStatus]) -> tuple[str, float]:
        """Return the counts by status, the best value so far and the remaining time, as
        a line; and the fraction of all steps that is done.
        """
        counts: dict[str, int] = {}
        best: tuple[float, str] | None = None
        for status in (status for group in groups for status in group.statuses):
            counts[status] = counts.get(status, 0) + 1
        for run in (run for group in groups for run in group.group.dirs):
            value = self.read_best_value(run)
            if value is not None and (best is None or (value < best[0]) == (self.mode == "min")):
                best = value, run.path.name
        parts = [f"{format_count(count)} {status}" for status, count in counts.items()]
        if best:
            name = best[1].rsplit("-", 1)[0] or best[1]
            parts.append(f"{self.best} {format_number(best[0])} ({name})")
        left = max((group.seconds_left or 0.0 for group in groups), default=0.0)
        line = ", ".join(parts) + (f"; {format_duration(left)} left" if left else "")
        done = sum(group.fraction * len(group.statuses) for group in groups)
        return line, done / max(sum(counts.values()), 1)

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
            split, name = self.best.split("/", 1)
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


def make_group_table(groups: Sequence[GroupStatus], most: int | None = None) -> Table:
    """Return the trials by status, progress, speed, remaining time and route of each
    group.

    Args:
      groups: the groups of a sweep.
      most: rows of the table, unfinished groups first; None: all groups, in order.
    """
    if most is not None and len(groups) > most:
        groups = sorted(groups, key=lambda g: g.fraction == 1)[:most]
    words = [w for w in (*STATUSES, UNREADABLE) if any(g.count(w) for g in groups)]
    labels = [g.label for g in groups]
    rows: list[tuple] = [
        (
            g.group.name,
            *((g.label,) if any(labels) else ()),
            len(g.statuses),
            *(g.count(word) for word in words),
            f"{g.fraction:.0%}",
            g.steps_per_second,
            None if g.seconds_left is None else format_duration(g.seconds_left),
            read_route(g.group),
        )
        for g in groups
    ]
    keys = ("keys",) if any(labels) else ()
    return Table(("group", *keys, "trials", *words, "progress", "steps/s", "left", "route"), rows)


def describe_failures(groups: Sequence[GroupStatus], most: int | None = None) -> list[str]:
    """Return a line with the name and the reason of each failed trial.

    Args:
      groups: the groups of a sweep.
      most: most lines; the last one counts the trials that are left out; None: all.
    """
    lines = []
    for g in groups:
        for run, status in zip(g.group.dirs, g.statuses, strict=True):
            if status.startswith("failed"):
                reason = str(run.read_status().get("reason", "unknown")).replace("\n", "\\n")
                lines.append(f"{run.path.name} {status}: {reason}")
    if most is not None and len(lines) > most:
        left = format_count(len(lines) - most + 1, "more failed trial")
        lines = [*lines[: most - 1], f"and {left}"]
    return lines


def read_route(group: Group) -> str:  # "-" before it has a plan
    """Return the route of the group's plan, and its number of trials at once."""
    plan = None
    for folder in (group.path, group.path / "rung_0"):
        plan = plan or documents.peek(folder / "plan.json")
    if plan is None:
        return "-"
    return plan["route"] + (f", {plan['chunk']} at once" if plan["chunk"] else "")


def is_abandoned(sweep: Sweep, groups: Sequence[GroupStatus]) -> bool:
    """Return whether trials are unfinished and no process of the sweep is left: its
    launcher was killed. False where that is unknown, as with jobs of a cluster.
    """
    is_left = any(status not in FINAL for group in groups for status in group.statuses)
    is_running = any("running" in group.statuses or group.group.is_locked() for group in groups)
    return is_left and not is_running and has_launcher_ended(sweep.path)


def print_status(sweep: Sweep) -> None:
    """Print the status of a sweep: a line, a table of groups, the failures, and whether
    it has stopped before its end.
    """
    view = SweepStatus(sweep)
    groups = view.read_groups()
    line, fraction = view.format_line(groups)
    failures = "\n".join(describe_failures(groups))
    print_blocks(
        [
            f"{fraction:.0%}: {line}" if groups else "no trials",
            make_group_table(groups),
            *([failures] if failures else []),
            *([UNCHECKED] if groups else []),
            *([STOPPED] if is_abandoned(sweep, groups) else []),
        ]
    )


def watch_sweep(sweep: Sweep) -> None:  # until it is finished
    """Show the status of a sweep until it is finished or abandoned, or the user
    interrupts: tables that are updated on a terminal, else periodic lines; at the end
    `print_status`.
    """
    view = SweepStatus(sweep)
    groups = view.read_groups()
    try:
        while any(status not in FINAL for group in groups for status in group.statuses):
            if view.status.is_due():
                failures = describe_failures(groups, MOST_WATCHED)
                shown: list[Bar | Table] = [make_group_table(groups, MOST_WATCHED)]
                shown += [Bar(line) for line in failures]
                view.status.write_line(*view.format_line(groups), details=shown)
            if is_abandoned(sweep, groups):
                break
            time.sleep(WATCH_SECONDS)
            groups = view.read_groups()
    finally:
        view.status.end_line()
    print_status(sweep)
