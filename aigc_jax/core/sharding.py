"""The mesh, and the one ordered table that says how a TrainState is laid out on it.

Axes of a mesh: `trial` divides the trials, `data` the examples of a batch, `model` the
parameters by the rules. With config.run.fsdp the parameters, their moments and averages
are divided over `data` too, and gathered where a step needs them.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from aigc_jax.core.axes import listening
from aigc_jax.core.method import PyTree
from aigc_jax.core.trees import path_of
from aigc_jax.utils.errors import require

# How a leaf [..] of one trial is divided: {axis of the leaf: axis of the mesh}, and
# whether fsdp may divide another axis over `data`.
Tactic = tuple[dict[int, str], bool]

COLUMNS: Tactic = (
    {-1: "model"},
    True,
)  # what comes out of a product: heads, hidden units, gates, logits
# Kernels divided by their input: the product is summed over `model`; embeddings.
ROWS: Tactic = ({-2: "model"}, True)
WHOLE: Tactic = ({}, True)
EXAMPLES: Tactic = ({0: "data"}, False)
EVERYWHERE: Tactic = ({}, False)

# (path regex, tactic); the first that matches counts. Parameters, their moments and
# averages have the same ends of paths.
Rules = tuple[tuple[str, Tactic], ...]
RULES: Rules = (
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
    # Whole, for XLA divides some convolutions wrongly on CPUs (docs/LOG.md).
    (r"/((Spectral)?Conv(Transpose)?_\d+|layers_\d+)/kernel$", WHOLE),
    (r"/position/embedding$", WHOLE),
    (r"/inputs$", WHOLE),  # of a VampPrior
    (r"kernel/[ab]$", WHOLE),  # of `lora`; gradients lack its name in their paths
)


def tactic(path: str, rules: Rules = RULES) -> Tactic | None:
    """What the first matching rule says of a leaf, or None."""
    return next((found for pattern, found in rules if re.search(pattern, path)), None)


def axes_of(
    path: str, shape: Sequence[int], sizes: Mapping[str, int], fsdp: bool, rules: Rules = RULES
) -> tuple:
    """Of one trial's leaf. A rule's axis that does not divide stays whole; fsdp divides
    the longest axis that is left and does.
    """
    found = tactic(path, rules)
    require(
        found is not None or len(shape) < 2,
        f"no rule of sharding.RULES names {path} {tuple(shape)}",
    )
    divided, rest = found or EVERYWHERE
    axes: list[str | None] = [None] * len(shape)
    for axis, name in divided.items():
        if len(shape) >= abs(axis) and shape[axis] % sizes[name] == 0 and sizes[name] > 1:
            axes[axis] = name
    if fsdp and rest and len(shape) > 1 and sizes["data"] > 1:
        free = [i for i in range(len(shape)) if axes[i] is None and shape[i] % sizes["data"] == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "data"
    return tuple(axes)


def spec(
    path: str, shape: Sequence[int], mesh: Mesh, fsdp: bool = False, rules: Rules = RULES
) -> PartitionSpec:
    """The PartitionSpec of a leaf of stacked states: the trial axis, then the rules."""
    return PartitionSpec("trial", *axes_of(path, shape[1:], mesh.shape, fsdp, rules))


def specs(states: PyTree, mesh: Mesh, fsdp: bool = False, rules: Rules = RULES) -> PyTree:
    """Of every leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: spec(path_of(path), leaf.shape, mesh, fsdp, rules), states
    )


def within(mesh: Mesh) -> Mesh | AbstractMesh:
    """The mesh as a constraint inside a program names it: where each part of the trial
    axis works by itself, what is left of it.
    """
    inside = jax.sharding.get_abstract_mesh()
    return mesh if inside.empty else inside


def aware(f: Callable, mesh: Mesh, sequence: bool) -> Callable:
    """f, within which networks and methods say to `layout` what an array's axes are."""
    if mesh.shape["data"] == mesh.shape["model"] == 1:
        return f
    of = dict(examples="data", heads="model", hidden="model", vocabulary="model") | (
        dict(positions="model") if sequence else {}
    )

    def constrain(x, names):
        spec = [
            axis if axis and size % mesh.shape[axis] == 0 else None
            for size, axis in zip(x.shape, map(of.get, names), strict=False)
        ]
        return (
            jax.lax.with_sharding_constraint(x, NamedSharding(within(mesh), PartitionSpec(*spec)))
            if any(spec)
            else x
        )

    def heard(*args):
        with listening(constrain):
            return f(*args)

    return heard


def laid(mesh: Mesh, fsdp: bool) -> Callable:
    """A function that lays a tree of one trial's parameters, or of their gradients, out
    by the rules.
    """

    def constrain(path, x):
        spec = PartitionSpec(*axes_of("params/" + path_of(path), x.shape, mesh.shape, fsdp))
        return jax.lax.with_sharding_constraint(x, NamedSharding(within(mesh), spec))

    return lambda params: jax.tree_util.tree_map_with_path(constrain, params)


def gathered(f: Callable, mesh: Mesh, new: bool = False) -> Callable:
    """f(state, ...) of parameters, and averages of them, that are divided over the data
    axis: they are gathered before it, once. new: f returns (state, ...), whose
    parameters are divided again.
    """

    def whole(state):
        extra = {
            name: laid(mesh, False)(value) if name == "ema" else value
            for name, value in state.extra.items()
        }
        return state.replace(
            params=laid(mesh, False)(state.params), **({} if new else dict(extra=extra))
        )

    def run(state, *rest):
        out = f(whole(state), *rest)
        return (out[0].replace(params=laid(mesh, True)(out[0].params)), *out[1:]) if new else out

    return run


def scattered(mesh: Mesh) -> Callable:
    """A gradient summed over the data axis, of which each device keeps its part of the
    parameters: a reduce-scatter.
    """
    return lambda grads: laid(mesh, True)(laid(mesh, False)(grads))


def divided(mesh: Mesh, batch_size: int) -> tuple[Callable, Callable]:
    """Two functions: one lays every array of a batch out along the mesh's data axis,
    the other keeps each whole on every device.
    """
    parts = mesh.shape["data"]
    require(
        batch_size % parts == 0,
        f"config.batch_size = {batch_size} does not divide over {parts} devices of the data axis",
    )
    if parts == 1:
        return (lambda batch: batch,) * 2

    def constrain(spec):
        return lambda batch: jax.tree.map(
            lambda x: jax.lax.with_sharding_constraint(x, NamedSharding(within(mesh), spec)), batch
        )

    return constrain(PartitionSpec("data")), constrain(PartitionSpec())
