"""What tests share: where things are, scripts of experiments/, processes of the command
line, a bound of memory.
"""

import ctypes
import gc
import os
import resource
import subprocess
import sys
from pathlib import Path

# Small programs that run a few times: compiling is what takes long. LLVM's
# optimizations are most of it; then loops emitted by way of MLIR, which take twice as
# long to compile as those emitted directly, and functions divided for threads that two
# workers do not have.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)

ROOT = Path(__file__).resolve().parent.parent
# Real data sets; tests that need them skip where there are none.
DATA = Path(os.environ.get("AIGC_DATA_DIR") or ROOT / "no_data").resolve()

# Compiled programs and arrays pile up over a thousand tests. A process that holds more
# than DROP_ABOVE forgets them after the test that went over it.
DROP_ABOVE = 2e9
MARGIN = 0.4e9  # that it grows by before it forgets again: not all that is freed goes back
drop_above = DROP_ABOVE


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    pages = int(status.read_text().split()[1]) if status.exists() else 0
    return pages * resource.getpagesize()


def bound_memory():
    """Clear large caches; between tests, and within those of many cases."""
    global drop_above
    if resident_bytes() > drop_above and "jax" in sys.modules:
        drop_programs()
        drop_above = max(DROP_ABOVE, resident_bytes() + MARGIN)


def drop_programs():
    """Forget compiled programs, arrays and data sets that tests share."""
    for name in ("runs", "tiny_configs"):
        for cache in ("_programs", "_data"):
            getattr(sys.modules.get(name), cache, {}).clear()
    sys.modules["jax"].clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def script(name):
    """A module of experiments/, by its path there."""
    from aigc_jax.utils.python_files import import_file

    return import_file(ROOT / "experiments" / f"{name}.py", "experiment")


def command_line(*words, **more):
    """A finished process of the command line, with one device."""
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
    """The environment of a process with one device, whatever this one simulates."""
    return os.environ | {"XLA_FLAGS": QUICK}
