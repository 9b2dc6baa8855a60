"""Fixtures of the option tests."""

import os

import options
import pytest
from helpers import drop_programs
from option_files import write_files

pytest.register_assert_rewrite("option_runs")


@pytest.fixture(scope="module")
def option_files():
    """Writes the data sets of the rows and sets a separate cache; XLA_FLAGS, which
    `run.deterministic` changes, is restored. Weights & Biases sends nothing.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(options.FILES / "cache"))
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        write_files()
        yield


@pytest.fixture
def forget():
    """Drop cached programs before and after a test; a process can hold only a few
    hundred of them.
    """
    drop_programs()
    yield
    drop_programs()
