"""Training of N trials as one program, from their configs to run directories."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax import data, methods
from aigc_jax.core import config as configs
from aigc_jax.core import distributed
from aigc_jax.data.dataset import Dataset, fingerprint
from aigc_jax.training import loggers, resume
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.feature_extractors import extractor
from aigc_jax.training.loop import Loop
from aigc_jax.training.programs import Programs
from aigc_jax.training.progress import Profile
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.trial import Trial
from aigc_jax.utils.disk import describe_error, disk_errors
from aigc_jax.utils.errors import argument, require
from aigc_jax.utils.terminal import print_warning


def train(
    given: Sequence[ConfigDict],
    workdirs: Sequence[str | Path],
    group: str | Path | None = None,
    extend: int | None = None,
    download: bool = False,
    report: Callable[[str], None] | None = None,
    changes: Sequence[dict] | None = None,
    make: Callable[[ConfigDict, Dataset, int], Programs] | None = None,
    until: str | None = None,
    parent: resume.Parent | None = None,
    profile: tuple[int, ...] = (),
    restart: bool = False,
) -> list[dict]:
    """Train one trial per config, which may differ in `seed` and `hp` only; returns the
    list of each one's STATUS.

    given     configs with durations as in their files; workdirs: where each leaves its
              results
    group     where the checkpoints are stored; by default the only trial's directory.
              Trials of a group end with their own checkpoints
    extend    steps in all to go on to, instead of config.steps
    changes   per trial, what differs from the config's file, {key: [there, here]}
    make      (config, dataset, number of trials) -> their `Programs`, such as
              partial(Programs, route="map"); in one go if not given
    until     a duration shorter than config.steps after which to evaluate, save and
              stop, as if to be resumed
    profile   (first, last) of the steps that are traced, into WORKDIR/profile
    restart   remove what lies in the directories and begin again at step 0
    parent    (directory, [places of these trials among its own]) of a group to begin
              with, which stopped at `until`
    """
    make = make or functools.partial(Programs, extractor=extractor)
    report = report or print_warning
    dirs = [RunDir(w) for w in workdirs]
    group = Path(group or workdirs[0])
    loggers.check(given[0])
    for config in given:  # before the data, which may take minutes
        configs.check(config)
    dataset = data.load(given[0].data, given[0].run.data_dir, download)
    resolved = [configs.resolve(c, dataset.spec.n_train, methods.examples(c)) for c in given]
    with contextlib.ExitStack() as stack:
        there = dirs
        if not distributed.first():  # reads what is there, and writes where nobody looks
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            dirs, report = [RunDir(scratch / str(i)) for i in range(len(there))], lambda line: None
        for d in dirs:
            stack.callback(d.close)
            d.open()
        stack.enter_context(disk_errors(group))
        resume.clear(dirs if restart else [])
        data_hash = fingerprint(dataset)
        agreed = resume.agree(resolved, there, dataset, data_hash, extend)
        require(
            not profile or profile[1] <= agreed[0].steps,
            f"{argument('profile')} of the steps {' to '.join(map(str, profile))} ends after the "
            f"run's {agreed[0].steps:,} steps",
        )
        trials = [Trial(c, d) for c, d in zip(agreed, dirs, strict=True)]
        checkpoints = stack.enter_context(Checkpoints(group / "checkpoints"))
        stop = stack.enter_context(distributed.Stop())
        stop_at = (
            None
            if until is None
            else configs.steps_of(until, "rung", dataset.spec.n_train, methods.examples(given[0]))
        )
        loop = Loop(
            trials,
            make(agreed[0], dataset, len(trials)),
            checkpoints,
            report,
            Profile(there[0] / "profile", *profile),
            stop_at,
        )
        loop.programs.begin()
        loop.restore(parent)
        loop.begin()
        resume.record(agreed, dirs, dataset, data_hash, changes or [{}] * len(dirs))
        try:
            loop.run(stop)
        except BaseException as e:
            if not isinstance(e, KeyboardInterrupt):
                with contextlib.suppress(OSError):  # a full disk has no room for this either
                    for t in trials:
                        t.dir.status(
                            "failed: crashed", loop.step, reason=describe_error(e, t.dir.path.name)
                        )
            raise
        finally:
            for t in trials:
                for tracker in t.trackers:
                    tracker.close()
        return [t.dir.read_status() for t in trials]
