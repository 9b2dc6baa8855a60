"""request.json, beside the rows of a sweep or of an experiment, for readers: what was
requested, and by which commands.
"""

import sys
from pathlib import Path
from typing import Any

from aigc_jax.sweeps.experiment import Experiment, read_question
from aigc_jax.utils import documents
from aigc_jax.utils.disk import convert_disk_errors, hide_paths
from aigc_jax.utils.errors import mark_argument, require
from aigc_jax.utils.python_files import REPOSITORY
from aigc_jax.utils.subprocesses import launch_command

NAME = "request.json"


def write_request_json(
    folder: Path, experiment: Experiment | None, config: str = "", changes: dict | None = None
) -> None:
    """Write request.json.

    Args:
      folder: the directory, created if necessary.
      experiment: the experiment that is trained, whose name and question are stored.
      config: the file of the config in words; "": none.
      changes: what all trials change in it.
    """
    before = documents.peek(folder / NAME) or {}
    commands, command = before.get("commands", []), describe_command()
    if command and command not in commands:
        commands = [*commands, command]
    file = experiment.file if experiment else None
    stored: dict[str, Any] = dict(config=config, changes=changes or {}, commands=commands)
    stored |= dict(question=read_question(file) if file else "")
    stored |= dict(experiment=file.stem if file else "")
    with convert_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        documents.write(folder / NAME, stored)


def describe_command() -> list[str]:  # [] where no command line started this process
    """Return the words of the command line without private paths."""
    script = Path(sys.argv[0]).name
    words = launch_command() or (["python", script] if script == "launch.py" else [])
    return [*words, *(hide_paths(word, REPOSITORY) for word in sys.argv[1:])] if words else []


def check_experiment(folder: Path, experiment: Experiment | None) -> None:
    """Raise a UserError if the rows of a directory belong to another experiment. A
    sweep of a config, and rows without request.json, may be of any.
    """
    stored = (documents.peek(folder / NAME) or {}).get("experiment", "")
    name = experiment.file.stem if experiment and experiment.file else ""
    require(
        not stored or not name or stored == name,
        f"{folder} has the rows of the experiment {stored}, not of {mark_argument('experiment')}"
        f"={name}",
    )
