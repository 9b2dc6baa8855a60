"""Identity of a run: comparison of a config with the run in a work directory."""

import json
from collections.abc import Sequence

from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.data.dataset import Dataset, spec_to_json
from aigc_jax.methods import schedules
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError, argument, require


def check_identity(
    resolved: Sequence[ConfigDict],
    dirs: Sequence[RunDir],
    dataset: Dataset,
    data_hash: str,
    extend: int | None,
) -> list[ConfigDict]:
    """Return the configs that the trials train with.

    Args:
      resolved: the configs of the trials, whose durations are in steps.
      dirs: their work directories.
      dataset: the data set of all trials.
      data_hash: its fingerprint.
      extend: total number of steps to extend the stored runs to.

    Raises:
      UserError: the configs cannot be one program, a directory holds another run, or
        all stored runs diverged.
    """
    static = [
        {k: v for k, v in configs.identity(c).items() if k != "seed" and not k.startswith("hp.")}
        for c in resolved
    ]
    for other in static[1:]:
        require(
            other == static[0],
            f"trials of one program may differ in seed and hp only, not in "
            f"{', '.join(configs.difference(static[0], other))}",
        )
    statuses = [run.read_status() for run in dirs]
    require(
        not all(s.get("status") == "failed: diverged" for s in statuses),
        f"{dirs[0].path} failed: {statuses[0].get('reason')}; a diverged run cannot resume: "
        "use another work directory",
    )
    return [
        _check_run(config, run, dataset, data_hash, extend)
        for config, run in zip(resolved, dirs, strict=True)
    ]


def _check_run(
    config: ConfigDict, run: RunDir, dataset: Dataset, data_hash: str, extend: int | None
) -> ConfigDict:
    """Return the config that one trial trains with."""
    stored = run.read_json("config.json")
    if stored is None:
        require(extend is None, f"{argument('extend')}={extend}: {run.path} holds no run to extend")
        require(
            not (run / "rows.jsonl").exists() and not (run / "checkpoints").exists(),
            f"{run.path} holds results but no config.json; use another work directory, or "
            f"begin again here with {argument('restart')}",
        )
        return config
    before = stored_config(stored)
    if extend is not None:
        config = _extended(before, config, extend)
        before = _with_steps(before, extend)
    _check_config(before, config, run, same_data=stored["data"] == data_hash)
    require(
        stored["data"] == data_hash,
        f"{run.path}: the data of config.data.name = {config.data.name!r} differ from the data "
        f"that the run was started with ({describe_data_changes(stored, dataset)}); restore "
        "the data, or train on the new data in another work directory, where "
        f"config.init_from = {str(run.path)!r} begins with this run's parameters",
    )
    return config


def _check_config(before: ConfigDict, config: ConfigDict, run: RunDir, same_data: bool) -> None:
    different = configs.identity_difference(before, config)
    # Durations in epochs differ where the number of examples does.
    if not different or not same_data and different.keys() <= {*configs.durations_of(config)}:
        return
    lines = "; ".join(
        f"config.{k} is {a!r} in the stored run and {b!r} in this run"
        for k, (a, b) in sorted(different.items())
    )
    hint = (
        f" (to train longer: {argument('extend')}={config.steps})"
        if list(different) == ["steps"]
        else ""
    )
    raise UserError(f"{run.path} holds another run: {lines}; use another work directory{hint}")


def _extended(before: ConfigDict, config: ConfigDict, extend: int) -> ConfigDict:
    name = before.schedule.name
    require(
        name in schedules.ENDLESS,
        f"{argument('extend')}={extend}: config.schedule.name = {name!r} depends on the end "
        f"of the run; only {', '.join(schedules.ENDLESS)} can be extended",
    )
    require(
        extend >= before.steps,
        f"{argument('extend')}={extend} is less than the {before.steps} steps that the run has",
    )
    return _with_steps(config, extend)


def _with_steps(config: ConfigDict, steps: int) -> ConfigDict:
    return configs.resolve(
        configs.override(configs.fill_defaults(config), dict(steps=str(steps))), 1, 1
    )


def stored_config(stored: dict) -> ConfigDict:
    """Return the config of a config.json, with the defaults of keys that later versions
    added. The stored durations are in steps already.
    """
    return configs.resolve(configs.fill_defaults(configs.from_json(stored["config"])), 1, 1)


def count_examples(dataset: Dataset) -> dict[str, int]:
    """Return the number of examples of each split."""
    return {split: count for split, (_, count) in dataset.splits.items()}


def describe_data_changes(stored: dict, dataset: Dataset) -> str:
    """Return a description of the differences between the data of a config.json and a
    data set.
    """
    counts, spec = count_examples(dataset), json.loads(json.dumps(spec_to_json(dataset.spec)))
    before = stored.get("splits", {})
    pairs = [(f"{split} examples", before[split], counts.get(split)) for split in before]
    keys = [key for key in spec if key not in ("n_train", "centres")]
    pairs += [(key, stored["spec"].get(key), spec[key]) for key in keys]
    changes = [f"{name}: {then} before, {now} now" for name, then, now in pairs if then != now]
    return "; ".join(changes) or "equal numbers and shapes, but other values or another order"
