"""The persistent cache of compiled programs, $XDG_CACHE_HOME/aigc_jax/programs/, in
which JAX finds the programs that an earlier process compiled.

Each combination of JAX's versions and the processor's features has its own directory.
An entry is its SHA-256 and JAX's bytes; JAX's own cache has no digest, and never
replaces an entry that was cut off. AIGC_CACHE=off disables the cache, and a cache
directory of JAX's own ($JAX_COMPILATION_CACHE_DIR) replaces it.
"""

import contextlib
import hashlib
import os
import platform
import tempfile
import threading
from pathlib import Path
from typing import Any

from aigc_jax.utils.disk import cache_dir
from aigc_jax.utils.errors import require

MAX_BYTES = 2 * 10**9  # of the directories of all versions together
FILLED_AFTER_EVICTION = 0.9  # fraction of the maximum
SUFFIX = ".program"
DIGEST_BYTES = hashlib.sha256().digest_size
ATTRIBUTES = ("_cache", "_cache_initialized", "_cache_initialized_mutex", "reset_cache")
SWITCH = "AIGC_CACHE"
MIN_COMPILE_SECONDS = "jax_persistent_cache_min_compile_time_secs"


class ProgramCache:
    """Compiled programs as files, with the interface of JAX's cache.

    Processes may share the directory: a file is complete when it gets its name. A file
    that cannot be read or written is a program that is compiled again.

    Args:
      path: the directory of this version's programs.
      max_bytes: maximum size of all directories beside `path` together, from which the
        least recently used programs are removed.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = self._path = path  # `_path` is read by JAX
        self.max_bytes = max_bytes
        self._lock = threading.Lock()  # programs are compiled in several threads
        self._size: int | None = None  # in bytes, as of the last search and what came since

    def get(self, key: str) -> bytes | None:
        """Return the bytes stored under a key, or None. Removes a damaged file."""
        file = self.path / (key + SUFFIX)
        try:
            content = file.read_bytes()
            value = content[DIGEST_BYTES:]
            if hashlib.sha256(value).digest() != content[:DIGEST_BYTES]:
                file.unlink()
                return None
            os.utime(file)  # the time of its last use, by which programs are removed
        except OSError:
            return None
        return value

    def put(self, key: str, value: bytes) -> None:
        """Store bytes under a key."""
        with contextlib.suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, part = tempfile.mkstemp(".part", dir=self.path)
            try:
                with open(handle, "wb") as f:
                    f.write(hashlib.sha256(value).digest() + value)
                os.replace(part, self.path / (key + SUFFIX))
            except OSError:
                os.unlink(part)
                raise
            self._bound_size(DIGEST_BYTES + len(value))

    def _bound_size(self, added_bytes: int) -> None:
        """Remove the least recently used files if all exceed the maximum. The directory
        is searched for the first program of a process, and when the maximum is reached.
        """
        with self._lock:
            if self._size is not None:
                self._size += added_bytes
            if self._size is not None and self._size <= self.max_bytes:
                return
            files = []
            for file in self.path.parent.glob(f"*/*{SUFFIX}"):
                with contextlib.suppress(FileNotFoundError):  # removed by another process
                    stat = file.stat()
                    files.append((stat.st_mtime_ns, stat.st_size, file))
            self._size = sum(size for _, size, _ in files)
            if self._size <= self.max_bytes:
                return
            for _, size, file in sorted(files):
                if self._size <= FILLED_AFTER_EVICTION * self.max_bytes:
                    break
                file.unlink(missing_ok=True)
                self._size -= size


def describe_processor() -> str:
    """Return the architecture, model and features of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join([platform.machine(), *(line for line in lines if line.startswith(names))])


def version_dir() -> Path:  # not created
    """Return the directory of the programs of these versions and this processor."""
    import jax
    import jaxlib

    processor = hashlib.sha256(describe_processor().encode()).hexdigest()[:8]
    names = [f"jax-{jax.__version__}", f"jaxlib-{jaxlib.__version__}"]
    return cache_dir("programs") / "-".join([*names, processor])


def enable_compilation_cache() -> bool:  # whether JAX uses this cache
    """Make JAX read and write compiled programs in the user's cache directory, unless
    AIGC_CACHE=off or JAX has another directory.

    Raises:
      UserError: AIGC_CACHE has another value than on or off.
    """
    switch = os.environ.get(SWITCH, "on")
    require(switch in ("on", "off"), f"{SWITCH} = {switch!r} in the environment must be on or off")
    if switch == "off":
        return False

    import jax

    settings: Any = jax.config
    if settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
        return False
    return _install(ProgramCache(version_dir()))


def _install(cache: ProgramCache) -> bool:  # whether JAX uses it
    """Make JAX use a cache. JAX has no public interface for caches other than its own:
    where its internals differ, programs are compiled without a cache.
    """
    import jax

    try:
        from jax._src import compilation_cache as internals
    except ImportError:
        return False
    if not all(hasattr(internals, name) for name in ATTRIBUTES):
        return False
    internals.reset_cache()  # of programs that were compiled before
    with internals._cache_initialized_mutex:
        internals._cache, internals._cache_initialized = cache, True  # type: ignore[assignment]
    jax.config.update("jax_compilation_cache_dir", str(cache.path))  # GPUs store choices there
    if MIN_COMPILE_SECONDS.upper() not in os.environ:
        jax.config.update(MIN_COMPILE_SECONDS, 0)
    return True
