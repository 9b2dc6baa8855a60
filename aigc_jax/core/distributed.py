"""One program over several processes, on one host or many: who takes part, what they
agree on, arrays that lie on all of them.

Every process runs the same loop on the same config and numbers; JAX's runtime carries
what they send each other. The first one writes. Alone, every function here is the
identity.
"""

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from aigc_jax.utils.errors import UserError, argument, require

# How long a process may give no sign of life before the others end, unless
# $AIGC_HEARTBEAT_SECONDS says otherwise.
HEARTBEAT_SECONDS = "60"
# Variables that say how many processes a launcher started together; JAX reads the rest
# of what it needs by itself.
LAUNCHERS = {"SLURM_STEP_NUM_TASKS": "Slurm", "OMPI_COMM_WORLD_SIZE": "Open MPI"}
HOSTS = {"TPU_WORKER_HOSTNAMES": "a TPU pod", "TPU_PROCESS_ADDRESSES": "a TPU pod"}


def launched(around: Mapping[str, str] = os.environ) -> str:
    """The launcher that started several processes of which this is one, or ''."""
    found = [
        name
        for key, name in LAUNCHERS.items()
        if around.get(key, "1").isdecimal() and int(around.get(key, "1")) > 1
    ]
    found += [name for key, name in HOSTS.items() if "," in around.get(key, "")]
    if "KUBERNETES_SERVICE_HOST" in around and around.get("JOB_COMPLETION_INDEX"):
        found.append("Kubernetes")
    return next(iter(found), "")


def begin(coordinator: str = "", count: int | None = None, index: int | None = None) -> None:
    """Join the other processes, where there are any: those named, or those of a
    launcher. To be called before the first array.
    """
    given = [value is not None and value != "" for value in (coordinator, count, index)]
    require(
        all(given) or not any(given),
        f"{argument('coordinator')}=HOST:PORT, {argument('num_processes')}=N and "
        f"{argument('process_id')}=I go together",
    )
    seconds = os.environ.get("AIGC_HEARTBEAT_SECONDS", HEARTBEAT_SECONDS)
    require(
        seconds.isdecimal() and int(seconds) > 0,
        f"AIGC_HEARTBEAT_SECONDS = {seconds!r} must be a whole number of seconds, at least 1",
    )
    if coordinator and count is not None and index is not None:
        host, _, port = coordinator.rpartition(":")
        require(
            host and port.isdecimal(),
            f"{argument('coordinator')}={coordinator} must be HOST:PORT of the process with "
            f"{argument('process_id')}=0",
        )
        require(
            count > 0 and 0 <= index < count,
            f"{argument('process_id')}={index} must lie in 0 .. "
            f"{argument('num_processes')}={count} less 1",
        )
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            heartbeat_timeout_seconds=int(seconds),
            shutdown_timeout_seconds=int(seconds),
        )
    elif (name := launched()) and not jax.distributed.is_initialized():
        try:
            jax.distributed.initialize(
                heartbeat_timeout_seconds=int(seconds), shutdown_timeout_seconds=int(seconds)
            )
        except ValueError as e:  # under Kubernetes without its Python package, for example
            raise UserError(
                f"{name} started this as one of several processes, but JAX does not find "
                f"out which ({e}): say it with {argument('coordinator')}, "
                f"{argument('num_processes')} and {argument('process_id')}"
            ) from None


def first() -> bool:
    """Is this the process that writes?"""
    return jax.process_index() == 0


def agreed(steps: int, stopped: int | None) -> tuple[int, int | None]:
    """The first process's steps, and the signal of any that has one: all go on alike,
    and stop at the same step.
    """
    if jax.process_count() == 1:
        return steps, stopped
    all_ = multihost_utils.process_allgather(np.array([steps, stopped or 0]))
    return int(all_[0, 0]), int(all_[:, 1].max()) or None


def same(number: int) -> int:
    """The first process's number; all wait for it."""
    return (
        number
        if jax.process_count() == 1
        else int(multihost_utils.broadcast_one_to_all(np.array(number)))
    )


def wait(what: str) -> None:
    """Until all have come to it."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


Index = tuple[slice, ...] | None  # of a part of an array


class Pieces:
    """What one process has, or wants, of an array on all of them: {((start, stop) of
    each axis): that part of it}.
    """

    def __init__(self, shape: Sequence[int], dtype: Any, parts: dict) -> None:
        self.shape, self.dtype, self.parts, self.ndim = (
            tuple(shape),
            np.dtype(dtype),
            parts,
            len(shape),
        )

    def at(self, index: Index) -> np.ndarray:
        """Return the part at `index`, a tuple of slices; or raise a KeyError."""
        return self.parts[bounds(index, self.shape)]

    def __array__(self, dtype=None, copy=None):
        return self.at((slice(None),) * self.ndim)


def bounds(index: Index, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Slices as numbers."""
    assert index is not None  # as of every array with axes
    return tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))


def own(x: jax.Array) -> Pieces:
    """A copy of an array's parts that lie here; of a part on several devices, one."""
    mine = {
        bounds(s.index, x.shape): np.array(s.data)
        for s in x.addressable_shards
        if s.replica_id == 0
    }
    return Pieces(x.shape, x.dtype, mine)


def wanted(shape: Sequence[int], sharding: Sharding) -> list[tuple]:
    """The parts of an array that this process's devices will hold."""
    return list(
        dict.fromkeys(
            bounds(index, shape)
            for index in sharding.addressable_devices_indices_map(tuple(shape)).values()
        )
    )


def finite(x: np.ndarray | Pieces) -> np.ndarray:  # [N, ...] -> [N]
    """Of each of stacked trials: is all that there is of it here finite?"""
    out = np.ones(x.shape[0], bool)
    parts = x.parts.items() if isinstance(x, Pieces) else [(((0, len(x)),), x)]
    for ((low, high), *_), part in parts:
        out[low:high] &= np.isfinite(part).reshape(high - low, -1).all(1)
    return out


def all_of(x: np.ndarray) -> np.ndarray:
    """Is it true in all processes?"""
    return x if jax.process_count() == 1 else multihost_utils.process_allgather(x).all(0)


def host(tree: Any) -> Any:
    """A copy of every array on this host, wherever its parts lie."""
    here = lambda x: not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated
    return jax.device_get(
        jax.tree.map(
            lambda x: x if here(x) else multihost_utils.process_allgather(x, tiled=True), tree
        )
    )


def put(x: Any, sharding: Sharding) -> jax.Array:
    """An array that every process holds whole, or the `wanted` pieces of, laid out on
    the devices of all.
    """
    if isinstance(x, Pieces):
        return jax.make_array_from_callback(x.shape, sharding, x.at)
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
        raw = host(jax.random.key_data(x))
        return jax.random.wrap_key_data(
            jax.make_array_from_callback(raw.shape, sharding, lambda at: raw[at]),
            impl="threefry2x32",
        )
    x = host(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])


class Stop:
    """SIGTERM and Ctrl-C set a flag that the loop reads after each call; a second
    Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        self._old = {
            s: signal.signal(s, self._set) for s in (signal.SIGTERM, signal.SIGINT) if main
        }
        return self

    def _set(self, number, frame):
        self.signal = number
        signal.signal(number, self._old[number])

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)
