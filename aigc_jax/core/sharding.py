"""Sharding of train states and activations over a mesh, by one ordered table of rules.

Axes of a mesh: `trial` divides the trials, `data` the examples of a batch, `model` the
parameters by the rules. With config.run.fsdp the parameters, their moments and averages
are sharded over `data` too, and gathered where a step needs them.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from aigc_jax.core.axes import logical_axis_rules
from aigc_jax.core.method import PyTree
from aigc_jax.core.trees import path_of
from aigc_jax.utils.errors import require

# Sharding of a leaf [..] of one trial: {axis of the leaf: axis of the mesh}, and
# whether fsdp may shard another axis over `data`.
Rule = tuple[dict[int, str], bool]

COLUMN_PARALLEL: Rule = (
    {-1: "model"},
    True,
)  # output features of a product: heads, hidden units, gates, logits
# Kernels sharded by input features, whose product is summed over `model`; embeddings.
ROW_PARALLEL: Rule = ({-2: "model"}, True)
FSDP_ONLY: Rule = ({}, True)
BATCH: Rule = ({0: "data"}, False)
REPLICATED: Rule = ({}, False)

# (path regex, rule); the first match applies. Paths of parameters, their moments and
# their averages have the same suffixes.
Rules = tuple[tuple[str, Rule], ...]
RULES: Rules = (
    (r"^extra/carry/", BATCH),  # of streams, each a row of the batch
    (r"^extra/codebook/", REPLICATED),  # statistics of all examples: codes, counts, sums
    (r"/u$", REPLICATED),  # spectral normalization's vectors
    (r"/embed/embedding$", ROW_PARALLEL),
    (r"/(out|down)/kernel$", ROW_PARALLEL),
    (r"/(qkv|q|kv|up|head)/(kernel|bias)$", COLUMN_PARALLEL),
    (r"/layer_\d+/(kernel|recurrent_kernel|bias)$", COLUMN_PARALLEL),  # recurrent
    (r"/blocks/.*/(bias|scale)$", REPLICATED),  # vectors of scanned layers
    (r"/(Spectral)?Dense_\d+/kernel$", FSDP_ONLY),
    (r"/(mean|log_var|projection|auxiliary)/kernel$", FSDP_ONLY),
    # Not sharded over `model`: XLA partitions some convolutions incorrectly on CPUs
    # (docs/LOG.md).
    (r"/((Spectral)?Conv(Transpose)?_\d+|layers_\d+)/kernel$", FSDP_ONLY),
    (r"/position/embedding$", FSDP_ONLY),
    (r"/inputs$", FSDP_ONLY),  # of a VampPrior
    (r"kernel/[ab]$", FSDP_ONLY),  # of `lora`, whose name is absent in paths of gradients
)


def match_rule(path: str, rules: Rules = RULES) -> Rule | None:
    """Return the first rule that matches the path of a leaf, or None."""
    return next((rule for pattern, rule in rules if re.search(pattern, path)), None)


def leaf_axes(
    path: str, shape: Sequence[int], sizes: Mapping[str, int], fsdp: bool, rules: Rules = RULES
) -> tuple:
    """Return the mesh axis, or None, of each axis of one trial's leaf. An axis that is
    not divisible is not sharded; fsdp shards the longest of the others that is.
    """
    rule = match_rule(path, rules)
    require(
        rule is not None or len(shape) < 2,
        f"no rule of sharding.RULES names {path} {tuple(shape)}",
    )
    divided, rest = rule or REPLICATED
    axes: list[str | None] = [None] * len(shape)
    for axis, name in divided.items():
        if len(shape) >= abs(axis) and shape[axis] % sizes[name] == 0 and sizes[name] > 1:
            axes[axis] = name
    if fsdp and rest and len(shape) > 1 and sizes["data"] > 1:
        free = [i for i in range(len(shape)) if axes[i] is None and shape[i] % sizes["data"] == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "data"
    return tuple(axes)


def partition_spec(
    path: str, shape: Sequence[int], mesh: Mesh, fsdp: bool = False, rules: Rules = RULES
) -> PartitionSpec:
    """Return the PartitionSpec of a leaf of stacked states: trial axis, then rules."""
    return PartitionSpec("trial", *leaf_axes(path, shape[1:], mesh.shape, fsdp, rules))


def partition_specs(states: PyTree, mesh: Mesh, fsdp: bool = False, rules: Rules = RULES) -> PyTree:
    """Return the PartitionSpec of every leaf of stacked states."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: partition_spec(path_of(path), leaf.shape, mesh, fsdp, rules), states
    )


def constraint_mesh(mesh: Mesh) -> Mesh | AbstractMesh:
    """Return the mesh that constraints inside a program name: within a shard_map over
    the trial axis, the mesh of the other axes.
    """
    abstract_mesh = jax.sharding.get_abstract_mesh()
    return mesh if abstract_mesh.empty else abstract_mesh


def with_axis_rules(f: Callable, mesh: Mesh, sequence: bool) -> Callable:
    """Return f with the rules that map logical axis names to the axes of a mesh."""
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
            jax.lax.with_sharding_constraint(
                x, NamedSharding(constraint_mesh(mesh), PartitionSpec(*spec))
            )
            if any(spec)
            else x
        )

    def apply_with_rules(*args):
        with logical_axis_rules(constrain):
            return f(*args)

    return apply_with_rules


def constrain_params(mesh: Mesh, fsdp: bool) -> Callable:
    """Return a function that constrains a tree of one trial's parameters, or of their
    gradients, to the shardings of the rules.
    """

    def constrain(path, x):
        spec = PartitionSpec(*leaf_axes("params/" + path_of(path), x.shape, mesh.shape, fsdp))
        return jax.lax.with_sharding_constraint(x, NamedSharding(constraint_mesh(mesh), spec))

    return lambda params: jax.tree_util.tree_map_with_path(constrain, params)


def all_gather_params(f: Callable, mesh: Mesh, new: bool = False) -> Callable:
    """Return f(state, ...) with parameters, and their averages, gathered from the data
    axis first. If `new`, f returns (state, ...), and its parameters are sharded again.
    """

    def gather(state):
        extra = {
            name: constrain_params(mesh, False)(value) if name == "ema" else value
            for name, value in state.extra.items()
        }
        return state.replace(
            params=constrain_params(mesh, False)(state.params), **({} if new else dict(extra=extra))
        )

    def run(state, *rest):
        out = f(gather(state), *rest)
        return (
            (out[0].replace(params=constrain_params(mesh, True)(out[0].params)), *out[1:])
            if new
            else out
        )

    return run


def reduce_scatter_grads(mesh: Mesh) -> Callable:
    """Return a function that sums gradients over the data axis and leaves each device
    the shard of its parameters.
    """
    return lambda grads: constrain_params(mesh, True)(constrain_params(mesh, False)(grads))


def batch_constraints(mesh: Mesh, batch_size: int) -> tuple[Callable, Callable]:
    """Return two functions on batches: one shards every array along the mesh's data
    axis, the other replicates it.
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
            lambda x: jax.lax.with_sharding_constraint(
                x, NamedSharding(constraint_mesh(mesh), spec)
            ),
            batch,
        )

    return constrain(PartitionSpec("data")), constrain(PartitionSpec())
