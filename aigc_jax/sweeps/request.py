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

from aigc_jax.core import config as configs
from aigc_jax.sweeps import engines, grid, launch
from aigc_jax.sweeps import experiment as experiments
from aigc_jax.sweeps import search as searches
from aigc_jax.sweeps.report import write_results
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.sweeps.trials import ROUTES, Trial, trials_of
from aigc_jax.utils.disk import cache_dir, disk_errors
from aigc_jax.utils.errors import argument, choose, require
from aigc_jax.utils.terminal import print_text


class Request(NamedTuple):
    """A validated request for a sweep."""

    base: ConfigDict  # of all trials
    trials: list[Trial]  # all trials, or the first batch of a search
    source: str  # the file of the config or of the experiment, or "ConfigDict"
    experiment: experiments.Experiment | None = None
    search: experiments.Search | None = None
    halving: dict | None = None


def make_request(
    config: Any = None,
    experiment: str | Path | None = None,
    grids: Sequence[list[dict]] = (),
    seeds: int = 0,
    overrides: dict | None = None,
) -> Request:
    """Return the request of a config with grids and seeds, or of an experiment.

    Args:
      config: as in `core.config.load`.
      experiment: the name or the path of an experiment file, instead of config, grids
        and seeds.
      grids: lists of overrides, whose Cartesian product is trained.
      seeds: train each point with the seeds 0 to seeds - 1; 0: do not vary the seed.
      overrides: {key: value} for all trials.
    """
    require(
        config is None or experiment is None,
        f"{argument('experiment')} and {argument('config')} cannot be combined: use only one",
    )
    if experiment is not None:
        require(
            not grids and not seeds,
            f"{argument('grid')} and {argument('seeds')} need {argument('config')}; an "
            "experiment defines its own sweep() or search()",
        )
        return _of_experiment(experiment, overrides or {})
    require(
        config is not None,
        f"a sweep needs {argument('experiment')}=FILE, or {argument('config')}=FILE with "
        f"{argument('grid')} and {argument('seeds')}=N",
    )
    points = combine_grids(grids, seeds)
    base = _override(configs.load(config), points, overrides or {})
    source = "ConfigDict" if isinstance(config, ConfigDict) else str(config)
    return Request(base, trials_of(base, points), source)


def combine_grids(grids: Sequence[list[dict]], seeds: int) -> list[dict]:
    """Return the overrides of the product of grids and seeds. Raise a UserError if a
    key is varied twice.
    """
    require(
        0 <= seeds <= grid.MOST_TRIALS,
        f"{argument('seeds')}={seeds} must be a number of seeds, 1 to {grid.MOST_TRIALS:,}",
    )
    grids = [*grids, *([grid.seeds(seeds)] if seeds else [])]
    keys = [key for part in grids for key in dict.fromkeys(k for trial in part for k in trial)]
    for key in keys:
        require(
            keys.count(key) == 1,
            f"{argument('grid')} varies {key} twice: list all its values together"
            + f" ({argument('seeds')} varies seed)" * (key == "seed"),
        )
    return grid.product(*grids)


def _of_experiment(path: str | Path, overrides: dict) -> Request:
    experiment = experiments.load(path)
    require(
        experiment.run is None,
        f"{argument('experiment')}={path} defines run(), which is not a sweep: run the "
        "experiment with aigc sweep",
    )
    points, search = experiments.trial_overrides(experiment), experiment.search
    base = _override(experiments.base_config(experiment), points, overrides)
    trials = searches.first_batch(base, search) if search else trials_of(base, points)
    halving = experiment.halving.to_json() if experiment.halving else None
    return Request(base, trials, str(path), experiment, search, halving)


def _override(base: ConfigDict, points: Sequence[dict], overrides: dict) -> ConfigDict:
    for key, value in overrides.items():
        require(
            not points or not all(key in trial for trial in points),
            f"{argument('config')}.{key}={value} changes no trial: the sweep sets this key in each",
        )
    return configs.override(base, overrides)


def check_metric(metric: str) -> None:
    """Raise a UserError for a metric that no row can have, before training."""
    split, _, name = metric.partition("/")
    splits = ("train", "valid", "test")
    require(
        not metric or split in splits and name,
        f"{argument('metric')}={metric} must be SPLIT/NAME, such as valid/{name or split}, with a "
        f"split of {', '.join(splits)}",
    )


def run_request(
    request: Request,
    settings: Any,
    route: str = "auto",
    restart: bool = False,
    download: bool = False,
) -> bool | None:
    """Train the unfinished trials of a request in `settings.workdir`.

    Args:
      settings: engine, workdir and the settings of the engines: slots, cpus, gpus,
        time, partition, slurm, address, image, claim.
      route: "auto", "vmap" or "map".
      restart: delete the output of unfinished or damaged groups first.
      download: download missing data.

    Returns:
      Whether all trials are finished; None if the engine wrote a manifest and ran
      nothing.
    """
    choose(ROUTES, route, "route")
    require(
        not request.search or settings.engine != "k8s",
        f"{argument('engine')}=k8s starts no jobs, but a search needs the results of its "
        "trials: use local, slurm or ray",
    )
    make_engine = choose(engines.ENGINES, settings.engine, "engine")
    engines.check_settings(settings.engine, vars(settings))
    engine = make_engine(settings, cache_dir("xla"))
    sweep, extra = Sweep(settings.workdir), None
    require(
        not (sweep.path / "config.json").exists(),
        f"{sweep.path} is a run: a sweep needs a directory of its own",
    )
    if request.halving:
        extra = dict(halving=request.halving)
    if restart:
        launch.clear_unfinished(sweep)
    if not request.search:
        sweep.add(request.trials, request.source, extra)
    options = dict(route=route, download=download)
    train = lambda part: launch.run_groups(part, engine, options)
    with _interruptible(), disk_errors(settings.workdir):
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


def write_outcome(
    sweep: Sweep,
    experiment: experiments.Experiment | None,
    complete: bool,
    metric: str = "",
    report: Callable = print_text,
) -> None:
    """Write the table and the figure of the existing rows. Raise a UserError if trials
    are unfinished.
    """
    if complete or sweep.rows():
        write_results(sweep, experiment, metric, report)
    require(
        complete,
        f"{launch.count_unfinished(sweep)} trials of {sweep.path} are not finished; the same "
        "command resumes them",
    )
