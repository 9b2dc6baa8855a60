"""The training loop, independent of the number of trials."""

import io
import resource
import signal
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax import methods
from aigc_jax.core import distributed
from aigc_jax.core.method import TrainState
from aigc_jax.media import sample_files
from aigc_jax.training import costs, loggers, resume
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.init_from import initialize
from aigc_jax.training.programs import Programs, without_opt
from aigc_jax.training.progress import Profile, Progress
from aigc_jax.training.serialization import digests, fill, flatten, share
from aigc_jax.training.trial import Trial, part
from aigc_jax.utils.documents import plain
from aigc_jax.utils.errors import require

CALL_SECONDS = 0.5  # of one call of the compiled program


class Loop:
    """From restored or fresh states to the last step."""

    def __init__(
        self,
        trials: list[Trial],
        programs: Programs,
        checkpoints: Checkpoints,
        report: Callable[[str], None],
        profile: Profile,
        until: int | None = None,
    ) -> None:
        self.trials, self.programs, self.checkpoints, self.report, self.profile = (
            trials,
            programs,
            checkpoints,
            report,
            profile,
        )
        self.config, self.dataset = trials[0].config, programs.dataset
        self.end = min(until or self.config.steps, self.config.steps)
        self.step, self.restored = 0, -1
        self.pending: tuple[int, int, dict] | None = None
        self.best: TrainState | None = None
        self.improve = jax.jit(
            lambda better, best, new: jax.tree.map(
                lambda b, n: jnp.where(better.reshape(-1, *(1,) * (n.ndim - 1)), n, b), best, new
            )
        )

    def run(self, stop: distributed.Stop) -> None:
        """Train until the last step, until all trials have failed, or until
        `stop.signal` is set; save those alive and write their status.
        """
        config, every = self.config, self.config.run
        for t in self.trials:
            t.trackers = loggers.start(t.dir.path, t.config, self.step)
            if t.failed:
                t.mark_failed()
            else:
                t.dir.status("running", self.step)
        if self.restored < 0 and every.eval_every:
            self.note("valid", self.untrained)
        self.progress = Progress(
            self.step, self.end, sys.stderr if distributed.first() else io.StringIO()
        )
        while self.step < self.end and self.alive():
            most = min(self.next_event(), self.end, self.profile.bound(self.step)) - self.step
            n, stopped = distributed.agreed(
                min(most, self.progress.steps_in(CALL_SECONDS), self.programs.feed.most(self.step)),
                stop.signal,
            )
            if stopped:
                stop.signal = stopped
                break
            self.profile.before(self.step)
            self.call(n)
            if where := self.profile.after(self.step, self.drain):
                self.report(f"trace: {where}")
            if self.step in (self.next_event(self.step - 1), self.end):
                self.drain()
                self.events(every)
        self.drain()
        if not self.alive():
            self.progress.end_line()
        elif self.step == config.steps:
            self.finish()
        else:
            self.save()
            self.checkpoints.wait()
            self.progress.end_line()
            if stop.signal:
                name = signal.Signals(stop.signal).name
                for t in self.alive():
                    t.dir.status("preempted", self.step, signal=name)

    def alive(self) -> list[Trial]:
        """Return the trials that have not failed."""
        return [t for t in self.trials if not t.failed]

    # -- starting

    def restore(self, parent: resume.Parent | None = None) -> None:
        """Go on from the newest good checkpoint, or from the parent's, or begin."""
        self.checkpoints.tidy()
        distributed.wait("tidied")  # from here until `cut` nobody writes
        found = self.checkpoints.newest(self.report, self.programs.wanted)
        own, found = found is not None, found or resume.inherited(parent)
        newest = found[2]["step"] if found else -1
        require(
            distributed.same(newest) == newest,
            f"{self.checkpoints.path} looks different to some of the processes: it must lie "
            "where all see it",
        )
        if found:
            state, best, meta = found
            where = f"the checkpoint of step {meta['step']}"
            self.step = self.restored = meta["step"]
            self.best = (
                self.programs.place(fill(without_opt(self.programs.shapes), best, where))
                if best
                else None
            )
            self.states = self.programs.place(fill(self.programs.shapes, state, where))
            for t, failed, value in zip(self.trials, meta["failed"], meta["best"], strict=True):
                t.failed, t.best = failed, value
        else:
            self.states = self.programs.init([t.config for t in self.trials])
            if self.config.init_from:
                self.states = self.programs.place(
                    initialize(self.states, self.config, self.dataset.tokenizer, self.report)
                )
        resume.cut_rows(
            self.checkpoints, self.trials, self.restored, found and found[2]["rows"], own
        )
        if found:
            self.report(f"resuming at step {self.step:,}")

    def begin(self) -> None:
        """The values of an untrained model, before anything is recorded: a config.best
        that is none of them is a mistake.
        """
        if self.restored < 0 and (self.config.run.eval_every or self.config.best):
            self.untrained = self.programs.evaluate(
                self.states, "valid", self.config.metric_samples
            )
            require(
                self.config.best.removeprefix("valid/") in self.untrained[0]
                or not self.config.best,
                f"config.best = {self.config.best!r} "
                "is no row metric; there are " + ", ".join(f"valid/{k}" for k in self.untrained[0]),
            )

    # -- going on

    def next_event(self, after: int | None = None) -> int:
        """The first step past `after` that has something to do beside training."""
        after = self.step if after is None else after
        run = self.config.run
        periods = [p for p in (run.eval_every, run.sample_every, run.save_every) if p]
        return min([after - after % p + p for p in periods], default=self.config.steps)

    def call(self, n: int) -> None:
        """One call of the program, of n steps; meanwhile the rows of the one before."""
        self.states, metrics = self.programs.train(
            self.states, self.programs.data(self.states, self.step), np.int32(n)
        )
        before, self.pending = self.pending, (self.step, n, metrics)
        self.step += n
        self.fetch(before)

    def drain(self) -> None:
        """Fetch the metrics of the call that is under way, so that none is pending."""
        before, self.pending = self.pending, None
        self.fetch(before)

    def fetch(self, call: tuple[int, int, dict] | None) -> None:
        """Wait for a call's metrics, look for values that are not finite, write the
        rows that are due.
        """
        if call is None:
            return
        first, n, metrics = call
        values = {name: v[:, :n] for name, v in distributed.host(metrics).items()}
        for i, t in enumerate(self.trials):
            if t.failed:
                continue
            bad = [
                (int(np.argmin(np.isfinite(v[i]))), name)
                for name, v in values.items()
                if not np.isfinite(v[i]).all()
            ]
            end = min(bad)[0] if bad else n
            for k in range(end + bool(bad)):
                if k == end or self.is_logged(first + k + 1):
                    t.write(
                        dict(
                            step=first + k + 1,
                            split="train",
                            **{name: plain(v[i, k]) for name, v in values.items()},
                        )
                    )
            if bad:
                t.failed = dict(step=first + end + 1, metric=min(bad)[1])
                t.mark_failed()
        self.progress.show(
            first + n,
            {name: v[: len(self.trials), n - 1] for name, v in values.items()},
            self.timing,
        )

    def is_logged(self, step: int) -> bool:
        """Whether a step leaves a row: every so many, and the last of the run."""
        every = self.config.run.log_every
        return bool(every) and (step % every == 0 or step == self.config.steps)

    def timing(self, step: int, steps_per_second: float, seconds: float) -> None:
        """Append speed, utilization and memory to every trial's timings.jsonl."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        device = jax.local_devices()[0].memory_stats() or {}
        unit, each = (
            ("examples", 1)
            if self.dataset.tokenizer is None
            else ("tokens", self.dataset.spec.shape[0])
        )
        rate = {
            "steps_per_s": round(steps_per_second, 3),
            f"{unit}_per_s": round(steps_per_second * methods.examples(self.config) * each),
        }
        if peak := costs.peak(jax.devices()[0].device_kind, self.config.precision):
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

    def events(self, every: ConfigDict) -> None:
        """What is due at this step: evaluate, then sample, then save."""
        last, rung = self.step == self.config.steps, self.step == self.end
        if not self.alive():
            return
        if rung or _due(self.step, every.eval_every):
            self.evaluate("valid")
        if last or _due(self.step, every.sample_every):
            self.sample()
        if not last and _due(self.step, every.save_every):
            self.save()
        self.progress.skip()

    def evaluate(self, split: str) -> None:
        """Write the rows of a split at this step; keep the best parameters."""
        self.note(split, self.programs.evaluate(self.states, split, self.config.metric_samples))

    def note(self, split: str, values: list[dict[str, float]]) -> None:
        """Write the rows of an evaluation; keep the best parameters so far."""
        better = np.zeros(self.programs.width, bool)
        for i, (t, row) in enumerate(zip(self.trials, values, strict=True)):
            if t.failed:
                continue
            t.write(dict(step=self.step, split=split, **{k: plain(v) for k, v in row.items()}))
            if split == "valid" and self.config.best:
                better[i] = t.improves(row[self.config.best.removeprefix("valid/")], self.step)
        if better.any():
            new = without_opt(self.states)
            self.best = self.improve(better, new if self.best is None else self.best, new)

    def sample(self) -> None:
        """Save samples of the method's first sampler, for every trial alive."""
        what, num = next(iter(self.programs.method.samplers)), self.config.run.samples
        drawn = self.programs.draw(self.states, what, num, "valid")
        columns, hashes = self.programs.method.sheets.get(what, (None, None))[1], self.hashes()
        for i, t in enumerate(self.trials):
            if not t.failed:
                folder = t.dir / "samples"
                folder.mkdir(exist_ok=True)
                sample_files.save(
                    folder / f"step_{self.step:08d}",
                    drawn[i],
                    self.dataset,
                    t.origin(hashes[i], self.step),
                    columns,
                )

    def hashes(self) -> list[str]:
        """Of each trial's weights, by which its pictures say whose they are."""
        return digests(without_opt(self.states), len(self.trials))

    def flat(self, states: TrainState | None, of: Callable = flatten) -> dict:
        """The trials' states, on the host; or this process's share of them."""
        return {} if states is None else of(self.programs.trials(states))

    def save(self) -> None:
        """A checkpoint of this step, rows first, unless a parameter is not finite."""
        state, best = self.flat(self.states, share), self.flat(self.best, share)
        params = [name for name in state if name.startswith("params/")]
        # finite [parameters, N]
        finite = distributed.all_of(np.array([distributed.finite(state[name]) for name in params]))
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

    def finish(self) -> None:
        """After the last step: the test rows, the last checkpoint, the curves of a
        single run, each trial's own checkpoint in a group.
        """
        if self.step > self.restored:
            self.evaluate("test")
            self.save()
        self.checkpoints.wait()
        self.progress.end_line()
        alone = (
            jax.process_count() > 1
            or self.checkpoints.path == (self.trials[0].dir / "checkpoints").absolute()
        )
        state, best = ({}, {}) if alone else (self.flat(self.states), self.flat(self.best))
        hashes = self.hashes() if alone else []
        for i, t in enumerate(self.trials):
            if t.failed:
                continue
            if alone:
                t.draw_curves(hashes[i], self.step)
            else:
                t.export(self.step, part(state, i), part(best, i))
            t.dir.status("done", self.step, best=t.best)


def _due(step, every):
    return bool(every) and step % every == 0
