"""What holds for every method: one table of small configs drives it all."""

import jax
import numpy as np
import pytest
from PIL import Image
from runs import close, made, trained, trials
from tiny_configs import METHODS, dataset, methods_of, tiny

from aigc_jax.core import config as configs
from aigc_jax.core import mesh
from aigc_jax.data.dataset import Spec
from aigc_jax.data.order import fixed_order
from aigc_jax.media import images, sample_files
from aigc_jax.metrics import METRICS
from aigc_jax.training.programs import without_opt
from aigc_jax.training.serialization import digest, flatten
from aigc_jax.training.train import train
from aigc_jax.utils.errors import UserError

# Of these the programs are compiled in `make test`: a game, a bound, sequences.
most_methods = methods_of("gan", "vae", "lm")


def some_of(quick, slow):
    """A test's parameter `name`, for tests of many programs."""
    return pytest.mark.parametrize(
        "name", (*quick, *(pytest.param(name, marks=pytest.mark.slow) for name in slow))
    )


def main_sampler(programs):
    """The one whose pictures a run keeps."""
    return next(iter(programs.method.samplers))


@most_methods
def test_calls_of_any_length_are_the_same_bytes(name):
    config = tiny(name)
    ends = {}
    for calls in ((24,), (1,) * 24, (5, 7, 1, 11)):
        programs, states, metrics = trained(config, [config], calls)
        assert programs.train.compiled is not None
        ends[calls] = digest(flatten(states) | metrics)
    assert len(set(ends.values())) == 1


@most_methods  # one step of every method changes them in test_options
def test_training_changes_every_parameter_and_stays_finite(name):
    config = tiny(name)
    programs, states, metrics = trained(config, [config])
    before, after = flatten(programs.init([config])), flatten(states)
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
        _, group, metrics = trained(config, given, (20,), route=route)
        group = flatten(group)
        assert {v.dtype for k, v in group.items() if k.startswith("params/")} == {
            np.dtype("float64")
        }
        for i in (0, 3, 7):
            _, single, own = trained(config, [given[i]], (20,))
            close({k: v[i : i + 1] for k, v in group.items()}, flatten(single), 1e-9)
            close({k: v[i : i + 1] for k, v in metrics.items()}, own, 1e-9)


@methods_of("gan")
def test_trials_in_one_program_equal_single_runs_in_float32(name):
    config = tiny(name)
    given = trials(config, 4)
    _, _, metrics = trained(config, given, (20,))
    for i, c in enumerate(given):
        _, _, own = trained(config, [c], (20,))
        close({k: v[i : i + 1] for k, v in metrics.items()}, own, 1e-4)


@some_of(("gan",), ("vae", "lm", "gan_conv", "gan_critic"))
def test_trials_of_one_program_differ(name):
    config = tiny(name)
    _, states, _ = trained(config, trials(config, 3))
    for path, leaf in flatten(states).items():
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
def test_nan_in_one_trial_changes_no_byte_of_the_others(name, route):
    config = tiny(name)
    given = trials(config, 4)
    _, sound, _ = trained(config, given, route=route)
    programs = made(config, 4, route=route)
    states = programs.init(given)
    poisoned = {k: v.at[2].set(np.nan) if k.startswith("lr") else v for k, v in states.hp.items()}
    states, metrics = programs.train(
        programs.place(states.replace(hp=poisoned)), programs.arrays, np.int32(12)
    )
    # of codes, which are whole numbers
    assert all(np.isnan(np.asarray(v)[2, 11]) for k, v in metrics.items() if k != "perplexity")
    a, b = flatten(sound), flatten(states)
    for i in (0, 1, 3):
        assert digest({k: v[i] for k, v in a.items()}) == digest({k: v[i] for k, v in b.items()})


@pytest.mark.slow  # each route by itself above; trials beside other axes in test_sharding
@pytest.mark.parametrize("name", ["vae", "gan_points", "vqvae"])
def test_every_route_gives_the_same_trials_in_float64(name):
    """At once, a few at a time, one after another on devices of their own; with one
    more than divides over the devices. XLA's own division of the trial axis gave
    another VQ-VAE.
    """
    with jax.enable_x64(True):
        config = tiny(name, precision="float64")
        given = trials(config, 3)
        reference = flatten(trained(config, given, mesh=mesh.make_mesh(dict(trial=1, data=1)))[1])
        for route, chunk, parts, data in (("vmap", 2, 1, 1), ("map", 0, 2, 1), ("vmap", 0, 2, 2)):
            programs, states, _ = trained(
                config,
                given,
                mesh=mesh.make_mesh(dict(trial=parts, data=data)),
                route=route,
                chunk=chunk,
            )
            kernel = jax.tree.leaves(states.params)[1]
            assert len(kernel.sharding.device_set) == parts * data and len(
                kernel
            ) == programs.width == 3 + (parts == 2)
            close(flatten(programs.trials(states)), reference, 1e-9)
        if name != "vqvae":
            assert (
                len(programs.evaluate(states, "valid", 16))
                == len(programs.draw(states, main_sampler(programs), 4))
                == 3
            )


def test_the_work_is_divided_over_the_devices():
    """No device computes another's examples: FLOPs per device fall to an eighth where
    matrix products dominate.
    """
    config = tiny("gan", batch_size=1024, z=128, model__g__widths=(256,), model__d__widths=(256,))
    flops = {}
    for n in (1, 8):
        programs = trained(config, [config], (1,), mesh=mesh.make_mesh(dict(trial=1, data=n)))[0]
        flops[n] = programs.train.compiled.cost_analysis()["flops"]
    assert flops[8] < flops[1] / 8 * 1.25


@some_of(("gan",), ("vae", "lm", "gan_conv", "gan_critic"))
def test_evaluation_depends_neither_on_batching_nor_on_sharding(name):
    config = tiny(name)
    reference = None
    for batch, devices in ((16, 1), (7, 1), (64, 1), (16, 8)):
        c = configs.override(config, {"batch_size": batch})
        programs = made(c, 1, mesh=mesh.make_mesh(dict(trial=1, data=devices)))
        values = programs.evaluate(programs.init([c]), "test", 32)[0]
        reference = reference or values
        for key, value in values.items():
            assert value == pytest.approx(reference[key], rel=2e-5, abs=2e-6), (key, batch, devices)


@most_methods
def test_evaluation_and_sampling_leave_the_state_alone(name):
    config = tiny(name)
    programs = made(config, 1)
    states = programs.init([config])
    before = digest(flatten(states))
    programs.evaluate(states, "valid", 16)
    what, shape = main_sampler(programs), dataset(config).spec.shape
    shape = shape[1:] if what == "answer" else shape  # of a source and a target
    first = programs.draw(states, what, 20)
    assert digest(flatten(states)) == before
    # reconstructions: beside the originals
    assert first.shape == (1, 20, *([2] if what == "reconstruction" else []), *shape)
    # sample i does not depend on how many there are
    assert (programs.draw(states, what, 5) == first[:, :5]).all()
    if what == "prior":
        assert (programs.draw(states, what, 20, seed=1) != first).any()


def test_metrics_that_are_none_or_not_for_the_method_are_named_in_one_sentence():
    config = tiny("gan")
    programs = made(config, 1)
    states = programs.init([config])
    for name, words in (
        ("nl", r"^metrics\[0\] = 'nl' is none of .*did you mean 'nll'"),
        ("nll", "needs the sampler 'log_likelihood'.*'gan'"),
    ):
        with pytest.raises(UserError, match=words):
            programs.evaluate(states, "valid", 16, [name])
    text = made(tiny("lm"), 1)
    for name in METRICS.keys() - {"bleu", "rouge", "variety"}:
        with pytest.raises(
            UserError,
            match=rf"metrics\[0\] = '{name}' needs the sampler '.*', and .* 'lm' has only text, "
            r"answer, reference",
        ):
            text.evaluate(None, "valid", 16, [name])
    with pytest.raises(
        UserError,
        match=r"config.metrics\[0\] = 'bleu' needs the sampler 'answer', and config.method = 'gan'",
    ):
        made(tiny("gan", metrics=("bleu",)), 1)


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
def test_only_images_and_points_of_the_data_are_drawn(shape, image, points, tmp_path):
    """Three latents of [B, 3, Z] look like three colours by their last axis alone."""
    specs = Spec("image", (8, 8, 1), 10, levels=16), Spec("points", (2,), 10)
    for spec, drawable in zip(specs, (image, points), strict=True):
        assert images.is_drawable(shape, spec) == drawable
        if not drawable:
            with pytest.raises(ValueError, match="are no"):
                sample_files.save_samples(
                    tmp_path / "x.png", np.zeros((4, *shape), np.float32), spec, {}
                )


def test_channels_that_are_no_colours_are_grey_images_above_one_another(tmp_path):
    x = np.linspace(-1, 1, 3 * 2 * 64 * 64 * 4, dtype=np.float32).reshape(3, 2, 64, 64, 4)
    sample_files.save_samples(tmp_path / "x.png", x, Spec("image", (64, 64, 4), 10), {}, columns=3)
    drawn = np.asarray(Image.open(tmp_path / "x.png"))
    wanted = images.to_uint8(np.concatenate([x[1, 1, :, :, c] for c in range(4)]))
    np.testing.assert_array_equal(drawn[4 * 64 :, 66:130], wanted)


def test_pairs_of_points_are_both_drawn(tmp_path):
    """A file changes with either point of a pair, or with the one there is."""
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
        sample_files.save_samples(tmp_path / "x.png", samples.astype(np.float32), spec, {})
        drawn.append((tmp_path / "x.png").read_bytes())
    assert len(set(drawn)) == 4


def test_arrays_that_are_no_images_are_refused_as_png(tmp_path, capsys):
    from aigc_jax.cli import main as cli

    config = tiny(
        "vae",
        steps=1,
        best="",
        run__eval_every="never",
        run__sample_every="never",
        run__save_every="never",
    )
    train([config], [tmp_path / "run"], report=lambda line: None)
    for what, shape in dict(latents=(3, 3), log_likelihood=()).items():
        capsys.readouterr()
        words = ["sample", f"--workdir={tmp_path / 'run'}", f"--what={what}", "--num=4"]
        assert cli.main([*words, f"--out={tmp_path / 'x.png'}"]) == 1
        sentence = (
            f"--what={what} draws arrays {list(shape)}, which are no image [8, 8, 1] to look "
            f"at: save them by --out={what}.npy"
        )
        assert sentence in capsys.readouterr().err
        assert cli.main([*words, f"--out={tmp_path / 'x.npy'}"]) == 0
        assert (
            np.load(tmp_path / "x.npy").shape == (4, *shape) and not (tmp_path / "x.png").exists()
        )


def test_conditions_come_from_everywhere_in_the_split():
    """Splits may be sorted, or hold the classes in turn. Every example comes once
    before any comes again.
    """
    config = tiny("vae")
    programs = made(config, 1)
    states = programs.init([config])
    start, count = dataset(config).splits["valid"]
    originals = (
        dataset(config).take(dataset(config).arrays, np.arange(start, start + count))["x"] + 1
    ) / 2
    places = fixed_order(np.arange(count), count)
    assert sorted(places) == list(range(count))
    # black and white, where grey allows it
    drawn = programs.draw(states, "reconstruction", 5, "valid")[0, :, 0]
    for row, picture in zip(originals[places[:5]], (drawn + 1) / 2, strict=True):
        assert (picture[row == 0] == 0).all() and (picture[row == 1] == 1).all()


@most_methods
def test_one_program_serves_every_split_and_every_call(name):
    config = tiny(name)
    programs, states, _ = trained(config, [config], (3, 1, 8))
    for split in ("train", "valid", "test"):
        programs.evaluate(states, split, 16)
        programs.draw(states, main_sampler(programs), 16, split)
    executables = [
        programs.train.compiled,
        programs._evaluate.compiled,
        programs._draw[main_sampler(programs)].compiled,
    ]
    # compiled ahead of time, each once: such an executable cannot compile again
    assert all(executables)
    programs.evaluate(states, "valid", 48)
    assert [
        programs.train.compiled,
        programs._evaluate.compiled,
        programs._draw[main_sampler(programs)].compiled,
    ] == executables


@most_methods
def test_a_state_is_all_that_a_trial_is(name):
    """Going on from a state that went through the host equals never having stopped, to
    the last byte.
    """
    config = tiny(name)
    from aigc_jax.training.serialization import fill

    _, whole, _ = trained(config, [config], (20,))
    programs, half, _ = trained(config, [config], (9,))
    again = programs.place(fill(programs.shapes, flatten(half), "memory"))
    again, _ = programs.train(again, programs.arrays, np.int32(11))
    assert digest(flatten(again)) == digest(flatten(whole))
    assert without_opt(again).opt == {}
