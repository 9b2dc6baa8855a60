"""Logical axis names: networks and methods annotate arrays, `sharding` maps the names
to mesh axes.

    x = with_logical_constraint(x, "examples", "positions", None)

returns x unchanged outside of `logical_axis_rules`. Where each device runs the program
on its own part of the examples (pmap), `average_over_devices` averages over the
devices.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax

from aigc_jax.core.method import PyTree

NAMES = ("examples", "positions", "heads", "hidden", "vocabulary")

Constrain = Callable[[Any, tuple[str | None, ...]], Any]

_rules: ContextVar[Constrain] = ContextVar("rules", default=lambda x, names: x)
# the name of the device axis
_mapped: ContextVar[str | None] = ContextVar("mapped", default=None)


def average_over_devices(means: PyTree) -> PyTree:  # identity outside of `data_axis`
    """Average the means over each device's examples over all devices."""
    return means if _mapped.get() is None else jax.lax.pmean(means, _mapped.get())


def take_device_part(batch: PyTree) -> PyTree:  # [B, ...] -> [B / devices, ...]
    """Return this device's part of a batch [B, ...] that all devices share."""
    if (axis := _mapped.get()) is None:
        return batch
    place, count = jax.lax.axis_index(axis), jax.lax.axis_size(axis)
    return jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, place * (len(x) // count), len(x) // count), batch
    )


def all_gather_rows(rows: PyTree) -> PyTree:  # [B / devices, ...] -> [B, ...]
    """Gather the rows of every leaf from all devices."""
    return (
        rows
        if _mapped.get() is None
        else jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, _mapped.get(), tiled=True), rows)
    )


@contextlib.contextmanager
def data_axis(axis_name: str) -> Iterator[None]:
    """Set the name of the mapped device axis for code in this context, which
    `average_over_devices`, `take_device_part` and `all_gather_rows` use.

    Args:
      axis_name: name of the axis of a shard_map or pmap over the data.
    """
    token = _mapped.set(axis_name)
    try:
        yield
    finally:
        _mapped.reset(token)


def with_logical_constraint(x: Any, *axis_names: str | None) -> Any:  # the same values
    """Constrain the sharding of x by the logical names of its axes and the active
    rules; return x itself without active rules. Names are from NAMES, or None; further
    axes count as None.
    """
    return _rules.get()(x, axis_names)


@contextlib.contextmanager
def logical_axis_rules(constrain: Constrain) -> Iterator[None]:  # (x, names) -> x
    """Make `with_logical_constraint(x, *names)` return rules(x, names) in a context.

    Args:
      constrain: (x, names) -> x with a constraint; names may be fewer than the axes of
        x.
    """
    token = _rules.set(constrain)
    try:
        yield
    finally:
        _rules.reset(token)
