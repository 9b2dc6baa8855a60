"""Print the code that completes commands, flags, configs and config keys in a shell.

bash, a line of ~/.bashrc:

    command -v aigc > /dev/null && eval "$(aigc completion bash)"

zsh, lines of ~/.zshrc:

    autoload -Uz compinit && compinit
    command -v aigc > /dev/null && eval "$(aigc completion zsh)"

fish, once:

    aigc completion fish > ~/.config/fish/completions/aigc.fish

Where `aigc` is in an environment, run the line of bash or zsh after activating it.
"""

import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from aigc_jax.cli.list import list_topic, make_topics
from aigc_jax.data.schema import DATASETS, TOKENIZERS
from aigc_jax.methods.schema import METHODS
from aigc_jax.metrics.schema import METRICS
from aigc_jax.sweeps.engines import HELP as ENGINES
from aigc_jax.utils.errors import UserError, choose
from aigc_jax.utils.terminal import print_text

SHELLS = {"bash": "Bash", "zsh": "Z shell", "fish": "fish"}
VARIABLE = "_ARGCOMPLETE"  # set by the code of the shell that requests completions


def list_choices() -> dict[str, Mapping[str, str]]:
    """Return {destination of an argument: {name: help} of its values}."""
    return {
        "config": list_topic("configs"),
        "experiment": list_topic("experiments"),
        "name": DATASETS,
        "tokenizer": TOKENIZERS,
        "metrics": METRICS,
        "what": {name: words for m in METHODS.values() for name, words in m.samplers.items()},
        "engine": ENGINES,
        "shell": SHELLS,
        "topic": make_topics(),
    }


def add_arguments(parser: ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", metavar="SHELL", help=f"one of {', '.join(SHELLS)}")


def run(args: Namespace, _overrides: dict[str, str]) -> int:  # the exit code
    """Print the code for a shell and return exit code 0."""
    import argcomplete

    choose(SHELLS, args.shell, "SHELL")
    print_text(argcomplete.shellcode(["aigc"], shell=args.shell), end="")
    return 0


def complete(parser: ArgumentParser, verbs: Mapping[str, ArgumentParser]) -> None:
    """Answer the shell's request for completions and end the process; called where
    VARIABLE is in the environment.

    Args:
      parser: the parser of the command line.
      verbs: {verb: its parser}.
    """
    line, known = os.environ.get("COMP_LINE", ""), list_choices()
    for verb in verbs.values():
        for action in verb._actions:
            choices = known.get(action.dest, {})
            if choices:
                action.completer = make_completer(choices)  # type: ignore[attr-defined]
        if "--config" in verb._option_string_actions:
            add_config_keys(verb, line)
    make_finder()(parser)


def make_finder() -> Any:
    """Return argcomplete's finder of completions, which also describes the values in
    words such as --config.loss=hinge: argcomplete looks for these under the whole word.
    """
    from argcomplete import CompletionFinder

    class Finder(CompletionFinder):
        def quote_completions(self, completions, *args):
            helps = self.get_display_completions()
            for word in completions:
                _, equals, value = word.partition("=")
                if equals and value in helps:
                    helps.setdefault(word, helps[value])
            return super().quote_completions(completions, *args)

    return Finder()


def make_completer(choices: Mapping[str, str]) -> Any:
    """Return argcomplete's function of {name: help}, which some shells show."""
    return lambda **_: choices


def add_config_keys(verb: ArgumentParser, line: str) -> None:
    """Add a flag --config.KEY for every key of the config that the line names, or the
    keys themselves to the verb `list`.

    Args:
      verb: the parser of a verb.
      line: the command line so far.
    """
    from aigc_jax.training import config_files
    from aigc_jax.training.key_help import explain_config

    named = re.search(r"--config[= ]([^\s'\"]+)", line)
    if named is None:
        return
    try:
        loaded = config_files.load_with_origins(named[1])
    except UserError:  # the name is not complete yet
        return
    explained = explain_config(loaded, loaded.config)
    topic = next((action for action in verb._actions if action.dest == "topic"), None)
    if topic is not None:
        helps = {name: key.help for name, (key, _, _) in explained.items()}
        topic.completer = make_completer(helps)  # type: ignore[attr-defined]
    for name, (key, _, _) in explained.items():
        action = verb.add_argument(f"--config.{name}", help=key.help.replace("%", "%%"))
        choices = key.allowed or dict.fromkeys(["True", "False"] if key.type is bool else [], "")
        action.completer = make_completer(choices)  # type: ignore[attr-defined]
