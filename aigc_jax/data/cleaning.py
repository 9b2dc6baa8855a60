"""Cleaning of texts: Unicode forms, scripts, control characters, stop words."""

import functools
import re
import unicodedata
from collections.abc import Callable

from ml_collections import ConfigDict

from aigc_jax.utils import files
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, choose

# The order of cleaning: script, normal form, case, control characters, stop words.


Cleaner = Callable[[str], str]


def make_simplifier() -> Callable[[str], str]:  # text -> simplified characters
    """Return a function that converts a text to simplified characters; raise a
    UserError where the package opencc is not installed.
    """
    try:
        from opencc import OpenCC
    except ImportError:
        raise UserError(
            "config.data.script = 'simplified' needs the package opencc: pip install opencc"
        ) from None
    return OpenCC("t2s").convert


same: Cleaner = lambda text: text
SCRIPTS: dict[str, Callable[[], Cleaner]] = {"as_is": lambda: same, "simplified": make_simplifier}
FORMS: dict[str, Cleaner] = {
    form: functools.partial(unicodedata.normalize, form) for form in ("NFC", "NFKC", "NFD", "NFKD")
}
CONTROL: dict[str, Cleaner] = {
    "keep": same,
    "drop": functools.partial(re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]").sub, ""),
}


def make_cleaner(config: ConfigDict, script: str) -> Callable[[str], str]:
    """Return text -> text, configured by the keys script, normalize, lower, control and
    stop_words. Stop words are normalized and lowercased like the text; a word is a run
    of letters, digits and underscores.

    Args:
      config: the `data` section of a config.
      script: replaces config.script.

    Raises:
      UserError: a key has an unknown value, the file of stop words cannot be read, or
        the package opencc is missing.
    """
    steps: list[Cleaner] = [
        choose(SCRIPTS, script, "config.data.script")(),
        choose(FORMS, config.normalize, "config.data.normalize") if config.normalize else same,
        str.lower if config.lower else same,
        choose(CONTROL, config.control, "config.data.control"),
    ]
    clean = lambda text: functools.reduce(lambda text, step: step(text), steps, text)
    if config.stop_words == "":
        return clean
    path = files.expand_user(config.stop_words)
    content = files.read_text(path, f"config.data.stop_words = {config.stop_words!r}")
    stop = {clean(word.strip()) for word in files.split_lines(content)}
    return lambda text: re.sub(
        r"\w+", lambda found: "" if found[0] in stop else found[0], clean(text)
    )


def describe_cleaning(config: ConfigDict) -> list:  # an object that JSON can represent
    """Return what determines the function of `make_cleaner`: the values of its keys,
    and the contents of the file of stop words.
    """
    words = file_sha256(files.expand_user(config.stop_words)) if config.stop_words else ""
    return [config.script, config.normalize, config.lower, config.control, words]
