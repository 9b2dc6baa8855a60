"""Feature extractors of images for metrics: a classifier of the same kind of data,
which is trained once and cached, or Inception from a file.

The classifier of a data set is a run of configs/classifier_mnist.py in the cache,
CACHE/extractors/classifier_<data>-<hash>, whose hash is that of its config and of the
data. CACHE is $AIGC_CACHE_DIR, else aigc_jax/ of $XDG_CACHE_HOME or ~/.cache.
"""

import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from aigc_jax import data, methods
from aigc_jax.core import config as configs
from aigc_jax.data.dataset import fingerprint, spec_from_json
from aigc_jax.methods import classifier
from aigc_jax.metrics.inputs import in_batches
from aigc_jax.training import identity
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import digest_leaves, restore_like
from aigc_jax.utils.disk import cache_dir, disk_errors
from aigc_jax.utils.errors import UserError, argument, require
from aigc_jax.utils.locks import exclusive_lock
from aigc_jax.utils.python_files import SHARE
from aigc_jax.utils.subprocesses import command_line, package_path, reason_of
from aigc_jax.utils.terminal import print_warning

if TYPE_CHECKING:
    from aigc_jax.training.inception_features import Inception

CONFIG = SHARE / "configs" / "classifier_mnist.py"
BATCH = 500  # images per call

# config.data.name -> (training data of the classifier, duration of its training)
CLASSIFIERS = {
    "mnist": ("mnist", "4 epochs"),
    "stacked_mnist": ("mnist", "4 epochs"),  # each channel separately
    "fashion_mnist": ("fashion_mnist", "4 epochs"),
    "digits": ("digits", "40 epochs"),
}


class Extractor(NamedTuple):
    """A trained classifier: images [n, H, W, C] in [-1, 1] -> (features [n, D], class
    probabilities [n, K]).
    """

    name: str
    sha256: str  # of its parameters
    extract: Callable
    channels: int  # of the images that it was trained on

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features and class probabilities of images. Images with more channels
        than the classifier's are processed in groups of channels: [n, D groups],
        [n, K^groups].
        """
        parts = [
            self.extract(images[..., c : c + self.channels])
            for c in range(0, images.shape[-1], self.channels)
        ]
        features, p = zip(*parts, strict=True)
        return np.concatenate(features, axis=1), functools.reduce(joint_probabilities, p)


def joint_probabilities(p: np.ndarray, q: np.ndarray) -> np.ndarray:  # [n, K], [n, L] -> [n, K L]
    """Return the joint probabilities of two independent class labels."""
    return (p[:, :, None] * q[:, None, :]).reshape(len(p), -1)


def make_extractor(config: ConfigDict) -> "Extractor | Inception":
    """Return the extractor that config.extractor names, for the data config.data."""
    if config.extractor != "classifier":
        from aigc_jax.training import inception_features

        return inception_features.make_extractor(config.extractor)
    name = config.data.name
    if name not in CLASSIFIERS:
        raise UserError(
            f"config.data.name = {name!r} has no classifier for feature metrics (available: "
            f"{', '.join(CLASSIFIERS)}): set the file of Inception's weights with "
            f"{argument('inception')}=FILE or config.extractor"
        )
    own = os.environ.get("AIGC_CACHE_DIR")
    root = (Path(own).expanduser() if own else cache_dir("")).absolute() / "extractors"
    return load_classifier(*CLASSIFIERS[name], config.run.data_dir, root)


@functools.cache
def load_classifier(name: str, steps: str, data_dir: str, root: Path) -> Extractor:
    """Return the classifier of a data set cached in `root`, after training it if
    necessary.
    """
    overrides = {
        "data.name": name,
        "steps": steps,
        "run.data_dir": data_dir,
        "run.mesh.data": "1",
        "run.eval_every": steps,  # evaluations during its training are not used
        "run.save_every": "never",
        "run.tensorboard": "False",
    }
    config = configs.override(configs.load(CONFIG), overrides)
    dataset = data.load(config.data, data_dir)
    key = configs.hash_of(
        configs.resolve(config, dataset.spec.n_train, methods.examples_per_step(config))
    ) + fingerprint(dataset)
    run = RunDir(root / f"classifier_{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}")
    with disk_errors(root), exclusive_lock(root):
        if run.read_status().get("status") != "done":
            train_classifier(run.path, name, overrides)
    return read_classifier(run, f"classifier of {name}")


def train_classifier(folder: Path, name: str, overrides: dict) -> None:
    """Train a classifier in a separate process on the CPU, so that runs on GPUs use the
    same classifier.
    """
    print_warning(f"training the classifier of {name} for feature metrics, once, in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {f"config.{key}": value for key, value in overrides.items()}
    env = (
        {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
        | package_path()
        | dict(JAX_PLATFORMS="cpu", JAX_ENABLE_X64="0")
    )
    log = folder / "train.log"
    with open(log, "wb") as f:
        process = subprocess.run(
            [sys.executable, *command_line("train", config=CONFIG, workdir=folder, **settings)],
            stdin=subprocess.DEVNULL,
            stdout=f,
            stderr=subprocess.STDOUT,
            env=env,
            check=False,
        )
    require(
        process.returncode == 0,
        f"the classifier of {name} could not be trained in {folder}: "
        f"{reason_of(process.returncode, log)}",
    )


def read_classifier(run: RunDir, name: str) -> Extractor:
    """Return a classifier's finished run as an extractor, with its last parameters."""
    stored = run.config()
    config, spec = identity.stored_config(stored), spec_from_json(stored["spec"])
    checkpoint = Checkpoints(run / "checkpoints").newest(print_warning)
    if checkpoint is None:
        raise UserError(
            f"{run.path} has no good checkpoint: remove the directory to retrain the classifier"
        )
    method, flat = (
        methods.make_method(config, spec),
        {path: value[0] for path, value in checkpoint[0].items()},
    )
    hp = {key: np.float32(value) for key, value in configs.hparam_values(config).items()}
    params = restore_like(jax.eval_shape(method.init, jax.random.key(0), hp), flat, run.path).params
    extract = jax.jit(
        functools.partial(classifier.features_and_probabilities(config, spec), params)
    )

    require(spec.kind == "image", f"{run.path} is not an image classifier")
    return Extractor(
        name,
        digest_leaves({path: value for path, value in flat.items() if path.startswith("params/")}),
        lambda images: in_batches(extract, images, BATCH),
        spec.shape[-1],
    )
