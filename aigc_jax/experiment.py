"""Experiment files: one question each, as trials and as a figure of their rows.

CONFIG          the config, relative to the repository
sweep()         yields overrides (aigc_jax.grid); or search(suggest), for `adaptive`
figure(rows, axes), table(rows)    optional: what is drawn and written by default is in `tables`
METRIC          optional: what the default table and figure show, such as "test/neg_elbo"
HALVING         optional: dict(metric="valid/loss", rungs=("1 epoch", "4 epochs"), factor=2)
"""

import importlib.util
from pathlib import Path

from aigc_jax import config as configs
from aigc_jax.errors import UserError, nearest, require

HALVING = ("metric", "rungs", "factor", "mode")


def load(path):
    """The module of an experiment file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--experiment={path}: no such file{nearest(str(path), map(str, sorted(path.parent.glob('*.py'))))}")
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    require(spec is not None, f"--experiment={path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as e:
        raise UserError(f"--experiment={path} is no valid Python: line {e.lineno}: {e.msg}") from None
    return module


def base(module, path):
    """The config of an experiment."""
    require(hasattr(module, "CONFIG"), f"--experiment={path} has no CONFIG, the path of a config file such as 'configs/vae_digits.py'")
    return configs.load(Path(path).resolve().parent.parent / module.CONFIG)


def overrides(module, path) -> list[dict]:
    """The trials of an experiment."""
    require(hasattr(module, "sweep"), f"--experiment={path} has no function sweep(), which yields overrides such as {{'hp.lr': 1e-3, 'seed': 0}}"
            + ("; it is run as a script: python " + str(path) if hasattr(module, "main") else ""))
    return list(module.sweep())


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
