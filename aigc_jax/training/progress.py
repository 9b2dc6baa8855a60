"""The progress line, the measured speed that sizes the program's calls, and traces."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

from aigc_jax.utils.quantities import format_count, format_duration, format_number
from aigc_jax.utils.terminal import StatusLine

LINE_SECONDS = 5.0  # between lines if the output is not a terminal
TIMING_SECONDS = 10.0  # between rows of timings.jsonl


def finite_mean(values: np.ndarray) -> float:  # [N] -> mean; nan: no value is finite
    """Return the mean over the trials whose value is finite; NaN where none is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


class Profile:
    """A trace of the steps from `first` to `last` for XProf and Perfetto, or none.

    Args:
      folder: the directory of the trace.
      report: called with the path of a finished trace.
      first: first step, from 1 on; None or 0: no trace.
      last: last step.
    """

    def __init__(
        self,
        folder: str | Path,
        report: Callable[[str], None],
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        self.folder, self.report, self.first, self.last = str(folder), report, first, last
        self.on = False

    def next_boundary(self, step: int) -> float:  # step where a call must end; inf: none
        """Return the next step at which a call must end for the trace to cover its
        steps.
        """
        if not self.first or self.last is None:
            return math.inf
        return min((s for s in (self.first - 1, self.last) if s > step), default=math.inf)

    def start_if_due(self, step: int) -> None:
        """Start the trace if it begins after `step`. Called before a call's steps."""
        if self.first and step == self.first - 1:
            # Imported here: monitoring a sweep needs no jax, whose import takes 0.25 s.
            import jax

            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self.on = True

    def stop_if_due(self, step: int, wait: Callable[[], None]) -> None:
        """Write the trace if its last step is done, and report its path.

        Args:
          step: number of steps that were started.
          wait: called before the trace is written; returns when step `step` is done.
        """
        if not self.on or self.last is None or step < self.last:
            return
        import jax

        wait()
        jax.profiler.stop_trace()
        self.on = False
        self.report(f"trace: {self.folder}")


class Progress:
    """Steps, speed, remaining time and losses, on one line of a terminal or a notebook,
    or as periodic lines of a log.

    Args:
      step: number of steps done before.
      end: the step at which training ends.
      file: stream of the line; None: stderr.
    """

    def __init__(self, step: int, end: int, file: TextIO | None = None) -> None:
        self.step, self.end, self.status = step, end, StatusLine(file, LINE_SECONDS)
        self.seconds_per_step: float | None = None  # of the program, smoothed
        self.calls = 0
        self.start_time = self.call_start = self.timing_time = 0.0
        self.data_wait_seconds = 0.0  # since the start, as of the last call

    def start_clocks(self) -> None:
        """Start the clocks, before the first step."""
        self.start_time = self.call_start = self.timing_time = time.perf_counter()
        self.status.restart_interval()

    def estimate_steps(self, seconds: float) -> int:  # at least 1
        """Return the number of steps that take `seconds`; 1 before any measurement."""
        return 1 if self.seconds_per_step is None else max(1, int(seconds / self.seconds_per_step))

    def exclude_time(self) -> None:  # since the last call, from the speed
        """Exclude the time of evaluation, samples and checkpoints from the speed."""
        self.call_start = time.perf_counter()

    def update(
        self,
        step: int,
        metrics: dict[str, np.ndarray],
        append_timing: Callable[[int, float, float], None],
    ) -> None:  # metrics {name: [N]}
        """Update the speed and write the line that is due. Called when the results of
        all steps up to `step` are available.

        Args:
          step: the last of these steps.
          metrics: {name: [N]} of that step.
          append_timing: called with (step, steps per second, seconds since the start)
            when a row of timings.jsonl is due.
        """
        now = time.perf_counter()
        rate = max(now - self.call_start, 1e-9) / max(step - self.step, 1)
        self.step, self.call_start, self.calls = step, now, self.calls + 1
        # The first call includes compilation: the second replaces its measurement.
        previous = self.seconds_per_step
        each = rate if self.calls <= 2 or previous is None else 0.5 * (previous + rate)
        self.seconds_per_step = each
        if now - self.timing_time > TIMING_SECONDS or step == self.end:
            append_timing(step, 1 / each, now - self.start_time)
            self.timing_time = now
        if self.status.is_due() or step == self.end:
            self.status.write_line(self.format_line(metrics), step / self.end)

    def format_line(self, metrics: dict[str, np.ndarray]) -> str:  # metrics {name: [N]}
        """Return step, speed, remaining time, the share of the time that was spent
        waiting for data if it is at least a percent, and the means of the metrics.
        """
        assert self.seconds_per_step is not None  # set by `update`
        speed, rest = 1 / self.seconds_per_step, (self.end - self.step) * self.seconds_per_step
        waiting = self.data_wait_seconds / max(time.perf_counter() - self.start_time, 1e-9)
        return "  ".join(
            [
                f"step {format_count(self.step)}/{format_count(self.end)}",
                f"{self.step / self.end:.0%}",
                f"{speed:,.{0 if speed >= 10 else 2}f} steps/s",
                f"{format_duration(rest)} left",
                *([f"{waiting:.0%} waiting for data"] if waiting >= 0.01 else []),
                *(f"{name} {format_number(finite_mean(v))}" for name, v in metrics.items()),
            ]
        )

    def end_line(self) -> None:
        """End the line of a terminal, so that later output begins on a new line."""
        self.status.end_line()
