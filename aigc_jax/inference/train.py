"""Training of one run in this process, for `aigc_jax.train` and the verb `train` of the
command line.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.core import distributed
from aigc_jax.inference.load import load
from aigc_jax.inference.run import Run
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, identity
from aigc_jax.training import train as training
from aigc_jax.training.programs import Programs
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.train import Options, load_and_resolve, open_trials
from aigc_jax.utils.errors import UserError, check_type, mark_argument, require, short_repr
from aigc_jax.utils.files import require_local_path
from aigc_jax.utils.terminal import print_warning

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def train(
    config: str | Path | ConfigDict | None,
    workdir: str | Path,
    overrides: dict[str, Any] | None = None,
    *,
    extend: int | None = None,
    restart: bool = False,
    download: bool = False,
    profile: tuple[int, int] | tuple[()] = (),
) -> Run:
    """Train a config in a work directory, in this process, and return the finished run.

    An interrupted run in the directory resumes, and its results are bitwise identical
    to those of an uninterrupted run; a finished run is returned unchanged.
    config.run.deterministic has an effect only before JAX first uses a device.

    Args:
      config: the name of a shipped config, the path of a Python file with
        get_config(), or a ConfigDict; None: the config of the run in `workdir`.
      workdir: directory of the checkpoints, rows, samples and curves.
      overrides: config keys to set, {"hp.lr": 1e-3, "steps": "10 epochs"}.
      extend: total number of steps to train to, instead of config.steps; the schedule
        must not depend on the last step.
      restart: remove the run in `workdir` and begin again at step 0.
      download: fetch missing data.
      profile: the first and the last of the steps to trace, into WORKDIR/profile; ():
        no trace.

    Raises:
      UserError: the config, the data or the directory cannot be used, or the run
        diverged.
      KeyboardInterrupt: Ctrl-C (in a notebook: interrupt) was pressed. The run was
        saved, and the same call resumes.
      SystemExit: SIGTERM was received. The run was saved, and the same call resumes.

    Examples:
      >>> import aigc_jax
      >>> small = {"steps": 20, "num_metric_samples": 64, "latent_dim": 8}
      >>> small |= {"model.g.widths": (16,), "model.d.widths": (16,)}
      >>> run = aigc_jax.train("gan_digits", "runs/gan", small)
      >>> run.step, run.config.latent_dim, run.sample(4).shape
      (20, 8, (4, 8, 8, 1))
      >>> "frechet_pixels" in run.evaluate("valid")
      True
      >>> run.rows("test")[-1]["step"]
      20
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
    config: ConfigDict | str | Path | None,
    workdir: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    extend: int | None = None,
    restart: bool = False,
    download: bool = False,
    profile: Sequence[int] = (),
    processes: Sequence = (),
) -> dict:  # the STATUS, done or preempted
    """Train a run and return its STATUS, which is done or preempted.

    Args:
      processes: (coordinator, count, index) of `core.distributed.initialize`, or ();
        the other arguments are those of `train`.

    Raises:
      UserError: an argument is wrong, the config, the data or the directory cannot be
        used, or the run ended with any other status.
    """
    _check_directory(workdir)
    if overrides is not None:
        check_type("overrides", overrides, Mapping, "a dict such as {'hp.lr': 1e-3}")
    if extend is not None:
        check_type("extend", extend, int, "a number of steps")
    _check_profile(profile)
    full, origin = choose_config(config, workdir, dict(overrides or {}))
    require(
        not restart or extend is None,
        f"{mark_argument('restart')} discards the run, {mark_argument('extend')} continues it: "
        "use only one",
    )
    if full.run.deterministic:  # read when JAX first initializes its backend
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = flags if DETERMINISTIC in flags else f"{flags} {DETERMINISTIC}"
    distributed.initialize(*processes)
    dataset, resolved = load_and_resolve([full], download)
    with (
        distributed.StopSignal() as stop,
        open_trials(resolved, [workdir], dataset, [origin], extend, restart) as trials,
    ):
        programs = Programs(trials[0].config, dataset, 1)
        (status,) = training.train(programs, trials, workdir, stop, Options(profile=tuple(profile)))
    if status["status"] not in ("done", "preempted"):
        raise UserError(describe_failed_run(RunDir(workdir), status))
    return status


def describe_failed_run(run: RunDir, status: dict[str, Any]) -> str:
    """Return the error message of a run that diverged: its status, with the paths of
    its curves and of its last checkpoint.
    """
    parts = [f"{run.path} {status['status']}: {status.get('reason')}"]
    if (run / "curves.png").exists():
        parts.append(f"curves: {run / 'curves.png'}")
    steps = [int(p.name) for p in (run / "checkpoints").glob("*") if p.name.isdecimal()]
    last = f"the checkpoint of step {max(steps):,} is retained" if steps else "no checkpoint exists"
    again = f"{mark_argument('restart')} begins again with other hyper-parameters"
    return "; ".join([*parts, last, again])


def _check_directory(workdir: str | Path) -> None:
    """Raise a UserError unless the directory may hold a run."""
    check_type("workdir", workdir, (str, Path), "a directory")
    require(str(workdir), f"{mark_argument('workdir')}='' must name a directory")
    require_local_path(workdir, f"{mark_argument('workdir')}={workdir}")
    require(
        not (Path(workdir) / "sweep.json").exists(),
        f"{workdir} is a sweep: a run needs a directory of its own",
    )


def _check_profile(profile: Sequence[int]) -> None:
    """Raise a UserError unless `profile` is empty or a first and a last step."""
    check_type("profile", profile, (tuple, list), "the first and the last step, such as (10, 15)")
    require(
        not profile
        or len(profile) == 2
        and all(isinstance(step, int) for step in profile)
        and 0 < profile[0] <= profile[1],
        f"{mark_argument('profile')}={short_repr(profile)} must be the first and the last of the "
        "steps to trace, such as (10, 15)",
    )


def choose_config(
    config: ConfigDict | str | Path | None, workdir: str | Path, overrides: dict[str, Any]
) -> tuple[ConfigDict, dict]:  # config, `Trial.origin`
    """Return the config to train and its origin, or {} for the config of a stored run.

    Args:
      config: as in `train`; None: that of the run in `workdir`, without changes.
      workdir: the run's directory.
      overrides: {config key: value}.

    Raises:
      UserError: `config` is None and the directory has no run, or a key or a value is
        invalid.
    """
    if config is not None:
        loaded = config_files.load_with_origins(config)
        full = configs.override(loaded.config, overrides)
        changes = configs.differing_leaves(
            configs.flatten_config(loaded.config), configs.flatten_config(full)
        )
        return full, dict(source=loaded.source, changes=changes)
    run = RunDir(workdir)
    if not (run / "config.json").exists():
        raise UserError(
            f"{workdir} is not a run yet: set a config, such as "
            f"{mark_argument('config')}=gan_digits"
        )
    stored = configs.fill_defaults(identity.parse_stored_config(run.read_config_json()))
    return configs.override(stored, overrides), {}
