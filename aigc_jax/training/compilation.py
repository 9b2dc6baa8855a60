"""Compiled programs: compiler options by platform, and ahead-of-time compilation."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax.stages import Compiled

# Compiler options by platform. On CPUs XLA passes convolutions one by one to YNNPACK,
# which takes up to twice as long as XLA's own code for the convolutions of gradients
# (docs/LOG.md); matrix products stay with YNNPACK.
COMPILER = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}}
# Options of programs that run once and are not worth much optimization: random number
# generation compiles in a fifth of the time (docs/LOG.md).
ONCE = {"cpu": {"xla_backend_optimization_level": 1}}
COMPILERS = ThreadPoolExecutor(2)  # a compilation uses little more than one core


def with_options(by_platform: dict[str, dict], more: dict) -> dict[str, dict]:
    """Return compiler options by platform, with those of `more` on every platform."""
    return {platform: options | more for platform, options in by_platform.items()}


class Program:
    """A jitted function that is compiled once: at its first call, or in a thread from
    `begin` on.
    """

    def __init__(self, jitted: Any, options: dict[str, dict] = COMPILER) -> None:
        self.jitted, self._options = jitted, options
        self._coming: Future | None = None
        self.compiled: Compiled | None = None

    def begin(self, *args: Any) -> None:
        """Trace the function for these arguments now, and compile it in a thread."""
        if self._coming is None:
            lowered, options = self.jitted.lower(*args), self._options.get(jax.default_backend())
            self._coming = COMPILERS.submit(lowered.compile, compiler_options=options)

    def result(self) -> Compiled:
        """Wait for the compilation that `begin` started, and return the executable."""
        if self.compiled is None:
            assert self._coming is not None
            self.compiled = self._coming.result()
        return self.compiled

    def memory_stats(self) -> Any:
        """Return the memory that the executable needs, in bytes by kind."""
        stats = self.result().memory_analysis()
        assert stats is not None  # known to every backend with ahead-of-time compilation
        return stats

    def __call__(self, *args) -> Any:
        """Run the executable; compile it for these arguments first if necessary."""
        if self.compiled is None:
            self.begin(*args)
        return self.result()(*args)
