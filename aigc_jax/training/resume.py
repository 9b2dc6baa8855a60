"""The first states of training: those of the run's checkpoint, those of a halving rung,
or initial ones.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aigc_jax.core import distributed
from aigc_jax.core.method import TrainState
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.init_from import warm_start_states
from aigc_jax.training.programs import Programs, drop_opt_states
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import restore_like
from aigc_jax.training.trial import Trial
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError, format_command, require
from aigc_jax.utils.terminal import print_warning


class ParentRung(NamedTuple):
    """A group of trials that stopped at a rung of successive halving; the selected
    trials continue as a smaller group.
    """

    path: Path  # the directory with the group's checkpoints
    trial_indices: list[int]  # indices of the selected trials in the group


class Beginning(NamedTuple):
    """The states that training begins with."""

    states: TrainState
    best: TrainState | None  # the best states so far, without optimiser states
    step: int  # -1 where nothing was restored


def load_parent_rung(
    parent: ParentRung,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:  # -> state, best, meta
    """Return (state, best, meta) of a rung's selected trials, as in a checkpoint of a
    group of these trials alone.
    """
    checkpoint = Checkpoints(parent.path / "checkpoints").read_newest_valid(print_warning)
    if checkpoint is None:
        raise UserError(f"{parent.path} has no good checkpoint to resume from")
    state, best, meta = checkpoint
    take = lambda tree: {name: value[parent.trial_indices] for name, value in tree.items()}
    meta |= {
        key: [meta[key][i] for i in parent.trial_indices] for key in ("failed", "best", "rows")
    }
    return take(state), take(best), meta


def restore_or_init(
    programs: Programs,
    trials: Sequence[Trial],
    checkpoints: Checkpoints,
    parent: ParentRung | None,
    report: Callable[[str], None],
) -> Beginning:
    """Return the states of the newest valid checkpoint, else of the parent rung, else
    initial states.

    Rows that were written after these states are deleted; the trials' failures and best
    values are restored.

    Args:
      programs: the compiled programs of the trials.
      trials: the open trials.
      checkpoints: their common checkpoints.
      parent: the rung whose selected trials these are; None: without successive
        halving.
      report: called with messages about damaged checkpoints, the step at which training
        resumes, and the arrays of config.init_from.

    Raises:
      UserError: a checkpoint was saved, but none can be read; rows have changed since;
        or the states are of another method, or config.init_from cannot be used.
    """
    checkpoints.remove_incomplete()
    distributed.barrier("tidied")  # no process writes from here until `delete_later_rows`
    own = checkpoints.read_newest_valid(report, programs.layout.local_slices)
    checkpoint = own or (load_parent_rung(parent) if parent else None)
    newest = checkpoint[2]["step"] if checkpoint else -1
    require(
        distributed.broadcast_from_primary(newest) == newest,
        f"{checkpoints.path} differs between processes: the directory must be on a file "
        "system that all processes share",
    )
    if checkpoint is None:
        states = programs.init([t.config for t in trials])
        config = trials[0].config
        if config.init_from:
            tokenizer = programs.dataset.tokenizer
            states = programs.to_mesh(warm_start_states(states, config, tokenizer, report))
        delete_later_rows(checkpoints, trials, -1, None, is_own_checkpoint=False)
        return Beginning(states, None, -1)
    state, best, meta = checkpoint
    where = f"the checkpoint of step {newest}"
    best_states = (
        programs.to_mesh(restore_like(drop_opt_states(programs.shapes), best, where))
        if best
        else None
    )
    states = programs.to_mesh(restore_like(programs.shapes, state, where))
    for t, failed, value in zip(trials, meta["failed"], meta["best"], strict=True):
        t.failed, t.best = failed, value
    delete_later_rows(checkpoints, trials, newest, meta["rows"], own is not None)
    report(f"resuming at step {newest:,}")
    return Beginning(states, best_states, newest)


def check_no_checkpoint_lost(
    checkpoints: Checkpoints, dirs: Sequence[RunDir], begin_step: int
) -> None:
    """Raise a UserError where training would begin at a step although a later
    checkpoint was saved and is lost.

    Args:
      checkpoints: the checkpoints, none of them valid.
      dirs: the trials' work directories, whose status and rows show later steps.
      begin_step: the step of the parent rung, or 0.
    """
    lost = [
        p.name for p in checkpoints.path.glob("*") if p.name.removesuffix(".damaged").isdecimal()
    ]
    proofs = [f"{checkpoints.path} holds {', '.join(sorted(lost))}"] if lost else []
    for run in dirs:
        status, config = run.read_status(), run.read_json("config.json")
        if (
            status.get("status") in ("running", "preempted", "stopped", "done")
            and status["step"] > begin_step
        ):
            proofs.append(
                f"{run / 'STATUS.json'} records {status['status']} at step {status['step']:,}"
            )
        every = config["config"]["run"]["save_every"] if config else 0
        last = max(
            (row["step"] for row in documents.read_lines(run / "rows.jsonl", skip_invalid=True)),
            default=0,
        )
        if every and last > begin_step + 2 * every:  # a save waits for the previous one
            proofs.append(f"{run / 'rows.jsonl'} reaches step {last}")
    require(
        not proofs,
        f"no checkpoint of {checkpoints.path.parent} can be read, although one was saved "
        f"({proofs[0] if proofs else ''}): "
        "restore the checkpoints from a copy, or begin again at step 0: "
        f"{format_command('train', restart=True)}, in a sweep "
        f"{format_command('sweep', restart=True)}",
    )


def delete_later_rows(
    checkpoints: Checkpoints,
    trials: Sequence[Trial],
    step: int,
    saved_digests: Sequence[dict[str, Any] | None] | None,
    is_own_checkpoint: bool,
) -> None:
    """Delete the rows past the step at which training resumes.

    Args:
      checkpoints: the run's checkpoints; damaged ones past the step are renamed.
      trials: the open trials.
      step: the step at which training resumes; -1: from the beginning.
      saved_digests: per trial {"bytes": length, "sha256": digest} of its rows at the
        checkpoint; None: without a checkpoint.
      is_own_checkpoint: whether the checkpoint is one of `checkpoints`.

    Raises:
      UserError: the rows are not those of the checkpoint, or a later checkpoint is
        lost.
    """
    digests, error = saved_digests or [None] * len(trials), None
    if distributed.is_primary():
        try:
            if not is_own_checkpoint:
                check_no_checkpoint_lost(checkpoints, [t.dir for t in trials], max(step, 0))
            for t, rows in zip(trials, digests, strict=True):
                t.dir.verify_rows(rows)
        except UserError as e:
            error = e
    refused = distributed.broadcast_from_primary(int(error is not None))
    require(
        not refused or error is not None,
        "the first process rejects the directory and reports the reason",
    )
    if error is not None:
        raise error
    checkpoints.quarantine(step)
    for t, rows in zip(trials, digests, strict=True):
        t.dir.truncate_after(step, rows if distributed.is_primary() else None)
        # The status may report a value past this step that was not finite.
        if "rows" in t.dir.read_status() and not t.failed:
            t.dir.write_status("running", max(step, 0))
