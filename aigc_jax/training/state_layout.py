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
    """

    def __init__(self, mesh: Mesh, num_trials: int, fsdp: bool) -> None:
        self.mesh, self.num_trials, self.fsdp = mesh, num_trials, fsdp
        parts = mesh.shape["trial"]
        self.num_padded = -(-num_trials // parts) * parts

    def specs(self, states: PyTree) -> PyTree:
        """Return the PartitionSpec of every leaf."""
        return sharding.partition_specs(states, self.mesh, self.fsdp)

    def to_mesh(self, states: TrainState) -> TrainState:
        """Pad states [N, ...], with optimiser states or without, and store them on the
        mesh.
        """
        if self.num_padded > self.num_trials:
            index = np.minimum(np.arange(self.num_padded), self.num_trials - 1)
            states = jax.tree.map(lambda x: x[index], states)
        return jax.tree.map(
            lambda x, spec: distributed.to_devices(x, NamedSharding(self.mesh, spec)),
            states,
            self.specs(states),
        )

    def without_padding(self, states: TrainState) -> TrainState:
        """Return the states [N, ...] of the trials alone."""
        if self.num_padded == self.num_trials:
            return states
        return jax.tree.map(lambda x: x[: self.num_trials], states)

    def padded_shapes(self, shapes: PyTree) -> PyTree:
        """Return the shapes of stored states from shapes [N, ...] without padding."""
        return jax.tree.map(
            lambda s: jax.ShapeDtypeStruct((self.num_padded, *s.shape[1:]), s.dtype), shapes
        )

    def local_slices(self, name: str, shape: Sequence[int]) -> list:
        """Return the bounds of the parts of a leaf [N, ...] that this process has."""
        if self.num_padded > self.num_trials or jax.process_count() == 1:
            return [tuple((0, n) for n in shape)]
        spec = sharding.partition_spec(name, shape, self.mesh, self.fsdp)
        return distributed.addressable_slices(shape, NamedSharding(self.mesh, spec))
