"""List the configs and experiments with their summaries.

With --config, list every key of that config.
"""

import ast
import shutil
import textwrap
from argparse import ArgumentParser, Namespace

from aigc_jax.core import config as configs
from aigc_jax.utils.python_files import SHARE
from aigc_jax.utils.terminal import print_text


def add_arguments(parser: ArgumentParser) -> None:
    """Add the config whose keys are listed, instead of the files."""
    parser.add_argument("--config", metavar="FILE", help="list the keys of this config")


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Print the shipped configs and experiments, or every key of one config; return
    exit code 0.
    """
    if args.config:
        config = configs.override(configs.load(args.config), overrides)
        for key, value in configs.flatten_config(config).items():
            print_text(f"--config.{key}={value}")
        return 0
    sections = {
        "Configs, for --config=NAME": parse_shipped_files("configs"),
        "Experiments, for --experiment=NAME": parse_shipped_files("experiments"),
    }
    longest = max((len(name) for names in sections.values() for name in names), default=0)
    width = shutil.get_terminal_size().columns
    for i, (title, names) in enumerate(sections.items()):
        print_text(f"{title}:\n" if i == 0 else f"\n{title}:\n")
        for name, source in names.items():
            print_text(format_entry(name, docstring_summary(source), longest + 4, width))
    return 0


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
      name: of a config or an experiment.
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
