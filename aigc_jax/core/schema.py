"""The schema of a config key: name, type, default, range and allowed values. This
module does not import jax.

`width_key`, `depth_key`, `kernel_key` and `choice_key` return keys of common kinds.
Their `name` is dotted, and a config must set the key unless it has a `default`.
"""

from typing import Any, NamedTuple

REQUIRED = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()  # no default
DURATION = "duration"  # a type: '1000 steps', '10 epochs', '1e6 examples', 'never'
NAMES, INTS, INTS2 = tuple[str, ...], tuple[int, ...], tuple[tuple[int, ...], ...]

BELOW_ONE = 1 - 2**-24  # the largest float32 below 1
FLOAT = 1e38  # representable in float32
ABOVE_ZERO = 1e-30
ENTRIES = 64  # maximum number of entries of a tuple
SEEDS = 2**32 - 1  # jax.random.key reads 32 bits
WIDTH, DEPTH = 2**16, 512  # maximum channels of a layer, and layers


class Key(NamedTuple):
    """A leaf of a config. Bounds are inclusive; bounds and allowed values of a tuple
    apply to its entries.
    """

    name: str  # dotted; within `model`, relative to the network or its part
    # bool, int, float, str, DURATION, NAMES, INTS, INTS2, or `int | None` (unset)
    type: Any
    default: Any = REQUIRED  # REQUIRED: a config must set the key
    low: float | None = None  # None: no bounds; else `high` is set too
    high: float | None = None
    allowed: tuple[str, ...] = ()  # values of a choice between names; (): any


def width_key(name: str, default: Any = REQUIRED, low: int = 1) -> Key:  # int, low .. 2^16
    """Return the key of a number of channels or units, from `low` to WIDTH."""
    return Key(name, int, default, low, WIDTH)


def depth_key(name: str, default: Any = REQUIRED, low: int = 1) -> Key:  # int, low .. 512
    """Return the key of a number of layers or blocks, from `low` to DEPTH."""
    return Key(name, int, default, low, DEPTH)


def kernel_key(name: str, default: Any = REQUIRED) -> Key:  # int, 1 .. 64
    """Return the key of a convolution's kernel size in pixels, 1 to 64."""
    return Key(name, int, default, 1, 64)


def choice_key(name: str, allowed: tuple[str, ...], default: Any = REQUIRED) -> Key:
    """Return the key of a choice between the `allowed` names."""
    return Key(name, str, default, allowed=allowed)
