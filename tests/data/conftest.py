"""Fixtures of the data tests."""

import pytest


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache directory for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
