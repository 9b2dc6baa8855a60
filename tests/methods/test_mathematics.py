"""Losses, optimisers, schedules, gradients and metrics against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from aigc_jax.core import axes, rng
from aigc_jax.core.gradients import mean_gradients
from aigc_jax.methods import optimizers, schedules
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.metrics import METRICS
from aigc_jax.metrics.frechet import downsample_by_area, squared_frechet_distance
from aigc_jax.metrics.inputs import MetricInputs
from aigc_jax.metrics.mode_coverage import modes
from aigc_jax.models import gan_dcgan as networks
from aigc_jax.utils.errors import UserError


def test_schedules_warm_up_and_decay():
    for name, schedule in schedules.SCHEDULES.items():
        assert float(schedule(0, 100, 10)) == pytest.approx(0.1), name
        # the Burda schedule ignores the warm-up: epoch 295 of 3,280 is in stage 5
        peak = 10 ** (-5 / 7) if name == "burda" else 1.0
        assert float(schedule(9, 100, 10)) == pytest.approx(peak), name
        assert float(schedule(0, 100, 0)) == pytest.approx(1.0), name
    assert float(schedules.SCHEDULES["cosine"](55, 100, 10)) == pytest.approx(0.5)
    assert float(schedules.SCHEDULES["linear"](55, 100, 10)) == pytest.approx(0.5)
    assert float(schedules.SCHEDULES["constant"](10**6, 100, 10)) == 1
    assert float(schedules.SCHEDULES["cosine"](100, 100, 10)) == pytest.approx(0, abs=1e-7)


def config_of(optimizer, **more):
    return ConfigDict(
        dict(
            optimizer=optimizer,
            steps=100,
            frozen="",
            optimizer_dtype="",
            schedule=dict(name="constant", warmup=0),
            run=dict(log_norms="none"),
        )
        | more
    )


def test_adam_matches_its_formula_without_recompiling_per_rate():
    make = optimizers.make_optimizer(config_of("adam"))
    hp = dict(beta1=0.5, beta2=0.9)
    grads = np.random.RandomState(0).randn(6, 3)
    p, m, v = np.ones(3), np.zeros(3), np.zeros(3)
    for t, g in enumerate(grads, 1):
        m, v = 0.5 * m + 0.5 * g, 0.9 * v + 0.1 * g**2
        p = p - 0.01 * (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)

    @jax.jit
    def update(lr, hp, params, opt, g, step):
        return optimizers.apply_gradients(make(lr, hp, step), g, opt, params)

    params = jnp.ones(3)
    opt = make(0.01, hp, 0).init(params)
    for step, g in enumerate(grads):
        params, opt = update(0.01, hp, params, opt, jnp.array(g), step)
    np.testing.assert_allclose(params, p, rtol=1e-5)
    assert update._cache_size() == 1
    update(0.02, dict(beta1=0.9, beta2=0.99), params, opt, jnp.ones(3), 7)
    assert update._cache_size() == 1  # rates are traced: the second call does not recompile


def test_adamw_clips_the_global_norm_and_decays_kernels_and_embeddings():
    """One step from zero moments is the learning rate times the sign of the gradient;
    kernels and embeddings also decay by the learning rate times the weight decay.
    """
    one = jnp.full(1, 3.0)
    params = dict(
        Dense_0=dict(kernel=jnp.full(2, 3.0), bias=one),
        embed=dict(embedding=one),
        norm=dict(scale=one),
    )
    grads = jax.tree.map(lambda p: 100 * jnp.ones_like(p), params)
    rule = optimizers.OPTIMIZERS["adamw"].make(
        0.1, dict(beta1=0.9, beta2=0.99, grad_clip=1e-6, weight_decay=0.5)
    )
    new, _ = jax.jit(lambda p, g: optimizers.apply_gradients(rule, g, rule.init(p), p))(
        params, grads
    )
    # clipped to a norm of 1e-6, each of the five gradients is 1e-6 / sqrt(5), and
    # Adam's epsilon 1e-8 shrinks the step a little
    move = 0.1 * (1e-6 / 5**0.5) / (1e-6 / 5**0.5 + 1e-8)
    for name, decay in (("kernel", 0.15), ("bias", 0.0)):
        np.testing.assert_allclose(new["Dense_0"][name], 3.0 - move - decay, rtol=1e-5)
    np.testing.assert_allclose(new["embed"]["embedding"], 3.0 - move - 0.15, rtol=1e-5)
    np.testing.assert_allclose(new["norm"]["scale"], 3.0 - move, rtol=1e-5)


def test_gelu_and_its_derivative_match_the_formula():
    from aigc_jax.models.layers import gelu

    x = np.concatenate([np.linspace(-8, 8, 301), [-1e3, -30.0, 30.0, 1e3]])
    u, slope = (
        np.sqrt(2 / np.pi) * (x + 0.044715 * x**3),
        np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2),
    )
    value, derivative = (
        0.5 * x * (1 + np.tanh(u)),
        0.5 * (1 + np.tanh(u)) + 0.5 * x * (1 - np.tanh(u) ** 2) * slope,
    )
    np.testing.assert_allclose(gelu(jnp.float32(x)), value, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(gelu))(jnp.float32(x)), derivative, atol=1e-6, rtol=1e-6
    )


def test_clipping_matches_optax():
    grads = dict(a=jnp.arange(6.0).reshape(2, 3), b=jnp.array([-7.0]))
    for most in (0.5, 20.0):
        ours, theirs = (
            rule.update(grads, rule.init(grads))[0]
            for rule in (optimizers.clip_by_global_norm(most), optax.clip_by_global_norm(most))
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


def test_cross_entropy_matches_its_definition_with_label_smoothing():
    """With and without smoothing; padded logits of the vocabulary have no effect."""
    logits = jnp.concatenate([jnp.array([[1.0, -0.5, 2.0, 0.3]]), jnp.full((1, 4), -1e9)], axis=1)
    p = np.exp(np.array([1.0, -0.5, 2.0, 0.3]))
    p /= p.sum()
    np.testing.assert_allclose(
        token_losses.cross_entropy(logits, jnp.array([2]), 0.0, 4), [-np.log(p[2])], rtol=1e-6
    )
    target = 0.9 * np.eye(4)[2] + 0.1 / 4
    np.testing.assert_allclose(
        token_losses.cross_entropy(logits, jnp.array([2]), 0.1, 4),
        [-(target * np.log(p)).sum()],
        rtol=1e-6,
    )
    for smoothing, goal in ((0.0, np.eye(4)[2]), (0.1, target)):
        loss = lambda x, s=smoothing: token_losses.cross_entropy(x, jnp.array([2]), s, 4).sum()
        grad = jax.jit(jax.grad(loss))(logits)
        np.testing.assert_allclose(grad[0], np.append(p - goal, np.zeros(4)), atol=1e-6)
    wide = jnp.asarray(np.random.RandomState(0).randn(3, 384), jnp.float32)
    plain = -jax.nn.log_softmax(wide)[jnp.arange(3), jnp.arange(3)]
    np.testing.assert_allclose(
        token_losses.cross_entropy(wide, jnp.arange(3), 0.0, 384), plain, rtol=1e-5
    )


def test_inverse_sqrt_schedule_matches_the_paper():
    """Vaswani et al. 2017, eq. 3, divided by its peak."""
    rate = [
        float(schedules.inverse_sqrt(jnp.int32(s - 1), 1000, 40)) for s in (1, 20, 40, 160, 640)
    ]
    np.testing.assert_allclose(rate, [1 / 40, 0.5, 1.0, 0.5, 0.25], rtol=1e-6)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_minimizes_a_parabola(name):
    make = optimizers.make_optimizer(config_of(name))
    hp = dict(beta1=0.5, beta2=0.99, grad_clip=100.0, weight_decay=0.0)
    # Adagrad's steps shrink as 1 / sqrt(t): 200 steps cover about 28 learning rates
    rate = 0.5 if name == "adagrad" else 0.05
    params = dict(kernel=jnp.array([3.0, -2.0]))

    @jax.jit
    def descend(params):
        def once(step, carry):
            params, opt = carry
            slope = jax.tree.map(lambda p: 2 * p, params)
            return optimizers.apply_gradients(make(rate, hp, step), slope, opt, params)

        return jax.lax.fori_loop(0, 200, once, (params, make(rate, hp, 0).init(params)))[0]

    params = descend(params)
    assert float(optax.tree.norm(params)) < 0.2


def test_parameter_average_decays_at_the_ema_rate():
    mean = {"w": jnp.array([1.0])}
    for step in range(1000, 1003):
        mean = optimizers.update_ema(mean, {"w": jnp.array([0.0])}, 0.9, step)
    assert float(mean["w"][0]) == pytest.approx(0.9**3)


@pytest.mark.parametrize("steps", [20, 200])
def test_parameter_average_of_a_short_run_covers_its_last_tenth(steps):
    mean = {"w": jnp.array([1000.0])}  # untrained
    for step in range(steps):
        mean = optimizers.update_ema(mean, {"w": jnp.array([float(step)])}, 0.9999, step)
    assert 0 < steps - 1 - float(mean["w"][0]) < steps / 9 + 1


def quadratic(params, batch, key):
    value = (
        (batch["x"] @ params["w"] + rng.normal_by_index(key, batch["index"], (), jnp.float64)) ** 2
    ).mean()
    return value, dict(loss=value)


BATCH = dict(x=np.random.RandomState(1).randn(12, 3), index=np.arange(12))


@pytest.mark.parametrize("parts", [1, 2, 3, 12])
def test_gradient_accumulation_equals_one_batch(parts):
    with jax.enable_x64(True):
        params, key = dict(w=jnp.array([0.3, -1.0, 2.0])), jax.random.key(3)
        whole = mean_gradients(quadratic, params, BATCH, key)
        some = mean_gradients(quadratic, params, BATCH, key, grad_accumulation_steps=parts)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), some, whole)
        residual = BATCH["x"] @ np.array(params["w"]) + rng.normal_by_index(
            key, BATCH["index"], (), jnp.float64
        )
        np.testing.assert_allclose(
            whole[0]["w"], 2 * (BATCH["x"] * np.array(residual)[:, None]).mean(0), rtol=1e-6
        )


def test_gradients_averaged_over_a_mapped_axis_equal_one_batch():
    with jax.enable_x64(True):
        params, key = dict(w=jnp.array([0.3, -1.0, 2.0])), jax.random.key(3)
        gradients = lambda *_: mean_gradients(quadratic, params, BATCH, key)
        with axes.data_axis("data"):  # each index processes its part of the batch
            mapped = jax.jit(jax.vmap(gradients, axis_name="data"))(jnp.arange(4))
        whole = jax.jit(gradients)()
        for i in range(4):
            jax.tree.map(
                lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-12), mapped, whole
            )


def test_noise_is_standard_normal_and_keyed_by_index():
    key = jax.random.key(0)
    z = np.asarray(rng.normal_by_index(key, jnp.arange(4000), (5,)))
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    # bitwise equal in jax 0.12
    np.testing.assert_allclose(
        rng.normal_by_index(key, jnp.array([7, 3]), (5,)), z[[7, 3]], rtol=1e-6
    )
    assert len(np.unique(z)) > 0.99 * z.size


def test_frechet_between_gaussians_with_known_moments():
    random = np.random.RandomState(0)
    a = random.randn(500, 4) @ random.randn(4, 4)
    assert squared_frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert squared_frechet_distance(a, a + [1, 2, 0, 0]) == pytest.approx(5)
    # commuting covariances
    assert squared_frechet_distance(a, 3 * a) == pytest.approx(
        4 * (a.mean(0) ** 2).sum() + 4 * np.trace(np.cov(a.T))
    )
    b = random.randn(400, 4) @ random.randn(4, 4)
    assert squared_frechet_distance(a, b) == pytest.approx(squared_frechet_distance(b, a))
    from scipy.linalg import sqrtm

    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    direct = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real
    )
    assert squared_frechet_distance(a, b) == pytest.approx(direct, rel=1e-9)


def test_frechet_with_fewer_samples_than_dimensions():
    x = np.random.RandomState(0).randn(20, 100).astype(np.float32)
    assert squared_frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert math.isnan(squared_frechet_distance(np.full((3, 2), np.nan), x[:, :2]))


def test_area_average_preserves_means_and_small_images():
    x = np.random.RandomState(0).randn(3, 40, 40, 3)
    small = downsample_by_area(x)
    assert small.shape == (3, 18 * 18 * 3)
    np.testing.assert_allclose(small.reshape(3, 18, 18, 3).mean((1, 2)), x.mean((1, 2)))
    np.testing.assert_array_equal(downsample_by_area(x[:, :8, :8]), x[:, :8, :8].reshape(3, -1))
    np.testing.assert_allclose(
        downsample_by_area(np.arange(64.0 * 64).reshape(1, 64, 64, 1)).reshape(32, 32)[0, 0],
        (0 + 1 + 64 + 65) / 4,
    )


def metric_inputs(samples, real=None, spec=None):
    """`MetricInputs` of a trial whose only sampler returns these samples."""
    return MetricInputs(lambda what: samples, "test", lambda split: dict(x=real), spec, None)


def test_diversity_is_the_ratio_of_mean_distances():
    from scipy.spatial.distance import pdist

    random = np.random.RandomState(0)
    real = random.randn(70, 5, 4, 3).astype(np.float32) + 100
    ratio = lambda samples: METRICS["diversity"](metric_inputs(samples, real))["diversity"]
    assert ratio(real) == pytest.approx(1)
    assert ratio(3 * real[:50] - 7) == pytest.approx(
        3 * pdist(real[:50].reshape(50, -1)).mean() / pdist(real.reshape(70, -1)).mean(), rel=1e-5
    )
    assert ratio(np.repeat(real[:1], 60, 0)) == pytest.approx(0, abs=1e-6)  # collapsed
    assert math.isnan(ratio(np.full_like(real, np.nan))) and math.isnan(ratio(real[:1]))


class Spec:
    kind = "points"
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    sigma = 0.1


def test_modes_of_hand_made_samples():
    samples = np.array([[0.0, 0.29], [10.1, 0.0], [9.0, 9.0], [0.0, 0.0]])
    got = modes(metric_inputs(samples, spec=Spec))
    assert got["modes"] == 2 and got["high_quality"] == 0.75
    share = np.array([2, 1, 1]) / 4
    assert got["reverse_kl"] == pytest.approx((share * np.log(share * 4)).sum())


def test_modes_distinguishes_good_collapsed_and_noisy_samples():
    random = np.random.RandomState(0)
    real = Spec.centres[random.randint(4, size=2500)] + 0.1 * random.randn(2500, 2)
    good = modes(metric_inputs(real, spec=Spec))
    assert (
        good["modes"] == 4
        and good["high_quality"] == pytest.approx(1 - math.exp(-4.5), abs=0.01)
        and good["reverse_kl"] < 0.01
    )
    one = modes(metric_inputs(np.zeros((2500, 2)), spec=Spec))
    assert one == dict(modes=1, high_quality=1, reverse_kl=pytest.approx(math.log(4)))
    noise = modes(metric_inputs(5 + 5 * random.randn(2500, 2), spec=Spec))
    assert noise["high_quality"] < 0.05
    broken = modes(metric_inputs(np.full((10, 2), np.nan), spec=Spec))
    assert broken["modes"] == 0 and math.isnan(broken["reverse_kl"])


def test_modes_refuses_data_without_modes():
    class Pictures:
        centres = None

    with pytest.raises(UserError, match="ring"):
        METRICS["modes"](metric_inputs(None, spec=Pictures))


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(
    "size, layers",
    [
        (8, (6,)),
        (12, (6,)),
        (28, (6, 12)),
        (32, (6, 12, 24)),
        (64, (6, 12, 24, 48)),
        (96, (6, 12, 24, 48)),
        (128, (6, 12, 24, 48, 48)),
    ],
)
def test_dcgan_depth_follows_the_image_size(size, colours, layers):
    shape = (size, size, colours)
    plain = dict(shape=shape, kernel=5, activation="relu", width=6)
    for last_stride in (1, 2):
        g = networks.DCGenerator(output="tanh", last_stride=last_stride, **plain)
        expected = layers[: len(layers) - (last_stride > 1)][::-1]
        if not expected:
            assert "cannot be halved" in g.config_error()
            continue
        assert (
            g.config_error() == ""
            and g.layer_channels == expected
            and 4 <= size // g.side_ratio < 8
        )
        out, variables = jax.eval_shape(
            lambda g=g: g.init_with_output(jax.random.key(0), jnp.zeros((2, 10)))
        )
        assert out.shape == (2, *shape) and variables["params"]["Dense_0"]["kernel"].shape == (
            10,
            (size // g.side_ratio) ** 2 * g.layer_channels[0],
        )
    d = networks.DCDiscriminator(**plain)
    assert d.config_error() == "" and d.layer_channels == layers
    out, _ = jax.eval_shape(lambda: d.init_with_output(jax.random.key(0), jnp.zeros((2, *shape))))
    assert out[0].shape == (2,)


def test_dcgan_dense_layers_are_mlps_at_the_noise_and_at_the_logit():
    """The generator equals the one without dense layers on relu(z W + b); the
    discriminator's logit is linear in relu(features W + b).
    """
    plain = dict(shape=(8, 8, 1), kernel=3, activation="relu", channels=(4,))
    g = {dense: networks.DCGenerator(output="tanh", dense=dense, **plain) for dense in ((), (7,))}

    @jax.jit
    def generated(z):
        params = g[7,].init(jax.random.key(1), z)["params"]
        hidden = jax.nn.relu(z @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
        rest = {k: v for k, v in params.items() if k != "Dense_1"}
        rest |= dict(Dense_0=params["Dense_1"])
        return g[7,].apply({"params": params}, z), g[()].apply({"params": rest}, hidden)

    np.testing.assert_allclose(*generated(jax.random.normal(jax.random.key(0), (5, 3))), atol=1e-6)

    d, bare = (networks.DCDiscriminator(dense=dense, **plain) for dense in ((7,), ()))

    @jax.jit
    def both_logits(x):
        params = d.init(jax.random.key(3), x)["params"]
        # the features: logits of the network without a dense layer, one at a time
        eye = np.eye(4 * 4 * 4, dtype=np.float32)[:, :, None]
        one = lambda column: bare.apply(
            {
                "params": dict(
                    Conv_0=params["Conv_0"], Dense_0=dict(kernel=column, bias=np.zeros(1))
                )
            },
            x,
        )[0]
        features = jax.vmap(one, out_axes=1)(eye)
        hidden = jax.nn.relu(features @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
        logits = (hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"])[:, 0]
        return d.apply({"params": params}, x)[0], logits

    x = jax.random.normal(jax.random.key(2), (5, 8, 8, 1))
    np.testing.assert_allclose(*both_logits(x), atol=1e-5)
