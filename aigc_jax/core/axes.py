"""What the axes of an array are: networks and methods say it, and whoever lays arrays
out on devices (`sharding`) listens.

    x = axes.axes(x, "examples", "positions", None)

returns x as it is where nobody listens. Where each device runs the program by itself on
a part of the examples (pmap), `mean` makes theirs those of all.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax

from aigc_jax.core.method import PyTree

NAMES = ("examples", "positions", "heads", "hidden", "vocabulary")

Listener = Callable[[Any, tuple[str | None, ...]], Any]

_listener: ContextVar[Listener] = ContextVar("listener", default=lambda x, names: x)
# the name of the axis of devices
_mapped: ContextVar[str | None] = ContextVar("mapped", default=None)


def mean(x: PyTree) -> PyTree:
    """Of a mean over this program's examples, that over all devices' examples."""
    return x if _mapped.get() is None else jax.lax.pmean(x, _mapped.get())


def own(batch: PyTree) -> PyTree:
    """This device's part of a batch [B, ...] that all of them have."""
    if (axis := _mapped.get()) is None:
        return batch
    place, count = jax.lax.axis_index(axis), jax.lax.axis_size(axis)
    return jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, place * (len(x) // count), len(x) // count), batch
    )


def joined(x: PyTree) -> PyTree:
    """Rows [b, ...] of every leaf: those of all devices, [B, ...]."""
    return (
        x
        if _mapped.get() is None
        else jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, _mapped.get(), tiled=True), x)
    )


@contextlib.contextmanager
def mapped(axis: str) -> Iterator[None]:
    """Within it there is a program on each device of a mapped axis."""
    token = _mapped.set(axis)
    try:
        yield
    finally:
        _mapped.reset(token)


def axes(x: Any, *names: str | None) -> Any:
    """Return x after the active listener has seen the names of its axes: x itself where
    none is active. `names` are of NAMES, or None; further axes count as None.
    """
    return _listener.get()(x, names)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within it `axes(x, *names)` is listener(x, names)."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
