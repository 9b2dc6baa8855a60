"""The table of methods for the shared tests: the smallest config of each, and helpers
that override its keys and load its data.
"""

import tempfile
from pathlib import Path

import pytest

from aigc_jax import data, methods
from aigc_jax.data import schema as data_schema
from aigc_jax.training import config as configs
from aigc_jax.training import config_files

CONFIGS = Path(__file__).resolve().parent.parent / "configs"

SMALL_RUN = {
    "run.mesh.data": 1,
    "run.log_every": "4 steps",
    "run.eval_every": "8 steps",
    "run.sample_every": "16 steps",
    "run.save_every": "8 steps",
    "run.samples": 4,
    "run.log": (),
    "num_metric_samples": 32,
    "batch_size": 16,
    "steps": "32 steps",
}

GAN = {"model.g.widths": (24,), "model.d.widths": (24,), "latent_dim": 8}

CONV = {"model.g.base": 4, "model.g.channels": (4,), "model.d.channels": (4,), "latent_dim": 8}

VAE = {"model.widths": ((12,),), "latent_dims": (3,), "nll_samples": 50}

TEXT = {
    "data.name": "pydoc",
    "data.length": 16,
    "data.split": "80/10/10",
    "schedule.warmup": "4 steps",
}

TRANSFORMER = {"model.layers": 1, "model.heads": 2, "model.width": 16, "model.context": 16}

_FOLDER = tempfile.TemporaryDirectory(prefix="aigc_jax_pairs_")  # removed at exit
PAIRS = Path(_FOLDER.name) / "pairs.tsv"  # numbers and their reversed digits
PAIRS.write_text("".join(f"{n}\t{str(n)[::-1]}\n" for n in range(1000, 1400)))

# name -> (config file, overrides)
METHODS = {
    "gan": ("gan_digits", GAN),
    "gan_critic": ("gan_digits", GAN | {"critic_steps": 3, "loss": "minimax", "batch_size": 8}),
    "gan_points": ("gan_ring", GAN | {"gan.pack": 2}),
    "gan_menu": ("gan_menu_mnist", GAN | {"data.name": "digits", "metrics": (), "best_metric": "",
        "loss": "least_squares", "model.d.spectral": True, "gan.condition": "projection",
        "gan.augment": ("translation",), "gan.regularizers": ("r1", "gradient_penalty",
        "consistency")}),
    "vae": ("vae_digits", VAE),
    "vqvae": ("vqvae_digits", {"model.channels": (6,), "model.size": 4, "codebook_size": 12}),
    "lm": ("gpt_shakespeare_cpu", TEXT | TRANSFORMER | {"model.kv_heads": 1, "model.dropout": 0.1}),
    "lm_stream": ("rnn_pydoc", TEXT | {"model.cell": "lstm", "model.width": 12,
        "model.embedding": 8, "data.tokenizer": "bytes"}),
    "mlm": ("bert_pydoc", TEXT | TRANSFORMER | {"model.kv_heads": 2, "data.vocabulary": 300}),
    "seq2seq": ("seq2seq_multi30k", TRANSFORMER | {"model.hidden": 24, "data.name": "pairs",
        "data.path": str(PAIRS), "data.tokenizer": "bytes", "data.vocabulary": 0, "data.length": 8,
        "metrics": (), "best_metric": "", "schedule.warmup": "4 steps"}),
    "classifier": ("classifier_mnist", {"data.name": "digits", "model.channels": (6, 8),
        "model.size": 12}),
    "gan_conv": ("dcgan_digits", CONV | {"model.g.norm": "batch"}),
}  # fmt: skip


def section(name, **more):
    """A config's `data` section for the data set of this name."""
    return configs.ConfigDict(data_schema.DEFAULTS | dict(name=name) | more)


def methods_of(*quick):
    """Parametrize `name` by all methods; those outside of `quick` in the slow tier."""
    return pytest.mark.parametrize(
        "name",
        [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
        scope="module",
    )


def tiny(name="gan", **overrides):
    """The small config of a method; overrides spell dots as __, as in hp__lr_g=1e-3."""
    file, own = METHODS[name]
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return configs.override(config_files.load(CONFIGS / f"{file}.py"), SMALL_RUN | own | dotted)


_data = {}


def dataset(config):
    """The config's data, loaded once for all tests."""
    key = config.data.to_json(sort_keys=True)
    if key not in _data:
        _data[key] = data.load(config.data)
    return _data[key]


def resolved(config):
    return configs.resolve_durations(
        config, dataset(config).spec.n_train, methods.examples_per_step(config)
    )
