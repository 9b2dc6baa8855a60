"""The blocks of a Transformer: attention, MLP, and stacks of both.

Axes: T positions of a sequence, D its width, N heads of H coordinates, K heads of keys
and values, S positions that are attended to. A cache holds the keys and values of one
block, {k, v: [B, K, S, H]}, a carry those of all blocks.

The argument `positions` describes the T positions
(`transformer.Tokens.position_arguments`): `position` [T]; `bias` and `mask`, as in
`attention.dot_product_attention`; and with cross-attention `memory_mask` [B, 1, 1, S],
False at padding of the memory.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.axes import with_logical_constraint
from aigc_jax.core.method import Array, PyTree
from aigc_jax.models.attention import (
    apply_rotary_encoding,
    attend_cache,
    dot_product_attention,
)
from aigc_jax.models.layers import ACTIVATIONS, dropout
from aigc_jax.models.normalization import LayerNorm
from aigc_jax.models.reductions import Dense

RMS = partial(LayerNorm, centred=False, use_bias=False)
NORMS: dict[str, type[LayerNorm] | partial[LayerNorm]] = {"layer": LayerNorm, "rms": RMS}
# Values that a block with `remat` stores for the backward pass: none, or its products
# with weights, so that only attention and elementwise operations are recomputed.
REMAT_POLICIES = {
    "nothing": None,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
CHOICES = dict(
    remat_policy=REMAT_POLICIES,
    position_encoding=dict.fromkeys(("learned", "sinusoidal", "rotary", "alibi", "none")),
    # position of the norms: x + f(norm(x)), or norm(x + f(x)) as in the paper
    norm_position=dict.fromkeys(("pre", "post")),
    activation=dict.fromkeys(("relu", "gelu", "swiglu")),
    norm=NORMS,
)
STD = 0.02  # of initial weights (Radford et al. 2018, section 4.1)


class Part(nn.Module):
    """Base class with the fields that all submodules of one network share."""

    width: int
    heads: int
    layers: int
    # Heads of keys and values, each shared by heads / kv_heads of the queries (Ainslie
    # et al. 2023); 0: equal to heads.
    kv_heads: int = 0
    hidden: int = 0  # of the MLP; 0: 4 width, for swiglu 8/3 width rounded up to a multiple of 64
    activation: str = "gelu"
    norm: str = "layer"
    norm_position: str = "pre"
    position_encoding: str = "learned"
    qk_norm: bool = False  # RMS norm of queries and keys (Henry et al. 2020)
    bias: bool = True
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @property
    def shared_fields(self) -> dict[str, Any]:
        """The fields of `Part`, as keyword arguments of a submodule."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(Part)
            if f.name not in ("parent", "name")
        }

    @property
    def head_size(self) -> int:
        """The width of a head."""
        return self.width // self.heads

    @property
    def dtype_fields(self) -> dict[str, Any]:  # {dtype, param_dtype}
        """The dtypes of a layer's computations and parameters, as keyword arguments."""
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    def make_dense(self, features: int, name: str | None = None, residual: bool = False) -> Dense:
        """Return a dense layer with initial weights of standard deviation 0.02.

        Args:
          features: number of outputs.
          name: of the submodule; None: set by Flax.
          residual: for the two layers per block that are added to the residual stream:
            their standard deviation is divided by the square root of their number, 2
            `layers` (Radford et al. 2019, section 2.3).
        """
        std = STD / math.sqrt(2 * self.layers) if residual else STD
        return Dense(
            features,
            self.bias,
            name=name,
            kernel_init=nn.initializers.normal(std),
            **self.dtype_fields,
        )

    def make_norm(self, name: str | None = None) -> LayerNorm:
        """Return the layer `norm`: "layer" has a bias if `bias`, "rms" has none."""
        dtype_fields = self.dtype_fields | (
            dict(use_bias=self.bias) if self.norm == "layer" else {}
        )
        return NORMS[self.norm](name=name, **dtype_fields)


class Attention(Part, kw_only=True):
    """Self-attention; with `causal`, each position attends only to itself and the
    positions before it.
    """

    causal: bool

    @nn.compact
    def __call__(
        self, x: Array, cache: PyTree, positions: dict[str, Any]
    ) -> tuple[Array, PyTree]:  # [B, T, D] -> [B, T, D], cache
        """Return the attended values and the cache with the T new keys and values.
        Without a cache (None) the T tokens attend only to one another.

        Args:
          x: [B, T, D].
          cache: {k, v} with room for S positions; None without one.
          positions: as in the module's docstring; position[0] is the place of the new
            keys.
        """
        kv = self.kv_heads or self.heads
        q, k, v = jnp.split(
            self.make_dense((self.heads + 2 * kv) * self.head_size, "qkv")(x),
            [self.width, self.width + kv * self.head_size],
            axis=-1,
        )
        q, k, v = (
            with_logical_constraint(
                y.reshape(*y.shape[:2], -1, self.head_size), "examples", None, "heads"
            )
            for y in (q, k, v)
        )
        if self.qk_norm:
            q, k = (
                NORMS["rms"](name="q_norm", **self.dtype_fields)(q),
                NORMS["rms"](name="k_norm", **self.dtype_fields)(k),
            )
        if self.position_encoding == "rotary":
            q, k = (
                apply_rotary_encoding(q, positions["position"]),
                apply_rotary_encoding(k, positions["position"]),
            )
        if cache is None:
            y = dot_product_attention(q, k, v, positions["bias"], positions["mask"], self.causal)
        else:
            start = (0, 0, positions["position"][0], 0)
            cache = {
                name: jax.lax.dynamic_update_slice(cache[name], new.swapaxes(1, 2), start)
                for name, new in dict(k=k, v=v).items()
            }
            y = attend_cache(q, cache["k"], cache["v"], positions["bias"], positions["mask"])
        return self.make_dense(self.width, "out", residual=True)(y.reshape(*x.shape[:2], -1)), cache


class CrossAttention(Part):
    """Queries from x; keys and values from an encoder's output, computed once."""

    def setup(self) -> None:
        """Create the projections of queries, keys and values, and the output."""
        self.q, self.kv, self.out = (
            self.make_dense(self.width),
            self.make_dense(2 * self.width),
            self.make_dense(self.width, residual=True),
        )

    def project_memory(
        self, memory: Array
    ) -> dict[str, Array]:  # [B, S, D] -> {k, v: [B, S, N, H]}
        """Return the keys and values of an encoder's output."""
        k, v = jnp.split(
            self.kv(memory).reshape(*memory.shape[:2], 2 * self.heads, self.head_size), 2, axis=2
        )
        return dict(k=k, v=v)

    def __call__(
        self, x: Array, memory: dict[str, Array], mask: Array
    ) -> Array:  # [B, T, D], keys and values, [B, 1, 1, S] -> [B, T, D]
        """Return the attention of x over `memory`; `mask` is False at padding of the
        memory.
        """
        q = self.q(x).reshape(*x.shape[:2], self.heads, self.head_size)
        return self.out(
            dot_product_attention(q, memory["k"], memory["v"], mask=mask).reshape(x.shape)
        )


class Mlp(Part):
    """Two dense layers with an activation between them; "swiglu" gates the first."""

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, T, D] -> [B, T, D]
        """Return the output of both layers at each position."""
        if self.activation == "swiglu":  # Shazeer 2020, eq. 6
            a, b = jnp.split(
                self.make_dense(2 * (self.hidden or -(-8 * self.width // 192) * 64), "up")(x),
                2,
                axis=-1,
            )
            x = nn.silu(a) * b
        else:
            x = ACTIVATIONS[self.activation](
                self.make_dense(self.hidden or 4 * self.width, "up")(x)
            )
        x = with_logical_constraint(x, "examples", None, "hidden")
        return self.make_dense(self.width, "down", residual=True)(x)


class Block(Part, kw_only=True):
    """Self-attention, cross-attention if `cross`, and an MLP, each with a norm, dropout
    and a residual connection.
    """

    causal: bool
    cross: bool = False

    def setup(self) -> None:
        """Create the layers and their norms."""
        self.attention, self.norm_attention = (
            Attention(causal=self.causal, **self.shared_fields),
            self.make_norm(),
        )
        if self.cross:
            self.cross_attention, self.norm_cross = (
                CrossAttention(**self.shared_fields),
                self.make_norm(),
            )
        self.feed_forward, self.norm_feed_forward = Mlp(**self.shared_fields), self.make_norm()

    def project_memory(
        self, memory: Array
    ) -> dict[str, Array]:  # [B, S, D] -> {k, v: [B, S, N, H]}
        """Return the `memory` of an encoder's output [B, S, D]: its keys and values."""
        return self.cross_attention.project_memory(memory)

    def add_residual(
        self, x: Array, norm: Callable, layer: Callable
    ) -> Array:  # [B, T, D] -> [B, T, D], x + layer(norm(x)) or norm(x + layer(x))
        """Return x + layer(norm(x)) or norm(x + layer(x)), according to
        `norm_position`.

        Args:
          x: [B, T, D].
          norm: the layer's norm.
          layer: [B, T, D] -> [B, T, D]; dropout is applied to its output.
        """
        y = dropout(self, layer(norm(x) if self.norm_position == "pre" else x), self.dropout)
        return with_logical_constraint(
            x + y if self.norm_position == "pre" else norm(x + y), "examples", "positions"
        )

    def __call__(
        self, x: Array, cache: PyTree, memory: PyTree, positions: dict[str, Any]
    ) -> tuple[Array, PyTree]:  # [B, T, D] -> [B, T, D], cache
        """Return x after all layers, and the cache after these T tokens, or None.

        Args:
          x: [B, T, D].
          cache: of the tokens before; None without one.
          memory: `project_memory` of an encoder's output; None unless `cross`.
          positions: as in the module's docstring.
        """
        new_cache = [cache]

        def attend(y):
            y, new_cache[0] = self.attention(y, cache, positions)
            return y

        x = self.add_residual(x, self.norm_attention, attend)
        if self.cross:
            x = self.add_residual(
                x,
                self.norm_cross,
                lambda y: self.cross_attention(y, memory, positions["memory_mask"]),
            )
        return self.add_residual(x, self.norm_feed_forward, self.feed_forward), new_cache[0]


class Stack(Part, kw_only=True):
    """All blocks and the last norm, which only `norm_position` "pre" has."""

    causal: bool
    cross: bool = False
    # Apply the blocks as one scan over stacked parameters, which compiles faster than
    # separate blocks.
    scan: bool = False
    # Recompute the intermediate values of a block in the backward pass, except those
    # that `remat_policy`, a key of REMAT_POLICIES, saves.
    remat: bool = False
    remat_policy: str = "nothing"

    def setup(self) -> None:
        """Create the blocks, as one scanned module or a list, and the last norm."""
        more = dict(causal=self.causal, cross=self.cross, **self.shared_fields)
        block = (
            nn.remat(Block, prevent_cse=not self.scan, policy=REMAT_POLICIES[self.remat_policy])
            if self.remat
            else Block
        )
        if self.scan:
            lifted = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                length=self.layers,
                in_axes=(0, 0, nn.broadcast),
                out_axes=0,
            )
            self.blocks = lifted(**more)
        else:
            self.layer = [block(**more) for _ in range(self.layers)]
        if self.norm_position == "pre":
            self.last = self.make_norm()

    def project_memory(
        self, memory: Array
    ) -> tuple[dict[str, Array], ...]:  # [B, S, D] -> layers x {k, v: [B, S, N, H]}
        """Return the keys and values of an encoder's output [B, S, D] in each block."""
        return tuple(layer.project_memory(memory) for layer in self.layer)

    def __call__(
        self, x: Array, caches: PyTree, memories: PyTree, positions: dict[str, Any]
    ) -> tuple[Array, PyTree]:  # [B, T, D] -> [B, T, D], caches
        """Return x after all blocks and the last norm, and the caches after these T
        tokens.

        Args:
          x: [B, T, D].
          caches: None, or a cache per block, stacked if `scan`.
          memories: None, or `project_memory` of an encoder's output.
          positions: as in the module's docstring.
        """
        if self.scan:
            x, caches = self.blocks(x, caches, memories, positions)
        else:
            new_caches = []
            for i, layer in enumerate(self.layer):
                x, cache = layer(x, caches and caches[i], memories and memories[i], positions)
                new_caches.append(cache)
            caches = caches and tuple(new_caches)
        return (self.last(x) if self.norm_position == "pre" else x), caches
