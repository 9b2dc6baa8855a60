"""Eight simulated devices, quick compilation, a compilation cache that the tests' processes share, and where real data lie."""

import ctypes
import gc
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

# Small programs that run a few times: compiling is what takes long. LLVM's optimizations are most of it; then loops emitted by way of MLIR,
# which take twice as long to compile as those emitted directly, and functions divided for threads that two workers do not have.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has its environment from the process that started it
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count=8 {QUICK}"
    CACHE = tempfile.TemporaryDirectory(prefix="aigc_jax_xla_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import pytest  # noqa: E402

# Programs that are kept are millions of Python objects, and looking through them again and again
# for what is not needed takes an eighth of the time. Memory is bounded below.
gc.set_threshold(200_000, 100, 1000)

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AIGC_DATA_DIR") or ROOT.parent / "shared" / "data").resolve()


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tier too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="slow tier: make test-all")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


# Compiled programs and arrays pile up over a thousand tests. A process that holds more than
# DROP_ABOVE forgets them after the test that went over it; one that ever held more than LIMIT
# fails the session, so that the suite passes on a machine with 8 GB and two workers.
DROP_ABOVE, LIMIT = 2e9, 3e9
MARGIN = 0.4e9  # that it grows by before it forgets again: not all that is freed goes back to the system
drop_above = DROP_ABOVE
PEAKS = []  # (bytes, the test that raised it so far), one per process that ran tests
highest = (0, "")  # of this process


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    pages = int(status.read_text().split()[1]) if status.exists() else 0
    return pages * resource.getpagesize()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    global highest
    if peak_bytes() > highest[0]:
        highest = peak_bytes(), item.nodeid
    bound_memory()


def bound_memory():
    """Forget what is kept where it is much; between tests, and within those of many cases."""
    global drop_above
    if resident_bytes() > drop_above and "jax" in sys.modules:
        drop_programs()
        drop_above = max(DROP_ABOVE, resident_bytes() + MARGIN)


def drop_programs():
    """Forget compiled programs, arrays and data sets that tests share."""
    for name in ("test_methods", "tiny_configs"):
        for cache in ("_programs", "_data"):
            getattr(sys.modules.get(name), cache, {}).clear()
    sys.modules["jax"].clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


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
    """The directory of real data sets; the test is skipped where there is none."""
    if not (DATA / "mnist").is_dir():
        pytest.skip(f"no real data: {DATA} has no mnist/ (set AIGC_DATA_DIR)")
    monkeypatch.setenv("AIGC_DATA_DIR", str(DATA))
    return DATA


def script(name):
    """A module of experiments/, by its path there."""
    spec = importlib.util.spec_from_file_location(Path(name).name, ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command_line(*words, **more):
    """A finished `launch.py` process, with one device."""
    return subprocess.run(start_words(*words), capture_output=True, text=True, env=environment(), cwd=ROOT, check=False, **more)


def start_words(*words):
    return [sys.executable, str(ROOT / "launch.py"), *map(str, words)]


def environment():
    """The environment of a process of its own: one device, whatever the tests' process simulates."""
    return os.environ | {"XLA_FLAGS": QUICK}
