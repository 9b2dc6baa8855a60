"""What a logger receives, and the guard that keeps its exceptions from the run."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ml_collections import ConfigDict

from aigc_jax.utils.disk import describe_error


class RunInfo(NamedTuple):
    """The run whose rows a logger writes."""

    path: Path  # its directory
    config: ConfigDict
    hash: str  # of its identity
    sweep: str  # the hash of its sweep; "": a run of its own
    first_step: int  # further rows have at least this step


class Samples(NamedTuple):
    """Samples of a step: the file that the run wrote, and the texts of a text model."""

    step: int
    path: Path  # .png, .txt or .wav
    texts: list[str]


class Logger(Protocol):
    """Copies rows and samples of one run elsewhere."""

    def write_row(self, row: dict[str, Any]) -> None:
        """Write {"step": int, "split": name, metric: number or None}."""

    def write_samples(self, samples: Samples) -> None:
        """Write the samples of a step."""

    def close(self, status: str) -> None:
        """Write what is pending, and that the run has this status of STATUS.json."""


class GuardedLogger:
    """A logger whose exceptions do not stop the run: the first one is reported, the
    logger is closed, and later calls do nothing.

    Args:
      name: key of `LOGGERS`.
      make: makes the logger.
      report: called with one line when the logger fails.
    """

    def __init__(self, name: str, make: Callable[[], Logger], report: Callable[[str], None]):
        self._name, self._report = name, report
        self._logger: Logger | None = None
        with self._closed_on_error():
            self._logger = make()

    def write_row(self, row: dict[str, Any]) -> None:
        """Write a row, unless the logger has failed."""
        if self._logger is not None:
            with self._closed_on_error():
                self._logger.write_row(row)

    def write_samples(self, samples: Samples) -> None:
        """Write samples, unless the logger has failed."""
        if self._logger is not None:
            with self._closed_on_error():
                self._logger.write_samples(samples)

    def close(self, status: str) -> None:
        """Close the logger, unless it has failed."""
        if self._logger is not None:
            with self._closed_on_error():
                logger, self._logger = self._logger, None
                logger.close(status)

    @property
    def is_open(self) -> bool:
        """Whether the logger has neither failed nor been closed."""
        return self._logger is not None

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as e:  # whatever it is: of a library, a network, a disk
            failed, self._logger = self._logger, None
            if failed is not None:
                with contextlib.suppress(Exception):
                    failed.close("running")
            reason = describe_error(e, "the run's directory").splitlines()[0]
            self._report(f"config.run.log: {self._name} failed and is closed: {reason}")


class FailureReport:
    """Reports each line once, such as of the trials of a group whose loggers fail for
    one reason.

    Attributes:
      unopened: names of the loggers that could not be opened for one of the trials.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self.unopened: set[str] = set()
        self._report, self._reported = report, set[str]()

    def __call__(self, line: str) -> None:
        """Report a line, unless it was reported before."""
        if line not in self._reported:
            self._reported.add(line)
            self._report(line)


def metrics_of(row: dict[str, Any]) -> dict[str, float]:  # {"split/name": number}
    """Return the values of a row that are finite, by split and name."""
    return {
        f"{row['split']}/{name}": value
        for name, value in row.items()
        if name not in ("step", "split") and value is not None
    }
