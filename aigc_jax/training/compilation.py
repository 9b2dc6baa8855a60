"""Compiled programs: options by platform, and compilation ahead of time."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax.stages import Compiled

# What the compiler is told, by platform. On CPUs XLA hands convolutions one by one to
# YNNPACK, which takes up to twice as long as its own code for those of gradients
# (docs/LOG.md); matrix products stay with it.
COMPILER = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}}
# What runs once is not worth much optimization: random numbers compile in a fifth of
# the time (docs/LOG.md).
ONCE = {"cpu": {"xla_backend_optimization_level": 1}}
COMPILERS = ThreadPoolExecutor(2)  # a compilation keeps little more than one core busy


class Program:
    """A jitted function that compiles at its first call, once; or beside other work,
    from `begin` on.
    """

    def __init__(self, jitted: Any, options: dict[str, dict] = COMPILER) -> None:
        self.jitted, self._options = jitted, options
        self._coming: Future | None = None
        self.compiled: Compiled | None = None

    def begin(self, *args: Any) -> None:
        """Compile for such arguments, in a thread; what is traced is traced now."""
        if self._coming is None:
            lowered, options = self.jitted.lower(*args), self._options.get(jax.default_backend())
            self._coming = COMPILERS.submit(lowered.compile, compiler_options=options)

    def result(self) -> Compiled:
        """The executable, once it is there; it must have been begun."""
        if self.compiled is None:
            assert self._coming is not None
            self.compiled = self._coming.result()
        return self.compiled

    def __call__(self, *args):
        """Run the executable, after compiling it for these arguments if need be."""
        if self.compiled is None:
            self.begin(*args)
        return self.result()(*args)
