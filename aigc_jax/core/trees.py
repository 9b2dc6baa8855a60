"""Paths and dtypes of the leaves of a pytree."""

import jax
import jax.numpy as jnp

from aigc_jax.core.method import PyTree


def path_of(path: tuple) -> str:
    """'params/g/Dense_0/kernel' of a key path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def widen(tree: PyTree) -> PyTree:
    """Numbers narrower than float32 in float32; all else as it is."""
    wide = lambda x: (
        x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if jnp.issubdtype(x.dtype, jnp.floating)
        else x
    )
    return jax.tree.map(wide, tree)
