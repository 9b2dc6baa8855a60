"""Eight simulated devices, fast compilation, a compilation cache shared between the
test processes, and a memory limit.
"""

import gc
import math
import os
import resource
import sys
import tempfile

from helpers import DATA, QUICK, bound_memory

if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker inherits the environment
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {QUICK}"
    )
    CACHE = tempfile.TemporaryDirectory(prefix="aigc_jax_xla_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # Arenas of more threads keep memory that others have freed.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    # Source locations of operations cost a fourteenth of tracing and lowering.
    os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import pytest

# Cached programs consist of millions of Python objects, and frequent garbage collection
# takes an eighth of the time. `helpers.bound_memory` bounds the memory.
gc.set_threshold(200_000, 100, 1000)

# A process with a higher peak, in bytes, fails the session, so that the suite passes on
# a machine with 8 GB and two workers. CUDA's libraries take some of that alone.
LIMIT = math.inf if "cuda" in os.environ.get("JAX_PLATFORMS", "") else 3e9
PEAKS = []  # (bytes, test that reached them), one per process that ran tests
highest = (0, "")  # of this process


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tier too")
    parser.addoption("--browser", action="store_true", help="run the tests in a browser too")


def pytest_collection_finish(session):
    """Runs write an empty curves.png, since drawing takes as long as training a tiny
    network. media/test_plots and the fixture `drawn_curves` draw the curves.
    """
    trial = sys.modules.get("aigc_jax.training.trial")
    if trial is not None and not hasattr(trial.Trial, "really_draw"):
        trial.Trial.really_draw = trial.Trial.draw_curves
        trial.Trial.draw_curves = lambda self, *_: (self.dir / "curves.png").touch()


@pytest.fixture
def drawn_curves(monkeypatch):
    """Runs of this test draw their curves."""
    from aigc_jax.training.trial import Trial

    monkeypatch.setattr(Trial, "draw_curves", Trial.really_draw)


def pytest_collection_modifyitems(config, items):
    tiers = {"slow": "slow tier: make test-all", "browser": "in a browser: make test-browser"}
    for name, reason in tiers.items():
        for item in () if config.getoption(f"--{name}") else items:
            # Keywords hold the names of folders too: a checkout may be called "slow".
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


def peak_bytes() -> int:
    """The peak memory of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    global highest
    if peak_bytes() > highest[0]:
        highest = peak_bytes(), item.nodeid
    bound_memory()


def pytest_sessionfinish(session, exitstatus):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = highest
        return
    if not getattr(session.config.option, "numprocesses", None):
        PEAKS.append(highest)
    if any(peak > LIMIT for peak, _ in PEAKS) and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    PEAKS.append(tuple(getattr(node, "workeroutput", {}).get("peak", (0, ""))))


def pytest_terminal_summary(terminalreporter):
    if PEAKS:
        held = ", ".join(f"{peak / 1e9:.1f} GB in {test}" for peak, test in PEAKS)
        over = f"; the limit is {LIMIT / 1e9:.0f} GB" if max(PEAKS)[0] > LIMIT else ""
        terminalreporter.write_line(f"peak memory of a process that ran tests: {held}{over}")


@pytest.fixture
def real_data(monkeypatch):
    """The directory of real data sets; the test is skipped without it."""
    if not (DATA / "mnist").is_dir():
        pytest.skip(f"no real data: {DATA} has no mnist/ (set AIGC_DATA_DIR)")
    monkeypatch.setenv("AIGC_DATA_DIR", str(DATA))
    return DATA
