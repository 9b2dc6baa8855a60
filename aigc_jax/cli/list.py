"""List what exists: configs, experiments, and the names that configs may choose.

`list TOPIC` lists one kind; `list --config=NAME` lists the keys of a config with their
values and where these come from, `list --config=NAME KEY` describes a key, or all keys
of a section. --config.KEY=VALUE shows a value as the command line would set it.
"""

import ast
import shutil
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aigc_jax.data.schema import DATASETS, TOKENIZERS
from aigc_jax.methods import choices
from aigc_jax.methods.hparams import OPTIMIZERS
from aigc_jax.methods.schema import METHODS
from aigc_jax.metrics.schema import METRICS
from aigc_jax.sweeps.engines import HELP as ENGINES
from aigc_jax.utils.errors import UserError, choose, format_suggestion
from aigc_jax.utils.python_files import SHARE
from aigc_jax.utils.terminal import print_text

if TYPE_CHECKING:
    from aigc_jax.training.key_help import ExplainedKey


def add_arguments(parser: ArgumentParser) -> None:
    """Add the topic, and the config whose keys are listed."""
    parser.add_argument(
        "topic",
        nargs="?",
        metavar="TOPIC",
        help="one of " + ", ".join(make_topics()) + "; with --config: a key or a section",
    )
    parser.add_argument("--config", metavar="FILE", help="list the keys of this config")


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Print the lists, one list, or the keys of a config; return exit code 0."""
    if args.config:
        list_keys(args.config, overrides, args.topic or "")
        return 0
    if overrides:
        raise UserError(f"--config.{next(iter(overrides))} needs --config=NAME, whose keys it sets")
    topics = make_topics()
    if args.topic is not None:
        choose(topics, args.topic, "TOPIC")
        topics = {args.topic: topics[args.topic]}
    entries = {topic: list_topic(topic) for topic in topics}
    longest = max((len(name) for names in entries.values() for name in names), default=0)
    width = shutil.get_terminal_size().columns
    for i, (topic, names) in enumerate(entries.items()):
        print_text("\n" * (i > 0) + f"{topics[topic]}:\n")
        for name, summary in names.items():
            print_text(format_entry(name, summary, longest + 4, width))
    return 0


def make_topics() -> dict[str, str]:  # {topic: title}
    """Return the titles of all lists."""
    return {
        "methods": "Methods, for config.method",
        "networks": "Networks, for config.network",
        "datasets": "Data sets, for config.data.name",
        "tokenizers": "Tokenizers, for config.data.tokenizer",
        "losses": "Losses of GANs, for config.loss",
        "regularizers": "Regularizers of GANs, for config.gan.regularizers",
        "likelihoods": "Likelihoods of autoencoders, for config.likelihood",
        "objectives": "Objectives of VAEs, for config.objective",
        "optimizers": "Optimisers, for config.optimizer",
        "schedules": "Schedules of the learning rate, for config.schedule.name",
        "metrics": "Metrics, for config.metrics and evaluate --metrics",
        "samplers": "Samplers, for sample --what",
        "engines": "Engines, for sweep --engine",
        "experiments": "Experiments, for --experiment=NAME",
        "configs": "Configs, for --config=NAME",
    }


def list_topic(topic: str) -> dict[str, str]:  # {name: help}
    """Return the names of a topic, each with a line of help."""
    if topic in ("configs", "experiments"):
        return {name: docstring_summary(s) for name, s in parse_shipped_files(topic).items()}
    return {
        "methods": {name: method.help for name, method in METHODS.items()},
        "networks": {
            f"{name}: {network}": words
            for name, method in METHODS.items()
            for key in method.keys
            if key.name == "network"
            for network, words in key.allowed.items()
        },
        "datasets": DATASETS,
        "tokenizers": TOKENIZERS,
        "losses": choices.GAN_LOSSES,
        "regularizers": choices.REGULARIZERS,
        "likelihoods": choices.LIKELIHOODS,
        "objectives": choices.OBJECTIVES,
        "optimizers": {name: optimizer.help for name, optimizer in OPTIMIZERS.items()},
        "schedules": choices.SCHEDULES,
        "metrics": METRICS,
        "samplers": {
            f"{name}: {sampler}": words
            for name, method in METHODS.items()
            for sampler, words in method.samplers.items()
        },
        "engines": ENGINES,
    }[topic]


def list_keys(config: str, overrides: Mapping[str, str], wanted: str) -> None:
    """Print the keys of a config, or a description of the wanted key or section."""
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files
    from aigc_jax.training.key_help import explain_config

    loaded = config_files.load_with_origins(config)
    explained = explain_config(loaded, configs.override(loaded.config, dict(overrides)))
    wanted = wanted.removeprefix("--").removeprefix("config.")
    keys = {k: v for k, v in explained.items() if k == wanted or k.startswith(f"{wanted}.")}
    if wanted and not keys:
        suggestion = format_suggestion(wanted, explained)
        raise UserError(f"{wanted!r} is no key of --config={config}{suggestion}")
    if not wanted:
        print_text(f"Keys of {loaded.source}; `list --config={config} KEY` describes one:\n")
    for found in (keys or explained).values():
        print_text(format_card(found) if wanted in keys else format_key(found))


def format_key(explained: "ExplainedKey") -> str:
    """Return a key, its value, its help and the origin of the value, in two lines."""
    from aigc_jax.training.key_help import format_value

    key, value, origin = explained
    words = textwrap.fill(
        f"{key.help} [{origin}]",
        shutil.get_terminal_size().columns,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{key.name}={format_value(value)}\n{words}"


def format_card(explained: "ExplainedKey") -> str:
    """Return all that the schema says about a key."""
    from aigc_jax.training.key_help import describe_type

    key = explained.key
    lines = [format_key(explained), f"    {describe_type(key)}"]
    if key.allowed:
        width, longest = shutil.get_terminal_size().columns, max(map(len, key.allowed), default=0)
        lines += [
            textwrap.indent(format_entry(name or "''", words, longest + 4, width - 2), "  ")
            for name, words in key.allowed.items()
        ]
    return "\n".join(lines)


def parse_shipped_files(folder: str) -> dict[str, ast.Module]:  # {name: syntax tree}
    """Return {name: syntax tree} of the shipped files in a folder, without importing
    them.
    """
    paths = sorted((SHARE / folder).glob("*.py"))
    return {path.stem: ast.parse(path.read_text()) for path in paths}


def docstring_summary(source: ast.Module) -> str:
    """Return the first paragraph of a file's docstring, on one line."""
    return " ".join((ast.get_docstring(source) or "").split("\n\n")[0].split())


def format_entry(name: str, summary: str, indent: int, max_width: int) -> str:
    """Return a name with its summary in a column to the right.

    Args:
      name: of a config, an experiment or an entry of a table.
      summary: its summary, on one line.
      indent: width of the column of names.
      max_width: most characters of a line; the column of summaries has at least 20.
    """
    return (
        textwrap.fill(
            summary,
            max(max_width, indent + 20),
            initial_indent=f"  {name:{indent - 2}}",
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        or f"  {name}"
    )
