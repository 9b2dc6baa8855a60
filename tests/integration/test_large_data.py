"""Data sets that are read from disk during training: through the launcher, resumed to
identical files, and refused where they would not fit in memory.
"""

import signal
import subprocess
import time

import numpy as np
import options
import pytest
from helpers import environment, start_words
from option_runs import check_run, first_sampler, one_program, refused, resume, state_of, train

from aigc_jax.data import pipelines
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("option_files")
IMAGES, TEXTS = ("gan", "mlp"), ("lm", "transformer")
SETS = [(IMAGES, "hf"), (TEXTS, "array_record")]
MORE = [(IMAGES, "array_record"), (TEXTS, "hf"), (("seq2seq", ""), "hf")]
HOST = {"run.data_placement": "host"}


@pytest.mark.parametrize("base, name", SETS, ids=str)
def test_host_run_resumes_to_identical_files(base, name, tmp_path):
    with one_program():
        values = {"data.name": name} | HOST
        train(tmp_path / "run", base, values)
        resume(tmp_path / "run", base, values)


@pytest.mark.slow
@pytest.mark.parametrize("base, name", MORE, ids=str)
def test_host_run_of_every_kind_resumes_and_samples(base, name, tmp_path):
    check_run(tmp_path / "run", base, {"data.name": name} | HOST, drawn=first_sampler)


@pytest.mark.slow
@pytest.mark.parametrize("base, name", [(IMAGES, "array_record"), (TEXTS, "hf")], ids=str)
def test_host_and_device_runs_have_equal_rows(base, name, tmp_path):
    host = train(tmp_path / "host", base, {"data.name": name} | HOST)
    device = train(tmp_path / "device", base, {"data.name": name})
    for row, other in zip(host, device, strict=True):
        assert row.pop("split") == other.pop("split") and row == pytest.approx(other, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("base, name", [(IMAGES, "array_record"), (TEXTS, "hf")], ids=str)
def test_run_stopped_by_sigterm_resumes_to_identical_files(base, name, tmp_path):
    words = options.words(base, {"data.name": name} | HOST)
    words += ["--config.steps=400", "--config.run.eval_every=100", "--config.run.save_every=10"]
    run = lambda path: start_words("train", *words, f"--workdir={tmp_path / path}")
    subprocess.run(run("whole"), check=True, capture_output=True, env=environment())
    process = subprocess.Popen(
        run("cut"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()
    )
    while not (tmp_path / "cut" / "checkpoints" / "10").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert RunDir(tmp_path / "cut").read_status()["step"] < 400
    subprocess.run(run("cut"), check=True, capture_output=True, env=environment())
    rows = [(tmp_path / path / "rows.jsonl").read_bytes() for path in ("whole", "cut")]
    assert rows[0] == rows[1] and state_of(tmp_path / "whole") == state_of(tmp_path / "cut")


def test_changed_data_are_refused_when_a_run_resumes(tmp_path):
    values = {"data.name": "array_record"} | HOST
    train(tmp_path / "run", IMAGES, values)
    path = options.FILES / "image_records" / "train_labels.npy"
    label = np.load(path)
    try:
        np.save(path, (label + 1) % 3)
        words = options.words(IMAGES, values)
        refused(["train", *words, f"--workdir={tmp_path / 'run'}"], "the data of config.data.name")
    finally:
        np.save(path, label)


def test_data_larger_than_the_memory_of_a_device_are_refused(monkeypatch):
    class Large:
        nbytes = 2**50

    words = r"'device' would load 1.13 PB of data into .* of memory; 'host' reads"
    with pytest.raises(UserError, match=words):
        pipelines.check_memory_of_arrays(dict(x=Large(), label=np.zeros(3)))
    monkeypatch.setattr(pipelines, "physical_bytes", lambda: 30)
    pipelines.check_memory_of_arrays(dict(label=np.zeros(3)))
    with pytest.raises(UserError, match="'device' would load 32 B"):
        pipelines.check_memory_of_arrays(dict(label=np.zeros(4)))
