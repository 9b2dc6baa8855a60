"""Provenance of a run: its config, data and tokenizer; versions, devices, commit and
command.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aigc_jax import __version__
from aigc_jax.data.dataset import Dataset, spec_to_json
from aigc_jax.data.tokenizers import huggingface
from aigc_jax.training import config as configs
from aigc_jax.training import config_identity
from aigc_jax.training.config_identity import IDENTITY_VERSION
from aigc_jax.training.identity import count_examples
from aigc_jax.training.trial import Trial
from aigc_jax.utils.disk import hide_paths
from aigc_jax.utils.python_files import IS_CHECKOUT, REPOSITORY
from aigc_jax.utils.quantities import format_devices
from aigc_jax.utils.subprocesses import launch_command


def describe_environment() -> dict[str, Any]:  # contents of environment.json
    """Return versions, devices, commit and command, without host name and absolute
    paths.
    """
    import jax

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy")
    devices = jax.devices()
    script = ["python", hide_paths(str(Path(sys.argv[0]).resolve()), REPOSITORY)]

    def git(*words):
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = (
            git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
            if IS_CHECKOUT
            else ""
        )
    except OSError:  # no git
        commit = ""
    return dict(
        versions=dict(aigc_jax=__version__)
        | {name: version(name) for name in names}
        | dict(python=platform.python_version()),
        platform=f"{platform.system()} {platform.machine()}",
        devices=[format_devices(len(devices), devices[0].platform, devices[0].device_kind)],
        cores=os.cpu_count(),
        commit=commit,
        command=[
            *(launch_command() or script),
            *(hide_paths(word, REPOSITORY) for word in sys.argv[1:]),
        ],
    )


NO_ORIGIN: dict[str, Any] = dict(source="", changes={})  # a `Trial.origin`


def write_run_files(trials: Sequence[Trial], dataset: Dataset) -> None:
    """Write config.json, environment.json and the tokenizer of every trial. Called once
    training can begin, so that a rejected config leaves no files with which its
    corrected version would be compared.
    """
    made_by = describe_environment()
    tokenizer = dataset.tokenizer
    hashes = {} if tokenizer is None else dict(tokenizer=tokenizer.sha256)
    for trial in trials:
        stored = trial.dir.read_json("config.json") or {}
        before = {name: stored.get(name, empty) for name, empty in NO_ORIGIN.items()}
        trial.dir.write_json(
            "config.json",
            dict(
                identity_version=IDENTITY_VERSION,
                hash=config_identity.hash_identity(trial.config),
                **(trial.origin or before),
                data=trial.data_hash,
                spec=spec_to_json(dataset.spec),
                splits=count_examples(dataset),
                config=configs.to_json_dict(trial.config),
                **hashes,
            ),
        )
        trial.dir.write_json("environment.json", made_by)
        if tokenizer is not None:
            huggingface.write(trial.dir / huggingface.ASSETS, tokenizer)
