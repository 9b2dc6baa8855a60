"""How subprocesses import the package."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

from aigc_jax.utils import subprocesses

pytestmark = pytest.mark.unit


def test_subprocess_imports_the_package_not_its_working_directory(tmp_path):
    for name in ("random.py", "aigc_jax.py"):
        (tmp_path / name).write_text("raise SystemExit('imported by accident')\n")
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *subprocesses.MODULE, "list"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=bare | subprocesses.package_environment(),
        check=False,
    )
    assert done.returncode == 0 and "gan_digits" in done.stdout, done.stderr


def test_package_path_precedes_the_users_pythonpath(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "theirs")
    assert subprocesses.package_environment()["PYTHONPATH"] == f"{ROOT}{os.pathsep}theirs"
    monkeypatch.setattr(subprocesses, "REPOSITORY", ROOT / "lib" / "site-packages")
    assert "PYTHONPATH" not in subprocesses.package_environment()
