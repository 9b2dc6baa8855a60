"""Loggers copy the rows and samples of a run to other programs while it trains. A
logger reads a run and never changes it; one that fails does not stop it.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aigc_jax.training.loggers.base import FailureReport, GuardedLogger, Logger, RunInfo
from aigc_jax.utils.errors import UserError


def make_csv(run: RunInfo) -> Logger:
    """Return the logger of WORKDIR/metrics.csv."""
    from aigc_jax.training.loggers.csv_file import CsvFile

    return CsvFile(run)


def make_tensorboard(run: RunInfo) -> Logger:
    """Return the logger of WORKDIR/tensorboard."""
    from aigc_jax.training.loggers.tensorboard import TensorBoard

    return TensorBoard(run)


def make_wandb(run: RunInfo) -> Logger:
    """Return the logger of Weights & Biases."""
    from aigc_jax.training.loggers.wandb import WeightsAndBiases

    return WeightsAndBiases(run)


class LoggerKind(NamedTuple):
    """A logger, and the package that it needs."""

    make: Callable[[RunInfo], Logger]
    package: str = ""


# config.run.log -> the logger
LOGGERS = {
    "csv": LoggerKind(make_csv),
    "tensorboard": LoggerKind(make_tensorboard, "tensorboardX"),
    "wandb": LoggerKind(make_wandb, "wandb"),
}


def check_loggers_installed(names: Sequence[str]) -> None:
    """Raise a UserError unless the packages of these loggers are installed."""
    for name in names:
        package = LOGGERS[name].package
        if package and importlib.util.find_spec(package) is None:
            raise UserError(
                f"config.run.log = {name!r} needs the package {package}: pip install {package}"
            )


def open_loggers(run: RunInfo, report: FailureReport) -> list[GuardedLogger]:
    """Return the loggers that config.run.log names, without repetitions.

    Args:
      run: the run whose rows they write.
      report: called with one line when a logger fails. A logger that could not be
        opened for another trial is not opened: it may have waited for a network.
    """
    out = []
    for name in dict.fromkeys(run.config.run.log):
        if name in report.unopened:
            continue
        logger = GuardedLogger(name, functools.partial(LOGGERS[name].make, run), report)
        if logger.is_open:
            out.append(logger)
        else:
            report.unopened.add(name)
    return out
