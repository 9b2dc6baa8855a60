"""The classifier that extracts features for metrics: network, loss, saliency."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from tiny_configs import resolved, tiny

import aigc_jax
from aigc_jax import methods
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import classifier
from aigc_jax.models.classifier import Classifier
from aigc_jax.training import config as configs
from aigc_jax.utils.errors import UserError

SPEC = Spec("image", (8, 8, 1), 100, classes=10, levels=16)


@functools.cache
def made():
    config = resolved(tiny("classifier"))
    method = methods.make_method(config, SPEC)
    hp = {name: jnp.float32(value) for name, value in configs.resolve_hparams(config).items()}
    return config, method, jax.jit(method.init)(jax.random.key(0), hp)


def test_network_halves_images_twice_and_logits_are_linear_in_features():
    net = Classifier((24, 48), 5, 128, 10)
    x = jax.random.normal(jax.random.key(0), (3, 28, 28, 1))
    (logits, features), variables = jax.jit(net.init_with_output)(jax.random.key(1), x)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes["Conv_1"]["kernel"] == (5, 5, 24, 48) and shapes["Dense_0"]["kernel"] == (
        7 * 7 * 48,
        128,
    )
    assert logits.shape == (3, 10) and features.shape == (3, 128) and float(features.min()) == 0
    head = variables["params"]["Dense_1"]
    # logits are linear in the features
    np.testing.assert_allclose(logits, features @ head["kernel"] + head["bias"], atol=1e-5)


def test_evaluation_is_cross_entropy_and_accuracy_and_ignores_padding():
    config, method, state = made()
    x = jax.random.normal(jax.random.key(2), (6, 8, 8, 1))
    p = np.asarray(
        jax.jit(classifier.make_feature_extractor(config, SPEC))(state.params, x)[1], np.float64
    )
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-6)
    label = np.r_[p[:3].argmax(1), p[3:].argmin(1)]
    sums = jax.jit(method.evaluate)(
        state,
        dict(
            x=x, label=jnp.array(label), index=jnp.arange(6), weight=jnp.array([1.0, 1, 1, 1, 0, 0])
        ),
    )
    values = method.summarize(sums)
    assert values["accuracy"] == 0.75
    assert list(values) == ["loss", "accuracy"]  # their order in rows
    assert values["loss"] == pytest.approx(-np.log(p[np.arange(4), label[:4]]).mean(), rel=1e-5)


def test_saliency_is_the_gradient_of_the_largest_logit():
    """Against finite differences of single pixels; no value exceeds 1."""
    config, method, state = made()
    net = classifier.make_classifier(config, SPEC)
    x = jax.random.normal(jax.random.key(3), (2, 8, 8, 1))
    slope = np.asarray(
        jax.jit(method.samplers["saliency"])(
            state, jax.random.key(0), dict(x=x, index=jnp.arange(2))
        )
    )
    assert np.abs(slope).max((1, 2, 3)) == pytest.approx([1, 1])
    likeliest = jax.jit(lambda x: net.apply({"params": state.params["net"]}, x)[0].max(1))
    top = lambda x: np.asarray(likeliest(x), np.float64)
    pixels = [(i, j) for i in range(2, 5) for j in range(2, 5)]
    found = np.array(
        [top(x.at[:, i, j].add(1e-2)) - top(x.at[:, i, j].add(-1e-2)) for i, j in pixels]
    )
    theirs = np.array([slope[:, i, j, 0] for i, j in pixels])
    for k in range(2):
        assert np.corrcoef(found[:, k], theirs[:, k])[0, 1] > 0.99


def test_saliency_is_not_quantized_to_grey_levels(tmp_path):
    """A saliency map has the shape of an image but is none: grey levels would round
    most values to 0.
    """
    runs.train(tiny("classifier", steps="2 steps", metrics=(), best_metric=""), tmp_path)
    run = aigc_jax.load(tmp_path)
    drawn = run.draw(8, "saliency")
    assert len(np.unique(drawn)) > 256 and np.abs(drawn).max() == 1


def test_classifier_of_data_without_labels_is_refused():
    config = resolved(tiny("classifier"))
    for spec in (SPEC._replace(classes=0), Spec("points", (2,), 100)):
        with pytest.raises(UserError, match="config.data.name = 'digits' has no labelled images"):
            methods.make_method(config, spec)
