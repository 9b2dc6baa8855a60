"""Jobs that are sent to other machines."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment

from aigc_jax.sweeps.engines import base, slurm

RECEIVE = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))())"


@pytest.mark.parametrize("task", [base.Task, slurm.SlurmTask], ids=lambda task: task.__name__)
def test_task_runs_where_the_package_is_not_importable(task, tmp_path):
    """A machine has the libraries; a checkout that is not installed is on no path."""
    cloudpickle = pytest.importorskip("cloudpickle")
    if task is slurm.SlurmTask:
        pytest.importorskip("submitit")
    job = base.Job("a", ["-c", "raise SystemExit(7)"], tmp_path / "log.txt")
    modules = (base, slurm)
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        (tmp_path / "task").write_bytes(cloudpickle.dumps(task(job, {})))
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    hidden = "import sys; sys.modules['aigc_jax'] = None; " + RECEIVE
    words = [sys.executable, "-c", hidden, str(tmp_path / "task")]
    around = environment()
    done = subprocess.run(
        words, cwd=Path("/"), env=around, capture_output=True, text=True, check=False
    )
    assert done.stdout == "(7, '')\n", done.stderr
