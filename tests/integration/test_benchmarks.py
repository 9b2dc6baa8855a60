"""Both sides of a benchmark compute the same thing."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT, environment

from aigc_jax.utils.python_files import import_python_file

SCRIPTS = {
    "gan_step": ("mlp", "dcgan", "dcgan_batch_norm", "dcgan_64", "dcgan_128", "resnet"),
    "vae_step": ("vae_mnist", "vae_conv_fashion", "vqvae_mnist"),
    "lm_step": ("gpt_shakespeare_cpu", "gpt_base", "transformer_base", "lstm_text"),
    "gpt2": ("gpt2_batch_1", "gpt2_batch_8"),
}


def test_every_case_is_checked(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bench = import_python_file(ROOT / "benchmarks" / "bench.py", "script")
    assert bench.find_cases() == {case: s for s, cases in SCRIPTS.items() for case in cases}


@pytest.mark.slow
@pytest.mark.parametrize("script, case", [(s, c) for s, cases in SCRIPTS.items() for c in cases])
def test_losses_are_those_of_pytorch_for_the_same_parameters(script, case):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    if script == "gpt2":
        pytest.importorskip("transformers", reason="transformers is not installed")
    command = [sys.executable, ROOT / f"benchmarks/{script}.py", f"--case={case}", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    for name, (ours, theirs) in json.loads(done.stdout.splitlines()[-1]).items():
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4), name
