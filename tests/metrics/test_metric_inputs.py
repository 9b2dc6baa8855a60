"""Inputs of metrics: samples and examples as saved in files, a random part of a split,
class frequencies as in the data.
"""

import math

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import scipy.special
from option_runs import one_program
from PIL import Image
from runs import shared_programs, train
from tiny_configs import dataset, resolved, tiny

import aigc_jax
from aigc_jax.data.dataset import Spec
from aigc_jax.data.order import permute_fixed, permute_indices
from aigc_jax.media import images, sample_files
from aigc_jax.media.sheets import LINE, SPACE
from aigc_jax.metrics import METRICS
from aigc_jax.metrics.inputs import MetricInputs, take_random_subset
from aigc_jax.metrics.precision_recall import prdc
from aigc_jax.training import evaluation
from aigc_jax.training.evaluation import Evaluator, iterate_example_blocks, read_examples
from aigc_jax.training.programs import Programs


def made(config):
    full = Programs(resolved(config), dataset(config), 1)
    return full, full.init([resolved(config)])


# -- values


def sorted_npz(folder, sizes=(900, 100)):
    """Images of two classes, sorted by class in each split: black, and grey noise."""
    random, raw = np.random.RandomState(0), {}
    for split in ("train", "valid", "test"):
        black = random.randint(0, 20, (sizes[0], 4, 4))
        noise = random.randint(0, 256, (sizes[1], 4, 4))
        raw[f"{split}_x"] = np.concatenate([black, noise]).astype(np.uint8)
        raw[f"{split}_label"] = np.repeat([0, 1], sizes)
    np.savez(folder / "two.npz", **raw)
    return str(folder / "two.npz")


def test_8_bit_images_round_trip_through_uint8():
    spec = Spec("image", (16, 16, 1), 1, levels=255)
    levels = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    x = (2 * levels - 255) * np.float32(1 / 255)
    np.testing.assert_array_equal(images.quantize_as_saved(x, spec), x)
    np.testing.assert_array_equal(images.to_uint8(x), levels)
    near = (levels + np.float32(0.49) * np.sign(128 - levels)) / 127.5 - 1  # rounded to the nearest
    np.testing.assert_array_equal(images.to_uint8(near.astype(np.float32)), levels)


def test_sample_values_are_clipped_and_rounded_to_levels_of_the_data():
    x = np.array([-3.0, -1.0, 0.1234, 1.7, np.inf, np.nan], np.float32).reshape(1, 1, 6, 1)
    image = lambda levels: images.quantize_as_saved(
        x, Spec("image", (1, 6, 1), 1, levels=levels)
    ).ravel()
    grey = (2 * 143 - 255) / 255  # 0.1234 is 143.2 of 255
    np.testing.assert_allclose(image(255), [-1, -1, grey, 1, np.nan, np.nan], rtol=1e-6)
    # float data are not rounded
    np.testing.assert_allclose(image(0), [-1, -1, 0.1234, 1, np.nan, np.nan], rtol=1e-6)
    # points, and images of another shape
    for spec in (Spec("points", (6,), 1), Spec("image", (2, 3, 1), 1, levels=255)):
        assert images.quantize_as_saved(x, spec) is x


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A conditional VAE of images whose means are far outside [-1, 1]."""
    folder = tmp_path_factory.mktemp("loud")
    config = tiny(
        "vae",
        likelihood="gaussian_scalar",
        binarize="none",
        conditional=True,
        steps="1 steps",
        data__name="npz",
        data__path=sorted_npz(folder, (60, 40)),
    )
    with one_program():
        train([config], [folder / "run"], make=shared_programs)
        run = aigc_jax.load(folder / "run")
        assert run.full_programs.dataset.arrays  # built here, by the program that trained
    run.states = run.states.replace(params=jax.tree.map(lambda x: 3 * x, run.states.params))
    run.evaluator._features = lambda x: (np.asarray(x, np.float64).reshape(len(x), -1), None)
    return run


def test_metrics_are_computed_on_values_as_saved_in_png(run, tmp_path):
    labels = run.full_programs.read_class_labels("test", 64)
    raw = run.full_programs.draw(run.states, "prior", 64, "test", labels=labels)[0]
    assert 1.5 < np.abs(raw).max() < 1e6 and (np.abs(raw) < 1).mean() > 0.05
    sample_files.save_samples_png(tmp_path / "x.png", raw, run.spec, {}, 8)
    sheet = np.asarray(Image.open(tmp_path / "x.png"), np.float64)
    scale, cell = 16, 66  # of a 4x4 image in the grid, with its line
    saved = np.stack(
        [
            sheet[cell * i : cell * i + 64 : scale, cell * j : cell * j + 64 : scale]
            for i in range(8)
            for j in range(8)
        ]
    )
    real = np.asarray(read_examples(run.full_programs.dataset, "test")["x"], np.float64).reshape(
        -1, 16
    )
    saved = (saved / 127.5 - 1).reshape(-1, 16)
    roots = scipy.linalg.sqrtm(np.cov(saved.T) @ np.cov(real.T) + 1e-12 * np.eye(16)).real
    distance = ((saved.mean(0) - real.mean(0)) ** 2).sum() + np.trace(
        np.cov(saved.T) + np.cov(real.T) - 2 * roots
    )
    found = run.evaluator.evaluate(run.states, "test", 64, ["frechet_pixels", "diversity"])[0]
    assert found["frechet_pixels"] == pytest.approx(distance, rel=1e-3)
    pairs = lambda x: scipy.spatial.distance.pdist(x).mean()
    assert found["diversity"] == pytest.approx(pairs(saved) / pairs(real), rel=1e-3)


def test_blocks_of_a_split_concatenate_to_the_split(run, monkeypatch):
    whole = read_examples(run.full_programs.dataset, "test")
    monkeypatch.setattr(evaluation, "BLOCK", 7)
    blocks = list(iterate_example_blocks(run.full_programs.dataset, "test"))
    assert {len(block["x"]) for block in blocks[:-1]} == {7} and len(blocks[-1]["x"]) <= 7
    for name, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([block[name] for block in blocks]), value)


def test_samples_neighbours_and_separability_have_saved_values(run):
    whole = lambda x: np.abs((x + 1) * 127.5 - np.rint((x + 1) * 127.5)).max() < 1e-4
    for x in (
        run.sample(40),
        run.sample(4, "reconstruction"),
        run.pair_with_neighbours(5),
        run.sort_by_separability(60)[0],
    ):
        assert np.abs(x).max() <= 1 and whole(x)
    # the programs, and thus likelihoods, have the raw values
    assert not whole(run.full_programs.draw(run.states, "prior", 4)[0])


def test_separability_of_one_class_uses_examples_of_that_class(run):
    sets, _ = run.sort_by_separability(30, label=0)
    assert sets.shape[1] == 30 and sets[0].max() < -0.8  # black images only
    both = run.sort_by_separability(100)[0][0]
    assert (both.max((1, 2, 3)) < -0.8).sum() == 60


# -- random parts of a split


def test_fixed_order_is_the_same_permutation_in_numpy_and_jax():
    for n in (1, 2, 7, 100, 1797):
        order = permute_fixed(np.arange(n), n)
        assert sorted(order) == list(range(n)) and order.dtype == np.int64
        # the order repeats
        np.testing.assert_array_equal(permute_fixed(np.arange(n, 2 * n), n), order)
    keys = np.arange(1, 7, dtype=np.uint32)[None]
    places = np.arange(1797)
    np.testing.assert_array_equal(
        permute_indices(places, keys, 1797),
        permute_indices(jax.numpy.asarray(places), jax.numpy.asarray(keys), 1797),
    )
    np.testing.assert_array_equal(permute_fixed(np.arange(6), 1000), FROZEN)
    big = permute_fixed(np.arange(10), 2**30 - 1)
    assert len(set(big)) == 10 and big.max() > 2**28


FROZEN = [496, 265, 292, 143, 254, 956]


@pytest.mark.parametrize("arrangement", ["in turn", "sorted"])
def test_random_part_preserves_class_frequencies(arrangement):
    """2 to 100 classes, parts from a hundredth to nearly all: the chi-square of class
    counts, as of a part drawn without replacement.
    """
    scores = []
    for classes in [*range(2, 25), 30, 32, 48, 50, 64, 81, 92, 96, 97, 99, 100]:
        for each in (20, 31, 64):
            n = classes * each
            labels = np.arange(n) % classes if arrangement == "in turn" else np.arange(n) // each
            for most in {
                n // 100,
                n // 20,
                n // 10,
                n // 5,
                n // 4,
                n // 3,
                n // 2,
                2 * n // 3,
                3 * n // 4,
                n - 1,
            } - {0}:
                part = take_random_subset(labels, most)
                assert (
                    len(part) == most and (np.diff(part) >= 0).all()
                    if arrangement == "sorted"
                    else len(part) == most
                )
                counts = np.bincount(part, minlength=classes)
                expected, spread = most / classes, 1 - (most - 1) / (n - 1)
                degrees = classes - 1
                chi = ((counts - expected) ** 2).sum() / (expected * max(spread, 1 / n))
                scores.append((chi - degrees) / math.sqrt(2 * degrees))
    assert np.mean(scores) < 0.3 and np.quantile(scores, 0.99) < 4 and max(scores) < 7


def clusters(n, seed, classes=10):
    """Points at the corners of a cross, cycling through the classes: [n, classes]."""
    return 30 * np.eye(classes)[np.arange(n) % classes] + np.random.RandomState(seed).randn(
        n, classes
    )


@pytest.mark.parametrize("metric", ["prdc", "kid", "separability"])
def test_perfect_sampler_scores_well_with_interleaved_classes(metric, monkeypatch):
    from aigc_jax.metrics import kid

    monkeypatch.setattr(kid, "MOST", 500)
    real, samples = clusters(1000, 0), clusters(500, 1)
    examples = dict(x=real)
    inputs = MetricInputs(
        lambda what: samples, "test", lambda split: examples, None, lambda x: (x, None)
    )
    found = METRICS[metric](inputs)
    everybody = np.random.RandomState(2).permutation(1000)[:500]
    # another random part
    again = METRICS[metric](inputs._replace(examples=lambda split: dict(x=real[everybody])))
    if metric == "kid":
        # only every other class
        scale = METRICS["kid"](inputs._replace(examples=lambda split: dict(x=real[::2])))["kid"]
        assert max(abs(found["kid"]), abs(again["kid"])) < 0.05 * scale
    else:
        assert all(found[name] == pytest.approx(again[name], abs=0.06) for name in found)
    if metric == "prdc":
        # 0.59 where every other class is missing among the examples
        assert found["precision"] > 0.85


def test_nll_of_a_part_matches_all_of_a_sorted_split(tmp_path):
    path = sorted_npz(tmp_path, (150, 150))
    config = tiny(
        "vae",
        likelihood="gaussian_scalar",
        binarize="none",
        data__name="npz",
        data__path=path,
        nll_samples=5,
        batch_size=50,
    )
    programs, states = made(config)
    each = -np.asarray(programs.draw(states, "log_likelihood", 300, "test")[0], np.float64)
    classes = dataset(config).arrays["label"][600 + permute_fixed(np.arange(300), 300)]
    # nats: the first half of a sorted split is one class
    assert abs(each[classes == 0].mean() - each[classes == 1].mean()) > 3
    found = Evaluator(programs).evaluate(states, "test", 150, ["nll"])[0]
    error = each.std(ddof=1) / math.sqrt(150)
    assert found["nll"] == pytest.approx(each.mean(), abs=3 * error * math.sqrt(0.5))
    assert found["nll_error"] == pytest.approx(error, rel=0.15)


def test_references_are_a_random_part_of_the_split():
    config = tiny("seq2seq")
    programs, states = made(config)
    start, count = dataset(config).splits["valid"]
    rows = start + permute_fixed(np.arange(12), count)
    wanted = dataset(config).take(dataset(config).arrays, rows)["tokens"][:, 1:]
    np.testing.assert_array_equal(programs.draw(states, "reference", 12, "valid")[0], wanted)
    assert (np.diff(rows) < 0).any()


def test_parzen_width_is_chosen_on_a_random_part_of_the_valid_split():
    """The first 1,000 examples of the valid split are at the samples, all others
    further away: the random part has the most likely width of the full split.
    """
    random = np.random.RandomState(0)
    samples, near, far = (
        random.randn(50, 2) * 0.01,
        random.randn(1000, 2) * 0.01,
        1 + random.randn(1000, 2) * 0.01,
    )
    valid = np.concatenate([near, far])
    of = lambda split: dict(x=valid if split == "valid" else near)
    found = METRICS["parzen"](
        MetricInputs(lambda what: samples, "test", of, Spec("points", (2,), 1), None)
    )
    apart = scipy.spatial.distance.cdist(valid, samples, "sqeuclidean")
    log_p = lambda sigma: (
        np.mean(scipy.special.logsumexp(-apart / (2 * sigma**2), axis=1)) - 2 * math.log(sigma)
    )
    widths = np.geomspace(0.01, 1, 21)
    assert found["parzen_sigma"] == pytest.approx(widths[np.argmax([log_p(s) for s in widths])])


def test_contact_sheet_of_a_sorted_split_has_all_classes(tmp_path, capsys):
    from aigc_jax.cli import main as cli

    path = sorted_npz(tmp_path, (90, 90))
    assert (
        cli.main(["data", "--name=npz", f"--path={path}", f"--out={tmp_path / 'sheet.png'}"]) == 0
    )
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))[LINE + SPACE :, SPACE:]
    cells = [
        sheet[66 * i : 66 * i + 64, 66 * j : 66 * j + 64].max() for i in range(8) for j in range(8)
    ]
    assert 16 < sum(value < 20 for value in cells) < 48  # black images: about half, not all


# -- classes


def test_conditional_samples_have_the_class_frequencies_of_the_data(tmp_path, monkeypatch):
    path = sorted_npz(tmp_path, (90, 10))
    config = tiny("gan", data__name="npz", data__path=path, gan__condition="projection")
    programs, states = made(config)
    kernel = lambda tree: {k: v for k, v in jax.tree_util.tree_leaves_with_path(tree)}
    first = next(
        path
        for path, x in kernel(states.extra["ema"]).items()
        if x.ndim == 3 and x.shape[1] == config.latent_dim + 2
    )
    deaf = jax.tree_util.tree_map_with_path(
        lambda path, x: x.at[:, : config.latent_dim].set(0) if path == first else x,
        states.extra["ema"],
    )
    # samples depend only on their class
    states = states.replace(extra=states.extra | dict(ema=deaf))
    calls = []
    monkeypatch.setitem(
        METRICS,
        "share",
        lambda inputs: calls.append(inputs) or dict(share=share(inputs.draw("prior"))),
    )
    one, other = programs.draw(states, "prior", 2)[0]
    assert np.abs(one - other).max() > 0.01
    share = lambda x: float(np.mean([np.abs(v - one).max() < np.abs(v - other).max() for v in x]))
    assert Evaluator(programs).evaluate(states, "test", 200, ["share"])[0]["share"] == 0.9
    assert Evaluator(programs).evaluate(states, "test", 40, ["share"])[0]["share"] == pytest.approx(
        0.9, abs=0.1
    )
    labels = calls[-1].labels()
    assert share(programs.draw(states, "prior", 20)[0]) == 0.5  # grids cycle through the classes
    np.testing.assert_array_equal(
        labels == 0,
        [np.abs(v - one).max() < np.abs(v - other).max() for v in calls[-1].draw("prior")],
    )
    right = lambda x: (
        x,
        np.eye(2)[[int(np.abs(v - one).max() > np.abs(v - other).max()) for v in x]],
    )
    assert METRICS["class_accuracy"](calls[-1]._replace(extract=right)) == dict(class_accuracy=1.0)


# -- ties of distances


def table(real, fake, k):
    """Precision, recall, density and coverage by integer arithmetic: squared distances
    are integers.
    """
    apart = lambda a, b: ((a[:, None].astype(int) - b[None].astype(int)) ** 2).sum(-1)
    reach, span = (np.sort(apart(x, x), axis=1)[:, k] for x in (real, fake))
    inside = apart(real, fake) < reach[:, None]
    return dict(
        precision=inside.any(0).mean(),
        recall=(apart(real, fake) < span).any(1).mean(),
        density=inside.sum(0).mean() / k,
        coverage=inside.any(1).mean(),
    )


@pytest.mark.parametrize(
    "values, scale, shift",
    [(2, 1, 0), (2, 0.25, 0), (5, 1, 0), (256, 1, 0), (2, 1, 3), (2, 0.125, 1000)],
)
def test_precision_and_recall_of_features_with_ties_are_exact(values, scale, shift):
    random = np.random.RandomState(values)
    real, fake = (random.randint(0, values, (120, 9)) for _ in range(2))
    # a feature that is constant in the real examples
    real[:, 3], fake[:, 3] = 1, random.randint(0, 2, 120)
    assert prdc(real * scale + shift, fake * scale + shift) == pytest.approx(
        table(real, fake, 5), abs=1e-12
    )


def test_precision_and_recall_with_ties_match_the_prdc_package():
    random = np.random.RandomState(1)
    real, fake = (random.randint(0, 2, (40, 8)).astype(float) for _ in range(2))
    assert prdc(real, fake) == pytest.approx(PRDC, abs=1e-12)  # of prdc 0.2
    package = pytest.importorskip("prdc")
    assert prdc(real, fake) == pytest.approx(package.compute_prdc(real, fake, 5), abs=1e-12)


PRDC = dict(precision=1.0, recall=0.925, density=0.685, coverage=0.825)
