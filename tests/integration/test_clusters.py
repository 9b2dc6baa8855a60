"""Sweeps on a real Slurm and a real Ray write the same bytes of rows as a local sweep,
although one trial diverges and jobs are cancelled.

  pip install -r requirements-engines.txt
  tests/integration/slurm.sh python -m pytest --slow tests/integration/test_clusters.py
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from helpers import ROOT, environment, start_words

from aigc_jax.sweeps.sweep import Sweep

pytestmark = pytest.mark.slow

EXPERIMENT = """
from aigc_jax.sweeps.experiment import Experiment

def sweep():
    trials = [{{"latent_dim": size, "seed": seed}} for size in (8, 16) for seed in (0, 1)]
    return trials + [{{"latent_dim": 16, "seed": 0, "hp.lr_g": 1e30}}]

EXPERIMENT = Experiment(
    config={config!r},
    overrides={{
        "steps": 3000, "run.eval_every": "1000 steps", "run.save_every": "250 steps",
        "run.sample_every": "3000 steps", "num_metric_samples": 64,
    }},
    sweep=sweep,
)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(directory, arguments) -> (path, process) of a sweep. A process has one device,
    since the bytes depend on the distribution of trials over devices.
    """
    folder = tmp_path_factory.mktemp("clusters")
    (folder / "experiments").mkdir()
    experiment = folder / "experiments" / "digits.py"
    experiment.write_text(EXPERIMENT.format(config=str(ROOT / "configs/gan_digits.py")))
    home = environment() | dict(
        XDG_CACHE_HOME=str(folder / "cache"), XLA_FLAGS="--xla_force_host_platform_device_count=1"
    )

    def start(name, *more, **variables):
        words = start_words(
            "sweep",
            f"--experiment={experiment}",
            f"--workdir={folder / name}",
            "--route=vmap",
            *more,
        )
        return folder / name, subprocess.Popen(
            words,
            env=home | variables,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="module")
def local_result(run):
    path, process = run("local")
    said = process.communicate()
    assert process.returncode == 0, said
    return statuses(path), (path / "rows.csv").read_bytes()


def statuses(path):
    return [status for g in Sweep(path).groups() for status in g.statuses()]


def wait_for_checkpoint(path, process):
    """Wait until the first group has a checkpoint, from which it resumes."""
    end = time.monotonic() + 120
    while not list(path.glob("sweep.json")) or not list(
        Sweep(path).groups()[0].path.glob("checkpoints/*")
    ):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def slurm():
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("no submitit: pip install -r requirements-engines.txt")
    if (
        shutil.which("sinfo") is None
        or subprocess.run(["sinfo"], capture_output=True, check=False).returncode != 0
    ):
        pytest.skip("no Slurm answers: tests/integration/slurm.sh COMMAND starts one for a command")


@pytest.fixture(scope="module")
def ray():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("no ray: pip install -r requirements-engines.txt")


def test_slurm_sweep_resumes_after_scancel_with_the_rows_of_a_local_one(slurm, run, local_result):
    """One job of the array is cancelled; the second run trains the missing trials."""
    path, process = run("slurm", "--engine=slurm", "--time=10")
    wait_for_checkpoint(path, process)
    number = subprocess.run(
        ["squeue", "--noheader", "--format=%F"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    subprocess.run(["scancel", f"{number}_0"], check=True)
    err = process.communicate()[1]
    assert (
        process.returncode == 1
        and f"stopped: Slurm's job {number}_0 ended as CANCELLED" in err
        and "Traceback" not in err
    ), err
    assert err.splitlines()[-1].startswith(f"error: {path} has 2 unfinished trials")
    assert statuses(path) == ["preempted"] * 2 + ["done"] * 2 + ["failed: diverged"]
    path, process = run("slurm", "--engine=slurm", "--time=10")
    assert process.communicate() and process.returncode == 0
    assert (statuses(path), (path / "rows.csv").read_bytes()) == local_result
    assert "resuming at step" in (Sweep(path).groups()[0].path / "log.txt").read_text()
    assert not subprocess.run(
        ["squeue", "--noheader"], capture_output=True, text=True, check=True
    ).stdout


def test_slurm_with_an_invalid_partition_is_a_one_line_error(slurm, run):
    path, process = run("refused", "--engine=slurm", "--partition=nowhere")
    err = process.communicate()[1]
    assert process.returncode == 1 and len(err.splitlines()) == 1, err
    assert err.startswith(
        "error: --engine=slurm cannot be reached: Batch job submission failed: Invalid "
        "partition name specified; no job was started"
    )


def test_ray_sweep_resumes_after_sigterm_with_the_rows_of_a_local_one(ray, run, local_result):
    """The sweep receives SIGTERM and is started again."""
    path, process = run("ray", "--engine=ray")
    wait_for_checkpoint(path, process)
    process.send_signal(signal.SIGTERM)
    err = process.communicate()[1]
    assert (
        process.returncode == 130
        and "the same command resumes the sweep" in err.splitlines()[-1]
        and "preempted" in statuses(path)
    ), err
    path, process = run("ray", "--engine=ray")
    assert process.communicate() and process.returncode == 0
    assert (statuses(path), (path / "rows.csv").read_bytes()) == local_result


def test_ray_with_more_cpus_than_the_cluster_has_is_an_error(ray, run):
    path, process = run("greedy", "--engine=ray", "--cpus=1000")
    err = process.communicate()[1]
    assert (
        process.returncode == 1
        and "error: --cpus=1000 is more than the" in err
        and "Traceback" not in err
    ), err


def test_ray_address_uses_a_running_cluster_and_leaves_it_running(ray, run, local_result):
    """The sweep does not stop the cluster of --address."""
    token = dict(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cli = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    head = subprocess.Popen(
        [
            *cli,
            "start",
            "--head",
            f"--port={port}",
            "--node-ip-address=127.0.0.1",
            "--include-dashboard=false",
            "--disable-usage-stats",
            "--block",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | token,
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.1)
        time.sleep(5)  # until its workers have started
        path, process = run("address", "--engine=ray", f"--address=127.0.0.1:{port}", **token)
        said = process.communicate()
        assert process.returncode == 0, said
        assert (statuses(path), (path / "rows.csv").read_bytes()) == local_result
        assert head.poll() is None
        subprocess.run(
            [*cli, "status", f"--address=127.0.0.1:{port}"],
            capture_output=True,
            env=os.environ | token,
            check=True,
        )
    finally:
        head.terminate()
        head.wait()
