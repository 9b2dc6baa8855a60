"""The training loop, independent of the number of trials."""

import io
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core import distributed
from aigc_jax.core.method import TrainState
from aigc_jax.media import sample_files
from aigc_jax.media.sheets import Annotations
from aigc_jax.methods.norms import PREFIX as NORMS
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.evaluation import Evaluator, check_best_metric
from aigc_jax.training.loggers.base import Samples
from aigc_jax.training.programs import Programs, copy_states, drop_opt_states
from aigc_jax.training.progress import Profile, Progress
from aigc_jax.training.resume import Beginning
from aigc_jax.training.serialization import digest_trials, flatten_local, flatten_state
from aigc_jax.training.timings import describe_speed
from aigc_jax.training.trial import Trial, select_trial
from aigc_jax.utils.documents import json_float

CALL_SECONDS = 0.5  # duration of one call of the compiled program
# Initial states of at most these bytes, without optimizer states, are copied, so that
# their evaluation can follow the start of training.
MAX_COPIED_BYTES = 2**28


class Event(NamedTuple):
    """A periodic action of the loop: every `every` steps (0: never), and after the last
    step of the run.
    """

    act: Callable[[], None]
    every: int
    at_stop: bool = False  # also where training is to stop before the last step


class Untrained(NamedTuple):
    """Initial states without optimizer states, and the metrics of each trial."""

    states: TrainState
    metrics: Sequence[dict[str, float]] = ()


def select_better(
    is_better: np.ndarray, best: TrainState, new: TrainState
) -> TrainState:  # [N], states [N, ...] x 2 -> states [N, ...]
    """Return `new` for the trials where `is_better` is True, else `best`."""
    pick = lambda b, n: jnp.where(is_better.reshape(-1, *(1,) * (n.ndim - 1)), n, b)
    return jax.tree.map(pick, best, new)


class Loop:
    """The training loop, from restored or initial states to the last step.

    Args:
      programs: the compiled programs of the trials.
      evaluator: the evaluator of their states.
      trials: the open trials.
      checkpoints: their common checkpoints.
      beginning: the states to begin with.
      stop_at: a step before the last one at which to evaluate, save and stop; None:
        train to the last step.
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
        self.untrained: Untrained | None = None  # where an event needs them
        self.progress = Progress(
            self.step, self.end, sys.stderr if distributed.is_primary() else io.StringIO()
        )
        self._select_better = jax.jit(select_better)
        run = self.config.run
        self.events = (
            Event(lambda: self.evaluate_split("valid"), run.eval_every, at_stop=True),
            Event(self.save_samples, run.sample_every),
            Event(lambda: self.evaluate_split("test"), 0),
            Event(self.save_checkpoint, run.save_every),
        )

    def run(self, stop_signal: distributed.StopSignal, profile: Profile) -> None:
        """Train until the last step or `stop_at`, until all trials have failed, or
        until a signal is received; save the trials that have not failed, and write
        their status.

        Args:
          stop_signal: training stops after the call in which its `signal` is set.
          profile: the steps to trace.
        """
        for t in self.trials:
            if t.failed:
                t.write_failure()
            else:
                t.dir.write_status("running", max(self.restored, 0))
        if self.untrained and self.config.run.eval_every:
            self.record_evaluation("valid", self.untrained.metrics, self.untrained.states, 0)
        self.untrained = None
        if self.pending:
            self.finish_call(profile)
        while self.step < self.end and self.unfailed_trials():
            if not self.start_call(stop_signal, profile):
                break
            self.finish_call(profile)
        self.process_pending()
        if not self.unfailed_trials():
            self.progress.end_line()
            if self.is_single():
                self.trials[0].draw_curves(self.weight_digests()[0], self.step)
        elif self.step == self.config.steps:
            self.finish_trials()
        else:
            self.save_and_stop(stop_signal)

    def unfailed_trials(self) -> list[Trial]:
        """Return the trials that have not failed."""
        return [t for t in self.trials if not t.failed]

    def start_first_call(self, stop_signal: distributed.StopSignal, profile: Profile) -> None:
        """Start training, and then the compilation of all other programs. Initial
        states that an evaluation needs remain, as a copy if they are small; training
        starts only after the evaluation if they are not.
        """
        self.progress.start_clocks()
        self.programs.data_wait_seconds = 0.0
        needed = self.restored < 0 and (self.config.run.eval_every or self.config.best_metric)
        initial = drop_opt_states(self.states)
        is_small = sum(x.nbytes for x in jax.tree.leaves(initial)) <= MAX_COPIED_BYTES
        if needed:
            self.untrained = Untrained(copy_states(initial) if is_small else initial)
        if self.step < self.end and self.unfailed_trials():
            if is_small or not needed:
                self.start_call(stop_signal, profile)
            self.programs.start_compiling()

    def evaluate_untrained(self) -> None:
        """Evaluate the initial states. Called before anything is recorded, since a
        config.best_metric that names none of the metrics raises a UserError.
        """
        if self.untrained:
            states = self.untrained.states
            metrics = self.evaluator.evaluate(states, "valid", self.config.num_metric_samples)
            check_best_metric(self.config.best_metric, metrics[0])
            self.untrained = Untrained(states, metrics)

    # -- steps

    def next_event_step(self, after_step: int | None = None) -> int:
        """Return the first step past `after_step` with an event."""
        after = self.step if after_step is None else after_step
        periods = [event.every for event in self.events if event.every]
        return min([after - after % p + p for p in periods], default=self.config.steps)

    def next_call_steps(self, profile: Profile) -> int:
        """Return the number of steps of the next call."""
        most = min(self.next_event_step(), self.end, profile.next_boundary(self.step)) - self.step
        most = min(most, self.programs.max_call_steps(self.step))
        return min(most, self.progress.estimate_steps(CALL_SECONDS))

    def start_call(
        self, stop_signal: distributed.StopSignal, profile: Profile
    ) -> bool:  # False: stopped
        """Start the next call, unless a signal was received."""
        n, stopped = distributed.sync_steps_and_signal(
            self.next_call_steps(profile), stop_signal.signal
        )
        if stopped:
            stop_signal.signal = stopped
            return False
        profile.start_if_due(self.step)
        self.start_steps(n)
        return True

    def finish_call(self, profile: Profile) -> None:
        """Run what is due after the steps of the call that was started."""
        profile.stop_if_due(self.step, self.process_pending)
        if self.step in (self.next_event_step(self.step - 1), self.end):
            self.process_pending()
            self.run_due_events()

    def start_steps(self, num_steps: int) -> None:
        """Start steps; meanwhile process the metrics of the previous call."""
        self.states, metrics = self.programs.train(self.states, self.step, num_steps)
        before, self.pending = self.pending, (self.step, num_steps, metrics)
        self.step += num_steps
        self.process_metrics(before)

    def process_pending(self) -> None:
        """Process the metrics of the pending call, so that none remains pending."""
        before, self.pending = self.pending, None
        self.process_metrics(before)

    def process_metrics(
        self, call: tuple[int, int, dict] | None
    ) -> None:  # (steps before, steps, {metric: [N, capacity]})
        """Wait for a call's metrics, mark trials with values that are not finite as
        failed, and write the rows that are due.
        """
        if call is None:
            return
        first, n, metrics = call
        values = {name: v[:, :n] for name, v in distributed.gather_to_host(metrics).items()}
        for i, t in enumerate(self.trials):
            if not t.failed:
                t.write_train_rows(
                    first, {name: v[i] for name, v in values.items()}, self.is_logged
                )
        shown = {name: v for name, v in values.items() if not name.startswith(NORMS)}
        self.progress.data_wait_seconds = self.programs.data_wait_seconds
        self.progress.update(
            first + n,
            {name: v[: len(self.trials), n - 1] for name, v in shown.items()},
            self.append_timings,
        )

    def is_logged(self, step: int) -> bool:
        """Return whether a step has a row: every config.run.log_every, and the last."""
        every = self.config.run.log_every
        return bool(every) and (step % every == 0 or step == self.config.steps)

    def append_timings(self, step: int, steps_per_second: float, elapsed_seconds: float) -> None:
        """Append speed, utilization, memory and the fraction of the time that was spent
        waiting for data to the timings.jsonl of every trial.

        Args:
          step: the last finished step.
          steps_per_second: the smoothed speed of all trials together.
          elapsed_seconds: since the loop started.
        """
        speed = describe_speed(self.programs, steps_per_second)
        waiting = self.programs.data_wait_seconds / max(elapsed_seconds, 1e-9)
        for t in self.trials:
            t.dir.append_timing(
                step=step, seconds=round(elapsed_seconds, 3), data_wait=round(waiting, 4), **speed
            )

    # -- events

    def run_due_events(self) -> None:
        """Run the events that are due after this step."""
        ended, stopped = self.step == self.config.steps, self.step == self.end
        for event in self.events:
            due = event.every and self.step % event.every == 0
            if self.unfailed_trials() and (due or ended or stopped and event.at_stop):
                event.act()
        self.progress.exclude_time()

    def evaluate_split(self, split: str) -> None:
        """Evaluate a split, write its rows at this step, update the best parameters."""
        metrics = self.evaluator.evaluate(self.states, split, self.config.num_metric_samples)
        self.record_evaluation(split, metrics, self.states, self.step)

    def record_evaluation(
        self, split: str, metrics: Sequence[dict[str, float]], states: TrainState, step: int
    ) -> None:  # metrics [N] of {name: value}
        """Write the rows of an evaluation, and update the best parameters so far.

        Args:
          split: name of the split; only "valid" updates the best parameters.
          metrics: {name: value} of each trial.
          states: the states that were evaluated, at this step.
        """
        better = np.zeros(self.programs.layout.num_padded, bool)
        for i, (t, row) in enumerate(zip(self.trials, metrics, strict=True)):
            if t.failed:
                continue
            t.write_row(dict(step=step, split=split, **{k: json_float(v) for k, v in row.items()}))
            if split == "valid" and self.config.best_metric:
                better[i] = t.update_best(row[self.config.best_metric.removeprefix("valid/")], step)
        if better.any():
            new = drop_opt_states(states)
            self.best = self._select_better(better, new if self.best is None else self.best, new)

    def save_samples(self) -> None:
        """Save samples of the method's first sampler, except for failed trials."""
        what, sampler = next(iter(self.programs.method.samplers.items()))
        num = self.config.run.samples
        if sampler.conditioned:  # on distinct examples
            num = min(num, self.dataset.splits["valid"][1])
        drawn = self.programs.draw(self.states, what, num, "valid")
        columns, digests = sampler.grid and sampler.grid[1], self.weight_digests()
        title = f"{what}, step {self.step:,}" + ", valid examples" * sampler.conditioned
        annotations = Annotations(title, sampler.labels)
        for i, t in enumerate(self.trials):
            if not t.failed:
                folder = t.dir / "samples"
                folder.mkdir(exist_ok=True)
                path = sample_files.save_images_or_texts(
                    folder / f"step_{self.step:08d}",
                    drawn[i],
                    self.dataset,
                    t.sample_origin(digests[i], self.step),
                    columns,
                    annotations,
                )
                tokenizer = self.dataset.tokenizer
                texts = [tokenizer.decode_until_end(x) for x in drawn[i]] if tokenizer else []
                t.log_samples(Samples(self.step, path, texts))

    def weight_digests(self) -> list[str]:  # [N]
        """Return the digest of each trial's weights, the origin of its images."""
        return digest_trials(drop_opt_states(self.states), len(self.trials))

    def flatten_states(
        self, states: TrainState | None, flatten: Callable[[TrainState], dict] = flatten_state
    ) -> dict[str, Any]:  # [num_padded, ...] -> {path: [N, ...]}
        """Return {path: leaf} of the trials' states; {} where `states` is None.

        Args:
          states: stacked states, with padding.
          flatten: `flatten_state` copies the leaves to the host; `flatten_local`
            returns the shards of this process.
        """
        return {} if states is None else flatten(self.programs.layout.drop_padding(states))

    def save_checkpoint(self) -> None:
        """Save a checkpoint of this step, after its rows. Trials with parameters that
        are not finite fail; nothing is saved if all have failed.
        """
        state, best = (
            self.flatten_states(self.states, flatten_local),
            self.flatten_states(self.best, flatten_local),
        )
        params = [name for name in state if name.startswith("params/")]
        # finite [parameters, N]
        finite = distributed.true_in_all_processes(
            np.array([distributed.is_trial_finite(state[name]) for name in params])
        )
        for i, t in enumerate(self.trials):
            if not finite[:, i].all() and not t.failed:
                t.mark_diverged(self.step, params[int(finite[:, i].argmin())])
        if self.unfailed_trials():
            for t in self.trials:
                t.dir.sync_rows()
            meta = dict(
                failed=[t.failed for t in self.trials],
                best=[t.best for t in self.trials],
                rows=[t.dir.digest_rows() for t in self.trials],
            )
            self.checkpoints.save(self.step, state, best, meta)

    # -- the end

    def save_and_stop(self, stop_signal: distributed.StopSignal) -> None:
        """Save before the last step, and write the signal that stopped training."""
        self.save_checkpoint()
        self.checkpoints.wait_until_finished()
        self.progress.end_line()
        if stop_signal.signal:
            name = signal.Signals(stop_signal.signal).name
            for t in self.unfailed_trials():
                t.dir.write_status("preempted", self.step, signal=name)

    def is_single(self) -> bool:
        """Return whether this is a run of its own, not a group of a sweep."""
        return self.checkpoints.path == (self.trials[0].dir / "checkpoints").absolute()

    def finish_trials(self) -> None:
        """Write the status after the last step. Draw the curves of a single run, or of
        a group that several processes train; else export the checkpoint of each trial.
        """
        self.checkpoints.wait_until_finished()
        self.progress.end_line()
        single = jax.process_count() > 1 or self.is_single()
        state, best = (
            ({}, {})
            if single
            else (self.flatten_states(self.states), self.flatten_states(self.best))
        )
        digests = self.weight_digests() if single else []
        for i, t in enumerate(self.trials):
            if t.failed:
                continue
            if single:
                t.draw_curves(digests[i], self.step)
            else:
                t.export_checkpoint(self.step, select_trial(state, i), select_trial(best, i))
            t.dir.write_status("done", self.step, best=t.best)
