"""Exhausted memory: the error says how much was needed and which keys need less, and
the run resumes once they have changed.
"""

import json
import os
import re
import subprocess
import sys

import jax
import pytest
from helpers import ROOT, environment
from runs import make_sweep, run_state, train
from tiny_configs import dataset, resolved, tiny

import aigc_jax
from aigc_jax.cli import main as cli
from aigc_jax.core.mesh import make_mesh
from aigc_jax.sweeps import group
from aigc_jax.sweeps.engines.base import EXIT_REFUSED
from aigc_jax.training import memory
from aigc_jax.training.compilation import Program
from aigc_jax.training.programs import Programs
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.memory import (
    OutOfMemoryError,
    available_host_bytes,
    is_out_of_memory,
    parse_requested_bytes,
)
from aigc_jax.utils.subprocesses import describe_failure

EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."
ONE = dict(trial=1, data=1, model=1)
PLANS = [  # as another process compiles them
    ({}, 8_000_000_000),
    ({"run.data_placement": "host"}, 7_900_000_000),  # saves too little to be named
    ({"grad_accumulation_steps": 4}, 2_100_000_000),
    ({"batch_size": 4}, 2_200_000_000),
    ({"precision": "bfloat16"}, None),  # not compiled in time
]


def exhaust(*_):
    raise jax.errors.JaxRuntimeError(EXHAUSTED)


def fail_from_call(number):
    """A `Programs.train` that runs out of memory from its n-th call on."""
    real, calls = Programs.train, []

    def train_steps(self, *args):
        calls.append(args)
        return real(self, *args) if len(calls) < number else exhaust()

    return train_steps


@pytest.mark.parametrize(
    "error, requested",
    [
        (jax.errors.JaxRuntimeError(EXHAUSTED), 2**33),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 40 bytes."), 40),
        (
            jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Failed to allocate request for 2.50GiB (2684354560B) on device"
            ),
            2_684_354_560,
        ),
        (
            jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
                "space hbm. Used 21.5G of 15.48G hbm."
            ),
            int(21.5 * 2**30),
        ),
        (MemoryError("Unable to allocate 1.50 GiB for an array with shape (3,)"), 3 * 2**29),
        (MemoryError("std::bad_alloc"), None),
        (MemoryError(), None),
        (RuntimeError("RESOURCE_EXHAUSTED: No space left on device"), False),
        (RuntimeError("INTERNAL: a bug"), False),
        (OSError("out of memory"), False),
    ],
)
def test_errors_of_exhausted_memory_are_recognized(error, requested):
    assert is_out_of_memory(error) == (requested is not False)
    if requested is not False:
        assert parse_requested_bytes(str(error)) == requested


def test_exhausted_training_names_keys_and_resumes_with_another_placement(tmp_path, monkeypatch):
    config = tiny("vae", data__order="shared")
    train(config, tmp_path / "whole")
    monkeypatch.setattr(memory, "compile_plans", lambda *_: PLANS)
    with monkeypatch.context() as patch:
        patch.setattr(Programs, "train", fail_from_call(3))
        with pytest.raises(OutOfMemoryError) as error:
            train(config, tmp_path / "run")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'run'}: out of memory: 8.59 GB were requested, ")
    assert (
        "; a training step needs 8 GB; to begin again (restart, or another workdir) with" in message
    )
    assert "config.grad_accumulation_steps = 4 needs 2.1 GB, config.batch_size = 4 needs" in message
    assert "config.precision = 'bfloat16'; " in message and "'host'" not in message
    assert "need less with smaller config.nll_samples = 50, config.run.samples = 4" in message
    status = RunDir(tmp_path / "run").read_status()
    assert status["status"] == "failed: crashed" and 0 < status["step"] < 32
    assert message.endswith(status["reason"]) and str(tmp_path) not in status["reason"]
    resumed = tiny("vae", data__order="shared", run__data_placement="host")
    assert train(resumed, tmp_path / "run", make=Programs)[0]["status"] == "done"
    assert run_state(tmp_path / "run")[0] == run_state(tmp_path / "whole")[0]


def test_exhausted_compilation_leaves_the_directory_to_any_config(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "compile_plans", lambda *_: [])  # no memory for plans either
    with monkeypatch.context() as patch:
        patch.setattr(Program, "wait_for_executable", exhaust)
        with pytest.raises(OutOfMemoryError, match="config.grad_accumulation_steps = 4, ") as error:
            train(tiny("vae"), tmp_path, make=Programs)
    assert "needs" not in str(error.value) and "config.batch_size = 4" in str(error.value)
    assert RunDir(tmp_path).describe_status() == "failed: crashed"
    assert train(tiny("vae", batch_size=4), tmp_path)[0]["status"] == "done"


def test_exhausted_group_is_a_crash_that_is_retried(tmp_path, monkeypatch, capsys):
    """Half the chunk may fit, so that the exit code is not that of a refusal."""
    sweep = make_sweep(tmp_path, [{"seed": i} for i in range(4)])
    (only,) = sweep.groups()
    monkeypatch.setattr(memory, "compile_plans", lambda *_: [PLANS[0], ({memory.CHUNK: 2}, 10**9)])
    monkeypatch.setattr(Programs, "train", exhaust)
    words = ["group", f"--workdir={only.path}", "--route=vmap"]
    code = cli.main(words)
    assert code not in (0, EXIT_REFUSED)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "to resume with less: 2 trials at once, as a sweep retries, needs 1 GB" in last
    assert only.statuses() == ["failed: crashed"] * 4
    monkeypatch.undo()
    assert group.train_group(only.path, "vmap", halve_chunk=True, report=print) == 0
    assert json.loads((only.path / "plan.json").read_text())["chunk"] == 2


@pytest.mark.parametrize("act", ["sample", "evaluate"])
def test_exhausted_inference_suggests_fewer_samples(act, tmp_path, monkeypatch, capsys):
    train(tiny("vae"), tmp_path / "run")
    run = aigc_jax.load(tmp_path / "run")
    monkeypatch.setattr(Program, "__call__", exhaust)
    with pytest.raises(OutOfMemoryError, match=r"out of memory: 8.59 GB were requested, "):
        getattr(run, act)()
    monkeypatch.undo()
    capsys.readouterr()
    monkeypatch.setattr(Program, "wait_for_executable", exhaust)
    assert cli.main([act, f"--workdir={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "uses less" in error and "num" in error


def changes_of(name, factor=4, mesh=ONE, count=1, **keys):
    config = resolved(tiny(name, **keys))
    found = memory.list_changes(config, dataset(config).spec, mesh, count, factor)
    return {key: value for change in found for key, value in change.items()}


def test_changes_are_those_that_the_config_allows():
    lm = changes_of("lm")
    assert lm["grad_accumulation_steps"] == 4 and lm["batch_size"] == 4
    assert lm["model.remat"] is lm["model.scan"] is True and lm["loss_chunk"] == 4
    assert lm["run.data_placement"] == "host" and "run.fsdp" not in lm
    assert "model.scan" not in changes_of("lm", model__scan=True)
    assert changes_of("lm", mesh=ONE | dict(data=8))["run.fsdp"] is True
    gan = changes_of("gan_conv")  # batch normalization couples the examples of a batch
    assert not {"grad_accumulation_steps", "model.remat", "loss_chunk"} & gan.keys()
    assert gan["batch_size"] == 4 and gan["precision"] == "bfloat16"
    assert "run.data_placement" not in changes_of("vae", count=2)  # data.order = 'trial'
    assert changes_of("vae", grad_accumulation_steps=2, factor=2)["grad_accumulation_steps"] == 4
    assert changes_of("vae", batch_size=15, factor=4)["batch_size"] == 3


def test_plans_that_are_not_compiled_in_time_have_no_numbers(monkeypatch):
    lines = [[{}, 800], [{"batch_size": 4}, None], [{"precision": "bfloat16"}, None]]
    lines += [[{"batch_size": 4}, 300]]
    written = "".join(json.dumps(line) + "\n" for line in lines) + '[{"prec'

    def run(command, **_):
        raise subprocess.TimeoutExpired(command, 1, written.encode())

    monkeypatch.setattr(subprocess, "run", run)
    plans = memory.compile_plans(resolved(tiny("vae")), make_mesh(ONE), 1, "map", 0)
    assert plans == [({}, 800), ({"batch_size": 4}, 300), ({"precision": "bfloat16"}, None)]

    def refuse(*_, **__):
        raise MemoryError

    monkeypatch.setattr(subprocess, "run", refuse)
    assert memory.compile_plans(resolved(tiny("vae")), make_mesh(ONE), 1, "map", 0) == []


@pytest.mark.slow
def test_plans_of_another_process_reduce_the_memory(monkeypatch):
    monkeypatch.setattr(memory, "PLAN_SECONDS", 600.0)
    config = resolved(tiny("lm", batch_size=64, model__layers=4))
    (_, needed), *rest = memory.compile_plans(config, make_mesh(ONE), 1, "map", 0)
    sizes = {key: size for change, size in rest for key in change}
    assert sizes["grad_accumulation_steps"] < 0.7 * needed
    assert sizes["batch_size"] < 0.7 * needed and sizes["model.remat"] < needed
    config = resolved(tiny("vae", batch_size=256))
    (_, all_), *rest = memory.compile_plans(config, make_mesh(ONE), 4, "vmap", 0)
    assert rest[0][0] == {memory.CHUNK: 2} and rest[0][1] < all_


LIMITED = """
import resource, sys
from aigc_jax.cli import main
limit = int(open("/proc/self/statm").read().split()[0]) * 4096 + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main.main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_a_real_limit_of_memory_is_a_one_line_error(tmp_path):
    """4,096 examples x 2,000 samples x 64 pixels of float32 are 2 GB an array."""
    words = {"num_importance_samples": 2000, "batch_size": 4096, "objective": "iwae"}
    words |= {"run.eval_every": "never", "run.log": (), "steps": 4, "best_metric": ""}
    words |= {"metrics": "()", "run.mesh.data": 1}
    done = subprocess.run(
        [
            *[sys.executable, "-c", LIMITED, str(4 * 10**9)],
            *["train", "--config=vae_digits", f"--workdir={tmp_path / 'run'}"],
            *[f"--config.{key}={value}" for key, value in words.items()],
        ],
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert last.startswith(f"error: {tmp_path / 'run'}: out of memory"), done.stderr
    assert "config.batch_size = " in last and "config.grad_accumulation_steps = " in last
    assert RunDir(tmp_path / "run").read_status()["status"] == "failed: crashed"


def test_available_memory_respects_a_limit_of_the_process():
    code = (
        "import resource; from aigc_jax.utils.memory import available_host_bytes as free;"
        "limit = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + 10**8;"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit)); print(free())"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert int(done.stdout) <= 10**8 < available_host_bytes()


def test_aborted_job_names_exhausted_memory(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("terminate called after throwing an instance of 'std::bad_alloc'\n")
    assert describe_failure(-6, log) == "ended by SIGABRT (out of memory)"
    log.write_text("a bug\n")
    assert describe_failure(-6, log) == "ended by SIGABRT"
    assert re.fullmatch(r"ended by SIGKILL \(probably .*\)", describe_failure(-9, log))
