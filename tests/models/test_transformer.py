"""Transformers: attention against NumPy, causality, caches, positions, padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.models import attention, transformer
from aigc_jax.models.layers import round_up_vocabulary

# position kind, kv_heads, query-key norm, norm, place, MLP, scan (with remat)
VARIANTS = {
    "gpt2": dict(position_encoding="learned", kv_heads=4),
    "vaswani": dict(
        position_encoding="sinusoidal", kv_heads=4, norm_position="post", activation="relu"
    ),
    "llama": dict(
        position_encoding="rotary",
        kv_heads=2,
        norm="rms",
        activation="swiglu",
        bias=False,
        tied=False,
    ),
    "multi_query": dict(position_encoding="alibi", kv_heads=1, qk_norm=True),
    "scanned": dict(position_encoding="none", kv_heads=4, scan=True, remat=True),
    "scanned_rotary": dict(position_encoding="rotary", kv_heads=1, scan=True),
}
every_variant = pytest.mark.parametrize(
    "name",
    [name for name in VARIANTS if name != "scanned_rotary"]
    + [pytest.param("scanned_rotary", marks=pytest.mark.slow)],  # covered by "scanned" and "llama"
)
# The cache test covers causality for every variant.
some_variants = pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("gpt2", "multi_query", "scanned")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in VARIANTS
    ],
)
DOUBLE = dict(dtype=jnp.float64, param_dtype=jnp.float64)
TOKENS = np.random.RandomState(0).randint(0, 50, (2, 12))


def drawn(net, *args):
    """Parameters large enough that attention is not uniform, drawn by NumPy, as a
    program of random numbers takes longer to compile than the network.
    """
    random = np.random.RandomState(0)

    def draw(path, leaf):
        around = 1.0 if "'scale'" in str(path[-1]) else 0.0
        value = around + 0.16 * random.randn(*leaf.shape)
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(
        draw, jax.eval_shape(net.init, jax.random.key(0), *args)
    )


@functools.cache
def decoder(name="gpt2", **more):
    """A small float64 network and its parameters."""
    net = transformer.Decoder(
        **dict(width=32, heads=4, layers=2, vocabulary=50, context=16)
        | DOUBLE
        | VARIANTS[name]
        | more
    )
    assert net.config_error() == ""
    return net, drawn(net, TOKENS)


@functools.partial(jax.jit, static_argnames=("net", "method"))
def apply(net, params, *args, rngs=None, method=None):
    return net.apply(params, *args, rngs=rngs, method=method)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("kv", [1, 2, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_numpy(kv, causal):
    with jax.enable_x64(True):
        r = np.random.RandomState(0)
        q, k, v = r.randn(2, 5, 4, 6), r.randn(2, 5, kv, 6), r.randn(2, 5, kv, 6)
        bias = r.randn(1, 4, 5, 5)
        out = attention.dot_product_attention(q, k, v, bias, causal=causal)
        for head in range(4):
            shared = head // (4 // kv)
            scores = q[:, :, head] @ k[:, :, shared].transpose(0, 2, 1) / np.sqrt(6) + bias[0, head]
            if causal:
                scores = np.where(np.tril(np.ones((5, 5), bool)), scores, -np.inf)
            np.testing.assert_allclose(
                out[:, :, head], softmax(scores) @ v[:, :, shared], rtol=1e-12, atol=1e-12
            )


@some_variants
def test_logits_do_not_depend_on_later_tokens(name):
    """The gradient of the logits at t with respect to the embeddings of all tokens is
    zero after t, and not zero up to t.
    """
    with jax.enable_x64(True):
        net, params = decoder(name)

        def logits(shift):  # added to the input of the blocks
            def run(module):
                positions = module.position_arguments(TOKENS, None)
                x = module.embed_tokens(TOKENS, positions["position"]) + shift
                return module.logits(module.stack(x, None, None, positions)[0])

            return net.apply(params, method=run)

        grads = jax.jit(jax.grad(lambda s, t: jnp.sum(logits(s)[:, t, :50] ** 2)))
        for t in (0, 5, 11):
            g = grads(jnp.zeros((2, 12, 32)), t)
            assert np.abs(g[:, t + 1 :]).max(initial=0) == 0
            assert np.abs(g[:, : t + 1]).max() > 1e-6


@every_variant
def test_cached_decoding_equals_the_full_sequence(name):
    with jax.enable_x64(True):
        net, params = decoder(name)
        whole, none = apply(net, params, TOKENS)
        assert none is None and whole.shape == (2, 12, round_up_vocabulary(50))
        for cuts in ((0, 12), (0, 5, 6, 7, 12)):
            carry, parts = net.empty_carry(2, 16), []
            for a, b in zip(cuts, cuts[1:], strict=False):
                logits, carry = apply(net, params, TOKENS[:, a:b], carry)
                parts.append(logits)
            np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-9, atol=1e-9)
            assert int(carry["length"]) == 12


def test_rotary_products_depend_only_on_the_distance():
    with jax.enable_x64(True):
        r = np.random.RandomState(1)
        q, k = r.randn(1, 1, 2, 8), r.randn(1, 1, 2, 8)
        product = lambda p, s: np.einsum(
            "btnh,bsnh->n",
            attention.apply_rotary_encoding(q, jnp.array([p])),
            attention.apply_rotary_encoding(k, jnp.array([s])),
        )
        np.testing.assert_allclose(product(3, 1), product(103, 101), rtol=1e-10)
        assert np.abs(product(3, 1) - product(3, 2)).max() > 1e-3
        np.testing.assert_allclose(
            np.linalg.norm(attention.apply_rotary_encoding(q, jnp.array([7]))),
            np.linalg.norm(q),
            rtol=1e-12,
        )
        np.testing.assert_allclose(attention.apply_rotary_encoding(q, jnp.array([0])), q)


def test_alibi_slopes_match_the_paper():
    np.testing.assert_allclose(attention.alibi_slopes(8), [2.0**-i for i in range(1, 9)])
    np.testing.assert_allclose(attention.alibi_slopes(16), [2.0 ** (-i / 2) for i in range(1, 17)])
    np.testing.assert_allclose(
        attention.alibi_slopes(12),
        [2.0**-i for i in range(1, 9)] + [2.0 ** (-i / 2) for i in (1, 3, 5, 7)],
    )


def test_sinusoidal_encoding_matches_its_formula():
    table = attention.sinusoidal_encoding(jnp.arange(5), 6)
    np.testing.assert_allclose(table[:, 1], np.sin(np.arange(5) / 10000 ** (2 / 6)), atol=1e-6)
    np.testing.assert_allclose(table[:, 5], np.cos(np.arange(5) / 10000 ** (4 / 6)), atol=1e-6)


@every_variant
def test_padded_ids_have_zero_probability(name):
    with jax.enable_x64(True):
        net, params = decoder(name)
        assert softmax(np.asarray(apply(net, params, TOKENS)[0]))[..., 50:].max() == 0


@pytest.mark.parametrize(
    "positions, both",
    [
        ("learned", False),
        ("alibi", True),
        pytest.param("alibi", False, marks=pytest.mark.slow),
        pytest.param("learned", True, marks=pytest.mark.slow),
    ],
    ids=["encoder_learned", "both_alibi", "encoder_alibi", "both_learned"],
)
def test_padding_does_not_change_results(positions, both):
    """Encoder and encoder-decoder: neither the contents nor the number of masked
    positions has an effect.
    """
    with jax.enable_x64(True):
        mask = np.ones((2, 12))
        mask[1, 7:] = 0
        other = np.where(mask == 0, 3, TOKENS)
        kind = transformer.EncoderDecoder if both else transformer.Encoder
        net = kind(
            width=32,
            heads=4,
            layers=1,
            vocabulary=50,
            context=16,
            position_encoding=positions,
            **DOUBLE,
        )
        targets = (TOKENS[:, :5],) if both else ()
        params = drawn(net, TOKENS, mask, *targets)
        out, again = (apply(net, params, tokens, mask, *targets) for tokens in (TOKENS, other))
        seen = 5 if both else 7  # the decoder's positions have no padding
        np.testing.assert_array_equal(out[0], again[0])
        np.testing.assert_array_equal(out[1, :seen], again[1, :seen])
        short = apply(net, params, TOKENS[1:, :7], mask[1:, :7], *(t[1:] for t in targets))
        np.testing.assert_allclose(short[0], out[1, :seen], rtol=1e-10, atol=1e-12)


def test_cached_encoder_decoder_equals_the_full_sequence():
    with jax.enable_x64(True):
        net = transformer.EncoderDecoder(
            width=32, heads=4, layers=2, vocabulary=50, context=16, **DOUBLE
        )
        mask = np.ones((2, 12))
        params = drawn(net, TOKENS, mask, TOKENS)

        def score(p):
            whole = net.apply(p, TOKENS, mask, TOKENS[:, :6])
            return jnp.sum(whole[0, 0, :50] ** 2), whole

        grad, whole = jax.jit(jax.grad(score, has_aux=True))(params)
        carry, parts = apply(net, params, TOKENS, mask, method="encode") | net.empty_carry(2, 8), []
        for a, b in ((0, 4), (4, 5), (5, 6)):
            logits, carry = apply(net, params, TOKENS[:, a:b], carry, method="decode")
            parts.append(logits)
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-10, atol=1e-12)
        assert all(
            np.abs(x).max() > 0
            for x in jax.tree.leaves(grad["params"]["encoder"]["layer_0"]["attention"]["out"])
        )


def test_scan_and_remat_do_not_change_outputs_or_gradients():
    with jax.enable_x64(True):
        net, params = decoder("llama")
        inner = params["params"]["stack"]
        layers = [inner[f"layer_{i}"] for i in range(2)]
        stacked = {
            "params": params["params"]
            | dict(
                stack=dict(
                    last=inner["last"], blocks=jax.tree.map(lambda *x: jnp.stack(x), *layers)
                )
            )
        }
        out = apply(net, params, TOKENS)[0]
        np.testing.assert_allclose(
            apply(net.clone(scan=True, remat=True), stacked, TOKENS)[0], out, rtol=1e-10, atol=1e-12
        )
        loss = lambda p, net: jnp.sum(net.apply(p, TOKENS)[0][..., :50] ** 2)
        one = net.clone(layers=1)
        first = {
            "params": params["params"] | dict(stack={k: inner[k] for k in ("layer_0", "last")})
        }
        slope = jax.jit(jax.grad(loss), static_argnums=1)
        plain, *again = (
            slope(first, one.clone(**changes))
            for changes in ({}, dict(remat=True), dict(remat=True, remat_policy="products"))
        )
        for grads in again:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), plain, grads
            )


def test_dropout_needs_a_key_and_is_determined_by_it():
    single = dict(dtype=jnp.float32, param_dtype=jnp.float32)
    net, params = decoder("gpt2", layers=1, dropout=0.5, **single)
    off = apply(net, params, TOKENS)[0]
    one, two, same = (
        apply(net, params, TOKENS, rngs={"dropout": jax.random.key(k)})[0] for k in (1, 2, 1)
    )
    assert (one != off).any() and (one != two).any() and (one == same).all()


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(heads=5), "is not divisible by heads"),
        (dict(kv_heads=3), "is not divisible by kv_heads"),
        (dict(position_encoding="rotary", width=12), "needs an even number"),
        (dict(dropout=1.0), "must be in"),
    ],
)
def test_invalid_decoder_settings_are_reported(wrong, words):
    assert (
        words
        in transformer.Decoder(
            **dict(width=32, heads=4, layers=2, vocabulary=50, context=16) | wrong
        ).config_error()
    )
