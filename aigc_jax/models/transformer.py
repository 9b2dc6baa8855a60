"""Transformers (Vaswani et al. 2017): decoder-only, encoder-only and encoder-decoder,
made of the same blocks.

Every decoder has one contract, (tokens [B, T], carry) -> (logits [B, T, V], carry).
With carry=None the tokens are a complete sequence; with a carry they follow the tokens
stored in it. A carry holds the keys and values of all layers, with room for S
positions, and the number of stored positions. Dropout is active if `apply` receives a
"dropout" key.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.axes import with_logical_constraint
from aigc_jax.core.method import Array, PyTree
from aigc_jax.models.attention import alibi_slopes, sinusoidal_encoding
from aigc_jax.models.layers import Network, dropout, mask_logits, pad_vocabulary
from aigc_jax.models.reductions import Dense, project
from aigc_jax.models.transformer_blocks import CHOICES, STD, Part, Stack


class Tokens(Part, Network, kw_only=True):
    """Base class of Transformers on tokens: embeddings, positions and logits."""

    vocabulary: int
    context: int  # number of positions
    tied: bool = True  # logits through the embedding's transpose (Press & Wolf 2017)
    scan: bool = False
    remat: bool = False
    remat_policy: str = "nothing"

    choices = CHOICES
    # causal: a position attends only to itself and those before it; cross: positions
    # attend to an encoder's output.
    causal, cross = True, False

    carry_axis = property(lambda self: 1 if self.scan else 0)  # of the batch in a carry
    capacity = property(lambda self: self.context)  # the most positions that a carry can hold

    def shape_error(self) -> str:
        """Return an error message if the width, heads, positions or dropout are
        invalid, or ''.
        """
        if self.width % self.heads:
            return f"width = {self.width} is not divisible by heads = {self.heads}"
        if self.kv_heads and self.heads % self.kv_heads:
            return f"heads = {self.heads} is not divisible by kv_heads = {self.kv_heads}"
        if self.position_encoding == "rotary" and self.size % 2:
            return (
                f"width = {self.width} gives heads of {self.size} features, and positions = "
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
            **self.shared,
        )
        self.embed = nn.Embed(
            pad_vocabulary(self.vocabulary), self.width, embedding_init=normal, **self.types
        )
        if self.position_encoding == "learned":
            self.position = nn.Embed(self.context, self.width, embedding_init=normal, **self.types)
        if not self.tied:
            self.head = Dense(
                pad_vocabulary(self.vocabulary), False, kernel_init=normal, **self.types
            )

    def start(self, tokens: Array, position: Array) -> Array:  # [B, T], [T] -> [B, T, D]
        """Return the embeddings of tokens at their positions, after dropout."""
        x = self.embed(tokens)
        if self.position_encoding == "learned":
            x = x + self.position(position)
        if self.position_encoding == "sinusoidal":
            # Scaled to the standard deviation of the embeddings.
            x = x + sinusoidal_encoding(position, self.width).astype(x.dtype) * STD * math.sqrt(2)
        return with_logical_constraint(dropout(self, x, self.dropout), "examples", "positions")

    def logits(self, x: Array) -> Array:  # [B, T, D] -> [B, T, V]
        """Return the logits of the next tokens, with ids past the vocabulary masked."""
        out = project(x, self.embed.embedding.T.astype(x.dtype)) if self.tied else self.head(x)
        return mask_logits(
            with_logical_constraint(out, "examples", None, "vocabulary"), self.vocabulary
        )

    def places(self, tokens: Array, carry: PyTree, **more):
        """Return {position, bias, mask} of T tokens that follow the carry, the `at`
        argument of `Stack`, with further entries `more`.
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

    def carry(self, batch: int, length: int):
        """Return an empty carry with room for `length` positions."""
        shape = (batch, self.kv_heads or self.heads, length, self.size)
        empty = lambda lead=(): dict(
            k=jnp.zeros((*lead, *shape), self.dtype), v=jnp.zeros((*lead, *shape), self.dtype)
        )
        layers = empty((self.layers,)) if self.scan else tuple(empty() for _ in range(self.layers))
        return dict(length=jnp.int32(0), layers=layers)


class Decoder(Tokens, kw_only=True):
    """A language model: each position attends to itself and those before it."""

    def features(self, tokens: Array, carry: PyTree | None = None) -> tuple[Array, PyTree]:
        """Return the input [B, T, D] of `logits` for tokens [B, T] that follow `carry`,
        and the next carry.
        """
        at = self.places(tokens, carry)
        x, layers = self.stack(
            self.start(tokens, at["position"]), carry and carry["layers"], None, at
        )
        return x, carry and dict(length=carry["length"] + tokens.shape[1], layers=layers)

    def __call__(
        self, tokens: Array, carry: PyTree | None = None
    ) -> tuple[Array, PyTree]:  # [B, T], carry -> [B, T, V], carry
        """Return the logits of tokens that follow `carry`, and the next carry."""
        x, carry = self.features(tokens, carry)
        return self.logits(x), carry


class Encoder(Tokens, kw_only=True):
    """A masked language model (Devlin et al. 2019): each position attends to all that
    are not padding.
    """

    causal = False

    def __call__(self, tokens: Array, mask: Array) -> Array:  # [B, T], [B, T] -> [B, T, V]
        """Return the logits of tokens; `mask` is 0 at padding, else 1."""
        at = self.places(tokens, None, mask=mask[:, None, None].astype(bool))
        return self.logits(self.stack(self.start(tokens, at["position"]), None, None, at)[0])


class EncoderDecoder(Tokens, kw_only=True):
    """The Transformer of Vaswani et al. 2017, with one vocabulary and one embedding
    table for encoder and decoder.

    `encode` creates the first part of the decoder's carry, {memory: keys and values of
    every layer, mask}; `carry` creates the rest, {length, layers}.
    """

    cross = True

    def setup(self) -> None:
        """Create the decoder and the blocks of the encoder."""
        super().setup()
        self.encoder = Stack(
            remat=self.remat, remat_policy=self.remat_policy, causal=False, **self.shared
        )

    def shape_error(self) -> str:
        """Return an error message for invalid fields, among them `scan`, or ''."""
        return super().shape_error() or (
            "scan = True is for networks of one stack" if self.scan else ""
        )

    def encode(
        self, source: Array, mask: Array
    ) -> dict[str, PyTree]:  # [B, S], [B, S] -> carry without room
        """Return a carry with the encoded source and without room for tokens; `mask` is
        0 at padding, else 1.
        """
        mask = mask[:, None, None].astype(bool)
        at = self.places(source, None, mask=mask)
        memory = self.encoder(self.start(source, at["position"]), None, None, at)[0]
        return dict(memory=self.stack.remember(memory), mask=mask)

    def decode(
        self, tokens: Array, carry: PyTree
    ) -> tuple[Array, PyTree]:  # [B, T], carry -> [B, T, V], carry
        """Return the logits of tokens that follow `carry`, and the next carry. A carry
        without room, as in training, is returned unchanged.
        """
        past = carry if "layers" in carry else None
        at = self.places(tokens, past, memory_mask=carry["mask"])
        x, layers = self.stack(
            self.start(tokens, at["position"]), past and past["layers"], carry["memory"], at
        )
        return self.logits(x), carry | (
            dict(length=past["length"] + tokens.shape[1], layers=layers) if past else {}
        )

    def __call__(
        self, source: Array, mask: Array, tokens: Array
    ) -> Array:  # [B, S], [B, S], [B, T] -> [B, T, V]
        """Return the logits of `tokens`, conditioned on the source and the tokens
        before.
        """
        return self.decode(tokens, self.encode(source, mask))[0]
