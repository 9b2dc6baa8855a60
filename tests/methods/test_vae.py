"""Variational autoencoders: bounds, exact likelihoods of linear models, gradients,
images of the latents, invalid input.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from scipy.special import ndtri
from tiny_configs import tiny

from aigc_jax import methods
from aigc_jax.core import mesh, sharding
from aigc_jax.core.method import Method
from aigc_jax.data.dataset import Spec
from aigc_jax.methods.latents import LATTICE, Model
from aigc_jax.methods.losses import latents as latent_losses
from aigc_jax.methods.vae import OBJECTIVES
from aigc_jax.metrics import METRICS
from aigc_jax.metrics.inputs import MetricInputs
from aigc_jax.training import config as configs
from aigc_jax.utils.errors import UserError

random = np.random.RandomState(0)
POINTS = Spec("points", (4,), 100)
GREY = Spec("image", (8, 8, 1), 100, classes=10, levels=16)
BLACK = Spec("image", (8, 8, 1), 100, levels=1)


def config(spec=GREY, hp=(), **changes):
    """The resolved config of a small VAE with these top-level keys and hp."""
    plain = configs.resolve_durations(tiny("vae"), spec.n_train, 16).to_dict()
    out = configs.ConfigDict(plain | {k: v for k, v in changes.items() if not isinstance(v, dict)})
    for section, values in changes.items():
        if isinstance(values, dict):
            out[section] = values
    out.hp = dict(plain["hp"]) | dict(hp)
    return out


def linear(z=(2,), **more):
    """A VAE of linear layers on points in 4 dimensions, with a fixed standard
    deviation.
    """
    return config(
        POINTS,
        hp=dict(sigma=0.4),
        latent_dims=z,
        model=dict(widths=((),) * len(z), activation="identity"),
        likelihood="gaussian",
        binarize="none",
        **more,
    )


def hp_of(c):
    return {k: jnp.asarray(v, jnp.float32) for k, v in configs.resolve_hparams(c).items()}


def randomized(method: Method, c, scale=0.5):
    """A state with every parameter drawn by NumPy, biases too: its program draws no
    random numbers and compiles faster.
    """
    r = np.random.RandomState(1)

    def fresh(key, hp):
        state = method.init(key, hp)
        draw = lambda x: jnp.asarray(scale * r.randn(*x.shape), x.dtype)
        return state.replace(params=jax.tree.map(draw, state.params))

    return jax.jit(fresh)(jax.random.key(0), hp_of(c))


def batch(spec, n=16, seed=2):
    r = np.random.RandomState(seed)
    x = (
        r.randn(n, *spec.shape)
        if spec.kind == "points"
        else 2 * r.randint(spec.levels + 1, size=(n, *spec.shape)) / spec.levels - 1
    )
    return dict(
        x=jnp.asarray(x, jnp.float32),
        index=jnp.arange(n),
        weight=jnp.ones(n),
        label=jnp.asarray(r.randint(10, size=n)),
    )


# -- bounds


def test_importance_weighted_bound_increases_from_the_elbo():
    log_w = jnp.asarray(random.randn(1, 9))
    np.testing.assert_allclose(latent_losses.iwae_bound(log_w), log_w[0])  # one draw: the ELBO
    many = jnp.asarray(2 * random.randn(64, 4000))
    sizes = (1, 2, 4, 8, 16, 32, 64)
    means = jax.jit(lambda many: [latent_losses.iwae_bound(many[:k]).mean() for k in sizes])
    values = list(map(float, means(many)))
    assert values == sorted(values) and values[0] < 0.2 and values[-1] > 1.5  # log E w = 2
    c = config(num_importance_samples=7)
    method = methods.make_method(c, GREY)
    state = randomized(method, c, 0.2)
    model = Model(c, GREY)

    @jax.jit
    def values_of(params, given):
        x, _ = model.images_and_labels(given, jax.random.key(0))
        out = {}
        for name, k in (("elbo", 1), ("iwae", 1), ("iwae", 7)):
            draws = model.sample_posterior(params, x, None, jax.random.key(5), jnp.arange(16), k)
            loss, log_p, gap = OBJECTIVES[name](model, params, state.hp, x, None, draws, 1.0)
            out[name, k] = -loss, (log_p - gap).mean()
        return out

    bound = {}
    for (name, k), value in values_of(state.params, batch(GREY)).items():
        bound[name, k], mean = map(float, value)
        assert k > 1 or bound[name, k] == pytest.approx(mean, rel=1e-5)
    # the two differ only by the closed form of the KL
    assert bound["iwae", 1] == pytest.approx(bound["elbo", 1], abs=1.0)
    assert bound["iwae", 7] > bound["iwae", 1]


def exact(state, x, layers, sigma):
    """log N(x; b, S) of a linear model: mean and covariance by layer."""
    params = state.params["net"]
    size = params[f"p_{layers - 1}"]["mean" if layers > 1 else "Dense_0"]["kernel"].shape[0]
    mean, cov = np.zeros(size), np.eye(size)
    for i in range(layers - 1, -1, -1):
        dense = params[f"p_{i}"]["mean" if i else "Dense_0"]
        w, b = np.float64(dense["kernel"]), np.float64(dense["bias"])
        noise = (
            np.diag(np.exp(np.float64(params[f"p_{i}"]["log_var"]["bias"])))
            if i
            else sigma**2 * np.eye(w.shape[1])
        )
        mean, cov = mean @ w + b, w.T @ cov @ w + noise
    return scipy.stats.multivariate_normal.logpdf(np.float64(x), mean, cov)


def flat_variances(params):
    """Parameters whose log variances do not depend on their inputs, so that a linear
    model is exactly Gaussian.
    """
    zero = lambda path, x: (
        jnp.zeros_like(x) if "'log_var'" in str(path) and "kernel" in str(path) else x
    )
    return jax.tree_util.tree_map_with_path(zero, params)


@pytest.mark.parametrize("z", [(2,), (3, 2)])
def test_importance_sampling_matches_the_likelihood_of_linear_models(z):
    c = linear(z, nll_samples=60_000)
    method, given = methods.make_method(c, POINTS), batch(POINTS, 6)

    @jax.jit
    # q approaches the true posterior; variances stay independent of their inputs
    def train(state):
        def step(_, state):
            state = method.step(state, given)[0]
            return state.replace(params=flat_variances(state.params))

        return jax.lax.fori_loop(0, 1500, step, state)

    state = randomized(method, c)
    state = train(state.replace(params=flat_variances(state.params)))
    estimate = jax.jit(method.samplers["log_likelihood"])(state, jax.random.key(7), given)
    truth = exact(state, given["x"], len(z), 0.4)
    np.testing.assert_allclose(np.mean(estimate), np.mean(truth), atol=1e-2)
    assert -float(jax.jit(method.evaluate)(state, given)["neg_elbo"]) < truth.sum()


def test_nll_metric_averages_the_log_likelihood_sampler():
    got = METRICS["nll"](
        MetricInputs(
            lambda what: np.array([-1.0, -3.0, -50.0]),
            "test",
            lambda split: dict(x=np.zeros((2, 1))),
            GREY,
            None,
        )
    )
    assert got == dict(nll=2.0, nll_error=pytest.approx(1.0))


def test_dreg_gradients_are_unbiased_with_lower_encoder_variance():
    """Over 4,000 draws: means of the decoder's and encoder's gradients agree within
    their errors; the encoder's vary less; the values are equal.
    """
    c = linear(num_importance_samples=4, objective="dreg")
    method = methods.make_method(c, POINTS)
    state = randomized(method, c, 0.3)
    model, x = Model(c, POINTS), batch(POINTS, 1)["x"]

    def value(name, params, key):
        draws = model.sample_posterior(params, x, None, key, jnp.arange(1), 4)
        return OBJECTIVES[name](model, params, state.hp, x, None, draws, 1.0)[0]

    keys = jax.random.split(jax.random.key(8), 4000)
    out = {
        name: jax.jit(
            jax.vmap(jax.value_and_grad(lambda p, k, name=name: value(name, p, k)), (None, 0))
        )(state.params, keys)
        for name in ("iwae", "dreg")
    }
    np.testing.assert_allclose(out["iwae"][0], out["dreg"][0], rtol=1e-4, atol=1e-5)
    spread = dict(iwae=0.0, dreg=0.0)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(out["iwae"][1]),
        jax.tree.leaves(out["dreg"][1]),
        strict=True,
    ):
        a, b = np.float64(a), np.float64(b)
        error = np.sqrt((a.var(0) + b.var(0)) / len(a)) + 1e-6
        assert (np.abs(a.mean(0) - b.mean(0)) < 5 * error).all(), path
        if "'q_0'" in str(path):
            spread["iwae"] += a.var(0).sum()
            spread["dreg"] += b.var(0).sum()
        else:
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert spread["dreg"] < 0.7 * spread["iwae"]


def test_beta_free_bits_and_penalties_are_in_the_loss():
    cases = dict(
        plain={},
        none=dict(hp=dict(beta=0.0)),
        more=dict(hp=dict(beta=4.0)),
        warm=dict(anneal=dict(name="linear", period=10)),
        free=dict(objective="free_bits", hp=dict(free_bits=50.0)),
        tc=dict(penalty="tc", hp=dict(penalty=3.0)),
        mmd=dict(penalty="mmd", hp=dict(penalty=3.0)),
    )
    made = {name: config(BLACK, binarize="none", **changes) for name, changes in cases.items()}
    state = randomized(methods.make_method(made["plain"], BLACK), made["plain"], 0.2)

    @jax.jit  # as one program, whose parts differ only in the losses
    def metrics_of(state, given, hps):
        return {
            name: methods.make_method(c, BLACK).step(state.replace(hp=hps[name]), given)[1]
            for name, c in made.items()
        }

    values = metrics_of(state, batch(BLACK), {name: hp_of(c) for name, c in made.items()})
    values = jax.tree.map(float, values)
    plain = values["plain"]
    assert plain["loss"] == pytest.approx(plain["reconstruction"] + plain["kl"], rel=1e-5)
    for name, beta in (("none", 0.0), ("more", 4.0)):
        got = values[name]
        assert got["loss"] == pytest.approx(plain["reconstruction"] + beta * plain["kl"], rel=1e-5)
    warm = values["warm"]
    assert warm["loss"] == pytest.approx(plain["reconstruction"] + 0.1 * plain["kl"], rel=1e-5)
    free = values["free"]
    assert free["loss"] == pytest.approx(plain["reconstruction"] + 150, rel=1e-5)
    for name in ("tc", "mmd"):
        got = values[name]
        assert (
            got["loss"] == pytest.approx(plain["loss"] + 3 * got[name], rel=1e-5) and got[name] != 0
        )


def test_active_units_are_latents_with_varying_means():
    c = config()
    method = methods.make_method(c, GREY)
    state = randomized(method, c)
    net = jax.tree.map(lambda x: x, state.params["net"])
    net["q_0"]["mean"]["kernel"] = net["q_0"]["mean"]["kernel"].at[:, 1].set(0.0)
    sums = jax.jit(method.evaluate)(state.replace(params=dict(net=net)), batch(GREY))
    assert method.summarize(jax.tree.map(np.float64, sums))["active_units"] == 2


def test_bits_per_dim_is_the_negative_elbo_per_pixel_in_bits():
    c = config(likelihood="logistic", binarize="none")
    method = methods.make_method(c, GREY)
    evaluated = jax.jit(lambda x: method.evaluate(method.init(jax.random.key(0), hp_of(c)), x))
    values = method.summarize(jax.tree.map(np.float64, evaluated(batch(GREY))))
    assert values["bits_per_dim"] == pytest.approx(values["neg_elbo"] / 64 / math.log(2))
    # random images of 17 levels have log2(17) bits per pixel
    assert values["bits_per_dim"] > math.log2(17) * 0.9


def test_dynamic_binarization_varies_by_key_and_is_fixed_in_evaluation():
    c = config()
    model, given = Model(c, GREY), batch(GREY, 4000)
    flat = given | dict(x=jnp.full_like(given["x"], -0.5))
    target = jax.jit(model.observation.make_targets)
    x = target(flat, jax.random.key(1))
    assert set(np.unique(x)) == {0, 1} and float(x.mean()) == pytest.approx(0.25, abs=0.005)
    assert (x != target(flat, jax.random.key(2))).any()
    method = methods.make_method(c, GREY)

    @jax.jit
    def reconstruct(key):
        return method.samplers["reconstruction"](method.init(key, hp_of(c)), key, given)[:, 0]

    a, b = (reconstruct(jax.random.key(seed)) for seed in (0, 1))
    assert (a == b).all()  # the same for every trial


def test_latents_are_sampled_from_the_posterior():
    c = config()
    method = methods.make_method(c, GREY)
    state, given = randomized(method, c, 0.2), batch(GREY, 2000)
    given = {k: jnp.repeat(v[:1], 2000, 0) if k == "x" else v for k, v in given.items()}
    black = given | dict(x=jnp.sign(given["x"] + 0.01))  # binarization is deterministic
    z, mean, log_var = np.moveaxis(
        np.asarray(jax.jit(method.samplers["latents"])(state, jax.random.key(0), black)), 1, 0
    )
    np.testing.assert_allclose(mean, mean[:1].repeat(2000, 0), atol=1e-6)
    standard = (z - mean) / np.exp(log_var / 2)
    np.testing.assert_allclose(standard.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(standard.std(0), 1, atol=0.1)


# -- images of the latents


def drawn(c, spec, what, n, seed=0):
    method = methods.make_method(c, spec)
    state = randomized(method, c)
    model = Model(c, spec)
    return (
        model,
        state,
        jax.jit(method.samplers[what])(state, jax.random.key(seed), dict(index=jnp.arange(n))),
    )


def test_manifold_decodes_normal_quantiles_of_a_grid():
    model, state, pictures = drawn(linear(), POINTS, "manifold", LATTICE**2)
    for at in (0, 7, LATTICE**2 - 1):
        z = ndtri((np.array([at % LATTICE, at // LATTICE]) + 0.5) / LATTICE)
        np.testing.assert_allclose(
            pictures[at],
            model.apply_method(state.params, "decode", 0, z[None])[0][0],
            rtol=1e-4,
            atol=1e-5,
        )
    assert model.make_samplers()["manifold"].grid == (LATTICE, LATTICE)
    assert "manifold" not in Model(config(), GREY).make_samplers()


def test_two_layers_of_unbounded_activations_have_finite_bounds():
    """The log variance of the second layer is linear in latents of any size."""
    wide = config(
        POINTS,
        hp=dict(sigma=0.4),
        latent_dims=(3, 2),
        model=dict(widths=((6,), (4,)), activation="gelu"),
        likelihood="gaussian",
        binarize="none",
    )
    model = methods.make_method(wide, POINTS)
    state = jax.jit(model.init)(jax.random.key(0), hp_of(wide))
    x = 100 * random.standard_normal((64, 4)).astype(np.float32)
    batch = dict(x=jnp.asarray(x), index=jnp.arange(64), weight=jnp.ones(64))
    sums = jax.jit(model.evaluate)(state, batch)
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(sums))
    assert sums["kl"] / 64 > 1e6  # far from any trained network
    part = dict(x=batch["x"][:16], index=jnp.arange(16))
    next_state, metrics = jax.jit(model.step)(state, part)
    assert all(np.isfinite(value).all() for value in jax.tree.leaves((next_state.params, metrics)))


def test_interpolation_starts_and_ends_at_prior_samples():
    model, state, pictures = drawn(linear(), POINTS, "interpolation", 16)
    key = jax.random.key(0)
    ends = [
        model.sample_prior(state.params, jax.random.fold_in(key, jnp.uint32(i)), jnp.arange(2))
        for i in (0, 1)
    ]
    decoded = [model.apply_method(state.params, "decode", 0, z)[0] for z in ends]
    np.testing.assert_allclose(pictures[0::8], decoded[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(pictures[7::8], decoded[1], rtol=1e-3, atol=1e-4)


def test_traversal_varies_one_latent_per_row():
    c = linear((3,))
    model, state, pictures = drawn(c, POINTS, "traversal", 24)
    kernel = np.asarray(state.params["net"]["p_0"]["Dense_0"]["kernel"])
    rows = np.asarray(pictures).reshape(3, 8, 4)
    for latent in range(3):
        np.testing.assert_allclose(
            np.diff(rows[latent], axis=0),
            np.tile(6 / 7 * kernel[latent], (7, 1)),
            rtol=1e-3,
            atol=1e-4,
        )
    assert model.make_samplers()["traversal"].grid == (3, 8)


def test_encoder_and_decoder_use_labels():
    c = config(conditional=True)
    method = methods.make_method(c, GREY)
    state, given = randomized(method, c), batch(GREY)
    other = given | dict(label=(given["label"] + 1) % 10)

    @jax.jit
    def compute(given):
        again = method.samplers["reconstruction"](state, jax.random.key(0), given)
        return again, method.evaluate(state, given)["kl"]

    (again, kl), (again_other, kl_other) = compute(given), compute(other)
    assert (again != again_other).any() and kl != kl_other
    assert method.samplers["prior"].grid == (8, 10)
    same = {"index": jnp.array([3, 13]), "class": jnp.array([3, 3])}
    a, b = jax.jit(method.samplers["prior"])(state, jax.random.key(0), same)
    assert (a != b).any()  # the same class, different noise


@pytest.mark.parametrize(
    ("spec", "changes", "low", "high"),
    [
        (GREY, {}, 0, 1),
        (GREY, dict(likelihood="gaussian_scalar", binarize="none"), -1, 1),
        (POINTS, dict(likelihood="gaussian_pixel", binarize="none"), -np.inf, np.inf),
    ],
)
def test_vampprior_is_the_mixture_of_pseudo_input_posteriors(spec, changes, low, high):
    c = config(
        spec, prior="vamp", model=dict(widths=((12,),), activation="relu", pseudo=5), **changes
    )
    method = methods.make_method(c, spec)
    state, model = randomized(method, c, scale=0.3), Model(c, spec)
    z = random.randn(6, 3)

    @jax.jit
    def compute(params, given):
        u = model.pseudo_inputs(params)
        draws = model.sample_prior(params, jax.random.key(3), jnp.arange(20_000))
        x, _ = model.images_and_labels(given, jax.random.key(0))
        (draw,) = model.sample_posterior(params, x, None, jax.random.key(1), jnp.arange(16), 2)
        kl = model.elbo_terms(params, dict(sigma=0.3), x, None, [draw])[1]
        prior = model.log_prior(params, jnp.asarray(z, jnp.float32))
        return u, model.apply_method(params, "encode", 0, u), prior, draws, draw, kl

    u, (mean, log_var), log_prior, draws, draw, found = map(
        lambda x: jax.tree.map(np.asarray, x), compute(state.params, batch(spec))
    )
    raw = np.float64(state.params["net"]["inputs"])
    squashed = 1 / (1 + np.exp(-raw)) if low == 0 else np.tanh(raw) if low == -1 else raw
    np.testing.assert_allclose(u, squashed, rtol=1e-5)
    middle = (low + high) / 2 if low > -np.inf else 0
    assert low < u.min() < middle < u.max() < high
    log_density = lambda z, m, v: scipy.stats.norm.logpdf(
        np.float64(z), np.float64(m), np.exp(np.float64(v) / 2)
    ).sum(-1)
    mixture = lambda z: (
        scipy.special.logsumexp(
            [log_density(z, m, v) for m, v in zip(mean, log_var, strict=True)], axis=0
        )
        - np.log(5)
    )
    np.testing.assert_allclose(log_prior, mixture(z), rtol=1e-4)
    np.testing.assert_allclose(
        draws.mean(0),
        np.mean(mean, axis=0),
        atol=0.05 * (np.abs(mean).max() + np.exp(log_var / 2).max()),
    )
    kl = (log_density(draw.z, draw.mean, draw.log_var) - mixture(draw.z)).mean(0)
    np.testing.assert_allclose(found, kl, rtol=1e-3, atol=1e-3)


def test_vampprior_is_set_by_overrides_and_its_inputs_are_sharded():
    c = configs.override(tiny("vae"), {"prior": "vamp", "model.pseudo": "5"})
    method = methods.make_method(configs.resolve_durations(c, 100, 16), GREY)
    init = jax.vmap(lambda key: method.init(key, configs.resolve_hparams(c)))
    shapes = jax.eval_shape(init, jax.random.split(jax.random.key(0), 1))
    specs = sharding.partition_specs(shapes, mesh.make_mesh(dict(data=2, model=2)), fsdp=True)
    assert "data" in specs.params["net"]["inputs"]


@pytest.mark.parametrize(
    "shape, channels",
    [((28, 28, 1), (6, 12)), ((64, 64, 3), (6, 12, 24, 48)), ((128, 128, 3), (6, 12, 24, 48, 48))],
)
@pytest.mark.parametrize("likelihood", ["gaussian_scalar", "logistic_pixel"])
def test_convolutional_networks_follow_the_image_shape(shape, channels, likelihood):
    spec = Spec("image", shape, 100, levels=255)
    c = config(
        network="conv",
        model=dict(widths=((16,),), width=6, activation="relu", kernel=4),
        likelihood=likelihood,
        binarize="none",
    )
    model = Model(c, spec)
    assert model.net.layer_channels == channels
    params = jax.eval_shape(lambda: model.net.init(jax.random.key(0), jnp.zeros((1, *shape))))[
        "params"
    ]
    count = 2 if likelihood == "logistic_pixel" else 1
    assert params["p_0"][f"ConvTranspose_{len(channels)}"]["kernel"].shape[-1] == count * shape[-1]
    assert ("spread" in params) == (likelihood == "gaussian_scalar")
    location, scale = jax.eval_shape(
        lambda p: model.net.apply({"params": p}, 0, jnp.zeros((3, 2, 3)), method="decode"), params
    )
    assert location.shape == (3, 2, *shape) and scale.shape == (
        location.shape if count == 2 else ()
    )


# -- invalid input

PIXELS = dict(likelihood="gaussian", binarize="none")


@pytest.mark.parametrize(
    "spec, changes, words",
    [
        (GREY, dict(latent_dims=(0,)), "config.latent_dims = (0,)"),
        (GREY, dict(latent_dims=()), "config.latent_dims"),
        (GREY, dict(num_importance_samples=0), "config.num_importance_samples = 0"),
        (GREY, dict(num_importance_samples=-2), "config.num_importance_samples = -2"),
        (BLACK, dict(conditional=True), "needs labels"),
        (GREY, dict(nll_samples=0), "config.nll_samples"),
        (GREY, dict(binarize="none"), "config.likelihood = 'bernoulli'"),
        (POINTS, dict(), "config.likelihood = 'bernoulli'"),
        (POINTS, dict(likelihood="logistic", binarize="none"), "config.likelihood = 'logistic'"),
        (GREY, dict(likelihood="logistic"), "config.binarize = 'dynamic'"),
        (GREY, dict(likelihood="bernouli"), "did you mean 'bernoulli'"),
        (GREY, dict(objective="elbow"), "did you mean 'elbo'"),
        (GREY, dict(prior="vmap"), "did you mean 'vamp'"),
        (GREY, dict(prior="vamp"), "config.model.pseudo"),
        (GREY, dict(penalty="tc"), "config.hp.penalty is missing"),
        (GREY, dict(objective="free_bits"), "config.hp.free_bits is missing"),
        (GREY, PIXELS, "config.hp.sigma is missing"),
        (GREY, dict(latent_dims=(3, 2)), "widths"),
        (GREY, dict(latent_dims=(3, 2), objective="dreg"), "one stochastic layer"),
        (GREY, dict(hp=dict(sigma=1.0)), "config.hp.sigma is not read by"),
        (GREY, dict(penalty="mmd", objective="iwae", hp=dict(penalty=1.0)), "goes with an ELBO"),
        (GREY, dict(penalty="mmd", batch_size=1, hp=dict(penalty=1.0)), "at least 2"),
        (GREY, dict(prior="vamp", penalty="mmd", hp=dict(penalty=1.0)), "is not the prior of"),
        (GREY, dict(anneal=dict(name="linear", period=0)), "config.anneal.period"),
        (GREY, dict(network="conv"), "config.model.channels"),
        (
            POINTS,
            PIXELS
            | dict(
                network="conv",
                model=dict(widths=((8,),), width=6, activation="relu"),
                hp=dict(sigma=1.0),
            ),
            "are for images, and the data have the shape [4]",
        ),
    ],
)
def test_invalid_vae_configs_are_refused(spec, changes, words):
    with pytest.raises(UserError) as e:
        wrong = config(spec, **changes)
        configs.validate_config(wrong)
        methods.make_method(wrong, spec)
    assert words in str(e.value) and "\n" not in str(e.value)
