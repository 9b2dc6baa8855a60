"""Experiments that train by a function of their own (`Experiment.run`).

The function runs in this process. WORKDIR gets rows.csv, environment.json, table and
figure, beside what the function writes. New rows of a part replace its earlier rows.
"""

from collections.abc import Sequence
from pathlib import Path

from aigc_jax.sweeps import evidence
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.sweeps.report import FIGURES, render_results
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import argument, choose, require
from aigc_jax.utils.python_files import user_code
from aigc_jax.utils.terminal import print_text


def run_experiment(experiment: Experiment, workdir: Path, only: Sequence[str] = ()) -> None:
    """Train an experiment, or only some parts, and draw its table and figure once all
    parts have rows.
    """
    assert experiment.run is not None and experiment.file is not None
    require(
        not only or experiment.parts,
        f"{argument('only')}={','.join(only)} is for experiments with parts, but "
        f"{experiment.file.stem} has none",
    )
    for part in only:
        choose(dict.fromkeys(experiment.parts), part, argument("only"))
    with disk_errors(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        for part in only or experiment.parts or ("",):
            with user_code(experiment.file, "experiment"):
                rows = list(experiment.run(part, workdir) if part else experiment.run(workdir))
            store_rows(experiment, rows, workdir, environment_of(workdir))
        all_rows = evidence.read_rows(workdir)
        # of "2" a CSV file has the number
        present = {str(row[experiment.column]) for row in all_rows} if experiment.parts else set()
        missing = set(experiment.parts) - present
        if missing:
            print_text(f"no table and figure yet: no rows of {', '.join(sorted(missing))}")
        else:
            render_results(workdir, Results(all_rows, trials=[], varied=[]), experiment)


def environment_of(workdir: Path) -> Path:
    """Return the environment.json of the first run below a directory, by name."""
    paths = sorted(workdir.glob("*/**/environment.json")) or [workdir / "environment.json"]
    require(paths[0].is_file(), f"{workdir} has no run: an experiment's rows come from runs")
    return paths[0]


def store_rows(experiment: Experiment, rows: list[dict], folder: Path, environment: Path) -> None:
    """Write rows.csv and environment.json; with parts, rows of other parts stay."""
    if experiment.parts:
        evidence.replace_rows(folder, experiment.column, rows, environment)
    else:
        evidence.write_rows(folder, rows, environment)


def draw_results(experiment: Experiment, workdir: Path, out: Path, commit: bool) -> None:
    """Draw table and figure of WORKDIR/rows.csv into `out`.

    Args:
      commit: first store the rows beside the experiment, and draw table and figure of
        all rows there.
    """
    require((workdir / "rows.csv").is_file(), f"{workdir} has no rows.csv: train it first")
    folder = workdir
    if commit:
        folder = out = experiment.results
        rows = evidence.read_rows(workdir)
        store_rows(experiment, rows, folder, workdir / "environment.json")
    results = Results(evidence.read_rows(folder), trials=[], varied=[])
    render_results(out, results, experiment, names=FIGURES[:1] if commit else FIGURES)
