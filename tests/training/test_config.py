"""Configs: misspelt keys and wrong types in every file, durations, identity."""

import types

import pytest
from helpers import ROOT
from ml_collections import ConfigDict
from tiny_configs import tiny

from aigc_jax.core.durations import duration_to_steps
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, config_identity
from aigc_jax.training.schema import allowed_keys
from aigc_jax.utils.errors import UserError, choose

pytestmark = pytest.mark.unit

FILES = sorted((ROOT / "configs").glob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def error_line(error):
    """The error message, which must be one line."""
    text = str(error.value)
    assert text and "\n" not in text and "Traceback" not in text
    return text


@every_file
def test_every_config_loads_and_has_a_lab_note(path):
    config = config_files.load(path)
    assert config.is_locked and config_identity.hash_identity(config)
    import ast

    note = ast.get_docstring(ast.parse(path.read_text()))
    for word in ("Expect", "measured"):
        assert word in note, f"{path.name}: the lab note has no {word!r}"


@every_file
def test_misspelt_keys_are_refused_with_a_suggestion(path):
    config = config_files.load(path)
    for key in configs.flatten_config(config):
        wrong = key + key[-1]
        with pytest.raises(UserError) as e:
            configs.override(config, {wrong: "1"})
        assert f"config.{wrong}" in error_line(e) and "did you mean" in str(e.value), key


@every_file
def test_values_of_a_wrong_type_are_refused(path):
    config = config_files.load(path)
    for key, value in configs.flatten_config(config).items():
        if isinstance(value, str) and key not in configs.duration_keys(config):
            wrong = [3, None, ("a",)]
        elif isinstance(value, tuple):
            wrong = [{"a": 1}] + (
                [("a",), "'a'", "{}"]
                if value and not isinstance(value[0], str)
                else [(3,)]
                if value
                else []
            )
        else:
            optional = isinstance(
                allowed_keys(config.method, config.get("network", ""))[key].type,
                types.UnionType,
            )
            wrong = [
                "word",
                "[",
                "",
                "1 parsec",
                "nan",
                "1e400",
                (2,),
                *([] if optional else [None]),
            ]
        for bad in wrong:
            with pytest.raises(UserError) as e:
                configs.override(config, {key: bad})
            assert f"config.{key}" in error_line(e), (key, bad)


@every_file
def test_every_value_survives_a_round_trip_through_text(path):
    config = config_files.load(path)
    for key, value in configs.flatten_config(config).items():
        assert configs.flatten_config(configs.override(config, {key: str(value)}))[key] == value, (
            key
        )


def test_overrides_parse_common_spellings():
    config = tiny()
    for key, text, value in [
        ("hp.lr_g", "1e-4", 1e-4),
        ("hp.lr_g", "1", 1.0),
        ("batch_size", "1e2", 100),
        ("run.deterministic", "true", True),
        ("model.g.widths", "64,32", (64, 32)),
        ("model.g.widths", "(64,)", (64,)),
        ("model.g.widths", "64", (64,)),
        ("steps", "10 epochs", "10 epochs"),
        ("steps", "1_000", "1_000"),
        ("steps", 50, "50"),
    ]:
        assert configs.flatten_config(configs.override(config, {key: text}))[key] == value
    with pytest.raises(UserError, match="is a section"):
        configs.override(config, {"hp": "1"})


def test_override_does_not_mutate_the_config():
    config = tiny()
    before = configs.flatten_config(config)
    configs.override(config, {"hp.lr_g": 1.0, "model.g.widths": (7,)})
    assert configs.flatten_config(config) == before


@pytest.mark.parametrize(
    "text, steps",
    [
        ("10", 10),
        ("10 steps", 10),
        ("1e3", 1000),
        ("2 epochs", 28),
        ("1 epoch", 14),
        ("0.5 epochs", 7),
        ("1 examples", 1),
        ("65 examples", 2),
        ("never", 0),
    ],
)
def test_durations_convert_to_steps(text, steps):
    assert duration_to_steps(text, "config.steps", n_train=896, examples_per_step=64) == steps


@pytest.mark.parametrize(
    "text", ["ten", "-5", "5 parsecs", "1e10", "", "1e-3", "nan", "5 epoch s", "0.5", "2.5 steps"]
)
def test_invalid_durations_are_refused(text):
    with pytest.raises(UserError, match="config.steps"):
        duration_to_steps(text, "config.steps", 896, 64)


def test_identity_hash_excludes_run_keys():
    config = configs.resolve_durations(tiny(), 1000, 16)
    assert config_identity.hash_identity(config) == config_identity.hash_identity(
        configs.resolve_durations(tiny(run__log_every=1, run__data_dir="/x"), 1000, 16)
    )
    for key, value in {
        "seed": 1,
        "hp__ema_decay": 0.5,
        "latent_dim": 9,
        "data__order": "shared",
        "steps": 33,
    }.items():
        assert config_identity.hash_identity(config) != config_identity.hash_identity(
            configs.resolve_durations(tiny(**{key: value}), 1000, 16)
        ), key
    # A duration in epochs has the hash of the same number of steps.
    assert config_identity.hash_identity(
        configs.resolve_durations(tiny(steps="2 epochs"), 160, 16)
    ) == config_identity.hash_identity(configs.resolve_durations(tiny(steps=20), 160, 16))


def test_config_json_round_trip():
    config = configs.resolve_durations(tiny(), 1000, 16)
    again = configs.from_json_dict(configs.to_json_dict(config))
    assert configs.flatten_config(again) == configs.flatten_config(config)
    assert isinstance(again.model.g.widths, tuple)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"steps": "0"}, "config.steps"),
        ({"run.samples": 0}, "config.run.samples"),
        ({"best_mode": "least"}, "config.best_mode"),
        ({"best_metric": "test/x"}, "config.best_metric"),
        ({"run.log": "wandbb"}, "wandb"),
        ({"num_metric_samples": 1}, "config.num_metric_samples"),
    ],
)
def test_out_of_range_values_are_refused(change, word):
    with pytest.raises(UserError, match=word) as e:
        configs.resolve_durations(configs.override(tiny(), change), 1000, 16)
    error_line(e)


@pytest.mark.parametrize(
    "text, word",
    [
        ("def get_config(:\n", "line 1"),
        ("x = 1\n", "no function get_config"),
        (
            "def get_config():\n  from ml_collections import "
            "ConfigDict\n  return ConfigDict(dict(method='gan', network='mlp', hp={}, "
            "batch_size=1))\n",
            "config.steps is missing",
        ),
    ],
)
def test_invalid_config_files_are_refused(tmp_path, text, word):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(UserError, match=word) as e:
        config_files.load(tmp_path / "c.py")
    error_line(e)
    with pytest.raises(UserError, match="did you mean"):
        config_files.load(tmp_path / "cc.py")


def test_unknown_run_keys_in_a_file_are_refused():
    with pytest.raises(
        UserError, match="config.run.eval_evry: no such key of .*; did you mean 'run.eval_every'"
    ):
        configs.fill_defaults(
            ConfigDict(
                dict(
                    method="gan", network="mlp", steps=1, batch_size=1, hp={}, run=dict(eval_evry=3)
                )
            )
        )


def test_error_truncates_a_long_list_of_choices():
    with pytest.raises(UserError) as error:
        choose({f"name_{i}": i for i in range(1000)}, "nothing", "config.x")
    assert "name_59 and 940 more" in str(error.value) and len(str(error.value)) < 1000
