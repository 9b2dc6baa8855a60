"""Transformers (Vaswani et al. 2017): decoder-only, encoder-only and encoder-decoder,
of the same blocks.

Every decoder has one contract, (tokens [B, T], carry) -> (logits [B, T, V], carry):
with carry=None the whole sequence at once, with a carry the next T tokens after those
that it remembers. A carry holds the keys and values of all layers, room for S
positions, and how many there are. Dropout is on where `apply` is given a "dropout" key.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.axes import axes
from aigc_jax.models.attention import alibi_slopes, sinusoidal
from aigc_jax.models.layers import Network, dropout, mask_logits, padded
from aigc_jax.models.reductions import Dense, project
from aigc_jax.models.transformer_blocks import CHOICES, STD, Part, Stack


class Tokens(Part, Network, kw_only=True):
    """What all networks on tokens share: embeddings, positions, logits."""

    vocabulary: int
    context: int  # positions that there are
    tied: bool = True  # logits through the embedding's transpose (Press & Wolf 2017)
    scan: bool = False
    remat: bool = False
    keep: str = "nothing"

    choices = CHOICES
    # causal: a position sees those before it alone; cross: it sees an encoder's output.
    causal, cross = True, False

    carry_axis = property(lambda self: 1 if self.scan else 0)  # of the batch in a carry
    capacity = property(lambda self: self.context)  # the most positions that a carry can hold

    def misfit(self) -> str:
        """Return why the width, the heads, the positions or the dropout do not go
        together, or ''.
        """
        if self.width % self.heads:
            return f"width = {self.width} does not divide by heads = {self.heads}"
        if self.kv_heads and self.heads % self.kv_heads:
            return f"heads = {self.heads} does not divide by kv_heads = {self.kv_heads}"
        if self.positions == "rotary" and self.size % 2:
            return (
                f"width = {self.width} gives heads of {self.size} coordinates, and positions = "
                "'rotary' turns pairs"
            )
        return "" if 0 <= self.dropout < 1 else f"dropout = {self.dropout} must lie in [0, 1)"

    def setup(self):
        """Create the blocks, the embeddings, and the head if it is not tied."""
        normal = nn.initializers.normal(STD)
        self.stack = Stack(
            scan=self.scan,
            remat=self.remat,
            keep=self.keep,
            causal=self.causal,
            cross=self.cross,
            **self.shared,
        )
        self.embed = nn.Embed(
            padded(self.vocabulary), self.width, embedding_init=normal, **self.types
        )
        if self.positions == "learned":
            self.position = nn.Embed(self.context, self.width, embedding_init=normal, **self.types)
        if not self.tied:
            self.head = Dense(padded(self.vocabulary), False, kernel_init=normal, **self.types)

    def start(self, tokens, position):  # [B, T], [T] -> [B, T, D]
        """Return the embeddings of tokens at these positions, after dropout."""
        x = self.embed(tokens)
        if self.positions == "learned":
            x = x + self.position(position)
        if self.positions == "sinusoidal":
            # Scaled to the size of the embeddings.
            x = x + sinusoidal(position, self.width).astype(x.dtype) * STD * math.sqrt(2)
        return axes(dropout(self, x, self.dropout), "examples", "positions")

    def logits(self, x):  # [B, T, D] -> [B, T, V]
        """Return the logits of the next token, with ids past the vocabulary masked."""
        out = project(x, self.embed.embedding.T.astype(x.dtype)) if self.tied else self.head(x)
        return mask_logits(axes(out, "examples", None, "vocabulary"), self.vocabulary)

    def places(self, tokens, carry, **more):
        """Where T tokens after those of the carry stand, and what they may look at."""
        done = 0 if carry is None else carry["length"]
        position = done + jnp.arange(tokens.shape[1])
        keys = (
            position if carry is None else jnp.arange(jax.tree.leaves(carry["layers"])[0].shape[-2])
        )
        bias = None
        if self.positions == "alibi":  # Press et al. 2022, figure 3
            distance = jnp.abs(keys - position[:, None]).astype(self.dtype)
            bias = (-alibi_slopes(self.heads).astype(self.dtype)[:, None, None] * distance)[None]
        mask = None if carry is None else (keys <= position[:, None])[None, None]
        return dict(position=position, bias=bias, mask=mask) | more

    def carry(self, batch, length):
        """An empty carry with room for `length` positions."""
        shape = (batch, self.kv_heads or self.heads, length, self.size)
        empty = lambda lead=(): dict(
            k=jnp.zeros((*lead, *shape), self.dtype), v=jnp.zeros((*lead, *shape), self.dtype)
        )
        layers = empty((self.layers,)) if self.scan else tuple(empty() for _ in range(self.layers))
        return dict(length=jnp.int32(0), layers=layers)


class Decoder(Tokens, kw_only=True):
    """A language model: each position sees those before it and itself."""

    def features(self, tokens, carry=None):
        """Return what `logits` reads, [B, T, D], of tokens [B, T] that follow on
        `carry`, and the carry after them.
        """
        at = self.places(tokens, carry)
        x, layers = self.stack(
            self.start(tokens, at["position"]), carry and carry["layers"], None, at
        )
        return x, carry and dict(length=carry["length"] + tokens.shape[1], layers=layers)

    def __call__(self, tokens, carry=None):  # [B, T], carry -> [B, T, V], carry
        """Return the logits of tokens that follow `carry`, and the next carry."""
        x, carry = self.features(tokens, carry)
        return self.logits(x), carry


class Encoder(Tokens, kw_only=True):
    """A masked language model (Devlin et al. 2019): real positions see one another."""

    causal = False

    def __call__(self, tokens, mask):  # [B, T], [B, T] -> [B, T, V]
        """Return the logits of tokens; `mask` is 1 where a token is no padding."""
        at = self.places(tokens, None, mask=mask[:, None, None].astype(bool))
        return self.logits(self.stack(self.start(tokens, at["position"]), None, None, at)[0])


class EncoderDecoder(Tokens, kw_only=True):
    """The Transformer of Vaswani et al. 2017, with one vocabulary and one table of
    embeddings for both sides. A decoder's carry begins with `encode`: {memory: keys and
    values of every layer, mask, length, layers}.
    """

    cross = True

    def setup(self):
        """Create the decoder's parts, and the encoder's blocks beside them."""
        super().setup()
        self.encoder = Stack(remat=self.remat, keep=self.keep, causal=False, **self.shared)

    def misfit(self) -> str:
        """Return why the fields do not go together, or ''; `scan` is not supported."""
        return super().misfit() or ("scan = True is for networks of one stack" if self.scan else "")

    def encode(self, source, mask):  # [B, S], [B, S] -> carry without room
        """Return a carry that holds the encoded source, and no room for tokens yet;
        `mask` is 1 where a token is no padding.
        """
        mask = mask[:, None, None].astype(bool)
        at = self.places(source, None, mask=mask)
        memory = self.encoder(self.start(source, at["position"]), None, None, at)[0]
        return dict(memory=self.stack.remember(memory), mask=mask)

    def decode(self, tokens, carry):  # [B, T], carry -> [B, T, V], carry
        """Return the logits of tokens that follow on `carry`, and the carry after them:
        unchanged where it has no room, as in training.
        """
        past = carry if "layers" in carry else None
        at = self.places(tokens, past, memory_mask=carry["mask"])
        x, layers = self.stack(
            self.start(tokens, at["position"]), past and past["layers"], carry["memory"], at
        )
        return self.logits(x), carry | (
            dict(length=past["length"] + tokens.shape[1], layers=layers) if past else {}
        )

    def __call__(self, source, mask, tokens):  # [B, S], [B, S], [B, T] -> [B, T, V]
        """Return the logits of `tokens`, each given the source and those before it."""
        return self.decode(tokens, self.encode(source, mask))[0]
