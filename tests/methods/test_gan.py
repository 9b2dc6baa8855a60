"""The GAN as a method: every loss, regularizer and network, labels, packing."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs
from tiny_configs import dataset, resolved, tiny

from aigc_jax import methods
from aigc_jax.core.rng import fold_in, normal_by_index
from aigc_jax.data.order import make_train_batch_reader
from aigc_jax.media import images, plots
from aigc_jax.methods import gan
from aigc_jax.methods.gan_networks import GanNetworks
from aigc_jax.methods.gan_penalties import REGULARIZERS
from aigc_jax.methods.losses import gan as gan_losses
from aigc_jax.metrics.inputs import take_equal_random_subsets
from aigc_jax.models.discriminator import minibatch_stddev
from aigc_jax.training import config as configs
from aigc_jax.training.evaluation import read_examples
from aigc_jax.utils.errors import UserError

SLOW = pytest.mark.slow

# -- every combination trains


NETS = dict(
    mlp=("gan", {}),
    dcgan=("gan_conv", {}),
    resnet=(
        "gan",
        dict(
            network="resnet",
            model=dict(
                g=dict(width=4, ups=1, output="tanh"), d=dict(width=4, downs=1, flats=1, pool="sum")
            ),
        ),
    ),
)


def small(net, spectral=False, **overrides):
    """A tiny config of a network of NETS, and its data."""
    name, own = NETS[net]
    raw = tiny(name, **overrides).to_dict() | own
    raw["model"]["d"]["spectral"] = spectral
    return configs.fill_defaults(configs.ConfigDict(raw))


def every_loss(which):
    """One of losses.GAN, selected by a traced number so that all losses share one
    program.
    """
    table = list(gan_losses.GAN.values())
    pick = lambda values: jnp.stack(list(values))[which]

    class Any:
        boundary, relative = None, True
        discriminator_loss = staticmethod(
            lambda *args: pick(
                jnp.broadcast_to(f.discriminator_loss(*args), args[0].shape) for f in table
            )
        )
        generator_loss = staticmethod(
            lambda *args: pick(
                jnp.broadcast_to(f.generator_loss(*args), args[0].shape) for f in table
            )
        )

    return Any


PENALTIES = tuple(name for name, rule in REGULARIZERS.items() if not rule.bound)
# The fast tier has all penalties with spectral normalization in one program, and a
# bound without them; the slow tier has each separately, and the other networks.
QUICK = {("mlp", "all"), ("mlp", "weight_clipping")}


@pytest.mark.parametrize(
    "net, regularizer",
    [
        pytest.param(net, regularizer, marks=[SLOW] * ((net, regularizer) not in QUICK))
        for net in NETS
        for regularizer in (None, "all", "spectral", *REGULARIZERS)
        if regularizer != "all" or net == "mlp"
    ],
)
def test_every_loss_with_every_regularizer_and_network_trains(net, regularizer, monkeypatch):
    """Two steps: all values are finite, both networks change, and losses differ in
    effect.
    """
    names = PENALTIES if regularizer == "all" else (regularizer,)
    names = tuple(name for name in names if name in REGULARIZERS)
    config = small(
        net,
        spectral=regularizer in ("spectral", "all"),
        gan__regularizers=names,
        batch_size=8,
    )
    data, settled = dataset(config), resolved(config)
    hp = {name: jnp.float32(value) for name, value in configs.resolve_hparams(config).items()}
    begin = jax.jit(methods.make_method(settled, data.spec).init)(jax.random.key(0), hp)

    @jax.jit
    def step(which, state):
        monkeypatch.setitem(gan_losses.GAN, config.loss, every_loss(which))
        batch = make_train_batch_reader(data, settled.data, methods.examples_per_step(settled))(
            jax.tree.map(jnp.asarray, data.arrays), state.key, state.step
        )
        return methods.make_method(settled, data.spec).step(state, batch)

    losses, ends = list(gan_losses.GAN), []
    for which in range(len(losses)):
        state, _ = step(which, begin)
        state, metrics = step(which, state)
        assert all(
            np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.extra, metrics))
        ), losses[which]
        for side in "gd":
            moved = [
                np.abs(a - b).max()
                for a, b in zip(
                    jax.tree.leaves(state.params[side]),
                    jax.tree.leaves(begin.params[side]),
                    strict=True,
                )
            ]
            assert max(moved) > 0, losses[which]
        ends.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)]))
        assert metrics.keys() >= set(names) & set(PENALTIES)
        if regularizer == "weight_clipping":
            assert max(np.abs(x).max() for x in jax.tree.leaves(state.params["d"])) <= 0.01
    # of logits within (-1, 1) the hinge loss has Wasserstein's gradients
    for a, b in itertools.combinations(range(len(losses)), 2):
        assert (ends[a] != ends[b]).any() or {losses[a], losses[b]} == {"hinge", "wasserstein"}, (
            losses[a],
            losses[b],
        )


def begun(config):
    """The method, a fresh state and its first batch, computed by one program."""
    data, settled = dataset(config), resolved(config)
    method = methods.make_method(settled, data.spec)

    @jax.jit
    def start(key, hp):
        state = method.init(key, hp)
        batch = make_train_batch_reader(data, settled.data, methods.examples_per_step(settled))
        return state, batch(jax.tree.map(jnp.asarray, data.arrays), state.key, state.step)

    hp = {
        name: jnp.asarray(value, float) for name, value in configs.resolve_hparams(config).items()
    }
    return method, *start(jax.random.key(3), hp)


def test_basic_gan_step_equals_a_manual_implementation():
    """Packs of one example, no unrolling, no penalty: softplus losses and two Adam
    updates, to the last digits of float64.
    """
    with jax.enable_x64(True):
        config = tiny("gan", precision="float64")
        method, state, batch = begun(config)
        after, metrics = jax.jit(method.step)(state, batch)
        networks = GanNetworks(resolved(config), dataset(config).spec)
        z = normal_by_index(
            fold_in(state.key, 0, 0), batch["index"], (config.latent_dim,), jnp.float64
        )
        g = lambda p: networks.g.apply({"params": p}, z)
        d = lambda p, x: networks.d.apply({"params": p}, x)[0]
        optimizer = optax.adam(config.hp.lr_d, b1=config.hp.beta1, b2=config.hp.beta2)
        moved = lambda params, grads: optax.apply_updates(
            params, optimizer.update(grads, optimizer.init(params))[0]
        )

        @jax.jit
        def by_hand(old_g, old_d):
            fake = g(old_g)
            loss_d = lambda p: (
                jax.nn.softplus(-d(p, batch["x"])) + jax.nn.softplus(d(p, fake))
            ).mean()
            new_d = moved(old_d, jax.grad(loss_d)(old_d))
            loss_g = lambda p: jax.nn.softplus(-d(new_d, g(p))).mean()
            value, grads = jax.value_and_grad(loss_g)(old_g)
            return new_d, moved(old_g, grads), value

        new_d, new_g, loss = by_hand(state.params["g"], state.params["d"])
        for ours, theirs in ((after.params["d"], new_d), (after.params["g"], new_g)):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, theirs
            )
        assert float(metrics["g_loss"]) == pytest.approx(float(loss), rel=1e-12)


def test_one_generator_pass_serves_both_losses():
    """27 matrix products in the training loop: G 3, D on real and fake 6 + 8 backward,
    D' on fake 3 + 2 backward, G backward 5. The gradient by the last features of D is
    no matrix product but an outer one.
    """
    from aigc_jax.training.programs import Programs

    wide = dict(model__g__widths=(48, 40), model__d__widths=(56, 72), latent_dim=24)
    config = tiny("gan", **wide)
    programs = Programs(resolved(config), dataset(config), 1)
    programs.training.start_compiling(programs.shapes, programs.feed.training, np.int32(1))
    assert programs.training.wait_for_executable().as_text().count(" dot(") == 27


BOTH_NORMS = dict(model__g__norm="batch", model__d__norm="batch")
SHARED = {
    "batch_norm": ("gan_conv", BOTH_NORMS | dict(model__g__spectral=True, critic_steps=2)),
    "conditional": ("gan_menu", {}),
    "critic": ("gan_critic", dict(loss="relativistic_average")),
    "mode_seeking": ("gan", dict(gan__regularizers=("mode_seeking", "r2", "gradient_penalty"))),
    "packed": ("gan_points", {}),
    "penalized_batch_norm": (
        "gan_conv",
        BOTH_NORMS | dict(model__d__channels=(4, 4), gan__regularizers=("gradient_penalty", "r1")),
    ),
    "unrolled": ("gan", dict(gan__unroll=2, gan__regularizers=("r2",))),
}


@pytest.mark.parametrize(
    "case",
    [c if c in ("batch_norm", "critic") else pytest.param(c, marks=SLOW) for c in SHARED],
)
def test_shared_fakes_give_the_state_of_two_generator_passes(case, monkeypatch):
    """To rounding in float64, statistics of the generator included."""
    name, overrides = SHARED[case]
    with jax.enable_x64(True):
        method, state, batch = begun(tiny(name, precision="float64", **overrides))
        shared = jax.jit(method.step)(state, batch)
        monkeypatch.setattr(gan, "share_generated", lambda generate, *_: generate)
        plain = jax.jit(lambda *args: method.step(*args))(state, batch)
    change = lambda new, old: np.abs(new - old).max()
    for part in ("params", "extra"):
        before, after = (getattr(s, part) for s in (state, shared[0]))
        assert all(x > 0 for x in jax.tree.leaves(jax.tree.map(change, after, before)))
    for ours, theirs in zip(*map(jax.tree.leaves, (shared, plain)), strict=True):
        if not jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10)


# -- labels


@pytest.mark.parametrize("condition", ["concatenation", "projection", "auxiliary"])
def test_both_networks_use_labels(condition):
    config = tiny("gan", gan__condition=condition)
    method, state, batch = begun(config)
    networks = GanNetworks(resolved(config), dataset(config).spec)
    z, x, label = networks.sample_noise(state.key, batch["index"]), batch["x"], batch["label"]
    other = (label + 1) % 10
    stats = state.extra["stats"]
    draw = jax.jit(lambda label: networks.generate(state.params["g"], stats["g"], z, label)[0])
    judge = jax.jit(lambda params, label: networks.discriminate(params, stats["d"], x, label)[0])
    params = state.params["d"]
    assert (draw(label) != draw(other)).any()
    logits, classes = judge(params, label)
    if condition == "auxiliary":
        assert classes.shape == (16, 10) and (judge(params, other)[0] == logits).all()
        _, metrics = jax.jit(method.step)(state, batch)
        assert metrics["d_classes"] == pytest.approx(2 * math.log(10), abs=1) and metrics[
            "g_classes"
        ] == pytest.approx(math.log(10), abs=0.6)
    else:
        assert classes is None and (judge(params, other)[0] != logits).all()
    # the logits of two labels differ by <V_a - V_b, features>, and are equal where V
    # is 0
    if condition == "projection":
        none = params | dict(projection=dict(kernel=0 * params["projection"]["kernel"]))
        flat = [judge(none, y)[0] for y in (label, other)]
        assert (flat[0] == flat[1]).all()

    @jax.jit
    def sampled(index, classes):
        samples = method.samplers["prior"](state, state.key, {"index": index, "class": classes})
        noise = networks.sample_noise(state.key, index)
        return samples, networks.generate(state.params["g"], stats["g"], noise, classes)[0]

    samples, expected = sampled(jnp.array([3, 13, 4]), jnp.array([3, 3, 4]))
    np.testing.assert_allclose(samples, expected, atol=1e-6)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The directory of a small run on digits, without labels."""
    path = tmp_path_factory.mktemp("plain")
    runs.train(tiny("gan", steps="2 steps", metrics=(), best_metric=""), path)
    return path


def test_samples_of_one_class_equal_their_column_of_the_grid(tmp_path, plain):
    import aigc_jax

    config = tiny("gan", gan__condition="projection", steps="2 steps", metrics=(), best_metric="")
    runs.train(config, tmp_path / "run")
    run = aigc_jax.load(tmp_path / "run")
    assert run.num_classes == 10 and run.grid_columns("prior") == 10
    np.testing.assert_array_equal(run.sample(3, label=4), run.sample(30)[4::10])
    pairs, data = run.pair_with_neighbours(3, label=4), dataset(config)
    known = images.quantize_as_saved(
        data.take(data.arrays, np.arange(data.spec.n_train))["x"], data.spec
    )
    np.testing.assert_array_equal(pairs[:, 0], run.sample(3, label=4))
    apart = np.linalg.norm((known[None] - pairs[:, :1]).reshape(3, len(known), -1), axis=-1)
    np.testing.assert_allclose(
        np.linalg.norm((pairs[:, 1] - pairs[:, 0]).reshape(3, -1), axis=-1), apart.min(1), rtol=1e-5
    )
    for label, words in ((10, "label=10 must be one of 0 .. 9"), (-1, "must be one of")):
        with pytest.raises(UserError, match=words):
            run.sample(3, label=label)
    with pytest.raises(UserError, match="needs a sampler with classes"):
        aigc_jax.load(plain).sample(3, label=4)


def test_separability_orders_images_by_held_out_scores(tmp_path, plain, capsys):
    import aigc_jax
    from aigc_jax.cli import main as cli
    from aigc_jax.metrics.two_sample_test import (
        held_out_discriminant_scores,
        sign_accuracy,
        two_sample_accuracy,
    )

    run = aigc_jax.load(plain)
    flat = lambda x: np.asarray(x, np.float64).reshape(len(x), -1)
    run.evaluator._features = lambda x: (flat(x), None)  # pixels as features
    sets, found = run.sort_by_separability(100)
    assert (
        sets.shape == (2, 100, 8, 8, 1) and found.shape == (2, 100) and (np.diff(found) >= 0).all()
    )
    examples, samples = take_equal_random_subsets(
        read_examples(run.full_programs.dataset, "test")["x"], run.sample(100)
    )
    np.testing.assert_array_equal(
        np.sort(held_out_discriminant_scores(flat(examples), flat(samples)), axis=1), found
    )
    assert (
        two_sample_accuracy(flat(examples), flat(samples))
        == ((found[0] > 0).mean() + (found[1] < 0).mean()) / 2
        > 0.95
    )
    known = {
        x.tobytes(): score
        for x, score in zip(
            samples, held_out_discriminant_scores(flat(examples), flat(samples))[1], strict=True
        )
    }
    # each image is paired with its own score
    assert [known[x.tobytes()] for x in sets[1]] == list(found[1])
    plots.save_separability(tmp_path / "x.png", sets, found, sign_accuracy(found), dict(step="2"))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="at least 4 samples and 4 examples"):
        run.sort_by_separability(3)
    runs.train(tiny("gan_points", steps="2 steps", metrics=(), best_metric=""), tmp_path / "points")
    assert cli.main(["sample", f"--workdir={tmp_path / 'points'}", "--what=separability"]) == 1
    assert (
        "--what=separability is for images, and the run's data are points"
        in capsys.readouterr().err
    )
    assert cli.main(["sample", f"--workdir={plain}", "--what=separabilty"]) == 1
    assert "neighbours, separability; did you mean 'separability'" in capsys.readouterr().err


# -- structure


def test_packs_concatenate_consecutive_examples():
    config = tiny("gan", gan__pack=3, batch_size=5)
    method, state, batch = begun(config)
    assert methods.examples_per_step(config) == 15 == len(batch["x"])
    networks = GanNetworks(resolved(config), dataset(config).spec)
    packed, x = np.asarray(networks.pack_examples(batch["x"])), np.asarray(batch["x"])
    assert packed.shape == (5, 8, 8, 3) == (5, *networks.input_shape)
    for i, j in np.ndindex(5, 3):
        np.testing.assert_array_equal(packed[i, :, :, j], x[3 * i + j, :, :, 0])
    logits = jax.eval_shape(lambda p: networks.discriminate(p, {}, x)[0][0], state.params["d"])
    assert logits.shape == (5,)
    sums = jax.jit(method.evaluate)(
        state, jax.tree.map(lambda x: x[:8], batch) | dict(weight=jnp.array([1.0] * 5 + [0] * 3))
    )
    assert sums["weight"] == 1  # eight examples fill two packs, one of them without padding
    points = GanNetworks(
        resolved(tiny("gan_points", gan__pack=2)), dataset(tiny("gan_points")).spec
    )
    np.testing.assert_array_equal(
        points.pack_examples(jnp.arange(8.0).reshape(4, 2)), [[0, 1, 2, 3], [4, 5, 6, 7]]
    )


def test_unrolled_generator_gradient_equals_finite_differences():
    """Two steps of gradient descent are unrolled: the generator's update is the finite
    difference of the loss after them.
    """
    with jax.enable_x64(True):
        config = tiny(
            "gan",
            precision="float64",
            optimizer="sgd",
            gan__unroll=2,
            hp__beta1=0.0,
            hp__lr_d=0.5,
            hp__lr_g=1.0,
            model__g__activation="tanh",
            model__d__activation="tanh",
            batch_size=4,
        )
        method, state, batch = begun(config)
        after, _ = jax.jit(method.step)(state, batch)
        networks = GanNetworks(resolved(config), dataset(config).spec)
        z = normal_by_index(
            fold_in(state.key, 0, 0), batch["index"], (config.latent_dim,), jnp.float64
        )
        d = lambda p, x: networks.d.apply({"params": p}, x)[0]

        @jax.jit
        def unrolled_loss(g):
            fake, params = networks.g.apply({"params": g}, z), after.params["d"]
            for _ in range(2):
                grads = jax.grad(
                    lambda p: (
                        jax.nn.softplus(-d(p, batch["x"])) + jax.nn.softplus(d(p, fake))
                    ).mean()
                )(params)
                params = jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)
            return jax.nn.softplus(-d(params, fake)).mean()

        direction = jax.tree.map(
            lambda p: np.random.RandomState(p.size).randn(*p.shape), state.params["g"]
        )
        moved = lambda t: jax.tree.map(lambda p, v: p + t * v, state.params["g"], direction)
        slope = (unrolled_loss(moved(1e-5)) - unrolled_loss(moved(-1e-5))) / 2e-5
        # learning rate 1: the update is the gradient
        step = jax.tree.map(lambda a, b: a - b, state.params["g"], after.params["g"])
        along = sum(jax.tree.leaves(jax.tree.map(lambda s, v: (s * v).sum(), step, direction)))
        assert float(along) == pytest.approx(float(slope), rel=1e-6)
        blind = resolved(configs.override(config, {"gan.unroll": 0}))
        step = jax.jit(methods.make_method(blind, dataset(config).spec).step)
        plain = step(state, batch)[0].params["g"]
        assert any(
            (a != b).any()
            for a, b in zip(jax.tree.leaves(after.params["g"]), jax.tree.leaves(plain), strict=True)
        )


def test_unrolled_adam_is_finite_for_zero_gradients():
    config = tiny("gan", gan__unroll=3, model__d__activation="relu", model__g__activation="relu")
    method, state, batch = begun(config)
    # all units are dead
    state = state.replace(
        params=state.params | dict(d=jax.tree.map(lambda p: p - 5, state.params["d"]))
    )
    after, _ = jax.jit(method.step)(state, batch)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


def test_minibatch_stddev_is_computed_per_group():
    x = jax.random.normal(jax.random.key(0), (8, 5))
    out = minibatch_stddev(x)
    for group in (slice(0, 4), slice(4, 8)):
        np.testing.assert_allclose(out[group, 0], np.asarray(x)[group].std(0).mean(), rtol=1e-5)
    assert minibatch_stddev(jnp.ones((6, 5))).max() < 1e-3
    config = small("mlp", model__d__minibatch_std=True)
    hp = configs.resolve_hparams(config)
    init = methods.make_method(resolved(config), dataset(config).spec).init
    state = jax.eval_shape(lambda key: init(key, hp), jax.random.key(3))
    assert state.params["d"]["Dense_1"]["kernel"].shape == (25, 1)


@pytest.mark.parametrize(("size", "group"), [(2, 2), (6, 3), (8, 4), (9, 3), (10, 2), (12, 4)])
def test_minibatch_stddev_uses_the_largest_dividing_group_size(size, group):
    x = np.random.RandomState(0).randn(size, 5)
    expected = np.repeat(x.reshape(-1, group, 5).std(1).mean(-1), group)[:, None]
    np.testing.assert_allclose(minibatch_stddev(jnp.asarray(x)), expected, rtol=1e-5)
    methods.make_method(
        resolved(small("mlp", batch_size=size, model__d__minibatch_std=True)),
        dataset(small("mlp")).spec,
    )


@pytest.mark.parametrize(
    ("size", "pack", "words"),
    [
        (1, 1, "1 (config.batch_size = 1)"),
        (5, 1, "5 (config.batch_size = 5)"),
        (7, 1, "7 (config.batch_size = 7)"),
        (25, 1, "25 (config.batch_size = 25)"),
        (10, 2, "5 (config.batch_size = 10, config.gan.pack = 2)"),
        (2, 2, "1 (config.batch_size = 2, config.gan.pack = 2)"),
    ],
)
def test_minibatch_stddev_refuses_batches_without_groups(size, pack, words):
    config = resolved(small("mlp", batch_size=size, gan__pack=pack, model__d__minibatch_std=True))
    with pytest.raises(UserError) as e:
        methods.make_method(config, dataset(config).spec)
    assert f"none of these sizes divides {words}" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("key", ["batch_size", "critic_steps", "gan.pack"])
def test_step_without_examples_is_refused(key):
    with pytest.raises(UserError, match=f"config.{key} = 0 must be at least 1"):
        configs.override(tiny("gan", steps="3 epochs"), {key: 0})


@pytest.mark.parametrize(
    "name, overrides, words",
    [
        ("gan", {"loss": "hinged"}, "'hinged' is none of .*did you mean 'hinge'"),
        ("gan", {"gan.regularizers": ("r3",)}, r"config.gan.regularizers\[0\] = 'r3' is none of"),
        ("gan", {"gan.condition": "projections"}, "did you mean 'projection'"),
        (
            "gan",
            {"gan.condition": "projection", "gan.pack": 2},
            "packs examples of several classes",
        ),
        ("gan", {"gan.pack": 0}, "config.gan.pack = 0 must be at least 1"),
        ("gan", {"gan.pack": 17}, "config.batch_size = 16 must be at least config.gan.pack = 17"),
        ("gan", {"gan.unroll": -1}, "config.gan.unroll = -1 must be at least 0"),
        ("gan", {"gan.augment": ("color",)}, "did you mean 'colour'"),
        ("gan_points", {"gan.augment": ("colour",)}, "is for images"),
        ("gan_points", {"gan.regularizers": ("consistency",)}, "is for images"),
        (
            "gan_points",
            {"gan.condition": "projection"},
            "needs labels, and config.data.name = 'ring' has none",
        ),
        ("gan_conv", {"model.g.norm": "layers"}, "did you mean 'layer'"),
    ],
)
def test_invalid_gan_options_are_refused(name, overrides, words):
    with pytest.raises(UserError, match=words):
        config = configs.override(tiny(name), overrides)
        methods.make_method(resolved(config), dataset(config).spec)


@pytest.mark.parametrize("side", ["g", "d"])
def test_instance_norm_of_dense_layers_is_refused(side):
    config = tiny("gan", **{f"model__{side}__norm": "instance"})
    with pytest.raises(UserError, match=f"config.model.{side}.norm = 'instance' is for images"):
        methods.make_method(resolved(config), dataset(config).spec)
