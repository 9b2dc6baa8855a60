"""What is to be swept, and how it is carried out: one way for `aigc_jax.sweep` and for
the verb `sweep` of the command line.
"""

import contextlib
import signal
import threading
from types import ModuleType
from typing import NamedTuple

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
    """What is to be swept, checked and complete."""

    base: ConfigDict  # of all trials
    trials: list[Trial]  # of a search its first batch
    source: str  # the file that says it
    module: ModuleType | None = None  # of an experiment
    search: experiments.Search | None = None
    halving: dict | None = None


def make_request(config=None, experiment=None, grids=(), seeds=0, overrides=None) -> Request:
    """A config with grids, each a list of overrides, of which all combinations are
    trained, and seeds; or an experiment. overrides: of all trials.
    """
    require(
        config is None or experiment is None,
        f"{argument('experiment')} and {argument('config')} are two ways to say what is swept: "
        "give one",
    )
    if experiment is not None:
        require(
            not grids and not seeds,
            f"{argument('grid')} and {argument('seeds')} go with {argument('config')}; an "
            "experiment has its own sweep() or search()",
        )
        return _of_experiment(experiment, overrides or {})
    require(
        config is not None,
        f"a sweep needs {argument('experiment')}=FILE, or {argument('config')}=FILE with "
        f"{argument('grid')} and {argument('seeds')}=N",
    )
    given = combine(grids, seeds)
    base = _override(configs.load(config), given, overrides or {})
    source = "ConfigDict" if isinstance(config, ConfigDict) else str(config)
    return Request(base, trials_of(base, given), source)


def combine(grids, seeds: int) -> list[dict]:
    """The trials of grids and seeds, which vary each key once."""
    require(
        0 <= seeds <= grid.MOST_TRIALS,
        f"{argument('seeds')}={seeds} must be a number of seeds, 1 to {grid.MOST_TRIALS:,}",
    )
    grids = [*grids, *([grid.seeds(seeds)] if seeds else [])]
    keys = [key for given in grids for key in dict.fromkeys(k for trial in given for k in trial)]
    for key in keys:
        require(
            keys.count(key) == 1,
            f"{argument('grid')} varies {key} twice: give all its values at once"
            + f" ({argument('seeds')} varies seed)" * (key == "seed"),
        )
    return grid.product(*grids)


def _of_experiment(path, overrides) -> Request:
    module = experiments.load(path)
    base, given = experiments.base(module, path), experiments.overrides(module, path)
    base, search = _override(base, given, overrides), experiments.search(module)
    halving = experiments.halving(module)
    trials = searches.first_batch(base, search) if search else trials_of(base, given)
    return Request(base, trials, str(path), module, search, halving)


def _override(base, given, overrides) -> ConfigDict:
    for key, value in overrides.items():
        require(
            not given or not all(key in trial for trial in given),
            f"{argument('config')}.{key}={value} changes no trial: the sweep sets this key in each",
        )
    return configs.override(base, overrides)


def check_metric(metric: str) -> None:
    """A UserError for a metric that no row can have, before anything is trained."""
    split, _, name = metric.partition("/")
    splits = ("train", "valid", "test")
    require(
        not metric or split in splits and name,
        f"{argument('metric')}={metric} must be SPLIT/NAME, such as valid/{name or split}, with a "
        f"split of {', '.join(splits)}",
    )


def carry_out(
    request: Request, settings, route="auto", restart=False, download=False
) -> bool | None:
    """Train what is missing in `settings.workdir`. True if all is finished in the end;
    None where the engine wrote down what is to be run, and runs nothing.

    settings   engine, workdir and what engines read: slots, cpus, gpus, time,
               partition, slurm, address, image, claim
    """
    choose(ROUTES, route, "route")
    require(
        not request.search or settings.engine != "k8s",
        f"{argument('engine')}=k8s runs nothing by itself, and a search must see results: use "
        "local, slurm or ray",
    )
    make_engine = choose(engines.ENGINES, settings.engine, "engine")
    engines.check_settings(settings.engine, vars(settings))
    engine = make_engine(settings, cache_dir("xla"))
    sweep, kept = Sweep(settings.workdir), None
    require(
        not (sweep.path / "config.json").exists(),
        f"{sweep.path} is a run: a sweep needs a directory of its own",
    )
    if request.halving:
        kept = dict(halving=request.halving)
    if restart:
        launch.restart(sweep)
    if not request.search:
        sweep.add(request.trials, request.source, kept)
    options = dict(route=route, download=download)
    train = lambda part: launch.carry_out(part, engine, options)
    with _interruptible(), disk_errors(settings.workdir):
        if not request.search:
            return train(sweep)
        return searches.carry_out(sweep, request.base, request.search, request.source, train, kept)


@contextlib.contextmanager
def _interruptible():
    """SIGTERM is like Ctrl-C: jobs are told to stop, and may save. Python lets the main
    thread alone say so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def finish(sweep: Sweep, module, complete: bool, metric="", report=print_text):
    """Table and figure of what there is; a UserError where trials are not finished."""
    if complete or sweep.rows():
        write_results(sweep, module, metric, report)
    require(
        complete,
        f"{launch.open_trials(sweep)} trials of {sweep.path} are not finished; the same "
        "command goes on with them",
    )
