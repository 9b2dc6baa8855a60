"""How table and figure show results: statistic, error bar, baseline, style; which
values are better; and text that no viewer interprets.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aigc_jax.sweeps import grid
from aigc_jax.sweeps.statistics import INTERVALS, STATISTICS
from aigc_jax.sweeps.styles import STYLES
from aigc_jax.utils.errors import choose, format_suggestion, join_names, mark_argument, require
from aigc_jax.utils.terminal import escape_controls

MOST_CHARACTERS = 80  # of a value in a table or a figure

# First words of metrics that are better when smaller, or larger. Of others, such as
# the losses of a GAN's networks, none is called the best.
LESS = (
    "neg_elbo",
    "neg_iwae",
    "nll",
    "perplexity",
    "bits_per",
    "frechet",
    "kid",
    "reverse_kl",
    "stacked_kl",
    "loss",
)
MORE = (
    "accuracy",
    "class_accuracy",
    "classifier_score",
    "precision",
    "recall",
    "density",
    "coverage",
    "stacked_modes",
    "modes",
    "high_quality",
    "parzen",
    "bleu",
    "rouge",
)
NO_SCORE = ("error", "sigma", "signature")  # last words of what describes a metric


class Presentation(NamedTuple):
    """How results are shown.

    Attributes:
      statistic: of the trials that differ in the seed: a key of STATISTICS.
      interval: what an error bar shows, a key of INTERVALS; "": the standard error of a
        mean, the bootstrap's interval of another statistic.
      baseline: the arm that others are compared with, as `find_arm` reads it; "": none.
      style: a key of STYLES.
    """

    statistic: str = "mean"
    interval: str = ""
    baseline: str = ""
    style: str = "plain"

    @property
    def error_bar(self) -> str:
        """The interval that is shown, a key of INTERVALS."""
        return self.interval or ("se" if self.statistic == "mean" else "bootstrap")

    def change(self, statistic: str = "", interval: str = "", baseline: str = "") -> "Presentation":
        """Return the presentation with other values, where they are not "". Another
        statistic has its own default error bar.
        """
        interval = interval or ("" if statistic else self.interval)
        baseline = baseline or self.baseline
        return make_presentation(statistic or self.statistic, interval, baseline, self.style)

    def describe(self) -> tuple[str, str]:
        """Return the words for the statistic and for the error bar."""
        return STATISTICS[self.statistic], INTERVALS[self.error_bar]


PLAIN = Presentation()


def make_presentation(
    statistic: str = "mean", interval: str = "", baseline: str = "", style: str = "plain"
) -> Presentation:
    """Return a presentation. Raise a UserError for an unknown name, or an error bar
    that the statistic does not have.
    """
    choose(STATISTICS, statistic, mark_argument("statistic"))
    choose(STYLES, style, mark_argument("style"))
    if interval:
        choose(INTERVALS, interval, mark_argument("interval"))
    require(
        statistic == "mean" or interval in ("", "bootstrap"),
        f"{mark_argument('interval')}={interval} is an error bar of the mean: "
        f"{mark_argument('statistic')}={statistic} goes with {mark_argument('interval')}=bootstrap",
    )
    return Presentation(statistic, interval, baseline, style)


def find_direction(name: str, best: str = "", mode: str = "min") -> str:
    """Return "min" if less of a metric is better, "max" if more, "" if unknown.

    Args:
      name: the metric without its split, such as "neg_elbo".
      best: config.best_metric, such as "valid/neg_elbo".
      mode: config.best_mode, its direction.
    """
    if best and name == best.partition("/")[2]:
        return mode
    if name.rsplit("_", 1)[-1] in NO_SCORE:
        return ""
    begins = lambda words: any(name == word or name.startswith(f"{word}_") for word in words)
    return "min" if begins(LESS) else "max" if begins(MORE) else ""


def find_arm(text: str, arms: Iterable[tuple], keys: Sequence[str]) -> tuple:
    """Return the only arm that a text names: KEY=VALUE,..., with the last part of a key
    or the full key, or only VALUE. Keys may be left out where one arm remains.

    Args:
      text: such as "lr=0.001", "hp.lr=0.001,beta=1" or "0.001".
      arms: values of the keys.
      keys: the varied keys.

    Raises:
      UserError: no arm or several arms match.
    """
    arms = list(arms)
    names = [name_arm(arm, keys) for arm in arms]
    parts = [
        _split_part(part) for part in grid.split_values(text, f"{mark_argument('baseline')}={text}")
    ]
    found = [arm for arm in arms if all(_matches(part, arm, keys) for part in parts)]
    compact = [name.replace(" = ", "=") for name in names]
    require(
        found,
        f"{mark_argument('baseline')}={text} is no arm: "
        f"{join_names(compact, 8)}{format_suggestion(text.replace(' ', ''), compact)}",
    )
    require(
        len(found) == 1,
        f"{mark_argument('baseline')}={text} names {len(found)} arms: set more keys, as in "
        f"{compact[arms.index(found[0])].replace(', ', ',')}",
    )
    return found[0]


def check_arm_keys(text: str, keys: Sequence[str]) -> None:
    """Raise a UserError if a text that names an arm, as `find_arm` reads it, has a key
    that is not varied.
    """
    short = [key.rsplit(".", 1)[-1] for key in keys]
    for part in grid.split_values(text, f"{mark_argument('baseline')}={text}"):
        key = _split_part(part)[0]
        require(
            key in ("", *keys, *short),
            f"{mark_argument('baseline')}={text} names {key}, which is not varied: "
            f"{join_names(short)}{format_suggestion(key, short)}",
        )


def _split_part(text: str) -> tuple[str, str]:  # (key or "", value)
    """Split KEY=VALUE."""
    key, equals, value = text.partition("=")
    return (key.strip(), value.strip()) if equals else ("", text.strip())


def _matches(part: tuple[str, str], arm: tuple, keys: Sequence[str]) -> bool:
    """Return whether one of an arm's keys has the value of a part."""
    key, text = part
    return any(
        key in ("", name, name.rsplit(".", 1)[-1]) and _is_same_value(text, value)
        for name, value in zip(keys, arm, strict=True)
    )


def _is_same_value(text: str, value: object) -> bool:
    """Return whether a text is a value's, or the same number."""
    if text.replace(" ", "") == str("" if value is None else value).replace(" ", ""):
        return True
    try:
        return isinstance(value, (int, float)) and float(text) == value
    except ValueError:
        return False


def name_arm(arm: tuple, keys: Sequence[str]) -> str:  # "lr = 0.001, beta = 1"
    """Return the name of an arm in legends and notes; "" without varied keys."""
    pairs = zip(shorten_keys(keys), map(format_cell, arm), strict=True)
    return ", ".join(f"{key} = {value}" for key, value in pairs)


def shorten_keys(keys: Sequence[str]) -> list[str]:
    """Return the last part of each config key, or the full key if the part is not
    unique.
    """
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)]


def format_cell(value: object) -> str:  # 6 significant digits
    """Format a value as a table cell: floats with 6 significant digits, None as '', the
    middle of a long text left out.
    """
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return shorten_middle(text, MOST_CHARACTERS)


def format_value(value: Any) -> str:  # of --config.KEY=VALUE
    """Return a value as the command line reads it: lists of JSON are tuples, and
    names need no quotes: modes,frechet_pixels.
    """
    if isinstance(value, (list, tuple)) and value and all(map(is_plain_name, value)):
        return ",".join(value)
    if isinstance(value, (list, tuple)):
        return repr(_to_tuple(value))
    return str(value)


def is_plain_name(value: Any) -> bool:
    """Return whether a value is a text that the command line reads as a name."""
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*", value)
    return bool(is_word) and value.lower() not in ("true", "false")


def _to_tuple(value: Any) -> Any:
    return tuple(map(_to_tuple, value)) if isinstance(value, (list, tuple)) else value


def shorten_middle(text: str, most: int) -> str:  # beginning...end
    """Return a text without its middle, if it has more than `most` characters."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


def escape_markdown(text: str) -> str:
    """Return a line of text that Markdown shows as it is: without line breaks, control
    characters, cells, tags, links and images of its own.
    """
    text = escape_controls(text).replace("\n", "\\n").replace("\t", "\\t")
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("|", "&#124;").replace("`", "&#96;")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("](", "]&#40;")


def escape_mathtext(text: str) -> str:
    """Return a text that matplotlib draws as it is: without control characters, line
    breaks and formulas between dollars.
    """
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t").replace("$", r"\$")
