"""Compiled programs: compiler options by platform, and ahead-of-time compilation."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax.stages import Compiled

# Compiler options by platform. On CPUs XLA passes convolutions one by one to YNNPACK,
# which takes up to twice as long as XLA's own code for the convolutions of gradients
# (docs/design/log.md); matrix products stay with YNNPACK.
COMPILER = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}}
# Options of programs that run once and are not worth much optimization: random number
# generation compiles in a fifth of the time (docs/design/log.md).
ONCE = {"cpu": {"xla_backend_optimization_level": 1}}
COMPILERS = ThreadPoolExecutor(2)  # a compilation uses little more than one core


def with_extra_options(
    by_platform: dict[str, dict[str, Any]], extra: dict[str, Any]
) -> dict[str, dict[str, Any]]:  # {platform: {option: value}}
    """Return compiler options {platform: {option: value}}, with the options `extra` on
    every platform of `by_platform`.
    """
    return {platform: options | extra for platform, options in by_platform.items()}


class Program:
    """A jitted function that is compiled once: at its first call, or in a thread from
    `start_compiling` on.

    Args:
      jitted: the result of `jax.jit`.
      options: {platform: {compiler option: value}}; platforms that it lacks have XLA's
        defaults.
    """

    def __init__(self, jitted: Any, options: dict[str, dict] = COMPILER) -> None:
        self.jitted, self._options = jitted, options
        self._coming: Future | None = None
        self.compiled: Compiled | None = None

    def start_compiling(self, *args: Any) -> None:  # in a thread, for these shapes
        """Trace the function for these arguments now, and compile it in a thread."""
        if self._coming is None:
            lowered, options = self.jitted.lower(*args), self._options.get(jax.default_backend())
            self._coming = COMPILERS.submit(lowered.compile, compiler_options=options)

    def wait_for_executable(self) -> Compiled:
        """Return the executable, once the compilation by `start_compiling` is done."""
        if self.compiled is None:
            assert self._coming is not None
            self.compiled = self._coming.result()
        return self.compiled

    def memory_stats(self) -> Any:  # XLA's CompiledMemoryStats, fields in bytes
        """Return the memory that the executable needs, in bytes by kind."""
        stats = self.wait_for_executable().memory_analysis()
        assert stats is not None  # known to every backend with ahead-of-time compilation
        return stats

    def __call__(self, *args: Any) -> Any:
        """Run the executable; compile it for these arguments first if necessary."""
        if self.compiled is None:
            self.start_compiling(*args)
        return self.wait_for_executable()(*args)
