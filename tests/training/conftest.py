"""Fixtures for tests of GPT-2 directories."""

import pytest
from gpt2_directories import write_directory


@pytest.fixture
def directory(tmp_path):
    """A GPT-2 directory with the weights of a small network."""
    return write_directory(tmp_path / "gpt2")
