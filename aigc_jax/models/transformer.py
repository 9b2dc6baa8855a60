"""Transformers (Vaswani et al. 2017): decoder-only, encoder-only and encoder-decoder, of the same blocks.

Every decoder has one contract, (tokens [B, T], carry) -> (logits [B, T, V], carry): with carry=None the whole sequence at once, with a carry
the next T tokens after those that it remembers. A carry holds the keys and values of all layers, room for S positions, and how
many there are. Dropout is on where `apply` is given a "dropout" key.
"""

import dataclasses
import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.layout import axes
from aigc_jax.models.attention import alibi_slopes, attend, attention, rotary, sinusoidal
from aigc_jax.models.layers import ACTIVATIONS, Network, dropout, mask_logits, padded
from aigc_jax.models.reductions import Dense, LayerNorm, project

NORMS = {"layer": LayerNorm, "rms": partial(LayerNorm, centred=False, use_bias=False)}
# What a block that is computed again keeps all the same: nothing, or its products with weights, so that attention and what is done value by
# value are computed again alone.
KEPT = {"nothing": None, "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
CHOICES = dict(
    keep=KEPT,
    positions=dict.fromkeys(("learned", "sinusoidal", "rotary", "alibi", "none")),
    place=dict.fromkeys(("before", "after")),  # of the norms: x + f(norm(x)), or norm(x + f(x)) as in the paper
    mlp=dict.fromkeys(("relu", "gelu", "swiglu")),
    norm=NORMS,
)
STD = 0.02  # of initial weights (Radford et al. 2018, section 4.1)


class Part(nn.Module):
    """The fields that all parts of one network share."""

    width: int
    heads: int
    layers: int
    kv_heads: int = 0  # of keys and values, each shared by heads / kv_heads queries (Ainslie et al. 2023); 0: heads
    hidden: int = 0  # of the MLP; 0: 4 width, for swiglu 8/3 width rounded up to a multiple of 64
    mlp: str = "gelu"
    norm: str = "layer"
    place: str = "before"
    positions: str = "learned"
    qk_norm: bool = False  # RMS norm of queries and keys (Henry et al. 2020)
    bias: bool = True
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @property
    def shared(self) -> dict:
        """The keyword arguments of a part of this one."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(Part) if f.name not in ("parent", "name")}

    @property
    def size(self) -> int:
        """Of a head."""
        return self.width // self.heads

    @property
    def types(self) -> dict:
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    def dense(self, features, name=None, residual=False):
        """Weights of standard deviation 0.02, those of the two per layer that write into the residual stream divided by the square root
        of their number (Radford et al. 2019, section 2.3)."""
        std = STD / math.sqrt(2 * self.layers) if residual else STD
        return Dense(features, self.bias, name=name, kernel_init=nn.initializers.normal(std), **self.types)

    def normalize(self, name=None):
        more = dict(use_bias=self.bias) if self.norm == "layer" else {}
        return NORMS[self.norm](name=name, **more, **self.types)


class Attention(Part, kw_only=True):
    """Of a sequence to itself: of every position to those before it and itself, or to all."""

    causal: bool

    @nn.compact
    def __call__(self, x, cache, at):  # [B, T, D] -> [B, T, D], cache
        kv = self.kv_heads or self.heads
        q, k, v = jnp.split(self.dense((self.heads + 2 * kv) * self.size, "qkv")(x), [self.width, self.width + kv * self.size], axis=-1)
        q, k, v = (axes(y.reshape(*y.shape[:2], -1, self.size), "examples", None, "heads") for y in (q, k, v))
        if self.qk_norm:
            q, k = NORMS["rms"](name="q_norm", **self.types)(q), NORMS["rms"](name="k_norm", **self.types)(k)
        if self.positions == "rotary":
            q, k = rotary(q, at["position"]), rotary(k, at["position"])
        if cache is None:
            y = attention(q, k, v, at["bias"], at["mask"], self.causal)
        else:
            start = (0, 0, at["position"][0], 0)
            cache = {name: jax.lax.dynamic_update_slice(cache[name], new.swapaxes(1, 2), start) for name, new in dict(k=k, v=v).items()}
            y = attend(q, cache["k"], cache["v"], at["bias"], at["mask"])
        return self.dense(self.width, "out", residual=True)(y.reshape(*x.shape[:2], -1)), cache


class CrossAttention(Part):
    """Queries from x; keys and values from an encoder's output, computed once."""

    def setup(self):
        self.q, self.kv, self.out = self.dense(self.width), self.dense(2 * self.width), self.dense(self.width, residual=True)

    def remember(self, memory):  # [B, S, D] -> keys and values, [B, S, N, H] each
        k, v = jnp.split(self.kv(memory).reshape(*memory.shape[:2], 2 * self.heads, self.size), 2, axis=2)
        return dict(k=k, v=v)

    def __call__(self, x, memory, mask):  # [B, T, D], keys and values, [B, 1, 1, S] -> [B, T, D]
        q = self.q(x).reshape(*x.shape[:2], self.heads, self.size)
        return self.out(attention(q, memory["k"], memory["v"], mask=mask).reshape(x.shape))


class Mlp(Part):
    @nn.compact
    def __call__(self, x):  # [B, T, D] -> [B, T, D]
        if self.mlp == "swiglu":  # Shazeer 2020, eq. 6
            a, b = jnp.split(self.dense(2 * (self.hidden or -(-8 * self.width // 192) * 64), "up")(x), 2, axis=-1)
            x = nn.silu(a) * b
        else:
            x = ACTIVATIONS[self.mlp](self.dense(self.hidden or 4 * self.width, "up")(x))
        x = axes(x, "examples", None, "hidden")
        return self.dense(self.width, "down", residual=True)(x)


class Block(Part, kw_only=True):
    """Attention, cross-attention where there is a memory, MLP: each with a norm, dropout and a residual connection."""

    causal: bool
    cross: bool = False

    def setup(self):
        self.attention, self.norm_attention = Attention(causal=self.causal, **self.shared), self.normalize()
        if self.cross:
            self.cross_attention, self.norm_cross = CrossAttention(**self.shared), self.normalize()
        self.feed_forward, self.norm_feed_forward = Mlp(**self.shared), self.normalize()

    def remember(self, memory):
        return self.cross_attention.remember(memory)

    def add(self, x, norm, f):
        """x + f(norm(x)), or norm(x + f(x))."""
        y = dropout(self, f(norm(x) if self.place == "before" else x), self.dropout)
        return axes(x + y if self.place == "before" else norm(x + y), "examples", "positions")

    def __call__(self, x, cache, memory, at):  # [B, T, D] -> [B, T, D], cache
        kept = [cache]

        def attend(y):
            y, kept[0] = self.attention(y, cache, at)
            return y

        x = self.add(x, self.norm_attention, attend)
        if self.cross:
            x = self.add(x, self.norm_cross, lambda y: self.cross_attention(y, memory, at["memory_mask"]))
        return self.add(x, self.norm_feed_forward, self.feed_forward), kept[0]


class Stack(Part, kw_only=True):
    """All blocks and the last norm: written out, or as one `scan` over stacked parameters, which compiles sooner; with `remat` a
    block's intermediate values are computed again in the backward pass instead of kept, but for those that `keep` names."""

    causal: bool
    cross: bool = False
    scan: bool = False
    remat: bool = False
    keep: str = "nothing"

    def setup(self):
        more = dict(causal=self.causal, cross=self.cross, **self.shared)
        block = nn.remat(Block, prevent_cse=not self.scan, policy=KEPT[self.keep]) if self.remat else Block
        if self.scan:
            lifted = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=self.layers,
                             in_axes=(0, 0, nn.broadcast), out_axes=0)
            self.blocks = lifted(**more)
        else:
            self.layer = [block(**more) for _ in range(self.layers)]
        if self.place == "before":
            self.last = self.normalize()

    def remember(self, memory):
        return tuple(layer.remember(memory) for layer in self.layer)

    def __call__(self, x, caches, memories, at):  # [B, T, D] -> [B, T, D], caches
        if self.scan:
            x, caches = self.blocks(x, caches, memories, at)
        else:
            kept = []
            for i, layer in enumerate(self.layer):
                x, cache = layer(x, caches and caches[i], memories and memories[i], at)
                kept.append(cache)
            caches = caches and tuple(kept)
        return (self.last(x) if self.place == "before" else x), caches


class Tokens(Part, Network, kw_only=True):
    """What all networks on tokens share: embeddings, positions, logits."""

    vocabulary: int
    context: int  # positions that there are
    tied: bool = True  # logits through the embedding's transpose (Press & Wolf 2017)
    scan: bool = False
    remat: bool = False
    keep: str = "nothing"

    choices = CHOICES
    causal, cross = True, False  # does a position see those before it alone; does it see an encoder's output

    carry_axis = property(lambda self: 1 if self.scan else 0)  # of the batch in a carry
    capacity = property(lambda self: self.context)  # the most positions that a carry can hold

    def misfit(self) -> str:
        if self.width % self.heads:
            return f"width = {self.width} does not divide by heads = {self.heads}"
        if self.kv_heads and self.heads % self.kv_heads:
            return f"heads = {self.heads} does not divide by kv_heads = {self.kv_heads}"
        if self.positions == "rotary" and self.size % 2:
            return f"width = {self.width} gives heads of {self.size} coordinates, and positions = 'rotary' turns pairs"
        return "" if 0 <= self.dropout < 1 else f"dropout = {self.dropout} must lie in [0, 1)"

    def setup(self):
        normal = nn.initializers.normal(STD)
        self.stack = Stack(scan=self.scan, remat=self.remat, keep=self.keep, causal=self.causal, cross=self.cross, **self.shared)
        self.embed = nn.Embed(padded(self.vocabulary), self.width, embedding_init=normal, **self.types)
        if self.positions == "learned":
            self.position = nn.Embed(self.context, self.width, embedding_init=normal, **self.types)
        if not self.tied:
            self.head = Dense(padded(self.vocabulary), False, kernel_init=normal, **self.types)

    def start(self, tokens, position):  # [B, T], [T] -> [B, T, D]
        x = self.embed(tokens)
        if self.positions == "learned":
            x = x + self.position(position)
        if self.positions == "sinusoidal":
            x = x + sinusoidal(position, self.width).astype(x.dtype) * STD * math.sqrt(2)  # of the embeddings' size
        return axes(dropout(self, x, self.dropout), "examples", "positions")

    def logits(self, x):  # [B, T, D] -> [B, T, V]
        out = project(x, self.embed.embedding.T.astype(x.dtype)) if self.tied else self.head(x)
        return mask_logits(axes(out, "examples", None, "vocabulary"), self.vocabulary)

    def places(self, tokens, carry, **more):
        """Where T tokens after those of the carry stand, and what they may look at."""
        done = 0 if carry is None else carry["length"]
        position = done + jnp.arange(tokens.shape[1])
        keys = position if carry is None else jnp.arange(jax.tree.leaves(carry["layers"])[0].shape[-2])
        bias = None
        if self.positions == "alibi":  # Press et al. 2022, figure 3
            distance = jnp.abs(keys - position[:, None]).astype(self.dtype)
            bias = (-alibi_slopes(self.heads).astype(self.dtype)[:, None, None] * distance)[None]
        mask = None if carry is None else (keys <= position[:, None])[None, None]
        return dict(position=position, bias=bias, mask=mask) | more

    def carry(self, batch, length):
        """An empty carry with room for `length` positions."""
        shape = (batch, self.kv_heads or self.heads, length, self.size)
        empty = lambda lead=(): dict(k=jnp.zeros((*lead, *shape), self.dtype), v=jnp.zeros((*lead, *shape), self.dtype))
        layers = empty((self.layers,)) if self.scan else tuple(empty() for _ in range(self.layers))
        return dict(length=jnp.int32(0), layers=layers)


class Decoder(Tokens, kw_only=True):
    """A language model: each position sees those before it and itself."""

    def features(self, tokens, carry=None):  # [B, T], carry -> [B, T, D], carry: what `logits` reads
        at = self.places(tokens, carry)
        x, layers = self.stack(self.start(tokens, at["position"]), carry and carry["layers"], None, at)
        return x, carry and dict(length=carry["length"] + tokens.shape[1], layers=layers)

    def __call__(self, tokens, carry=None):  # [B, T], carry -> [B, T, V], carry
        x, carry = self.features(tokens, carry)
        return self.logits(x), carry


class Encoder(Tokens, kw_only=True):
    """A masked language model (Devlin et al. 2019): each position sees all that are real."""

    causal = False

    def __call__(self, tokens, mask):  # [B, T], [B, T] -> [B, T, V]
        at = self.places(tokens, None, mask=mask[:, None, None].astype(bool))
        return self.logits(self.stack(self.start(tokens, at["position"]), None, None, at)[0])


class EncoderDecoder(Tokens, kw_only=True):
    """The Transformer of Vaswani et al. 2017, with one vocabulary and one table of embeddings for both sides. A decoder's carry begins
    with `encode`: {memory: keys and values of every layer, mask, length, layers}."""

    cross = True

    def setup(self):
        super().setup()
        self.encoder = Stack(remat=self.remat, keep=self.keep, causal=False, **self.shared)

    def misfit(self) -> str:
        return super().misfit() or ("scan = True is for networks of one stack" if self.scan else "")

    def encode(self, source, mask):  # [B, S], [B, S] -> carry without room
        mask = mask[:, None, None].astype(bool)
        at = self.places(source, None, mask=mask)
        memory = self.encoder(self.start(source, at["position"]), None, None, at)[0]
        return dict(memory=self.stack.remember(memory), mask=mask)

    def decode(self, tokens, carry):  # [B, T], carry -> [B, T, V], carry
        past = carry if "layers" in carry else None
        at = self.places(tokens, past, memory_mask=carry["mask"])
        x, layers = self.stack(self.start(tokens, at["position"]), past and past["layers"], carry["memory"], at)
        return self.logits(x), carry | (dict(length=past["length"] + tokens.shape[1], layers=layers) if past else {})

    def __call__(self, source, mask, tokens):  # [B, S], [B, S], [B, T] -> [B, T, V]
        return self.decode(tokens, self.encode(source, mask))[0]
