"""A shipped config on real MNIST in the slow tier; a classifier that was trained on
real digits evaluates the samples.
"""

import os
import subprocess

import pytest
from helpers import DATA, ROOT, script, start_words

import aigc_jax
from aigc_jax import data
from aigc_jax.training import config_files


@pytest.fixture(scope="module")
def classifier():
    """[n, 28, 28, 1] -> probabilities [n, 10]: the classifier of
    `experiments/parts/judge.py`, with an accuracy over 98.5 % on the test split.
    """
    if not (DATA / "mnist").is_dir():
        pytest.skip(f"no real data: {DATA} has no mnist/ (set AIGC_DATA_DIR)")
    probabilities, right = script("parts/judge").train(
        data.load(config_files.load(ROOT / "configs" / "gan_mlp_mnist.py").data, str(DATA))
    )
    assert right > 0.985
    return probabilities


def judged(classifier, samples):
    """(fraction of samples with a confidence above 0.9, number of their classes)"""
    probabilities = classifier(samples)
    sure = probabilities.max(1) > 0.9
    return sure.mean(), len(set(probabilities.argmax(1)[sure].tolist()))


@pytest.mark.slow
def test_classifier_recognizes_gan_samples_as_digits(real_data, classifier, tmp_path):
    """Trains for two minutes on two cores, in a process that compiles with
    optimization, unlike the tests.
    """
    name, share = "gan_mlp_mnist", 0.6

    def train(path, **changes):
        changes |= {"run.sample_every": "never", "run.mesh.data": 1}
        words = (f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items())
        command = start_words("train", f"--config={name}", f"--workdir={path}", *words)
        subprocess.run(command, env=os.environ | {"XLA_FLAGS": ""}, check=True)
        return judged(classifier, aigc_jax.load(path).sample(1000))

    sure, classes = train(tmp_path / "untrained", steps=1, hp__lr_g=0.0)
    assert sure < share or classes < 10, "the judge lets noise pass"
    sure, classes = train(tmp_path / "run", steps=20000)
    print(f"{name}: {sure:.1%} of 1,000 samples above 0.9, {classes} classes")
    assert sure >= share and classes == 10
