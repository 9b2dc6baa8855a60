"""Metrics by closed forms; and what they say of real digits, of noise, of one picture repeated: each what it deserves."""

import math

import numpy as np
import pytest
import scipy.stats
from tiny_configs import dataset, tiny

from aigc_jax import extractors, metrics
from aigc_jax.data.dataset import Spec
from aigc_jax.errors import UserError
from aigc_jax.metrics import METRICS, Given
from aigc_jax.metrics.classes import classifier_score, stacked
from aigc_jax.metrics.distances import nearest, radii, squares
from aigc_jax.metrics.given import remembered
from aigc_jax.metrics.kernel import kid
from aigc_jax.metrics.manifold import prdc
from aigc_jax.metrics.neighbours import copied
from aigc_jax.metrics.parzen import SIGMAS, log_density, parzen_window
from aigc_jax.metrics.separability import separable

# -- closed forms


def normal(n, d, seed=0, shift=0.0):
    return np.random.RandomState(seed).randn(n, d) + shift


def test_distances_and_radii_are_those_written_out():
    a, b = normal(7, 3), normal(5, 3, 1)
    table = np.linalg.norm(a[:, None] - b[None], axis=-1)
    np.testing.assert_allclose(np.sqrt(squares(a, b)), table, rtol=1e-9)
    place, distance = nearest(a, b)
    np.testing.assert_array_equal(place, table.argmin(1))
    np.testing.assert_allclose(distance, table.min(1), rtol=1e-6)
    own = np.sort(np.linalg.norm(a[:, None] - a[None], axis=-1), axis=1)
    np.testing.assert_allclose(np.sqrt(radii(a, 2)), own[:, 2], rtol=1e-9)
    assert (nearest(b, np.concatenate([a, b]))[1] == 0).all()  # a copy lies at no distance


def test_kernel_distance_by_all_pairs_and_without_bias():
    a, b = normal(6, 4), normal(9, 4, 1)
    kernel = lambda x, y: (x @ y / 4 + 1) ** 3
    pairs = lambda x: np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])
    cross = np.mean([kernel(x, y) for x in a for y in b])
    assert kid(a, b) == pytest.approx(pairs(a) + pairs(b) - 2 * cross, rel=1e-12)
    same = [kid(normal(50, 4, 2 * i), normal(50, 4, 2 * i + 1)) for i in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 200**0.5  # 0 in the mean, negative about half the time
    assert min(same) < 0
    assert kid(normal(500, 4), normal(500, 4, 1, shift=1.0)) > 10 * np.std(same)


def test_precision_recall_density_coverage_on_a_line():
    """Real points 0, 1, .., 9 with balls of radius 1 (k = 1); fake ones inside, on none of their borders, and far outside."""
    real, fake = np.arange(10.0)[:, None], np.array([[0.5], [4.25], [100.0], [103.0]])
    found = prdc(real, fake, k=1)
    assert found["precision"] == 0.5  # two of four
    assert found["density"] == pytest.approx((2 + 2) / 4)  # each of the two lies in two balls
    assert found["coverage"] == pytest.approx(4 / 10)
    assert found["recall"] == 0.8  # the ball of 0.5 reaches to 4.25, that of 4.25 to 8, neither to its border: 0 .. 7
    assert all(math.isnan(x) for x in prdc(real[:3], fake, k=3).values())


def test_recall_counts_the_real_in_balls_of_the_fake():
    real = np.arange(10.0)[:, None]
    fake = np.array([[0.0], [1.5], [100.0], [101.0]])
    assert prdc(real, fake, k=1)["recall"] == pytest.approx(3 / 10)  # |x| < 1.5 or |x - 1.5| < 1.5: 0 .. 2


def test_classifier_scores():
    sure = np.tile(np.eye(5), (4, 1))
    assert classifier_score(sure) == pytest.approx(5)
    assert classifier_score(np.full((20, 5), 0.2)) == pytest.approx(1)
    assert classifier_score(np.tile(np.eye(5)[:1], (20, 1))) == pytest.approx(1)
    p = np.array([[0.9, 0.1], [0.3, 0.7]])
    q = p.mean(0)
    assert classifier_score(p) == pytest.approx(math.exp(np.mean([scipy.stats.entropy(x, q) for x in p])))


def test_stacked_modes_and_their_divergence():
    assert stacked(np.arange(1000), 1000) == dict(stacked_modes=1000.0, stacked_kl=pytest.approx(0, abs=1e-12))
    assert stacked(np.zeros(50, int), 1000) == dict(stacked_modes=1.0, stacked_kl=pytest.approx(math.log(1000)))
    assert stacked(np.repeat([3, 7], 5), 1000)["stacked_kl"] == pytest.approx(math.log(500))


def test_parzen_windows_are_a_mixture_of_normals():
    x, windows = normal(6, 3), normal(4, 3, 1)
    log_p = [scipy.stats.multivariate_normal.logpdf(x, w, 0.3**2) for w in windows]
    np.testing.assert_allclose(log_density(x, windows, [0.3])[0], scipy.special.logsumexp(log_p, axis=0) - math.log(4), rtol=1e-9)
    found = parzen_window(normal(2000, 2), normal(500, 2, 1), normal(500, 2, 2))
    entropy = 2 * 0.5 * math.log(2 * math.pi * math.e)  # of what they are drawn from: the best that can be
    assert found["parzen"] == pytest.approx(-entropy, abs=0.15) and found["parzen_sigma"] in SIGMAS


def test_separability_of_disjoint_and_of_equal_sets():
    a = normal(200, 5)
    assert separable(a, a) == 0.5
    assert separable(a, normal(200, 5, 1, shift=10.0)) == 1.0
    assert abs(separable(a, normal(200, 5, 1)) - 0.5) < 0.1
    # two normals a distance d apart along each of 5 axes: the best of all classifiers is right with probability Phi(d sqrt(5) / 2)
    assert separable(normal(4000, 5), normal(4000, 5, 1, shift=0.5)) == pytest.approx(scipy.stats.norm.cdf(0.25 * 5**0.5), abs=0.02)


def test_copies_are_found():
    train, held_out = normal(500, 6), normal(200, 6, 1)
    assert copied(train[:50], held_out, train) == dict(neighbour_distance=0.0, copies=1.0)
    fresh = copied(normal(200, 6, 2), held_out, train)
    assert fresh["neighbour_distance"] == pytest.approx(1, abs=0.1) and fresh["copies"] < 0.05


def test_pictures_are_looked_at_once_and_broken_ones_are_nan():
    calls = []

    def extract(pictures):
        calls.append(len(pictures))
        return pictures.reshape(len(pictures), -1), pictures.reshape(len(pictures), -1)[:, :1]

    look, x = remembered(extract), np.zeros((3, 2, 2, 1), np.float32)
    broken = x.copy()
    broken[1, 0, 0, 0] = np.inf
    for pictures in (x, broken, x.copy(), broken):
        features, _ = look(pictures)
    assert calls == [3, 3] and np.isnan(features[1]).all() and np.isfinite(features[[0, 2]]).all()


# -- on real digits, through the classifier of digits


@pytest.fixture(scope="module")
def looking(tmp_path_factory):
    """What metrics see digits through, trained here once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIGC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        found = extractors.extractor(tiny("gan"))
        assert extractors.extractor(tiny("gan")) is found
        yield found


def given_of(looking, samples, split="test", turns=10):
    ds = dataset(tiny("gan"))

    def of(name):
        start, count = ds.splits[name]
        return ds.take(ds.arrays, np.arange(start, start + count))

    return Given(lambda what: samples, split, of, ds.spec, remembered(looking), turns)


@pytest.fixture(scope="module")
def sources():
    """Real digits that no one has seen, in turn of their classes; noise as of an untrained generator; one digit again and again."""
    ds = dataset(tiny("gan"))
    start, count = ds.splits["valid"]
    real = ds.take(ds.arrays, np.arange(start, start + count))
    order = np.argsort([list(real["label"][:i]).count(k) * 10 + k for i, k in enumerate(real["label"])], kind="stable")
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
def test_bad_generators_get_what_they_deserve(metric, looking, sources):
    name, sign, bad = WORSE[metric]
    values = {source: sign * METRICS[metric](given_of(looking, x))[name] for source, x in sources.items()}
    for source in bad:
        assert values["real"] > values[source], values
    margin = min(values["real"] - values[source] for source in bad)
    shuffled = sources["real"][np.random.RandomState(1).permutation(len(sources["real"]))]
    again = sign * METRICS[metric](given_of(looking, shuffled))[name]
    if metric == "class_accuracy":
        assert again == pytest.approx(0.1, abs=0.1) and values["real"] > 0.95  # shuffled, pictures are of any class
    else:
        assert abs(again - values["real"]) < 0.2 * margin  # the order of samples says nothing


def test_absolute_values_on_real_digits(looking, sources):
    of = lambda metric, source, **more: METRICS[metric](given_of(looking, sources[source], **more))
    cover, collapsed = of("prdc", "real"), of("prdc", "constant")
    assert min(cover["precision"], cover["recall"], cover["coverage"]) > 0.75 and 0.7 < cover["density"] < 1.4
    assert collapsed["recall"] == 0 and collapsed["coverage"] < 0.1  # one picture, however good
    assert max(of("prdc", "noise").values()) < 0.2
    assert 8 < of("classifier_score", "real")["classifier_score"] <= 10 and of("classifier_score", "constant")["classifier_score"] == pytest.approx(1)
    assert abs(of("separability", "real")["separability"] - 0.5) < 0.15 and of("separability", "noise")["separability"] > 0.95
    assert of("neighbours", "real")["copies"] < 0.1
    ds = dataset(tiny("gan"))
    learnt = ds.take(ds.arrays, np.arange(100))["x"]  # a generator that says its training examples again
    assert METRICS["neighbours"](given_of(looking, learnt)) == dict(neighbour_distance=0.0, copies=1.0)
    assert of("class_accuracy", "constant")["class_accuracy"] == pytest.approx(0.1)


@pytest.mark.parametrize("metric", [*WORSE, "stacked_modes"])
def test_what_is_not_finite_is_no_number_and_no_error(metric, looking, sources):
    x = sources["real"].copy()
    x[5, 0, 0, 0] = np.nan
    if metric == "stacked_modes":
        x = np.concatenate([x, x, x], axis=-1)
    values = METRICS[metric](given_of(looking, x))
    assert all(math.isnan(v) for v in values.values()), values


def test_stacked_digits_are_counted_colour_by_colour(looking, sources):
    real = sources["real"]
    classes = looking(real)[1].argmax(1)
    shifted = [real, np.roll(real, 7, axis=0), np.roll(real, 23, axis=0)]
    found = METRICS["stacked_modes"](given_of(looking, np.concatenate(shifted, axis=-1)))
    label = 100 * classes + 10 * np.roll(classes, 7) + np.roll(classes, 23)
    assert found == stacked(label, 1000) and found["stacked_modes"] == len(set(label))
    collapsed = METRICS["stacked_modes"](given_of(looking, np.concatenate([sources["constant"]] * 3, axis=-1)))
    assert collapsed == dict(stacked_modes=1.0, stacked_kl=pytest.approx(math.log(1000)))
    with pytest.raises(UserError, match="three digits as colours"):
        METRICS["stacked_modes"](given_of(looking, real))


def test_an_extractor_sees_what_its_classifier_does_however_many_pictures(looking, sources):
    features, p = looking(sources["real"])
    assert features.shape == (len(p), 128) and p.shape[1] == 10 and len(looking.sha256) == 64
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(looking(sources["real"][:3])[0], features[:3], atol=1e-4)
    both = np.concatenate([sources["real"][:2], sources["real"][2:4]], axis=-1)
    wide, pairs = looking(both)
    assert wide.shape == (2, 256) and pairs.shape == (2, 100)  # the colours' features side by side
    np.testing.assert_allclose(pairs[0].reshape(10, 10), np.outer(p[0], p[2]), atol=1e-5)


def test_mistakes_are_named_in_one_sentence(looking, sources):
    with pytest.raises(UserError, match="'class_accuracy' is for generators of given classes"):
        METRICS["class_accuracy"](given_of(looking, sources["real"], turns=0))
    with pytest.raises(UserError, match="config.data.name = 'ring' has no classifier .* give Inception's weights by --inception=FILE"):
        extractors.extractor(tiny("gan_points"))
    with pytest.raises(UserError, match="ring"):
        METRICS["modes"](Given(None, "test", None, Spec("image", (8, 8, 1), 1), None))


def test_cards_say_what_a_value_rests_on(looking):
    text = metrics.card("prdc", 5000, 179, "test", looking)
    assert "Precision, recall, density and coverage" in text and looking.sha256[:12] in text and "179 examples of the test split" in text
    assert all(function.__doc__ for function in METRICS.values())
    assert "SHA-256" not in metrics.card("frechet_pixels", 5000, 179, "test", None)
