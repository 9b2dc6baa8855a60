"""The only loop. It trains N trials as one program, and cannot tell one from sixty-four.

A call of the program takes at most about half a second; while the device works on one, the rows of the one before it are
fetched and written. Evaluation, samples and checkpoints happen at fixed steps, in this order, so that the rows are a pure
function of the config; rows up to a step are on disk before the checkpoint of that step is.
"""

import contextlib
import functools
import io
import resource
import signal
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax import config as configs
from aigc_jax import costs, data, methods, processes, samples, start, trackers
from aigc_jax.checkpoint import Checkpoints, digests, fill, flatten, share
from aigc_jax.errors import require
from aigc_jax.extractors import extractor
from aigc_jax.init_from import initialize
from aigc_jax.programs import Programs, without_opt
from aigc_jax.progress import Profile, Progress
from aigc_jax.results import RunDir, describe_error, disk_errors, plain
from aigc_jax.terminal import print_warning
from aigc_jax.trial import Trial, part

CALL_SECONDS = 0.5  # of one call of the compiled program


def train(given, workdirs, group=None, extend=None, download=False, report=None, changes=None, make=None, until=None, parent=None,
          profile=(), restart=False):
    """Train one trial per config, which may differ in `seed` and `hp` only; returns the list of each one's STATUS.

    given     configs with durations as in their files; workdirs: where each leaves its results
    group     where the checkpoints are stored; by default the only trial's directory. Trials of a group end with their own checkpoints
    extend    steps in all to go on to, instead of config.steps
    changes   per trial, what differs from the config's file, {key: [there, here]}
    make      (config, dataset, number of trials) -> their `Programs`, such as partial(Programs, route="map"); in one go if not given
    until     a duration shorter than config.steps after which to evaluate, save and stop, as if to be resumed
    profile   (first, last) of the steps that are traced, into WORKDIR/profile
    restart   remove what lies in the directories and begin again at step 0
    parent    (directory, [places of these trials among its own]) of a group to begin with, which stopped at `until`
    """
    make = make or functools.partial(Programs, extractor=extractor)
    report = report or print_warning
    dirs = [RunDir(w) for w in workdirs]
    group = Path(group or workdirs[0])
    trackers.check(given[0])
    dataset = data.load(given[0].data, given[0].run.data_dir, download)
    resolved = [configs.resolve(c, dataset.spec.n_train, methods.examples(c)) for c in given]
    with contextlib.ExitStack() as stack:
        there = dirs
        if not processes.first():  # reads what is there, and writes where nobody looks
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            dirs, report = [RunDir(scratch / str(i)) for i in range(len(there))], lambda line: None
        for d in dirs:
            stack.callback(d.close)
            d.open()
        stack.enter_context(disk_errors(group))
        start.clear(dirs if restart else [])
        fingerprint = data.fingerprint(dataset)
        agreed = start.agree(resolved, there, dataset, fingerprint, extend)
        require(not profile or profile[1] <= agreed[0].steps,
                f"--profile=steps:{'-'.join(map(str, profile))} ends after the run's {agreed[0].steps} steps")
        trials = [Trial(c, d) for c, d in zip(agreed, dirs, strict=True)]
        checkpoints = stack.enter_context(Checkpoints(group / "checkpoints"))
        stop = stack.enter_context(processes.Stop())
        if until is not None:
            until = configs.steps_of(until, "rung", dataset.spec.n_train, methods.examples(given[0]))
        loop = Loop(trials, make(agreed[0], dataset, len(trials)), checkpoints, report, Profile(there[0] / "profile", *profile), until)
        loop.programs.begin()
        loop.restore(parent)
        loop.begin()
        start.record(agreed, dirs, dataset, fingerprint, changes or [{}] * len(dirs))
        try:
            loop.run(stop)
        except BaseException as e:
            if not isinstance(e, KeyboardInterrupt):
                with contextlib.suppress(OSError):  # a full disk has no room for this either
                    for t in trials:
                        t.dir.status("failed: crashed", loop.step, reason=describe_error(e, t.dir.path.name))
            raise
        finally:
            for t in trials:
                for tracker in t.trackers:
                    tracker.close()
        return [t.dir.read_status() for t in trials]


class Loop:
    """From restored or fresh states to the last step."""

    def __init__(self, trials, programs, checkpoints, report, profile, until=None):
        self.trials, self.programs, self.checkpoints, self.report, self.profile = trials, programs, checkpoints, report, profile
        self.config, self.dataset = trials[0].config, programs.dataset
        self.end = min(until or self.config.steps, self.config.steps)
        self.step, self.restored, self.pending, self.best = 0, -1, None, None
        self.improve = jax.jit(
            lambda better, best, new: jax.tree.map(
                lambda b, n: jnp.where(better.reshape(-1, *(1,) * (n.ndim - 1)), n, b), best, new
            )
        )

    def run(self, stop):
        config, every = self.config, self.config.run
        for t in self.trials:
            t.trackers = trackers.start(t.dir.path, t.config, self.step)
            if t.failed:
                t.mark_failed()
            else:
                t.dir.status("running", self.step)
        if self.restored < 0 and every.eval_every:
            self.note("valid", self.untrained)
        self.progress = Progress(self.step, self.end, sys.stderr if processes.first() else io.StringIO())
        while self.step < self.end and self.alive():
            most = min(self.next_event(), self.end, self.profile.bound(self.step)) - self.step
            n, stopped = processes.agreed(min(most, self.progress.steps_in(CALL_SECONDS), self.programs.feed.most(self.step)), stop.signal)
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
            for t in self.alive() if stop.signal else ():
                t.dir.status("preempted", self.step, signal=signal.Signals(stop.signal).name)

    def alive(self):
        return [t for t in self.trials if not t.failed]

    # -- starting

    def restore(self, parent=None):
        """Go on from the newest good checkpoint, or from the parent's, or begin."""
        self.checkpoints.tidy()
        processes.wait("tidied")  # from here until `cut` nobody writes
        found = self.checkpoints.newest(self.report, self.programs.wanted)
        own, found = found is not None, found or start.inherited(parent)
        newest = found[2]["step"] if found else -1
        require(processes.same(newest) == newest, f"{self.checkpoints.path} looks different to some of the processes: it must lie where all see it")
        if found:
            state, best, meta = found
            where = f"the checkpoint of step {meta['step']}"
            self.step = self.restored = meta["step"]
            self.best = self.programs.place(fill(without_opt(self.programs.shapes), best, where)) if best else None
            self.states = self.programs.place(fill(self.programs.shapes, state, where))
            for t, failed, value in zip(self.trials, meta["failed"], meta["best"], strict=True):
                t.failed, t.best = failed, value
        else:
            self.states = self.programs.init([t.config for t in self.trials])
            if self.config.init_from:
                self.states = self.programs.place(initialize(self.states, self.config, self.dataset.tokenizer, self.report))
        start.cut_rows(self.checkpoints, self.trials, self.restored, found and found[2]["rows"], own)
        if found:
            self.report(f"resuming at step {self.step:,}")

    def begin(self):
        """The values of an untrained model, before anything is recorded: a config.best that is none of them is a mistake."""
        if self.restored < 0 and (self.config.run.eval_every or self.config.best):
            self.untrained = self.programs.evaluate(self.states, "valid", self.config.metric_samples)
            require(self.config.best.removeprefix("valid/") in self.untrained[0] or not self.config.best, f"config.best = {self.config.best!r} "
                    "is no row metric; there are " + ", ".join(f"valid/{k}" for k in self.untrained[0]))

    # -- going on

    def next_event(self, after=None):
        """The first step past `after` at which something is to be done beside training."""
        after = self.step if after is None else after
        run = self.config.run
        periods = [p for p in (run.eval_every, run.sample_every, run.save_every) if p]
        return min([after - after % p + p for p in periods], default=self.config.steps)

    def call(self, n):
        """One call of the program, of n steps; meanwhile the rows of the one before."""
        self.states, metrics = self.programs.train(self.states, self.programs.data(self.states, self.step), np.int32(n))
        before, self.pending = self.pending, (self.step, n, metrics)
        self.step += n
        self.fetch(before)

    def drain(self):
        before, self.pending = self.pending, None
        self.fetch(before)

    def fetch(self, call):
        """Wait for a call's metrics, look for values that are not finite, write the rows that are due."""
        if call is None:
            return
        first, n, metrics = call
        values = {name: v[:, :n] for name, v in processes.host(metrics).items()}
        for i, t in enumerate(self.trials):
            if t.failed:
                continue
            bad = [(int(np.argmin(np.isfinite(v[i]))), name) for name, v in values.items() if not np.isfinite(v[i]).all()]
            end = min(bad)[0] if bad else n
            for k in range(end + bool(bad)):
                if k == end or self.is_logged(first + k + 1):
                    t.write(dict(step=first + k + 1, split="train", **{name: plain(v[i, k]) for name, v in values.items()}))
            if bad:
                t.failed = dict(step=first + end + 1, metric=min(bad)[1])
                t.mark_failed()
        self.progress.show(first + n, {name: v[: len(self.trials), n - 1] for name, v in values.items()}, self.timing)

    def is_logged(self, step) -> bool:
        """Whether a step leaves a row: every so many, and the last of the run."""
        every = self.config.run.log_every
        return bool(every) and (step % every == 0 or step == self.config.steps)

    def timing(self, step, steps_per_second, seconds):
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        device = jax.local_devices()[0].memory_stats() or {}
        unit, each = ("examples", 1) if self.dataset.tokenizer is None else ("tokens", self.dataset.spec.shape[0])
        rate = {"steps_per_s": round(steps_per_second, 3), f"{unit}_per_s": round(steps_per_second * methods.examples(self.config) * each)}
        if peak := costs.peak(jax.devices()[0].device_kind, self.config.precision):
            rate["utilization"] = round(self.programs.flops * steps_per_second / (peak * self.programs.mesh.size), 4)
        for t in self.trials:
            t.dir.timing(step=step, seconds=round(seconds, 3), **rate, host_bytes=memory, device_bytes=device.get("peak_bytes_in_use"))

    def events(self, every):
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

    def evaluate(self, split):
        self.note(split, self.programs.evaluate(self.states, split, self.config.metric_samples))

    def note(self, split, values):
        """Write the rows of an evaluation; keep the parameters that are the best so far."""
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

    def sample(self):
        what, num = next(iter(self.programs.method.samplers)), self.config.run.samples
        drawn = self.programs.draw(self.states, what, num, "valid")
        columns, hashes = self.programs.method.sheets.get(what, (None, None))[1], self.hashes()
        for i, t in enumerate(self.trials):
            if not t.failed:
                folder = t.dir / "samples"
                folder.mkdir(exist_ok=True)
                samples.save(folder / f"step_{self.step:08d}", drawn[i], self.dataset, t.origin(hashes[i], self.step), columns)

    def hashes(self) -> list[str]:
        """Of each trial's weights, by which its pictures say whose they are."""
        return digests(without_opt(self.states), len(self.trials))

    def flat(self, states, of=flatten) -> dict:
        """The trials' states, on the host; or this process's share of them."""
        return {} if states is None else of(self.programs.trials(states))

    def save(self):
        """A checkpoint of this step, unless a parameter is not finite; rows are on disk before it."""
        state, best = self.flat(self.states, share), self.flat(self.best, share)
        params = [name for name in state if name.startswith("params/")]
        finite = processes.all_of(np.array([processes.finite(state[name]) for name in params]))  # [parameters, N]
        for i, t in enumerate(self.trials):
            if not finite[:, i].all() and not t.failed:
                t.failed = dict(step=self.step, metric=params[int(finite[:, i].argmin())])
                t.mark_failed()
        if self.alive():
            for t in self.trials:
                t.dir.sync()
            meta = dict(failed=[t.failed for t in self.trials], best=[t.best for t in self.trials],
                        rows=[t.dir.written_rows() for t in self.trials])
            self.checkpoints.save(self.step, state, best, meta)

    def finish(self):
        """After the last step: the test rows, the last checkpoint, the curves of a single run, each trial's own checkpoint in a group."""
        if self.step > self.restored:
            self.evaluate("test")
            self.save()
        self.checkpoints.wait()
        self.progress.end_line()
        alone = jax.process_count() > 1 or self.checkpoints.path == (self.trials[0].dir / "checkpoints").absolute()
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
