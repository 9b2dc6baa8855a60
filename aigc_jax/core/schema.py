"""Declarations of config keys, and the keys that every config has. This module does not
import jax.

Each package declares the keys that it reads in its own `schema` module: a `Key` has a
name, a type, a default, a range or the allowed values, and a line of help.
`training.config` collects them.
"""

from collections.abc import Mapping
from types import MappingProxyType
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
    help: str  # a phrase of one line; the effect, and its source
    # REQUIRED: the config or its method must set the key. A value that equals the
    # default is not part of a run's identity.
    default: Any = REQUIRED
    low: float | None = None  # None: no bounds; else `high` is set too
    high: float | None = None
    # {value: help} of a choice between names; empty: any value
    allowed: Mapping[str, str] = MappingProxyType({})
    unit: str = ""  # of a number, such as "tokens"


def width_key(name: str, help: str, default: Any = REQUIRED, low: int = 1) -> Key:
    """Return the key of a number of channels or units, from `low` to WIDTH."""
    return Key(name, int, help, default, low, WIDTH)


def depth_key(name: str, help: str, default: Any = REQUIRED) -> Key:
    """Return the key of a number of layers or blocks, from 1 to DEPTH."""
    return Key(name, int, help, default, 1, DEPTH)


def kernel_key(name: str, default: Any = REQUIRED) -> Key:
    """Return the key of a convolution's kernel size in pixels, 1 to 64."""
    return Key(name, int, "Side of the convolutions' kernels.", default, 1, 64, unit="pixels")


def choice_key(name: str, help: str, allowed: Mapping[str, str], default: Any = REQUIRED) -> Key:
    """Return the key of a choice between the `allowed` names, {name: help}."""
    return Key(name, str, help, default, allowed=allowed)


COMMON = (
    Key("steps", DURATION, "Length of training."),
    Key("batch_size", int, "Examples per update.", REQUIRED, 1, 2**20, unit="examples"),
    Key(
        "seed",
        int,
        "Seed of the initial weights, the order of the data and all noise; may differ between "
        "the trials of a program.",
        0,
        0,
        SEEDS,
    ),
)
