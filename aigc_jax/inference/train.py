"""Train one run in this process, and open it: what `aigc_jax.train` and the verb
`train` of the command line do.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.core import distributed
from aigc_jax.inference.run import Run, load
from aigc_jax.training import resume
from aigc_jax.training import train as training
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError, argument, brief, check_type, require
from aigc_jax.utils.terminal import print_warning

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def train(
    config: str | Path | ConfigDict | None,
    workdir: str | Path,
    overrides: dict | None = None,
    *,
    extend: int | None = None,
    restart: bool = False,
    download: bool = False,
    profile: tuple[int, int] | tuple[()] = (),
) -> Run:
    """Train a config in a work directory, in this process, and return the finished run.

    A run that was cut off there resumes to the bytes that it would have reached without
    the interruption; a finished one is returned as it is.

    config     the name of a shipped config, the path of a Python file with
               get_config(), or a ConfigDict; None: the config of the run in `workdir`
    workdir    where everything is left: checkpoints, rows, samples, curves
    overrides  {"hp.lr": 1e-3, "steps": "10 epochs"}: keys of the config to set
    extend     steps in all to go on to, instead of config.steps, with a schedule that
               does not depend on the end
    restart    remove the run in `workdir` and begin again at step 0
    download   fetch missing data
    profile    the first and the last of the steps to trace, into WORKDIR/profile

    >>> import aigc_jax
    >>> small = {"steps": 20, "batch_size": 32, "z": 8, "metric_samples": 64}
    >>> small |= {"model.g.widths": (16,), "model.d.widths": (16,)}
    >>> run = aigc_jax.train("gan_digits", "runs/gan", small)
    >>> run.step, run.config.z, run.sample(4).shape
    (20, 8, (4, 8, 8, 1))
    >>> "frechet_pixels" in run.evaluate("valid")
    True
    >>> run.rows("test")[-1]["step"]
    20

    Raises a UserError where the config, the data or the directory cannot be used, and
    where the run diverged. Ctrl-C (in a notebook: interrupt) and SIGTERM save first:
    then KeyboardInterrupt or SystemExit is raised, and the same call resumes.
    config.run.deterministic counts only where JAX has used no device before.
    """
    status = train_run(
        config,
        workdir,
        overrides,
        extend=extend,
        restart=restart,
        download=download,
        profile=profile,
    )
    if status["status"] == "preempted":
        print_warning(f"preempted at step {status['step']:,} and saved; the same call resumes")
        number = signal.Signals[status["signal"]]
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
    return load(workdir)


def train_run(
    config,
    workdir,
    overrides=None,
    *,
    extend=None,
    restart=False,
    download=False,
    profile=(),
    processes=(),
) -> dict:
    """The STATUS of a run that is trained, done or preempted; any other raises a
    UserError. processes: the arguments of `core.distributed.begin`; the rest is as in
    `train`.
    """
    check_type("workdir", workdir, (str, Path), "a directory")
    require(str(workdir), f"{argument('workdir')}='' must name a directory")
    if overrides is not None:
        check_type("overrides", overrides, Mapping, "a dict such as {'hp.lr': 1e-3}")
    if extend is not None:
        check_type("extend", extend, int, "a number of steps")
    require(
        not (Path(workdir) / "sweep.json").exists(),
        f"{workdir} is a sweep: a run needs a directory of its own",
    )
    config, changes = choose_config(config, workdir, dict(overrides or {}))
    require(
        not restart or extend is None,
        f"{argument('restart')} begins again, {argument('extend')} goes on: give one",
    )
    check_type("profile", profile, (tuple, list), "the first and the last step, such as (10, 15)")
    require(
        not profile
        or len(profile) == 2
        and all(isinstance(step, int) for step in profile)
        and 0 < profile[0] <= profile[1],
        f"{argument('profile')}={brief(profile)} must be the first and the last of the steps to "
        "trace, such as (10, 15)",
    )
    if config.run.deterministic:  # read when jax first starts its back end
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = flags if DETERMINISTIC in flags else f"{flags} {DETERMINISTIC}"
    distributed.begin(*processes)
    status = training.train(
        [config],
        [workdir],
        extend=extend,
        download=download,
        changes=[changes],
        restart=restart,
        profile=profile,
    )[0]
    require(
        status["status"] in ("done", "preempted"),
        f"{workdir} {status['status']}: {status.get('reason')}; the last good checkpoint is kept",
    )
    return status


def choose_config(config, workdir, overrides: dict) -> tuple[ConfigDict, dict]:
    """The config to train, and what the overrides change in the one that was given."""
    if config is not None:
        given = configs.load(config)
        chosen = configs.override(given, overrides)
        return chosen, configs.difference(configs.leaves(given), configs.leaves(chosen))
    run = RunDir(workdir)
    if not (run / "config.json").exists():
        raise UserError(
            f"{workdir} is no run yet: name a config, such as {argument('config')}=gan_digits"
        )
    stored = configs.complete(resume.stored_config(run.config()))
    return configs.override(stored, overrides), {}
