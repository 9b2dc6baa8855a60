"""One run over several real processes on one machine: told to stop, killed, gone on
with by another number.
"""

import json
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from helpers import ROOT, command_line, environment, start_words
from runs import newest, wait_until

from aigc_jax.cli import main as cli
from aigc_jax.core import distributed
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError

# In float64 sums over other devices agree to many digits; steps so many that something
# can happen on the way.
RUN = {
    "precision": "float64",
    "run.mesh.data": -1,
    "run.log_every": "10 steps",
    "run.eval_every": 0,
    "run.sample_every": 0,
    "run.save_every": "20 steps",
    "run.tensorboard": False,
    "best": "",
}
RUNS = {
    "gan_digits": dict(batch_size=24, steps="300 steps"),
    "gpt_shakespeare_cpu": {
        "steps": "240 steps",
        "model.layers": 2,
        "model.dropout": 0.0,
        "data.name": "pydoc",
    },
}


def words(name, workdir):
    overrides = [f"--config.{key}={value}" for key, value in (RUN | RUNS[name]).items()]
    return ["train", f"--config={ROOT / 'configs' / name}.py", f"--workdir={workdir}", *overrides]


def start(name, workdir, count):
    """That many processes that train one run, each of which reads its part of every
    batch and writes its part of every checkpoint.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [
        f"--coordinator=127.0.0.1:{port}",
        f"--num_processes={count}",
        "--config.run.data=host",
        "--config.run.fsdp=True",
    ]
    around = environment() | {"AIGC_HEARTBEAT_SECONDS": "10"}
    command = lambda i: start_words(*words(name, workdir), *flags, f"--process_id={i}")
    return [
        subprocess.Popen(command(i), env=around, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for i in range(count)
    ]


def finish(given):
    """What a run that ends says."""
    done = command_line(*given)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name, then", [("gan_digits", 3), ("gpt_shakespeare_cpu", 4)])
def test_several_processes_stop_together_and_resume_in_another_number(
    name, then, tmp_path, monkeypatch
):
    """Rows of the whole equal those of one process; so do those of the steps that three
    or four and one went on with.
    """
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    alone, path = tmp_path / "alone", tmp_path / "run"
    finish(words(name, alone))

    both = start(name, path, 2)
    wait_until(both[0], lambda: newest(path) > 0)
    both[1].send_signal(signal.SIGTERM)  # not the one that writes
    stderr = [process.communicate(timeout=120)[1] for process in both]
    status = RunDir(path).read_json("STATUS.json")
    assert [process.returncode for process in both] == [128 + signal.SIGTERM] * 2, stderr
    assert (
        status["status"] == "preempted"
        and status["step"] == newest(path) > 0
        and status["signal"] == "SIGTERM"
    )

    meta = json.loads((path / "checkpoints" / str(status["step"]) / "meta.json").read_text())
    assert set(meta["files"]) == {"state.0.npz", "state.1.npz"}  # each wrote its share

    more = start(name, path, then)
    wait_until(more[0], lambda: newest(path) > status["step"])
    more[2].kill()
    killed = time.monotonic()
    stderr = [process.communicate(timeout=120)[1] for process in more]
    assert time.monotonic() - killed < 120, stderr
    assert all(process.returncode for process in more), stderr
    assert f"resuming at step {status['step']:,}" in stderr[0] and "resuming" not in stderr[1]

    last = newest(path)
    assert f"resuming at step {last:,}" in finish(words(name, path))
    rows, expected = RunDir(path).rows(), RunDir(alone).rows()
    assert [row["step"] for row in rows] == [row["step"] for row in expected] and len(rows) > 10
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for key in row.keys() - {"split"}:
            np.testing.assert_allclose(
                row[key], other[key], rtol=1e-4, err_msg=f"{key} at step {row['step']}"
            )


@pytest.mark.parametrize(
    "around, launcher",
    [
        ({}, ""),
        # one task of its own, as a sweep's are
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, ""),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "Slurm"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, ""),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "a TPU pod"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ""),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
    ],
)
def test_a_launcher_is_known_by_the_processes_that_it_started(around, launcher):
    assert distributed.launched(around) == launcher


def test_processes_that_jax_does_not_find_are_one_sentence(monkeypatch):
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    with pytest.raises(
        UserError,
        match="Open MPI started this as one of several processes, but JAX does not find out which",
    ):
        distributed.begin()


def test_seconds_that_are_none_are_one_sentence(monkeypatch):
    monkeypatch.setenv("AIGC_HEARTBEAT_SECONDS", "soon")
    with pytest.raises(
        UserError, match="AIGC_HEARTBEAT_SECONDS = 'soon' must be a whole number of seconds"
    ):
        distributed.begin()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--coordinator=127.0.0.1:1"], "go together"),
        (["--coordinator=127.0.0.1", "--num_processes=2", "--process_id=0"], "must be HOST:PORT"),
        (
            ["--coordinator=127.0.0.1:1", "--num_processes=2", "--process_id=2"],
            "--process_id=2 must lie in",
        ),
    ],
)
def test_flags_of_several_processes_that_do_not_fit_are_one_sentence(
    flags, message, tmp_path, capsys
):
    assert cli.main([*words("gan_digits", tmp_path / "run"), *flags]) == 1
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1, err
