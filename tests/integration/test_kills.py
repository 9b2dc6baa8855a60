"""Runs, sweeps and halving sweeps that are killed at random moments and resumed end
with the same bytes as uninterrupted ones.

The moments are seeded. The fast tier simulates kills at random writes in this process;
the slow tier kills processes, 70 times in all.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers import ROOT, environment, start_words
from runs import train
from tiny_configs import tiny

from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import digest_leaves
from aigc_jax.utils import documents

# Files with wall-clock measurements or the messages of a process.
CLOCKS = {".lock", "timings.jsonl", "plan.json", "log.txt"}


def snapshot(path: Path) -> dict:
    """{relative path: bytes} below a directory; of checkpoints the newest leaves."""
    out = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name not in CLOCKS):
        name = file.relative_to(path)
        if "checkpoints" not in name.parts:
            out[str(name)] = file.read_bytes()
    for folder in path.rglob("checkpoints"):
        with Checkpoints(folder) as checkpoints:
            state, best, meta = checkpoints.read_newest_valid(pytest.fail)
            names = [p.name for p in folder.iterdir()]
        meta.pop("files")  # Orbax's names differ
        out[str(folder.relative_to(path))] = (
            digest_leaves(state),
            digest_leaves(best),
            meta,
            sorted(names),
        )
    return out


def assert_same(path, whole):
    found, expected = snapshot(path), snapshot(whole)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name


class Killed(BaseException):
    """Simulates SIGKILL within the process: nothing is written after it."""


class Writes:
    """Counts writes, and raises Killed before or after a chosen one."""

    WRITES = (
        (documents, "write_atomically"),
        (RunDir, "append_row"),
        (RunDir, "sync_rows"),
        (Path, "rename"),
        (os, "truncate"),
        (shutil, "rmtree"),
    )

    def __init__(self, monkeypatch, last=None):
        self.count, self.last = 0, last
        for owner, name in self.WRITES:
            monkeypatch.setattr(owner, name, self.around(getattr(owner, name)))

    def around(self, write):
        def wrapped(*args, **kwargs):
            self.step()
            out = write(*args, **kwargs)
            self.step()
            return out

        return wrapped

    def step(self):
        self.count += 1
        if self.last is not None and self.count > self.last:
            raise Killed


def test_run_killed_at_random_writes_ends_with_the_same_bytes(tmp_path, monkeypatch):
    """Compares all files, config.json among them."""
    config, moments, killed = tiny(steps=24, run__log=()), random.Random(25), 0
    with monkeypatch.context() as patch:
        writes = Writes(patch)
        train(config, tmp_path / "whole" / "run")
    for _ in range(3):
        with monkeypatch.context() as patch:
            Writes(patch, moments.randrange(writes.count))
            try:
                train(config, tmp_path / "parts" / "run")
            except Killed:
                killed += 1
    assert killed == 3 and train(config, tmp_path / "parts" / "run")[0]["status"] == "done"
    assert_same(tmp_path / "parts", tmp_path / "whole")


TINY = {
    "model.widths": "((6,),)",
    "latent_dims": "(2,)",
    "nll_samples": 5,
    "batch_size": 16,
    "num_metric_samples": 32,
    "steps": "3000 steps",
    "run.log_every": "100 steps",
    "run.eval_every": "500 steps",
    "run.sample_every": "1000 steps",
    "run.save_every": "100 steps",
    "run.samples": 4,
    "run.log": (),
    "run.mesh.data": 1,
}
SETTINGS = [f"--config.{key}={value}" for key, value in TINY.items()]
HALVING = f"""
from aigc_jax.sweeps.experiment import Experiment, Halving

EXPERIMENT = Experiment(
    config={str(ROOT / "configs" / "vae_digits.py")!r},
    halving=Halving(metric="valid/neg_elbo", rungs=("500 steps", "1500 steps"), factor=2),
    sweep=lambda: [{{"hp.lr": lr}} for lr in (1e-4, 3e-4, 1e-3, 3e-3)],
)
"""


def command(kind: str, folder: Path) -> list[str]:
    """The command line of a run or sweep in the working directory `folder`."""
    if kind == "train":
        return start_words(
            "train", f"--config={ROOT / 'configs' / 'vae_digits.py'}", "--workdir=it", *SETTINGS
        )
    if kind == "halving":
        (folder / "halving.py").write_text(HALVING)
        return start_words(
            "sweep", "--experiment=halving.py", "--workdir=it", "--route=vmap", *SETTINGS
        )
    rates = ["--grid", "hp.lr=1e-4,1e-3", "--seeds=2"]
    return start_words(
        "sweep",
        f"--config={ROOT / 'configs' / 'vae_digits.py'}",
        "--workdir=it",
        "--route=vmap",
        *rates,
        *SETTINGS,
    )


def jobs_in(folder: Path) -> list[int]:
    """Process ids of the jobs that train groups of a sweep below a folder."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (proc / "cmdline").read_bytes().split(b"\0")
            if b"group" in words and any(
                w.startswith(f"--workdir={folder}/".encode()) for w in words
            ):
                found.append(int(proc.name))
    return found


def row_bytes(folder: Path) -> int:
    """The size of all rows, as a measure of progress."""
    sizes = []
    for file in (folder / "it" / "rows.jsonl", *(folder / "it").glob("trials/*/rows.jsonl")):
        with contextlib.suppress(OSError):
            sizes.append(file.stat().st_size)
    return sum(sizes)


def start(kind, folder):
    folder.mkdir(exist_ok=True)
    log = open(folder / "stderr.txt", "w")
    return subprocess.Popen(
        command(kind, folder), env=environment(), cwd=folder, stdout=log, stderr=log
    )


def kill_when(kind, folder, bytes_, seconds) -> bool:
    """Start a process, and kill it and its jobs `seconds` after its rows have reached
    `bytes_`. Returns whether the process was killed before its end.
    """
    process = start(kind, folder)
    try:
        while row_bytes(folder) < bytes_ and process.poll() is None:
            time.sleep(0.002)
        time.sleep(seconds)
        ended = process.poll() is not None
    finally:
        process.kill()
        for job in jobs_in(folder):  # not in the session of the process
            with contextlib.suppress(ProcessLookupError):
                os.kill(job, signal.SIGKILL)
        process.wait()
    assert not ended or process.returncode == 0, (folder / "stderr.txt").read_text()
    return not ended


def finish(kind, folder):
    assert start(kind, folder).wait(300) == 0, (folder / "stderr.txt").read_text()


@pytest.fixture(scope="module")
def uninterrupted_runs(tmp_path_factory):
    """(kind) -> the directory of an uninterrupted run, trained at its first use."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            finish(kind, made[kind])
        return made[kind]

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, seed, kills",
    [
        *(("train", seed, 6) for seed in range(5)),
        *(("sweep", seed, 5) for seed in range(4)),
        *(("halving", seed, 5) for seed in range(4)),
    ],
)
def test_processes_killed_at_random_moments_end_with_the_same_bytes(
    uninterrupted_runs, tmp_path, kind, seed, kills
):
    """One kill of a series comes while the process starts, each of the others after a
    random part of the remaining rows.
    """
    whole, moments, killed = uninterrupted_runs(kind), random.Random(f"{kind} {seed}"), 0
    early = moments.randrange(kills)
    for number in range(kills):
        so_far = row_bytes(tmp_path)
        target = so_far + int(moments.uniform(0.02, 0.35) * (row_bytes(whole) - so_far))
        after = moments.uniform(0, 4) if number == early else moments.uniform(0, 0.1)
        killed += kill_when(kind, tmp_path, 0 if number == early else target, after)
    assert killed >= kills - 1  # a fast machine may end within the last moment
    finish(kind, tmp_path)
    assert_same(tmp_path / "it", whole / "it")
