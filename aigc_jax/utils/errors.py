"""The exception for user-facing errors, which are shown as a message without a
traceback, and helpers that compose such messages.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from aigc_jax.utils.synonyms import SYNONYMS

V = TypeVar("V")

# Delimits the name of an argument in an error message. No path, command-line word or
# environment variable can contain this character.
MARK = "\x00"
_MARKED = re.compile(f"{MARK}([A-Za-z_]+){MARK}")
PROGRAM = "aigc"  # the command, where an error message names a command line


def mark_argument(name: str) -> str:  # for `UserError.spell_arguments`
    """Return the marked name of an argument for an error message: Python callers read
    `what`, and the command line adds the dashes (`UserError.spell_arguments`).
    """
    return f"{MARK}{name}{MARK}"


def format_command(verb: str, **flags: object) -> str:
    """Return a command line for an error message, such as command("train",
    workdir="DIR", restart=True).

    Args:
      verb: a verb of the command line, such as "train".
      **flags: its flags, as in `format_flags`.
    """
    return " ".join([mark_argument(PROGRAM), verb, *format_flags(**flags)])


def format_flags(**arguments: object) -> list[str]:  # "--name=value" or "--name"
    """Return arguments as command-line flags. True is a flag without a value; False is
    omitted.
    """
    options = ((f"--{key}", value) for key, value in arguments.items() if value is not False)
    return [flag if value is True else f"{flag}={value}" for flag, value in options]


class UserError(Exception):
    """An error that the user can correct. The message names the config key or argument,
    the value and the allowed values; `mark_argument` marks argument names.
    """

    def __str__(self) -> str:
        return self.spell_arguments(lambda name: name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def spell_arguments(self, spell: Callable[[str], str]) -> str:  # the message
        """Return the message, with spell(name) for each argument name."""
        return _MARKED.sub(lambda found: spell(found[1]), super().__str__())


class FormatError(UserError):
    """A file of another format version, which is not damaged but cannot be used."""


def format_suggestion(
    name: str, allowed: Iterable[str], least_similarity: float = 0.5
) -> str:  # "; did you mean 'x'?" or ""
    """Return `; did you mean 'x'?` for the allowed name that `name` is a synonym of,
    or else for the allowed name with the nearest spelling; "" where none is near.

    Args:
      name: the unknown name.
      allowed: the names to suggest from.
      least_similarity: of a spelling, 0 to 1.
    """
    table: dict[str, str] = {}
    for entry in map(str, allowed):
        table.setdefault(_normalize(entry), entry)
    word = _normalize(name)
    candidates = [c for c in (word, *SYNONYMS.get(word, "").split()) if c in table]
    candidates += difflib.get_close_matches(word, table, 1, least_similarity)
    return f"; did you mean {table[candidates[0]]!r}?" if candidates else ""


def format_key_suggestion(
    name: str,
    allowed: Iterable[str],
    preferred: Iterable[str] = (),
    least_similarity: float = 0.5,
) -> str:  # "; did you mean 'x'?" or ""
    """Return `; did you mean 'x'?` for a config key whose last part is that of `name`
    or a synonym of it, or else as `format_suggestion` does.

    Args:
      name: the unknown key, such as "model.n_layer" or "n_layer".
      allowed: the keys to suggest from, such as "model.layers".
      preferred: keys to suggest first, if they are allowed.
      least_similarity: of another spelling, 0 to 1.
    """
    allowed = list(allowed)
    full = _normalize(name)
    last = full.rpartition(".")[2]
    choices = [[key for key in preferred if key in allowed], allowed]
    for keys in choices:
        for word in (last, *SYNONYMS.get(last, "").split()):
            same = [key for key in keys if key == word or key.endswith(f".{word}")]
            if same:
                return f"; did you mean {difflib.get_close_matches(full, same, 1, 0.0)[0]!r}?"
    near = (format_suggestion(name, keys, least_similarity) for keys in choices)
    return next(filter(None, near), "")


def _normalize(name: object) -> str:
    return str(name)[:200].lower().replace("-", "_")


def short_repr(value: object, quote_strings: bool = True, max_characters: int = 80) -> str:
    """Return the repr of a value as a short text for a message.

    Args:
      value: any value.
      quote_strings: whether a string is returned as its repr.
      max_characters: characters above which the text is shortened, by "...".
    """
    try:
        text = repr(value) if quote_strings or not isinstance(value, str) else value
    except ValueError:  # an integer of more digits than Python writes
        return f"a {type(value).__name__} of too many digits"
    return (
        text
        if len(text) <= max_characters
        else (f"{text[: max_characters // 2]}...{text[-max_characters // 4 :]}")
    )


def join_names(names: Iterable[str], max_names: int = 30) -> str:
    """Join the first `max_names` names by commas, and append the number of omitted
    names.
    """
    names = list(map(str, names))
    more = f" and {len(names) - max_names:,} more" if len(names) > max_names else ""
    return ", ".join(names[:max_names]) + more


def choose(table: Mapping[str, V], name: str, setting: str) -> V:  # table[name]
    """Return table[name].

    Args:
      table: {name: value}.
      name: the name that the user chose.
      setting: the config key, such as "config.loss", or the argument, such as "what",
        that holds the name; for the error message.

    Raises:
      UserError: `name` is not in the table; the message lists the names that are.
    """
    if name in table:
        return table[name]
    setting = mark_argument(setting) if setting.isidentifier() else setting
    raise UserError(
        f"{setting} = {short_repr(name)} is none of "
        f"{join_names(table, 60)}{format_suggestion(name, table)}"
    )


def require(condition: object, message: str) -> None:
    """Raise a UserError unless the condition holds.

    Args:
      condition: any object, by its truth value.
      message: the message; `mark_argument` marks names in it.
    """
    if not condition:
        raise UserError(message)


def check_type(
    argument_name: str, value: object, types: type | tuple[type, ...], expected: str
) -> None:
    """Raise a UserError unless an argument has one of the types.

    Args:
      argument_name: the argument's name.
      value: its value.
      types: the allowed type or types; a bool is an instance of `bool` only.
      expected: a description of the types, such as "a number of seeds".
    """
    types = types if isinstance(types, tuple) else (types,)
    is_valid = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    require(is_valid, f"{mark_argument(argument_name)}={short_repr(value)} must be {expected}")


def first_line(error: Exception, max_characters: int = 200) -> str:  # of its message
    """Return the first line of an exception's message, or its type if the message is
    empty.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:max_characters] if lines else type(error).__name__
