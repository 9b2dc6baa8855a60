"""Device meshes, with an axis each for trials, examples of a batch and parameters."""

import math
import os
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

from aigc_jax.utils.errors import UserError, first_line, require

AXES = ("trial", "data", "model")


def list_devices() -> list[jax.Device]:
    """Return `jax.devices()`; raise a UserError where the environment variable
    JAX_PLATFORMS names a platform without devices.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as e:  # an assertion, for lack of any backend
        platforms = os.environ.get("JAX_PLATFORMS", "")
        if not platforms:
            raise
        why = first_line(e) if str(e) and "known backends" not in str(e) else "no such device here"
        raise UserError(
            f"JAX_PLATFORMS = {platforms!r} in the environment: {why}; unset it to use the devices "
            "that exist, or install others: pip install 'jax[cuda12]' for NVIDIA GPUs (extra "
            "cuda), 'jax[tpu]' for TPUs (extra tpu)"
        ) from None


def make_mesh(
    shape: dict[str, int], devices: Sequence[jax.Device] | None = None
) -> Mesh:  # sizes: 1 by default, -1: all other devices
    """Return a mesh with the axes of AXES.

    Args:
      shape: {axis: number of devices}, 1 by default; at most one axis may be -1, which
        takes all remaining devices.
      devices: the devices to use; `jax.devices()` by default.

    Raises:
      UserError: the shape is invalid or needs more devices than exist.
    """
    devices = list_devices() if devices is None else devices
    sizes = {axis: int(shape.get(axis, 1)) for axis in AXES}
    free = [axis for axis, size in sizes.items() if size == -1]
    require(
        len(free) <= 1 and all(s == -1 or s > 0 for s in sizes.values()),
        f"config.run.mesh = {dict(shape)} must have positive sizes, and at most one -1",
    )
    fixed = math.prod(s for s in sizes.values() if s != -1)
    if free:
        require(
            len(devices) % fixed == 0,
            f"config.run.mesh = {dict(shape)} does not divide {len(devices)} devices",
        )
        sizes[free[0]] = len(devices) // fixed
    count = math.prod(sizes.values())
    require(
        count <= len(devices),
        f"config.run.mesh = {dict(shape)} needs {count} devices, but only "
        f"{len(devices)} are available",
    )
    return jax.make_mesh(
        tuple(sizes.values()),
        AXES,
        axis_types=(AxisType.Auto,) * len(AXES),
        devices=devices[:count],
    )


def make_mesh_or_single(
    shape: dict[str, int], batch_size: int, devices: Sequence[jax.Device] | None = None
) -> Mesh:  # one device if `shape` does not fit
    """Return the mesh of a config if its devices exist and divide a batch, else a mesh
    of one device: runs trained on many devices are evaluated on any machine.

    Args:
      shape: {axis: number of devices}, as in `make_mesh`.
      batch_size: examples of a batch, which the mesh's data axis must divide.
      devices: the devices to use; `jax.devices()` by default.
    """
    devices = list_devices() if devices is None else devices
    try:
        mesh = make_mesh(shape, devices)
    except UserError:
        mesh = None
    return (
        mesh
        if mesh is not None and batch_size % mesh.shape["data"] == 0
        else make_mesh({}, devices)
    )


def make_trials_mesh(
    shape: dict[str, int], default_shape: dict[str, int], num_trials: int, batch_size: int
) -> Mesh:  # of `shape` unless it is the default
    """Return the mesh of a group of trials.

    A config that changes the default mesh determines the mesh. Otherwise the devices
    are divided among the trials, as far as they divide evenly, and the remaining factor
    among the examples of a batch; except on CPUs, whose cores share the work anyway.

    Args:
      shape: {axis: number of devices} of the config.
      default_shape: that of the keys `run.mesh.*`.
      num_trials: number of trials.
      batch_size: examples of a batch.
    """
    if dict(shape) != dict(default_shape):
        return make_mesh(shape)
    devices = list_devices()
    if devices[0].platform == "cpu":
        return make_mesh(dict(trial=min(num_trials, len(devices))))
    trial = max(n for n in range(1, len(devices) + 1) if len(devices) % n == 0 and n <= num_trials)
    rest = len(devices) // trial
    return make_mesh(dict(trial=trial, data=rest if batch_size % rest == 0 else 1))
