"""The layout of stacked train states on a mesh."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from aigc_jax.core import distributed, sharding
from aigc_jax.core.method import PyTree, TrainState


class StateLayout:
    """Where the stacked states [N, ...] of N trials are stored on a mesh.

    The mesh's trial axis divides the trials. Where N does not divide over it, copies of
    the last trial are padding: stored states have `num_padded` trials.

    Args:
      mesh: the devices, with a trial axis.
      num_trials: N.
      fsdp: whether the data axis divides leaves, too (`core.sharding.leaf_mesh_axes`).
    """

    def __init__(self, mesh: Mesh, num_trials: int, fsdp: bool) -> None:
        self.mesh, self.num_trials, self.fsdp = mesh, num_trials, fsdp
        parts = mesh.shape["trial"]
        self.num_padded = -(-num_trials // parts) * parts

    def partition_specs(self, states: PyTree) -> PyTree:  # one per leaf
        """Return the PartitionSpec of every leaf."""
        return sharding.partition_specs(states, self.mesh, self.fsdp)

    def to_mesh(self, states: TrainState) -> TrainState:  # [N, ...] -> [num_padded, ...]
        """Pad states [N, ...], with optimiser states or without, and store them on the
        mesh.
        """
        if self.num_padded > self.num_trials:
            index = np.minimum(np.arange(self.num_padded), self.num_trials - 1)
            states = jax.tree.map(lambda x: x[index], states)
        return jax.tree.map(
            lambda x, spec: distributed.to_devices(x, NamedSharding(self.mesh, spec)),
            states,
            self.partition_specs(states),
        )

    def drop_padding(self, states: TrainState) -> TrainState:  # [num_padded, ...] -> [N, ...]
        """Return the states [N, ...] of the trials alone."""
        if self.num_padded == self.num_trials:
            return states
        return jax.tree.map(lambda x: x[: self.num_trials], states)

    def padded_shapes(self, shapes: PyTree) -> PyTree:  # [N, ...] -> [num_padded, ...]
        """Return the shapes of stored states from shapes [N, ...] without padding."""
        return jax.tree.map(
            lambda s: jax.ShapeDtypeStruct((self.num_padded, *s.shape[1:]), s.dtype), shapes
        )

    def local_slices(self, path: str, shape: Sequence[int]) -> list[tuple]:  # bounds of each axis
        """Return the bounds of the parts of a leaf that this process reads: those on
        its devices, or the complete leaf where padding must be added.

        Args:
          path: path of the leaf.
          shape: its shape [N, ...], without padding.
        """
        if self.num_padded > self.num_trials or jax.process_count() == 1:
            return [tuple((0, n) for n in shape)]
        spec = sharding.partition_spec(path, shape, self.mesh, self.fsdp)
        return distributed.addressable_bounds(shape, NamedSharding(self.mesh, spec))
