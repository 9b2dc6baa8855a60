"""Convolutions against jax.lax and Flax: values, first and second derivatives, vmap
over trials, loops.
"""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound_memory

from aigc_jax.models import conv

NHWC = ("NHWC", "HWIO", "NHWC")


def lax_conv(x, w, strides, padding):
    return jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=NHWC)


def lax_conv_then_means(x, w, strides, padding):
    return nn.avg_pool(lax_conv(x, w, (1, 1), padding), strides, strides)


def lax_conv_of_repeated(x, w, strides, padding):
    return lax_conv(x.repeat(strides[0], 1).repeat(strides[1], 2), w, (1, 1), padding)


KINDS = {
    "conv": (conv.conv, lax_conv),
    "conv_transpose": (conv.conv_transpose, lambda x, w, s, p: jax.lax.conv_transpose(x, w, s, p)),
    "conv_mean_pool": (conv.conv_mean_pool, lax_conv_then_means),
    "upsample_conv": (conv.upsample_conv, lax_conv_of_repeated),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def arrays(*shapes, seed=0):
    random = np.random.RandomState(seed)
    return [jnp.array(random.randn(*shape)) for shape in shapes]


def outcomes(f, x, w, strides, padding):
    """The output and both gradients, for a fixed cotangent."""
    shape = jax.eval_shape(lambda: f(x, w, strides, padding)).shape
    (v,) = arrays(shape, seed=1)
    y, pull = jax.vjp(lambda x, w: f(x, w, strides, padding), x, w)
    return (y, *pull(v))


def cases(thorough):
    """Kernels 1 to 7, strides 1 to 4, odd and even sizes, and several numbers of
    channels.
    """
    kernels = [(1, 1), (2, 3), (3, 3), (4, 4), (5, 5), (6, 2), (7, 7)]
    strides = [(1, 1), (2, 2), (3, 3), (4, 4), (2, 1), (3, 4)]
    random = np.random.RandomState(0)
    paddings = ("SAME", "VALID")
    every = itertools.product(kernels, strides, paddings)
    # each kernel once, cycling through all strides and paddings
    some = zip(kernels, itertools.cycle(strides), itertools.cycle(paddings), strict=False)
    for kernel, stride, padding in every if thorough else some:
        size = tuple(random.randint(7, 11, 2).tolist())
        yield (
            size,
            kernel,
            stride,
            padding,
            int(random.choice([1, 3, 4])),
            int(random.choice([1, 2, 5])),
        )


@every_kind
@pytest.mark.parametrize(
    "thorough", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_values_and_both_gradients_equal_lax(kind, thorough):
    every = list(cases(thorough))
    larger = 3 * (kind == "conv_mean_pool")  # every case has a complete block
    for start in range(0, len(every), 7):  # one program per seven cases
        some = every[start : start + 7]
        bound_memory()
        given = [
            arrays((2, *(n + larger for n in size), c), (*kernel, c, o))
            for size, kernel, _, _, c, o in some
        ]

        def all_outcomes(f, given, some=some):
            return [
                outcomes(f, x, w, strides, padding)
                for (x, w), (_, _, strides, padding, _, _) in zip(given, some, strict=True)
            ]

        mine, lax = (jax.jit(functools.partial(all_outcomes, f))(given) for f in KINDS[kind])
        for case, ours, theirs in zip(some, mine, lax, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=str(case))


PADDINGS = [
    ((3, 0), (4, 5)),
    ((-1, 2), (2, -1)),
    *(pytest.param(p, marks=pytest.mark.slow) for p in ("SAME", "VALID", 0, 1, (2, 1))),
]


@pytest.mark.parametrize("kind", ["conv", "conv_transpose"])
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_layers_equal_flax_for_every_padding(kind, padding):
    """Values and gradients by kernel and input, of several layers in one program."""
    layers = dict(conv=(conv.Conv, nn.Conv), conv_transpose=(conv.ConvTranspose, nn.ConvTranspose))[
        kind
    ]
    shapes = [((4, 3), (2, 2)), ((1, 2), (3, 2)), ((3, 5), (1, 2))]
    x, *kernels, bias = arrays((1, 6, 5, 3), *((*kernel, 3, 2) for kernel, _ in shapes), (2,))

    def outcome(layer, x, w, strides):
        net = layer(2, w.shape[:2], strides=strides, padding=padding, param_dtype=jnp.float64)
        f = lambda x, w: net.apply(dict(params=dict(kernel=w, bias=bias)), x)
        return f(x, w), jax.grad(lambda x, w: (f(x, w) ** 2).sum(), (0, 1))(x, w)

    both = jax.jit(
        lambda x, kernels: [
            [outcome(layer, x, w, s) for w, (_, s) in zip(kernels, shapes, strict=True)]
            for layer in layers
        ]
    )
    for a, b in zip(*map(jax.tree.leaves, both(x, kernels)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layer", [conv.Conv, conv.ConvTranspose])
def test_unsupported_flax_paddings_are_refused(layer):
    (x,) = arrays((1, 4, 4, 1))
    with pytest.raises(ValueError, match="'CIRCULAR' is none of 'SAME', 'VALID'"):
        layer(1, (3, 3), padding="CIRCULAR").init(jax.random.key(0), x)


@every_kind
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_second_derivatives_equal_lax(kind, strides):
    """A gradient penalty: the kernel's gradient of the squared image gradient."""
    x, w = arrays((2, 6, 7, 3), (5, 4, 3, 2))

    def penalty(f):
        def slope(x, w):
            return jax.grad(lambda x: jnp.tanh(f(x, w, strides, "SAME")).sum())(x)

        return jax.grad(lambda x, w: (slope(x, w) ** 2).sum(), (0, 1))

    both = jax.jit(lambda x, w: [penalty(f)(x, w) for f in KINDS[kind]])
    for a, b in zip(*both(x, w), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@every_kind
def test_vmapped_trials_equal_separate_trials(kind):
    mine = KINDS[kind][0]
    x, w = arrays((4, 2, 7, 7, 3), (4, 5, 5, 3, 2))
    one = lambda x, w: outcomes(mine, x, w, (2, 2), "SAME")
    group, alone = jax.jit(jax.vmap(one))(x, w), jax.jit(one)
    for i in range(4):
        for a, b in zip(group, alone(x[i], w[i]), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-12, atol=1e-12)


@every_kind
def test_gradient_descent_in_a_dynamic_loop_equals_separate_steps(kind):
    mine = KINDS[kind][0]
    x, w = arrays((2, 7, 7, 3), (3, 3, 3, 3))

    def descend(w, n):
        return jax.lax.fori_loop(
            0, n, lambda i, w: w - 0.01 * outcomes(mine, x, w, (2, 2), "SAME")[2], w
        )

    by_hand, once = w, jax.jit(lambda w: w - 0.01 * outcomes(mine, x, w, (2, 2), "SAME")[2])
    for _ in range(3):
        by_hand = once(by_hand)
    np.testing.assert_allclose(jax.jit(descend)(w, 3), by_hand, rtol=1e-12)


@pytest.mark.parametrize(
    "pair",
    [(conv.Conv, nn.Conv), (conv.ConvTranspose, nn.ConvTranspose)],
    ids=["Conv", "ConvTranspose"],
)
@pytest.mark.parametrize(
    "more",
    [
        dict(),
        pytest.param(dict(strides=(2, 2)), marks=pytest.mark.slow),
        dict(strides=(2, 2), padding="VALID", use_bias=False),
    ],
)
def test_modules_match_parameters_and_results_of_flax(pair, more):
    (x,) = arrays((2, 8, 9, 3))
    for dtype in (jnp.float32, jnp.float64):
        mine, theirs = (
            module(features=4, kernel_size=(5, 4), dtype=dtype, param_dtype=dtype, **more)
            for module in pair
        )

        @jax.jit
        def outcome(x, mine=mine, theirs=theirs):
            a, b = (net.init(jax.random.key(0), x) for net in (mine, theirs))
            return a, b, mine.apply(b, x), theirs.apply(b, x)

        a, b, ours, flax = outcome(x)
        jax.tree.map(np.testing.assert_array_equal, a, b)  # names, shapes and initial values
        assert {p.dtype for p in jax.tree.leaves(a)} == {jnp.dtype(dtype)}
        tolerance = 1e-12 if dtype == jnp.float64 else 2e-5
        np.testing.assert_allclose(ours, flax, rtol=tolerance, atol=tolerance)
