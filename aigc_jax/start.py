"""Before the first step: does the work directory belong to this config, and whose parameters does the run begin with?"""

import json
from pathlib import Path

from aigc_jax import config as configs
from aigc_jax import optim, processes, stored
from aigc_jax.checkpoint import Checkpoints
from aigc_jax.data import tokenizers
from aigc_jax.data.dataset import spec_to_json
from aigc_jax.errors import UserError, require
from aigc_jax.keys import IDENTITY_VERSION
from aigc_jax.results import environment
from aigc_jax.terminal import print_warning

TOKENIZER = "assets/tokenizer.json"  # in a run's directory
REPOSITORY = Path(__file__).resolve().parent.parent


def agree(resolved, dirs, dataset, data, extend) -> list:
    """The configs that the trials train with; a UserError where a directory holds another run. data:
    the fingerprint of the data set."""
    static = [{k: v for k, v in configs.identity(c).items() if k != "seed" and not k.startswith("hp.")} for c in resolved]
    for other in static[1:]:
        require(other == static[0], f"trials of one program may differ in seed and hp only, not in "
                f"{', '.join(configs.difference(static[0], other))}")
    statuses = [run.read_status() for run in dirs]
    require(not all(s.get("status") == "failed: diverged" for s in statuses),
            f"{dirs[0].path} failed: {statuses[0].get('reason')}; a run that diverged stays so: use another work directory")
    return [_agree(c, d, dataset, data, extend) for c, d in zip(resolved, dirs, strict=True)]


def record(configs_, dirs, dataset, data, changes):
    """Write what each run is, once it is known that it can begin: a mistake leaves nothing that its correction would meet.

    changes: per trial, {key: [in the config's file, in this run]}, kept beside the config for people.
    """
    around = environment(REPOSITORY)
    tokens = {} if dataset.tokenizer is None else dict(tokenizer=dataset.tokenizer.sha256)
    for config, run, more in zip(configs_, dirs, changes, strict=True):
        kept = (run.read_json("config.json") or {}).get("changes", {})
        run.write_json("config.json", dict(identity_version=IDENTITY_VERSION, hash=configs.hash_of(config), changes=more or kept, data=data,
                                           spec=spec_to_json(dataset.spec),
                                           splits=count_examples(dataset), config=configs.jsonable(config), **tokens))
        run.write_json("environment.json", around)
        if dataset.tokenizer is not None:
            (run / "assets").mkdir(exist_ok=True)
            tokenizers.write(run / TOKENIZER, dataset.tokenizer)


def check_beginning(checkpoints: Checkpoints, dirs, step: int):
    """A UserError where training would begin at a step though a later checkpoint was saved and is lost."""
    lost = [p.name for p in checkpoints.path.glob("*") if p.name.removesuffix(".damaged").isdecimal()]
    proofs = [f"{checkpoints.path} holds {', '.join(sorted(lost))}"] if lost else []
    for run in dirs:
        status, config = run.read_status(), run.read_json("config.json")
        if status.get("status") in ("running", "preempted", "stopped", "done") and status["step"] > step:
            proofs.append(f"{run / 'STATUS.json'} says {status['status']} at step {status['step']}")
        every = config["config"]["run"]["save_every"] if config else 0
        last = max((row["step"] for row in stored.read_lines(run / "rows.jsonl", lenient=True)), default=0)
        if every and last > step + 2 * every:  # a save waits for the one before
            proofs.append(f"{run / 'rows.jsonl'} reaches step {last}")
    require(not proofs, f"no checkpoint of {checkpoints.path.parent} can be read, though one was saved, for {'; '.join(proofs[:1])}: "
            "restore its checkpoints from a copy, or begin again at step 0: train --restart, in a sweep sweep --restart")


def cut_rows(checkpoints: Checkpoints, trials, step: int, saved: list | None, own: bool):
    """Drop the rows past the step at which training resumes, or -1; refuse rows that are not those of its checkpoint.

    saved: per trial, length and SHA-256 of its rows; own: does the checkpoint lie among `checkpoints`?
    """
    saved, error = saved or [None] * len(trials), None
    if processes.first():
        try:
            if not own:
                check_beginning(checkpoints, [t.dir for t in trials], max(step, 0))
            for t, rows in zip(trials, saved, strict=True):
                t.dir.check_rows(rows)
        except UserError as e:
            error = e
    refused = processes.same(int(error is not None))
    require(not refused or error is not None, "the first process refuses the directory, and says why")
    if error is not None:
        raise error
    checkpoints.set_aside(step)
    for t, rows in zip(trials, saved, strict=True):
        t.dir.cut(step, rows if processes.first() else None)
        if "rows" in t.dir.read_status() and not t.failed:  # of a value past this step that was not finite
            t.dir.status("running", max(step, 0))


def clear(dirs):
    """Remove the runs that lie in directories, before all processes go on."""
    for run in dirs:
        run.clear()
    processes.wait("cleared")


def count_examples(dataset) -> dict[str, int]:
    return {split: count for split, (_, count) in dataset.splits.items()}


def describe_changes(found: dict, dataset) -> str:
    """What differs between the data that a config.json describes and those that there are now."""
    counts, spec = count_examples(dataset), json.loads(json.dumps(spec_to_json(dataset.spec)))
    before = found.get("splits", {})
    pairs = [(f"{split} examples", before[split], counts.get(split)) for split in before]
    keys = [key for key in spec if key not in ("n_train", "centres")]
    pairs += [(key, found["spec"].get(key), spec[key]) for key in keys]
    changes = [f"{name}: {then} then, {now} now" for name, then, now in pairs if then != now]
    return "; ".join(changes) or "as many of the same shape, with other contents or in another order"


def _agree(config, run, dataset, data, extend):
    found = run.read_json("config.json")
    if found is None:
        require(extend is None, f"--extend={extend}: {run.path} holds no run to go on with")
        require(not (run / "rows.jsonl").exists() and not (run / "checkpoints").exists(),
                f"{run.path} holds results but no config.json; use another work directory, or begin again here with --restart")
    else:
        before = stored_config(found)
        if extend is not None:
            config = _extended(before, config, extend)
            before = _with_steps(before, extend)
        different = configs.identity_difference(before, config)
        if found["data"] != data and different.keys() <= {*configs.durations_of(config)}:  # in epochs
            different = {}
        if different:
            lines = "; ".join(f"config.{k} is {a!r} there and {b!r} here" for k, (a, b) in sorted(different.items()))
            hint = f" (to go on for longer: --extend={config.steps})" if list(different) == ["steps"] else ""
            raise UserError(f"{run.path} holds another run: {lines}; use another work directory{hint}")
        require(found["data"] == data, f"{run.path}: config.data.name = {config.data.name!r} gives other data "
                f"than the run was started with ({describe_changes(found, dataset)}); restore the data, "
                "or train on those of now in another work directory, where "
                f"config.init_from = {str(run.path)!r} begins with this run's parameters")
    return config


def _extended(before, config, extend):
    name = before.schedule.name
    require(name in optim.ENDLESS, f"--extend={extend}: config.schedule.name = {name!r} depends on the end of the run; "
            f"only {', '.join(optim.ENDLESS)} can be extended")
    require(extend >= before.steps, f"--extend={extend} is less than the {before.steps} steps that the run has")
    return _with_steps(config, extend)


def _with_steps(config, steps):
    return configs.resolve(configs.override(configs.complete(config), dict(steps=str(steps))), 1, 1)


def stored_config(stored):
    """The config of a config.json; what later versions added gets its default. Its durations are in steps already."""
    return configs.resolve(configs.complete(configs.from_json(stored["config"])), 1, 1)


def inherited(parent):
    """(state, best, meta) of some of a group's trials, as a checkpoint of theirs alone would have them; None without a parent."""
    if parent is None:
        return None
    where, places = parent
    found = Checkpoints(Path(where, "checkpoints")).newest(print_warning)
    require(found is not None, f"{where} has no good checkpoint to go on from")
    state, best, meta = found
    trees = [{name: value[places] for name, value in tree.items()} for tree in (state, best)]
    return *trees, meta | {key: [meta[key][i] for i in places] for key in ("failed", "best", "rows")}
