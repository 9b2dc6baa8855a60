"""The training loop, independent of the number of trials."""

import io
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax import methods
from aigc_jax.core import distributed
from aigc_jax.core.method import TrainState
from aigc_jax.media import sample_files
from aigc_jax.training import costs
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.evaluation import Evaluator
from aigc_jax.training.programs import Programs, without_opt
from aigc_jax.training.progress import Profile, Progress
from aigc_jax.training.resume import Beginning
from aigc_jax.training.serialization import digest_trials, flatten_state, local_leaves
from aigc_jax.training.trial import Trial, select_trial
from aigc_jax.utils.documents import plain
from aigc_jax.utils.errors import require

CALL_SECONDS = 0.5  # duration of one call of the compiled program


class Event(NamedTuple):
    """A periodic action of the loop: every `every` steps (0: never), and after the last
    step of the run.
    """

    act: Callable[[], None]
    every: int
    at_stop: bool = False  # also where training is to stop before the last step


def select_better(
    better: np.ndarray, best: TrainState, new: TrainState
) -> TrainState:  # [N], states [N, ...] x 2 -> states [N, ...]
    """Return `new` for the trials that are better, else `best`."""
    pick = lambda b, n: jnp.where(better.reshape(-1, *(1,) * (n.ndim - 1)), n, b)
    return jax.tree.map(pick, best, new)


class Loop:
    """The training loop, from restored or initial states to the last step.

    Args:
      programs: the compiled programs of the trials.
      evaluator: the evaluator of their states.
      trials: the open trials.
      checkpoints: their common checkpoints.
      beginning: the states to begin with.
      stop_at: a step before the last one at which to evaluate, save and stop.
    """

    def __init__(
        self,
        programs: Programs,
        evaluator: Evaluator,
        trials: Sequence[Trial],
        checkpoints: Checkpoints,
        beginning: Beginning,
        stop_at: int | None = None,
    ) -> None:
        self.programs, self.evaluator, self.trials = programs, evaluator, trials
        self.config, self.dataset = trials[0].config, programs.dataset
        self.checkpoints = checkpoints
        self.states, self.best, self.restored = beginning
        self.step = max(self.restored, 0)
        self.end = min(stop_at or self.config.steps, self.config.steps)
        self.pending: tuple[int, int, dict] | None = None  # the running call
        self.progress = Progress(
            self.step, self.end, sys.stderr if distributed.is_primary() else io.StringIO()
        )
        self._select_better = jax.jit(select_better)
        run = self.config.run
        self.events = (
            Event(lambda: self.evaluate("valid"), run.eval_every, at_stop=True),
            Event(self.sample, run.sample_every),
            Event(lambda: self.evaluate("test"), 0),
            Event(self.save, run.save_every),
        )

    def run(
        self, stop: distributed.StopSignal, untrained: list[dict] | None, profile: Profile
    ) -> None:
        """Train until the last step, until all trials have failed, or until
        `stop.signal` is set; save the trials that have not failed, and write their
        status.
        """
        for t in self.trials:
            t.open_trackers(self.step)
            if t.failed:
                t.mark_failed()
            else:
                t.dir.status("running", self.step)
        if untrained is not None and self.config.run.eval_every:
            self.record_evaluation("valid", untrained)
        self.progress.start()
        while self.step < self.end and self.alive():
            n, stopped = distributed.sync_step(self.call_length(profile), stop.signal)
            if stopped:
                stop.signal = stopped
                break
            profile.before(self.step)
            self.call(n)
            profile.after(self.step, self.drain)
            if self.step in (self.next_event(self.step - 1), self.end):
                self.drain()
                self.run_events()
        self.drain()
        if not self.alive():
            self.progress.end_line()
        elif self.step == self.config.steps:
            self.finish()
        else:
            self.pause(stop)

    def alive(self) -> list[Trial]:
        """Return the trials that have not failed."""
        return [t for t in self.trials if not t.failed]

    def evaluate_untrained(self) -> list[dict] | None:
        """Return the metrics of initial parameters, or None where training resumes or
        no event needs them. Called before anything is recorded, since a
        config.best_metric that names none of the metrics raises a UserError.
        """
        if self.restored >= 0 or not (self.config.run.eval_every or self.config.best_metric):
            return None
        untrained = self.evaluator.evaluate(self.states, "valid", self.config.num_metric_samples)
        require(
            self.config.best_metric.removeprefix("valid/") in untrained[0]
            or not self.config.best_metric,
            f"config.best_metric = {self.config.best_metric!r} "
            "is not a row metric; available: " + ", ".join(f"valid/{k}" for k in untrained[0]),
        )
        return untrained

    # -- steps

    def next_event(self, after: int | None = None) -> int:
        """Return the first step past `after` with an event."""
        after = self.step if after is None else after
        periods = [event.every for event in self.events if event.every]
        return min([after - after % p + p for p in periods], default=self.config.steps)

    def call_length(self, profile: Profile) -> int:
        """Return the number of steps of the next call."""
        most = min(self.next_event(), self.end, profile.bound(self.step)) - self.step
        most = min(most, self.programs.most_steps(self.step))
        return min(most, self.progress.steps_in(CALL_SECONDS))

    def call(self, n: int) -> None:
        """Start n steps; meanwhile process the metrics of the previous call."""
        self.states, metrics = self.programs.train(self.states, self.step, n)
        before, self.pending = self.pending, (self.step, n, metrics)
        self.step += n
        self.process_metrics(before)

    def drain(self) -> None:
        """Process the metrics of the pending call, so that none remains pending."""
        before, self.pending = self.pending, None
        self.process_metrics(before)

    def process_metrics(self, call: tuple[int, int, dict] | None) -> None:
        """Wait for a call's metrics, mark trials with values that are not finite as
        failed, and write the rows that are due.
        """
        if call is None:
            return
        first, n, metrics = call
        values = {name: v[:, :n] for name, v in distributed.to_host(metrics).items()}
        for i, t in enumerate(self.trials):
            if not t.failed:
                self.write_rows(t, first, {name: v[i] for name, v in values.items()})
        self.progress.show(
            first + n,
            {name: v[: len(self.trials), n - 1] for name, v in values.items()},
            self.record_speed,
        )

    def write_rows(self, trial: Trial, first: int, values: dict[str, np.ndarray]) -> None:
        """Write the due rows of a trial's metrics [n] of the steps after `first`. The
        rows end with the first value that is not finite, where the trial fails.
        """
        bad = [
            (int(np.argmin(np.isfinite(v))), name)
            for name, v in values.items()
            if not np.isfinite(v).all()
        ]
        end = min(bad)[0] if bad else len(next(iter(values.values())))
        for k in range(end + bool(bad)):
            step = first + k + 1
            if k == end or self.is_logged(step):
                row = {name: plain(v[k]) for name, v in values.items()}
                trial.write(dict(step=step, split="train") | row)
        if bad:
            trial.failed = dict(step=first + end + 1, metric=min(bad)[1])
            trial.mark_failed()

    def is_logged(self, step: int) -> bool:
        """Return whether a step has a row: every config.run.log_every, and the last."""
        every = self.config.run.log_every
        return bool(every) and (step % every == 0 or step == self.config.steps)

    def record_speed(self, step: int, steps_per_second: float, seconds: float) -> None:
        """Append speed, utilization and memory to the timings.jsonl of every trial."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        device = jax.local_devices()[0].memory_stats() or {}
        unit, each = (
            ("examples", 1)
            if self.dataset.tokenizer is None
            else ("tokens", self.dataset.spec.shape[0])
        )
        rate = {
            "steps_per_s": round(steps_per_second, 3),
            f"{unit}_per_s": round(
                steps_per_second * methods.examples_per_step(self.config) * each
            ),
        }
        if peak := costs.peak_flops(jax.devices()[0].device_kind, self.config.precision):
            rate["utilization"] = round(
                self.programs.flops * steps_per_second / (peak * self.programs.mesh.size), 4
            )
        for t in self.trials:
            t.dir.timing(
                step=step,
                seconds=round(seconds, 3),
                **rate,
                host_bytes=memory,
                device_bytes=device.get("peak_bytes_in_use"),
            )

    # -- events

    def run_events(self) -> None:
        """Run the events that are due after this step."""
        ended, stopped = self.step == self.config.steps, self.step == self.end
        for event in self.events:
            due = event.every and self.step % event.every == 0
            if self.alive() and (due or ended or stopped and event.at_stop):
                event.act()
        self.progress.skip()

    def evaluate(self, split: str) -> None:
        """Evaluate a split, write its rows at this step, update the best parameters."""
        metrics = self.evaluator.evaluate(self.states, split, self.config.num_metric_samples)
        self.record_evaluation(split, metrics)

    def record_evaluation(self, split: str, values: list[dict[str, float]]) -> None:
        """Write the rows of an evaluation, and update the best parameters so far."""
        better = np.zeros(self.programs.layout.num_padded, bool)
        for i, (t, row) in enumerate(zip(self.trials, values, strict=True)):
            if t.failed:
                continue
            t.write(dict(step=self.step, split=split, **{k: plain(v) for k, v in row.items()}))
            if split == "valid" and self.config.best_metric:
                better[i] = t.improves(
                    row[self.config.best_metric.removeprefix("valid/")], self.step
                )
        if better.any():
            new = without_opt(self.states)
            self.best = self._select_better(better, new if self.best is None else self.best, new)

    def sample(self) -> None:
        """Save samples of the method's first sampler, except for failed trials."""
        what, sampler = next(iter(self.programs.method.samplers.items()))
        drawn = self.programs.draw(self.states, what, self.config.run.samples, "valid")
        columns, hashes = sampler.grid and sampler.grid[1], self.hashes()
        for i, t in enumerate(self.trials):
            if not t.failed:
                folder = t.dir / "samples"
                folder.mkdir(exist_ok=True)
                sample_files.save_drawn(
                    folder / f"step_{self.step:08d}",
                    drawn[i],
                    self.dataset,
                    t.origin(hashes[i], self.step),
                    columns,
                )

    def hashes(self) -> list[str]:
        """Return the digest of each trial's weights, the origin of its images."""
        return digest_trials(without_opt(self.states), len(self.trials))

    def flatten(self, states: TrainState | None, of: Callable = flatten_state) -> dict:
        """Return {path: leaf} of the trials' states on the host; with `local_leaves` as
        `of`, the shards of this process.
        """
        return {} if states is None else of(self.programs.layout.without_padding(states))

    def save(self) -> None:
        """Save a checkpoint of this step, after its rows. Trials with parameters that
        are not finite fail; nothing is saved if all have failed.
        """
        state, best = self.flatten(self.states, local_leaves), self.flatten(self.best, local_leaves)
        params = [name for name in state if name.startswith("params/")]
        # finite [parameters, N]
        finite = distributed.all_processes(
            np.array([distributed.is_finite(state[name]) for name in params])
        )
        for i, t in enumerate(self.trials):
            if not finite[:, i].all() and not t.failed:
                t.failed = dict(step=self.step, metric=params[int(finite[:, i].argmin())])
                t.mark_failed()
        if self.alive():
            for t in self.trials:
                t.dir.sync()
            meta = dict(
                failed=[t.failed for t in self.trials],
                best=[t.best for t in self.trials],
                rows=[t.dir.written_rows() for t in self.trials],
            )
            self.checkpoints.save(self.step, state, best, meta)

    # -- the end

    def pause(self, stop: distributed.StopSignal) -> None:
        """Save before the last step, and write the signal that stopped training."""
        self.save()
        self.checkpoints.wait()
        self.progress.end_line()
        if stop.signal:
            name = signal.Signals(stop.signal).name
            for t in self.alive():
                t.dir.status("preempted", self.step, signal=name)

    def finish(self) -> None:
        """Draw the curves of a single run, or export the checkpoint of each trial of a
        group, after the last step.
        """
        self.checkpoints.wait()
        self.progress.end_line()
        single = (
            jax.process_count() > 1
            or self.checkpoints.path == (self.trials[0].dir / "checkpoints").absolute()
        )
        state, best = ({}, {}) if single else (self.flatten(self.states), self.flatten(self.best))
        hashes = self.hashes() if single else []
        for i, t in enumerate(self.trials):
            if t.failed:
                continue
            if single:
                t.draw_curves(hashes[i], self.step)
            else:
                t.export(self.step, select_trial(state, i), select_trial(best, i))
            t.dir.status("done", self.step, best=t.best)
