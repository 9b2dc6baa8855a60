"""Transformers (Vaswani et al. 2017): decoder-only, encoder-only and encoder-decoder,
made of the same blocks.

Every decoder has one contract, (tokens [B, T], carry) -> (logits [B, T, V], carry).
With carry=None the tokens are a complete sequence; with a carry they follow the tokens
stored in it. A carry holds the keys and values of all layers, with room for S
positions, and the number of stored positions. Dropout is active if `apply` receives a
"dropout" key.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.axes import with_logical_constraint
from aigc_jax.core.method import Array, PyTree
from aigc_jax.models.attention import alibi_slopes, sinusoidal_encoding
from aigc_jax.models.layers import Network, dropout, mask_logits, round_up_vocabulary
from aigc_jax.models.reductions import Dense, project
from aigc_jax.models.transformer_blocks import CHOICES, STD, Part, Stack


class Tokens(Part, Network, kw_only=True):
    """Base class of Transformers on tokens: embeddings, positions and logits."""

    vocabulary: int
    context: int  # number of positions
    tied: bool = True  # logits through the embedding's transpose (Press & Wolf 2017)
    scan: bool = False  # as `remat` and `remat_policy`, of `transformer_blocks.Stack`
    remat: bool = False
    remat_policy: str = "nothing"

    choices = CHOICES
    # causal: a position attends only to itself and those before it; cross: positions
    # attend to an encoder's output.
    causal, cross = True, False

    carry_axis = property(lambda self: 1 if self.scan else 0)  # of the batch in a carry
    capacity = property(lambda self: self.context)  # the most positions that a carry can hold

    def config_error(self) -> str:  # '' if heads, kv_heads, rotary and dropout are possible
        """Return an error message if the width, heads, positions or dropout are
        invalid, or ''.
        """
        if self.width % self.heads:
            return f"width = {self.width} is not divisible by heads = {self.heads}"
        if self.kv_heads and self.heads % self.kv_heads:
            return f"heads = {self.heads} is not divisible by kv_heads = {self.kv_heads}"
        if self.position_encoding == "rotary" and self.head_size % 2:
            return (
                f"width = {self.width} gives heads of {self.head_size} features, and positions = "
                "'rotary' needs an even number"
            )
        return "" if 0 <= self.dropout < 1 else f"dropout = {self.dropout} must be in [0, 1)"

    def setup(self) -> None:
        """Create the blocks, the embeddings, and the head unless `tied`."""
        normal = nn.initializers.normal(STD)
        self.stack = Stack(
            scan=self.scan,
            remat=self.remat,
            remat_policy=self.remat_policy,
            causal=self.causal,
            cross=self.cross,
            **self.shared_fields,
        )
        self.embed = nn.Embed(
            round_up_vocabulary(self.vocabulary),
            self.width,
            embedding_init=normal,
            **self.dtype_fields,
        )
        if self.position_encoding == "learned":
            self.position = nn.Embed(
                self.context, self.width, embedding_init=normal, **self.dtype_fields
            )
        if not self.tied:
            self.head = Dense(
                round_up_vocabulary(self.vocabulary), False, kernel_init=normal, **self.dtype_fields
            )

    def embed_tokens(
        self, tokens: Array, position: Array
    ) -> Array:  # [B, T], [T] -> [B, T, D], with positions and dropout
        """Return the embeddings of tokens at their positions, after dropout.

        Args:
          tokens: ids [B, T].
          position: numbers [T] of the positions, from 0.
        """
        x = self.embed(tokens)
        if self.position_encoding == "learned":
            x = x + self.position(position)
        if self.position_encoding == "sinusoidal":
            # Scaled to the standard deviation of the embeddings.
            x = x + sinusoidal_encoding(position, self.width).astype(x.dtype) * STD * math.sqrt(2)
        return with_logical_constraint(dropout(self, x, self.dropout), "examples", "positions")

    def logits(self, features: Array) -> Array:  # [B, T, D] -> [B, T, V], -1e9 past the vocabulary
        """Return the logits of the next tokens, with ids past the vocabulary masked."""
        out = (
            project(features, self.embed.embedding.T.astype(features.dtype))
            if self.tied
            else self.head(features)
        )
        return mask_logits(
            with_logical_constraint(out, "examples", None, "vocabulary"), self.vocabulary
        )

    def position_arguments(
        self, tokens: Array, carry: PyTree | None, **more: Array
    ) -> dict[str, Any]:  # [B, T], carry -> {position, bias, mask, **more}
        """Return {position, bias, mask} of T tokens that follow the carry, the argument
        `positions` of `Stack`. Masks allow the stored positions up to each token's own;
        without a carry the mask is None.

        Args:
          tokens: [B, T].
          carry: of the tokens before; None for a complete sequence.
          **more: further entries, such as a mask of padding.
        """
        done = 0 if carry is None else carry["length"]
        position = done + jnp.arange(tokens.shape[1])
        keys = (
            position if carry is None else jnp.arange(jax.tree.leaves(carry["layers"])[0].shape[-2])
        )
        bias = None
        if self.position_encoding == "alibi":  # Press et al. 2022, figure 3
            distance = jnp.abs(keys - position[:, None]).astype(self.dtype)
            bias = (-alibi_slopes(self.heads).astype(self.dtype)[:, None, None] * distance)[None]
        mask = None if carry is None else (keys <= position[:, None])[None, None]
        return dict(position=position, bias=bias, mask=mask) | more

    def empty_carry(self, batch_size: int, length: int) -> dict[str, PyTree]:  # {length: 0, layers}
        """Return an empty carry.

        Args:
          batch_size: number of rows B.
          length: most positions that can be stored, at most `context` if positions are
            learned.
        """
        shape = (batch_size, self.kv_heads or self.heads, length, self.head_size)
        empty = lambda lead=(): dict(
            k=jnp.zeros((*lead, *shape), self.dtype), v=jnp.zeros((*lead, *shape), self.dtype)
        )
        layers = empty((self.layers,)) if self.scan else tuple(empty() for _ in range(self.layers))
        return dict(length=jnp.int32(0), layers=layers)


class Decoder(Tokens, kw_only=True):
    """A language model: each position attends to itself and those before it."""

    def compute_features(
        self, tokens: Array, carry: PyTree | None = None
    ) -> tuple[Array, PyTree]:  # [B, T], carry -> [B, T, D] for `logits`, carry
        """Return the input [B, T, D] of `logits` for tokens [B, T] that follow `carry`,
        and the next carry.
        """
        positions = self.position_arguments(tokens, carry)
        x, layers = self.stack(
            self.embed_tokens(tokens, positions["position"]),
            carry and carry["layers"],
            None,
            positions,
        )
        return x, carry and dict(length=carry["length"] + tokens.shape[1], layers=layers)

    def __call__(
        self, tokens: Array, carry: PyTree | None = None
    ) -> tuple[Array, PyTree]:  # [B, T], carry -> [B, T, V], carry
        """Return the logits of tokens that follow `carry`, and the next carry."""
        x, carry = self.compute_features(tokens, carry)
        return self.logits(x), carry


class Encoder(Tokens, kw_only=True):
    """A masked language model (Devlin et al. 2019): each position attends to all that
    are not padding.
    """

    causal = False

    def __call__(self, tokens: Array, mask: Array) -> Array:  # [B, T], [B, T] -> [B, T, V]
        """Return the logits of tokens; `mask` is 0 at padding, else 1."""
        positions = self.position_arguments(tokens, None, mask=mask[:, None, None].astype(bool))
        return self.logits(
            self.stack(self.embed_tokens(tokens, positions["position"]), None, None, positions)[0]
        )


class EncoderDecoder(Tokens, kw_only=True):
    """The Transformer of Vaswani et al. 2017, with one vocabulary and one embedding
    table for encoder and decoder.

    `encode` creates the first part of the decoder's carry, {memory: keys and values of
    every layer, mask}; `empty_carry` creates the rest, {length, layers}.
    """

    cross = True

    def setup(self) -> None:
        """Create the decoder and the blocks of the encoder."""
        super().setup()
        self.encoder = Stack(
            remat=self.remat, remat_policy=self.remat_policy, causal=False, **self.shared_fields
        )

    def config_error(self) -> str:  # '' if valid and not `scan`
        """Return an error message for invalid fields, among them `scan`, or ''."""
        return super().config_error() or (
            "scan = True is for networks of one stack" if self.scan else ""
        )

    def encode(
        self, source: Array, source_mask: Array
    ) -> dict[str, PyTree]:  # [B, S], [B, S] (0 at padding) -> carry {memory, mask}
        """Return a carry with the encoded source and without room for tokens;
        `source_mask` is 0 at padding, else 1.
        """
        mask = source_mask[:, None, None].astype(bool)
        positions = self.position_arguments(source, None, mask=mask)
        memory = self.encoder(
            self.embed_tokens(source, positions["position"]), None, None, positions
        )[0]
        return dict(memory=self.stack.project_memory(memory), mask=mask)

    def decode(
        self, tokens: Array, carry: PyTree
    ) -> tuple[Array, PyTree]:  # [B, T], carry of `encode` -> [B, T, V], carry
        """Return the logits of tokens that follow `carry`, and the next carry. A carry
        without room, as in training, is returned unchanged.
        """
        past = carry if "layers" in carry else None
        positions = self.position_arguments(tokens, past, memory_mask=carry["mask"])
        x, layers = self.stack(
            self.embed_tokens(tokens, positions["position"]),
            past and past["layers"],
            carry["memory"],
            positions,
        )
        return self.logits(x), carry | (
            dict(length=past["length"] + tokens.shape[1], layers=layers) if past else {}
        )

    def __call__(
        self, source: Array, mask: Array, tokens: Array
    ) -> Array:  # [B, S], [B, S], [B, T] -> [B, T, V]
        """Return the logits of `tokens`, conditioned on the source and the tokens
        before.

        Args:
          source: ids [B, S].
          mask: [B, S], 0 at padding of the source, else 1.
          tokens: ids [B, T] of the target, from its start token on.
        """
        return self.decode(tokens, self.encode(source, mask))[0]
