"""Configs: every key of every file misspelt and mistyped, durations, identity."""

import types

import pytest
from helpers import ROOT
from ml_collections import ConfigDict
from tiny_configs import tiny

from aigc_jax.core import config as configs
from aigc_jax.core import keys
from aigc_jax.utils.errors import UserError, choose

pytestmark = pytest.mark.unit

FILES = sorted((ROOT / "configs").glob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def sentence(error):
    """One sentence without a line break."""
    text = str(error.value)
    assert text and "\n" not in text and "Traceback" not in text
    return text


@every_file
def test_every_file_is_a_lab_note_that_loads(path):
    config = configs.load(path)
    assert config.is_locked and configs.hash_of(config)
    import ast

    note = ast.get_docstring(ast.parse(path.read_text()))
    for word in ("Expect", "measured"):
        assert word in note, f"{path.name}: the lab note has no {word!r}"


@every_file
def test_every_key_misspelt(path):
    config = configs.load(path)
    for key in configs.leaves(config):
        wrong = key + key[-1]
        with pytest.raises(UserError) as e:
            configs.override(config, {wrong: "1"})
        assert f"config.{wrong}" in sentence(e) and "did you mean" in str(e.value), key


@every_file
def test_every_key_mistyped(path):
    config = configs.load(path)
    for key, value in configs.leaves(config).items():
        if isinstance(value, str) and key not in configs.durations_of(config):
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
                keys.keys_of(config.method, config.get("network", ""))[key].type, types.UnionType
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
            assert f"config.{key}" in sentence(e), (key, bad)


@every_file
def test_every_key_takes_its_own_value_as_text(path):
    config = configs.load(path)
    for key, value in configs.leaves(config).items():
        assert configs.leaves(configs.override(config, {key: str(value)}))[key] == value, key


def test_values_are_read_as_people_write_them():
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
        assert configs.leaves(configs.override(config, {key: text}))[key] == value
    with pytest.raises(UserError, match="is a section"):
        configs.override(config, {"hp": "1"})


def test_an_override_leaves_the_config_itself_alone():
    config = tiny()
    before = configs.leaves(config)
    configs.override(config, {"hp.lr_g": 1.0, "model.g.widths": (7,)})
    assert configs.leaves(config) == before


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
def test_durations(text, steps):
    assert configs.steps_of(text, "config.steps", n_train=896, examples=64) == steps


@pytest.mark.parametrize(
    "text", ["ten", "-5", "5 parsecs", "1e10", "", "1e-3", "nan", "5 epoch s", "0.5", "2.5 steps"]
)
def test_durations_that_are_none(text):
    with pytest.raises(UserError, match="config.steps"):
        configs.steps_of(text, "config.steps", 896, 64)


def test_identity_is_everything_but_run():
    config = configs.resolve(tiny(), 1000, 16)
    assert configs.hash_of(config) == configs.hash_of(
        configs.resolve(tiny(run__log_every=1, run__data_dir="/x"), 1000, 16)
    )
    for key, value in {
        "seed": 1,
        "hp__ema_decay": 0.5,
        "z": 9,
        "data__order": "shared",
        "steps": 33,
    }.items():
        assert configs.hash_of(config) != configs.hash_of(
            configs.resolve(tiny(**{key: value}), 1000, 16)
        ), key
    # an epoch is what it is in steps
    assert configs.hash_of(configs.resolve(tiny(steps="2 epochs"), 160, 16)) == configs.hash_of(
        configs.resolve(tiny(steps=20), 160, 16)
    )


def test_json_and_back():
    config = configs.resolve(tiny(), 1000, 16)
    again = configs.from_json(configs.jsonable(config))
    assert configs.leaves(again) == configs.leaves(config)
    assert isinstance(again.model.g.widths, tuple)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"steps": "0"}, "config.steps"),
        ({"run.samples": 0}, "config.run.samples"),
        ({"best_mode": "least"}, "config.best_mode"),
        ({"best": "test/x"}, "config.best"),
        ({"run.wandb": "onlin"}, "online"),
        ({"metric_samples": 1}, "config.metric_samples"),
    ],
)
def test_values_out_of_range(change, word):
    with pytest.raises(UserError, match=word) as e:
        configs.resolve(configs.override(tiny(), change), 1000, 16)
    sentence(e)


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
def test_files_that_are_no_configs(tmp_path, text, word):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(UserError, match=word) as e:
        configs.load(tmp_path / "c.py")
    sentence(e)
    with pytest.raises(UserError, match="did you mean"):
        configs.load(tmp_path / "d.py")


def test_unknown_run_keys_in_a_file_are_refused():
    with pytest.raises(
        UserError, match="config.run.eval_evry: no such key of .*; did you mean 'run.eval_every'"
    ):
        configs.complete(
            ConfigDict(
                dict(
                    method="gan", network="mlp", steps=1, batch_size=1, hp={}, run=dict(eval_evry=3)
                )
            )
        )


def test_errors_list_some_of_many_names():
    with pytest.raises(UserError) as error:
        choose({f"name_{i}": i for i in range(1000)}, "nothing", "config.x")
    assert "name_59 and 940 more" in str(error.value) and len(str(error.value)) < 1000
