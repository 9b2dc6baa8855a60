"""Config files: loading, inheritance, and the origin of every value.

A file defines get_config(), which returns a ConfigDict; or get_config(base), which
changes a copy of another config:

    def get_config(base):
        config = base("dcgan_mnist")
        config.hp.lr_g = 1e-4
        return config

This module does not import jax.
"""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aigc_jax.training.config import fill_defaults, flatten_config, nest_config, override
from aigc_jax.utils.disk import hide_paths
from aigc_jax.utils.errors import check_type, mark_argument, require
from aigc_jax.utils.python_files import (
    REPOSITORY,
    convert_user_code_errors,
    find_python_file,
    import_python_file,
)


class LoadedConfig(NamedTuple):
    """A config and the origin of its values."""

    config: ConfigDict  # locked, with all defaults
    files: tuple[Path, ...]  # its file, the file's base, the base of that, ...
    # {key: the file that sets it}; the other values are defaults
    origins: dict[str, Path]

    @property
    def source(self) -> str:  # "a.py, based on b.py", without private paths
        """The files of the config in words, or "ConfigDict"."""
        names = [hide_paths(str(file), REPOSITORY) for file in self.files]
        return ", based on ".join(names) or "ConfigDict"


def load(source: str | Path | ConfigDict) -> ConfigDict:  # locked, with all defaults
    """Return a locked config with all defaults.

    Args:
      source: a Python file, located by `find_python_file`, whose get_config() returns
        the config; or a ConfigDict, to which the defaults are added.

    Raises:
      UserError: the file does not exist, raises an exception, or has no get_config()
        that returns a ConfigDict; or a key or a value is invalid.
    """
    return load_with_origins(source).config


def load_with_origins(source: str | Path | ConfigDict) -> LoadedConfig:
    """Return a config as `load` does, with the files that it comes from."""
    if isinstance(source, ConfigDict):
        return LoadedConfig(fill_defaults(source), (), {})
    check_type("config", source, (str, Path), "a name, a path or a ConfigDict")
    return _load_file(find_python_file(source, "config"), ())


def _load_file(file: Path, users: tuple[Path, ...]) -> LoadedConfig:
    """Load a file, on which the resolved files `users` are based."""
    name = f"{mark_argument('config')}={file}"
    require(file.resolve() not in users, f"{name} is based on itself")
    get_config = getattr(import_python_file(file, "config"), "get_config", None)
    require(callable(get_config), f"{name} has no function get_config()")
    assert get_config is not None
    bases: list[tuple[ConfigDict, LoadedConfig]] = []

    def base(source: str | Path) -> ConfigDict:
        """Return an unlocked copy of another config, for get_config(base)."""
        check_type("base", source, (str, Path), "the name or the path of a config")
        beside = file.parent / f"{str(source).removesuffix('.py')}.py"
        found = beside if beside.is_file() else find_python_file(source, "config")
        loaded = _load_file(found, (file.resolve(), *users))
        config = ConfigDict(loaded.config.to_dict(), type_safe=False)
        bases.append((config, loaded))
        return config

    with convert_user_code_errors(file, "config"):
        takes_base = len(inspect.signature(get_config).parameters) > 0
        config = get_config(base) if takes_base else get_config()
    require(
        isinstance(config, ConfigDict),
        f"{name}: get_config() returns {type(config).__name__}, not a ConfigDict",
    )
    inherited = next((loaded for copy, loaded in bases if copy is config), None)
    if inherited is None:
        return LoadedConfig(
            fill_defaults(config), (file,), dict.fromkeys(flatten_config(config), file)
        )
    return _derive(inherited, flatten_config(config), file)


def _derive(inherited: LoadedConfig, leaves: dict[str, Any], file: Path) -> LoadedConfig:
    """Return the config of a file that changed a copy of another one.

    Args:
      inherited: the other config.
      leaves: {key: value} of the copy after the changes.
      file: the file that changed the copy.
    """
    before = flatten_config(inherited.config)
    changed = {key: value for key, value in leaves.items() if before.get(key, ...) != value}
    removed = before.keys() - leaves.keys()
    rest = {key: value for key, value in before.items() if key not in removed}
    config = fill_defaults(override(nest_config(rest), changed))
    origins = {k: v for k, v in inherited.origins.items() if k in flatten_config(config)}
    return LoadedConfig(config, (file, *inherited.files), origins | dict.fromkeys(changed, file))
