"""List the configs and experiments, with what each is.

With --config, every key of that config.
"""

import ast
import shutil
import textwrap

from aigc_jax.core import config as configs
from aigc_jax.utils.python_files import SHARE
from aigc_jax.utils.terminal import print_text

FOLDERS = ("configs", "experiments")  # --config and --experiment take the names of these


def add_arguments(parser):
    """Add the config whose keys are listed instead of the files."""
    parser.add_argument("--config", metavar="FILE", help="list the keys of this config")


def run(args, overrides) -> int:
    """Print the shipped configs and experiments, or every key of one config; return the
    exit code 0.
    """
    if args.config:
        config = configs.override(configs.load(args.config), overrides)
        for key, value in configs.leaves(config).items():
            print_text(f"--config.{key}={value}")
        return 0
    configs_, found = (sorted((SHARE / folder).glob("*.py")) for folder in FOLDERS)
    sections = {
        "Configs, for --config=NAME": configs_,
        "Experiments, for --experiment=NAME": [path for path in found if is_experiment(path)],
        "Scripts, python experiments/NAME.py --help": [
            path for path in found if not is_experiment(path)
        ],
    }
    longest = max((len(path.stem) for paths in sections.values() for path in paths), default=0)
    width = shutil.get_terminal_size().columns
    for i, (title, paths) in enumerate(sections.items()):
        print_text(f"{title}:\n" if i == 0 else f"\n{title}:\n")
        for path in paths:
            print_text(entry(path.stem, summary_of(path), longest + 4, width))
    return 0


def is_experiment(path) -> bool:
    """Does it name a CONFIG, as `sweeps.experiment` asks? The file is not imported."""
    return any(
        getattr(target, "id", None) == "CONFIG"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    )


def summary_of(path) -> str:
    """The first paragraph of a Python file's docstring; the file is not imported."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def entry(name: str, text: str, indent: int, width: int) -> str:
    """A name and, beside it, what it is, in lines of at most `width` characters where
    that leaves room for 20.
    """
    return (
        textwrap.fill(
            text,
            max(width, indent + 20),
            initial_indent=f"  {name:{indent - 2}}",
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        or f"  {name}"
    )
