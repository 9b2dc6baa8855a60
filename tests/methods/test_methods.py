"""Properties of every method, driven by one table of small configs."""

import functools

import jax
import numpy as np
import pytest
from image_files import photo
from PIL import Image
from runs import close, compile_programs, train, train_steps, trials
from tiny_configs import METHODS, dataset, methods_of, resolved, tiny

from aigc_jax.core import mesh
from aigc_jax.data.dataset import Spec
from aigc_jax.data.order import permute_fixed
from aigc_jax.media import images, sample_files
from aigc_jax.methods import make_method
from aigc_jax.methods.schema import METHODS as SCHEMAS
from aigc_jax.metrics import METRICS
from aigc_jax.training import config as configs
from aigc_jax.training.evaluation import Evaluator
from aigc_jax.training.programs import drop_opt_states
from aigc_jax.training.serialization import digest_leaves, flatten_state
from aigc_jax.utils.errors import UserError

# Methods whose programs are compiled in `make test`: GAN, VAE, language model.
most_methods = methods_of("gan", "vae", "lm")


def some_of(quick, slow):
    """The parameter `name` of tests that compile many programs."""
    return pytest.mark.parametrize(
        "name", (*quick, *(pytest.param(name, marks=pytest.mark.slow) for name in slow))
    )


def main_sampler(programs):
    """The first sampler, whose samples a run saves."""
    return next(iter(programs.method.samplers))


def test_schema_declares_the_samplers_of_every_method():
    for name in METHODS:
        config = tiny(name)
        if config.method == "vae":  # of two latents, it also has a manifold
            config = configs.override(config, {"latent_dims": (2,)})
        method = make_method(resolved(config), dataset(config).spec)
        assert method.samplers.keys() == SCHEMAS[config.method].samplers.keys(), name


@most_methods
def test_call_lengths_give_identical_states_and_metrics(name):
    config = tiny(name)
    ends = {}
    for calls in ((24,), (1,) * 24, (5, 7, 1, 11)):
        programs, states, metrics = train_steps(config, [config], calls)
        assert programs.training.compiled is not None
        ends[calls] = digest_leaves(flatten_state(states) | metrics)
    assert len(set(ends.values())) == 1


@most_methods  # test_options checks one step of every method
def test_training_changes_every_parameter_and_stays_finite(name):
    config = tiny(name)
    programs, states, metrics = train_steps(config, [config])
    before, after = flatten_state(programs.init([config])), flatten_state(states)
    assert int(states.step[0]) == 12
    assert all(np.isfinite(v).all() for v in metrics.values())
    assert all((before[k] != after[k]).any() for k in after if k.startswith("params/"))
    assert (before["key"] == after["key"]).all()


@pytest.mark.parametrize(
    "name, route",
    [
        ("vae", "vmap"),
        ("vae", "map"),
        *(
            pytest.param(name, route, marks=pytest.mark.slow)
            for name in METHODS
            for route in ("vmap", "map")
            if name != "vae"
        ),
    ],
)
def test_trials_in_one_program_equal_single_runs_in_float64(name, route):
    with jax.enable_x64(True):
        config = tiny(name, precision="float64")
        given = trials(config, 8)
        _, group, metrics = train_steps(config, given, (20,), route=route)
        group = flatten_state(group)
        assert {v.dtype for k, v in group.items() if k.startswith("params/")} == {
            np.dtype("float64")
        }
        for i in (0, 3, 7):
            _, single, own = train_steps(config, [given[i]], (20,))
            close({k: v[i : i + 1] for k, v in group.items()}, flatten_state(single), 1e-9)
            close({k: v[i : i + 1] for k, v in metrics.items()}, own, 1e-9)


@methods_of("gan")
def test_trials_in_one_program_equal_single_runs_in_float32(name):
    config = tiny(name)
    given = trials(config, 4)
    _, _, metrics = train_steps(config, given, (20,))
    for i, c in enumerate(given):
        _, _, own = train_steps(config, [c], (20,))
        close({k: v[i : i + 1] for k, v in metrics.items()}, own, 1e-4)


@some_of(("gan",), ("vae", "lm", "gan_conv", "gan_critic"))
def test_trials_of_one_program_differ(name):
    config = tiny(name)
    _, states, _ = train_steps(config, trials(config, 3))
    for path, leaf in flatten_state(states).items():
        if path.startswith("params/"):
            assert (leaf[0] != leaf[1]).any() and (leaf[1] != leaf[2]).any(), path


@pytest.mark.parametrize(
    "name, route",
    [
        ("gan", "map"),
        ("vae", "vmap"),
        *(pytest.param(name, "vmap", marks=pytest.mark.slow) for name in METHODS if name != "vae"),
        pytest.param("vqvae", "map", marks=pytest.mark.slow),
    ],
)
def test_nan_in_one_trial_leaves_the_others_bitwise_identical(name, route):
    config = tiny(name)
    given = trials(config, 4)
    _, sound, _ = train_steps(config, given, route=route)
    programs = compile_programs(config, 4, route=route)
    states = programs.init(given)
    poisoned = {k: v.at[2].set(np.nan) if k.startswith("lr") else v for k, v in states.hp.items()}
    states, metrics = programs.train(programs.to_mesh(states.replace(hp=poisoned)), 0, 12)
    # the perplexity is computed from codes, which are integers
    assert all(np.isnan(np.asarray(v)[2, 11]) for k, v in metrics.items() if k != "perplexity")
    a, b = flatten_state(sound), flatten_state(states)
    for i in (0, 1, 3):
        assert digest_leaves({k: v[i] for k, v in a.items()}) == digest_leaves(
            {k: v[i] for k, v in b.items()}
        )


@pytest.mark.slow  # single routes: above; trials with other mesh axes: test_sharding
@pytest.mark.parametrize("name", ["vae", "gan_points", "vqvae"])
def test_every_route_gives_the_same_trials_in_float64(name):
    """All at once, in chunks, and one after another on separate devices, with one trial
    more than divides over the devices. XLA's own partitioning of the trial axis gave
    another VQ-VAE.
    """
    with jax.enable_x64(True):
        config = tiny(name, precision="float64")
        given = trials(config, 3)
        reference = flatten_state(
            train_steps(config, given, mesh=mesh.make_mesh(dict(trial=1, data=1)))[1]
        )
        for route, chunk, parts, data in (("vmap", 2, 1, 1), ("map", 0, 2, 1), ("vmap", 0, 2, 2)):
            programs, states, _ = train_steps(
                config,
                given,
                mesh=mesh.make_mesh(dict(trial=parts, data=data)),
                route=route,
                chunk=chunk,
            )
            kernel = jax.tree.leaves(states.params)[1]
            assert len(kernel.sharding.device_set) == parts * data and len(
                kernel
            ) == programs.layout.num_padded == 3 + (parts == 2)
            close(flatten_state(programs.layout.drop_padding(states)), reference, 1e-9)
        if name != "vqvae":
            assert (
                len(Evaluator(programs).evaluate(states, "valid", 16))
                == len(programs.draw(states, main_sampler(programs), 4))
                == 3
            )


def test_flops_are_divided_over_the_devices():
    """No device computes the examples of another: FLOPs per device fall to an eighth
    where matrix products dominate.
    """
    config = tiny(
        "gan", batch_size=1024, latent_dim=128, model__g__widths=(256,), model__d__widths=(256,)
    )
    flops = {}
    for n in (1, 8):
        shape = dict(trial=1, data=n)
        programs, _, _ = train_steps(config, [config], (1,), mesh=mesh.make_mesh(shape))
        flops[n] = programs.training.compiled.cost_analysis()["flops"]
    assert flops[8] < flops[1] / 8 * 1.25


@some_of(("gan",), ("vae", "lm", "gan_conv", "gan_critic"))
def test_evaluation_is_independent_of_batching_and_sharding(name):
    config = tiny(name)
    reference = None
    for batch, devices in ((16, 1), (7, 1), (64, 1), (16, 8)):
        c = configs.override(config, {"batch_size": batch})
        programs = compile_programs(c, 1, mesh=mesh.make_mesh(dict(trial=1, data=devices)))
        values = Evaluator(programs).evaluate(programs.init([c]), "test", 32)[0]
        reference = reference or values
        for key, value in values.items():
            assert value == pytest.approx(reference[key], rel=2e-5, abs=2e-6), (key, batch, devices)


@most_methods
def test_evaluation_and_sampling_do_not_change_the_state(name):
    config = tiny(name)
    programs = compile_programs(config, 1)
    states = programs.init([config])
    before = digest_leaves(flatten_state(states))
    Evaluator(programs).evaluate(states, "valid", 16)
    what, shape = main_sampler(programs), dataset(config).spec.shape
    shape = shape[1:] if what == "answer" else shape  # the spec has a source and a target
    first = programs.draw(states, what, 20)
    assert digest_leaves(flatten_state(states)) == before
    # reconstructions come with their originals
    assert first.shape == (1, 20, *([2] if what == "reconstruction" else []), *shape)
    # sample i does not depend on the number of samples
    assert (programs.draw(states, what, 5) == first[:, :5]).all()
    if what == "prior":
        assert (programs.draw(states, what, 20, seed=1) != first).any()


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_set_latents_of_trials_do_not_depend_on_devices(name):
    """Trials share the latents that are set and differ in their networks; sample i
    depends neither on the number of samples nor on the devices.
    """
    config = tiny(name)
    row = np.full(dict(gan=8, vae=3)[name], np.nan, np.float32)
    row[1] = 2.0
    drawn = []
    for axes in (dict(trial=1, data=1), dict(trial=2, data=4)):
        programs = compile_programs(config, 2, mesh=mesh.make_mesh(axes))
        states = programs.init(trials(config, 2))
        drawn.append(programs.draw(states, "prior", 20, seed=3, latents=row))
        few = programs.draw(states, "prior", 5, seed=3, latents=row)
        np.testing.assert_array_equal(few, drawn[-1][:, :5])
        assert (drawn[-1] != programs.draw(states, "prior", 20, seed=3)).any()
    np.testing.assert_allclose(drawn[0], drawn[1], rtol=1e-4, atol=1e-5)
    assert (drawn[0][0] != drawn[0][1]).any()
    with pytest.raises(UserError, match="what = 'interpolation'"):
        programs.draw(states, "interpolation", 5, latents=row)


def test_unknown_and_unsupported_metrics_are_refused():
    config = tiny("gan")
    programs = compile_programs(config, 1)
    states = programs.init([config])
    for name, words in (
        ("nl", r"^metrics\[0\] = 'nl' is none of .*did you mean 'nll'"),
        ("nll", "needs the sampler 'log_likelihood'.*'gan'"),
    ):
        with pytest.raises(UserError, match=words):
            Evaluator(programs).evaluate(states, "valid", 16, [name])
    text = compile_programs(tiny("lm"), 1)
    for name in METRICS.keys() - {"bleu", "rouge", "variety"}:
        with pytest.raises(
            UserError,
            match=rf"metrics\[0\] = '{name}' needs the sampler '.*', and .* 'lm' has only text, "
            r"answer, reference",
        ):
            Evaluator(text).evaluate(None, "valid", 16, [name])
    with pytest.raises(
        UserError,
        match=r"config.metrics\[0\] = 'bleu' needs the sampler 'answer', and config.method = 'gan'",
    ):
        compile_programs(tiny("gan", metrics=("bleu",)), 1)


@pytest.mark.parametrize(
    ("shape", "image", "points"),
    [
        ((8, 8, 1), True, False),
        ((2, 8, 8, 1), True, False),
        ((3, 3), False, False),
        ((3, 10), False, False),
        ((), False, False),
        ((2,), False, True),
        ((2, 2), False, True),
        ((3, 2), False, True),
        ((1,), False, False),
        ((2, 2, 8, 8, 1), False, False),
    ],
)
def test_only_images_and_points_are_drawable(shape, image, points, tmp_path):
    """The last axis alone does not distinguish latents [B, 3, Z] from three colours."""
    specs = Spec("image", (8, 8, 1), 10, levels=16), Spec("points", (2,), 10)
    for spec, drawable in zip(specs, (image, points), strict=True):
        assert images.is_drawable(shape, spec) == drawable
        if not drawable:
            with pytest.raises(ValueError, match="do not have the shape"):
                sample_files.save_samples_png(
                    tmp_path / "x.png", np.zeros((4, *shape), np.float32), spec, {}
                )


def test_non_colour_channels_are_drawn_as_stacked_grey_images(tmp_path):
    x = np.linspace(-1, 1, 3 * 2 * 64 * 64 * 4, dtype=np.float32).reshape(3, 2, 64, 64, 4)
    sample_files.save_samples_png(
        tmp_path / "x.png", x, Spec("image", (64, 64, 4), 10), {}, columns=3
    )
    drawn = np.asarray(Image.open(tmp_path / "x.png"))
    wanted = images.to_uint8(np.concatenate([x[1, 1, :, :, c] for c in range(4)]))
    np.testing.assert_array_equal(drawn[4 * 64 :, 66:130], wanted)


def test_both_points_of_a_pair_are_drawn(tmp_path):
    """The file depends on either point of a pair, and differs for single points."""
    spec, given = (
        Spec("points", (2,), 10),
        np.random.RandomState(0).randn(5, 2, 2).astype(np.float32),
    )
    drawn = []
    for samples in (
        given,
        given + np.array([[0, 0], [1, 0]]),
        given + np.array([[1, 0], [0, 0]]),
        given[:, 0],
    ):
        sample_files.save_samples_png(tmp_path / "x.png", samples.astype(np.float32), spec, {})
        drawn.append((tmp_path / "x.png").read_bytes())
    assert len(set(drawn)) == 4


def test_arrays_that_are_not_images_have_figures_or_are_refused(tmp_path, capsys, monkeypatch):
    from aigc_jax.cli import main as cli
    from aigc_jax.methods import vae

    config = tiny(
        "vae",
        steps=1,
        best_metric="",
        run__eval_every="never",
        run__sample_every="never",
        run__save_every="never",
    )
    train([config], [tmp_path / "run"])
    png, npy = tmp_path / "x.png", tmp_path / "x.npy"
    (tmp_path / "image.png").write_bytes(photo())
    for what, shape in dict(latents=(3, 3), log_likelihood=()).items():
        words = ["sample", f"--workdir={tmp_path / 'run'}", f"--what={what}", "--num=4"]
        assert cli.main([*words, f"--out={png}"]) == 0
        with Image.open(png) as figure:
            assert figure.format == "PNG" and figure.text["step"] == "1"
        before = png.read_bytes()
        assert cli.main([*words, f"--out={png}"]) == 0 and png.read_bytes() == before
        assert cli.main([*words, f"--out={npy}"]) == 0 and np.load(npy).shape == (4, *shape)
        words = [*words[:-1], f"--input={tmp_path / 'image.png'}"]  # one instead of examples
        assert cli.main([*words, f"--out={png}"]) == 0 and png.read_bytes() != before
        assert cli.main([*words, f"--out={npy}"]) == 0 and np.load(npy).shape == (1, *shape)
    # a sampler without a figure names the files that it writes
    sampler = functools.partial(vae.Sampler, conditioned=True)
    monkeypatch.setattr(vae, "Sampler", lambda draw, **_: sampler(draw))
    png.unlink()
    capsys.readouterr()
    assert cli.main([*words, f"--out={png}"]) == 1 and not png.exists()
    assert (
        "--what=log_likelihood draws arrays [], which cannot be drawn as image [8, 8, 1]: it "
        "writes .npy files alone, by --out=log_likelihood.npy"
    ) in capsys.readouterr().err


def test_sampling_conditions_follow_the_fixed_order_of_the_split():
    """Splits may be sorted or cycle through the classes. Every example is used once
    before any is repeated.
    """
    config = tiny("vae")
    programs = compile_programs(config, 1)
    states = programs.init([config])
    start, count = dataset(config).splits["valid"]
    originals = (
        dataset(config).take(dataset(config).arrays, np.arange(start, start + count))["x"] + 1
    ) / 2
    places = permute_fixed(np.arange(count), count)
    assert sorted(places) == list(range(count))
    # binarization keeps black and white pixels
    drawn = programs.draw(states, "reconstruction", 5, "valid")[0, :, 0]
    for row, picture in zip(originals[places[:5]], (drawn + 1) / 2, strict=True):
        assert (picture[row == 0] == 0).all() and (picture[row == 1] == 1).all()


@most_methods
def test_one_program_serves_every_split_and_every_call(name):
    config = tiny(name)
    programs, states, _ = train_steps(config, [config], (3, 1, 8))
    for split in ("train", "valid", "test"):
        Evaluator(programs).evaluate(states, split, 16)
        programs.draw(states, main_sampler(programs), 16, split)
    executables = [
        programs.training.compiled,
        programs._evaluation.compiled,
        programs._sampling[main_sampler(programs)].compiled,
    ]
    # each is compiled once, ahead of time: such an executable cannot recompile
    assert all(executables)
    Evaluator(programs).evaluate(states, "valid", 48)
    assert [
        programs.training.compiled,
        programs._evaluation.compiled,
        programs._sampling[main_sampler(programs)].compiled,
    ] == executables


@most_methods
def test_restored_state_resumes_to_identical_bytes(name):
    """Resuming from a state that was copied to the host equals an uninterrupted run."""
    config = tiny(name)
    from aigc_jax.training.serialization import restore_like

    _, whole, _ = train_steps(config, [config], (20,))
    programs, half, _ = train_steps(config, [config], (9,))
    again = programs.to_mesh(restore_like(programs.shapes, flatten_state(half), "memory"))
    again, _ = programs.train(again, 0, 11)
    assert digest_leaves(flatten_state(again)) == digest_leaves(flatten_state(whole))
    assert drop_opt_states(again).opt == {}
