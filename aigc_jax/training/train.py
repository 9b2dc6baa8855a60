"""Training of N trials as one program: prepare their data and configs, open their work
directories, build their programs, and train their states (`train_configs` in full).
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from aigc_jax import data, methods
from aigc_jax.core import config as configs
from aigc_jax.core import distributed
from aigc_jax.data.dataset import Dataset, fingerprint
from aigc_jax.training import loggers, resume
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.evaluation import Evaluator
from aigc_jax.training.feature_extractors import make_extractor
from aigc_jax.training.identity import check_identity
from aigc_jax.training.loop import Loop
from aigc_jax.training.programs import Programs
from aigc_jax.training.progress import Profile
from aigc_jax.training.provenance import write_run_files
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.trial import Trial
from aigc_jax.utils.disk import describe_error, disk_errors
from aigc_jax.utils.errors import argument, require
from aigc_jax.utils.terminal import print_warning


class Options(NamedTuple):
    """Options of a training run; by default it resumes and trains to the last step."""

    stop_at: int | None = None  # the step at which to evaluate, save and stop
    parent: resume.ParentRung | None = None  # the rung whose states to begin with
    profile: tuple[int, ...] = ()  # first and last of the steps to trace
    report: Callable[[str], None] = print_warning


DEFAULT = Options()


def prepare(
    configs_: Sequence[ConfigDict], download: bool = False
) -> tuple[Dataset, list[ConfigDict]]:
    """Check the configs of the trials of one program and load their data set. Return
    the data set and the configs, whose durations are in steps.
    """
    first = configs_[0]
    loggers.check_loggers(first)
    for config in configs_:  # before the data, which may take minutes
        configs.validate_config(config)
    dataset = data.load(first.data, first.run.data_dir, download)
    resolve = lambda config: configs.resolve(
        config, dataset.spec.n_train, methods.examples_per_step(config)
    )
    return dataset, [resolve(config) for config in configs_]


@contextlib.contextmanager
def open_trials(
    resolved: Sequence[ConfigDict],
    workdirs: Sequence[str | Path],
    dataset: Dataset,
    changes: Sequence[dict] | None = None,
    extend: int | None = None,
    restart: bool = False,
) -> Iterator[list[Trial]]:
    """Lock one work directory per trial, and yield the trials.

    Args:
      resolved: the configs, whose durations are in steps.
      workdirs: the work directory of each trial.
      dataset: the data set of all trials.
      changes: per trial, {key: [in the config's file, in this run]}.
      extend: total number of steps, instead of config.steps.
      restart: remove the runs in the directories first.

    Raises:
      UserError: a directory holds another run.
    """
    with contextlib.ExitStack() as stack:
        dirs = stored = [RunDir(w) for w in workdirs]
        if not distributed.is_primary():  # the others read the directories, but write elsewhere
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            dirs = [RunDir(scratch / str(i)) for i in range(len(stored))]
        for d in dirs:
            stack.callback(d.close)
            d.open()
        stack.enter_context(disk_errors(workdirs[0]))
        if restart:
            for d in dirs:
                d.clear()
        distributed.barrier("cleared")
        data_hash = fingerprint(dataset)
        agreed = check_identity(resolved, stored, dataset, data_hash, extend)
        yield [
            Trial(config, d, data_hash, change)
            for config, d, change in zip(agreed, dirs, changes or [{}] * len(dirs), strict=True)
        ]


def train_configs(
    configs_: Sequence[ConfigDict],
    workdirs: Sequence[str | Path],
    group: str | Path | None = None,
    route: str | None = None,
) -> list[dict]:
    """Train configs that differ in `seed` and `hp` only as one program, and return the
    STATUS of each.

    Args:
      configs_: one config per trial.
      workdirs: one work directory per trial.
      group: the directory of their checkpoints, by default the first work directory.
      route: as in `Programs`.
    """
    dataset, resolved = prepare(configs_)
    with distributed.StopSignal() as stop, open_trials(resolved, workdirs, dataset) as trials:
        programs = Programs(trials[0].config, dataset, len(trials), route=route)
        return train(programs, trials, group or workdirs[0], stop)


def train(
    programs: Programs,
    trials: Sequence[Trial],
    group: str | Path,
    stop: distributed.StopSignal,
    options: Options = DEFAULT,
) -> list[dict]:
    """Train open trials from their newest checkpoint or initial states, and return the
    STATUS of each.

    Args:
      programs: the compiled programs of the trials.
      trials: the open trials.
      group: the directory of their checkpoints, which for a single trial is its work
        directory. At the end, each trial of a group gets a checkpoint of its own.
      stop: training saves and returns when it is set.
      options: further options.
    """
    first, last = options.profile or (0, 0)
    steps = trials[0].config.steps
    require(
        last <= steps,
        f"{argument('profile')} of the steps {first} to {last} ends after the "
        f"run's {steps:,} steps",
    )
    report = options.report if distributed.is_primary() else lambda line: None
    with disk_errors(Path(group)), Checkpoints(Path(group) / "checkpoints") as checkpoints:
        programs.compile()
        loop = Loop(
            programs,
            Evaluator(programs, make_extractor),
            trials,
            checkpoints,
            resume.restore(programs, trials, checkpoints, options.parent, report),
            options.stop_at,
        )
        untrained = loop.evaluate_untrained()
        write_run_files(trials, programs.dataset)
        profile = Profile(Path(group) / "profile", report, *options.profile)
        with _crashes_recorded(trials, loop):
            loop.run(stop, untrained, profile)
    return [t.dir.read_status() for t in trials]


@contextlib.contextmanager
def _crashes_recorded(trials: Sequence[Trial], loop: Loop) -> Iterator[None]:
    """Write the status of every trial if the body raises."""
    try:
        yield
    except BaseException as e:
        with contextlib.suppress(OSError):  # a full disk has no room for this either
            for t in () if isinstance(e, KeyboardInterrupt) else trials:
                reason = describe_error(e, t.dir.path.name)
                t.dir.status("failed: crashed", loop.step, reason=reason)
        raise
    finally:
        for t in trials:
            t.close_trackers()
