"""Paths and dtypes of the leaves of a pytree."""

import jax
import jax.numpy as jnp

from aigc_jax.core.method import PyTree


def format_key_path(key_path: tuple) -> str:  # such as 'params/g/Dense_0/kernel'
    """Return a key path of `jax.tree_util` as 'params/g/Dense_0/kernel'."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def upcast_to_float32(tree: PyTree) -> PyTree:  # leaves of bfloat16 and float16 only
    """Convert leaves of floating dtypes narrower than float32 to float32."""
    wide = lambda x: (
        x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if jnp.issubdtype(x.dtype, jnp.floating)
        else x
    )
    return jax.tree.map(wide, tree)
