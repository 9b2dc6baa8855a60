"""Command lines that train a trial again."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aigc_jax.sweeps.presentation import format_value
from aigc_jax.utils.errors import PROGRAM

MOST_CHARACTERS = 4000  # of a command


class Origin(NamedTuple):
    """A config file and the keys that a trial changes in it."""

    source: str  # "a.py" or "a.py, based on b.py"; "" or "ConfigDict": no file
    changes: Mapping[str, Any]

    def with_changes(self, values: Mapping[str, Any], keys: Iterable[str]) -> "Origin":
        """Return the origin of a trial with these values of `keys` and its seed."""
        more = {key: values[key] for key in keys if values.get(key) is not None}
        if values.get("seed") is not None:
            more["seed"] = values["seed"]
        named = {key.removeprefix("config."): value for key, value in more.items()}
        return Origin(self.source, {**self.changes, **named})


def read_run_origin(config_json: Mapping[str, Any]) -> Origin:
    """Return the origin of a run from its config.json."""
    pairs = {
        key: pair[1]
        for key, pair in config_json.get("changes", {}).items()
        if isinstance(pair, list) and len(pair) == 2
    }
    return Origin(config_json.get("source", ""), pairs)


def format_train_command(origin: Origin | None, name: str) -> str:  # "" if unknown
    """Return the command that trains a trial again, in runs/NAME; "" if the config has
    no file, or if the command would be too long.

    Args:
      origin: the file of its config, and the changes.
      name: the name of the trial.
    """
    file = origin.source.partition(", based on ")[0] if origin else ""
    if origin is None or not file.endswith(".py"):
        return ""
    flags = [f"--config.{key}={format_value(value)}" for key, value in origin.changes.items()]
    words = [PROGRAM, "train", f"--config={file}", *flags, f"--workdir=runs/{name}"]
    command = " ".join(map(shlex.quote, words))
    return command if len(command) <= MOST_CHARACTERS else ""
