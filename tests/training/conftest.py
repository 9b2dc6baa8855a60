"""What tests of GPT-2 directories begin with."""

import pytest
from gpt2_directories import write_directory


@pytest.fixture
def directory(tmp_path):
    """A GPT-2 directory of a small network."""
    return write_directory(tmp_path / "gpt2")
