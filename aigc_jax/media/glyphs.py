"""Characters that the fonts of sheets and figures lack, such as Chinese ones: they are
escaped as in Python, "\\u732b", where a font would draw empty boxes.

The font is DejaVu Sans, which comes with matplotlib, imported at the first character
that is not ASCII.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def find_font_file() -> str:
    """Return the path of DejaVu Sans, a font of the Latin, Greek, Cyrillic and some
    other alphabets.
    """
    from matplotlib import font_manager

    return font_manager.findfont("DejaVu Sans")


@functools.cache
def _load_font() -> Any:
    from matplotlib.ft2font import FT2Font

    return FT2Font(find_font_file())


@functools.cache
def _load_pillow_font(is_ascii: bool, size: int) -> Any:
    from PIL import ImageFont

    if is_ascii:
        return ImageFont.load_default(size)
    return ImageFont.truetype(find_font_file(), size - 1)


def choose_font(text: str, size: int) -> Any:  # size in pixels
    """Return the font of Pillow that a text is set in: its own, which has little but
    ASCII and takes a millisecond to load, or DejaVu Sans.
    """
    return _load_pillow_font(text.isascii(), size)


def escape_missing(text: str) -> str:
    """Return a text with the characters that the font lacks escaped."""
    if text.isascii():
        return text
    font = _load_font()
    escape = lambda c: c.encode("unicode_escape").decode()
    return "".join(c if c == "\n" or font.get_char_index(ord(c)) else escape(c) for c in text)


def escape_figure(figure: "Figure") -> None:
    """Escape the characters that the font lacks in the texts of a figure."""
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(escape_missing(text.get_text()))
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    for formatter in (axis.get_major_formatter() for axis in axes):
        if isinstance(formatter, FuncFormatter):  # that of the names of ticks
            formatter.func = functools.partial(_format_escaped, formatter.func)


def _format_escaped(function: Callable, value: float, place: int | None = None) -> str:
    return escape_missing(function(value, place))
