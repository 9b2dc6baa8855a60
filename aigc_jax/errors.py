"""The one exception that is shown to a user as a sentence instead of a traceback."""

import difflib
from collections.abc import Iterable, Mapping


class UserError(Exception):
    """Something that the user can mend. The text is one sentence that names the key, the value and what is allowed."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no spelling is near."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def choose(table: Mapping, name: str, key: str):
    """`table[name]`; a name that is not there raises a UserError that lists what is."""
    if name in table:
        return table[name]
    raise UserError(f"{key} = {name!r} is none of {', '.join(map(str, table))}{nearest(name, table)}")


def require(condition: bool, sentence: str):
    """Raise `UserError(sentence)` unless the condition holds."""
    if not condition:
        raise UserError(sentence)
