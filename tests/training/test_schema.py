"""The schemas of config keys: agreement with the modules, defaults and ranges."""

import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys

import pytest
from freeze_defaults import FROZEN, identity_defaults
from helpers import ROOT
from tiny_configs import tiny

from aigc_jax import data, methods, metrics
from aigc_jax.core.schema import REQUIRED, Key
from aigc_jax.data import cleaning, decoding, npz, order, pipelines, tokenizers, windows
from aigc_jax.methods import (
    gan_penalties,
    lm,
    networks,
    optimizers,
    schedules,
    vae,
)
from aigc_jax.methods.gan_networks import AUGMENTATIONS, CONDITIONS
from aigc_jax.methods.losses import gan as gan_losses
from aigc_jax.methods.losses import likelihoods
from aigc_jax.models import classifier, recurrent, transformer, vqvae
from aigc_jax.models import gan_dcgan as gan_networks
from aigc_jax.models import vae as vae_networks
from aigc_jax.models.layers import ACTIVATIONS, NORMS
from aigc_jax.models.schema import MODEL
from aigc_jax.sweeps import experiment
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, config_identity, schema
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit

NETWORKS = {
    **{
        ("gan", name): dict(zip("gd", pair, strict=True))
        for name, pair in gan_networks.NETWORKS.items()
    },
    **{("vae", name): {"": module} for name, module in vae_networks.NETWORKS.items()},
    ("vqvae", ""): {"": vqvae.VQVAE},
    ("lm", "transformer"): {"": transformer.Decoder},
    ("lm", "recurrent"): {"": recurrent.Recurrent},
    ("mlm", ""): {"": transformer.Encoder},
    ("seq2seq", ""): {"": transformer.EncoderDecoder},
    ("classifier", ""): {"": classifier.Classifier},
}
# Fields that methods fill in from the data or from other keys.
FILLED = {
    "parent",
    "name",
    "dtype",
    "param_dtype",
    "shape",
    "classes",
    "head",
    "latent_dims",
    "scale",
    "vocabulary",
}


@pytest.mark.parametrize("method, network", NETWORKS)
def test_model_keys_match_module_fields(method, network):
    assert MODEL.keys() == NETWORKS.keys()
    parts = NETWORKS[method, network]
    assert MODEL[method, network].keys() == parts.keys()
    for part, module in parts.items():
        fields = {f.name: f for f in dataclasses.fields(module) if f.name not in FILLED}
        table = {key.name: key for key in MODEL[method, network][part]}
        assert table.keys() == fields.keys()
        named = dict(activation=ACTIVATIONS, output=ACTIVATIONS, norm=NORMS) | getattr(
            module, "choices", {}
        )
        for name, field in fields.items():
            default = REQUIRED if field.default is dataclasses.MISSING else field.default
            assert table[name].type == field.type and table[name].default == default, (
                module.__name__,
                name,
            )
            assert tuple(table[name].allowed) == tuple(named.get(name, ())), (module.__name__, name)


def key(name, method="gan", network="mlp"):
    return schema.allowed_keys(method, network)[name]


def test_allowed_values_match_the_registries():
    for found, table in [
        (key("method"), methods.METHODS),
        (key("precision"), networks.PRECISIONS),
        (key("optimizer_dtype"), optimizers.MOMENTS),
        (key("metrics"), metrics.METRICS),
        (key("optimizer"), optimizers.OPTIMIZERS),
        (key("schedule.name"), schedules.SCHEDULES),
        (key("data.name"), data.DATASETS),
        (key("data.order"), order.ORDERS),
        (key("data.tokenizer"), tokenizers.TOKENIZERS),
        (key("data.split"), windows.SPLITS),
        (key("data.colour"), decoding.COLOURS),
        (key("data.normalize"), {"": 0, **cleaning.FORMS}),
        (key("data.range"), npz.RANGES),
        (key("data.layout"), npz.LAYOUTS),
        (key("data.control"), cleaning.CONTROL),
        (key("data.script"), cleaning.SCRIPTS),
        (key("run.data_placement"), pipelines.FEEDS),
        (key("loss"), gan_losses.GAN),
        (key("gan.regularizers"), gan_penalties.REGULARIZERS),
        (key("network"), gan_networks.NETWORKS),
        (key("gan.condition"), CONDITIONS),
        (key("gan.augment"), AUGMENTATIONS),
        (key("likelihood", "vae"), likelihoods.LIKELIHOODS),
        (key("objective", "vae"), vae.OBJECTIVES),
        (key("prior", "vae"), vae.PRIORS),
        (key("penalty", "vae"), vae.PENALTIES),
        (key("anneal.name", "vae"), schedules.ANNEALING),
        (key("network", "vae"), vae_networks.NETWORKS),
        (key("network", "lm"), lm.NETWORKS),
    ]:
        assert set(found.allowed) == set(table), found.name


def test_defaults_are_frozen_within_an_identity_version():
    """With another default, a config that omits the key would describe another run.
    `python tests/freeze_defaults.py` adds new keys to the file.
    """
    frozen = json.loads(FROZEN.read_text())
    if frozen["identity_version"] == config_identity.IDENTITY_VERSION:
        now = identity_defaults()
        assert {name: now.get(name) for name in frozen["defaults"]} == frozen["defaults"], (
            "raise config_identity.IDENTITY_VERSION"
        )
        assert now.keys() == frozen["defaults"].keys(), "new keys: python tests/freeze_defaults.py"
    else:
        pytest.fail("a new identity version: python tests/freeze_defaults.py")


def test_new_key_at_its_default_changes_no_hash(monkeypatch):
    names = ("gan_digits", "vae_digits", "gpt_shakespeare_cpu", "seq2seq_multi30k")
    before = {name: config_identity.hash_identity(config_files.load(name)) for name in names}
    for table in ("BASE", "DATA"):
        new = Key(f"{'data.' * (table == 'DATA')}new", int, "New.", 7, 0, 9)
        monkeypatch.setattr(schema, table, (*getattr(schema, table), new))
    schema.allowed_keys.cache_clear()
    try:
        assert {
            name: config_identity.hash_identity(config_files.load(name)) for name in names
        } == before
        new = config_files.load("gan_digits")
        assert (
            new.new == 7
            and config_identity.hash_identity(configs.override(new, {"new": 8}))
            != before["gan_digits"]
        )
    finally:
        schema.allowed_keys.cache_clear()


def test_identity_omits_default_values():
    config = configs.resolve_durations(tiny(seed=3, steps="2 epochs"), 160, 16)
    wanted = {
        "method": "gan",
        "steps": 20,
        "batch_size": 16,
        "seed": 3,
        "metrics": ["frechet_pixels"],
        "num_metric_samples": 32,
        "best_metric": "valid/frechet_pixels",
        "optimizer": "adam",
        "schedule.name": "constant",
        "schedule.warmup": 0,
        "network": "mlp",
        "latent_dim": 8,
        "loss": "non_saturating",
        "critic_steps": 1,
        "hp.lr_g": 2e-4,
        "hp.lr_d": 2e-4,
        "hp.beta1": 0.5,
        "hp.ema_decay": 0.999,
        "model.g.widths": [24],
        "model.g.activation": "relu",
        "model.g.output": "tanh",
        "model.d.widths": [24],
        "model.d.activation": "leaky_relu",
        "data.name": "digits",
    }
    assert json.loads(json.dumps(config_identity.identity_leaves(config))) == wanted
    text = json.dumps([config_identity.IDENTITY_VERSION, wanted], sort_keys=True)
    assert config_identity.hash_identity(config) == hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    "one, other",
    [
        (dict(steps=40), dict(steps="40 steps")),
        (dict(steps="1_000"), dict(steps="1e3 steps")),
        (dict(steps="2 epochs"), dict(steps=20)),
        (dict(steps="320 examples"), dict(steps="2.0 epochs")),
        (dict(hp__ema_decay=0), dict(hp__ema_decay=0.0)),
        (dict(hp__lr_g=1), dict(hp__lr_g="1.0")),
        (dict(hp__beta1=0.0), dict(hp__beta1=-0.0)),
        (dict(data__length=64), dict()),
        (dict(model__g__norm="none"), dict()),
        (dict(run__samples=5), dict()),
    ],
)
def test_equivalent_configs_have_equal_hashes(one, other):
    assert (
        len(
            {
                config_identity.hash_identity(configs.resolve_durations(tiny(**change), 160, 16))
                for change in (one, other)
            }
        )
        == 1
    )


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"data.size": 32},
            "config.data.size = 32 is not read by config.data.name = 'digits'",
        ),
        ({"data.split": "80/20"}, "config.data.split = '80/20' is not read by"),
        (
            {"data.name": "text", "data.path": "x", "data.tokenizer_path": "abc"},
            "tokenizer_path = 'abc' is not read by .* only by 'file'",
        ),
        (
            {"data.name": "npz", "data.path": "x.npz", "data.tokenizer": "bpe"},
            "'bpe' is not read by .* 'npz', which reads .*data.path",
        ),
    ],
)
def test_keys_unused_by_the_data_set_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        configs.validate_config(configs.override(tiny(), change))


@pytest.mark.parametrize(
    "where, key, words",
    [
        ((), "batchsize", "config.batchsize: no such key of .*; did you mean 'batch_size'"),
        (
            ("model", "g"),
            "width",
            "config.model.g.width: no such key of .*; did you mean 'model.g.widths'",
        ),
        (("data",), "nam", "config.data.nam: no such key of .*; did you mean 'data.name'"),
        (
            ("hp",),
            "learning_rate",
            "config.hp.learning_rate: no such key of .*; did you mean 'hp.lr",
        ),
        (
            ("schedule",),
            "warm",
            "config.schedule.warm: no such key of .*; did you mean 'schedule.warmup'",
        ),
        (("gan",), "packs", "config.gan.packs: no such key of .*; did you mean 'gan.pack'"),
    ],
)
def test_unknown_file_keys_are_refused_at_any_depth(where, key, words):
    plain = tiny().to_dict()
    functools.reduce(dict.__getitem__, where, plain)[key] = 3
    with pytest.raises(UserError, match=words):
        configs.fill_defaults(configs.ConfigDict(plain))


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("seed", 2**32, "at most 4,294,967,295"),
        ("seed", -1, "at least 0"),
        ("seed", 1e30, "at most 4,294,967,295"),
        ("data.seed", 2**32, "at most"),
        ("hp.ema_decay", 1.5, "below 1"),
        ("hp.beta2", 1.0, "below 1"),
        ("hp.lr_g", -1e-3, "at least 0"),
        ("batch_size", "1e30", "at most"),
        ("critic_steps", 10**399, "at most"),
        ("latent_dim", "9" * 400, "at most"),
        ("num_metric_samples", 1e30, "at most"),
        ("model.g.widths", (10**30,), "at most"),
        ("model.g.widths", (), "at least one entry"),
        ("hp.lr_g", 10**400, "is not finite"),
        ("steps", 1e30, "is not a duration"),
        ("steps", "1e30", "too long"),
    ],
)
def test_out_of_range_values_are_refused(key, value, words):
    with pytest.raises(UserError, match=rf"^config.{key}(\[0\])? = .*{words}"):
        configs.override(tiny(), {key: value})


def test_override_sets_optional_keys_absent_from_the_file():
    config = configs.override(tiny(), {"model.g.norm": "batch", "hp.smoothing": 0.1})
    assert config.model.g.norm == "batch" and config.hp.smoothing == 0.1


@pytest.mark.parametrize(
    "name", ["gan_digits", "gan_digits.py", "configs/gan_digits", "configs/gan_digits.py"]
)
def test_config_is_found_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.load(name).data.name == "digits"
    with pytest.raises(
        UserError, match="^config=gan_digit: no such file; did you mean 'gan_digits'"
    ):
        config_files.load("gan_digit")


def test_experiment_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert experiment.load_base_config(experiment.load("vae_beta")).method == "vae"
    with pytest.raises(
        UserError, match="^experiment=vae_bet: no such file; did you mean 'vae_beta'"
    ):
        experiment.load("vae_bet")


def test_exception_in_a_config_file_is_a_one_line_error(tmp_path):
    (tmp_path / "c.py").write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(
        UserError, match=r"c.py raises ZeroDivisionError in line 2: division by zero$"
    ):
        config_files.load(tmp_path / "c.py")


def test_order_of_changes_is_independent_of_the_hash_seed():
    code = (
        "from aigc_jax.training import config as c, config_files\n"
        "a = config_files.load('gan_digits')\n"
        "b = c.override(a, {'seed': 3, 'hp.ema_decay': 0.5, 'latent_dim': 9, 'batch_size': 7, "
        "'best_metric': '', 'model.g.norm': 'batch'})\n"
        "print(list(c.differing_leaves(c.flatten_config(a), c.flatten_config(b)).items()))"
    )
    run = lambda seed: (
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | dict(PYTHONHASHSEED=seed),
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    said = {run(seed) for seed in "0123"}
    assert len(said) == 1 and "('seed', [0, 3])" in said.pop()
