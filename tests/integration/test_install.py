"""A wheel in an empty environment, used from a directory outside of a checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import ROOT, environment

# Calls in a directory with the finished run `gan`.
CALLS = """
import aigc_jax

run = aigc_jax.load("gan")
assert run.sample(2).shape == (2, 8, 8, 1)
assert run.rows("train")
"""


class Installed(NamedTuple):
    """A virtual environment with the wheel, and an empty working directory."""

    bin: Path
    here: Path
    variables: dict

    def run(self, *words, code=0):
        """Run a program; return its output, or its errors where `code` is not 0."""
        done = subprocess.run(
            [self.bin / words[0], *words[1:]],
            capture_output=True,
            text=True,
            cwd=self.here,
            env=self.variables,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def files(self) -> dict[str, int]:
        """Modification times of the files of the installed package."""
        package = next(self.bin.parent.glob("lib/python*/site-packages/aigc_jax"))
        return {str(p): p.stat().st_mtime_ns for p in package.rglob("*") if p.is_file()}


def pip(python, *words):
    """Run pip without PYTHONPATH."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", *map(str, words)],
        capture_output=True,
        text=True,
        env=variables,
        check=False,
    )


def install(root: Path) -> Installed:
    """Build a wheel and install it in a new environment. Skips the test where pip
    reaches no package index.
    """
    probe = pip(sys.executable, "download", "--no-deps", "--quiet", "--dest", root, "hatchling")
    if probe.returncode:
        last = (probe.stderr.strip().splitlines() or ["no answer"])[-1]
        pytest.skip(f"pip reaches no package index: {last}")
    built = pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", root / "dist", ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = (root / "dist").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True, env=environment())
    done = pip(root / "venv/bin/python", "install", wheel)
    assert done.returncode == 0, done.stderr
    (root / "elsewhere").mkdir()
    variables = environment() | dict(XDG_CACHE_HOME=str(root / "cache"))
    for name in ("PYTHONPATH", "AIGC_CACHE_DIR", "AIGC_DATA_DIR"):
        variables.pop(name, None)
    return Installed(root / "venv/bin", root / "elsewhere", variables)


QUICK = ("--config.run.log=()", "--config.steps=24", "--config.run.eval_every=12")


def check_a_run(it: Installed):
    """Train and sample; environment.json contains no path of this machine."""
    it.run("aigc", "train", "--config=gan_digits", "--workdir=gan", *QUICK)
    it.run("aigc", "sample", "--workdir=gan", "--num=4", "--out=samples.png")
    run = it.here / "gan"
    assert json.loads((run / "STATUS.json").read_text())["status"] == "done"
    assert (it.here / "samples.png").stat().st_size > 0
    origin = json.loads((run / "environment.json").read_text())
    assert origin["command"][:2] == ["aigc", "train"] and origin["commit"] == ""
    assert str(it.here.parent) not in (run / "environment.json").read_text()


def check_a_sweep(it: Installed):
    """Sweep two programs of two trials, in two simultaneous processes."""
    grid = ("--grid", "batch_size=50,100", "--seeds=2", "--engine=local", "--slots=2")
    it.run("aigc", "sweep", "--config=vae_digits", "--workdir=sweep", *grid, *QUICK)
    sweep = it.here / "sweep"
    statuses = [json.loads(p.read_text())["status"] for p in sweep.glob("trials/*/STATUS.json")]
    assert statuses == ["done"] * 4
    assert len([p for p in (sweep / "groups").iterdir() if p.is_dir()]) == 2
    assert (sweep / "table.md").is_file() and (sweep / "figure.png").is_file()


def check_a_shipped_figure(it: Installed):
    """Print a figure or write it to --out; the package directory is refused."""
    committed = (ROOT / "experiments/results/vae_beta/table.md").read_text()
    printed = it.run("aigc", "figure", "--experiment=vae_beta")
    assert printed.startswith(committed) and "--out=DIR" in printed
    it.run("aigc", "figure", "--experiment=vae_beta", "--out=figures")
    assert (it.here / "figures" / "table.md").read_text() == committed
    assert (it.here / "figures" / "figure.png").is_file()
    words = ("figure", "--experiment=vae_beta", "--workdir=sweep", "--commit")
    assert "part of the installed package" in it.run("aigc", *words, code=1)


def check_help_and_list(it: Installed):
    """The commands name `aigc`, and list the shipped configs and experiments."""
    listed = it.run("aigc", "list")
    assert "gan_digits" in listed and "vae_beta" in listed
    assert it.run("aigc", "--help").startswith("usage: aigc")
    assert it.run("python", "-P", "-m", "aigc_jax", "list") == listed


def check_python_calls(it: Installed):
    """Run CALLS as a script outside of the package."""
    script = it.here.parent / "calls.py"
    script.write_text(CALLS)
    it.run("python", script)


def check_the_classifier_of_metrics(it: Installed):
    """A subprocess trains it in the user's cache, from a shipped config."""
    words = ("--workdir=gan", "--metrics=frechet", "--num=100")
    assert "frechet" in it.run("aigc", "evaluate", *words)
    runs = Path(it.variables["XDG_CACHE_HOME"]).glob("aigc_jax/extractors/*/STATUS.json")
    assert [json.loads(p.read_text())["status"] for p in runs] == ["done"]


def check_a_manifest(it: Installed):
    """A Kubernetes job starts the package by its module name."""
    words = ("--config=vae_digits", "--seeds=2", "--workdir=jobs", "--engine=k8s", "--image=image")
    it.run("aigc", "sweep", *words)
    assert "-m aigc_jax group" in (it.here / "jobs" / "k8s-job.yaml").read_text()


@pytest.mark.slow
def test_an_installed_wheel_works_from_any_directory(tmp_path):
    it = install(tmp_path)
    # The package must not import modules of the working directory.
    (it.here / "random.py").write_text("raise SystemExit('imported by accident')\n")
    before = it.files()
    check_a_run(it)
    check_a_sweep(it)
    check_a_shipped_figure(it)
    check_help_and_list(it)
    check_python_calls(it)
    check_the_classifier_of_metrics(it)
    check_a_manifest(it)
    named = {"random.py", "gan", "samples.png", "sweep", "figures", "jobs"}
    assert {p.name for p in it.here.iterdir()} == named
    assert it.files() == before
    shutil.rmtree(it.bin.parent)  # 1 GB; pytest keeps the directories of three sessions
