"""Sharding of train states and activations over a mesh, by one ordered table of rules.

Axes of a mesh: `trial` divides the trials, `data` the examples of a batch, `model` the
parameters by the rules. With config.run.fsdp the parameters, their moments and averages
are sharded over `data` too, and gathered where a step needs them.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from aigc_jax.core.axes import logical_axis_rules
from aigc_jax.core.method import PyTree
from aigc_jax.core.trees import format_key_path
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
    # (docs/design/log.md).
    (r"/((Spectral)?Conv(Transpose)?_\d+|layers_\d+)/kernel$", FSDP_ONLY),
    (r"/position/embedding$", FSDP_ONLY),
    (r"/inputs$", FSDP_ONLY),  # of a VampPrior
    (r"kernel/[ab]$", FSDP_ONLY),  # of `lora`, whose name is absent in paths of gradients
)


def match_rule(path: str, rules: Rules = RULES) -> Rule | None:
    """Return the first rule that matches the path of a leaf, or None.

    Args:
      path: path of a leaf of one trial's state, such as 'params/net/head/kernel'.
      rules: (regular expression, rule) in order of precedence.
    """
    return next((rule for pattern, rule in rules if re.search(pattern, path)), None)


def leaf_mesh_axes(
    path: str, shape: Sequence[int], axis_sizes: Mapping[str, int], fsdp: bool, rules: Rules = RULES
) -> tuple[str | None, ...]:  # the mesh axis of each axis
    """Return the mesh axis, or None, of each axis of one trial's leaf.

    An axis that its number of devices does not divide is not sharded. With `fsdp`,
    where the rule allows it, a leaf of several axes is also sharded over `data`, along
    the longest of its other axes that divides.

    Args:
      path: path of the leaf, such as 'params/net/head/kernel'
        (`trees.format_key_path`).
      shape: of one trial's leaf, without the trial axis.
      axis_sizes: {mesh axis: number of devices}, with `data` and the axes that the
        rules name.
      fsdp: whether to shard leaves over `data` too (config.run.fsdp).
      rules: a table as `RULES`.

    Raises:
      UserError: no rule matches the path of a leaf with two or more axes.
    """
    rule = match_rule(path, rules)
    require(
        rule is not None or len(shape) < 2,
        f"no rule of sharding.RULES names {path} {tuple(shape)}",
    )
    divided, rest = rule or REPLICATED
    axes: list[str | None] = [None] * len(shape)
    for axis, name in divided.items():
        if len(shape) >= abs(axis) and shape[axis] % axis_sizes[name] == 0 and axis_sizes[name] > 1:
            axes[axis] = name
    if fsdp and rest and len(shape) > 1 and axis_sizes["data"] > 1:
        free = [
            i for i in range(len(shape)) if axes[i] is None and shape[i] % axis_sizes["data"] == 0
        ]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "data"
    return tuple(axes)


def partition_spec(
    path: str, stacked_shape: Sequence[int], mesh: Mesh, fsdp: bool = False, rules: Rules = RULES
) -> PartitionSpec:  # ("trial", ...)
    """Return the PartitionSpec of a leaf of stacked states: trial axis, then rules.

    Args:
      path: path of the leaf, such as 'params/net/head/kernel'.
      stacked_shape: of the stacked leaf [N, ...].
      mesh: a mesh with the axes of `core.mesh.AXES`.
      fsdp: as in `leaf_mesh_axes`.
      rules: as in `leaf_mesh_axes`.
    """
    return PartitionSpec("trial", *leaf_mesh_axes(path, stacked_shape[1:], mesh.shape, fsdp, rules))


def partition_specs(
    states: PyTree, mesh: Mesh, fsdp: bool = False, rules: Rules = RULES
) -> PyTree:  # of leaves [N, ...]
    """Return the PartitionSpec of every leaf of stacked states.

    Args:
      states: N stacked states; every leaf has shape [N, ...].
      mesh: a mesh with the axes of `core.mesh.AXES`.
      fsdp: as in `leaf_mesh_axes`.
      rules: as in `leaf_mesh_axes`.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: partition_spec(format_key_path(path), leaf.shape, mesh, fsdp, rules),
        states,
    )


def constraint_mesh(mesh: Mesh) -> Mesh | AbstractMesh:
    """Return the mesh that constraints inside a program name: within a shard_map over
    the trial axis, the mesh of the other axes.
    """
    abstract_mesh = jax.sharding.get_abstract_mesh()
    return mesh if abstract_mesh.empty else abstract_mesh


def with_axis_rules(
    f: Callable, mesh: Mesh, sequence_parallel: bool
) -> Callable:  # with f's signature
    """Return f with the rules that map logical axis names to the axes of a mesh; f
    itself where neither `data` nor `model` has several devices. An axis that its
    devices do not divide is not constrained.

    Args:
      f: a function of arrays that calls `axes.with_logical_constraint`.
      mesh: a mesh with the axes of `core.mesh.AXES`.
      sequence_parallel: whether positions are sharded over `model`
        (config.run.sequence_parallel).
    """
    if mesh.shape["data"] == mesh.shape["model"] == 1:
        return f
    of = dict(examples="data", heads="model", hidden="model", vocabulary="model") | (
        dict(positions="model") if sequence_parallel else {}
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


def constrain_params(mesh: Mesh, fsdp: bool) -> Callable[[PyTree], PyTree]:
    """Return a function that constrains a tree of one trial's parameters, or of their
    gradients, to the shardings of the rules.

    Args:
      mesh: a mesh with the axes of `core.mesh.AXES`.
      fsdp: as in `leaf_mesh_axes`; False gathers the shards of the data axis.
    """

    def constrain(path, x):
        spec = PartitionSpec(
            *leaf_mesh_axes("params/" + format_key_path(path), x.shape, mesh.shape, fsdp)
        )
        return jax.lax.with_sharding_constraint(x, NamedSharding(constraint_mesh(mesh), spec))

    return lambda params: jax.tree_util.tree_map_with_path(constrain, params)


def all_gather_params(
    f: Callable, mesh: Mesh, returns_state: bool = False
) -> Callable:  # (state, ...) -> results of f
    """Return f(state, ...) with the state's parameters gathered from the data axis
    first.

    Args:
      f: (state, ...) -> results, or with `returns_state` (state, ...).
      mesh: a mesh with the axes of `core.mesh.AXES`.
      returns_state: whether f returns a new state first, whose parameters are sharded
        again. The averages in state.extra['ema'] are gathered only for other functions:
        a training step updates their shards.
    """

    def gather(state):
        extra = {
            name: constrain_params(mesh, False)(value) if name == "ema" else value
            for name, value in state.extra.items()
        }
        return state.replace(
            params=constrain_params(mesh, False)(state.params),
            **({} if returns_state else dict(extra=extra)),
        )

    def run(state, *rest):
        out = f(gather(state), *rest)
        return (
            (out[0].replace(params=constrain_params(mesh, True)(out[0].params)), *out[1:])
            if returns_state
            else out
        )

    return run


def reduce_scatter_grads(mesh: Mesh) -> Callable[[PyTree], PyTree]:
    """Return a function on gradients of one trial that sums them over the mesh's data
    axis and leaves each device the shard of its parameters.
    """
    return lambda grads: constrain_params(mesh, True)(constrain_params(mesh, False)(grads))


def make_batch_constraints(
    mesh: Mesh, batch_size: int
) -> tuple[Callable[[PyTree], PyTree], Callable[[PyTree], PyTree]]:  # shard, replicate
    """Return two functions on batches: one shards every array along the mesh's data
    axis, the other replicates it.

    Raises:
      UserError: the devices of the data axis do not divide `batch_size`.
    """
    parts = mesh.shape["data"]
    require(
        batch_size % parts == 0,
        f"config.batch_size = {batch_size} does not divide over {parts} devices of the data axis: "
        f"set config.run.mesh.data to a divisor of {batch_size}, such as "
        f"{math.gcd(batch_size, parts)}, or config.batch_size to a multiple of {parts}, such as "
        f"{max(1, round(batch_size / parts)) * parts}",
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
