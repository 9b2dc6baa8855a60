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
from aigc_jax.data.dataset import hash_arrays_and_splits, spec_from_json
from aigc_jax.methods import classifier
from aigc_jax.metrics.inputs import apply_in_batches
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, config_identity, identity
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import digest_leaves, restore_like
from aigc_jax.utils.disk import cache_dir, convert_disk_errors
from aigc_jax.utils.errors import UserError, mark_argument, require
from aigc_jax.utils.locks import exclusive_lock
from aigc_jax.utils.python_files import SHARE
from aigc_jax.utils.subprocesses import describe_failure, interpreter_arguments, package_environment
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


def make_extractor(config: ConfigDict) -> "Extractor | Inception":  # may train a classifier
    """Return the extractor that config.extractor names: "classifier", one for the data
    config.data, or the path of Inception's weights.

    Raises:
      UserError: the data have no classifier, or the weights cannot be used.
    """
    if config.extractor != "classifier":
        from aigc_jax.training import inception_features

        return inception_features.load_inception(config.extractor)
    name = config.data.name
    if name not in CLASSIFIERS:
        raise UserError(
            f"config.data.name = {name!r} has no classifier for feature metrics (available: "
            f"{', '.join(CLASSIFIERS)}): set the file of Inception's weights with "
            f"{mark_argument('inception')}=FILE or config.extractor"
        )
    own = os.environ.get("AIGC_CACHE_DIR")
    root = (Path(own).expanduser() if own else cache_dir("")).absolute() / "extractors"
    return load_or_train_classifier(*CLASSIFIERS[name], config.run.data_dir, root)


@functools.cache
def load_or_train_classifier(
    data_name: str, duration: str, data_dir: str, cache_root: Path
) -> Extractor:
    """Return the classifier of a data set, after training it if it is not cached.

    Args:
      data_name: data.name of its training data.
      duration: of its training, such as "4 epochs".
      data_dir: as config.run.data_dir.
      cache_root: the directory of the cached classifiers.

    Raises:
      UserError: the data are missing, or the training failed.
    """
    overrides = {
        "data.name": data_name,
        "steps": duration,
        "run.data_dir": data_dir,
        "run.mesh.data": "1",
        "run.eval_every": duration,  # evaluations during its training are not used
        "run.save_every": "never",
        "run.log": "()",
    }
    config = configs.override(config_files.load(CONFIG), overrides)
    dataset = data.load(config.data, data_dir)
    key = config_identity.hash_identity(
        configs.resolve_durations(config, dataset.spec.n_train, methods.examples_per_step(config))
    ) + hash_arrays_and_splits(dataset)
    key += " ".join(configs.flatten_config(config))  # a config with other keys is not readable
    run = RunDir(
        cache_root / f"classifier_{data_name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    )
    with convert_disk_errors(cache_root), exclusive_lock(cache_root):
        if run.read_status().get("status") != "done":
            train_classifier(run.path, data_name, overrides)
    return read_classifier(run, f"classifier of {data_name}")


def train_classifier(
    workdir: Path, data_name: str, overrides: dict[str, str]
) -> None:  # in a subprocess on the CPU
    """Train a classifier in a separate process on the CPU, so that runs on GPUs use the
    same classifier.

    Args:
      workdir: its work directory, with the output in train.log.
      data_name: name of its data, for messages.
      overrides: {key: value} of its config, as texts.

    Raises:
      UserError: the process failed.
    """
    print_warning(f"training the classifier of {data_name} for feature metrics, once, in {workdir}")
    workdir.mkdir(parents=True, exist_ok=True)
    settings = {f"config.{key}": value for key, value in overrides.items()}
    env = (
        {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
        | package_environment()
        | dict(JAX_PLATFORMS="cpu", JAX_ENABLE_X64="0")
    )
    log = workdir / "train.log"
    with open(log, "wb") as f:
        process = subprocess.run(
            [
                sys.executable,
                *interpreter_arguments("train", config=CONFIG, workdir=workdir, **settings),
            ],
            stdin=subprocess.DEVNULL,
            stdout=f,
            stderr=subprocess.STDOUT,
            env=env,
            check=False,
        )
    require(
        process.returncode == 0,
        f"the classifier of {data_name} could not be trained in {workdir}: "
        f"{describe_failure(process.returncode, log)}",
    )


def read_classifier(run: RunDir, extractor_name: str) -> Extractor:
    """Return a classifier's finished run as an extractor, with its last parameters.
    `extractor_name` becomes `Extractor.name`.
    """
    stored = run.read_config_json()
    config, spec = identity.parse_stored_config(stored), spec_from_json(stored["spec"])
    checkpoint = Checkpoints(run / "checkpoints").read_newest_valid(print_warning)
    if checkpoint is None:
        raise UserError(
            f"{run.path} has no good checkpoint: remove the directory to retrain the classifier"
        )
    method, flat = (
        methods.make_method(config, spec),
        {path: value[0] for path, value in checkpoint[0].items()},
    )
    hp = {key: np.float32(value) for key, value in configs.resolve_hparams(config).items()}
    params = restore_like(jax.eval_shape(method.init, jax.random.key(0), hp), flat, run.path).params
    extract = jax.jit(functools.partial(classifier.make_feature_extractor(config, spec), params))

    require(spec.kind == "image", f"{run.path} is not an image classifier")
    return Extractor(
        extractor_name,
        digest_leaves({path: value for path, value in flat.items() if path.startswith("params/")}),
        lambda images: apply_in_batches(extract, images, BATCH),
        spec.shape[-1],
    )
