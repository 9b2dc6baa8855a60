"""The slow tier: whole configs on real MNIST, judged by a classifier that was trained on real digits."""

import numpy as np
import pytest
from conftest import DATA, ROOT

import aigc_jax
from aigc_jax import config as configs
from aigc_jax import data
from aigc_jax import train as training


@pytest.fixture(scope="module")
def classifier():
    """[n, 28, 28, 1] -> probabilities [n, 10]; scikit-learn's network, trained on the training split; over 96 % on the test split."""
    from sklearn.neural_network import MLPClassifier

    if not (DATA / "mnist").is_dir():
        pytest.skip(f"no real data: {DATA} has no mnist/ (set AIGC_DATA_DIR)")
    ds = data.load(configs.load(ROOT / "configs" / "gan_mlp_mnist.py").data, str(DATA))
    flat = lambda x: x.reshape(len(x), -1)
    parts = {}
    for name, (start, count) in ds.splits.items():
        batch = ds.take(ds.arrays, np.arange(start, start + count))
        parts[name] = flat(batch["x"]), batch["label"]
    model = MLPClassifier((256,), batch_size=256, max_iter=6, random_state=0, early_stopping=False)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # six epochs are meant
        model.fit(*parts["train"])
    assert model.score(*parts["test"]) > 0.96
    return lambda x: model.predict_proba(flat(x))


def judged(classifier, samples):
    """(share of samples with a confidence above 0.9, classes among those)"""
    probabilities = classifier(samples)
    sure = probabilities.max(1) > 0.9
    return sure.mean(), len(set(probabilities.argmax(1)[sure].tolist()))


@pytest.mark.slow
@pytest.mark.parametrize("name, steps, share", [("gan_mlp_mnist", 20_000, 0.6)])
def test_samples_are_digits(real_data, classifier, tmp_path, name, steps, share):
    config = configs.override(
        configs.load(ROOT / "configs" / f"{name}.py"), {"steps": f"{steps}", "run.sample_every": "never", "run.mesh.data": 1}
    )
    untrained = configs.override(config, {"steps": "1", "hp.lr_g": 0.0})
    training.train([untrained], [tmp_path / "untrained"])
    sure, classes = judged(classifier, aigc_jax.load(tmp_path / "untrained").sample(1000))
    assert sure < share or classes < 10, "the judge lets noise pass"
    training.train([config], [tmp_path / "run"])
    sure, classes = judged(classifier, aigc_jax.load(tmp_path / "run").sample(1000))
    print(f"{name}: {sure:.1%} of 1,000 samples above 0.9, {classes} classes")
    assert sure >= share and classes == 10
