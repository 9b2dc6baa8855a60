"""Writing of reports: of paths that a user names, and at the end of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aigc_jax.sweeps import experiment as experiments
from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.sweeps.pages.collect import Collection, collect_rows, collect_runs, collect_sweep
from aigc_jax.sweeps.pages.page import find_missing_packages, make_page, require_packages
from aigc_jax.sweeps.presentation import PLAIN, Presentation
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.documents import write_atomically
from aigc_jax.utils.errors import UserError, first_line, mark_argument, require
from aigc_jax.utils.files import require_local_path, suggest_sibling
from aigc_jax.utils.python_files import find_python_file

NAME = "report.html"


def write_report(
    paths: Sequence[str | Path],
    out: Path | None = None,
    experiment: Experiment | None = None,
    metric: str = "",
    chosen: Mapping[str, str] | None = None,
) -> Path:
    """Write the report of a run, of several runs, of a sweep or of an experiment.

    Args:
      paths: directories of runs, or of one sweep or of rows; or the name or the file of
        an experiment, whose committed rows are shown.
      out: the file; None: report.html in the directory of the run or sweep.
      experiment: of a sweep or of rows: whose question, claims and table are shown.
      metric: the first column of the table, such as "test/loss".
      chosen: {"statistic", "interval" or "baseline": value}; what is missing or "" is
        that of the sweep's table.md, else means without a baseline.

    Returns:
      The file.

    Raises:
      UserError: a package is missing, or a path has nothing that can be shown.
    """
    require_packages()
    collection, default = collect_paths(paths, experiment, metric, chosen or {})
    if out is None:
        require(default, f"{mark_argument('out')}=FILE.html is needed: a report of this kind "
                "has no directory of its own")  # fmt: skip
        assert default is not None
        out = default / NAME
    require(out.suffix == ".html", f"{mark_argument('out')}={out} must end in .html")
    page = make_page(collection, out.parent)
    with convert_disk_errors(out):
        write_atomically(out, page)
    return out


def collect_paths(
    paths: Sequence[str | Path],
    experiment: Experiment | None,
    metric: str,
    chosen: Mapping[str, str],
) -> tuple[Collection, Path | None]:  # contents, directory of the file
    """Return the contents of a report of paths, and where its file is by default."""
    for path in paths:
        require_local_path(path)
    first = Path(paths[0])
    if len(paths) == 1 and (first / "sweep.json").exists():
        view = (Sweep(first).read_view() or PLAIN).change(**chosen)
        return collect_sweep(first, experiment, metric, view), first
    view = PLAIN.change(**chosen)
    if len(paths) == 1 and not (first / "config.json").exists():
        if (first / "rows.csv").is_file():
            title = experiment.file.stem if experiment and experiment.file else first.name
            return collect_rows(first, experiment, title, metric, view), first
        return collect_experiment(first, metric, view), None
    for path in map(Path, paths):
        require(
            (path / "config.json").exists(),
            f"{path} is no run: config.json is missing{suggest_path(path)}; several paths must "
            "be runs, such as the trials of a sweep, SWEEP/trials/*",
        )
    require(experiment is None, f"{mark_argument('experiment')} is for a sweep or its rows")
    return collect_runs(paths, metric, view), first if len(paths) == 1 else None


def suggest_path(path: Path) -> str:  # "; did you mean 'x'?" or ""
    """Return a suggestion for a path that does not exist."""
    return "" if path.exists() else suggest_sibling(path)


def collect_experiment(path: Path, metric: str, view: Presentation) -> Collection:
    """Return the contents of a report of an experiment's committed rows."""
    require(
        not path.is_dir(),
        f"{path} has no run, no sweep and no rows.csv: config.json, sweep.json or rows.csv is "
        "missing",
    )
    try:
        file = find_python_file(path, "experiment")
    except UserError:
        raise UserError(
            f"{path} is no directory of a run or a sweep, and no experiment{suggest_path(path)}"
        ) from None
    experiment = experiments.load(file)
    folder = experiment.results_dir
    require(
        (folder / "rows.csv").is_file(),
        f"{folder} has no rows.csv: the experiment has no committed rows; name its sweep",
    )
    return collect_rows(folder, experiment, file.stem, metric, view)


def write_final_report(
    folder: Path,
    experiment: Experiment | None,
    report: Callable[[str], None],
    metric: str = "",
) -> None:
    """Write the report at the end of a sweep, or say in one line why it is missing.

    Args:
      folder: the directory of the sweep.
      experiment: that was trained; None: none.
      report: called with the line.
      metric: as in `write_report`.
    """
    missing = find_missing_packages()
    if missing:
        report(f"report: not written without {' and '.join(missing)} (aigc_jax[report])")
        return
    try:
        path = write_report([folder], None, experiment, metric)
    except Exception as e:  # the sweep is finished: a missing report is no failure of it
        report(f"report: not written: {first_line(e)}")
        return
    report(f"report: {path}")
