"""How the groups of a sweep are carried out: jobs to an engine, again for what
crashed, and a look at how it stands.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from aigc_jax.core import config as configs
from aigc_jax.sweeps import plots
from aigc_jax.sweeps.engines.base import HELD, REFUSED, STOPPED, Engine, Job
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import FINAL, Trial, groups_of
from aigc_jax.training.progress import clock
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.errors import argument, require
from aigc_jax.utils.locks import hold
from aigc_jax.utils.subprocesses import command_line
from aigc_jax.utils.terminal import StatusLine, print_text, print_warning
from aigc_jax.utils.text_table import table

LOOK_SECONDS = 5.0  # between lines where the output is no terminal


def job(group: Group, **options) -> Job:
    """The process that trains a group; options: of the verb `group`."""
    return Job(
        group.name,
        command_line("group", workdir=group.path.absolute(), **options),
        group.path / "log.txt",
    )


def carry_out(
    sweep: Sweep,
    engine: Engine,
    options: dict | None = None,
    report: Callable[[str], None] = print_warning,
) -> bool | None:
    """Run every group that is not finished: one that crashes once more, with half the
    chunk; one that is refused (missing data, a wrong key) no more. True if all are
    finished in the end; None if the engine runs nothing. options: of the verb `group`,
    such as route.
    """
    view = View(sweep)
    try:
        return _run_groups(sweep, engine, options or {}, report, view)
    except BaseException:
        view.status.end()
        raise


def _run_groups(sweep, engine, options, report, view) -> bool | None:
    tried = set()
    # Figures are needed at the end; now there is time to import what draws them.
    threading.Thread(target=plots.prepare, daemon=True).start()
    while True:
        groups = {g.name: g for g in sweep.groups() if not g.finished()}
        todo = [g for name, g in groups.items() if name not in tried and not g.held()]
        if not groups or (not todo and all(name in tried for name in groups)):
            view.show(last=True)
            return not groups
        if not todo:  # others are at them
            view.show()
            time.sleep(1.0)
            continue
        ended = engine.run([job(g, **options) for g in todo], view.show)
        if ended is None:
            return None
        crashed = {
            name: end for name, end in ended.items() if end.code not in (0, HELD, STOPPED, REFUSED)
        }
        refused = {name: end for name, end in ended.items() if end.code == REFUSED}
        stopped = {name: end for name, end in ended.items() if end.code == STOPPED}
        for name, end in stopped.items():
            report(f"group {name} stopped: {end.reason}")
        if stopped:
            return False
        for name, end in refused.items():
            report(f"group {name} cannot be trained: {end.reason}")
            groups[name].give_up(end.reason)
        for name, end in crashed.items():
            report(f"group {name} crashed: {end.reason}; once more with half the chunk")
        half = [job(groups[name], **options, halve=True) for name in crashed]
        again = (engine.run(half, view.show) if half else None) or {}
        for name, end in again.items():
            if end.code == STOPPED:
                return False
            if end.code not in (0, HELD):
                report(
                    f"group {name} crashed again: {end.reason}; its log: "
                    f"{groups[name].path / 'log.txt'}"
                )
                groups[name].give_up(end.reason)
        tried |= {name for name, end in (ended | again).items() if end.code != HELD}


def restart(sweep: Sweep) -> None:
    """Remove what unfinished or damaged groups left, so that they begin again."""
    for group in sweep.all_groups():
        if group.finished() and not group.is_damaged():
            continue
        with hold(group.path) as mine:
            require(
                mine,
                f"another process is at work in {group.path}: stop it before {argument('restart')}",
            )
            group.clear()


class View:
    """How a sweep stands: on one line of a terminal or of a notebook, or now and then
    in a log.
    """

    def __init__(self, sweep: Sweep, file: TextIO | None = None) -> None:
        self.sweep, self.seen = sweep, 0.0
        self.status = StatusLine(file, LOOK_SECONDS, terminal_seconds=1.0)
        self.best, self.mode = (sweep.stored()[key] for key in ("best", "best_mode"))
        # file -> (how much was read, the best value so far)
        self.tails: dict[Path, tuple[int, float | None]] = {}

    def show(self, last: bool = False) -> None:
        """Print the line where it is due: each second on a terminal, in a log every
        LOOK_SECONDS if it changed; `last` prints at once and ends the line.
        """
        if time.monotonic() - self.seen < self.status.seconds and not last:
            return
        self.seen = time.monotonic()
        self.status.write(self.line(), last)

    def line(self) -> str:
        """Return the counts by status, the best value so far and the time left."""
        counts: dict[str, int] = {}
        left = 0.0
        best: tuple[float, str] | None = None
        for group in self.sweep.groups():
            for status in group.statuses():
                counts[status] = counts.get(status, 0) + 1
            left = max(left, seconds_left(group))
            for run in group.dirs:
                value = self.best_of(run)
                if value is not None and (
                    best is None or (value < best[0]) == (self.mode == "min")
                ):
                    best = value, run.path.name
        parts = [f"{count} {status}" for status, count in counts.items()]
        if best:
            parts.append(f"{self.best} {best[0]:.4g} ({best[1].rsplit('-', 1)[0] or best[1]})")
        return ", ".join(parts) + (f"; {clock(left)} left" if left else "")

    def best_of(self, run: RunDir) -> float | None:
        """The best config.best so far in a trial's rows, of which only new are read."""
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
            whole = text[: text.rfind(b"\n") + 1]
            for line in whole.splitlines():
                value = _value_in(line, split, name)
                if value is not None and (best is None or (value < best) == (self.mode == "min")):
                    best = value
            self.tails[run.path] = (done + len(whole), best)
        return best


def _value_in(line: bytes, split, name) -> float | None:
    """A row's value of a metric; None where it has none, or is no row: what reads the
    whole file says so.
    """
    try:
        row = documents.parse_line(line, "rows.jsonl")
    except ValueError:
        return None
    return row.get(name) if row["split"] == split else None


def seconds_left(group: Group) -> float:
    """Until the end of a running group, from its last timing."""
    times = documents.read_lines(group.dirs[0] / "timings.jsonl", lenient=True)
    found = documents.peek(group.dirs[0] / "config.json")
    if not times or not found or "running" not in group.statuses() or times[-1]["steps_per_s"] <= 0:
        return 0.0
    return max(found["config"]["steps"] - times[-1]["step"], 0) / times[-1]["steps_per_s"]


def watch(sweep: Sweep) -> None:
    """Show how it stands until nothing is left to be done, or until interrupted."""
    view = View(sweep)
    while not all(g.finished() for g in sweep.groups()):
        view.show()
        time.sleep(0.5)
    view.show(last=True)
    print_text(
        table(
            [(g.name, len(g.members), *counted(g)) for g in sweep.groups()],
            ("group", "trials", "done", "stopped", "failed", "route"),
        )
    )


def counted(group: Group) -> tuple[int, int, int, str]:
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


def describe(trials: list[Trial], report: Callable[[str], None] = print_text) -> None:
    """What a sweep would do, before anything is done: trials, programs, steps, and the
    memory of each group's program.
    """
    groups = groups_of(trials)
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
    report(table(rows, ("group", "trials", "keys", "steps", "memory")))
    report(f"{len(trials)} trials, {len(groups)} program{'s' * (len(groups) != 1)}")


def _estimate(members) -> str:
    """Of the training program of all at once, from the compiled program itself."""
    from aigc_jax import data, methods
    from aigc_jax.sweeps.route import memory, needs
    from aigc_jax.training.programs import Programs

    first = members[0].config
    dataset = data.load(first.data, first.run.data_dir)
    config = configs.resolve(first, dataset.spec.n_train, methods.examples(first))
    programs = Programs(config, dataset, len(members))
    programs.begin_training()
    there = memory()
    return f"{needs(programs) / 2**20:,.0f} MiB" + (f" of {there / 2**20:,.0f}" if there else "")


def open_trials(sweep: Sweep) -> int:
    """Return how many trials have no final status."""
    return sum(status not in FINAL for g in sweep.groups() for status in g.statuses())
