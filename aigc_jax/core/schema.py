"""What a key of a config is: its name, type, default, range and allowed values. Nothing
here imports jax.
"""

from typing import Any, NamedTuple

REQUIRED = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()  # a default that is none
DURATION = "duration"  # a type: '1000 steps', '10 epochs', '1e6 examples', 'never'
NAMES, INTS, INTS2 = tuple[str, ...], tuple[int, ...], tuple[tuple[int, ...], ...]

BELOW_ONE = 1 - 2**-24  # the largest float32 below 1
FLOAT = 1e38  # float32 holds it
ABOVE_ZERO = 1e-30
ENTRIES = 64  # the most entries of a tuple
SEEDS = 2**32 - 1  # jax.random.key reads 32 bits
WIDTH, DEPTH = 2**16, 512  # the most channels of a layer, the most layers


class Key(NamedTuple):
    """A leaf of a config. Bounds are inclusive; those of a tuple, and its allowed
    values, are of its entries.
    """

    name: str  # dotted
    type: Any  # bool, int, float, str, DURATION, NAMES, INTS, INTS2, or `int | None`: not set
    default: Any = REQUIRED
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()


def width(name: str, default: Any = REQUIRED, low: int = 1) -> Key:
    """Return the key of a number of channels or units, `low` to WIDTH."""
    return Key(name, int, default, low, WIDTH)


def depth(name: str, default: Any = REQUIRED, low: int = 1) -> Key:
    """Return the key of a number of layers or blocks, `low` to DEPTH."""
    return Key(name, int, default, low, DEPTH)


def kernel(name: str, default: Any = REQUIRED) -> Key:
    """Return the key of a convolution's kernel size in pixels, 1 to 64."""
    return Key(name, int, default, 1, 64)


def one_of(name: str, allowed: tuple[str, ...], default: Any = REQUIRED) -> Key:
    """Return the key of a choice between names."""
    return Key(name, str, default, allowed=allowed)
