"""Checks, before anything is trained, of what table and figure of a sweep will show."""

from collections.abc import Iterable, Sequence

from ml_collections import ConfigDict

from aigc_jax.sweeps.evidence import list_varied_keys, to_csv_cell
from aigc_jax.sweeps.presentation import check_arm_keys, find_arm
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.sweeps.trials import Trial
from aigc_jax.training.config import (
    fill_defaults,
    flatten_config,
    from_json_dict,
    to_json_dict,
)
from aigc_jax.training.row_names import NORMS, list_row_metrics, may_have_norms
from aigc_jax.utils.errors import format_suggestion, join_names, mark_argument, require

MOST_NAMES = 40


def check_metric(metric: str, trial_configs: Iterable[ConfigDict]) -> None:
    """Raise a UserError for a metric "split/name" that no row of the configs can have;
    "" is none.
    """
    if not metric:
        return
    split, _, name = metric.partition("/")
    splits = ("train", "valid", "test")
    require(
        split in splits and name,
        f"{mark_argument('metric')}={metric} must be SPLIT/NAME, such as valid/{name or split}, "
        f"with a split of {', '.join(splits)}",
    )
    known: dict[str, None] = {}
    for leaves in {str(leaves): leaves for leaves in map(_static_leaves, trial_configs)}.values():
        names = list_row_metrics(leaves)
        if names is None or may_have_norms(leaves) and metric.startswith(f"train/{NORMS}"):
            return
        known |= dict.fromkeys(names)
    require(
        metric in known or not known,
        f"{mark_argument('metric')}={metric} is measured by no trial; available: "
        f"{join_names(known, MOST_NAMES)}{format_suggestion(metric, known)}",
    )


def _static_leaves(config: ConfigDict) -> dict:
    """Return the leaves of a config without seed and hyper-parameters."""
    leaves = flatten_config(fill_defaults(config, with_method_defaults=False))
    return {k: v for k, v in leaves.items() if k != "seed" and not k.startswith("hp.")}


def check_baseline(
    baseline: str, sweep: Sweep, trials: Sequence[Trial], is_search: bool = False
) -> None:
    """Raise a UserError for a baseline that is no arm of the sweep with these trials
    and those that its directory has; "" is none. Of a search, whose later arms are
    unknown, only the keys are checked.
    """
    if not baseline:
        return
    stored = sweep.read_sweep_json()["trials"] if (sweep.path / "sweep.json").exists() else []
    known = sweep.read_flat_configs() if stored else {}
    flat = [known[trial["id"]] for trial in stored]
    flat += [
        flatten_config(fill_defaults(from_json_dict(to_json_dict(trial.config))))
        for trial in trials
    ]
    overridden = [key for trial in stored for key in trial["overrides"]]
    overridden += [key for trial in trials for key in trial.overrides]
    keys = list_varied_keys(flat, overridden)
    require(keys, f"{mark_argument('baseline')}={baseline} needs a sweep of several arms")
    if is_search:
        check_arm_keys(baseline, keys)
        return
    arms = dict.fromkeys(tuple(to_csv_cell(config.get(key)) for key in keys) for config in flat)
    find_arm(baseline, arms, keys)
