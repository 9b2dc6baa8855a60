"""The command line: the parser, one module per verb, and user-facing errors."""

import argparse
import errno
import os
import re
import signal
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from aigc_jax.cli import (
    app,
    compare,
    completion,
    data,
    evaluate,
    export,
    figure,
    group,
    plan,
    report,
    sample,
    status,
    sweep,
    train,
)
from aigc_jax.cli import list as list_
from aigc_jax.cli.rich_output import draw_by_rich
from aigc_jax.sweeps.engines.base import EXIT_REFUSED
from aigc_jax.utils.errors import (
    PROGRAM,
    UserError,
    format_key_suggestion,
    format_suggestion,
    mark_argument,
    require,
    short_repr,
)
from aigc_jax.utils.files import require_local_path
from aigc_jax.utils.memory import OutOfMemoryError
from aigc_jax.utils.python_files import find_python_file
from aigc_jax.utils.subprocesses import program_name
from aigc_jax.utils.terminal import print_warning

# verb -> module with add_arguments(parser) and run(args, overrides) -> exit code. The
# list of verbs in --help shows the first paragraph of the module's docstring, the help
# of the verb the complete docstring.
VERBS = {
    "train": train,
    "evaluate": evaluate,
    "sample": sample,
    "sweep": sweep,
    "status": status,
    "figure": figure,
    "compare": compare,
    "report": report,
    "export": export,
    "plan": plan,
    "app": app,
    "data": data,
    "list": list_,
    "completion": completion,
}
INTERNAL = {"group": group}  # verbs that other verbs start
# Verbs that compile programs; `plan` selects the platform first.
COMPILING = ("train", "evaluate", "sample", "export", "app", "group")
OVERRIDABLE = ("train", "list", "sweep", "plan")  # verbs that take --config.KEY=VALUE
# Arguments that are no paths, or of the form of a URL
NOT_PATHS = ("prompt", "address", "claim", "image", "slurm", "grid")

DESCRIPTION = """\
Train, evaluate, sample, compare and plan generative models from config files;
many trials as one program.

  {program} train    --config=gan_digits --workdir=runs/gan --config.hp.lr_g=1e-4
  {program} train    --workdir=runs/gan
  {program} evaluate --workdir=runs/gan
  {program} sample   --workdir=runs/gan --num=10
  {program} sample   --workdir=runs/gpt --prompt="ROMEO:" --temperature=0.8 --tokens=200
  {program} sweep    --config=vae_digits --grid hp.lr=1e-4,1e-3 --seeds=8 --workdir=runs/rates
  {program} sweep    --experiment=vae_beta --workdir=runs/beta
  {program} status   runs/beta --watch
  {program} figure   --experiment=vae_beta
  {program} compare  runs/gan runs/rates/trials/*
  {program} report   runs/rates
  {program} plan     --config=gpt2_124m --devices=8 --config.run.fsdp=True
  {program} app      runs/gan
  {program} data     --name=mnist --download
  {program} list

The second line resumes a run where it was cut off. --config takes the name of a
shipped config or the path of a file, --experiment likewise. Every key of a config can
be set as --config.KEY=VALUE; `list --config=NAME` shows them.
"""


class HelpFormatter(argparse.HelpFormatter):
    """A formatter of paragraphs and examples at the terminal's width.

    Words are never broken, so that flags and paths can be copied. An example that is
    too long continues on the next line.
    """

    def _split_lines(self, text: str, width: int):
        return wrap_text(text, width).splitlines()

    def _format_usage(self, usage, actions, groups, prefix):
        width, self._width = self._width, sys.maxsize  # on one line
        line = super()._format_usage(usage, actions, groups, prefix).strip()
        self._width = width
        held = re.sub(r"(--\w+) (?=[^-\[\s])", "\\1\0", line)  # flags stay with their values
        return wrap_text(held, width, subsequent_indent="    ").replace("\0", " ") + "\n\n"

    def _fill_text(self, text: str, width: int, indent):
        blocks = re.split(r"\n\s*\n", text.strip("\n"))
        return "\n\n".join(
            "\n".join(wrap_command(line, width) for line in block.splitlines())
            if block.startswith(" ")
            else wrap_text(block, width)
            for block in blocks
        )


def wrap_text(text: str, width: int, **indents: Any) -> str:
    """Wrap a text into lines of at most `width` characters without breaking words."""
    words = " ".join(text.split())
    return textwrap.fill(words, width, break_long_words=False, break_on_hyphens=False, **indents)


def wrap_command(command: str, width: int) -> str:
    """Return a command unchanged if it fits the width, else split into lines that end
    in a backslash, as a shell reads them.
    """
    if len(command) <= width:
        return command
    lines = wrap_text(command, width - 2, initial_indent="  ", subsequent_indent="      ")
    return lines.replace("\n", " \\\n")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one-line messages with exit code 1."""

    def error(self, message: str) -> NoReturn:
        """Raise a UserError instead of printing the usage and exiting with code 2."""
        raise UserError(f"{message} ({self.prog} --help)")


def make_parser() -> tuple[Parser, dict[str, Parser]]:  # top, {verb: parser}
    """Return the top-level parser and {verb: parser}; internal verbs are parsed, but
    not listed.
    """
    style: dict[str, Any] = dict(formatter_class=HelpFormatter, allow_abbrev=False)
    top = Parser(
        prog=program_name(), description=DESCRIPTION.format(program=program_name()), **style
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB")
    for name, module in (VERBS | INTERNAL).items():
        summary = " ".join((module.__doc__ or "").split("\n\n")[0].split())
        shown: dict[str, Any] = {} if name in INTERNAL else dict(help=summary)
        module.add_arguments(verbs.add_parser(name, description=module.__doc__, **shown, **style))
    return top, verbs.choices


def check_flags(verb: str, words: list[str], parser: Parser) -> None:
    """Raise a UserError for the first flag that is not a flag of the verb.

    Args:
      verb: its name, for the error message.
      words: the words after the verb; those after "--" are no flags.
      parser: the parser of the verb.
    """
    known = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    before = words[: words.index("--")] if "--" in words else words
    for flag in (word.split("=")[0] for word in before if word.startswith("--")):
        if flag not in known:
            close = (
                suggest_override(verb, flag, least_similarity=1.0)
                or suggest_flag(flag, known)
                or suggest_override(verb, flag)
            )
            raise UserError(f"{verb} takes no {flag}; it takes {', '.join(known)}{close}")


def suggest_flag(flag: str, known: Sequence[str]) -> str:
    """Return "; did you mean --seeds?" for a misspelt flag, or ""."""
    names = [name.removeprefix("--") for name in known]
    near = format_suggestion(flag.removeprefix("--"), names, least_similarity=0.6)
    return re.sub("'(.*)'", r"--\1", near)


def refuse_urls(args: argparse.Namespace) -> None:
    """Raise a UserError for the first argument that is a URL in place of a path."""
    for name, value in vars(args).items():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and name not in NOT_PATHS:
                require_local_path(word, f"{mark_argument(name)}={word}")


def suggest_override(verb: str, word: str, least_similarity: float = 0.5) -> str:
    """Return "; did you mean --config.batch_size?" for a word that was meant to set a
    config key, such as --batch_size or batch_size=32, or "--grid batch_size=32,64" for
    several values; "" where no key is near, or the verb takes none.

    Args:
      verb: the verb.
      word: the word.
      least_similarity: of the key's spelling; 1: only keys and synonyms themselves.
    """
    from aigc_jax.training import config as configs

    if verb not in OVERRIDABLE:
        return ""
    name, equals, value = word.lstrip("-").partition("=")
    near = format_key_suggestion(name, configs.list_all_keys(), (), least_similarity)
    flag = "--grid " if verb == "sweep" and "," in value else "--config."
    return re.sub("'(.*)'", rf"{flag}\1{equals}", near).replace("=?", f"={value}?")


def find_flag(argument_name: str) -> str:  # "--class" of "label"
    """Return the flag of an argument that an error message names: "--what"."""
    if argument_name == PROGRAM:
        return program_name()
    parser = Parser(add_help=False, conflict_handler="resolve")
    for module in (VERBS | INTERNAL).values():
        module.add_arguments(parser)
    flags = {action.dest: flag for flag, action in parser._option_string_actions.items()}
    return flags.get(argument_name, argument_name)


def split_overrides(
    argv: Sequence[str],
) -> tuple[dict[str, str], list[str]]:  # {KEY: VALUE}, remaining words
    """Return {KEY: VALUE} of the words --config.KEY=VALUE, and the remaining words."""
    overrides: dict[str, Any] = {}
    rest = []
    words = iter(argv)
    for word in words:
        if not word.startswith("--config."):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix("--config.").partition("=")
        overrides[key] = value if equals else next(words, None)
        require(overrides[key] is not None, f"--config.{key} needs a value: --config.{key}=VALUE")
    return overrides, rest


def main(argv: Sequence[str]) -> int:  # the exit code
    """Run a command line and return its exit code."""
    try:
        with draw_by_rich():
            return _run(*split_overrides(argv))
    except UserError as e:
        print_warning(f"error: {e.spell_arguments(find_flag)}")
        # Distinguishes a refusal from a crash, which half the chunk may avoid.
        is_refusal = argv[:1] == ["group"] and not isinstance(e, OutOfMemoryError)
        return EXIT_REFUSED if is_refusal else 1
    except OSError as e:  # a path with a component longer than the file system allows
        if e.errno != errno.ENAMETOOLONG:
            raise
        print_warning(f"error: {short_repr(str(e.filename), quote_strings=False)}: {e.strerror}")
        return 1


def _run(overrides: dict[str, str], words: list[str]) -> int:
    if words and not words[0].startswith("-") and words[0] not in VERBS | INTERNAL:
        raise UserError(
            f"{words[0]!r} is none of {', '.join(VERBS)}{format_suggestion(words[0], VERBS)}"
        )
    top, verbs = make_parser()
    if words and words[0] in verbs:  # before argparse reports a misspelt flag as missing
        check_flags(words[0], words[1:], verbs[words[0]])
    args, unknown = top.parse_known_args(words)
    if args.verb is None:
        top.print_help()
        return 1 if words else 0
    if unknown:
        shown = short_repr(" ".join(unknown), quote_strings=False)
        is_key = args.verb == "list" and "=" not in unknown[0]  # a second KEY
        close = "" if is_key else suggest_override(args.verb, unknown[0])
        raise UserError(f"{args.verb}: unexpected argument {shown}{close}")
    if overrides and args.verb not in OVERRIDABLE:
        key = next(iter(overrides))
        raise UserError(
            f"{args.verb} takes its config from the run; only train, sweep and plan accept "
            f"--config.{key}"
        )
    require(getattr(args, "workdir", None) != "", "--workdir= must name a directory")
    refuse_urls(args)
    for flag in ("config", "experiment"):  # a name becomes the path of its file
        if getattr(args, flag, None):
            setattr(args, flag, str(find_python_file(getattr(args, flag), flag)))
    if args.verb in COMPILING:
        from aigc_jax.core.compilation_cache import enable_compilation_cache

        enable_compilation_cache()
    return (VERBS | INTERNAL)[args.verb].run(args, overrides)


def command() -> None:  # the console script
    """Run the command line of this process and exit: the console entry point."""
    if completion.VARIABLE in os.environ:
        completion.complete(*make_parser())
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:  # where no verb handles it: not while a run trains
        print_warning("interrupted")
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # the reader closed the pipe: aigc list | head -3
        # Otherwise Python prints a second error when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
