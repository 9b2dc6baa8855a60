"""Experiment files: one question each, as trials and as a figure of their rows.

CONFIG          the config, relative to the repository; OVERRIDES, optional: what all trials have else
sweep()         yields overrides (aigc_jax.grid); or instead of it
search(suggest) returns the overrides of one trial, made of what it is suggested (aigc_jax.adaptive); with it go
                OBJECTIVE = "valid/loss", and, optional, MODE = "min" or "max", BATCH = 8 trials at a time, TRIALS = 64 in all
figure(rows, axes), table(rows)    optional: what is drawn and written by default is in `tables`
PANELS          optional: rows and columns of the figure, whose axes figure() then gets as an array; SIZE: its inches
METRIC          optional: what the default table and figure show, such as "test/neg_elbo"
HALVING         optional: dict(metric="valid/loss", rungs=("1 epoch", "4 epochs"), factor=2)
"""

from collections.abc import Callable
from typing import NamedTuple

from aigc_jax import config as configs
from aigc_jax.errors import nearest, require
from aigc_jax.user_files import find_file, import_file

HALVING = ("metric", "rungs", "factor", "mode")


def load(path):
    """The module of an experiment file; `find_file` says which file is meant."""
    return import_file(find_file(path, "experiment"), "experiment")


def base(module, path):
    """The config of an experiment."""
    require(hasattr(module, "CONFIG"), f"--experiment={path} has no CONFIG, the path of a config file such as 'configs/vae_digits.py'")
    return configs.override(configs.load(find_file(path, "experiment").resolve().parent.parent / module.CONFIG), getattr(module, "OVERRIDES", {}))


def overrides(module, path) -> list[dict]:
    """The trials of an experiment; none of one with search(suggest), which are not known before."""
    swept, searched = hasattr(module, "sweep"), hasattr(module, "search")
    require(swept or searched, f"--experiment={path} has no function sweep(), which yields overrides such as {{'hp.lr': 1e-3, 'seed': 0}}, and no "
            "search(suggest), which returns one" + ("; it is run as a script: python " + str(path) if hasattr(module, "main") else ""))
    require(not (swept and searched), f"--experiment={path} has both sweep() and search(suggest): its trials come from one of them")
    return list(module.sweep()) if swept else []


class Search(NamedTuple):
    function: Callable  # (suggest) -> overrides
    objective: str
    mode: str
    batch: int
    trials: int


def search(module) -> Search | None:
    """search(suggest) of an experiment and what goes with it, checked and complete."""
    if not hasattr(module, "search"):
        return None
    it = Search(module.search, getattr(module, "OBJECTIVE", None), *(getattr(module, k, v) for k, v in dict(MODE="min", BATCH=8, TRIALS=64).items()))
    require(str(it.objective).startswith("valid/"), f"OBJECTIVE = {it.objective!r} must be of the valid split, such as 'valid/loss'")
    require(it.mode in ("min", "max"), f"MODE = {it.mode!r} is neither min nor max")
    for name, value in dict(BATCH=it.batch, TRIALS=it.trials).items():
        require(isinstance(value, int) and value > 0, f"{name} = {value!r} must be at least 1")
    return it


def halving(module) -> dict | None:
    """HALVING of an experiment, checked and complete."""
    given = getattr(module, "HALVING", None)
    if given is None:
        return None
    for key in given:
        require(key in HALVING, f"HALVING[{key!r}] is none of {', '.join(HALVING)}{nearest(key, HALVING)}")
    for key in HALVING[:3]:
        require(key in given, f"HALVING has no {key!r}; it needs {', '.join(HALVING[:3])}")
    require(str(given["metric"]).startswith("valid/"), f"HALVING['metric'] = {given['metric']!r} must be of the valid split, such as 'valid/loss'")
    require(isinstance(given["factor"], int) and given["factor"] > 1, f"HALVING['factor'] = {given['factor']!r} must be at least 2")
    mode = given.get("mode", "min")
    require(mode in ("min", "max"), f"HALVING['mode'] = {mode!r} is neither min nor max")
    for rung in given["rungs"]:
        configs.parse_duration(rung, "HALVING['rungs']")
    return dict(metric=given["metric"], rungs=[str(r) for r in given["rungs"]], factor=given["factor"], mode=mode)
