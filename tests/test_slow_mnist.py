"""The slow tier: whole configs on real MNIST, judged by a classifier that was trained on real digits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import DATA, ROOT

import aigc_jax
from aigc_jax import config as configs
from aigc_jax import data
from aigc_jax import train as training
from aigc_jax.models.conv import Conv


class Classifier(nn.Module):
    @nn.compact
    def __call__(self, x):  # [B, 28, 28, 1] -> [B, 10]
        x = nn.relu(Conv(24, (5, 5), strides=2)(x))
        x = nn.relu(Conv(48, (5, 5), strides=2)(x))
        return nn.Dense(10)(nn.relu(nn.Dense(128)(x.reshape(len(x), -1))))


@pytest.fixture(scope="module")
def classifier():
    """[n, 28, 28, 1] -> probabilities [n, 10]; trained on the training split for four epochs, over 98.5 % on the test split."""
    if not (DATA / "mnist").is_dir():
        pytest.skip(f"no real data: {DATA} has no mnist/ (set AIGC_DATA_DIR)")
    ds = data.load(configs.load(ROOT / "configs" / "gan_mlp_mnist.py").data, str(DATA))
    parts = {name: ds.take(ds.arrays, np.arange(start, start + count)) for name, (start, count) in ds.splits.items()}
    x, label = parts["train"]["x"], parts["train"]["label"]
    rows = np.concatenate([np.random.RandomState(i).permutation(len(x)) for i in range(4)])
    rows = rows[: len(rows) // 128 * 128].reshape(-1, 128)
    net, optimizer = Classifier(), optax.adam(optax.cosine_decay_schedule(2e-3, len(rows)))

    @jax.jit
    def step(params, opt, x, label):
        loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(net.apply(p, x), label).mean()
        updates, opt = optimizer.update(jax.grad(loss)(params), opt)
        return optax.apply_updates(params, updates), opt

    params = net.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    opt = optimizer.init(params)
    for chosen in rows:
        params, opt = step(params, opt, x[chosen], label[chosen])
    probabilities = jax.jit(lambda x: jax.nn.softmax(net.apply(params, x)))
    assert (probabilities(parts["test"]["x"]).argmax(1) == parts["test"]["label"]).mean() > 0.985
    return lambda x: np.asarray(probabilities(x))


def judged(classifier, samples):
    """(share of samples with a confidence above 0.9, classes among those)"""
    probabilities = classifier(samples)
    sure = probabilities.max(1) > 0.9
    return sure.mean(), len(set(probabilities.argmax(1)[sure].tolist()))


@pytest.mark.slow
@pytest.mark.parametrize("name, steps, share", [("gan_mlp_mnist", 20_000, 0.6), ("dcgan_mnist", 2_000, 0.8)])
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
