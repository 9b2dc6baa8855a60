"""Experiment files: one question each, as trials and as a figure of their rows.

    EXPERIMENT = Experiment(
        config="configs/vae_mnist.py",
        overrides={"steps": "5 epochs"},
        sweep=lambda: product(values("hp.beta", 0.5, 1, 2), seeds(3)),
        metric="test/neg_elbo",
    )

The trials come from one of three fields: `sweep` (grids of overrides), `search`
(overrides that are suggested one after another), or `run` (a function that trains what
a sweep cannot express).
"""

import ast
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.core.durations import parse_duration
from aigc_jax.sweeps.grid import MOST_TRIALS
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.utils.errors import UserError, check_type, format_suggestion, mark_argument, require
from aigc_jax.utils.python_files import (
    convert_user_code_errors,
    find_python_file,
    import_python_file,
)

MODES = ("min", "max")


class FieldError(UserError):
    """An invalid field, in a message that does not name the experiment yet."""


def is_int(value: object) -> bool:
    """Return whether a value is an integer and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether a value is an integer or a float."""
    return is_int(value) or isinstance(value, float)


def is_positive_pair(value: object, number_type: Any = (int, float)) -> bool:  # at most 1,000
    """Return whether a value is a pair of positive numbers, at most 1,000."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(
            isinstance(v, number_type) and not isinstance(v, bool) and 0 < v <= 1000 for v in value
        )
    )


def is_trial_count(value: object) -> bool:  # 1 to MOST_TRIALS
    """Return whether a value is a number of trials."""
    return isinstance(value, int) and is_int(value) and 0 < value <= MOST_TRIALS


def is_valid_split_metric(value: object) -> bool:
    """Return whether a value names a metric of the valid split."""
    return isinstance(value, str) and value.startswith("valid/")


class Fields:
    """Base class of dataclasses whose fields are checked, with errors for users."""

    # field -> (predicate, allowed values in words); a default of None is allowed, too
    CHECKS: Mapping[str, tuple[Callable, str]] = {}

    def __new__(cls, **values: Any) -> "Fields":
        """Refuse unknown fields, with the nearest spelling."""
        known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in values:
            if name not in known:
                raise FieldError(
                    f"{cls.__name__} has no field {name!r}{format_suggestion(name, known)}"
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, (is_right, words) = (
                getattr(self, field.name),
                self.CHECKS.get(field.name, (lambda value: True, "")),
            )
            if not is_right(value) and not (value is None and field.default is None):
                name = f"{type(self).__name__}.{field.name}"
                raise FieldError(f"{name} = {value!r} must be {words}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Fields):
    """A search for hyper-parameters (`sweeps.search`).

    Attributes:
      draw: (suggest) -> the overrides of one trial.
      objective: the metric of the valid split to optimize, such as "valid/loss".
      mode: "min" or "max".
      batch: trials that are suggested at a time, which train as groups.
      trials: how many trials the search has.
      name: of the experiment; with config.seed it seeds the suggestions.
    """

    draw: Callable
    objective: str
    mode: str = "min"
    batch: int = 8
    trials: int = 64
    name: str = "search"

    CHECKS = dict(
        draw=(callable, "a function of suggest"),
        objective=(is_valid_split_metric, "a metric of the valid split such as 'valid/loss'"),
        mode=(lambda v: v in MODES, "'min' or 'max'"),
        batch=(is_trial_count, f"a number of trials, 1 to {MOST_TRIALS:,}"),
        trials=(is_trial_count, f"a number of trials, 1 to {MOST_TRIALS:,}"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halving(Fields):
    """Successive halving (Jamieson & Talwalkar 2016): at every rung the best 1 / factor
    of the trials by the metric continue.

    Attributes:
      metric: of the valid split, such as "valid/loss".
      rungs: durations such as ("1 epoch", "4 epochs"), each longer than the one before.
      factor: at least 2.
      mode: "min" or "max".
    """

    metric: str
    rungs: Sequence[str | int]
    factor: int = 2
    mode: str = "min"

    CHECKS = dict(
        metric=(is_valid_split_metric, "a metric of the valid split such as 'valid/loss'"),
        factor=(lambda v: is_int(v) and v > 1, "an integer of at least 2"),
        mode=(lambda v: v in MODES, "'min' or 'max'"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rungs(self.rungs)

    def to_json(self) -> dict[str, Any]:
        """Return the halving as group.json stores it."""
        return dataclasses.asdict(self) | dict(rungs=[str(rung) for rung in self.rungs])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim(Fields):
    """A number of the rows beside a published one, or beside a baseline
    (`sweeps.claims`).

    Attributes:
      what: the number and its unit, such as "test negative ELBO, nats".
      source: who published it, with table or figure; of a baseline, what it is.
      published: the number, or a function of the rows that returns that of a baseline.
      is_baseline: whether the number is that of a baseline or a bound of our own.
      values: (rows) -> the number of each seed; their mean is compared.
      tolerance: the largest difference that counts as reproduced.
      better: "lower" or "higher" if every number beyond the published one on that side
        is reproduced, too; "" if not.
      setting: how the setting differs from the published one; "" if it does not.
      digits: decimal places that are shown.
    """

    what: str
    source: str
    published: float | Callable[[list[dict]], float]
    values: Callable[[list[dict]], Iterable[float]]
    tolerance: float
    is_baseline: bool = False
    better: str = ""
    setting: str = ""
    digits: int = 2

    CHECKS = dict(
        published=(lambda v: callable(v) or is_number(v), "a number or a function of rows"),
        values=(callable, "a function of rows"),
        tolerance=(lambda v: is_number(v) and v >= 0, "a number of at least 0"),
        better=(lambda v: v in ("", "lower", "higher"), "'lower', 'higher' or ''"),
        digits=(lambda v: is_int(v) and 0 <= v <= 9, "a number of digits, 0 to 9"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(Fields):
    """One question: what is trained, and how its rows become a table and a figure.

    Attributes:
      config: the base config: a path relative to the directory above the experiment's,
        or the name of a shipped config.
      overrides: keys of all trials.
      sweep: () -> an iterable of overrides, one dict per trial (`sweeps.grid`).
      search: instead of `sweep`.
      halving: successive halving of the trials of `sweep`.
      run: instead of `sweep`: (work directory) -> rows, or with `parts` (part, work
        directory) -> the rows of that part. Rows are dicts.
      parts: names of the parts of `run`, which may be trained separately.
      column: the column of the rows that holds the part.
      table: (rows) -> Markdown; default: `sweeps.tables.format_summary_table`.
      figure: (rows, axes) -> None; default: the metric over steps.
      caption: a line below the own table and figure, which names their error bars and
        the number of trials.
      claims: numbers of the rows beside published ones.
      metric: that the default table and figure show, such as "test/neg_elbo".
      panels: rows and columns of the figure, whose axes `figure` gets as an array.
      size: width and height of the figure, in inches.
      file: the file that defines the experiment; set by `load`.
    """

    config: str | Path | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sweep: Callable[[], Iterable[dict]] | None = None
    search: Search | None = None
    halving: Halving | None = None
    run: Callable[..., Iterable[dict]] | None = None
    parts: Sequence[str] = ()
    column: str = ""
    table: Callable[[list[dict]], str] | None = None
    figure: Callable[[list[dict], Any], None] | None = None
    caption: str = ""
    claims: Sequence[Claim] = ()
    metric: str = ""
    panels: tuple[int, int] = (1, 1)
    size: tuple[float, float] = (6, 4)
    file: Path | None = None

    CHECKS = dict(
        config=(lambda v: isinstance(v, (str, Path)), "a config such as 'configs/vae_digits.py'"),
        overrides=(lambda v: isinstance(v, Mapping), "a dict such as {'steps': '5 epochs'}"),
        sweep=(callable, "a function without parameters"),
        search=(lambda v: isinstance(v, Search), "a Search"),
        halving=(lambda v: isinstance(v, Halving), "a Halving"),
        run=(callable, "a function of a work directory"),
        table=(callable, "a function of rows"),
        figure=(callable, "a function of rows and axes"),
        claims=(
            lambda v: isinstance(v, (tuple, list)) and all(isinstance(c, Claim) for c in v),
            "a tuple of Claims",
        ),
        caption=(lambda v: isinstance(v, str), "a text"),
        metric=(lambda v: isinstance(v, str), "a metric such as 'test/loss'"),
        panels=(lambda v: is_positive_pair(v, int), "rows and columns, such as (1, 2)"),
        size=(is_positive_pair, "inches, such as (9, 4)"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        sources = [name for name in ("sweep", "search", "run") if getattr(self, name) is not None]
        if len(sources) != 1:
            raise FieldError(
                "Experiment needs exactly one of the fields sweep, search and run, but has "
                f"{' and '.join(sources) or 'none'}"
            )
        if self.run is None and self.config is None:
            raise FieldError("Experiment.config is missing: a config such as 'vae_digits'")
        if self.halving is not None and self.sweep is None:
            raise FieldError("Experiment.halving needs Experiment.sweep")
        if bool(self.parts) != bool(self.column):
            raise FieldError("Experiment.parts and Experiment.column must be set together")

    @property
    def results_dir(self) -> Path:
        """The directory of the committed rows, table and figure."""
        assert self.file is not None
        return self.file.parent / "results" / self.file.stem


def load(path: str | Path) -> Experiment:  # the EXPERIMENT of a file
    """Return the EXPERIMENT of a file, which `find_python_file` locates. Raises a
    UserError where the file has none, or one with an invalid field.
    """
    check_type("experiment", path, (str, Path), "a name or a path")
    file = find_python_file(path, "experiment")
    try:
        experiment = getattr(import_python_file(file, "experiment"), "EXPERIMENT", None)
    except FieldError as e:
        raise UserError(f"{mark_argument('experiment')}={path}: {e.args[0]}") from None
    if not isinstance(experiment, Experiment):
        raise UserError(
            f"{mark_argument('experiment')}={path} has no EXPERIMENT = Experiment(config=..., "
            "sweep=...), of aigc_jax.sweeps.experiment"
        )
    search = experiment.search and dataclasses.replace(experiment.search, name=file.stem)
    return dataclasses.replace(experiment, file=file, search=search)


def read_question(file: Path) -> str:  # "" without a docstring
    """Return the docstring of a Python file, without running it."""
    try:
        return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (OSError, ValueError, SyntaxError):
        return ""


def find_base_config(experiment: Experiment) -> Path:
    """Return the file of the config of an experiment."""
    assert experiment.file is not None and experiment.config is not None
    beside = experiment.file.resolve().parent.parent / experiment.config
    return beside if beside.is_file() else find_python_file(experiment.config, "config")


def load_base_config(experiment: Experiment) -> ConfigDict:  # with its overrides
    """Return the config of an experiment, with its overrides."""
    loaded = config_files.load(find_base_config(experiment))
    return configs.override(loaded, dict(experiment.overrides))


def list_trial_overrides(experiment: Experiment) -> list[dict]:  # [] for a search
    """Return the overrides of an experiment's trials; [] for a search, which suggests
    them later.
    """
    if experiment.sweep is None:
        return []
    path = experiment.file or "experiment"
    with convert_user_code_errors(path, "experiment"):
        overrides = experiment.sweep()
    require(
        isinstance(overrides, Iterable) and not isinstance(overrides, (str, dict)),
        f"{mark_argument('experiment')}={path}: sweep() returned {overrides!r} instead of "
        "overrides such as {'hp.lr': 1e-3, 'seed': 0}",
    )
    with convert_user_code_errors(path, "experiment"):
        overrides = list(itertools.islice(overrides, MOST_TRIALS + 1))
    require(
        len(overrides) <= MOST_TRIALS,
        f"{mark_argument('experiment')}={path}: sweep() yields more than {MOST_TRIALS:,} trials",
    )
    return overrides


def check_rungs(rungs: Any) -> None:  # increasing durations
    """Raise a FieldError unless the rungs are durations, each longer than the previous
    one if their units are equal.
    """
    wrong = FieldError(
        f"Halving.rungs = {rungs!r} must be durations such as ('1 epoch', '4 epochs'), "
        "each longer than the one before"
    )
    if not (
        isinstance(rungs, (tuple, list))
        and rungs
        and all(isinstance(r, str) or is_int(r) for r in rungs)
    ):
        raise wrong
    parsed = [parse_duration(rung, "Halving.rungs") for rung in rungs]
    if not all(number > 0 for number, _ in parsed):
        raise wrong
    for (before, unit), (after, other) in itertools.pairwise(parsed):
        if unit.rstrip("s") == other.rstrip("s") and before >= after:
            raise wrong
