"""The table of keys: equal to what the modules read, its defaults frozen, its ranges kept."""

import dataclasses
import functools
import json
from pathlib import Path

import pytest
from tiny_configs import tiny

from aigc_jax import config as configs
from aigc_jax import data, keys, losses, methods, metrics, optim
from aigc_jax.data import feeds, tokenizers
from aigc_jax.errors import SYNONYMS, UserError
from aigc_jax.methods import common, gan, players, regularizers, vae
from aigc_jax.models import classifier, recurrent, transformer
from aigc_jax.models import gan as gan_networks
from aigc_jax.models import vae as vae_networks
from aigc_jax.models.layers import ACTIVATIONS, NORMS
from aigc_jax.schema import DURATION, REQUIRED, Key

NETWORKS = {
    **{("gan", name): dict(zip("gd", pair, strict=True)) for name, pair in gan_networks.NETWORKS.items()},
    **{("vae", name): {"": module} for name, module in vae_networks.NETWORKS.items()},
    ("vqvae", ""): {"": vae_networks.VQVAE},
    ("lm", "transformer"): {"": transformer.Decoder},
    ("lm", "recurrent"): {"": recurrent.Recurrent},
    ("mlm", ""): {"": transformer.Encoder},
    ("seq2seq", ""): {"": transformer.EncoderDecoder},
    ("classifier", ""): {"": classifier.Classifier},
}
# Fields that methods fill in from the data or from other keys.
FILLED = {"parent", "name", "dtype", "param_dtype", "shape", "classes", "head", "z", "scale", "vocabulary"}


@pytest.mark.parametrize("method, network", NETWORKS)
def test_model_keys_are_the_fields_of_the_modules(method, network):
    assert keys.MODEL.keys() == NETWORKS.keys()
    parts = NETWORKS[method, network]
    assert keys.MODEL[method, network].keys() == parts.keys()
    for part, module in parts.items():
        fields = {f.name: f for f in dataclasses.fields(module) if f.name not in FILLED}
        table = {key.name: key for key in keys.MODEL[method, network][part]}
        assert table.keys() == fields.keys()
        named = dict(activation=ACTIVATIONS, output=ACTIVATIONS, norm=NORMS) | getattr(module, "choices", {})
        for name, field in fields.items():
            default = REQUIRED if field.default is dataclasses.MISSING else field.default
            assert table[name].type == field.type and table[name].default == default, (module.__name__, name)
            assert table[name].allowed == tuple(named.get(name, ())), (module.__name__, name)


def key(name, method="gan", network="mlp"):
    return keys.keys_of(method, network)[name]


def test_allowed_values_are_the_entries_of_the_tables():
    for found, table in [
        (key("method"), methods.METHODS), (key("precision"), common.PRECISIONS), (key("moments"), optim.MOMENTS),
        (key("metrics"), metrics.METRICS), (key("optimizer"), optim.OPTIMIZERS), (key("schedule.name"), optim.SCHEDULES),
        (key("data.name"), data.DATASETS), (key("data.order"), data.dataset.ORDERS), (key("data.tokenizer"), tokenizers.TOKENIZERS),
        (key("data.split"), data.text.SPLITS), (key("data.colour"), data.folder.COLOURS), (key("data.normalize"), {"": 0, **data.text.FORMS}),
        (key("data.control"), data.text.CONTROL), (key("data.script"), data.text.SCRIPTS), (key("run.data"), feeds.FEEDS),
        (key("loss"), losses.GAN), (key("game.regularizers"), regularizers.REGULARIZERS), (key("network"), gan_networks.NETWORKS),
        (key("game.condition"), players.CONDITIONS), (key("game.augment"), players.AUGMENTATIONS),
        (key("likelihood", "vae"), losses.LIKELIHOODS), (key("bound", "vae"), vae.BOUNDS), (key("prior", "vae"), vae.PRIORS),
        (key("penalty", "vae"), vae.PENALTIES), (key("anneal.name", "vae"), optim.ANNEALING), (key("network", "vae"), vae_networks.NETWORKS),
        (key("network", "lm"), methods.lm.NETWORKS),
    ]:  # fmt: skip
        assert set(found.allowed) == set(table), found.name


def test_every_method_reads_the_keys_that_it_says():
    for name, module in methods.METHODS.items():
        network = next((m[1] for m in NETWORKS if m[0] == name), "")
        table = keys.keys_of(name, network)
        assert set(module.KEYS) <= table.keys()
        own = {k.name for k in keys.METHODS[name]} - set(module.KEYS)
        assert all(table[k].default is not REQUIRED for k in own), "required, but not read"
        assert {f"hp.{hp}" for hp in module.HP} <= table.keys()
    assert {f"hp.{hp}" for hp in gan.MORE} <= table.keys()
