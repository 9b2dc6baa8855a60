"""Table and figure of a sweep, or of the results that are kept beside an experiment."""

from pathlib import Path

from aigc_jax import evidence, stored, tables
from aigc_jax.errors import require
from aigc_jax.evidence import Results
from aigc_jax.locks import alone
from aigc_jax.results import disk_errors
from aigc_jax.sweep import Sweep
from aigc_jax.terminal import print_text

FIGURES = ("figure.png", "figure.pdf")


def write_results(sweep: Sweep, module=None, metric="", report=print_text) -> Results:
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


def render(folder: Path, found: Results, module=None, report=print_text, names=FIGURES):
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


def render_committed(folder: Path, module, metric="", report=print_text):
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
