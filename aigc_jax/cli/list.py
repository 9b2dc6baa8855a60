"""List the configs and experiments, with what each is.

With --config, every key of that config.
"""

import ast
import shutil
import textwrap

from aigc_jax.core import config as configs
from aigc_jax.utils.python_files import IS_CHECKOUT, SHARE
from aigc_jax.utils.terminal import print_text


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
    folder = "experiments" if IS_CHECKOUT else SHARE / "experiments"
    sections: dict[str, dict[str, ast.Module]] = {
        "Configs, for --config=NAME": sources("configs"),
        "Experiments, for --experiment=NAME": {},
        f"Scripts, python {folder}/NAME.py --help": {},
    }
    _, experiments, scripts = sections.values()
    for name, source in sources("experiments").items():
        (experiments if is_experiment(source) else scripts)[name] = source
    longest = max((len(name) for found in sections.values() for name in found), default=0)
    width = shutil.get_terminal_size().columns
    for i, (title, found) in enumerate(sections.items()):
        print_text(f"{title}:\n" if i == 0 else f"\n{title}:\n")
        for name, source in found.items():
            print_text(entry(name, summary_of(source), longest + 4, width))
    return 0


def sources(folder: str) -> dict[str, ast.Module]:
    """{name: its source} of the shipped files of a folder; none is imported."""
    paths = sorted((SHARE / folder).glob("*.py"))
    return {path.stem: ast.parse(path.read_text()) for path in paths}


def is_experiment(source: ast.Module) -> bool:
    """Return whether it names a CONFIG, as `sweeps.experiment` asks."""
    return any(
        getattr(target, "id", None) == "CONFIG"
        for node in source.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    )


def summary_of(source: ast.Module) -> str:
    """The first paragraph of its docstring, on one line."""
    return " ".join((ast.get_docstring(source) or "").split("\n\n")[0].split())


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
