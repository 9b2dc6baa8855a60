"""A small classifier, by whose features and probabilities metrics judge generated digits; trained by itself where a metric needs it.

Command    python launch.py train --config=configs/classifier_mnist.py --workdir=runs/classifier_mnist
           --config.data.name=fashion_mnist, or digits with --config.steps='60 epochs'
Hardware   TODO
Expect     TODO
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(dict(
        method="classifier",
        steps="4 epochs",
        batch_size=128,
        data=dict(name="mnist"),
        model=dict(channels=(24, 48), kernel=5, size=128),
        optimizer="adam",
        schedule=dict(name="cosine", warmup="0 steps"),
        hp=dict(lr=2e-3, beta1=0.9, beta2=0.999),
        run=dict(eval_every="1 epochs", sample_every="never", save_every="1 epochs"),
    ))
