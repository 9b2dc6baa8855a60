"""Table and figure of a sweep, or of the results that are kept beside an experiment."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from aigc_jax.sweeps import evidence, plots, tables
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.utils import documents
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import argument, require
from aigc_jax.utils.locks import alone
from aigc_jax.utils.terminal import print_text

FIGURES = ("figure.png", "figure.pdf")

T = TypeVar("T")


def write_results(
    sweep: Sweep,
    module: ModuleType | None = None,
    metric: str = "",
    report: Callable = print_text,
    out: Path | None = None,
) -> Results:
    """Write rows.csv of a sweep, and table.md, figure.png and .pdf into `out` (default:
    the sweep); print the table.
    """
    found = sweep.results()
    require(found.rows, f"{sweep.path} has no row yet")
    with disk_errors(sweep.path), alone(sweep.path):
        documents.write_atomically(sweep.path / "rows.csv", evidence.as_csv(found.rows))
        found = found._replace(rows=evidence.read_rows(sweep.path))
        found = found._replace(metric=metric or own_metric(found, module))
        with disk_errors(out or sweep.path):
            render(out or sweep.path, found, module, report)
    return found


def own_metric(found: Results, module: ModuleType | None) -> str:
    """METRIC of the experiment; none where no row has it yet, as no trial is done."""
    metric = getattr(module, "METRIC", "")
    unfinished = any(trial["status"] != "done" for trial in found.trials)
    return "" if unfinished and not tables.has_metric(metric, found.rows, found.varied) else metric


def render(
    folder: Path | None,
    found: Results,
    module: ModuleType | None = None,
    report: Callable = print_text,
    names: Sequence[str] = FIGURES,
) -> None:
    """Table and figure of a sweep, its experiment's own or the default, with notes;
    without a folder the table is printed alone.
    """
    text = table_of(found, module, report)
    if folder is None:
        report(text, end="")
        return
    folder.mkdir(parents=True, exist_ok=True)
    figure, layout = figure_of(found, module, report)
    plots.save(folder, text, figure, names, **layout)
    report(text, end="")
    report(f"figure: {folder / names[0]}")


def notes_of(found: Results) -> list[str]:
    """Which trials table and figure lack, and why; a UserError if no row has one."""
    if found.metric:
        tables.parts_of(found.metric, found.rows, found.varied)
    if not found.trials:  # rows of a script, which need not be of a split
        return []
    return tables.notes(found, tables.split_of(found.rows, found.metric))


def table_of(found: Results, module: ModuleType | None, report: Callable) -> str:
    """The experiment's own table, or the default, and notes."""
    notes = notes_of(found)
    own = (
        attempt(lambda: module.table(found.rows), found, report)
        if module is not None and hasattr(module, "table")
        else None
    )
    return (own or tables.summary(found)) + "".join(f"\n{note}\n" for note in notes)


def figure_of(found: Results, module, report):
    """(figure, keywords of `plots.draw_figure`): the experiment's own, or default."""
    return own_figure(found, module, notes_of(found), report) or default_figure(found)


def own_figure(
    found: Results, module: ModuleType | None, notes: Sequence[str], report: Callable
) -> tuple[Callable, dict] | None:
    """(figure, keywords of `sweeps.plots.save_figure`) of the experiment, or None."""
    if module is None or not hasattr(module, "figure"):
        return None
    draw = lambda axes: module.figure(found.rows, axes)
    size, panels = getattr(module, "SIZE", (6, 4)), getattr(module, "PANELS", (1, 1))
    drawn = attempt(lambda: plots.draw_figure(draw, size, panels), found, report)
    return (draw, dict(size=size, panels=panels, notes=notes)) if drawn else None


def attempt(make: Callable[[], T], found: Results, report: Callable) -> T | None:
    """make(), or None where an experiment's own table or figure fails for want of
    trials that are missing; with all trials a failure is a bug of the experiment.
    """
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


def commit(sweep: Sweep, found: Results, folder: Path, module: ModuleType | None) -> None:
    """Keep rows, trials, table, figure and a run's environment by the experiment."""
    around = [sweep.trial(t["trial"]) / "environment.json" for t in found.trials]
    around = [path for path in around if path.is_file()]
    require(around, f"{sweep.path}: no trial has an environment.json, which is kept with the rows")
    evidence.write_results(folder, found, around[0])
    render(folder, found, module, names=FIGURES[:1])


def render_committed(
    folder: Path,
    out: Path | None,
    module: ModuleType | None,
    metric: str = "",
    report: Callable = print_text,
) -> None:
    """Write table and figure of the rows that are kept beside an experiment into `out`;
    without `out` the table is printed alone.
    """
    require(
        (folder / "rows.csv").is_file(),
        f"{folder} has no rows.csv; {argument('workdir')}=SWEEP names a sweep of your own",
    )
    found = evidence.read_results(folder)
    if (
        found is None
    ):  # kept by a script; what varied is known to the experiment's own functions alone
        require(
            hasattr(module, "table") and hasattr(module, "figure"),
            f"{folder} has no trials.json, and the "
            "experiment no table and figure of its own: nothing says what its rows mean; "
            f"commit them anew by {argument('workdir')}=SWEEP {argument('commit')}",
        )
        require(
            not metric,
            f"{argument('metric')}={metric} changes nothing: table and figure are the "
            "experiment's own",
        )
        found = Results(evidence.read_rows(folder), trials=[], varied=[])
    render(out, found._replace(metric=metric or found.metric), module, report, FIGURES[:1])


def default_figure(found: Results) -> tuple[Callable, dict]:
    """(figure, keywords of `sweeps.plots.save_figure`) of the metric; in place of a
    test metric, whose curve has one point, of the valid metric.
    """
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
    return (lambda axes: plots.draw(found, metric, axes)), dict(
        notes=notes, size=plots.size_for(lines)
    )
