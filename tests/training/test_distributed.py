"""One run over several real processes on one machine: preempted, killed, and resumed
with another number of processes.
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

# float64, so that sums over different numbers of devices agree to many digits. The
# number of steps leaves time for signals to arrive during training.
RUN = {
    "precision": "float64",
    "run.mesh.data": -1,
    "run.log_every": "10 steps",
    "run.eval_every": 0,
    "run.sample_every": 0,
    "run.save_every": "20 steps",
    "run.log": (),
    "best_metric": "",
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
    """Starts `count` processes that train one run. Each process loads its part of every
    batch and writes its shards of every checkpoint.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [
        f"--coordinator=127.0.0.1:{port}",
        f"--num_processes={count}",
        "--config.run.data_placement=host",
        "--config.run.fsdp=True",
    ]
    around = environment() | {"AIGC_HEARTBEAT_SECONDS": "10"}
    command = lambda i: start_words(*words(name, workdir), *flags, f"--process_id={i}")
    return [
        subprocess.Popen(command(i), env=around, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for i in range(count)
    ]


def finish(given):
    """Runs the command to its end and returns its standard error."""
    done = command_line(*given)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name, then", [("gan_digits", 3), ("gpt_shakespeare_cpu", 4)])
def test_preempted_processes_resume_with_another_process_count(name, then, tmp_path, monkeypatch):
    """Two processes are preempted, three or four resume and are killed, and one process
    finishes. All rows equal those of an uninterrupted run in one process.
    """
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    alone, path = tmp_path / "alone", tmp_path / "run"
    finish(words(name, alone))

    both = start(name, path, 2)
    wait_until(both[0], lambda: newest(path) > 0)
    both[1].send_signal(signal.SIGTERM)  # not the primary process, which writes the run directory
    stderr = [process.communicate(timeout=120)[1] for process in both]
    status = RunDir(path).read_json("STATUS.json")
    assert [process.returncode for process in both] == [128 + signal.SIGTERM] * 2, stderr
    assert (
        status["status"] == "preempted"
        and status["step"] == newest(path) > 0
        and status["signal"] == "SIGTERM"
    )

    meta = json.loads((path / "checkpoints" / str(status["step"]) / "meta.json").read_text())
    assert set(meta["files"]) == {"state.0.npz", "state.1.npz"}  # one file of shards per process

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
    rows, expected = RunDir(path).read_rows(), RunDir(alone).read_rows()
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
        # a step of one task, as for trials of a sweep
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, ""),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "Slurm"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, ""),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "a TPU pod"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ""),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
    ],
)
def test_find_launcher_from_environment_variables(around, launcher):
    assert distributed.find_launcher(around) == launcher


def test_undetected_process_layout_is_a_user_error(monkeypatch):
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    with pytest.raises(
        UserError,
        match="Open MPI started this as one of several processes, but JAX cannot determine its "
        "index",
    ):
        distributed.initialize()


def test_invalid_heartbeat_seconds_are_a_user_error(monkeypatch):
    monkeypatch.setenv("AIGC_HEARTBEAT_SECONDS", "soon")
    with pytest.raises(
        UserError, match="AIGC_HEARTBEAT_SECONDS = 'soon' must be an integer of at least 1"
    ):
        distributed.initialize()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--coordinator=127.0.0.1:1"], "must be set together"),
        (["--coordinator=127.0.0.1", "--num_processes=2", "--process_id=0"], "must be HOST:PORT"),
        (
            ["--coordinator=127.0.0.1:1", "--num_processes=2", "--process_id=2"],
            "--process_id=2 must be at least 0 and less than",
        ),
    ],
)
def test_invalid_process_flags_are_a_one_line_error(flags, message, tmp_path, capsys):
    assert cli.main([*words("gan_digits", tmp_path / "run"), *flags]) == 1
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1, err
