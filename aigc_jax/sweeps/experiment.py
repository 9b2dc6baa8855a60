"""Experiment files: each defines the trials of one question and a figure of their rows.

CONFIG          the config: a path relative to the parent of the experiment's folder, or
                the name of a shipped config
OVERRIDES       optional: overrides of all trials
sweep()         yields overrides (aigc_jax.sweeps.grid)
search(suggest) instead of sweep(): returns the overrides of one trial, from suggested
                values (aigc_jax.sweeps.search); it requires OBJECTIVE = "valid/loss",
                and optionally reads MODE = "min" or "max", BATCH = 8 trials at a time
                and TRIALS = 64 in total
figure(rows, axes), table(rows)    optional: instead of the defaults in `tables`
PANELS          optional: rows and columns of the figure; figure() then receives an
                array of axes
SIZE            optional: the figure's width and height in inches
METRIC          optional: the metric of the default table and figure, such as
                "test/neg_elbo"
HALVING         optional: dict(metric="valid/loss", rungs=("1 epoch", "4 epochs"),
                factor=2)
"""

import ast
import difflib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.sweeps.grid import MOST_TRIALS
from aigc_jax.utils.errors import argument, check_type, nearest, require
from aigc_jax.utils.python_files import find_file, import_file, user_code

HALVING = ("metric", "rungs", "factor", "mode")
PREFIX = "experiment_"  # prefix of the modules' names


def load(path: str | Path) -> ModuleType:
    """Import an experiment file, which `find_file` locates, and return the module."""
    check_type("experiment", path, (str, Path), "a name or a path")
    path = find_file(path, "experiment")
    module = import_file(path, "experiment")
    check_fields(module, path)
    return module


def is_int(value: object) -> bool:
    """Return whether a value is an integer and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_pair(value: object, of: Any = (int, float)) -> bool:
    """Return whether a value is a pair of positive numbers, at most 1000."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(v, of) and not isinstance(v, bool) and 0 < v <= 1000 for v in value)
    )


# field -> (predicate of its value, description of the values it accepts)
FIELDS = {
    "CONFIG": (
        lambda v: isinstance(v, (str, Path)),
        "the path of a config file such as 'configs/vae_digits.py'",
    ),
    "OVERRIDES": (
        lambda v: isinstance(v, dict),
        "a dict of overrides such as {'steps': '5 epochs'}",
    ),
    "sweep": (callable, "a function without parameters"),
    "search": (callable, "a function of suggest"),
    "figure": (callable, "a function of rows and axes"),
    "table": (callable, "a function of rows"),
    "OBJECTIVE": (lambda v: isinstance(v, str), "a metric such as 'valid/loss'"),
    "METRIC": (lambda v: isinstance(v, str), "a metric such as 'test/loss'"),
    "MODE": (lambda v: isinstance(v, str), "'min' or 'max'"),
    "BATCH": (is_int, "a number of trials"),
    "TRIALS": (is_int, "a number of trials"),
    "PANELS": (lambda v: is_pair(v, int), "rows and columns, such as (1, 2)"),
    "SIZE": (is_pair, "inches, such as (9, 4)"),
    "HALVING": (lambda v: isinstance(v, dict), "a dict with metric, rungs, factor"),
}


def check_fields(module: ModuleType, path: str | Path) -> None:
    """Raise a UserError for a misspelt field, and for a field of a wrong type if the
    experiment is a sweep or a search.

    A misspelt field is a name that nothing in the file reads and that is close to a
    field which the file lacks.
    """
    source = ast.parse(Path(path).read_text())
    read = {
        node.id
        for node in ast.walk(source)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    names = [n for n in vars(module) if not n.startswith("_")]
    imported = {
        a.asname or a.name
        for node in ast.walk(source)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for a in node.names
    }
    missing = {field.lower(): field for field in FIELDS if field not in names}
    for name in names:
        near = difflib.get_close_matches(name.lower(), missing, n=1, cutoff=0.75)
        require(
            name in FIELDS or name in read or name in imported or not near,
            f"{argument('experiment')}={path}: {name} is no field of an "
            f"experiment, and nothing reads it; did you mean {missing[near[0]] if near else ''!r}?",
        )
    if "sweep" in names or "search" in names:
        for field, (is_right, words) in FIELDS.items():
            require(
                field not in names or is_right(getattr(module, field)),
                f"{argument('experiment')}={path}: {field} = {getattr(module, field, None)!r} "
                f"must be {words}",
            )


def base_config(module: ModuleType, path: str | Path) -> ConfigDict:
    """Return the config of an experiment, with its OVERRIDES."""
    require(
        hasattr(module, "CONFIG"),
        f"{argument('experiment')}={path} has no CONFIG, the path of a config file such as "
        "'configs/vae_digits.py'",
    )
    beside = find_file(path, "experiment").resolve().parent.parent / module.CONFIG
    config = beside if beside.is_file() else find_file(module.CONFIG, "config")
    return configs.override(configs.load(config), getattr(module, "OVERRIDES", {}))


def trial_overrides(module: ModuleType, path: str | Path) -> list[dict]:
    """Return the overrides of sweep(); none for search(suggest), which draws them
    during the search.
    """
    swept, searched = hasattr(module, "sweep"), hasattr(module, "search")
    require(
        swept or searched,
        f"{argument('experiment')}={path} has no function sweep(), which yields overrides such as "
        "{'hp.lr': 1e-3, 'seed': 0}, and no "
        "search(suggest), which returns one"
        + ("; it is run as a script: python " + str(path) if hasattr(module, "main") else ""),
    )
    require(
        not (swept and searched),
        f"{argument('experiment')}={path} has both sweep() and search(suggest): its trials "
        "come from one of them",
    )
    if not swept:
        return []
    file = getattr(module, "__file__", path)
    with user_code(file, "experiment"):
        made = module.sweep()
    require(
        isinstance(made, Iterable) and not isinstance(made, (str, dict)),
        f"{argument('experiment')}={path}: sweep() returned {made!r}; it yields "
        "overrides such as {'hp.lr': 1e-3, 'seed': 0}",
    )
    with user_code(file, "experiment"):
        made = list(itertools.islice(made, MOST_TRIALS + 1))
    require(
        len(made) <= MOST_TRIALS,
        f"{argument('experiment')}={path}: sweep() yields more than {MOST_TRIALS:,} trials",
    )
    return made


class Search(NamedTuple):
    """The search of an experiment: its function, objective and size."""

    function: Callable  # (suggest) -> overrides
    objective: str
    mode: str
    batch: int
    trials: int
    name: str = "search"  # of the experiment: with config.seed it seeds the search


def search_of(module: ModuleType) -> Search | None:
    """Return the search of an experiment, validated, with defaults filled in; None if
    the experiment has none.
    """
    if not hasattr(module, "search"):
        return None
    name = getattr(module, "__name__", "search").removeprefix(PREFIX)
    objective = getattr(module, "OBJECTIVE", None)
    require(
        str(objective).startswith("valid/"),
        f"OBJECTIVE = {objective!r} must be of the valid split, such as 'valid/loss'",
    )
    it = Search(
        module.search,
        str(objective),
        getattr(module, "MODE", "min"),
        getattr(module, "BATCH", 8),
        getattr(module, "TRIALS", 64),
        name,
    )
    require(it.mode in ("min", "max"), f"MODE = {it.mode!r} is neither min nor max")
    for name, value in dict(BATCH=it.batch, TRIALS=it.trials).items():
        require(
            is_int(value) and 0 < value <= MOST_TRIALS,
            f"{name} = {value!r} must be at least 1, at most {MOST_TRIALS:,}",
        )
    return it


def halving_of(module: ModuleType) -> dict | None:
    """Return HALVING of an experiment, validated, with defaults filled in; None if the
    experiment has none.
    """
    given = getattr(module, "HALVING", None)
    if given is None:
        return None
    for key in given:
        require(
            key in HALVING,
            f"HALVING[{key!r}] is none of {', '.join(HALVING)}{nearest(key, HALVING)}",
        )
    for key in HALVING[:3]:
        require(key in given, f"HALVING has no {key!r}; it needs {', '.join(HALVING[:3])}")
    require(
        str(given["metric"]).startswith("valid/"),
        f"HALVING['metric'] = {given['metric']!r} must be of the valid split, such as 'valid/loss'",
    )
    require(
        is_int(given["factor"]) and given["factor"] > 1,
        f"HALVING['factor'] = {given['factor']!r} must be at least 2",
    )
    mode = given.get("mode", "min")
    require(mode in ("min", "max"), f"HALVING['mode'] = {mode!r} is neither min nor max")
    check_rungs(given["rungs"])
    return dict(
        metric=given["metric"],
        rungs=[str(r) for r in given["rungs"]],
        factor=given["factor"],
        mode=mode,
    )


def check_rungs(rungs: Any) -> None:
    """Raise a UserError unless the rungs are durations, each longer than the previous
    rung if both have the same unit.
    """
    wrong = (
        f"HALVING['rungs'] = {rungs!r} must be durations such as ('1 epoch', '4 epochs'), "
        "each longer than the one before"
    )
    require(
        isinstance(rungs, (tuple, list))
        and rungs
        and all(isinstance(r, str) or is_int(r) for r in rungs),
        wrong,
    )
    parsed = [configs.parse_duration(rung, "HALVING['rungs']") for rung in rungs]
    require(all(number > 0 for number, _ in parsed), wrong)
    for (before, unit), (after, other) in itertools.pairwise(parsed):
        require(unit.rstrip("s") != other.rstrip("s") or before < after, wrong)
