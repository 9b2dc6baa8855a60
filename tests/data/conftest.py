"""What tests of texts begin with."""

import pytest


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache that no other test has written to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
