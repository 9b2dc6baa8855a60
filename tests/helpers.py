"""Shared by tests: paths, scripts of experiments/, processes of the command line, and a
bound of memory.
"""

import ctypes
import gc
import os
import resource
import subprocess
import sys
from pathlib import Path

# The tests run small programs a few times, so that compilation takes most of the time:
# LLVM's optimizations, then loops emitted through MLIR, which take twice as long to
# compile as those emitted directly, and functions split for more threads than two
# workers have.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)

ROOT = Path(__file__).resolve().parent.parent
# Real data sets; tests that need them are skipped where the folder is missing.
DATA = Path(os.environ.get("AIGC_DATA_DIR") or ROOT / "no_data").resolve()

# Compiled programs and arrays accumulate over a thousand tests. A process that holds
# more than DROP_ABOVE bytes drops them after the test that exceeded it.
DROP_ABOVE = 1.6e9
# Growth in bytes until the next drop: not all freed memory returns to the system.
MARGIN = 0.3e9
drop_above = DROP_ABOVE


def resident_bytes() -> int:
    """The current memory of this process; 0 where /proc is missing."""
    status = Path("/proc/self/statm")
    pages = int(status.read_text().split()[1]) if status.exists() else 0
    return pages * resource.getpagesize()


def bound_memory():
    """Drop programs above a limit; between tests, and between the cases of one test."""
    global drop_above
    if resident_bytes() > drop_above and "jax" in sys.modules:
        drop_programs()
        drop_above = max(DROP_ABOVE, resident_bytes() + MARGIN)


def drop_programs():
    """Drop compiled programs, arrays and data sets that tests share."""
    for name in ("runs", "tiny_configs"):
        for cache in ("_programs", "_data"):
            getattr(sys.modules.get(name), cache, {}).clear()
    sys.modules["jax"].clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def script(name):
    """Import a module of experiments/ by its path in that folder."""
    from aigc_jax.utils.python_files import import_python_file

    module = import_python_file(ROOT / "experiments" / f"{name}.py", "experiment")
    module.RESULTS = ROOT / "experiments" / "results" / name
    return module


def experiment_text(fields):
    """The text of an experiment's file: a sweep without trials, and more fields."""
    return (
        "from aigc_jax.sweeps.experiment import Experiment, Halving, Search\n"
        f"EXPERIMENT = Experiment(sweep=list, {fields})\n"
    )


def command_line(*words, **more):
    """Run the command line in a process with one device, and wait for its end."""
    return subprocess.run(
        start_words(*words),
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        check=False,
        **more,
    )


def start_words(*words):
    return [sys.executable, str(ROOT / "launch.py"), *map(str, words)]


def environment():
    """The environment of a process with one device; this one simulates eight."""
    return os.environ | {"XLA_FLAGS": QUICK}
