"""The Python API of sweeps: `aigc_jax.sweep` and `aigc_jax.load`."""

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from aigc_jax.sweeps import grid as grids
from aigc_jax.sweeps import plots, report
from aigc_jax.sweeps.engines import DEFAULT_SETTINGS
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.sweeps.presentation import Presentation, make_presentation
from aigc_jax.sweeps.request import (
    check_shown,
    make_request,
    run_request,
    write_and_check_outcome,
)
from aigc_jax.sweeps.sweep import Sweep as SweepDir
from aigc_jax.sweeps.trials import find_full_key
from aigc_jax.training import config as configs
from aigc_jax.training import config_identity
from aigc_jax.utils.errors import (
    UserError,
    check_type,
    format_suggestion,
    join_names,
    mark_argument,
    require,
)
from aigc_jax.utils.files import require_local_path
from aigc_jax.utils.quantities import format_count
from aigc_jax.utils.terminal import print_warning

if TYPE_CHECKING:  # sweeps are started and inspected without jax
    from matplotlib.figure import Figure

    from aigc_jax.inference.run import Run

SHOWN = 8  # most trials that an error message names


class Sweep:
    """A sweep on disk, finished or not.

    Args:
      path: the directory of the sweep.
      experiment: whose own table and figure are shown; None: the defaults.

    Raises:
      UserError: the directory is not a sweep.
    """

    def __init__(self, path: str | Path, experiment: Experiment | None = None) -> None:
        self.dir, self.experiment = SweepDir(path), experiment
        self.dir.read_sweep_json()  # raises a UserError if the directory is not a sweep

    @property
    def path(self) -> Path:
        """The directory of the sweep."""
        return self.dir.path

    def __repr__(self) -> str:
        trials = format_count(len(self.dir.read_sweep_json()["trials"]), "trial")
        return f"Sweep({str(self.path)!r}, {trials})"

    def rows(
        self, split: str | None = None
    ) -> list[dict]:  # {trial, varied keys, seed, step, split, values}
        """Return the rows of all trials, or those of one split: {trial, varied keys,
        seed, step, split, values}. `pandas.DataFrame(sweep.rows())` is a table.
        """
        return [row for row in self.dir.rows() if split in (None, row["split"])]

    def trials(self) -> list[dict]:  # {trial, varied keys, seed, status}
        """Return every trial, in order: {trial, varied keys, seed, status}."""
        return self.dir.read_results().trials

    def trial_names(
        self, where: Mapping[str, Any] | None = None, **keys: Any
    ) -> list[str]:  # of the trials with these config values; lr=1e-3: of hp.lr
        """Return the names of the trials with these values, in the order of the trials.

        Args:
          where: {config key: value}, such as {"hp.lr": 1e-3}; None: no values.
          keys: the same as keywords: names(lr=1e-3) if exactly one key is `lr` or ends
            in `.lr`. Without any value, the names of all trials.

        Raises:
          UserError: a name matches no key or several, or no trial's config can have
            these values.
        """
        trial_configs = self._trial_configs()
        changes = dict(where or {})
        for name, value in keys.items():
            changes[find_full_key(name, trial_configs.values())] = value
        out, errors = [], []
        for name, config in trial_configs.items():
            try:
                changed = configs.override(config, changes)
            except UserError as e:  # a key or value that the trial's method does not have
                errors.append(e)
                continue
            if config_identity.hash_identity(changed) == config_identity.hash_identity(config):
                out.append(name)
        if trial_configs and len(errors) == len(trial_configs):
            raise errors[0]
        return out

    def runs(
        self, where: Mapping[str, Any] | None = None, checkpoint: str = "latest", **keys: Any
    ) -> "list[Run]":  # of the trials with these config values; lr=1e-3: of hp.lr
        """Return the runs of the trials with these values, as in `names`.

        Args:
          checkpoint: load the "latest" or the "best" valid checkpoint of each.
        """
        return [self._load_run(name, checkpoint) for name in self.trial_names(where, **keys)]

    def run(
        self, where: Mapping[str, Any] | None = None, checkpoint: str = "latest", **keys: Any
    ) -> "Run":  # of the only trial with these config values
        """Return the run of the only trial with these values: sweep.run(lr=1e-3,
        seed=0). The arguments are those of `runs`.

        Raises:
          UserError: no trial or several trials have these values.
        """
        names = self.trial_names(where, **keys)
        description = ", ".join(f"{k} = {v!r}" for k, v in (dict(where or {}) | keys).items())
        require(
            len(names) == 1,
            f"{len(names) or 'none'} of the {len(self._trial_configs())} trials of {self.path} "
            f"{'has' if not names else 'have'} {description or 'any values'}: "
            + (
                f"{join_names(names, SHOWN)}"
                if names
                else f"they vary {join_names(self.dir.varied_keys())}"
            ),
        )
        return self._load_run(names[0], checkpoint)

    def table(
        self, metric: str = "", *, statistic: str = "mean", interval: str = "", baseline: str = ""
    ) -> str:  # Markdown
        """Return the Markdown table of table.md: the experiment's own table, or the
        default table of statistics over seeds.

        Args:
          metric: such as "test/loss", the first column of the default table, which
            shows the metrics of its split; by default the experiment's, else those of
            the test split, or without test rows of the valid split.
          statistic: "mean", "median" or "iqm", the interquartile mean.
          interval: "se", "sd", "student" or "bootstrap"; default: "se" of a mean.
          baseline: an arm such as "lr=0.001"; a second table has the differences to it.

        Raises:
          UserError: the sweep has no row yet, or no row has the metric.
        """
        view = make_presentation(statistic, interval, baseline)
        results = self._results_with_metric(metric, view)
        return report.make_table(results, self.experiment, print_warning)

    def figure(
        self,
        metric: str = "",
        *,
        statistic: str = "mean",
        interval: str = "",
        baseline: str = "",
        style: str = "plain",
    ) -> "Figure":
        """Return the matplotlib Figure of figure.png: the experiment's own figure, or
        the metric over steps.

        Args:
          metric: such as "valid/loss"; by default the experiment's, else
            config.best_metric, else the first in the rows. For a test metric, the
            default figure shows the valid one.
          statistic, interval, baseline: as in `table`, of the default figure.
          style: "plain", "paper" or "slide".

        Raises:
          UserError: the sweep has no row yet, or no row has the metric.
        """
        view = make_presentation(statistic, interval, baseline, style)
        results = self._results_with_metric(metric, view)
        drawing = report.choose_figure(results, self.experiment, print_warning)
        figure: Any = plots.make_figure(drawing)
        figure._repr_png_ = lambda: _to_png(figure)  # a notebook shows it
        return figure

    def _load_run(self, trial_name: str, checkpoint: str) -> "Run":
        """Return the run of a trial, which imports jax."""
        from aigc_jax.inference.load import load

        return load(self.dir.trial_dir(trial_name).path, checkpoint)

    def _results_with_metric(self, metric: str, view: Presentation) -> Results:
        """Return the rows and trials, with the metric of table and figure."""
        results = self.dir.read_results()._replace(view=view)
        report.check_view_is_read(results, self.experiment)
        require(results.rows, f"{self.path} has no row yet")
        return results._replace(
            metric=metric or report.experiment_metric_or_blank(results, self.experiment)
        )

    def _trial_configs(self) -> dict[str, ConfigDict]:
        """Return {trial: config}, in the order of the trials."""
        by_name = {
            name: config
            for group in self.dir.groups_by_name()
            for name, config in zip(group.members, group.configs(), strict=True)
        }
        return {t["id"]: by_name[t["id"]] for t in self.dir.read_sweep_json()["trials"]}


def _to_png(figure: Any) -> bytes:
    """Return a matplotlib Figure as the bytes of a .png."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def sweep(
    config: str | Path | ConfigDict | None = None,
    grid: Mapping[str, Iterable] | Iterable[Mapping[str, Any]] = (),
    seeds: int = 0,
    workdir: str | Path = "",
    overrides: Mapping[str, Any] | None = None,
    *,
    experiment: str | Path | None = None,
    engine: str = "local",
    slots: int = 0,
    engine_settings: Mapping | None = None,
    route: str = "auto",
    metric: str = "",
    restart: bool = False,
    download: bool = False,
    report: bool = True,
) -> Sweep:
    """Train every trial of a grid or an experiment in separate processes and return the
    sweep. Trials that are finished in `workdir` are not trained again.

    On Ctrl-C (in a notebook: interrupt) or SIGTERM the processes save, and
    KeyboardInterrupt is raised; the same call resumes the sweep. GPU memory that this
    process has allocated is not available to the trials.

    Args:
      config: the name of a shipped config, the path of a Python file with
        get_config(), or a ConfigDict.
      grid: {"hp.lr": [1e-4, 1e-3], "latent_dims": [(2,), (8,)]}, whose Cartesian
        product is trained; or a list of overrides, each such as
        {"hp.lr": 1e-4, "seed": 3}, as `aigc_jax.sweeps.grid` makes.
      seeds: train each point of the grid with the seeds 0 to seeds - 1; 0: with the
        seed of the config or of the grid.
      workdir: the output directory of rows.csv, table.md, figure.png, report.html, and
        one run directory per trial.
      overrides: keys of the config of all trials, such as {"steps": "10 epochs"}.
      experiment: instead of config, grid and seeds, the name or the path of a file
        that defines EXPERIMENT = Experiment(...) with a sweep or a search.
      engine: where the programs run, "local", "slurm", "ray" or "k8s".
      slots: the number of concurrent programs; 0: "local" runs one per GPU, or one
        without GPUs, "slurm" and "k8s" run all. "ray" accepts only 0.
      engine_settings: settings of the other engines: cpus, gpus, time, partition,
        slurm, address, image, claim, as on the command line.
      route: run the trials of a program all at once ("vmap"), one after another
        ("map"), or by the faster of both ("auto").
      metric: the metric of table.md and figure.png, such as "valid/loss"; the default
        is that of `Sweep.table` and `Sweep.figure`.
      restart: delete the output of unfinished or damaged groups first.
      download: download missing data.
      report: write report.html at the end, if the packages of aigc_jax[report] are
        installed.

    Raises:
      UserError: an argument is wrong (raised before training), or trials could not be
        finished; `aigc_jax.load(workdir)` then returns the sweep with the others.

    Examples:
      >>> import aigc_jax
      >>> small = {"steps": 12, "nll_samples": 10, "latent_dims": (2,)}
      >>> sweep = aigc_jax.sweep(
      ...     "vae_digits", {"hp.lr": [1e-3, 1e-2]}, 2, "runs/lr", overrides=small
      ... )
      >>> sweep
      Sweep('runs/lr', 4 trials)
      >>> [(trial["hp.lr"], trial["seed"], trial["status"]) for trial in sweep.trials()]
      [(0.001, 0, 'done'), (0.001, 1, 'done'), (0.01, 0, 'done'), (0.01, 1, 'done')]
      >>> {row["step"] for row in sweep.rows("test")}  # pandas.DataFrame(sweep.rows())
      {12}
      >>> sweep.run(lr=1e-2, seed=1).sample(3).shape
      (3, 8, 8, 1)
      >>> len(sweep.runs({"hp.lr": 1e-3}))
      2
      >>> sweep.figure("valid/neg_elbo").axes[0].get_ylabel()
      'valid neg_elbo (nats)'
    """
    _check_arguments(workdir, overrides, seeds, slots, engine_settings or {})
    request = make_request(config, experiment, _as_grids(grid), seeds, dict(overrides or {}))
    check_shown(request, SweepDir(workdir), metric)
    settings = DEFAULT_SETTINGS | dict(engine_settings or {})
    settings |= dict(engine=engine, slots=slots, workdir=workdir)
    try:
        complete = run_request(request, SimpleNamespace(**settings), route, restart, download)
    except KeyboardInterrupt:
        print_warning("stopped: the running trials save a checkpoint; the same call resumes")
        raise
    if complete is not None:  # None: the engine wrote a manifest and ran nothing
        write_and_check_outcome(
            SweepDir(workdir), request.experiment, complete, metric, _say_nothing, report
        )
    return Sweep(workdir, request.experiment)


def _check_arguments(
    workdir: str | Path,
    overrides: Mapping | None,
    seeds: int,
    slots: int,
    engine_settings: Mapping,
) -> None:
    """Raise a UserError if an argument of `sweep` has a wrong type."""
    check_type("workdir", workdir, (str, Path), "a directory")
    require(str(workdir), f"{mark_argument('workdir')}='' must name a directory")
    require_local_path(workdir, f"{mark_argument('workdir')}={workdir}")
    if overrides is not None:
        check_type("overrides", overrides, Mapping, "a dict such as {'steps': '10 epochs'}")
    for name, value in dict(seeds=seeds, slots=slots).items():
        check_type(name, value, int, f"a number of {name}")
    known = [name for name in DEFAULT_SETTINGS if name != "slots"]
    for name in engine_settings:
        require(
            name in known,
            f"engine_settings[{name!r}] is none of "
            f"{join_names(known)}{format_suggestion(name, known)}",
        )


def _say_nothing(text: str) -> None:
    """Print nothing: `Sweep.table` returns the table."""


def _as_grids(grid: Any) -> list[list[dict]]:
    """Return lists of overrides, whose Cartesian product is the grid."""
    if not isinstance(grid, Mapping):
        check_type("grid", grid, (list, tuple, Iterator), "a dict such as {'hp.lr': [1e-4, 1e-3]}")
        overrides = list(grid)
        for trial in overrides:
            require(
                isinstance(trial, Mapping),
                f"{mark_argument('grid')} has {trial!r}: it must be a dict such as "
                "{'hp.lr': [1e-4, 1e-3]}, or a list of overrides such as {'hp.lr': 1e-4}",
            )
        return [[dict(trial) for trial in overrides]] if overrides else []
    for key, values in grid.items():
        require(
            isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping)),
            f"{mark_argument('grid')}[{key!r}] = {values!r} must be a list of values",
        )
    return [grids.values(key, *values) for key, values in grid.items()]


def load(
    path: str | Path, checkpoint: str = "latest", data_dir: str | None = None
) -> "Run | Sweep":
    """Load the run or the sweep in a work directory, or a GPT-2 directory as a run.

    Args:
      path: the directory.
      checkpoint: load the "latest" or the "best" valid checkpoint of a run.
      data_dir: the directory of the data sets, instead of config.run.data_dir.

    Raises:
      UserError: the directory contains none of them, or `checkpoint` is "best" and
        the directory is a sweep or a run without a best checkpoint.

    Examples:
      >>> aigc_jax.load("runs/gan").step
      20
      >>> aigc_jax.load("runs/lr")
      Sweep('runs/lr', 4 trials)
    """
    check_type("path", path, (str, Path), "the directory of a run or of a sweep")
    require(str(path), f"{mark_argument('path')}='' must name the directory of a run or of a sweep")
    if (Path(path) / "sweep.json").is_file():
        require(
            checkpoint == "latest",
            f"{path} is a sweep: {mark_argument('checkpoint')}={checkpoint} is for one of its "
            f"runs, such as sweep.run(seed=0, {mark_argument('checkpoint')}={checkpoint!r})",
        )
        return Sweep(path)
    from aigc_jax.inference.load import load as load_run

    return load_run(path, checkpoint, data_dir)
