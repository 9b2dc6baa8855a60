"""Batch normalization: its closed form, where its statistics are stored, and the sums
that it uses.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import dataset, resolved, tiny

from aigc_jax import methods
from aigc_jax.core.rng import EVALUATE, fold_in, normal_by_index
from aigc_jax.methods.gan_networks import STANDING
from aigc_jax.methods.networks import make_network
from aigc_jax.models.gan_dcgan import DCGenerator
from aigc_jax.models.normalization import BatchNorm, normalize_channels
from aigc_jax.models.reductions import broadcast_leading, sum_leading
from aigc_jax.training import config as configs
from aigc_jax.training.compilation import ONCE, Program

pytestmark = pytest.mark.unit


def test_leading_sums_and_broadcasts_match_jax_to_second_derivatives():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.RandomState(0).randn(3, 4, 5, 2))
        b = x[0, 0, 0]
        np.testing.assert_allclose(sum_leading(x), x.sum((0, 1, 2)), rtol=1e-12)
        np.testing.assert_array_equal(broadcast_leading(b, x.shape), jnp.broadcast_to(b, x.shape))
        ours = lambda x, b: (sum_leading(jnp.sin(x * broadcast_leading(b, x.shape))) ** 3).sum()
        plain = lambda x, b: (jnp.sin(x * b).sum((0, 1, 2)) ** 3).sum()
        slope = lambda f: (
            lambda x, b: jax.tree.reduce(
                jnp.add, jax.tree.map(lambda g: (g**2).sum(), jax.grad(f, (0, 1))(x, b))
            )
        )
        for f, g in ((ours, plain), (slope(ours), slope(plain))):
            both = jax.jit(lambda x, b, f=f, g=g: [jax.grad(h, (0, 1))(x, b) for h in (f, g)])
            for a, e in zip(*both(x, b), strict=True):
                np.testing.assert_allclose(a, e, rtol=1e-9)


def test_batch_norm_matches_flax():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.RandomState(0).randn(6, 4, 4, 3) * [1, 2, 3] + [5, -1, 0])
        w = jnp.asarray(np.random.RandomState(1).randn(*x.shape))
        types = dict(dtype=jnp.float64, param_dtype=jnp.float64)
        mine = BatchNorm(**types)
        theirs = lambda train: nn.BatchNorm(
            use_running_average=not train, momentum=0.9, epsilon=1e-5, **types
        )
        variables = jax.jit(lambda x: mine.init(jax.random.key(0), x, True))(x)
        assert jax.tree.structure(variables) == jax.tree.structure(
            jax.eval_shape(theirs(True).init, jax.random.key(0), x)
        )
        params = jax.tree.map(lambda p: p + 0.3, variables["params"])

        def score(apply):
            def f(params, x):
                y, new = apply({"params": params, "batch_stats": variables["batch_stats"]}, x)
                return (jnp.sin(y) * w).sum(), (y, new)

            return jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(params, x)

        ours = score(lambda v, x: mine.apply(v, x, True, mutable=["batch_stats"]))
        expected = score(lambda v, x: theirs(True).apply(v, x, mutable=["batch_stats"]))
        # flax keeps float32 statistics
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), ours, expected
        )
        y = ours[0][1][0]
        np.testing.assert_allclose(y.mean((0, 1, 2)), 0.3, atol=1e-12)
        variables = dict(params=params, batch_stats=ours[0][1][1]["batch_stats"])
        both = jax.jit(lambda v, x: (mine.apply(v, x, False), theirs(False).apply(v, x)))
        np.testing.assert_allclose(*both(variables, x), rtol=1e-6)


def plain_normalization(x, scale, bias, epsilon):
    """`normalize_channels` as JAX differentiates it."""
    axes = tuple(range(x.ndim - 1))
    mean, var = x.mean(axes), x.var(axes)
    return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias, mean, var


@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (2, 37, 1, 2), (7, 3)])
def test_normalization_has_the_derivatives_of_its_formula(shape):
    """First and second ones (a gradient penalty), of all arguments and results, for
    three trials at once.
    """
    random = np.random.RandomState(0)

    def outcomes(normalize, *args):
        outputs = lambda *args: [jnp.sin(y).sum() for y in normalize(*args, 1e-2)]
        value = lambda *args: sum(w * y for w, y in zip((1, 2, 3), outputs(*args), strict=True))
        slope = lambda x, *rest: (jax.grad(value)(x, *rest) ** 2).sum()
        pull = jax.vjp(lambda *args: normalize(*args, 1e-2)[0], *args)[1]
        return [jax.grad(f, (0, 1, 2))(*args) for f in (value, slope)], pull(args[0])

    with jax.enable_x64(True):
        args = [jnp.asarray(random.randn(3, *s)) + 1 for s in (shape, shape[-1:], shape[-1:])]
        args[1] = args[1].at[0, 0].set(0)
        both = jax.jit(
            lambda *args: [
                jax.vmap(functools.partial(outcomes, f))(*args)
                for f in (normalize_channels, plain_normalization)
            ]
        )
        for a, b in zip(*map(jax.tree.leaves, both(*args)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)


def test_bfloat16_is_normalized_by_float32_moments():
    x = jnp.asarray(np.random.RandomState(0).randn(64, 4, 4, 3) + 100, jnp.bfloat16)
    net = BatchNorm(dtype=jnp.bfloat16)
    variables = net.init(jax.random.key(0), x, True)
    score = lambda x: net.apply(variables, x, True, mutable=["batch_stats"])
    y, pull, new = jax.vjp(score, x, has_aux=True)
    exact = np.asarray(x, np.float64)
    assert y.dtype == pull(y)[0].dtype == jnp.bfloat16
    stats = new["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * exact.var((0, 1, 2)), rtol=1e-5)
    expected = (exact - exact.mean((0, 1, 2))) / exact.std((0, 1, 2))
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=0.01, atol=0.01)


def test_normalization_in_a_loop_stores_only_what_it_needs():
    """The bytes that XLA accesses, over those of x. Forward: the moments read x twice,
    u reads x and is stored, the result reads u and is stored. Back: the sums read g
    twice and u once; the gradient reads x, u and g, and the new x is stored. With two
    of the loop's copy of x these are 15.
    """
    args = jnp.ones((32, 14, 14, 64)), jnp.ones(64), jnp.ones(64)

    def once(i, args):
        y, pull = jax.vjp(lambda *args: normalize_channels(*args, 1e-5)[0], *args)
        return tuple(a - g for a, g in zip(args, pull(jnp.tanh(y)), strict=True))

    loop = Program(jax.jit(lambda n, args: jax.lax.fori_loop(0, n, once, args)))
    loop.start_compiling(3, args)
    costs = loop.wait_for_executable().cost_analysis()
    assert costs["bytes accessed"] / args[0].nbytes < 15.5


def begun(**more):
    """A method and its config, and the arguments of its `init`."""
    both = dict(model__d__channels=(4, 4), model__g__norm="batch", model__d__norm="batch")
    config = resolved(tiny("gan_conv", **both | more))
    hp = {k: jnp.float32(v) for k, v in configs.resolve_hparams(config).items()}
    return methods.make_method(config, dataset(config).spec), config, (jax.random.key(0), hp)


@functools.cache
def trial():
    """A compiled method, its fresh state, and a batch of 16 digits."""
    method, config, args = begun()
    ds = dataset(config)
    batch = ds.take(ds.arrays, np.arange(16)) | dict(index=jnp.arange(16))
    state = Program(jax.jit(method.init), ONCE)(*args)
    return (
        method._replace(
            step=jax.jit(method.step), samplers=dict(prior=jax.jit(method.samplers["prior"]))
        ),
        state,
        batch,
        config,
    )


def test_running_statistics_are_updated_from_the_batch():
    method, state, batch, config = trial()
    after, _ = method.step(state, batch)
    # The input of the generator's first normalization is z W, as 2x2 images of 4
    # channels: momentum 0.9, from mean 0 and variance 1.
    z = normal_by_index(fold_in(state.key, 0, 0), batch["index"], (config.latent_dim,))
    x = np.asarray(z @ state.params["g"]["Dense_0"]["kernel"], np.float64).reshape(-1, 4)
    stats = after.extra["stats"]["g"]["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], 0.1 * x.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * x.var(0), rtol=1e-4)
    # The discriminator's only normalization: the real batch, then the generated one.
    assert set(after.extra["stats"]["d"]["batch_stats"]) == {"BatchNorm_0"}


def test_averaged_generator_is_normalized_by_its_own_statistics():
    method, state, batch, config = trial()
    state, _ = method.step(state, batch)
    # far from the raw parameters
    state = state.replace(
        extra=state.extra | dict(ema=jax.tree.map(lambda p: 3 * p + 0.1, state.extra["ema"]))
    )
    net = make_network(DCGenerator, config.model.g, "model.g", config, shape=(8, 8, 1))
    # with the noise that determines the statistics, sampling equals training
    key = fold_in(state.key, EVALUATE)
    variables = dict(params=state.extra["ema"], **state.extra["stats"]["g"])
    index = jnp.arange(STANDING)

    @jax.jit
    def both(variables):
        z = normal_by_index(key, index, (config.latent_dim,))
        expected, _ = net.apply(variables, z, True, mutable=["batch_stats"])
        return expected, net.apply(variables, z, False)

    expected, running = both(variables)
    np.testing.assert_allclose(
        method.samplers["prior"](state, key, dict(index=index)), expected, atol=1e-5
    )
    # running statistics would give different samples
    assert np.abs(expected - running).max() > 0.1


def test_training_normalizes_by_the_batch_and_sampling_does_not():
    method, state, batch, _ = trial()
    key = jax.random.key(1)
    draw = lambda n: method.samplers["prior"](state, key, jax.tree.map(lambda x: x[:n], batch))
    # a sample does not depend on the rest of the batch
    np.testing.assert_allclose(draw(4), draw(16)[:4], atol=1e-6)
    other = batch | dict(x=np.concatenate([batch["x"][:8], 0 * batch["x"][8:]]))
    a, b = (
        method.step(state, x)[0].extra["stats"]["d"]["batch_stats"]["BatchNorm_0"]["mean"]
        for x in (batch, other)
    )
    assert (a != b).all()


def test_normalized_layers_have_no_bias_and_plain_networks_no_statistics():
    method, _, args = begun()
    state = jax.eval_shape(method.init, *args)
    assert {name for name, layer in state.params["g"].items() if "bias" in layer} == {
        "BatchNorm_0",
        "BatchNorm_1",
        "ConvTranspose_1",
    }
    assert {name for name, layer in state.params["d"].items() if "bias" in layer} == {
        "BatchNorm_0",
        "Conv_0",
        "Dense_0",
    }
    method, _, args = begun(model__g__norm="none", model__d__norm="none")
    plain = jax.eval_shape(method.init, *args)
    assert not jax.tree.leaves(plain.extra["stats"])
    assert all("bias" in layer for net in plain.params.values() for layer in net.values())
