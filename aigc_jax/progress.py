"""The progress line, the speed that sizes the calls of the program, and a trace of some of them."""

import math
import sys
import time

import numpy as np

from aigc_jax.terminal import print_text

LINE_SECONDS = 5.0  # between lines where the output is no terminal
TIMING_SECONDS = 10.0  # between rows of timings.jsonl


def clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def mean(values: np.ndarray) -> float:
    """Over the trials whose value is finite; NaN where none is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


class Profile:
    """A trace of the steps from `first` to `last`, for XProf and Perfetto; of none without them."""

    def __init__(self, folder, first: int | None = None, last: int | None = None):
        self.folder, self.first, self.last, self.on = str(folder), first, last, False

    def bound(self, step: int) -> float:
        """The next step at which a call must end, so that the trace holds its steps and no others."""
        return min((s for s in (self.first - 1, self.last) if s > step), default=math.inf) if self.first else math.inf

    def before(self, step: int):
        """Called before the steps after `step`."""
        if self.first and step == self.first - 1:
            import jax  # not above: what looks on a sweep from outside needs no jax, which takes a quarter of a second

            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self.on = True

    def after(self, step: int, wait) -> str:
        """Called after `step`; wait() returns when it is done. Where the trace lies, once it is there, or ''."""
        if not self.on or step < self.last:
            return ""
        import jax

        wait()
        jax.profiler.stop_trace()
        self.on = False
        return self.folder


class Progress:
    """Steps, speed, time left and losses, on one line of a terminal or now and then in a log."""

    def __init__(self, step: int, end: int, file=None):
        self.step, self.end, self.file = step, end, file or sys.stderr
        self.terminal = self.file.isatty()
        self.seconds_per_step, self.calls = None, 0  # of the program, smoothed
        self.begun = self.mark = self.line = self.timed = time.perf_counter()

    def steps_in(self, seconds: float) -> int:
        """How many steps take so long; 1 as long as nothing is known."""
        return 1 if self.seconds_per_step is None else max(1, int(seconds / self.seconds_per_step))

    def skip(self):
        """Evaluation, samples and checkpoints take no part in the speed."""
        self.mark = time.perf_counter()

    def show(self, step: int, metrics: dict, timing):
        """Called when the results of all steps up to `step` have come; metrics: {name: [N]} of the last."""
        now = time.perf_counter()
        rate = max(now - self.mark, 1e-9) / max(step - self.step, 1)
        self.step, self.mark, self.calls = step, now, self.calls + 1
        # The first call also compiled: what it says is forgotten with the second.
        self.seconds_per_step = rate if self.calls <= 2 else 0.5 * (self.seconds_per_step + rate)
        if now - self.timed > TIMING_SECONDS or step == self.end:
            timing(step, 1 / self.seconds_per_step, now - self.begun)
            self.timed = now
        if not self.terminal and now - self.line < LINE_SECONDS and step < self.end:
            return
        self.line = now
        rest = (self.end - step) * self.seconds_per_step
        values = "  ".join(f"{name} {mean(value):.4g}" for name, value in metrics.items())
        speed = 1 / self.seconds_per_step
        text = (f"step {step:,}/{self.end:,}  {100 * step / self.end:.0f}%  {speed:,.{0 if speed >= 10 else 2}f} steps/s  "
                f"{clock(rest)} left  {values}")
        self.file.write("\r\x1b[K" if self.terminal else "")
        print_text(text, self.file, end="" if self.terminal else "\n")

    def end_line(self):
        if self.terminal:
            print(file=self.file, flush=True)
