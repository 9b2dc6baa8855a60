"""Experiments that train by a function of their own (`Experiment.run`).

The function runs in this process. WORKDIR gets rows.csv, environment.json, table and
figure, beside what the function writes. New rows of a part replace its earlier rows.
"""

from collections.abc import Sequence
from pathlib import Path

from aigc_jax.core.compilation_cache import enable_compilation_cache
from aigc_jax.sweeps import evidence
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.sweeps.presentation import PLAIN, Presentation
from aigc_jax.sweeps.report import render_results
from aigc_jax.sweeps.request_json import check_experiment, write_request_json
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import choose, mark_argument, require
from aigc_jax.utils.python_files import convert_user_code_errors
from aigc_jax.utils.terminal import print_text


def run_experiment(
    experiment: Experiment, workdir: Path, only_parts: Sequence[str] = ()
) -> None:  # in this process
    """Train an experiment, or only some parts, and draw its table and figure once all
    parts have rows.

    Args:
      experiment: an experiment with `run`.
      workdir: the directory that `run` and the rows are written to.
      only_parts: names of the parts to train; (): all.

    Raises:
      UserError: a part does not exist, the experiment fails, or it leaves no run.
    """
    assert experiment.run is not None and experiment.file is not None
    require(
        not only_parts or experiment.parts,
        f"{mark_argument('only')}={','.join(only_parts)} is for experiments with parts, but "
        f"{experiment.file.stem} has none",
    )
    for part in only_parts:
        choose(dict.fromkeys(experiment.parts), part, mark_argument("only"))
    enable_compilation_cache()
    with convert_disk_errors(workdir):
        write_request_json(workdir, experiment)
        for part in only_parts or experiment.parts or ("",):
            with convert_user_code_errors(experiment.file, "experiment"):
                rows = list(experiment.run(part, workdir) if part else experiment.run(workdir))
            store_rows(experiment, rows, workdir, find_environment_file(workdir))
        all_rows = evidence.read_rows(workdir)
        # of "2" a CSV file has the number
        present = {str(row[experiment.column]) for row in all_rows} if experiment.parts else set()
        missing = set(experiment.parts) - present
        if missing:
            print_text(f"no table and figure yet: no rows of {', '.join(sorted(missing))}")
        else:
            render_results(workdir, Results(all_rows, trials=[], varied=[]), experiment)


def find_environment_file(workdir: Path) -> Path:  # of its first run
    """Return the environment.json of the first run below a directory, by name."""
    paths = sorted(workdir.glob("*/**/environment.json")) or [workdir / "environment.json"]
    require(paths[0].is_file(), f"{workdir} has no run: an experiment's rows come from runs")
    return paths[0]


def store_rows(
    experiment: Experiment, rows: list[dict], folder: Path, environment_file: Path
) -> None:  # rows of other parts stay
    """Write rows.csv and environment.json; with parts, rows of other parts stay.

    Args:
      experiment: whose `parts` and `column` name the parts.
      rows: the new rows.
      folder: the directory to write.
      environment_file: an environment.json to copy.
    """
    if experiment.parts:
        evidence.replace_rows(folder, experiment.column, rows, environment_file)
    else:
        evidence.write_rows(folder, rows, environment_file)


def draw_results(
    experiment: Experiment,
    workdir: Path,
    out_dir: Path,
    commit: bool,
    view: Presentation = PLAIN,
) -> None:  # commit: into experiment.results_dir
    """Draw table and figure of WORKDIR/rows.csv.

    Args:
      experiment: an experiment with `run`.
      workdir: the directory that `run_experiment` wrote.
      out_dir: the directory of table and figure, ignored by `commit`.
      commit: first store the rows beside the experiment, and draw table and figure of
        all rows there.
      view: statistic, error bar, baseline and style.

    Raises:
      UserError: WORKDIR has no rows.csv.
    """
    require((workdir / "rows.csv").is_file(), f"{workdir} has no rows.csv: train it first")
    check_experiment(workdir, experiment)
    folder = workdir
    if commit:
        folder = out_dir = experiment.results_dir
        rows = evidence.read_rows(workdir)
        store_rows(experiment, rows, folder, workdir / "environment.json")
    results = Results(evidence.read_rows(folder), trials=[], varied=[], view=view)
    render_results(out_dir, results, experiment)
