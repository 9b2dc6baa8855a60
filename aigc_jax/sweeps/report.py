"""Table and figure of a sweep, or of the committed results of an experiment."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aigc_jax.sweeps import differences, evidence, plots, tables
from aigc_jax.sweeps.curves import collect_curves, describe_curves, tabulate_curves
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.sweeps.presentation import PLAIN, Presentation, escape_markdown
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.training.run_dir import DAMAGED
from aigc_jax.utils import documents
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import mark_argument, require
from aigc_jax.utils.locks import exclusive_lock
from aigc_jax.utils.terminal import print_markdown

T = TypeVar("T")


def write_sweep_results(
    sweep: Sweep,
    experiment: Experiment | None = None,
    metric: str = "",
    report: Callable[[str], None] = print_markdown,
    out_dir: Path | None = None,
    view: Presentation = PLAIN,
) -> Results:
    """Write rows.csv to the sweep's directory, and table.md, figure.png, figure.pdf and
    figure.csv; print the table. Return the results.

    Args:
      sweep: the sweep.
      experiment: whose own table and figure are drawn; None: the defaults.
      metric: such as "test/loss"; by default the experiment's.
      report: called with the table, as Markdown, and with messages.
      out_dir: directory of table and figure; None: the sweep's directory.
      view: statistic, error bar, baseline and style.

    Raises:
      UserError: the sweep has no row, or no row has the metric.
    """
    results = sweep.read_results()._replace(view=view)
    require(results.rows, f"{sweep.path} has no row yet")
    with convert_disk_errors(sweep.path), exclusive_lock(sweep.path):
        documents.write_atomically(sweep.path / "rows.csv", evidence.format_csv(results.rows))
        results = results._replace(rows=evidence.read_rows(sweep.path))
        results = results._replace(metric=metric or experiment_metric_or_blank(results, experiment))
        with convert_disk_errors(out_dir or sweep.path):
            render_results(out_dir or sweep.path, results, experiment, report)
        if out_dir is None:
            sweep.store_view(view)
    return results


def experiment_metric_or_blank(
    results: Results, experiment: Experiment | None
) -> str:  # "" while no row of an unfinished sweep has the metric
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
    report: Callable[[str], None] = print_markdown,
) -> None:  # writes and prints; folder None: only prints
    """Write the table and the figure of results, the experiment's own or the defaults,
    with notes about missing trials.

    Args:
      folder: the directory to write; None: only print the table.
      results: the results.
      experiment: whose own table and figure are drawn; None: the defaults.
      report: called with the table, as Markdown, and with messages.
    """
    check_view_is_read(results, experiment)
    text = make_table(results, experiment, report)
    if folder is None:
        report(text)
        return
    folder.mkdir(parents=True, exist_ok=True)
    drawing = choose_figure(results, experiment, report)
    plots.save_table_and_figures(folder, text, drawing)
    report(text)
    report(f"figure: {folder / plots.FIGURES[0]}")


def check_view_is_read(results: Results, experiment: Experiment | None) -> None:
    """Raise a UserError for a statistic or an error bar that an experiment with its own
    table and figure does not read.
    """
    own = experiment is not None and experiment.table and experiment.figure
    for name, usual in (("statistic", "mean"), ("interval", "")):
        value = getattr(results.view, name)
        require(
            not own or value == usual,
            f"{mark_argument(name)}={value} has no effect: the experiment defines its own table "
            "and figure",
        )


def make_notes(results: Results) -> list[str]:  # on the trials that table and figure lack
    """Return notes about the trials that table and figure lack, with the reasons. Raise
    a UserError if no row has the metric.
    """
    if results.metric:
        tables.parse_metric(results.metric, results.rows, results.varied)
    if not results.trials:  # rows of a script, which need not have splits
        return []
    return tables.describe_missing_trials(
        results, tables.choose_table_split(results.rows, results.metric)
    )


def make_table(
    results: Results, experiment: Experiment | None, report: Callable[[str], None]
) -> str:  # Markdown
    """Return the experiment's own table, or the default table, with notes. `report` is
    that of `render_results`.
    """
    notes = make_notes(results) + tables.describe_failed_trials(results)
    table = experiment and experiment.table
    own = (
        make_or_none_if_incomplete(lambda: table(results.rows), results, report) if table else None
    )
    out = own or tables.format_summary_table(results)
    if own and experiment is not None and experiment.caption:
        notes = [experiment.caption, *notes]
    out += "".join(f"\n{escape_markdown(note)}\n" for note in notes)
    if results.view.baseline:
        column = experiment.column if experiment else ""
        out += differences.format_differences(differences.compute_differences(results, column))
    return out


def choose_figure(
    results: Results, experiment: Experiment | None, report: Callable[[str], None]
) -> plots.Drawing:
    """Return the experiment's own figure, or the default. `report` is that of
    `render_results`.
    """
    return choose_experiment_figure(
        results, experiment, make_notes(results), report
    ) or choose_default_figure(results)


def choose_experiment_figure(
    results: Results,
    experiment: Experiment | None,
    notes: Sequence[str],
    report: Callable[[str], None],
) -> plots.Drawing | None:
    """Return the experiment's own figure; None if it has none or fails
    (`make_or_none_if_incomplete`). The `notes` are drawn below.
    """
    if experiment is None or experiment.figure is None:
        return None
    figure = experiment.figure
    drawing = plots.Drawing(
        lambda axes: figure(results.rows, axes),
        experiment.size,
        experiment.panels,
        [experiment.caption] * bool(experiment.caption) + list(notes),
        style=results.view.style,
    )
    drawn = make_or_none_if_incomplete(lambda: plots.make_figure(drawing), results, report)
    return drawing if drawn else None


def make_or_none_if_incomplete(
    make: Callable[[], T], results: Results, report: Callable[[str], None]
) -> T | None:  # raises the failure if all trials are done
    """Return make(), or None if it fails and trials are missing.

    Args:
      make: () -> an experiment's own table or figure.
      results: if all trials are done, a failure is a bug of the experiment and is
        raised.
      report: called with a message about the failure.
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


def write_committed_results(
    sweep: Sweep, results: Results, folder: Path, experiment: Experiment | None
) -> None:
    """Write rows, trials, table, figure and a run's environment to an experiment's
    directory.

    Args:
      sweep: the sweep, whose first environment.json is copied.
      results: its results.
      folder: the directory to write, such as `Experiment.results_dir`.
      experiment: whose own table and figure are drawn; None: the defaults.

    Raises:
      UserError: a trial is damaged, or none has an environment.json.
    """
    damaged = [t for t in results.trials if t["status"] == DAMAGED]
    require(
        not damaged,
        f"{sweep.path}: {', '.join(t['trial'] for t in damaged)}: damaged trials are not "
        f"committed: repeat the sweep with {mark_argument('restart')}",
    )
    environments = [sweep.trial_dir(t["trial"]) / "environment.json" for t in results.trials]
    environments = [path for path in environments if path.is_file()]
    require(
        environments,
        f"{sweep.path}: no trial has an environment.json, which is stored with the rows",
    )
    evidence.write_results(folder, results, environments[0])
    render_results(folder, results, experiment)


def render_committed_results(
    folder: Path,
    out_dir: Path | None,
    experiment: Experiment | None,
    metric: str = "",
    report: Callable[[str], None] = print_markdown,
    view: Presentation = PLAIN,
) -> None:  # writes and prints; out_dir None: only prints
    """Write the table and the figure of committed rows.

    Args:
      folder: the directory of the rows.
      out_dir: the directory of table.md and the figure; None: only print the table.
      experiment: whose own table and figure are drawn; None: the defaults.
      metric: such as "test/loss"; "": the metric of the committed results.
      report: called with the table, as Markdown, and with messages.
      view: statistic, error bar, baseline and style.

    Raises:
      UserError: the folder has no rows.csv; or no trials.json, and the experiment lacks
        its own table or figure, or `metric` is set.
    """
    require(
        (folder / "rows.csv").is_file(),
        f"{folder} has no rows.csv; set {mark_argument('workdir')}=SWEEP to a sweep of your own",
    )
    results = evidence.read_results(folder)
    if (
        results is None
    ):  # written by a script: only the experiment's own functions know the varied keys
        require(
            experiment is not None and experiment.table and experiment.figure,
            f"{folder} has no trials.json, and the experiment defines no table and figure: "
            f"commit the rows again with {mark_argument('workdir')}=SWEEP "
            f"{mark_argument('commit')}",
        )
        require(
            not metric,
            f"{mark_argument('metric')}={metric} has no effect: the experiment defines its "
            "own table and figure",
        )
        results = Results(evidence.read_rows(folder), trials=[], varied=[])
        results = results._replace(metric=experiment.metric if experiment else "")
    results = results._replace(metric=metric or results.metric, view=view)
    render_results(out_dir, results, experiment, report)


def choose_default_figure(results: Results) -> plots.Drawing:
    """Return the figure of the metric over steps; a test metric, whose curve has one
    point, is replaced by the valid metric. With a baseline, a second panel shows the
    differences.
    """
    rows, metric, varied, style = results.rows, results.metric, results.varied, results.view.style
    if not metric or metric.startswith("test/"):
        metric = tables.choose_default_metric(
            rows, metric.replace("test/", "valid/") or results.best, varied
        )
    if not tables.has_metric(metric, rows, varied):
        notes = [
            *tables.describe_missing_trials(results, tables.choose_table_split(rows, "")),
            "No row has a finite number.",
        ]
        return plots.Drawing(lambda axes: None, notes=notes, tabulate=list, style=style)
    split, _, name = metric.partition("/")
    curves = collect_curves(results, metric)
    shown = [trial for curve in curves for trial in curve.shown]
    drawing = plots.Drawing(
        lambda axes: plots.draw_curves(results, metric, axes),
        plots.choose_figure_size(len(curves)),
        notes=[
            *tables.describe_missing_trials(results, split, name, shown),
            *describe_curves(curves, metric, results),
        ],
        tabulate=lambda: tabulate_curves(curves, metric, results),
        style=style,
    )
    return add_differences(drawing, results) if results.view.baseline else drawing


def add_differences(drawing: plots.Drawing, results: Results) -> plots.Drawing:
    """Return a figure with a panel of the differences to the baseline on the right."""
    tabulate = drawing.tabulate or list
    found = differences.compute_differences(results)

    def draw(axes: Any) -> None:
        drawing.draw(axes[0])
        differences.draw_differences(found, axes[1])

    return drawing._replace(
        draw=draw,
        size=(drawing.size[0] + 4, drawing.size[1]),
        panels=(1, 2),
        notes=[*drawing.notes, *differences.describe_differences(found)],
        tabulate=lambda: tabulate() + differences.tabulate_differences(found),
    )
