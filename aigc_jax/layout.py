"""What the axes of an array are: networks and methods say it, and whoever lays arrays out on devices (`sharding`) listens.

    x = layout.axes(x, "examples", "positions", None)

returns x as it is where nobody listens. Where each device runs the program by itself on a part of the examples (pmap), `mean` makes theirs those
of all.
"""

import contextlib
import contextvars

import jax

NAMES = ("examples", "positions", "heads", "hidden", "vocabulary")

_listener = contextvars.ContextVar("listener", default=lambda x, names: x)


_mapped = contextvars.ContextVar("mapped", default=None)  # the name of the axis of devices


def mean(x):
    """Of a mean over this program's examples, that over all devices' examples."""
    return x if _mapped.get() is None else jax.lax.pmean(x, _mapped.get())


def own(batch):
    """This device's part of a batch [B, ...] that all of them have."""
    if (axis := _mapped.get()) is None:
        return batch
    place, count = jax.lax.axis_index(axis), jax.lax.axis_size(axis)
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, place * (len(x) // count), len(x) // count), batch)


def joined(x):
    """Rows [b, ...] of every leaf: those of all devices, [B, ...]."""
    return x if _mapped.get() is None else jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, _mapped.get(), tiled=True), x)


@contextlib.contextmanager
def mapped(axis: str):
    """Within it there is a program on each device of a mapped axis."""
    token = _mapped.set(axis)
    try:
        yield
    finally:
        _mapped.reset(token)


def axes(x, *names):  # one of NAMES or None for each axis; axes that are not named at the end are None
    return _listener.get()(x, names)


@contextlib.contextmanager
def listening(listener):
    """Within it `axes(x, *names)` is listener(x, names)."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
