"""What metrics say of real digits, and of generators that are as bad as one wishes: the
table of docs/studies/metrics.md.

    python benchmarks/controls.py

Ten thousand images of each kind against the test split of MNIST (which must be
downloaded), through the classifier of MNIST. "training" are 1,000 training images of
each digit, "blurred" the same with each pixel the mean of four, "0 to 4" 5,000 of them
twice, "noise" tanh of normal noise, pixel by pixel, "untrained" configs/cgan_mnist.py
before its first step.
"""

import functools
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
NAMES = dict(
    frechet="Fréchet",
    kid="KID",
    precision="precision",
    recall="recall",
    density="density",
    coverage="coverage",
    classifier_score="score",
    separability="separability",
    neighbour_distance="neighbour distance",
    copies="copies",
    diversity="diversity",
    parzen="Parzen",
)
METRICS = (
    "frechet",
    "kid",
    "prdc",
    "classifier_score",
    "separability",
    "neighbours",
    "diversity",
    "parzen",
)
COUNT = 10_000


def sources(programs, states):
    """What is judged, {name: [n, 28, 28, 1]}."""
    from aigc_jax.training.evaluation import read_examples

    labels = programs.read_class_labels("test", COUNT)
    train = read_examples(programs.dataset, "train")
    of_each = [np.flatnonzero(train["label"] == digit)[: COUNT // 10] for digit in range(10)]
    rows = np.stack(of_each, axis=1).reshape(-1)  # the digits in turn
    x, random = train["x"][rows], np.random.RandomState(0)
    return {
        "valid (5,000)": read_examples(programs.dataset, "valid")["x"],
        "training, any": train["x"][random.permutation(len(train["x"]))[:COUNT]],
        "training": x,
        "blurred": (x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, (1, 1), (1, 2))) / 4,
        "0 to 4": x[train["label"][rows] < 5].repeat(2, axis=0),
        "one digit": np.repeat(x[3:4], COUNT, axis=0),
        "noise": np.tanh(random.randn(*x.shape)).astype(np.float32),
        "untrained": programs.draw(states, "prior", COUNT, labels=labels)[0],
    }


def main():
    from aigc_jax import data, metrics
    from aigc_jax.media import images
    from aigc_jax.metrics.inputs import MetricInputs, make_cached_extractor
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files, feature_extractors
    from aigc_jax.training.evaluation import iterate_example_blocks, read_examples
    from aigc_jax.training.programs import Programs

    config = config_files.load(ROOT / "configs" / "cgan_mnist.py")
    dataset = data.load(config.data)
    config = configs.resolve_durations(config, dataset.spec.n_train, config.batch_size)
    programs = Programs(config, dataset, 1)
    extract = make_cached_extractor(feature_extractors.make_extractor(config))
    examples = functools.cache(functools.partial(read_examples, dataset))
    blocks = functools.partial(iterate_example_blocks, dataset)
    print("| | " + " | ".join(NAMES.values()) + " |\n" + "|---" * (len(NAMES) + 1) + "|")
    for name, samples in sources(programs, programs.init([config])).items():
        saved = images.quantize_as_saved(samples, dataset.spec)
        draw = lambda what, saved=saved: saved
        inputs = MetricInputs(draw, "test", examples, dataset.spec, extract, blocks=blocks)
        row = {}
        for metric in METRICS:
            row |= metrics.METRICS[metric](inputs)
        print(f"| {name} | " + " | ".join(f"{row[key]:.4g}" for key in NAMES) + " |", flush=True)


if __name__ == "__main__":
    main()
