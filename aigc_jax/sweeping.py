"""What `launch.py sweep`, `figure` and `compare` do: jobs to an engine, again for what crashed, and a look at how it stands."""

import sys
import threading
import time
from pathlib import Path

from aigc_jax import config as configs
from aigc_jax import experiment, stored, tables
from aigc_jax.errors import require
from aigc_jax.jobs import HELD, STOPPED, Job
from aigc_jax.locks import hold
from aigc_jax.progress import clock
from aigc_jax.results import table
from aigc_jax.sweep import FINAL, Sweep, groups_of
from aigc_jax.terminal import print_text, print_warning

LOOK_SECONDS = 5.0  # between lines where the output is no terminal


def job(launcher: Path, group, extra=()) -> Job:
    return Job(group.name, [str(launcher), "group", f"--workdir={group.path.absolute()}", *extra], group.path / "log.txt")


def carry_out(sweep: Sweep, launcher: Path, engine, extra=(), report=print_warning) -> bool | None:
    """Run every group that is not finished; one that crashes once more, with half the chunk. True if all are finished in the end; None if the
    engine runs nothing."""
    view = View(sweep)
    tried = set()
    threading.Thread(target=tables.prepare, daemon=True).start()  # at the end it is needed, now there is time
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
        ended = engine.run([job(launcher, g, extra) for g in todo], view.show)
        if ended is None:
            return None
        crashed = {name: end for name, end in ended.items() if end.code not in (0, HELD, STOPPED)}
        stopped = {name: end for name, end in ended.items() if end.code == STOPPED}
        for name, end in stopped.items():
            report(f"group {name} stopped: {end.reason}")
        if stopped:
            return False
        for name, end in crashed.items():
            report(f"group {name} crashed: {end.reason}; once more with half the chunk")
        again = engine.run([job(launcher, groups[name], (*extra, "--halve")) for name in crashed], view.show) if crashed else {}
        for name, end in again.items():
            if end.code == STOPPED:
                return False
            if end.code not in (0, HELD):
                report(f"group {name} crashed again: {end.reason}; its log: {groups[name].path / 'log.txt'}")
                groups[name].give_up(end.reason)
        tried |= {name for name, end in (ended | again).items() if end.code != HELD}


def restart(sweep: Sweep):
    """Remove what the groups left that are not finished, or damaged, so that they begin again."""
    for group in sweep.all_groups():
        if group.finished() and not group.is_damaged():
            continue
        with hold(group.path) as mine:
            require(mine, f"another process is at work in {group.path}: stop it before --restart")
            group.clear()


class View:
    """How a sweep stands: on one line of a terminal, or now and then in a log."""

    def __init__(self, sweep: Sweep, file=None):
        self.sweep, self.file, self.seen, self.said = sweep, file or sys.stderr, 0.0, ""
        self.terminal = self.file.isatty()
        self.best, self.mode = (sweep.stored()[key] for key in ("best", "best_mode"))
        self.tails = {}  # file -> (how much was read, the best value so far)

    def show(self, last=False):
        if time.monotonic() - self.seen < (1.0 if self.terminal else LOOK_SECONDS) and not last:
            return
        self.seen = time.monotonic()
        text = self.line()
        if text == self.said and not self.terminal:
            return
        self.said = text
        self.file.write("\r\x1b[K" if self.terminal else "")
        print_text(text, self.file, end="\n" if last or not self.terminal else "")

    def line(self) -> str:
        counts, left, best = {}, 0.0, None
        for group in self.sweep.groups():
            for status in group.statuses():
                counts[status] = counts.get(status, 0) + 1
            left = max(left, seconds_left(group))
            for run in group.dirs:
                value = self.best_of(run)
                if value is not None and (best is None or (value < best[0]) == (self.mode == "min")):
                    best = value, run.path.name
        parts = [f"{count} {status}" for status, count in counts.items()]
        if best:
            parts.append(f"{self.best} {best[0]:.4g} ({best[1].rsplit('-', 1)[0] or best[1]})")
        return ", ".join(parts) + (f"; {clock(left)} left" if left else "")

    def best_of(self, run):
        """The best value of config.best so far in a trial's rows; only what was added is read."""
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
    """A row's value of a metric; None where it has none, or is no row: what reads the whole file says so."""
    try:
        row = stored.parse_line(line, "rows.jsonl")
    except ValueError:
        return None
    return row.get(name) if row["split"] == split else None


def seconds_left(group) -> float:
    """Until the end of a running group, from its last timing."""
    times = stored.read_lines(group.dirs[0] / "timings.jsonl", lenient=True)
    found = stored.peek(group.dirs[0] / "config.json")
    if not times or not found or "running" not in group.statuses() or times[-1]["steps_per_s"] <= 0:
        return 0.0
    return max(found["config"]["steps"] - times[-1]["step"], 0) / times[-1]["steps_per_s"]


def watch(sweep: Sweep):
    """Show how it stands until nothing is left to be done, or until interrupted."""
    view = View(sweep)
    while not all(g.finished() for g in sweep.groups()):
        view.show()
        time.sleep(0.5)
    view.show(last=True)
    print_text(table([(g.name, len(g.members), *counted(g)) for g in sweep.groups()], ("group", "trials", "done", "stopped", "failed", "route")))


def counted(group):
    statuses, plan = group.statuses(), None
    for folder in (group.path, group.path / "rung_0"):
        plan = plan or stored.peek(folder / "plan.json")
    route = "-" if plan is None else plan["route"] + (f", {plan['chunk']} at once" if plan["chunk"] else "")
    return *(sum(s.startswith(word) for s in statuses) for word in ("done", "stopped", "failed")), route


def describe(trials, report=print_text):
    """What a sweep would do, before anything is done: trials, programs, steps, and the memory of each group's program."""
    groups = groups_of(trials)
    rows = []
    for members in groups:
        differ = sorted({k for t in members for k in t.overrides})
        rows.append((len(rows), len(members), ", ".join(differ), members[0].config.steps, _estimate(members)))
    report(table(rows, ("group", "trials", "keys", "steps", "memory")))
    report(f"{len(trials)} trials, {len(groups)} program{'s' * (len(groups) != 1)}")


def _estimate(members) -> str:
    """Of the training program of all at once, from the compiled program itself."""
    from aigc_jax import data, methods
    from aigc_jax.group import memory, needs
    from aigc_jax.programs import Programs

    first = members[0].config
    dataset = data.load(first.data, first.run.data_dir)
    config = configs.resolve(first, dataset.spec.n_train, methods.examples(first))
    programs = Programs(config, dataset, len(members))
    programs.begin_training()
    there = memory()
    return f"{needs(programs) / 2**20:,.0f} MiB" + (f" of {there / 2**20:,.0f}" if there else "")


def open_trials(sweep: Sweep) -> int:
    return sum(status not in FINAL for g in sweep.groups() for status in g.statuses())


def from_experiment(path):
    """The module, its base config and its overrides."""
    module = experiment.load(path)
    return module, experiment.base(module, path), experiment.overrides(module, path)
