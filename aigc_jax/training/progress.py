"""The progress line, the speed that sizes the program's calls, and traces."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

from aigc_jax.utils.terminal import StatusLine

LINE_SECONDS = 5.0  # between lines where the output is no terminal
TIMING_SECONDS = 10.0  # between rows of timings.jsonl


def clock(seconds: float) -> str:
    """Return seconds as M:SS, or from an hour on H:MM:SS."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def mean(values: np.ndarray) -> float:
    """Over the trials whose value is finite; NaN where none is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


class Profile:
    """A trace of the steps from `first` to `last` for XProf and Perfetto, or none."""

    def __init__(
        self, folder: str | Path, first: int | None = None, last: int | None = None
    ) -> None:
        self.folder, self.first, self.last, self.on = str(folder), first, last, False

    def bound(self, step: int) -> float:
        """The next step at which a call must end for the trace to hold its steps."""
        if not self.first or self.last is None:
            return math.inf
        return min((s for s in (self.first - 1, self.last) if s > step), default=math.inf)

    def before(self, step: int) -> None:
        """Called before the steps after `step`."""
        if self.first and step == self.first - 1:
            # Imported here: watching a sweep needs no jax, which takes 0.25 s.
            import jax

            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self.on = True

    def after(self, step: int, wait: Callable[[], None]) -> str:
        """Called after `step`; wait() returns when it is done. Where the trace lies,
        once it is there, or ''.
        """
        if not self.on or self.last is None or step < self.last:
            return ""
        import jax

        wait()
        jax.profiler.stop_trace()
        self.on = False
        return self.folder


class Progress:
    """Steps, speed, time left and losses, on one line of a terminal or a notebook, or
    now and then in a log.
    """

    def __init__(self, step: int, end: int, file: TextIO | None = None) -> None:
        self.step, self.end, self.status = step, end, StatusLine(file, LINE_SECONDS)
        self.seconds_per_step: float | None = None  # of the program, smoothed
        self.calls = 0
        self.begun = self.mark = self.line = self.timed = time.perf_counter()

    def steps_in(self, seconds: float) -> int:
        """How many steps take so long; 1 as long as nothing is known."""
        return 1 if self.seconds_per_step is None else max(1, int(seconds / self.seconds_per_step))

    def skip(self) -> None:
        """Evaluation, samples and checkpoints take no part in the speed."""
        self.mark = time.perf_counter()

    def show(self, step: int, metrics: dict, timing: Callable[[int, float, float], None]) -> None:
        """Called when the results of all steps up to `step` have come; metrics: {name:
        [N]} of the last.
        """
        now = time.perf_counter()
        rate = max(now - self.mark, 1e-9) / max(step - self.step, 1)
        self.step, self.mark, self.calls = step, now, self.calls + 1
        # The first call also compiled: what it says is forgotten with the second.
        before = self.seconds_per_step
        each = rate if self.calls <= 2 or before is None else 0.5 * (before + rate)
        self.seconds_per_step = each
        if now - self.timed > TIMING_SECONDS or step == self.end:
            timing(step, 1 / each, now - self.begun)
            self.timed = now
        if now - self.line < self.status.seconds and step < self.end:
            return
        self.line = now
        rest = (self.end - step) * each
        values = "  ".join(f"{name} {mean(value):.4g}" for name, value in metrics.items())
        speed = 1 / each
        self.status.write(
            f"step {step:,}/{self.end:,}  {100 * step / self.end:.0f}%  "
            f"{speed:,.{0 if speed >= 10 else 2}f} steps/s  "
            f"{clock(rest)} left  {values}"
        )

    def end_line(self) -> None:
        """End the line of a terminal, so that what follows begins a new one."""
        self.status.end()
