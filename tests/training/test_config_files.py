"""Config files: inheritance, defaults of methods, origins of values, and the identities
of the shipped configs.
"""

import json
import statistics

import pytest
from helpers import ROOT

from aigc_jax.core.schema import REQUIRED
from aigc_jax.core.values import convert_value
from aigc_jax.methods.hparams import DEFAULTS
from aigc_jax.methods.schema import METHODS
from aigc_jax.models import schema as models
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, config_identity
from aigc_jax.training.identity import parse_stored_config
from aigc_jax.training.schema import allowed_keys
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.python_files import import_python_file

pytestmark = pytest.mark.unit

FILES = sorted((ROOT / "configs").glob("*.py"))
HASHES = ROOT / "tests" / "fixtures" / "config_hashes.json"


def write(path, text):
    path.write_text(text)
    return path


def based(path, *lines, on="gan_digits"):
    body = "".join(f"    {line}\n" for line in lines)
    return write(
        path, f'def get_config(base):\n    config = base("{on}")\n{body}    return config\n'
    )


def test_identities_of_the_shipped_configs_are_frozen():
    """Defaults and inheritance shorten a file, but do not make it another run."""
    assert json.loads(HASHES.read_text()) == {
        path.stem: config_identity.hash_identity(config_files.load(path)) for path in FILES
    }


def test_shipped_configs_state_only_what_differs():
    counts = {}
    for path in FILES:
        loaded = config_files.load_with_origins(path)
        own = [key for key, file in loaded.origins.items() if file == path]
        counts[path.stem] = len(own)
        leaves = configs.flatten_config(loaded.config)
        table, usual = configs.find_allowed_keys(leaves), configs.list_method_defaults(leaves)
        for key in own if len(loaded.files) == 1 else ():
            default = usual.get(key, table[key].default)
            if key not in ("method", "data.name", "network") and default is not REQUIRED:
                assert convert_value(table[key], default) != leaves[key], (path.stem, key)
    assert statistics.median(counts.values()) <= 15, counts


def test_method_and_network_defaults_are_valid_values_of_existing_keys():
    for method, network in models.MODEL:
        table = allowed_keys(method, network)
        for key, value in (
            METHODS[method].defaults | models.DEFAULTS.get((method, network), {})
        ).items():
            assert convert_value(table[key], value) == value


def test_config_is_based_on_another_config(tmp_path):
    path = based(tmp_path / "mine.py", "config.hp.lr_g = 1e-3", "config.steps = 10")
    loaded = config_files.load_with_origins(path)
    wanted = configs.override(config_files.load("gan_digits"), {"hp.lr_g": 1e-3, "steps": 10})
    assert loaded.config == wanted and loaded.config.is_locked
    assert [file.name for file in loaded.files] == ["mine.py", "gan_digits.py"]
    assert loaded.origins["hp.lr_g"] == path and loaded.origins["batch_size"].stem == "gan_digits"
    assert "hp.beta1" not in loaded.origins  # a default of the method
    assert loaded.source.endswith("mine.py, based on configs/gan_digits.py")


def test_config_is_based_on_a_file_beside_it_and_that_on_another(tmp_path):
    based(tmp_path / "first.py", "config.latent_dim = 7")
    path = based(tmp_path / "second.py", "config.seed = 3", on="first")
    loaded = config_files.load_with_origins(path)
    assert (loaded.config.latent_dim, loaded.config.seed) == (7, 3)
    assert [file.stem for file in loaded.files] == ["second", "first", "gan_digits"]


def test_choices_of_a_derived_config_drop_and_add_hyper_parameters(tmp_path):
    """A rate that only the former optimizer reads goes; that of the new one appears."""
    path = based(tmp_path / "mine.py", 'config.optimizer = "sgd"', "del config.hp.lr_g")
    config = config_files.load(path)
    assert "beta2" not in config.hp and config.hp.beta1 == 0.5
    assert config.hp.lr_g == METHODS["gan"].defaults["hp.lr_g"]
    path = based(tmp_path / "other.py", 'config.gan.regularizers = ("r1",)')
    assert config_files.load(path).hp.r1 == 10.0


def test_config_that_ignores_the_base_has_its_own_values_only(tmp_path):
    text = "def get_config(base):\n    config = base('gan_digits').copy_and_resolve_references()\n"
    path = write(tmp_path / "mine.py", text + "    return config\n")
    assert config_files.load_with_origins(path).files == (path,)


@pytest.mark.parametrize(
    "line, words",
    [
        ("config.hp.lr_gg = 1e-3", "config.hp.lr_gg: no such key of .* did you mean 'hp.lr_g'"),
        ("config.gan.pack = 'two'", "config.gan.pack = 'two' is not an integer"),
        ("config.hq.lr_g = 1e-3", "raises AttributeError in line 3"),
        ("config.loss = 'hing'", "config.loss = 'hing' is none of .* did you mean 'hinge'"),
        ("config.batch_size = 0", "config.batch_size = 0 must be at least 1"),
        ("del config.data.name", "config.data.name is missing"),
        ("del config.network", "config.network is missing"),
    ],
)
def test_mistakes_in_a_derived_config_are_one_line_errors(tmp_path, line, words):
    with pytest.raises(UserError, match=words):
        config_files.load(based(tmp_path / "mine.py", line))


def test_circles_and_missing_bases_are_refused(tmp_path):
    path = based(tmp_path / "a.py", on="b")
    based(tmp_path / "b.py", on="a")
    with pytest.raises(UserError, match="config=.*a.py is based on itself"):
        config_files.load(path)
    with pytest.raises(
        UserError, match="config=gan_digit: no such file; did you mean 'gan_digits'"
    ):
        config_files.load(based(tmp_path / "c.py", on="gan_digit"))


def test_optional_parameter_of_get_config_is_the_base(tmp_path):
    module = import_python_file(ROOT / "configs" / "cgan_mnist.py", "config")
    assert module.get_config.__code__.co_varnames[:1] == ("base",)
    text = "def get_config():\n    return 3\n"
    with pytest.raises(UserError, match="get_config\\(\\) returns int, not a ConfigDict"):
        config_files.load(write(tmp_path / "mine.py", text))


def test_stored_config_keeps_its_identity_without_the_defaults_of_methods():
    """A run that was stored before a method had a default did not use that default."""
    config = configs.override(config_files.load("gan_digits"), {"steps": 8})
    resolved = configs.resolve_durations(config, 160, 16)
    stored = configs.to_json_dict(resolved)
    del stored["hp"]["beta1"], stored["run"]["samples"]  # as if 0.9, the default of adam
    parsed = parse_stored_config(dict(config=stored))
    assert parsed.hp.beta1 == DEFAULTS["beta1"] != resolved.hp.beta1
    assert "hp.beta1" not in config_identity.identity_leaves(parsed)
