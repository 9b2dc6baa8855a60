"""Wrong values for every leaf of every shipped config, in the file and on the command
line: each yields a valid config or a one-line error, and nothing is allocated.
"""

import functools
import math
import random

import pytest
from helpers import ROOT
from ml_collections import ConfigDict

from aigc_jax import methods
from aigc_jax.core.schema import REQUIRED
from aigc_jax.core.values import convert_value
from aigc_jax.data.dataset import Spec
from aigc_jax.sweeps.trials import make_trials
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, config_identity
from aigc_jax.training.schema import allowed_keys
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit

FILES = sorted((ROOT / "configs").glob("*.py"))
WRONG = dict(
    type=["word", 3.5, None, ("a",), (("a",),), {"a": 1}, True, [[1], "b"], b"x"],
    huge=[
        1e30,
        10**30,
        "1e30",
        "1e300 epochs",
        (10**30,),
        ((10**30,),),
        "x" * 100_000,
        tuple(range(1, 10**4)),
    ],
    negative=[-1, "-1", -1e30, (-1,), "-3 steps", ((-2,),)],
    empty=["", (), "()", "  ", {}, [], ((),)],
    digits=[
        10**399,
        -(10**399),
        "9" * 400,
        "9" * 5000,
        10**5000,
        (10**399,),
        "1" * 400 + " epochs",
    ],
    nan=[math.nan, math.inf, "nan", "-inf", (math.nan,)],
    text=["a\0b", "\n", "'", "((((", "[" * 10_000, "\ud800", "--x", "{}"],
)
SIZES = dict(digits=(8, 8, 1), cifar10=(32, 32, 3), stacked_mnist=(28, 28, 3), ring=(2,), grid=(2,))


@functools.cache
def load_config(path) -> ConfigDict:
    return config_files.load(path)


def spec_of(config) -> Spec:
    """The data specification that a shipped config expects."""
    name = config.data.name
    if config.method == "seq2seq":
        return Spec("pairs", (32, 33), 50_000, vocabulary=500)
    if config.method in ("lm", "mlm"):
        return Spec("text", (config.data.length,), 50_000, vocabulary=500, mask=499)
    shape = (
        (config.data.size, config.data.size, 3)
        if name == "folder"
        else SIZES.get(name, (28, 28, 1))
    )
    return Spec(
        "points" if len(shape) == 1 else "image",
        shape,
        50_000,
        classes=10,
        levels=1 if name == "binarized_mnist" else 255,
    )


def build(config, spec):
    """All checks that precede reading the data and allocating arrays."""
    (trial,) = make_trials(config, [{}])
    assert config_identity.hash_identity(trial.config) == config_identity.hash_identity(config)
    resolved = configs.resolve_durations(config, spec.n_train, methods.examples_per_step(config))
    assert config_identity.hash_identity(
        configs.from_json_dict(configs.to_json_dict(resolved))
    ) == config_identity.hash_identity(resolved)
    methods.make_method(resolved, spec)


def config_with_value(path, name, value) -> ConfigDict:
    """The config of a file with this value at the key `name`."""
    plain = load_config(path).to_dict()
    *parents, last = name.split(".")
    functools.reduce(dict.__getitem__, parents, plain)[last] = value
    return configs.fill_defaults(ConfigDict(plain))


def error_message(path, way, name, value) -> str:
    """The error message, or "" where the value is valid."""
    config = load_config(path)
    try:
        changed = (
            config_with_value(path, name, value)
            if way == "file"
            else configs.override(config, {name: value})
        )
        build(changed, spec_of(config))
    except UserError as e:
        return str(e)
    return ""


def cases():
    """(file, way, leaf, kind, index of the value within the kind)."""
    return [
        (path, way, name, kind, i)
        for path in FILES
        for name in configs.flatten_config(load_config(path))
        for way in ("file", "flag")
        for kind, values in WRONG.items()
        for i in range(len(values))
    ]


def check(path, way, name, kind, i):
    value, config = WRONG[kind][i], load_config(path)
    said = error_message(path, way, name, value)
    # Keys of type str accept any text.
    free = allowed_keys(config.method, config.get("network", ""))[name].type is str and isinstance(
        value, str
    )
    assert said or free or kind not in ("digits", "nan"), (path.stem, way, name, kind, i)
    if said:
        assert "\n" not in said and len(said) < 3000 and said.startswith("config."), (
            path.stem,
            way,
            name,
            kind,
            i,
            said,
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_shipped_config_builds(path):
    build(load_config(path), spec_of(load_config(path)))


def test_sampled_wrong_values_build_or_raise_a_one_line_error():
    every, draw = cases(), random.Random(0)
    kinds = {
        (name, kind): case
        for case in draw.sample(every, len(every))
        for name, kind in [(case[2], case[3])]
    }
    # One case for each leaf and kind, then a random subset to limit the time.
    for case in draw.sample(sorted(kinds.values()), 400):
        check(*case)


@functools.cache
def cases_by_file() -> dict:
    """{file: cases}: each value of each leaf once, distributed among the files that
    have the leaf, so that every file has cases.
    """
    files, out = {}, {path: [] for path in FILES}
    for case in cases():
        files.setdefault(case[1:], []).append(case)
    turns = dict.fromkeys((name for _, name, *_ in files), 0)
    for (_, name, *_), those in files.items():
        case = those[turns[name] % len(those)]
        turns[name] += 1
        out[case[0]].append(case)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_all_wrong_values_build_or_raise_a_one_line_error(path):
    assert {case[2] for case in cases_by_file()[path]} == configs.flatten_config(
        load_config(path)
    ).keys()
    for case in cases_by_file()[path]:
        check(*case)


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in FILES
        if p.stem in ("dcgan_digits", "gpt_abc", "seq2seq_multi30k", "vae_mnist", "vqvae_digits")
    ],
    ids=lambda p: p.stem,
)
def test_missing_keys_are_named_or_get_the_default_of_the_method(path):
    config = load_config(path)
    table = allowed_keys(config.method, config.get("network", ""))
    required = [name for name in configs.flatten_config(config) if table[name].default is REQUIRED]
    defaults = configs.list_method_defaults(configs.flatten_config(config))
    for name in required:
        left = config.to_dict()
        *parents, last = name.split(".")
        del functools.reduce(dict.__getitem__, parents, left)[last]
        if name in defaults:
            filled = configs.flatten_config(configs.fill_defaults(ConfigDict(left)))
            assert filled[name] == convert_value(table[name], defaults[name])
            continue
        with pytest.raises(UserError, match=rf"config\.{name}.* is missing") as e:
            build(configs.fill_defaults(ConfigDict(left)), spec_of(config))
        assert "\n" not in str(e.value)
