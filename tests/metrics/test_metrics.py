"""Metrics against closed forms, and their values for real digits, noise and one
repeated image.
"""

import functools
import math
import os
import tracemalloc

import numpy as np
import pytest
import scipy.stats
from tiny_configs import dataset, tiny

from aigc_jax import metrics
from aigc_jax.metrics import EXTRACTED, METRICS, pairwise
from aigc_jax.metrics.classifier_scores import classifier_score
from aigc_jax.metrics.frechet import squared_frechet_distance
from aigc_jax.metrics.inputs import MetricInputs, make_cached_extractor
from aigc_jax.metrics.kid import unbiased_squared_mmd
from aigc_jax.metrics.memorization import copy_statistics
from aigc_jax.metrics.mode_coverage import stacked_mode_statistics
from aigc_jax.metrics.pairwise import (
    find_nearest_neighbours,
    kth_neighbour_squared_distances,
    squared_distances,
)
from aigc_jax.metrics.parzen import SIGMAS, evaluate_parzen_windows, parzen_log_density
from aigc_jax.metrics.precision_recall import prdc
from aigc_jax.metrics.two_sample_test import two_sample_accuracy
from aigc_jax.training import feature_extractors
from aigc_jax.utils.errors import UserError

# -- closed forms


def normal(n, d, seed=0, shift=0.0):
    return np.random.RandomState(seed).randn(n, d) + shift


def test_distances_and_radii_match_direct_computation():
    a, b = normal(7, 3), normal(5, 3, 1)
    table = np.linalg.norm(a[:, None] - b[None], axis=-1)
    np.testing.assert_allclose(np.sqrt(squared_distances(a, b)), table, rtol=1e-9)
    for blocks in ([b], [b[:2], b[2:3], b[3:]], [b[3:], b[:3]]):
        found, distance = find_nearest_neighbours(a, iter(blocks))
        np.testing.assert_array_equal(found, np.float32(b)[table.argmin(1)])
        np.testing.assert_allclose(distance, table.min(1), rtol=1e-6)
    own = np.sort(np.linalg.norm(a[:, None] - a[None], axis=-1), axis=1)
    np.testing.assert_allclose(np.sqrt(kth_neighbour_squared_distances(a, 2)), own[:, 2], rtol=1e-9)
    assert (find_nearest_neighbours(b, [a, b, a])[1] == 0).all()  # copies have distance 0
    assert np.isfinite(
        find_nearest_neighbours(a * 1e30, [b, b])[1]
    ).all()  # their squares overflow float32


def test_block_size_does_not_change_metrics(monkeypatch):
    a, b = normal(60, 4), normal(50, 4, 1)
    values = lambda: (
        unbiased_squared_mmd(a, b),
        *prdc(a, b).values(),
        *parzen_log_density(a, b, [0.5, 1.0]).ravel(),
        *find_nearest_neighbours(a, [b])[1],
    )
    whole = values()
    monkeypatch.setattr(pairwise, "BLOCK", 170)  # three rows at a time
    np.testing.assert_allclose(values(), whole, rtol=1e-12)


def test_blockwise_metrics_bound_peak_memory(monkeypatch):
    monkeypatch.setattr(pairwise, "BLOCK", 20_000)  # 160 kB
    a, b = normal(1500, 4), normal(1500, 4, 1)
    near = lambda a, b: find_nearest_neighbours(a, (b[i : i + 100] for i in range(0, len(b), 100)))
    for metric in (unbiased_squared_mmd, prdc, near, lambda a, b: parzen_log_density(a, b, [1.0])):
        tracemalloc.start()
        metric(a, b)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2e6, peak  # all distances at once take 18 MB


def test_kid_matches_all_pairs_and_is_unbiased():
    a, b = normal(6, 4), normal(9, 4, 1)
    kernel = lambda x, y: (x @ y / 4 + 1) ** 3
    pairs = lambda x: np.mean(
        [kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
    )
    cross = np.mean([kernel(x, y) for x in a for y in b])
    assert unbiased_squared_mmd(a, b) == pytest.approx(pairs(a) + pairs(b) - 2 * cross, rel=1e-12)
    same = [
        unbiased_squared_mmd(normal(50, 4, 2 * i), normal(50, 4, 2 * i + 1)) for i in range(200)
    ]
    # 0 in the mean, negative about half the time
    assert abs(np.mean(same)) < 4 * np.std(same) / 200**0.5
    assert min(same) < 0
    assert unbiased_squared_mmd(normal(500, 4), normal(500, 4, 1, shift=1.0)) > 10 * np.std(same)


def test_precision_recall_density_coverage_on_a_line():
    """Real points 0, 1, .., 9 with balls of radius 1 (k = 1); fake points inside the
    balls, on none of their borders, and far outside.
    """
    real, fake = np.arange(10.0)[:, None], np.array([[0.5], [4.25], [100.0], [103.0]])
    found = prdc(real, fake, k=1)
    assert found["precision"] == 0.5  # two of four
    assert found["density"] == pytest.approx((2 + 2) / 4)  # each of the two is in two balls
    assert found["coverage"] == pytest.approx(4 / 10)
    # the ball of 0.5 reaches to 4.25, that of 4.25 to 8, neither to its border: 0 .. 7
    assert found["recall"] == 0.8
    assert all(math.isnan(x) for x in prdc(real[:3], fake, k=3).values())


def test_recall_counts_real_points_in_balls_of_fake_points():
    real = np.arange(10.0)[:, None]
    fake = np.array([[0.0], [1.5], [100.0], [101.0]])
    # |x| < 1.5 or |x - 1.5| < 1.5: 0 .. 2
    assert prdc(real, fake, k=1)["recall"] == pytest.approx(3 / 10)


def test_precision_recall_density_coverage_match_a_distance_table():
    real, fake = normal(80, 3), normal(60, 3, 1, shift=1.0)
    table = lambda x, y: np.linalg.norm(x[:, None] - y[None], axis=-1)
    reach, span = (np.sort(table(x, x), axis=1)[:, 5] for x in (real, fake))
    inside = table(real, fake) < reach[:, None]
    wanted = dict(
        precision=inside.any(0).mean(),
        recall=(table(real, fake) < span).any(1).mean(),
        density=inside.sum(0).mean() / 5,
        coverage=inside.any(1).mean(),
    )
    assert (
        prdc(real, fake) == pytest.approx(wanted)
        and 0.3 < min(wanted.values()) < max(wanted.values()) < 1
    )


def test_classifier_score_of_sharp_uniform_and_mixed_predictions():
    sure = np.tile(np.eye(5), (4, 1))
    assert classifier_score(sure) == pytest.approx(5)
    assert classifier_score(np.full((20, 5), 0.2)) == pytest.approx(1)
    assert classifier_score(np.tile(np.eye(5)[:1], (20, 1))) == pytest.approx(1)
    p = np.array([[0.9, 0.1], [0.3, 0.7]])
    q = p.mean(0)
    assert classifier_score(p) == pytest.approx(
        math.exp(np.mean([scipy.stats.entropy(x, q) for x in p]))
    )


def test_stacked_modes_and_kl_of_known_labels():
    assert stacked_mode_statistics(np.arange(1000), 1000) == dict(
        stacked_modes=1000.0, stacked_kl=pytest.approx(0, abs=1e-12)
    )
    assert stacked_mode_statistics(np.zeros(50, int), 1000) == dict(
        stacked_modes=1.0, stacked_kl=pytest.approx(math.log(1000))
    )
    assert stacked_mode_statistics(np.repeat([3, 7], 5), 1000)["stacked_kl"] == pytest.approx(
        math.log(500)
    )


def test_parzen_density_is_a_mixture_of_normals():
    x, windows = normal(6, 3), normal(4, 3, 1)
    log_p = [scipy.stats.multivariate_normal.logpdf(x, w, 0.3**2) for w in windows]
    np.testing.assert_allclose(
        parzen_log_density(x, windows, [0.3])[0],
        scipy.special.logsumexp(log_p, axis=0) - math.log(4),
        rtol=1e-9,
    )
    found = evaluate_parzen_windows(normal(2000, 2), normal(500, 2, 1), normal(500, 2, 2))
    # the entropy of their distribution: the best possible value
    entropy = 2 * 0.5 * math.log(2 * math.pi * math.e)
    assert found["parzen"] == pytest.approx(-entropy, abs=0.15) and found["parzen_sigma"] in SIGMAS


def test_separability_of_equal_shifted_and_disjoint_sets():
    a = normal(200, 5)
    assert two_sample_accuracy(a, a) == 0.5
    assert two_sample_accuracy(a, normal(200, 5, 1, shift=10.0)) == 1.0
    assert abs(two_sample_accuracy(a, normal(200, 5, 1)) - 0.5) < 0.1
    # more dimensions than examples: the training accuracy would be 1
    assert abs(two_sample_accuracy(normal(60, 300), normal(60, 300, 1)) - 0.5) < 0.15
    # two normals a distance d apart along each of 5 axes: the best of all classifiers
    # is right with probability Phi(d sqrt(5) / 2)
    assert two_sample_accuracy(normal(4000, 5), normal(4000, 5, 1, shift=0.5)) == pytest.approx(
        scipy.stats.norm.cdf(0.25 * 5**0.5), abs=0.02
    )


def test_copies_of_training_examples_are_detected():
    train, held_out = normal(500, 6), normal(200, 6, 1)
    assert copy_statistics(train[:50], held_out, [train]) == dict(
        neighbour_distance=0.0, copies=1.0
    )
    fresh = copy_statistics(normal(200, 6, 2), held_out, [train[:90], train[90:]])
    assert fresh["neighbour_distance"] == pytest.approx(1, abs=0.1) and fresh["copies"] < 0.05
    # duplicates in the data: a fifth of the held-out examples are training examples
    repeated = np.concatenate([held_out, train[:50]])
    assert (
        copy_statistics(train[:50], repeated, [train])["copies"] == 1
        and copy_statistics(normal(200, 6, 2), repeated, [train])["copies"] == 0
    )


def test_too_few_examples_give_nan():
    a, one = normal(20, 3), normal(1, 3, 1)
    values = [
        squared_frechet_distance(a, one),
        unbiased_squared_mmd(one, a),
        two_sample_accuracy(a, one),
        *prdc(a, one).values(),
    ]
    assert all(map(math.isnan, values)), values


def test_features_are_cached_and_non_finite_images_give_nan():
    calls = []

    def extract(pictures):
        calls.append(len(pictures))
        return pictures.reshape(len(pictures), -1), pictures.reshape(len(pictures), -1)[:, :1]

    look, x = make_cached_extractor(extract), np.zeros((3, 2, 2, 1), np.float32)
    broken = x.copy()
    broken[1, 0, 0, 0] = np.inf
    for pictures in (x, broken, x.copy(), broken):
        features, _ = look(pictures)
    assert calls == [3, 3] and np.isnan(features[1]).all() and np.isfinite(features[[0, 2]]).all()


# -- on real digits, through the classifier of digits


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The classifier of digits, trained once for all processes of these tests."""
    folder = tmp_path_factory.getbasetemp()
    # xdist workers each have a folder in their common parent
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIGC_CACHE_DIR", str(folder / "cache"))
        yield feature_extractors.make_extractor(tiny("gan"))


@pytest.fixture(scope="module")
def cached_extractor(found):
    """The extractor with cached features: each set of images is processed once."""
    return make_cached_extractor(found, max_sets=50)


@functools.cache
def examples_of(split):
    ds = dataset(tiny("gan"))
    start, count = ds.splits[split]
    return ds.take(ds.arrays, np.arange(start, start + count))


def metric_inputs(look, samples, split="test", classes=10):
    labels = None if classes == 0 else np.arange(len(samples)) % classes
    return MetricInputs(
        lambda what: samples,
        split,
        examples_of,
        dataset(tiny("gan")).spec._replace(classes=classes),
        look,
        lambda: labels,
        lambda split: iter([examples_of(split)]),
    )


@pytest.fixture(scope="module")
def sources():
    """Real digits of the valid split, cycling through the classes; noise as of an
    untrained generator; one digit repeated.
    """
    real = examples_of("valid")
    order = np.argsort(
        [list(real["label"][:i]).count(k) * 10 + k for i, k in enumerate(real["label"])],
        kind="stable",
    )
    each = min(np.bincount(real["label"]))
    x = real["x"][order][: 10 * each]
    assert (real["label"][order][: 10 * each] == np.tile(np.arange(10), each)).all()
    noise = np.tanh(np.random.RandomState(0).randn(*x.shape)).astype(np.float32)
    return dict(real=x, noise=noise, constant=np.repeat(x[3:4], len(x), axis=0))


# metric -> (value, sign: 1 where more is better)
WORSE = {
    "frechet": ("frechet", -1, ("noise", "constant")),
    "frechet_pixels": ("frechet_pixels", -1, ("noise", "constant")),
    "kid": ("kid", -1, ("noise", "constant")),
    "prdc": ("precision", 1, ("noise",)),
    "classifier_score": ("classifier_score", 1, ("noise", "constant")),
    "parzen": ("parzen", 1, ("noise", "constant")),
    "separability": ("separability", -1, ("noise", "constant")),
    "class_accuracy": ("class_accuracy", 1, ("noise", "constant")),
    "diversity": ("diversity", 1, ("constant",)),
    "neighbours": ("neighbour_distance", -1, ("noise",)),
}


@pytest.mark.parametrize("metric", WORSE)
def test_metrics_rank_bad_generators_below_real_images(metric, cached_extractor, sources):
    name, sign, bad = WORSE[metric]
    values = {
        source: sign * METRICS[metric](metric_inputs(cached_extractor, x))[name]
        for source, x in sources.items()
    }
    for source in bad:
        assert values["real"] > values[source], values
    margin = min(values["real"] - values[source] for source in bad)
    shuffled = sources["real"][np.random.RandomState(1).permutation(len(sources["real"]))]
    again = sign * METRICS[metric](metric_inputs(cached_extractor, shuffled))[name]
    if metric == "class_accuracy":
        # shuffled images have arbitrary classes
        assert again == pytest.approx(0.1, abs=0.1) and values["real"] > 0.95
    else:
        assert abs(again - values["real"]) < 0.2 * margin  # the order of samples does not matter


def test_metric_values_of_digits_noise_and_constant_images(cached_extractor, sources):
    value = lambda metric, source: METRICS[metric](metric_inputs(cached_extractor, sources[source]))
    cover, collapsed = value("prdc", "real"), value("prdc", "constant")
    assert (
        min(cover["precision"], cover["recall"], cover["coverage"]) > 0.75
        and 0.7 < cover["density"] < 1.4
    )
    assert collapsed["recall"] == 0 and collapsed["coverage"] < 0.1  # one image, however good
    assert max(value("prdc", "noise").values()) < 0.2
    score = lambda source: value("classifier_score", source)["classifier_score"]
    assert 8 < score("real") <= 10 and score("constant") == pytest.approx(1)
    assert (
        abs(value("separability", "real")["separability"] - 0.5) < 0.15
        and value("separability", "noise")["separability"] > 0.95
    )
    assert value("neighbours", "real")["copies"] < 0.1
    learnt = examples_of("train")["x"][:100]  # a generator that repeats training examples
    # a training split may be larger than memory: it is read in blocks only
    inputs = metric_inputs(cached_extractor, learnt)._replace(
        examples=lambda split: {"test": examples_of("test")}[split]
    )
    assert METRICS["neighbours"](inputs) == dict(neighbour_distance=0.0, copies=1.0)
    assert value("class_accuracy", "constant")["class_accuracy"] == pytest.approx(0.1)


@pytest.mark.parametrize("metric", [*WORSE, "stacked_modes"])
def test_non_finite_samples_give_nan(metric, cached_extractor, sources):
    x = sources["real"].copy()
    x[5, 0, 0, 0] = np.nan
    if metric == "stacked_modes":
        x = np.concatenate([x, x, x], axis=-1)
    values = METRICS[metric](metric_inputs(cached_extractor, x))
    assert all(math.isnan(v) for v in values.values()), values


def test_stacked_modes_classify_each_colour_channel(cached_extractor, sources):
    real = sources["real"]
    classes = cached_extractor(real)[1].argmax(1)
    shifted = [real, np.roll(real, 7, axis=0), np.roll(real, 23, axis=0)]
    found = METRICS["stacked_modes"](
        metric_inputs(cached_extractor, np.concatenate(shifted, axis=-1))
    )
    label = 100 * classes + 10 * np.roll(classes, 7) + np.roll(classes, 23)
    assert found == stacked_mode_statistics(label, 1000) and found["stacked_modes"] == len(
        set(label)
    )
    collapsed = METRICS["stacked_modes"](
        metric_inputs(cached_extractor, np.concatenate([sources["constant"]] * 3, axis=-1))
    )
    assert collapsed == dict(stacked_modes=1.0, stacked_kl=pytest.approx(math.log(1000)))
    with pytest.raises(UserError, match="images of three digits, one per colour channel"):
        METRICS["stacked_modes"](metric_inputs(cached_extractor, real))


def test_extractor_is_independent_of_batch_size_and_stacks_colours(found, sources):
    features, p = found(sources["real"])
    assert features.shape == (len(p), 128) and p.shape[1] == 10 and len(found.sha256) == 64
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found(sources["real"][:3])[0], features[:3], atol=1e-4)
    both = np.concatenate([sources["real"][:2], sources["real"][2:4]], axis=-1)
    wide, pairs = found(both)
    assert wide.shape == (2, 256) and pairs.shape == (2, 100)  # the colours' features side by side
    np.testing.assert_allclose(pairs[0].reshape(10, 10), np.outer(p[0], p[2]), atol=1e-5)


def test_classifier_is_trained_once_and_then_loaded(found, sources, capfd):
    # the same for every config of these data
    assert feature_extractors.make_extractor(tiny("gan", hp__lr_g=1.0)) is found
    feature_extractors.load_or_train_classifier.cache_clear()  # as in another process
    again = feature_extractors.make_extractor(tiny("gan"))
    assert (
        again is not found
        and again.sha256 == found.sha256
        and "training" not in capfd.readouterr().err
    )
    np.testing.assert_array_equal(again(sources["real"])[1], found(sources["real"])[1])


def test_invalid_metric_requests_are_refused(cached_extractor, sources):
    with pytest.raises(UserError, match="'class_accuracy' is for class-conditional generators"):
        METRICS["class_accuracy"](metric_inputs(cached_extractor, sources["real"], classes=0))
    with pytest.raises(
        UserError, match="needs a classifier of the 7 classes of the data, not of 10"
    ):
        METRICS["class_accuracy"](metric_inputs(cached_extractor, sources["real"], classes=7))
    with pytest.raises(
        UserError,
        match="config.data.name = 'ring' has no classifier .* set the file of Inception's "
        "weights with inception=FILE",
    ):
        feature_extractors.make_extractor(tiny("gan_points"))
    with pytest.raises(UserError, match=r"metrics\[1\] = 'freshet'.* did you mean 'frechet'"):
        metrics.select_metrics(["kid", "freshet"], ("prior",), "gan", "metrics")


@pytest.mark.parametrize(
    "metric, rests",
    [
        ("frechet", "5,000 samples against 179 examples of the test split; features"),
        # equal numbers of samples and examples
        ("prdc", "179 samples against 179 examples of the test split; features"),
        ("kid", "5,000 samples against 179 examples of the test split; features"),
        ("neighbours", "5,000 samples against 179 examples of the test split"),
        ("class_accuracy", "5,000 samples; features"),  # no examples
        ("nll", "179 examples of the test split"),  # no samples
    ],
)
def test_metric_cards_state_samples_examples_and_extractor(metric, rests, found):
    definition, line = metrics.describe_metric(metric, 5000, 179, "test", found).split("\n")
    assert definition == f"{metric}: {metrics.metric_definition(metric)}" and len(definition) > 60
    seen = (
        f" of the classifier of digits, SHA-256 {found.sha256[:12]}" if metric in EXTRACTED else ""
    )
    assert line.strip() == rests + seen


# Metrics with controls in tests of their own: of known modes, likelihoods and text.
CONTROLLED = {"stacked_modes", "modes", "nll", "bleu", "bleu_greedy", "rouge", "variety"}


def test_every_metric_has_a_negative_control_and_a_definition():
    assert METRICS.keys() - CONTROLLED == WORSE.keys()
    assert all(metrics.metric_definition(name).endswith(".") for name in METRICS)
