"""Table and figure of a sweep, or of the committed results of an experiment."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from aigc_jax.sweeps import evidence, plots, tables
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.utils import documents
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import argument, require
from aigc_jax.utils.locks import exclusive_lock
from aigc_jax.utils.terminal import print_text

FIGURES = ("figure.png", "figure.pdf")

T = TypeVar("T")


def write_results(
    sweep: Sweep,
    experiment: Experiment | None = None,
    metric: str = "",
    report: Callable = print_text,
    out: Path | None = None,
) -> Results:
    """Write rows.csv of a sweep, and table.md, figure.png and figure.pdf to `out`
    (default: the sweep's directory); print the table.
    """
    found = sweep.results()
    require(found.rows, f"{sweep.path} has no row yet")
    with disk_errors(sweep.path), exclusive_lock(sweep.path):
        documents.write_atomically(sweep.path / "rows.csv", evidence.as_csv(found.rows))
        found = found._replace(rows=evidence.read_rows(sweep.path))
        found = found._replace(metric=metric or own_metric(found, experiment))
        with disk_errors(out or sweep.path):
            render_results(out or sweep.path, found, experiment, report)
    return found


def own_metric(found: Results, experiment: Experiment | None) -> str:
    """Return the metric of the experiment, or '' if trials are unfinished and no row
    has the metric yet.
    """
    metric = experiment.metric if experiment else ""
    unfinished = any(trial["status"] != "done" for trial in found.trials)
    return "" if unfinished and not tables.has_metric(metric, found.rows, found.varied) else metric


def render_results(
    folder: Path | None,
    found: Results,
    experiment: Experiment | None = None,
    report: Callable = print_text,
    names: Sequence[str] = FIGURES,
) -> None:
    """Write the table and the figure of results, the experiment's own or the defaults,
    with notes; without a folder, print only the table.
    """
    text = table_of(found, experiment, report)
    if folder is None:
        report(text, end="")
        return
    folder.mkdir(parents=True, exist_ok=True)
    figure, layout = figure_of(found, experiment, report)
    plots.save_results(folder, text, figure, names, **layout)
    report(text, end="")
    report(f"figure: {folder / names[0]}")


def notes_of(found: Results) -> list[str]:
    """Return notes about the trials that table and figure lack, with the reasons. Raise
    a UserError if no row has the metric.
    """
    if found.metric:
        tables.parts_of(found.metric, found.rows, found.varied)
    if not found.trials:  # rows of a script, which need not have splits
        return []
    return tables.missing_trials(found, tables.split_of(found.rows, found.metric))


def table_of(found: Results, experiment: Experiment | None, report: Callable) -> str:
    """Return the experiment's own table, or the default table, with notes."""
    notes = notes_of(found)
    table = experiment and experiment.table
    own = try_own(lambda: table(found.rows), found, report) if table else None
    return (own or tables.summary_table(found)) + "".join(f"\n{note}\n" for note in notes)


def figure_of(
    found: Results, experiment: Experiment | None, report: Callable
) -> tuple[Callable, dict]:
    """Return (figure, keywords of `plots.draw_figure`): the experiment's own figure, or
    the default.
    """
    return own_figure(found, experiment, notes_of(found), report) or default_figure(found)


def own_figure(
    found: Results, experiment: Experiment | None, notes: Sequence[str], report: Callable
) -> tuple[Callable, dict] | None:
    """Return (figure, keywords of `sweeps.plots.save_figure`) of the experiment's own
    figure, or None.
    """
    if experiment is None or experiment.figure is None:
        return None
    figure, size, panels = experiment.figure, experiment.size, experiment.panels
    draw = lambda axes: figure(found.rows, axes)
    drawn = try_own(lambda: plots.draw_figure(draw, size, panels), found, report)
    return (draw, dict(size=size, panels=panels, notes=notes)) if drawn else None


def try_own(make: Callable[[], T], found: Results, report: Callable) -> T | None:
    """Return make(), an experiment's own table or figure; None if it fails and trials
    are missing. If all trials are done, a failure is a bug of the experiment and is
    raised.
    """
    try:
        return make()
    except Exception as e:
        if all(trial["status"] == "done" for trial in found.trials):
            raise
        report(
            "the experiment's own table or figure needs the missing trials "
            f"({type(e).__name__}: {e}): using the default"
        )
        return None


def commit_results(
    sweep: Sweep, found: Results, folder: Path, experiment: Experiment | None
) -> None:
    """Write rows, trials, table, figure and a run's environment to the experiment's
    folder of results.
    """
    around = [sweep.trial(t["trial"]) / "environment.json" for t in found.trials]
    around = [path for path in around if path.is_file()]
    require(
        around, f"{sweep.path}: no trial has an environment.json, which is stored with the rows"
    )
    evidence.write_results(folder, found, around[0])
    render_results(folder, found, experiment, names=FIGURES[:1])


def render_committed(
    folder: Path,
    out: Path | None,
    experiment: Experiment | None,
    metric: str = "",
    report: Callable = print_text,
) -> None:
    """Write the table and the figure of an experiment's committed rows to `out`;
    without `out`, print only the table.
    """
    require(
        (folder / "rows.csv").is_file(),
        f"{folder} has no rows.csv; set {argument('workdir')}=SWEEP to a sweep of your own",
    )
    found = evidence.read_results(folder)
    if (
        found is None
    ):  # written by a script: only the experiment's own functions know the varied keys
        require(
            experiment is not None and experiment.table and experiment.figure,
            f"{folder} has no trials.json, and the experiment defines no table and figure: "
            f"commit the rows again with {argument('workdir')}=SWEEP {argument('commit')}",
        )
        require(
            not metric,
            f"{argument('metric')}={metric} has no effect: the experiment defines its "
            "own table and figure",
        )
        found = Results(evidence.read_rows(folder), trials=[], varied=[])
    render_results(
        out, found._replace(metric=metric or found.metric), experiment, report, FIGURES[:1]
    )


def default_figure(found: Results) -> tuple[Callable, dict]:
    """Return (figure, keywords of `sweeps.plots.save_figure`) of the metric; a test
    metric, whose curve has one point, is replaced by the valid metric.
    """
    rows, metric, varied = found.rows, found.metric, found.varied
    if not metric or metric.startswith("test/"):
        metric = tables.default_metric(
            rows, metric.replace("test/", "valid/") or found.best, varied
        )
    if not tables.has_metric(metric, rows, varied):
        notes = [
            *tables.missing_trials(found, tables.split_of(rows, "")),
            "No row has a finite number.",
        ]
        return (lambda axes: None), dict(notes=notes)
    notes = tables.missing_trials(found, *metric.split("/", 1))
    lines = len(tables.group_by_values(found.trials, varied))
    return (lambda axes: plots.draw_curves(found, metric, axes)), dict(
        notes=notes, size=plots.size_for(lines)
    )
