"""What tests of options begin with."""

import os

import options
import pytest
from helpers import drop_programs

pytest.register_assert_rewrite("option_runs")


@pytest.fixture(scope="module")
def option_files():
    """The data sets of the rows, and a cache of their own; what run.deterministic
    changes is changed back.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(options.FILES / "cache"))
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        options.write_files()
        yield


@pytest.fixture
def forget():
    """Drop cached programs, of which a process may have a few hundred."""
    drop_programs()
    yield
    drop_programs()
