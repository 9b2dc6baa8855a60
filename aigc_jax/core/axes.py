"""Logical axis names: networks and methods annotate arrays, `sharding` maps the names
to mesh axes.

    x = with_logical_constraint(x, "examples", "positions", None)

returns x unchanged outside of `logical_axis_rules`. Where each device runs the program
on its own part of the examples (pmap), `device_mean` averages over the devices.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax

from aigc_jax.core.method import PyTree

NAMES = ("examples", "positions", "heads", "hidden", "vocabulary")

Rules = Callable[[Any, tuple[str | None, ...]], Any]

_rules: ContextVar[Rules] = ContextVar("rules", default=lambda x, names: x)
# the name of the device axis
_mapped: ContextVar[str | None] = ContextVar("mapped", default=None)


def device_mean(x: PyTree) -> PyTree:
    """Average the means over each device's examples over all devices."""
    return x if _mapped.get() is None else jax.lax.pmean(x, _mapped.get())


def device_part(batch: PyTree) -> PyTree:
    """Return this device's part of a batch [B, ...] that all devices share."""
    if (axis := _mapped.get()) is None:
        return batch
    place, count = jax.lax.axis_index(axis), jax.lax.axis_size(axis)
    return jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, place * (len(x) // count), len(x) // count), batch
    )


def all_gather_rows(x: PyTree) -> PyTree:
    """Gather the rows [b, ...] of every leaf from all devices: [B, ...]."""
    return (
        x
        if _mapped.get() is None
        else jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, _mapped.get(), tiled=True), x)
    )


@contextlib.contextmanager
def data_axis(axis: str) -> Iterator[None]:
    """Set the name of the mapped device axis for code in this context."""
    token = _mapped.set(axis)
    try:
        yield
    finally:
        _mapped.reset(token)


def with_logical_constraint(x: Any, *names: str | None) -> Any:
    """Constrain the sharding of x by the logical names of its axes and the active
    rules; return x itself without active rules. Names are from NAMES, or None; further
    axes count as None.
    """
    return _rules.get()(x, names)


@contextlib.contextmanager
def logical_axis_rules(rules: Rules) -> Iterator[None]:
    """Make `with_logical_constraint(x, *names)` return rules(x, names) in a context."""
    token = _rules.set(rules)
    try:
        yield
    finally:
        _rules.reset(token)
