"""Requests for sweeps, their validation and execution, shared by `aigc_jax.sweep` and
the verb `sweep` of the command line.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aigc_jax.sweeps import engines, grid, launch, request_checks
from aigc_jax.sweeps import experiment as experiments
from aigc_jax.sweeps import search as searches
from aigc_jax.sweeps.launcher_lock import hold_launcher_lock
from aigc_jax.sweeps.pages.write import write_final_report
from aigc_jax.sweeps.presentation import PLAIN, Presentation
from aigc_jax.sweeps.report import write_sweep_results
from aigc_jax.sweeps.request_json import write_request_json
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.sweeps.trials import ROUTES, Trial, make_trials
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import choose, mark_argument, require
from aigc_jax.utils.quantities import format_count
from aigc_jax.utils.terminal import print_markdown


class Request(NamedTuple):
    """A validated request for a sweep."""

    base: ConfigDict  # of all trials
    trials: list[Trial]  # all trials, or the first batch of a search
    source: str  # the file of the config or of the experiment, or "ConfigDict"
    config: str  # the file of the config in words, or "ConfigDict"
    changes: dict  # {key: value} of `base` in which it differs from the file
    experiment: experiments.Experiment | None = None
    search: experiments.Search | None = None
    halving: dict | None = None


def make_request(
    config: str | Path | ConfigDict | None = None,
    experiment: str | Path | None = None,
    grids: Sequence[list[dict]] = (),
    num_seeds: int = 0,
    overrides: dict | None = None,
) -> Request:
    """Return the request of a config with grids and seeds, or of an experiment.

    Args:
      config: as in `training.config_files.load`.
      experiment: the name or the path of an experiment file, instead of config, grids
        and seeds.
      grids: lists of overrides, whose Cartesian product is trained.
      num_seeds: train each point with the seeds 0 to num_seeds - 1; 0: do not vary the
        seed.
      overrides: {key: value} for all trials.
    """
    require(
        config is None or experiment is None,
        f"{mark_argument('experiment')} and {mark_argument('config')} cannot be combined: use "
        "only one",
    )
    if experiment is not None:
        require(
            not grids and not num_seeds,
            f"{mark_argument('grid')} and {mark_argument('seeds')} need "
            f"{mark_argument('config')}; an experiment defines its own sweep() or search()",
        )
        return _of_experiment(experiment, overrides or {})
    require(
        config is not None,
        f"a sweep needs {mark_argument('experiment')}=FILE, or {mark_argument('config')}=FILE with "
        f"{mark_argument('grid')} and {mark_argument('seeds')}=N",
    )
    assert config is not None
    require(
        grids or num_seeds,
        f"a sweep of a config needs {mark_argument('grid')} or {mark_argument('seeds')}",
    )
    points = combine_grids(grids, num_seeds)
    loaded = config_files.load_with_origins(config)
    base = _override_base(loaded.config, points, overrides or {})
    changes = list_changes(loaded.config, base)
    return Request(base, make_trials(base, points), loaded.source, loaded.source, changes)


def list_changes(before: ConfigDict, after: ConfigDict) -> dict[str, Any]:
    """Return {key: value} of the keys in which a config differs from `before`."""
    leaves = [configs.flatten_config(config) for config in (before, after)]
    return {key: pair[1] for key, pair in configs.differing_leaves(*leaves).items()}


def combine_grids(grids: Sequence[list[dict]], num_seeds: int) -> list[dict]:  # their product
    """Return the overrides of the product of grids and seeds. Raise a UserError if a
    key is varied twice.
    """
    require(
        0 <= num_seeds <= grid.MOST_TRIALS,
        f"{mark_argument('seeds')}={num_seeds} must be a number of seeds, 1 to "
        f"{grid.MOST_TRIALS:,}",
    )
    grids = [*grids, *([grid.seeds(num_seeds)] if num_seeds else [])]
    keys = [key for part in grids for key in dict.fromkeys(k for trial in part for k in trial)]
    for key in keys:
        require(
            keys.count(key) == 1,
            f"{mark_argument('grid')} varies {key} twice: list all its values together"
            + f" ({mark_argument('seeds')} varies seed)" * (key == "seed"),
        )
    return grid.product(*grids)


def _of_experiment(path: str | Path, overrides: dict) -> Request:
    """Return the request of an experiment's file."""
    experiment = experiments.load(path)
    require(
        experiment.run is None,
        f"{mark_argument('experiment')}={path} defines run(), which is not a sweep: run the "
        "experiment with aigc sweep",
    )
    points, search = experiments.list_trial_overrides(experiment), experiment.search
    loaded = config_files.load_with_origins(experiments.find_base_config(experiment))
    base = _override_base(experiments.load_base_config(experiment), points, overrides)
    trials = searches.suggest_first_batch(base, search) if search else make_trials(base, points)
    halving = experiment.halving.to_json() if experiment.halving else None
    changes = list_changes(loaded.config, base)
    return Request(base, trials, str(path), loaded.source, changes, experiment, search, halving)


def _override_base(
    base: ConfigDict, trial_overrides: Sequence[dict], overrides: dict
) -> ConfigDict:  # refuses a key that every trial sets
    """Return the config of all trials with overrides. Raise a UserError for a key that
    every trial sets itself.
    """
    for key, value in overrides.items():
        require(
            not trial_overrides or not all(key in trial for trial in trial_overrides),
            f"{mark_argument('config')}.{key}={value} changes no trial: the sweep sets this key "
            "in each",
        )
    return configs.override(base, overrides)


def check_shown(request: Request, sweep: Sweep, metric: str, baseline: str = "") -> None:
    """Raise a UserError for a metric that no trial measures, or for a baseline that is
    no arm.
    """
    request_checks.check_metric(metric, (trial.config for trial in request.trials))
    request_checks.check_baseline(baseline, sweep, request.trials, bool(request.search))


def run_request(
    request: Request,
    settings: Any,
    route: str = "auto",
    restart: bool = False,
    download: bool = False,
) -> bool | None:  # whether all trials are finished; None: nothing ran
    """Train the unfinished trials of a request in `settings.workdir`.

    Args:
      request: what to train.
      settings: a namespace of engine, workdir and the settings of all engines
        (`engines.SETTINGS`): slots, cpus, gpus, time, partition, slurm, address, image,
        claim.
      route: "auto", "vmap" or "map".
      restart: delete the output of unfinished or damaged groups first.
      download: download missing data.

    Returns:
      Whether all trials are finished; None if the engine wrote a manifest and ran
      nothing.

    Raises:
      UserError: a setting is wrong, or the directory holds a run or another sweep.
    """
    choose(ROUTES, route, "route")
    require(
        not request.search or settings.engine != "k8s",
        f"{mark_argument('engine')}=k8s starts no jobs, but a search needs the results of its "
        "trials: use local, slurm or ray",
    )
    make_engine = choose(engines.ENGINES, settings.engine, "engine")
    engines.check_engine_settings(settings.engine, vars(settings))
    engine = make_engine(settings)
    sweep, extra = Sweep(settings.workdir), None
    require(
        not (sweep.path / "config.json").exists(),
        f"{sweep.path} is a run: a sweep needs a directory of its own",
    )
    if request.halving:
        extra = dict(halving=request.halving)
    if restart:
        launch.delete_unfinished_outputs(sweep)
    if not request.search:
        sweep.add_trials(request.trials, request.source, extra)
    write_request_json(sweep.path, request.experiment, request.config, request.changes)
    options = dict(route=route, download=download)
    train = lambda part: launch.run_unfinished_groups(part, engine, options)
    is_here = settings.engine == "local"
    held = hold_launcher_lock(sweep.path) if is_here else contextlib.nullcontext()
    with _interruptible(), convert_disk_errors(settings.workdir), held:
        if not request.search:
            return train(sweep)
        return searches.run_search(
            sweep, request.base, request.search, request.source, train, extra
        )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that the engine stops the jobs and they can save.
    Only the main thread can set signal handlers in Python; in others, do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_and_check_outcome(
    sweep: Sweep,
    experiment: experiments.Experiment | None,
    is_complete: bool,
    metric: str = "",
    report: Callable[[str], None] = print_markdown,
    with_page: bool = True,
    view: Presentation = PLAIN,
) -> None:  # raises a UserError unless is_complete
    """Write the table, the figure and the report of the existing rows.

    Args:
      sweep: the sweep.
      experiment: whose own table and figure are drawn; None: the defaults.
      is_complete: whether all trials are finished, as `run_request` returns it.
      metric: such as "test/loss"; by default the experiment's.
      report: called with the table, as Markdown, and with messages.
      with_page: whether to write report.html, for which packages may be missing.
      view: statistic, error bar, baseline and style.

    Raises:
      UserError: trials are unfinished; raised after writing.
    """
    if is_complete or sweep.rows():
        write_sweep_results(sweep, experiment, metric, report, view=view)
        if with_page:
            write_final_report(sweep.path, experiment, report, metric)
    require(
        is_complete,
        f"{sweep.path} has "
        f"{format_count(launch.count_unfinished_trials(sweep), 'unfinished trial')}; "
        "the same command resumes the sweep",
    )
