"""Before the first step: does the work directory belong to this config, and whose
parameters does the run begin with?
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.core import distributed
from aigc_jax.core.keys import IDENTITY_VERSION
from aigc_jax.data import tokenizers
from aigc_jax.data.dataset import Dataset, spec_to_json
from aigc_jax.methods import schedules
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.provenance import environment
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.trial import Trial
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError, argument, command, require
from aigc_jax.utils.terminal import print_warning

TOKENIZER = "assets/tokenizer.json"  # in a run's directory

# the directory of a group, and the places of some of its trials
Parent = tuple[str | Path, list[int]]


def agree(
    resolved: Sequence[ConfigDict],
    dirs: Sequence[RunDir],
    dataset: Dataset,
    data: str,
    extend: int | None,
) -> list:
    """The configs that the trials train with; a UserError where a directory holds
    another run. data: the fingerprint of the data set.
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
        f"{dirs[0].path} failed: {statuses[0].get('reason')}; a run that diverged stays so: "
        "use another work directory",
    )
    return [_agree(c, d, dataset, data, extend) for c, d in zip(resolved, dirs, strict=True)]


def record(
    configs_: Sequence[ConfigDict],
    dirs: Sequence[RunDir],
    dataset: Dataset,
    data: str,
    changes: Sequence[dict],
) -> None:
    """Write what each run is, once it is known that it can begin: a mistake leaves
    nothing that its correction would meet.

    changes: per trial, {key: [in the config's file, in this run]}, kept beside the
    config for people.
    """
    around = environment()
    tokens = {} if dataset.tokenizer is None else dict(tokenizer=dataset.tokenizer.sha256)
    for config, run, more in zip(configs_, dirs, changes, strict=True):
        kept = (run.read_json("config.json") or {}).get("changes", {})
        run.write_json(
            "config.json",
            dict(
                identity_version=IDENTITY_VERSION,
                hash=configs.hash_of(config),
                changes=more or kept,
                data=data,
                spec=spec_to_json(dataset.spec),
                splits=count_examples(dataset),
                config=configs.jsonable(config),
                **tokens,
            ),
        )
        run.write_json("environment.json", around)
        if dataset.tokenizer is not None:
            (run / "assets").mkdir(exist_ok=True)
            tokenizers.write(run / TOKENIZER, dataset.tokenizer)


def check_beginning(checkpoints: Checkpoints, dirs: Sequence[RunDir], step: int) -> None:
    """A UserError where training would begin at a step though a later checkpoint was
    saved and is lost.
    """
    lost = [
        p.name for p in checkpoints.path.glob("*") if p.name.removesuffix(".damaged").isdecimal()
    ]
    proofs = [f"{checkpoints.path} holds {', '.join(sorted(lost))}"] if lost else []
    for run in dirs:
        status, config = run.read_status(), run.read_json("config.json")
        if (
            status.get("status") in ("running", "preempted", "stopped", "done")
            and status["step"] > step
        ):
            proofs.append(f"{run / 'STATUS.json'} says {status['status']} at step {status['step']}")
        every = config["config"]["run"]["save_every"] if config else 0
        last = max(
            (row["step"] for row in documents.read_lines(run / "rows.jsonl", lenient=True)),
            default=0,
        )
        if every and last > step + 2 * every:  # a save waits for the one before
            proofs.append(f"{run / 'rows.jsonl'} reaches step {last}")
    require(
        not proofs,
        f"no checkpoint of {checkpoints.path.parent} can be read, though one was saved, for "
        f"{'; '.join(proofs[:1])}: "
        "restore its checkpoints from a copy, or begin again at step 0: "
        f"{command('train', restart=True)}, in a sweep {command('sweep', restart=True)}",
    )


def cut_rows(
    checkpoints: Checkpoints, trials: Sequence[Trial], step: int, saved: list | None, own: bool
) -> None:
    """Drop the rows past the step at which training resumes, or -1; refuse rows that
    are not those of its checkpoint.

    saved: per trial, length and SHA-256 of its rows; own: does the checkpoint lie among
    `checkpoints`?
    """
    saved, error = saved or [None] * len(trials), None
    if distributed.first():
        try:
            if not own:
                check_beginning(checkpoints, [t.dir for t in trials], max(step, 0))
            for t, rows in zip(trials, saved, strict=True):
                t.dir.check_rows(rows)
        except UserError as e:
            error = e
    refused = distributed.same(int(error is not None))
    require(
        not refused or error is not None, "the first process refuses the directory, and says why"
    )
    if error is not None:
        raise error
    checkpoints.set_aside(step)
    for t, rows in zip(trials, saved, strict=True):
        t.dir.cut(step, rows if distributed.first() else None)
        # The status may be that of a value past this step that was not finite.
        if "rows" in t.dir.read_status() and not t.failed:
            t.dir.status("running", max(step, 0))


def clear(dirs: Sequence[RunDir]) -> None:
    """Remove the runs that lie in directories, before all processes go on."""
    for run in dirs:
        run.clear()
    distributed.wait("cleared")


def count_examples(dataset: Dataset) -> dict[str, int]:
    """Return how many examples each split has."""
    return {split: count for split, (_, count) in dataset.splits.items()}


def describe_changes(found: dict, dataset: Dataset) -> str:
    """What differs between the data in a config.json and the data there now."""
    counts, spec = count_examples(dataset), json.loads(json.dumps(spec_to_json(dataset.spec)))
    before = found.get("splits", {})
    pairs = [(f"{split} examples", before[split], counts.get(split)) for split in before]
    keys = [key for key in spec if key not in ("n_train", "centres")]
    pairs += [(key, found["spec"].get(key), spec[key]) for key in keys]
    changes = [f"{name}: {then} then, {now} now" for name, then, now in pairs if then != now]
    return (
        "; ".join(changes) or "as many of the same shape, with other contents or in another order"
    )


def _agree(config, run, dataset, data, extend):
    found = run.read_json("config.json")
    if found is None:
        require(
            extend is None, f"{argument('extend')}={extend}: {run.path} holds no run to go on with"
        )
        require(
            not (run / "rows.jsonl").exists() and not (run / "checkpoints").exists(),
            f"{run.path} holds results but no config.json; use another work directory, or "
            f"begin again here with {argument('restart')}",
        )
    else:
        before = stored_config(found)
        if extend is not None:
            config = _extended(before, config, extend)
            before = _with_steps(before, extend)
        different = configs.identity_difference(before, config)
        # Durations in epochs differ as the number of examples does.
        if found["data"] != data and different.keys() <= {*configs.durations_of(config)}:
            different = {}
        if different:
            lines = "; ".join(
                f"config.{k} is {a!r} there and {b!r} here"
                for k, (a, b) in sorted(different.items())
            )
            hint = (
                f" (to go on for longer: {argument('extend')}={config.steps})"
                if list(different) == ["steps"]
                else ""
            )
            raise UserError(
                f"{run.path} holds another run: {lines}; use another work directory{hint}"
            )
        require(
            found["data"] == data,
            f"{run.path}: config.data.name = {config.data.name!r} gives other data "
            f"than the run was started with ({describe_changes(found, dataset)}); restore "
            "the data, "
            "or train on those of now in another work directory, where "
            f"config.init_from = {str(run.path)!r} begins with this run's parameters",
        )
    return config


def _extended(before, config, extend):
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


def _with_steps(config, steps):
    return configs.resolve(configs.override(configs.complete(config), dict(steps=str(steps))), 1, 1)


def stored_config(stored: dict) -> ConfigDict:
    """The config of a config.json; what later versions added gets its default. Its
    durations are in steps already.
    """
    return configs.resolve(configs.complete(configs.from_json(stored["config"])), 1, 1)


def inherited(parent: Parent | None) -> tuple[dict, dict, dict] | None:
    """(state, best, meta) of some of a group's trials, as a checkpoint of theirs alone
    would have them; None without a parent.
    """
    if parent is None:
        return None
    where, places = parent
    found = Checkpoints(Path(where, "checkpoints")).newest(print_warning)
    if found is None:
        raise UserError(f"{where} has no good checkpoint to go on from")
    state, best, meta = found
    take = lambda tree: {name: value[places] for name, value in tree.items()}
    more = {key: [meta[key][i] for i in places] for key in ("failed", "best", "rows")}
    return take(state), take(best), meta | more
