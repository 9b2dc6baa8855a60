"""One program over several processes, on one host or many: initialization, collective
communication, and arrays that are sharded over all processes.

Every process runs the same loop with the same config and the same numbers. Only the
primary process writes files. In a single process every function here is the identity.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from aigc_jax.core.method import PyTree
from aigc_jax.utils.errors import UserError, mark_argument, require

# Seconds without a heartbeat of one process after which the others exit;
# $AIGC_HEARTBEAT_SECONDS overrides the default.
HEARTBEAT_SECONDS = "60"
# Environment variables with the number of processes that a launcher started; JAX reads
# all other settings of the launcher itself.
LAUNCHERS = {"SLURM_STEP_NUM_TASKS": "Slurm", "OMPI_COMM_WORLD_SIZE": "Open MPI"}
HOSTS = {"TPU_WORKER_HOSTNAMES": "a TPU pod", "TPU_PROCESS_ADDRESSES": "a TPU pod"}


def find_launcher(environ: Mapping[str, str] = os.environ) -> str:  # "" if none
    """Return the name of the launcher that started this and other processes, or ''.

    Args:
      environ: environment variables; by default those of this process.
    """
    launchers = [
        name
        for key, name in LAUNCHERS.items()
        if environ.get(key, "1").isdecimal() and int(environ.get(key, "1")) > 1
    ]
    launchers += [name for key, name in HOSTS.items() if "," in environ.get(key, "")]
    if "KUBERNETES_SERVICE_HOST" in environ and environ.get("JOB_COMPLETION_INDEX"):
        launchers.append("Kubernetes")
    return next(iter(launchers), "")


def initialize(
    coordinator: str = "", num_processes: int | None = None, process_id: int | None = None
) -> None:  # before any array exists
    """Connect to the other processes, if any. Must precede the creation of arrays.

    Args:
      coordinator: HOST:PORT of the process with index 0. By default the processes are
        those of a launcher, if one started this process.
      num_processes: number of processes; None: set by the launcher.
      process_id: index of this process, 0 to num_processes - 1;
        None: set by the launcher.

    Raises:
      UserError: only some arguments are set, an argument or the environment is invalid,
        or JAX cannot identify this process.
    """
    is_set = [
        value is not None and value != "" for value in (coordinator, num_processes, process_id)
    ]
    require(
        all(is_set) or not any(is_set),
        f"{mark_argument('coordinator')}=HOST:PORT, {mark_argument('num_processes')}=N and "
        f"{mark_argument('process_id')}=I must be set together",
    )
    seconds = os.environ.get("AIGC_HEARTBEAT_SECONDS", HEARTBEAT_SECONDS)
    require(
        seconds.isdecimal() and int(seconds) > 0,
        f"AIGC_HEARTBEAT_SECONDS = {seconds!r} must be an integer of at least 1",
    )
    timeouts: dict[str, Any] = dict.fromkeys(
        ("heartbeat_timeout_seconds", "shutdown_timeout_seconds"), int(seconds)
    )
    if coordinator and num_processes is not None and process_id is not None:
        _check_place(coordinator, num_processes, process_id)
        jax.distributed.initialize(coordinator, num_processes, process_id, **timeouts)
    elif (name := find_launcher()) and not jax.distributed.is_initialized():
        try:
            jax.distributed.initialize(**timeouts)
        except ValueError as e:  # for example under Kubernetes without its Python package
            raise UserError(
                f"{name} started this as one of several processes, but JAX cannot "
                f"determine its index ({e}): set {mark_argument('coordinator')}, "
                f"{mark_argument('num_processes')} and {mark_argument('process_id')}"
            ) from None


def _check_place(coordinator: str, num_processes: int, process_id: int) -> None:
    """Raise a UserError unless the arguments identify one of several processes."""
    host, _, port = coordinator.rpartition(":")
    require(
        host and port.isdecimal(),
        f"{mark_argument('coordinator')}={coordinator} must be HOST:PORT of the process with "
        f"{mark_argument('process_id')}=0",
    )
    require(
        num_processes > 0 and 0 <= process_id < num_processes,
        f"{mark_argument('process_id')}={process_id} must be at least 0 and "
        f"less than {mark_argument('num_processes')}={num_processes}",
    )


def is_primary() -> bool:
    """Return whether this process is the one that writes files."""
    return jax.process_index() == 0


def sync_steps_and_signal(
    num_steps: int, stop_signal: int | None
) -> tuple[int, int | None]:  # steps of the primary process, signal of any process
    """Return the primary process's number of steps and the signal that any process
    received, so that all processes train the same number of steps and stop together.

    Args:
      num_steps: this process's number of steps.
      stop_signal: number of the signal that this process received; None without a
        signal.
    """
    if jax.process_count() == 1:
        return num_steps, stop_signal
    all_ = multihost_utils.process_allgather(np.array([num_steps, stop_signal or 0]))
    return int(all_[0, 0]), int(all_[:, 1].max()) or None


def broadcast_from_primary(number: int) -> int:
    """Return the primary process's number in every process."""
    return (
        number
        if jax.process_count() == 1
        else int(multihost_utils.broadcast_one_to_all(np.array(number)))
    )


def barrier(name: str) -> None:
    """Wait until all processes have called this function.

    Args:
      name: a name of the point in the program, the same in all processes.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


Index = tuple[slice, ...] | None  # of a part of an array


class LocalShards:
    """The parts of a sharded array that one process stores or reads, as a dict
    {((start, stop) of each axis): part}.

    Args:
      shape: of the full array.
      dtype: of the array.
      parts: {`slice_bounds` of a part: the part}.
    """

    def __init__(self, shape: Sequence[int], dtype: Any, parts: dict) -> None:
        self.shape, self.dtype, self.parts, self.ndim = (
            tuple(shape),
            np.dtype(dtype),
            parts,
            len(shape),
        )

    def shard_at(self, index: Index) -> np.ndarray:  # a slice for each axis
        """Return the part at `index`, a tuple of slices; or raise a KeyError."""
        return self.parts[slice_bounds(index, self.shape)]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.shard_at((slice(None),) * self.ndim)


def slice_bounds(
    index: Index, shape: Sequence[int]
) -> tuple[tuple[int, int], ...]:  # (start, stop) of each axis
    """Return (start, stop) of each slice of an array's part."""
    assert index is not None  # holds for every array with axes
    return tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))


def copy_local_shards(x: jax.Array) -> LocalShards:
    """Copy the parts of an array on this process's devices, replicated ones once."""
    shards = {
        slice_bounds(s.index, x.shape): np.array(s.data)
        for s in x.addressable_shards
        if s.replica_id == 0
    }
    return LocalShards(x.shape, x.dtype, shards)


def addressable_bounds(
    shape: Sequence[int], sharding: Sharding
) -> list[tuple[tuple[int, int], ...]]:  # (start, stop) of each axis of each part
    """Return the bounds of the parts on this process's devices."""
    return list(
        dict.fromkeys(
            slice_bounds(index, shape)
            for index in sharding.addressable_devices_indices_map(tuple(shape)).values()
        )
    )


def is_trial_finite(
    x: np.ndarray | LocalShards,
) -> np.ndarray:  # [N, ...] -> bool [N], of this process's values
    """Return for each stacked trial whether all values in this process are finite."""
    out = np.ones(x.shape[0], bool)
    parts = x.parts.items() if isinstance(x, LocalShards) else [(((0, len(x)),), x)]
    for ((low, high), *_), part in parts:
        out[low:high] &= np.isfinite(part).reshape(high - low, -1).all(1)
    return out


def true_in_all_processes(x: np.ndarray) -> np.ndarray:  # bool [...] -> bool [...]
    """Return where a value is true in every process."""
    return x if jax.process_count() == 1 else multihost_utils.process_allgather(x).all(0)


def gather_to_host(tree: PyTree) -> PyTree:  # of NumPy arrays, in every process
    """Copy every array of a tree to this host, including shards on other hosts."""
    here = lambda x: not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated
    return jax.device_get(
        jax.tree.map(
            lambda x: x if here(x) else multihost_utils.process_allgather(x, tiled=True), tree
        )
    )


def run_ahead(outputs: Iterable[Any]) -> Iterator[Any]:
    """Yield each output after the next one was made, so that the copy of an output to
    the host does not delay the program of the next.
    """
    previous: list = []
    for output in outputs:
        yield from previous
        previous = [output]
    yield from previous


def to_devices(x: Any, sharding: Sharding) -> jax.Array:  # x: an array or LocalShards
    """Return an array on the devices of all processes. Every process passes the full
    array, or `LocalShards` with its `addressable_bounds`.
    """
    if isinstance(x, LocalShards):
        return jax.make_array_from_callback(x.shape, sharding, x.shard_at)
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
        raw = gather_to_host(jax.random.key_data(x))
        return jax.random.wrap_key_data(
            jax.make_array_from_callback(raw.shape, sharding, lambda at: raw[at]),
            impl="threefry2x32",
        )
    x = gather_to_host(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])


class StopSignal:
    """SIGTERM and Ctrl-C set a flag that the loop reads after each call; a second
    Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._set)
        return self

    def _set(self, number: int, frame: Any) -> None:
        self.signal = number
        signal.signal(number, self._old[number])

    def __exit__(self, *_) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
