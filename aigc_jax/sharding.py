"""The mesh, and the one ordered table that says how a TrainState is laid out on it."""

import math
import re

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from aigc_jax.core import path_of
from aigc_jax.errors import UserError, require

AXES = ("trial", "data")

# (path regex, how the axes after the trial axis are divided); the first that matches counts.
RULES = ((r".*", ()),)


def make_mesh(shape: dict[str, int], devices=None):
    """A mesh with the axes of AXES; -1 stands for the devices that are left."""
    devices = jax.devices() if devices is None else devices
    sizes = {axis: int(shape.get(axis, 1)) for axis in AXES}
    free = [axis for axis, size in sizes.items() if size == -1]
    require(len(free) <= 1 and all(s == -1 or s > 0 for s in sizes.values()),
            f"config.run.mesh = {dict(shape)} must hold positive sizes, and -1 at most once")
    fixed = math.prod(s for s in sizes.values() if s != -1)
    if free:
        require(len(devices) % fixed == 0, f"config.run.mesh = {dict(shape)} does not divide {len(devices)} devices")
        sizes[free[0]] = len(devices) // fixed
    count = math.prod(sizes.values())
    require(count <= len(devices), f"config.run.mesh = {dict(shape)} needs {count} devices; there are {len(devices)}")
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:count])


def mesh_of_trials(shape: dict[str, int], default: dict[str, int], count: int, batch_size: int):
    """The mesh of a group of trials: as the config says; where it leaves the default, the devices are divided among the trials, as far as
    they go, and what is left over among the examples of a batch, but on CPUs, whose cores share the work anyhow."""
    if dict(shape) != dict(default):
        return make_mesh(shape)
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return make_mesh(dict(trial=min(count, len(devices)), data=1))
    trial = max(n for n in range(1, len(devices) + 1) if len(devices) % n == 0 and n <= count)
    rest = len(devices) // trial
    return make_mesh(dict(trial=trial, data=rest if batch_size % rest == 0 else 1))


def specs(states, rules=RULES):
    """The PartitionSpec of every leaf of stacked states: the trial axis, then what the first matching rule says."""

    def spec(path, leaf):
        for pattern, axes in rules:
            if re.search(pattern, path_of(path)):
                return PartitionSpec("trial", *axes)
        raise UserError(f"no sharding rule matches {path_of(path)} {leaf.shape}")

    return jax.tree_util.tree_map_with_path(spec, states)


def divided(mesh, batch_size: int):
    """A function that lays every array of a batch out along the mesh's data axis."""
    parts = mesh.shape["data"]
    require(batch_size % parts == 0, f"config.batch_size = {batch_size} does not divide over {parts} devices of the data axis")
    if parts == 1:
        return lambda batch: batch

    def constrain(batch):
        def lay(x):
            inside = jax.sharding.get_abstract_mesh()  # where each part of the trial axis works by itself
            return jax.lax.with_sharding_constraint(x, NamedSharding(mesh if inside.empty else inside, PartitionSpec("data")))

        return jax.tree.map(lay, batch)

    return constrain
