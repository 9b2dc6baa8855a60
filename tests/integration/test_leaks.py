"""Run directories and committed results contain no host name, user name or absolute
path of the machine.
"""

import getpass
import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from runs import train
from tiny_configs import tiny

from aigc_jax.training.provenance import describe_environment
from aigc_jax.utils.disk import hide_paths


def names_of_this_machine() -> list[bytes]:
    names = [socket.gethostname(), getpass.getuser(), str(Path.home()), str(ROOT)]
    return [name.encode() for name in names if len(name) > 3 and name != "root"]


def test_run_directory_names_no_host_user_or_absolute_path(tmp_path, monkeypatch):
    path = tmp_path / "named_by_the_user" / "run"
    monkeypatch.setattr(sys, "argv", [str(ROOT / "launch.py"), "train", f"--workdir={path}"])
    monkeypatch.setattr(socket, "gethostname", lambda: "the-host-of-the-user")
    train(tiny(steps=16, run__log=("csv", "tensorboard")), path)
    secrets = [
        *names_of_this_machine(),
        b"the-host-of-the-user",
        str(tmp_path).encode(),
        b"named_by_the_user",
    ]
    files = [p for p in path.rglob("*") if p.is_file()]
    assert any("tfevents" in p.name for p in files) and any(
        p.name == "commit_success.txt" for p in files
    )
    for file in files:
        name, raw = os.fsencode(file.relative_to(path)), file.read_bytes()
        for secret in secrets:
            assert secret not in name and secret not in raw, (file, secret)
    assert json.loads((path / "environment.json").read_text())["command"] == [
        "python",
        "launch.py",
        "train",
        "--workdir=run",
    ]


@pytest.mark.parametrize(
    "word, kept",
    [
        ("--workdir=runs/gan", "--workdir=runs/gan"),
        ("--workdir=/home/someone/runs/gan", "--workdir=gan"),
        ("--workdir=../../tmp/x", "--workdir=x"),
        (f"--config={ROOT}/configs/gan_digits.py", "--config=configs/gan_digits.py"),
        ("--config.data.path=('/a/b', '/c/d')", "--config.data.path=('b', 'd')"),
        ("data.path=/a/b,/c/d", "data.path=b,d"),
        ("~/runs/x", "x"),
        ("--config.hp.lr=1e-4", "--config.hp.lr=1e-4"),
        ("--metric=valid/loss", "--metric=valid/loss"),
    ],
)
def test_paths_of_a_command_are_shortened(word, kept):
    assert hide_paths(word, ROOT) == kept


def test_recorded_command_contains_no_absolute_path(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/elsewhere/script.py", "--workdir=/home/someone/x"])
    assert describe_environment()["command"] == ["python", "script.py", "--workdir=x"]


def test_committed_results_name_no_path_outside_of_the_repository():
    for file in sorted((ROOT / "experiments" / "results").rglob("*")):
        if file.suffix in (".json", ".md", ".csv"):
            text = file.read_text()
            paths = (
                r"""["=](/|\.\./|~/)\w"""
                if file.suffix == ".json"
                else r"(?<![\w.])/(tmp|home|root|work|mnt|Users)/"
            )
            assert not re.search(paths, text), file
            assert not any(name.decode() in text for name in names_of_this_machine()), file
