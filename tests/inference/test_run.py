"""`aigc_jax.load`: errors for directories of sweeps, default samplers, and splits of
examples.
"""

import json
import warnings

import numpy as np
import pytest
from PIL import Image
from runs import train
from tiny_configs import tiny

from aigc_jax.cli import main as cli
from aigc_jax.inference.load import load
from aigc_jax.inference.sheets import Request, draw_sheet, make_title
from aigc_jax.training.evaluation import read_examples
from aigc_jax.utils.errors import UserError


@pytest.mark.parametrize(
    "count, more", [(0, "no trial has started yet"), (2, "load one of "), (11, " and 3 more")]
)
def test_loading_a_sweep_directory_names_its_trials(tmp_path, count, more):
    names = [f"lr=0.001,seed={i:02}-{i:08x}" for i in range(count)]
    (tmp_path / "sweep.json").write_text(json.dumps(dict(trials=[dict(id=name) for name in names])))
    for name in names:
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "config.json").write_text("{}")
    with pytest.raises(
        UserError, match=f"{tmp_path} is a sweep, whose trials are runs of their own: "
    ) as e:
        load(tmp_path)
    assert more in str(e.value) and "\n" not in str(e.value)
    assert all(str(tmp_path / "trials" / name) in str(e.value) for name in names[:8])


def test_default_sampler_is_the_first_of_the_method(tmp_path):
    """A VQ-VAE has no prior, so its default samples are reconstructions."""
    quiet = dict(run__eval_every="never", run__save_every="never", run__sample_every="never")
    train(tiny("vqvae", steps=1, metrics=(), best_metric="", **quiet), tmp_path)
    run = load(tmp_path)
    drawn = run.draw(3, "reconstruction")
    np.testing.assert_array_equal(run.draw(3), drawn)
    np.testing.assert_array_equal(run.sample(3), drawn)


@pytest.fixture(scope="module")
def vae_run(tmp_path_factory):
    quiet = dict(run__eval_every="never", run__save_every="never", run__sample_every="never")
    path = tmp_path_factory.mktemp("vae") / "run"
    train(tiny("vae", steps=1, metrics=(), best_metric="", **quiet), path)
    return path


def test_each_example_of_a_split_is_used_once(vae_run, tmp_path, capsys, monkeypatch):
    """So that the standard errors of likelihoods are those of as many examples."""
    run, drawn = load(vae_run), {}
    splits = {"train": (0, 200), "valid": (200, 40), "test": (240, 50)}
    dataset = run.full_programs.dataset._replace(splits=splits)
    run.full_programs.dataset = dataset
    for what in ("reconstruction", "latents", "log_likelihood"):
        assert len(run.draw(what=what)) == 50  # of 64 by default
        with pytest.raises(
            UserError, match="num=51 is more than the 50 examples of the test split"
        ):
            run.draw(51, what)
    assert len(run.draw(70, "prior")) == 70
    pairs = run.draw(50, "reconstruction")[:, 0]
    assert len({x.tobytes() for x in pairs}) == 50
    save = lambda path, sets, *_: drawn.update({name: len(x) for name, x in sets.items()})
    monkeypatch.setattr("aigc_jax.media.latent_plots.save_histograms", save)
    run.full_programs.dataset = dataset._replace(splits=splits | dict(train=(0, 30)))
    draw_sheet(run, Request("log_likelihood")).save(tmp_path / "a.png", {})
    assert drawn == dict(test=50, train=30)


def test_classes_of_a_folder_have_their_names(tmp_path):
    random = np.random.RandomState(0)
    for name in ("caf\u00e9", "\u732b cat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(40):
            pixels = random.randint(0, 255, (16, 16), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    data = dict(data__name="folder", data__path=str(tmp_path / "images"), data__size=16)
    quiet = dict(run__eval_every="never", run__save_every="never", run__sample_every="never")
    config = tiny("vae", steps=1, metrics=(), best_metric="", conditional=True, **quiet, **data)
    train(config, tmp_path / "run")
    run = load(tmp_path / "run")
    assert run.spec.label_classes() == ("caf\u00e9", "\u732b cat")
    samplers = run.programs.method.samplers
    assert samplers["prior"].labels.columns == samplers["interpolation"].labels.rows
    assert samplers["prior"].labels.columns == run.spec.class_names
    assert make_title(run, Request("prior", label=1)).endswith("seed 0, class 1 (\u732b cat)")
    assert make_title(run, Request("prior", latents={2: 1.5})).endswith("seed 0, latents 2:1.5")
    for what in ("prior", "interpolation", "latents"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            draw_sheet(run, Request(what)).save(tmp_path / f"{what}.png", {})


def test_inception_of_separability_extracts_the_features(vae_run, tmp_path, capsys, monkeypatch):
    words = ["sample", f"--workdir={vae_run}", f"--out={tmp_path / 'a.png'}", "--num=20"]
    extract = lambda x: (x.reshape(len(x), -1)[:, :8], None)
    names = []
    make = lambda config: names.append(config.extractor) or extract
    monkeypatch.setattr("aigc_jax.training.feature_extractors.make_extractor", make)
    monkeypatch.setattr("aigc_jax.training.evaluation.make_cached_extractor", lambda f: f)
    for more in ([], ["--inception=weights.pth"]):
        assert cli.main([*words, "--what=separability", *more]) == 0, capsys.readouterr().err
    assert names == ["classifier", "weights.pth"] and (tmp_path / "a.png").stat().st_size
    capsys.readouterr()
    assert cli.main([*words, "--what=prior", "--inception=weights.pth"]) == 1
    assert "--inception applies to --what=separability, not to prior" in capsys.readouterr().err


def test_arrays_have_the_number_that_was_asked_for(vae_run, tmp_path, capsys):
    """Sheets alone are filled up to full rows."""
    words = ["sample", f"--workdir={vae_run}", "--what=traversal", "--num=3"]
    assert cli.main([*words, f"--out={tmp_path / 'a.npy'}"]) == 0
    assert len(np.load(tmp_path / "a.npy")) == 3 and not capsys.readouterr().err


def test_manifold_needs_two_latents(vae_run, capsys):
    assert cli.main(["sample", f"--workdir={vae_run}", "--what=manifold"]) == 1
    answer = "--what=manifold needs two latents, config.latent_dims = (2,), and the run has "
    assert answer + str(load(vae_run).config.latent_dims) in capsys.readouterr().err


def test_separability_has_the_title_of_a_sheet(vae_run, tmp_path, monkeypatch):
    run, titles = load(vae_run), []
    scores = np.array([[-1.0, 2, 3], [-3, -2, 1]])
    monkeypatch.setattr(run, "sort_by_separability", lambda *_: (np.zeros((2, 3, 8, 8, 1)), scores))
    save = lambda *values: titles.append(values[-1])
    monkeypatch.setattr("aigc_jax.media.plots.save_separability", save)
    draw_sheet(run, Request("separability", seed=5)).save(tmp_path / "a.png", {})
    assert titles == [f"separability, step {run.step}, seed 5, test examples"]


def test_split_selects_the_examples_of_a_sample(vae_run, tmp_path):
    """The first rows of a reconstruction's grid are the examples."""
    run, drawn = load(vae_run), {}
    for split in (None, "test", "train"):
        out = tmp_path / f"{split}.npy"
        flags = [] if split is None else [f"--split={split}"]
        words = ["sample", f"--workdir={vae_run}", "--what=reconstruction", "--num=4", *flags]
        assert cli.main([*words, f"--out={out}"]) == 0
        drawn[split] = np.load(out)
    np.testing.assert_array_equal(drawn[None], drawn["test"])
    assert (drawn["test"] != drawn["train"]).any()
    np.testing.assert_array_equal(drawn["train"], run.draw(4, "reconstruction", split="train"))


def test_neighbours_are_examples_of_the_split(vae_run):
    run = load(vae_run)
    dataset = run.full_programs.dataset
    examples = {name: read_examples(dataset, name)["x"] for name in ("train", "test")}
    for split, x in examples.items():
        for pair in run.pair_with_neighbours(3, split=split):
            distances = ((x - pair[0]) ** 2).sum((1, 2, 3))
            np.testing.assert_allclose(x[distances.argmin()], pair[1], atol=1e-6)
    np.testing.assert_array_equal(
        run.pair_with_neighbours(3), run.pair_with_neighbours(3, split="train")
    )


@pytest.mark.parametrize(
    "flags, answer",
    [
        (["--split=train"], "--split=train is not read by --what=prior, only by reconstruction"),
        (
            ["--what=reconstruction", "--split=tset"],
            "--split = 'tset' is none of train, valid, test; did you mean 'test'?",
        ),
        (["--what=neighbours", "--split=vaild"], "did you mean 'valid'?"),
    ],
)
def test_wrong_splits_of_samples_are_refused(vae_run, capsys, flags, answer):
    assert cli.main(["sample", f"--workdir={vae_run}", *flags]) == 1
    assert answer in capsys.readouterr().err
