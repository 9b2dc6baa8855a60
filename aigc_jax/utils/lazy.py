"""Lazy packages: names whose modules are imported on first use."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def make_lazy_getattr(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose names are imported on first use.

    Importing jax takes seconds, and flags that are set before that import take effect.

    Args:
      package: `__name__` of the package.
      modules: {public name: the module that defines it}.
    """

    def import_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return import_name
