"""What `launch.py sweep`, `figure` and `compare` do: jobs to an engine, again for what crashed, and a look at how it stands."""

import sys
import threading
import time
from pathlib import Path

from aigc_jax import config as configs
from aigc_jax import evidence, experiment, stored, tables
from aigc_jax.errors import require
from aigc_jax.evidence import Results
from aigc_jax.jobs import HELD, STOPPED, Job
from aigc_jax.locks import alone, hold
from aigc_jax.progress import clock
from aigc_jax.results import disk_errors, table
from aigc_jax.sweep import FINAL, Sweep, groups_of

FIGURES = ("figure.png", "figure.pdf")
LOOK_SECONDS = 5.0  # between lines where the output is no terminal


def job(launcher: Path, group, extra=()) -> Job:
    return Job(group.name, [str(launcher), "group", f"--workdir={group.path.absolute()}", *extra], group.path / "log.txt")


def warn(line):
    print(line, file=sys.stderr, flush=True)


def carry_out(sweep: Sweep, launcher: Path, engine, extra=(), report=warn) -> bool | None:
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
        print(f"\r\x1b[K{text}" if self.terminal else text, end="\n" if last or not self.terminal else "", file=self.file, flush=True)

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
    print(table([(g.name, len(g.members), *counted(g)) for g in sweep.groups()], ("group", "trials", "done", "stopped", "failed", "route")))


def counted(group):
    statuses, plan = group.statuses(), None
    for folder in (group.path, group.path / "rung_0"):
        plan = plan or stored.peek(folder / "plan.json")
    route = "-" if plan is None else plan["route"] + (f", {plan['chunk']} at once" if plan["chunk"] else "")
    return *(sum(s.startswith(word) for s in statuses) for word in ("done", "stopped", "failed")), route


def results(sweep: Sweep, module=None, metric="", report=print) -> Results:
    """rows.csv, table.md, figure.png and .pdf of a sweep; prints the table."""
    found = sweep.results()
    require(found.rows, f"{sweep.path} has no row yet")
    with disk_errors(sweep.path), alone(sweep.path):
        stored.write_atomically(sweep.path / "rows.csv", evidence.as_csv(found.rows))
        found = found._replace(rows=evidence.read_rows(sweep.path))
        found = found._replace(metric=metric or own_metric(found, module))
        render(sweep.path, found, module, report)
    return found


def own_metric(found: Results, module) -> str:
    """METRIC of the experiment; none where no row has it yet, for want of finished trials."""
    metric = getattr(module, "METRIC", "")
    unfinished = any(trial["status"] != "done" for trial in found.trials)
    return "" if unfinished and not tables.has_metric(metric, found.rows, found.varied) else metric


def render(folder: Path, found: Results, module=None, report=print, names=FIGURES):
    """Table and figure of a sweep, its experiment's own or the default, with notes."""
    split = tables.split_of(found.rows, found.metric) if found.trials else ""
    if found.metric:
        tables.parts_of(found.metric, found.rows, found.varied)
    below = tables.notes(found, split) if found.trials else []
    text = table_of(found, module, report) + "".join(f"\n{note}\n" for note in below)
    figure, layout = own_figure(found, module, below, report) or default_figure(found)
    tables.save(folder, text, figure, names, **layout)
    report(text, end="")
    report(f"figure: {folder / names[0]}")


def table_of(found: Results, module, report) -> str:
    """The experiment's own table, or the default."""
    own = (
        attempt(lambda: module.table(found.rows), found, report)
        if hasattr(module, "table")
        else None
    )
    return own or tables.summary(found)


def own_figure(found: Results, module, notes, report):
    """(figure, keywords of `tables.save_figure`) of the experiment; None where it has none."""
    if not hasattr(module, "figure"):
        return None
    draw = lambda axes: module.figure(found.rows, axes)
    layout = dict(size=getattr(module, "SIZE", (6, 4)), panels=getattr(module, "PANELS", (1, 1)))
    drawn = attempt(lambda: tables.draw_figure(draw, **layout), found, report)
    return (draw, layout | dict(notes=notes)) if drawn else None


def attempt(make, found: Results, report):
    """make(), or None where an experiment's own table or figure fails for want of trials that are
    missing; with all trials a failure is a bug of the experiment."""
    try:
        return make()
    except Exception as e:
        if all(trial["status"] == "done" for trial in found.trials):
            raise
        report(
            "the experiment's own table or figure needs the trials that are missing "
            f"({type(e).__name__}: {e}): the default in its place"
        )
        return None


def commit(sweep: Sweep, found: Results, folder: Path, module):
    """Keep rows, trials, table, figure and the environment of a run beside the experiment."""
    around = [sweep.trial(t["trial"]) / "environment.json" for t in found.trials]
    around = [path for path in around if path.is_file()]
    require(around, f"{sweep.path}: no trial has an environment.json, which is kept with the rows")
    evidence.write_results(folder, found, around[0])
    render(folder, found, module, names=FIGURES[:1])


def render_committed(folder: Path, module, metric="", report=print):
    """Table and figure anew of the results that are kept beside an experiment."""
    require(
        (folder / "rows.csv").is_file(),
        f"{folder} has no rows.csv; --workdir=SWEEP names a sweep of your own",
    )
    found = evidence.read_results(folder)
    if (
        found is None
    ):  # kept by a script; what varied is known to the experiment's own functions alone
        require(
            hasattr(module, "table") and hasattr(module, "figure"),
            f"{folder} has no trials.json, and the "
            "experiment no table and figure of its own: nothing says what its rows mean; "
            "commit them anew by --workdir=SWEEP --commit",
        )
        require(
            not metric,
            f"--metric={metric} changes nothing: table and figure are the experiment's own",
        )
        found = Results(evidence.read_rows(folder), trials=[], varied=[])
    render(folder, found._replace(metric=metric or found.metric), module, report, FIGURES[:1])


def default_figure(found: Results):
    """(figure, keywords of `tables.save_figure`) of the metric; in place of a test metric, whose
    curve has one point, of the valid metric."""
    rows, metric, varied = found.rows, found.metric, found.varied
    if not metric or metric.startswith("test/"):
        metric = tables.default_metric(
            rows, metric.replace("test/", "valid/") or found.best, varied
        )
    if not tables.has_metric(metric, rows, varied):
        notes = [*tables.notes(found, tables.split_of(rows, "")), "No row has a finite number."]
        return (lambda axes: None), dict(notes=notes)
    notes = tables.notes(found, *metric.split("/", 1))
    lines = len(tables.combinations(found.trials, varied))
    return (lambda axes: tables.draw(found, metric, axes)), dict(
        notes=notes, size=tables.size_for(lines)
    )


def describe(trials, report=print):
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
