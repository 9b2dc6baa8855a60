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
    results = sweep.results()
    require(results.rows, f"{sweep.path} has no row yet")
    with disk_errors(sweep.path), exclusive_lock(sweep.path):
        documents.write_atomically(sweep.path / "rows.csv", evidence.as_csv(results.rows))
        results = results._replace(rows=evidence.read_rows(sweep.path))
        results = results._replace(metric=metric or own_metric(results, experiment))
        with disk_errors(out or sweep.path):
            render_results(out or sweep.path, results, experiment, report)
    return results


def own_metric(results: Results, experiment: Experiment | None) -> str:
    """Return the metric of the experiment, or '' if trials are unfinished and no row
    has the metric yet.
    """
    metric = experiment.metric if experiment else ""
    unfinished = any(trial["status"] != "done" for trial in results.trials)
    return (
        "" if unfinished and not tables.has_metric(metric, results.rows, results.varied) else metric
    )


def render_results(
    folder: Path | None,
    results: Results,
    experiment: Experiment | None = None,
    report: Callable = print_text,
    names: Sequence[str] = FIGURES,
) -> None:
    """Write the table and the figure of results, the experiment's own or the defaults,
    with notes; without a folder, print only the table.
    """
    text = table_of(results, experiment, report)
    if folder is None:
        report(text, end="")
        return
    folder.mkdir(parents=True, exist_ok=True)
    figure, layout = figure_of(results, experiment, report)
    plots.save_results(folder, text, figure, names, **layout)
    report(text, end="")
    report(f"figure: {folder / names[0]}")


def notes_of(results: Results) -> list[str]:
    """Return notes about the trials that table and figure lack, with the reasons. Raise
    a UserError if no row has the metric.
    """
    if results.metric:
        tables.parts_of(results.metric, results.rows, results.varied)
    if not results.trials:  # rows of a script, which need not have splits
        return []
    return tables.missing_trials(results, tables.split_of(results.rows, results.metric))


def table_of(results: Results, experiment: Experiment | None, report: Callable) -> str:
    """Return the experiment's own table, or the default table, with notes."""
    notes = notes_of(results)
    table = experiment and experiment.table
    own = try_own(lambda: table(results.rows), results, report) if table else None
    return (own or tables.summary_table(results)) + "".join(f"\n{note}\n" for note in notes)


def figure_of(
    results: Results, experiment: Experiment | None, report: Callable
) -> tuple[Callable, dict]:
    """Return (figure, keywords of `plots.draw_figure`): the experiment's own figure, or
    the default.
    """
    return own_figure(results, experiment, notes_of(results), report) or default_figure(results)


def own_figure(
    results: Results, experiment: Experiment | None, notes: Sequence[str], report: Callable
) -> tuple[Callable, dict] | None:
    """Return (figure, keywords of `sweeps.plots.save_figure`) of the experiment's own
    figure, or None.
    """
    if experiment is None or experiment.figure is None:
        return None
    figure, size, panels = experiment.figure, experiment.size, experiment.panels
    draw = lambda axes: figure(results.rows, axes)
    drawn = try_own(lambda: plots.draw_figure(draw, size, panels), results, report)
    return (draw, dict(size=size, panels=panels, notes=notes)) if drawn else None


def try_own(make: Callable[[], T], results: Results, report: Callable) -> T | None:
    """Return make(), an experiment's own table or figure; None if it fails and trials
    are missing. If all trials are done, a failure is a bug of the experiment and is
    raised.
    """
    try:
        return make()
    except Exception as e:
        if all(trial["status"] == "done" for trial in results.trials):
            raise
        report(
            "the experiment's own table or figure needs the missing trials "
            f"({type(e).__name__}: {e}): using the default"
        )
        return None


def commit_results(
    sweep: Sweep, results: Results, folder: Path, experiment: Experiment | None
) -> None:
    """Write rows, trials, table, figure and a run's environment to the experiment's
    folder of results.
    """
    environments = [sweep.trial(t["trial"]) / "environment.json" for t in results.trials]
    environments = [path for path in environments if path.is_file()]
    require(
        environments,
        f"{sweep.path}: no trial has an environment.json, which is stored with the rows",
    )
    evidence.write_results(folder, results, environments[0])
    render_results(folder, results, experiment, names=FIGURES[:1])


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
    results = evidence.read_results(folder)
    if (
        results is None
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
        results = Results(evidence.read_rows(folder), trials=[], varied=[])
    render_results(
        out, results._replace(metric=metric or results.metric), experiment, report, FIGURES[:1]
    )


def default_figure(results: Results) -> tuple[Callable, dict]:
    """Return (figure, keywords of `sweeps.plots.save_figure`) of the metric; a test
    metric, whose curve has one point, is replaced by the valid metric.
    """
    rows, metric, varied = results.rows, results.metric, results.varied
    if not metric or metric.startswith("test/"):
        metric = tables.default_metric(
            rows, metric.replace("test/", "valid/") or results.best, varied
        )
    if not tables.has_metric(metric, rows, varied):
        notes = [
            *tables.missing_trials(results, tables.split_of(rows, "")),
            "No row has a finite number.",
        ]
        return (lambda axes: None), dict(notes=notes)
    notes = tables.missing_trials(results, *metric.split("/", 1))
    lines = len(tables.group_by_values(results.trials, varied))
    return (lambda axes: plots.draw_curves(results, metric, axes)), dict(
        notes=notes, size=plots.size_for(lines)
    )
