"""The mesh, and the one ordered table that says how a TrainState is laid out on it.

Axes of a mesh: `trial` divides the trials, `data` the examples of a batch, `model` the parameters by the rules. With config.run.fsdp the
parameters, their moments and averages are divided over `data` too, and gathered where a step needs them.
"""

import math
import re

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from aigc_jax import layout
from aigc_jax.core import path_of
from aigc_jax.errors import UserError, require

AXES = ("trial", "data", "model")

# How a leaf [..] of one trial is divided: {axis of the leaf: axis of the mesh}, and whether fsdp may divide another axis over `data`.
COLUMNS = ({-1: "model"}, True)  # what comes out of a product: heads, hidden units, gates, logits
ROWS = ({-2: "model"}, True)  # what goes into one: the product is summed over `model`; the vocabulary of embeddings
WHOLE = ({}, True)
EXAMPLES = ({0: "data"}, False)
EVERYWHERE = ({}, False)

# (path regex, tactic); the first that matches counts. Parameters, their moments and averages have the same ends of paths.
RULES = (
    (r"^extra/carry/", EXAMPLES),  # of streams, one of the batch's rows each
    (r"^extra/book/", EVERYWHERE),  # of all examples: codes, their counts and sums
    (r"/u$", EVERYWHERE),  # spectral normalization's vectors
    (r"/embed/embedding$", ROWS),
    (r"/(out|down)/kernel$", ROWS),
    (r"/(qkv|q|kv|up|head)/(kernel|bias)$", COLUMNS),
    (r"/layer_\d+/(kernel|recurrent_kernel|bias)$", COLUMNS),  # recurrent
    (r"/blocks/.*/(bias|scale)$", EVERYWHERE),  # vectors of scanned layers
    (r"/(Spectral)?Dense_\d+/kernel$", WHOLE),
    (r"/(mean|log_var|projection|auxiliary)/kernel$", WHOLE),
    (r"/((Spectral)?Conv(Transpose)?_\d+|layers_\d+)/kernel$", WHOLE),  # XLA divides some convolutions wrongly on CPUs (docs/LOG.md)
    (r"/position/embedding$", WHOLE),
    (r"/inputs$", WHOLE),  # of a VampPrior
    (r"kernel/[ab]$", WHOLE),  # of `lora`; gradients lack its name in their paths
)


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


def mesh_or_one(shape: dict[str, int], batch_size: int, devices=None):
    """The mesh of a config where there are devices for it and they divide a batch, else one device: a run that was trained on many is looked at
    on whatever there is."""
    devices = jax.devices() if devices is None else devices
    try:
        mesh = make_mesh(shape, devices)
    except UserError:
        mesh = None
    return mesh if mesh is not None and batch_size % mesh.shape["data"] == 0 else make_mesh({}, devices)


def mesh_of_trials(shape: dict[str, int], default: dict[str, int], count: int, batch_size: int):
    """The mesh of a group of trials: as the config says; where it leaves the default, the devices are divided among the trials, as far as
    they go, and what is left over among the examples of a batch, but on CPUs, whose cores share the work anyhow."""
    if dict(shape) != dict(default):
        return make_mesh(shape)
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return make_mesh(dict(trial=min(count, len(devices))))
    trial = max(n for n in range(1, len(devices) + 1) if len(devices) % n == 0 and n <= count)
    rest = len(devices) // trial
    return make_mesh(dict(trial=trial, data=rest if batch_size % rest == 0 else 1))


def tactic(path: str, rules=RULES):
    """What the first matching rule says of a leaf, or None."""
    return next((found for pattern, found in rules if re.search(pattern, path)), None)


def axes_of(path: str, shape, sizes, fsdp: bool, rules=RULES) -> tuple:  # -> the mesh's axis, or None, of each of a leaf's axes
    """Of one trial's leaf. A rule's axis that does not divide stays whole; fsdp divides the longest axis that is left and does."""
    found = tactic(path, rules)
    require(found is not None or len(shape) < 2, f"no rule of sharding.RULES names {path} {tuple(shape)}")
    divided, rest = found or EVERYWHERE
    axes = [None] * len(shape)
    for axis, name in divided.items():
        if len(shape) >= abs(axis) and shape[axis] % sizes[name] == 0 and sizes[name] > 1:
            axes[axis] = name
    if fsdp and rest and len(shape) > 1 and sizes["data"] > 1:
        free = [i for i in range(len(shape)) if axes[i] is None and shape[i] % sizes["data"] == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "data"
    return tuple(axes)


def spec(path: str, shape, mesh, fsdp=False, rules=RULES):
    """The PartitionSpec of a leaf of stacked states: the trial axis, then what the rules say."""
    return PartitionSpec("trial", *axes_of(path, shape[1:], mesh.shape, fsdp, rules))


def specs(states, mesh, fsdp=False, rules=RULES):
    """Of every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: spec(path_of(path), leaf.shape, mesh, fsdp, rules), states)


def within(mesh):
    """The mesh as a constraint inside a program names it: where each part of the trial axis works by itself, what is left of it."""
    inside = jax.sharding.get_abstract_mesh()
    return mesh if inside.empty else inside


def aware(f, mesh, sequence: bool):
    """f, whose networks and methods are heard when they say what the axes of an array are (`layout`)."""
    if mesh.shape["data"] == mesh.shape["model"] == 1:
        return f
    of = dict(examples="data", heads="model", hidden="model", vocabulary="model") | (dict(positions="model") if sequence else {})

    def constrain(x, names):
        spec = [axis if axis and size % mesh.shape[axis] == 0 else None for size, axis in zip(x.shape, map(of.get, names), strict=False)]
        return jax.lax.with_sharding_constraint(x, NamedSharding(within(mesh), PartitionSpec(*spec))) if any(spec) else x

    def heard(*args):
        with layout.listening(constrain):
            return f(*args)

    return heard


def laid(mesh, fsdp: bool):
    """A function that lays a tree of one trial's parameters, or of their gradients, out by the rules."""

    def constrain(path, x):
        spec = PartitionSpec(*axes_of("params/" + path_of(path), x.shape, mesh.shape, fsdp))
        return jax.lax.with_sharding_constraint(x, NamedSharding(within(mesh), spec))

    return lambda params: jax.tree_util.tree_map_with_path(constrain, params)


def gathered(f, mesh, new=False):
    """f(state, ...) of parameters, and averages of them, that are divided over the data axis: they are gathered before it, once. new: f returns
    (state, ...), whose parameters are divided again."""

    def whole(state):
        extra = {name: laid(mesh, False)(value) if name == "ema" else value for name, value in state.extra.items()}
        return state.replace(params=laid(mesh, False)(state.params), **({} if new else dict(extra=extra)))

    def run(state, *rest):
        out = f(whole(state), *rest)
        return (out[0].replace(params=laid(mesh, True)(out[0].params)), *out[1:]) if new else out

    return run


def scattered(mesh):
    """A gradient summed over the data axis, of which each device keeps its part of the parameters: a reduce-scatter."""
    return lambda grads: laid(mesh, True)(laid(mesh, False)(grads))


def divided(mesh, batch_size: int):
    """Two functions: one lays every array of a batch out along the mesh's data axis, the other keeps each whole on every device."""
    parts = mesh.shape["data"]
    require(batch_size % parts == 0, f"config.batch_size = {batch_size} does not divide over {parts} devices of the data axis")
    if parts == 1:
        return (lambda batch: batch,) * 2

    def constrain(spec):
        return lambda batch: jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, NamedSharding(within(mesh), spec)), batch)

    return constrain(PartitionSpec("data")), constrain(PartitionSpec())
