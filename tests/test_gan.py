"""The GAN menu: losses, penalties, spectral normalization, labels, packing, unrolling, augmentation, by formulas and by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_configs import dataset, resolved, tiny

from aigc_jax import config as configs
from aigc_jax import losses, methods, pictures
from aigc_jax.core import fold, noise
from aigc_jax.data.dataset import source
from aigc_jax.errors import UserError
from aigc_jax.methods.augment import colour, cutout, translation
from aigc_jax.methods.players import Players
from aigc_jax.methods.regularizers import REGULARIZERS, Position
from aigc_jax.metrics.given import equally
from aigc_jax.models import gan as networks
from aigc_jax.models.layers import largest, normalize
from aigc_jax.models.spectral import SpectralConv, SpectralDense
from aigc_jax.models.verdict import deviation

REAL, FAKE = np.array([0.0, 2.0, -1.5]), np.array([0.0, -3.0, 0.7])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# -- losses


def test_gan_losses_are_the_papers_formulas():
    d_real, d_fake = sigmoid(REAL), sigmoid(FAKE)
    both = -np.log(d_real) - np.log(1 - d_fake)
    relative = REAL - FAKE.mean(), FAKE - REAL.mean()
    expected = {
        "minimax": (both, np.log(1 - d_fake)),
        "non_saturating": (both, -np.log(d_fake)),
        "least_squares": ((REAL - 1) ** 2 / 2 + FAKE**2 / 2, (FAKE - 1) ** 2 / 2),
        "wasserstein": (FAKE - REAL, -FAKE),
        "hinge": (np.maximum(0, 1 - REAL) + np.maximum(0, 1 + FAKE), -FAKE),
        "relativistic_average": (-np.log(sigmoid(relative[0])) - np.log(1 - sigmoid(relative[1])),
                                 -np.log(sigmoid(relative[1])) - np.log(1 - sigmoid(relative[0]))),
    }  # fmt: skip
    assert set(expected) == set(losses.GAN)
    for name, (discriminator, generator) in expected.items():
        np.testing.assert_allclose(losses.GAN[name].discriminator_loss(REAL, FAKE), discriminator, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(losses.GAN[name].generator_loss(REAL, FAKE), generator, rtol=1e-5, err_msg=name)


def test_gan_losses_at_equilibrium_and_far_from_it():
    zero = jnp.zeros(4)
    for name in ("minimax", "non_saturating", "relativistic_average"):  # Goodfellow 2014, theorem 1
        np.testing.assert_allclose(losses.GAN[name].discriminator_loss(zero, zero), 2 * math.log(2), rtol=1e-6)
    assert all(np.isfinite(loss.discriminator_loss(jnp.array([-1e4]), jnp.array([1e4]))).all() for loss in losses.GAN.values())
    rejected = jnp.array([-30.0])  # D is sure: the minimax gradient vanishes, the other does not
    slope = {k: float(jax.grad(lambda x, f=v: f.generator_loss(x, x).sum())(rejected)[0]) for k, v in losses.GAN.items()}
    assert abs(slope["minimax"]) < 1e-6
    assert slope["non_saturating"] == pytest.approx(-1)


def test_one_sided_smoothing_moves_the_best_verdict_to_one_minus_s():
    """With as many real as generated examples at a point, of which none is generated: D = 1 - s; least squares: the target 1 - s."""
    for name, best in (("non_saturating", math.log(0.9 / 0.1)), ("least_squares", 0.9)):
        slope = jax.grad(lambda x, f=losses.GAN[name]: f.discriminator_loss(x, -1e9 if f.boundary == 0 else 0.0, 0.1))
        assert abs(slope(jnp.float32(best))) < 1e-6
        assert slope(jnp.float32(best + 1)) > 0 > slope(jnp.float32(best - 1))


# -- the whole menu trains


NETS = dict(
    mlp=("gan", {}),
    dcgan=("gan_conv", {}),
    resnet=("gan", dict(network="resnet", model=dict(g=dict(width=4, ups=1, output="tanh"), d=dict(width=4, downs=1, flats=1, pool="sum")))),
)


def small(net, spectral=False, **overrides):
    """A tiny config of a network of NETS, and its data."""
    name, own = NETS[net]
    raw = tiny(name, **overrides).to_dict() | own
    raw["model"]["d"]["spectral"] = spectral
    return configs.complete(configs.ConfigDict(raw))


def every_loss(which):
    """One of losses.GAN, which a traced number picks: so that all are one program."""
    table = list(losses.GAN.values())
    pick = lambda values: jnp.stack(list(values))[which]

    class Any:
        boundary, relative = None, True
        discriminator_loss = staticmethod(lambda *args: pick(jnp.broadcast_to(f.discriminator_loss(*args), args[0].shape) for f in table))
        generator_loss = staticmethod(lambda *args: pick(jnp.broadcast_to(f.generator_loss(*args), args[0].shape) for f in table))

    return Any


@pytest.mark.parametrize("net, regularizer", [
    pytest.param(net, regularizer, marks=[pytest.mark.slow] * (net != "mlp" and regularizer is not None))
    for net in NETS for regularizer in (None, "spectral", *REGULARIZERS)
])  # fmt: skip
def test_every_loss_with_every_regularizer_and_network_trains(net, regularizer, monkeypatch):
    """Two steps: all is finite, both networks move, and losses differ in what they do."""
    config = small(net, spectral=regularizer == "spectral", game__regularizers=(regularizer,) if regularizer in REGULARIZERS else (), batch_size=8)
    data, settled = dataset(config), resolved(config)
    hp = {name: jnp.float32(value) for name, value in configs.hparam_values(config).items()}
    begin = methods.make(settled, data.spec).init(jax.random.key(0), hp)

    @jax.jit
    def step(which, state):
        monkeypatch.setitem(losses.GAN, config.loss, every_loss(which))
        batch = source(data, settled.data, methods.examples(settled))(jax.tree.map(jnp.asarray, data.arrays), state.key, state.step)
        return methods.make(settled, data.spec).step(state, batch)

    names, ends = list(losses.GAN), []
    for which in range(len(names)):
        state, _ = step(which, begin)
        state, metrics = step(which, state)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.extra, metrics))), names[which]
        for side in "gd":
            moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(state.params[side]), jax.tree.leaves(begin.params[side]), strict=True)]
            assert max(moved) > 0, names[which]
        ends.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)]))
        if regularizer in REGULARIZERS and not REGULARIZERS[regularizer].bound:
            assert regularizer in metrics
        if regularizer == "weight_clipping":
            assert max(np.abs(x).max() for x in jax.tree.leaves(state.params["d"])) <= 0.01
    for a, b in itertools.combinations(range(len(names)), 2):  # of logits within (-1, 1) the hinge loss has Wasserstein's gradients
        assert (ends[a] != ends[b]).any() or {names[a], names[b]} == {"hinge", "wasserstein"}, (names[a], names[b])


def batch_of(config, state):
    data, settled = dataset(config), resolved(config)
    return source(data, settled.data, methods.examples(settled))(data.arrays, state.key, state.step)


def begun(config):
    method = methods.make(resolved(config), dataset(config).spec)
    state = method.init(jax.random.key(3), {name: jnp.asarray(value, float) for name, value in configs.hparam_values(config).items()})
    return method, state, batch_of(config, state)


def test_the_plain_game_is_the_one_written_by_hand():
    """Packs of one, no unrolling, no penalty: softplus losses, two Adam updates, to the last digits of float64."""
    with jax.enable_x64(True):
        config = tiny("gan", precision="float64")
        method, state, batch = begun(config)
        after, metrics = jax.jit(method.step)(state, batch)
        players = Players(resolved(config), dataset(config).spec)
        z = noise(fold(state.key, 0, 0), batch["index"], (config.z,), jnp.float64)
        g = lambda p: players.g.apply({"params": p}, z)
        d = lambda p, x: players.d.apply({"params": p}, x)[0]
        optimizer = optax.adam(config.hp.lr_d, b1=config.hp.beta1, b2=config.hp.beta2)
        moved = lambda params, grads: optax.apply_updates(params, optimizer.update(grads, optimizer.init(params))[0])
        fake = g(state.params["g"])
        loss_d = lambda p: (jax.nn.softplus(-d(p, batch["x"])) + jax.nn.softplus(d(p, fake))).mean()
        new_d = moved(state.params["d"], jax.grad(loss_d)(state.params["d"]))
        loss_g = lambda p: jax.nn.softplus(-d(new_d, g(p))).mean()
        new_g = moved(state.params["g"], jax.grad(loss_g)(state.params["g"]))
        for ours, theirs in ((after.params["d"], new_d), (after.params["g"], new_g)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, theirs)
        assert float(metrics["g_loss"]) == pytest.approx(float(loss_g(state.params["g"])), rel=1e-12)


def test_one_generator_pass_serves_both_losses():
    """30 matrix products: G 3, D on real and fake 6 + 10 backward, D' on fake 3 + 3 backward, G backward 5. No second G pass."""
    from aigc_jax.programs import Programs

    wide = dict(model__g__widths=(48, 40), model__d__widths=(56, 72), z=24)
    config = tiny("gan", **wide)
    programs = Programs(resolved(config), dataset(config), 1)
    programs.train(programs.init([config]), programs.arrays, np.int32(1))
    assert programs.train.compiled.as_text().count(" dot(") == 30


# -- penalties


def position(d, real, fake):
    n = len(real)
    z = jax.random.normal(jax.random.key(5), (n, 3))
    return Position(d, lambda z: jnp.tile(z, (1, 2)), real, fake, z, z[::-1], jax.random.key(6), jnp.arange(n))


@pytest.mark.parametrize("pack", [1, 2])
def test_gradient_penalties_equal_finite_differences(pack):
    """On a discriminator with curves: at the points where each looks, the squared slope by central differences in float64."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        w, v = jax.random.normal(keys[0], (5 * pack, 7)), jax.random.normal(keys[1], (7,))
        d = lambda x: jnp.tanh(x.reshape(-1, 5 * pack) @ w) @ v
        real, fake = jax.random.normal(keys[2], (6, 5)), 3 + jax.random.normal(keys[3], (6, 5))
        for name in ("gradient_penalty", "dragan", "r1", "r2"):
            value = REGULARIZERS[name].discriminator(position(d, real, fake))
            x = where(name, real, fake)
            step, squares = 1e-5, np.zeros(6 // pack)
            for i, j in np.ndindex(6, 5):
                e = np.zeros((6, 5))
                e[i, j] = step
                squares[i // pack] += ((np.asarray(d(x + e)) - np.asarray(d(x - e)))[i // pack] / (2 * step)) ** 2
            expected = squares / 2 if name in ("r1", "r2") else (np.sqrt(squares) - 1) ** 2
            np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=name)


def where(name, real, fake):
    """The points at which a penalty takes slopes, as the discriminator sees them."""
    seen = []

    def spy(x):
        jax.debug.callback(lambda y: seen.append(np.asarray(y)), x)
        return x.sum(-1)

    REGULARIZERS[name].discriminator(position(spy, real, fake))
    jax.effects_barrier()
    return seen[0]


def test_penalties_look_where_their_papers_say():
    real, fake = jnp.zeros((400, 2)), jnp.ones((400, 2))
    between = where("gradient_penalty", real, fake)
    assert (between[:, 0] == between[:, 1]).all() and 0 <= between.min() < 0.05 and 0.95 < between.max() <= 1
    assert between[:, 0].mean() == pytest.approx(0.5, abs=0.05)
    spread = jax.random.normal(jax.random.key(0), (400, 2)) * 4
    near = where("dragan", spread, fake) - spread
    assert near.min() >= 0 and near.max() <= spread.std() / 2 and near.mean() == pytest.approx(float(spread.std()) / 8, rel=0.15)
    np.testing.assert_array_equal(where("r1", spread, fake), spread)
    np.testing.assert_array_equal(where("r2", spread, fake), fake)


def test_consistency_and_mode_seeking_by_hand():
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    sum_of = lambda x: x.sum((1, 2, 3))  # moved pictures lose what leaves them
    corner = lambda x: x[:, 0, 0, 0]
    at = position(sum_of, x, x + 1)
    for d in (sum_of, corner):
        moved = translation(x, at.key, at.index)
        np.testing.assert_allclose(REGULARIZERS["consistency"].discriminator(at._replace(d=d)), (d(x) - d(moved)) ** 2, rtol=1e-5)
    inner = jnp.pad(x[:, 2:6, 2:6], ((0, 0), (2, 2), (2, 2), (0, 0)))  # nothing can leave by one pixel
    np.testing.assert_allclose(REGULARIZERS["balanced_consistency"].discriminator(position(sum_of, inner, inner)), 0, atol=1e-8)
    seeking = lambda g: REGULARIZERS["mode_seeking"].generator(at._replace(g=g, fake=g(at.z)))
    assert seeking(lambda z: 2 * z) == pytest.approx(0.5, rel=1e-4)  # twice as far apart as the noise
    assert seeking(lambda z: 0 * z) == pytest.approx(1e5, rel=1e-3)  # collapsed


# -- spectral normalization


@pytest.mark.parametrize("layer, shape", [(SpectralDense(6), (2, 9)), (SpectralConv(6, (3, 3)), (2, 5, 5, 4))])
def test_spectral_norm_converges_to_the_largest_singular_value(layer, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    variables = dict(layer.init(jax.random.key(1), x))
    kernel = np.asarray(variables["params"]["kernel"]).reshape(-1, 6)
    largest = np.linalg.svd(kernel, compute_uv=False)[0]
    out = lambda variables, train: layer.apply(variables, x, train, mutable=["spectral"])
    for _ in range(100):
        y, new = out(variables, True)
        variables |= new
    unnormalized = type(layer).__mro__[1](6, **({"kernel_size": (3, 3)} if len(shape) == 4 else {})).apply({"params": variables["params"]}, x)
    np.testing.assert_allclose(y, np.asarray(unnormalized) / largest, rtol=1e-4, atol=1e-5)
    same, kept = out(variables, False)
    np.testing.assert_allclose(same, y, rtol=1e-5, atol=1e-6)
    assert (kept["spectral"]["u"] == variables["spectral"]["u"]).all()
    # W / sigma(W) does not follow W's size: the gradient along W itself is 0 (Miyato et al. 2018, eq. 12)
    grad = jax.grad(lambda p: (layer.apply(variables | {"params": p}, x) ** 2).sum())(variables["params"])["kernel"]
    assert abs(float((grad * variables["params"]["kernel"]).sum())) < 1e-3 * float(jnp.abs(grad * variables["params"]["kernel"]).sum())


# -- labels


@pytest.mark.parametrize("condition", ["concatenation", "projection", "auxiliary"])
def test_labels_reach_both_networks(condition):
    config = tiny("gan", game__condition=condition)
    method, state, batch = begun(config)
    players = Players(resolved(config), dataset(config).spec)
    z, x, label = players.noise(state.key, batch["index"]), batch["x"], batch["label"]
    other = (label + 1) % 10
    stats = state.extra["stats"]
    draw = lambda label: players.generate(state.params["g"], stats["g"], z, label)[0]
    judge = lambda label: players.discriminate(state.params["d"], stats["d"], x, label)[0]
    assert (draw(label) != draw(other)).any()
    logits, classes = judge(label)
    if condition == "auxiliary":
        assert classes.shape == (16, 10) and (judge(other)[0] == logits).all()
        _, metrics = method.step(state, batch)
        assert metrics["d_classes"] == pytest.approx(2 * math.log(10), abs=1) and metrics["g_classes"] == pytest.approx(math.log(10), abs=0.6)
    else:
        assert classes is None and (judge(other)[0] != logits).all()
    if condition == "projection":  # of two labels the logits differ by <V_a - V_b, features>, and by nothing where V is 0
        none = state.params["d"] | dict(projection=dict(kernel=0 * state.params["d"]["projection"]["kernel"]))
        flat = [players.discriminate(none, stats["d"], x, y)[0][0] for y in (label, other)]
        assert (flat[0] == flat[1]).all()
    samples = method.samplers["prior"](state, state.key, {"index": jnp.array([3, 13, 4]), "class": jnp.array([3, 3, 4])})
    expected = players.generate(state.params["g"], stats["g"], players.noise(state.key, jnp.array([3, 13, 4])), jnp.array([3, 3, 4]))[0]
    np.testing.assert_allclose(samples, expected, atol=1e-6)


def test_samples_of_one_class_are_its_column_among_all(tmp_path):
    import aigc_jax
    from aigc_jax.train import train

    config = tiny("gan", game__condition="projection", steps="2 steps")
    train([config], [tmp_path / "run"])
    run = aigc_jax.load(tmp_path / "run")
    assert run.classes == 10 and run.columns("prior") == 10
    np.testing.assert_array_equal(run.sample(3, label=4), run.sample(30)[4::10])
    pairs, data = run.neighbours(3, label=4), dataset(config)
    known = pictures.as_saved(data.take(data.arrays, np.arange(data.spec.n_train))["x"], data.spec)
    np.testing.assert_array_equal(pairs[:, 0], run.sample(3, label=4))
    apart = np.linalg.norm((known[None] - pairs[:, :1]).reshape(3, len(known), -1), axis=-1)
    np.testing.assert_allclose(np.linalg.norm((pairs[:, 1] - pairs[:, 0]).reshape(3, -1), axis=-1), apart.min(1), rtol=1e-5)
    for label, words in ((10, "--class=10 must be one of 0 .. 9"), (-1, "must be one of")):
        with pytest.raises(UserError, match=words):
            run.sample(3, label=label)
    train([tiny("gan", steps="2 steps")], [tmp_path / "plain"])
    with pytest.raises(UserError, match="knows classes, and this one was trained without"):
        aigc_jax.load(tmp_path / "plain").sample(3, label=4)


def test_what_gives_samples_away_is_drawn_in_the_order_of_what_was_held_out(tmp_path, capsys):
    import aigc_jax
    import launch
    from aigc_jax.metrics.separability import scores, separable, told
    from aigc_jax.train import train

    train([tiny("gan", steps="2 steps")], [tmp_path / "run"])
    run = aigc_jax.load(tmp_path / "run")
    flat = lambda x: np.asarray(x, np.float64).reshape(len(x), -1)
    run.full.look = lambda x: (flat(x), None)  # pixels as features
    sets, found = run.separated(100)
    assert sets.shape == (2, 100, 8, 8, 1) and found.shape == (2, 100) and (np.diff(found) >= 0).all()
    examples, samples = equally(run.full.examples("test")["x"], run.sample(100))
    np.testing.assert_array_equal(np.sort(scores(flat(examples), flat(samples)), axis=1), found)
    assert separable(flat(examples), flat(samples)) == ((found[0] > 0).mean() + (found[1] < 0).mean()) / 2 > 0.95
    known = {x.tobytes(): score for x, score in zip(samples, scores(flat(examples), flat(samples))[1], strict=True)}
    assert [known[x.tobytes()] for x in sets[1]] == list(found[1])  # each picture stands at its own score
    pictures.save_separability(tmp_path / "x.png", sets, found, told(found), dict(step="2"))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="at least 4 samples and 4 examples"):
        run.separated(3)
    train([tiny("gan_points", steps="2 steps")], [tmp_path / "points"])
    assert launch.main(["sample", f"--workdir={tmp_path / 'points'}", "--what=separability"]) == 1
    assert "--what=separability is for pictures, and the run's data are points" in capsys.readouterr().err
    assert launch.main(["sample", f"--workdir={tmp_path / 'run'}", "--what=separabilty"]) == 1
    assert "is none of prior, interpolation, neighbours, separability; did you mean 'separability'" in capsys.readouterr().err


# -- structure


def test_packs_are_examples_side_by_side():
    config = tiny("gan", game__pack=3, batch_size=5)
    method, state, batch = begun(config)
    assert methods.examples(config) == 15 == len(batch["x"])
    players = Players(resolved(config), dataset(config).spec)
    packed = players.packed(batch["x"])
    assert packed.shape == (5, 8, 8, 3) == (5, *players.seen)
    for i, j in np.ndindex(5, 3):
        np.testing.assert_array_equal(packed[i, :, :, j], batch["x"][3 * i + j, :, :, 0])
    assert players.discriminate(state.params["d"], {}, batch["x"])[0][0].shape == (5,)
    sums = method.evaluate(state, jax.tree.map(lambda x: x[:8], batch) | dict(weight=jnp.array([1.0] * 5 + [0] * 3)))
    assert sums["weight"] == 1  # two packs of the eight are whole, one of them without padding
    points = Players(resolved(tiny("gan_points", game__pack=2)), dataset(tiny("gan_points")).spec)
    np.testing.assert_array_equal(points.packed(jnp.arange(8.0).reshape(4, 2)), [[0, 1, 2, 3], [4, 5, 6, 7]])


def test_the_generator_looks_ahead_by_the_gradient_of_the_unrolled_game():
    """Two steps of plain gradient descent ahead: the generator's update is the finite difference of the loss that they end in."""
    with jax.enable_x64(True):
        config = tiny("gan", precision="float64", optimizer="sgd", game__unroll=2, hp__beta1=0.0, hp__lr_d=0.5, hp__lr_g=1.0,
                      model__g__activation="tanh", model__d__activation="tanh", batch_size=4)  # fmt: skip
        method, state, batch = begun(config)
        after, _ = jax.jit(method.step)(state, batch)
        players = Players(resolved(config), dataset(config).spec)
        z = noise(fold(state.key, 0, 0), batch["index"], (config.z,), jnp.float64)
        d = lambda p, x: players.d.apply({"params": p}, x)[0]

        @jax.jit
        def ahead(g):
            fake, params = players.g.apply({"params": g}, z), after.params["d"]
            for _ in range(2):
                grads = jax.grad(lambda p: (jax.nn.softplus(-d(p, batch["x"])) + jax.nn.softplus(d(p, fake))).mean())(params)
                params = jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)
            return jax.nn.softplus(-d(params, fake)).mean()

        direction = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), state.params["g"])
        moved = lambda t: jax.tree.map(lambda p, v: p + t * v, state.params["g"], direction)
        slope = (ahead(moved(1e-5)) - ahead(moved(-1e-5))) / 2e-5
        step = jax.tree.map(lambda a, b: a - b, state.params["g"], after.params["g"])  # rate 1: the gradient itself
        along = sum(jax.tree.leaves(jax.tree.map(lambda s, v: (s * v).sum(), step, direction)))
        assert float(along) == pytest.approx(float(slope), rel=1e-6)
        still = method.step(state, batch)[0].params["g"]
        plain = begun(configs.override(config, {"game.unroll": 0}))[0].step(state, batch)[0].params["g"]
        assert any((a != b).any() for a, b in zip(jax.tree.leaves(still), jax.tree.leaves(plain), strict=True))


def test_unrolled_adam_survives_gradients_of_zero():
    config = tiny("gan", game__unroll=3, model__d__activation="relu", model__g__activation="relu")
    method, state, batch = begun(config)
    state = state.replace(params=state.params | dict(d=jax.tree.map(lambda p: p - 5, state.params["d"])))  # all units dead
    after, _ = jax.jit(method.step)(state, batch)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


def test_minibatch_deviation_is_that_of_each_group():
    x = jax.random.normal(jax.random.key(0), (8, 5))
    out = deviation(x)
    for group in (slice(0, 4), slice(4, 8)):
        np.testing.assert_allclose(out[group, 0], np.asarray(x)[group].std(0).mean(), rtol=1e-5)
    assert deviation(jnp.ones((6, 5))).max() < 1e-3
    method, state, batch = begun(small("mlp", model__d__minibatch_std=True))
    assert state.params["d"]["Dense_1"]["kernel"].shape == (25, 1)


@pytest.mark.parametrize(("size", "group"), [(2, 2), (6, 3), (8, 4), (9, 3), (10, 2), (12, 4)])
def test_minibatch_deviation_is_taken_in_the_largest_groups_that_divide(size, group):
    x = np.random.RandomState(0).randn(size, 5)
    expected = np.repeat(x.reshape(-1, group, 5).std(1).mean(-1), group)[:, None]
    np.testing.assert_allclose(deviation(jnp.asarray(x)), expected, rtol=1e-5)
    methods.make(resolved(small("mlp", batch_size=size, model__d__minibatch_std=True)), dataset(small("mlp")).spec)


@pytest.mark.parametrize(("size", "pack", "words"), [
    (1, 1, "1 of config.batch_size = 1"), (5, 1, "5 of config.batch_size = 5"), (7, 1, "7 of config.batch_size = 7"), (25, 1, "25 of"),
    (10, 2, "5 of config.batch_size = 10 by config.game.pack = 2"), (2, 2, "1 of config.batch_size = 2 by config.game.pack = 2"),
])  # fmt: skip
def test_batches_without_groups_are_refused(size, pack, words):
    config = resolved(small("mlp", batch_size=size, game__pack=pack, model__d__minibatch_std=True))
    with pytest.raises(UserError) as e:
        methods.make(config, dataset(config).spec)
    assert f"none of these numbers divides the {words}" in str(e.value) and "\n" not in str(e.value)


# -- augmentation


def test_augmentations_are_what_they_say_and_follow_the_index():
    x = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3), minval=-1, maxval=1)
    key, index = jax.random.key(1), jnp.array([0, 1, 2, 3, 0, 1])
    for change in (colour, translation, cutout):
        y = change(x, key, index)
        np.testing.assert_allclose(y[:2], change(x[:2], key, index[:2]), atol=1e-6)
        np.testing.assert_allclose(change(x[::-1], key, index)[0], change(x[5:], key, index[:1])[0], atol=1e-6)
        assert (np.abs(jax.grad(lambda x, change=change: (change(x, key, index) ** 2).sum())(x)) > 0).mean() > 0.4
    hole = np.asarray(cutout(jnp.ones_like(x), key, index) == 0).all(-1)
    assert (hole.sum((1, 2)) >= 16).all() and (hole.sum((1, 2)) <= 64).all()
    moved = np.asarray(translation(x, key, index))
    around = np.pad(np.asarray(x), ((0, 0), (4, 4), (4, 4), (0, 0)))
    shifts = set()
    for i in range(4):
        found = [(a, b) for a in range(2, 7) for b in range(2, 7) if (around[i, a : a + 16, b : b + 16] == moved[i]).all()]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) > 1
    grey = np.asarray(colour(x, key, index)).mean((1, 2, 3)) - np.asarray(x).mean((1, 2, 3))
    assert (np.abs(grey) <= 0.5 + 1e-6).all() and np.ptp(grey) > 0.1  # only the brightness moves the mean


# -- networks


def test_normalization_of_an_example_and_of_its_channels():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 6, 6, 4))

    class Net(networks.Network):
        norm: str

        @networks.nn.compact
        def __call__(self, x):
            return normalize(self.norm, x, True, dict(dtype=x.dtype, param_dtype=x.dtype))

    for norm, axes in (("layer", (1, 2, 3)), ("instance", (1, 2))):
        y = Net(norm).init_with_output(jax.random.key(1), x)[0]
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        np.testing.assert_allclose(y, (x - mean) / jnp.sqrt(var + 1e-5), atol=1e-4)


@pytest.mark.parametrize("size, ups", [(32, 3), (28, 2), (8, 1)])
def test_residual_networks_fit_pictures(size, ups):
    shape = (size, size, 3)
    g = networks.ResNetGenerator(shape=shape, width=8, ups=ups, output="tanh")
    d = networks.ResNetDiscriminator(shape=shape, width=8, downs=min(ups, 2), flats=1, pool="mean", spectral=True)
    assert g.misfit() == d.misfit() == ""
    out, _ = jax.eval_shape(lambda: g.init_with_output(jax.random.key(0), jnp.zeros((2, 5))))
    (logits, classes), variables = jax.eval_shape(lambda: d.init_with_output(jax.random.key(0), jnp.zeros((2, *shape))))
    assert out.shape == (2, *shape) and logits.shape == (2,) and classes is None
    assert len(jax.tree.leaves(variables["spectral"])) == sum(p.ndim > 1 for p in jax.tree.leaves(variables["params"]))
    assert "halved" in networks.ResNetGenerator(shape=(30, 30, 1), width=8, ups=2, output="tanh").misfit()


def test_maxout_is_the_largest_of_its_pieces():
    d = networks.MLPDiscriminator(shape=(3,), widths=(4,), activation="identity", pieces=5)
    x = jax.random.normal(jax.random.key(0), (6, 3))
    params = d.init(jax.random.key(1), x)["params"]
    linear = np.asarray(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]).reshape(6, 4, 5)
    np.testing.assert_allclose(d.apply({"params": params}, x)[0], (linear.max(-1) @ params["Dense_1"]["kernel"])[:, 0], rtol=1e-5, atol=1e-6)


def test_the_gradient_of_maxout_goes_to_one_piece_even_where_several_are_equal():
    x = jnp.array([[1.0, 3.0, 3.0], [-2.0, -2.0, -2.0], [0.0, -1.0, 5.0]])
    np.testing.assert_array_equal(largest(x), x.max(-1))
    np.testing.assert_array_equal(jax.grad(lambda x: (largest(x) * jnp.array([1.0, 2.0, 3.0])).sum())(x), [[0, 1, 0], [2, 0, 0], [0, 0, 3]])


@pytest.mark.parametrize("key", ["batch_size", "critic_steps", "game.pack"])
def test_a_step_of_no_examples_is_refused(key):
    with pytest.raises(UserError, match=f"config.{key} = 0 must be at least 1"):
        configs.override(tiny("gan", steps="3 epochs"), {key: 0})


@pytest.mark.parametrize("name, overrides, words", [
    ("gan", {"loss": "hinged"}, "'hinged' is none of .*did you mean 'hinge'"),
    ("gan", {"game.regularizers": ("r3",)}, r"config.game.regularizers\[0\] = 'r3' is none of"),
    ("gan", {"game.condition": "projections"}, "did you mean 'projection'"),
    ("gan", {"game.condition": "projection", "game.pack": 2}, "packs examples of several classes"),
    ("gan", {"game.pack": 0}, "config.game.pack = 0 must be at least 1"),
    ("gan", {"game.pack": 17}, "config.batch_size = 16 must be at least config.game.pack = 17"),
    ("gan", {"game.unroll": -1}, "config.game.unroll = -1 must be at least 0"),
    ("gan", {"game.augment": ("color",)}, "did you mean 'colour'"),
    ("gan_points", {"game.augment": ("colour",)}, "is for pictures"),
    ("gan_points", {"game.regularizers": ("consistency",)}, "is for pictures"),
    ("gan_points", {"game.condition": "projection"}, "needs labels, and config.data.name = 'ring' has none"),
    ("gan_conv", {"model.g.norm": "layers"}, "did you mean 'layer'"),
])  # fmt: skip
def test_what_does_not_go_together_is_said_in_one_sentence(name, overrides, words):
    with pytest.raises(UserError, match=words):
        config = configs.override(tiny(name), overrides)
        methods.make(resolved(config), dataset(config).spec)
