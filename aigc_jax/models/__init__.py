"""Flax Linen modules, independent of losses, optimizers, meshes and configs."""
