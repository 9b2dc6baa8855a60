"""Identity of a run: comparison of a config with the run in a work directory."""

import json
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.data.dataset import Dataset, spec_to_json
from aigc_jax.methods import schedules
from aigc_jax.training import config as configs
from aigc_jax.training import config_identity
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError, mark_argument, require


def check_identity(
    resolved_configs: Sequence[ConfigDict],
    run_dirs: Sequence[RunDir],
    dataset: Dataset,
    data_hash: str,
    extend_to: int | None,
) -> list[ConfigDict]:  # the configs to train with
    """Return the configs that the trials train with.

    Args:
      resolved_configs: the configs of the trials, whose durations are in steps.
      run_dirs: their work directories.
      dataset: the data set of all trials.
      data_hash: its fingerprint.
      extend_to: total number of steps to extend the stored runs to; None: none.

    Raises:
      UserError: the configs cannot be one program, a directory holds another run or a
        run on other data, all stored runs diverged, or a run cannot be extended.
    """
    static = [
        {
            k: v
            for k, v in config_identity.identity_leaves(c).items()
            if k != "seed" and not k.startswith("hp.")
        }
        for c in resolved_configs
    ]
    for other in static[1:]:
        require(
            other == static[0],
            f"trials of one program may differ in seed and hp only, not in "
            f"{', '.join(configs.differing_leaves(static[0], other))}",
        )
    statuses = [run.read_status() for run in run_dirs]
    require(
        not all(s.get("status") == "failed: diverged" for s in statuses),
        f"{run_dirs[0].path} failed: {statuses[0].get('reason')}; a diverged run cannot resume: "
        f"begin again with other hyper-parameters, by {mark_argument('restart')} or in another "
        f"{mark_argument('workdir')}",
    )
    return [
        _check_run(config, run, dataset, data_hash, extend_to)
        for config, run in zip(resolved_configs, run_dirs, strict=True)
    ]


def _check_run(
    config: ConfigDict, run: RunDir, dataset: Dataset, data_hash: str, extend_to: int | None
) -> ConfigDict:
    """Return the config that one trial trains with."""
    stored = run.read_json("config.json")
    if stored is None:
        require(
            extend_to is None,
            f"{mark_argument('extend')}={extend_to}: {run.path} holds no run to extend",
        )
        require(
            not (run / "rows.jsonl").exists() and not (run / "checkpoints").exists(),
            f"{run.path} holds results but no config.json; use another work directory, or "
            f"begin again here with {mark_argument('restart')}",
        )
        return config
    before = parse_stored_config(stored)
    if extend_to is not None:
        config = _extend_config(before, config, extend_to)
        before = _with_steps(before, extend_to)
    _check_same_config(before, config, run, same_data=stored["data"] == data_hash)
    require(
        stored["data"] == data_hash,
        f"{run.path}: the data of config.data.name = {config.data.name!r} differ from the data "
        f"that the run was started with ({describe_data_changes(stored, dataset)}); restore "
        "the data, or train on the new data in another work directory, where "
        f"config.init_from = {str(run.path)!r} begins with this run's parameters",
    )
    return config


def _check_same_config(
    before: ConfigDict, config: ConfigDict, run: RunDir, same_data: bool
) -> None:
    """Raise a UserError if two configs differ in a key of their identity."""
    different = config_identity.differing_identity_leaves(before, config)
    # Durations in epochs differ where the number of examples does.
    if not different or not same_data and different.keys() <= {*configs.duration_keys(config)}:
        return
    lines = "; ".join(
        f"config.{k} is {a!r} in the stored run and {b!r} in this run"
        for k, (a, b) in sorted(different.items())
    )
    hint = (
        f" (to train longer: {mark_argument('extend')}={config.steps})"
        if list(different) == ["steps"]
        else ""
    )
    raise UserError(
        f"{run.path} holds another run: {lines}; use another work directory{hint}, or begin again "
        f"here by {mark_argument('restart')}"
    )


def _extend_config(before: ConfigDict, config: ConfigDict, extend_to: int) -> ConfigDict:
    name = before.schedule.name
    require(
        name in schedules.ENDLESS,
        f"{mark_argument('extend')}={extend_to}: config.schedule.name = {name!r} depends on the "
        f"end of the run; only {', '.join(schedules.ENDLESS)} can be extended",
    )
    require(
        extend_to >= before.steps,
        f"{mark_argument('extend')}={extend_to} is less than the {before.steps:,} steps of the run",
    )
    return _with_steps(config, extend_to)


def _with_steps(config: ConfigDict, steps: int) -> ConfigDict:
    """Return a config, whose durations are in steps, with another number of steps."""
    return configs.resolve_durations(
        configs.override(configs.fill_defaults(config), dict(steps=str(steps))), 1, 1
    )


def parse_stored_config(config_json: dict[str, Any]) -> ConfigDict:
    """Return the config of a config.json, with the defaults of keys that later versions
    added. The stored durations are in steps already.
    """
    stored = configs.from_json_dict(config_json["config"])
    return configs.resolve_durations(
        configs.fill_defaults(stored, with_method_defaults=False), 1, 1
    )


def count_examples(dataset: Dataset) -> dict[str, int]:  # {split: number}
    """Return the number of examples of each split."""
    return {split: count for split, (_, count) in dataset.splits.items()}


def describe_data_changes(config_json: dict[str, Any], dataset: Dataset) -> str:
    """Return a description of the differences between the data of a config.json and a
    data set.
    """
    counts, spec = count_examples(dataset), json.loads(json.dumps(spec_to_json(dataset.spec)))
    before = config_json.get("splits", {})
    pairs = [(f"{split} examples", before[split], counts.get(split)) for split in before]
    keys = [key for key in spec if key not in ("n_train", "centres")]
    pairs += [(key, config_json["spec"].get(key), spec[key]) for key in keys]
    changes = [f"{name}: {then} before, {now} now" for name, then, now in pairs if then != now]
    return "; ".join(changes) or "equal numbers and shapes, but other values or another order"
