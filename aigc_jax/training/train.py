"""Training of N trials as one program: prepare their data and configs, open their work
directories, build their programs, and train their states (`train_configs` in full).
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aigc_jax import data, methods
from aigc_jax.core import distributed
from aigc_jax.core.mesh import list_devices
from aigc_jax.data.dataset import Dataset, hash_arrays_and_splits
from aigc_jax.training import config as configs
from aigc_jax.training import loggers, resume
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.evaluation import Evaluator
from aigc_jax.training.feature_extractors import make_extractor
from aigc_jax.training.identity import check_identity
from aigc_jax.training.loggers.base import FailureReport
from aigc_jax.training.loop import Loop
from aigc_jax.training.memory import convert_training_errors
from aigc_jax.training.programs import Programs
from aigc_jax.training.progress import Profile
from aigc_jax.training.provenance import write_run_files
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.trial import Trial
from aigc_jax.utils.disk import convert_disk_errors, describe_error
from aigc_jax.utils.errors import mark_argument, require
from aigc_jax.utils.terminal import print_warning


class Options(NamedTuple):
    """Options of a training run; by default it resumes and trains to the last step."""

    stop_at: int | None = None  # the step at which to evaluate, save and stop
    parent: resume.ParentRung | None = None  # the rung whose states to begin with
    profile: tuple[int, ...] = ()  # first and last of the steps to trace
    report: Callable[[str], None] = print_warning


DEFAULT = Options()


def load_and_resolve(
    trial_configs: Sequence[ConfigDict], download: bool = False
) -> tuple[Dataset, list[ConfigDict]]:  # -> data set, resolved configs
    """Check the configs of the trials of one program and load their data set. Return
    the data set and the configs, whose durations are in steps.

    Args:
      trial_configs: one config per trial; all have the same `data`.
      download: fetch missing data.

    Raises:
      UserError: a config is invalid, or the data or a logger's package are missing.
    """
    first = trial_configs[0]
    loggers.check_loggers_installed(first.run.log)
    for config in trial_configs:  # before the data, which may take minutes
        configs.validate_config(config)
    dataset = data.load(first.data, first.run.data_dir, download)
    resolve = lambda config: configs.resolve_durations(
        config, dataset.spec.n_train, methods.examples_per_step(config)
    )
    return dataset, [resolve(config) for config in trial_configs]


@contextlib.contextmanager
def open_trials(
    resolved_configs: Sequence[ConfigDict],
    workdirs: Sequence[str | Path],
    dataset: Dataset,
    origins: Sequence[dict[str, Any]] | None = None,
    extend_to: int | None = None,
    restart: bool = False,
) -> Iterator[list[Trial]]:
    """Lock one work directory per trial, and yield the trials.

    Args:
      resolved_configs: the configs, whose durations are in steps.
      workdirs: the work directory of each trial.
      dataset: the data set of all trials.
      origins: `Trial.origin` of each trial; None: unknown.
      extend_to: total number of steps, instead of config.steps.
      restart: remove the runs in the directories first.

    Raises:
      UserError: a directory holds another run, or another process trains in it.
    """
    list_devices()  # raises a UserError before a directory is made
    with contextlib.ExitStack() as stack:
        dirs = stored = [RunDir(w) for w in workdirs]
        if not distributed.is_primary():  # the others read the directories, but write elsewhere
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            dirs = [RunDir(scratch / str(i)) for i in range(len(stored))]
        for d in dirs:
            stack.callback(d.close)
            d.make_and_lock()
        stack.enter_context(convert_disk_errors(workdirs[0]))
        if restart:
            for d in dirs:
                d.clear()
        distributed.barrier("cleared")
        data_hash = hash_arrays_and_splits(dataset)
        agreed = check_identity(resolved_configs, stored, dataset, data_hash, extend_to)
        trials = [
            Trial(config, d, data_hash, origin)
            for config, d, origin in zip(agreed, dirs, origins or [{}] * len(dirs), strict=True)
        ]
        stack.enter_context(convert_training_errors(trials, dataset))
        yield trials


def train_configs(
    trial_configs: Sequence[ConfigDict],
    workdirs: Sequence[str | Path],
    group_dir: str | Path | None = None,
    route: str | None = None,
) -> list[dict[str, Any]]:  # the STATUS.json of each trial
    """Train configs that differ in `seed` and `hp` only as one program, and return the
    STATUS of each.

    Args:
      trial_configs: one config per trial.
      workdirs: one work directory per trial.
      group_dir: the directory of their checkpoints; None: the first work directory.
      route: "vmap" or "map", by default as in `Programs`.

    Raises:
      UserError: as in `load_and_resolve`, `open_trials` and `train`.
    """
    dataset, resolved = load_and_resolve(trial_configs)
    with distributed.StopSignal() as stop, open_trials(resolved, workdirs, dataset) as trials:
        programs = Programs(trials[0].config, dataset, len(trials), route=route)
        return train(programs, trials, group_dir or workdirs[0], stop)


def train(
    programs: Programs,
    trials: Sequence[Trial],
    group_dir: str | Path,
    stop_signal: distributed.StopSignal,
    options: Options = DEFAULT,
) -> list[dict[str, Any]]:  # the STATUS.json of each trial
    """Train open trials from their newest checkpoint or initial states, and return the
    STATUS of each.

    Args:
      programs: the compiled programs of the trials.
      trials: the open trials.
      group_dir: the directory of their checkpoints, which for a single trial is its
        work directory. At the end, each trial of a group gets a checkpoint of its own.
      stop_signal: training saves and returns when it is set.
      options: further options.
    """
    first, last = options.profile or (0, 0)
    steps = trials[0].config.steps
    require(
        last <= steps,
        f"{mark_argument('profile')} of the steps {first} to {last} ends after the "
        f"run's {steps:,} steps",
    )
    report = options.report if distributed.is_primary() else lambda line: None
    with (
        convert_disk_errors(Path(group_dir)),
        convert_training_errors(trials, programs.dataset, programs),
        Checkpoints(Path(group_dir) / "checkpoints") as checkpoints,
    ):
        programs.start_compiling_training()
        loop = Loop(
            programs,
            Evaluator(programs, make_extractor),
            trials,
            checkpoints,
            resume.restore_or_init(programs, trials, checkpoints, options.parent, report),
            options.stop_at,
        )
        profile = Profile(Path(group_dir) / "profile", report, *options.profile)
        with _record_crashes(trials, loop):
            loop.start_first_call(stop_signal, profile)
        loop.evaluate_untrained()
        write_run_files(trials, programs.dataset)
        report_failure = FailureReport(report)
        with _record_crashes(trials, loop):
            for t in trials if distributed.is_primary() else ():
                t.open_loggers(loop.restored + 1, report_failure)
            loop.run(stop_signal, profile)
    return [t.dir.read_status() for t in trials]


@contextlib.contextmanager
def _record_crashes(trials: Sequence[Trial], loop: Loop) -> Iterator[None]:
    """Write the status of every trial if the body raises."""
    try:
        yield
    except BaseException as e:
        with contextlib.suppress(OSError):  # a full disk has no room for this either
            crashed = () if isinstance(e, KeyboardInterrupt) else trials
            if crashed and not (trials[0].dir / "config.json").exists():  # in the first call
                write_run_files(trials, loop.dataset)
            for t in crashed:
                reason = describe_error(e, t.dir.path.name)
                t.dir.write_status("failed: crashed", loop.step, reason=reason)
        raise
    finally:
        loop.progress.end_line()
        for t in trials:
            t.close_loggers()
