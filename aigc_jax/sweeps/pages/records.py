"""The trials and runs of a report: status, reason, step, config and origin."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.pages.commands import Origin
from aigc_jax.sweeps.tables import format_resumption
from aigc_jax.training.run_dir import DAMAGED, RESUMABLE, RunDir
from aigc_jax.utils import documents


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial or run.

    Attributes:
      name: its name.
      status: such as "done"; "": unknown.
      reason: why it failed; "" if it did not.
      step: the last step of the status; None: unknown.
      run: its directory; None for committed rows.
      config: {key: value} of its config; {} if unknown.
      environment: the contents of environment.json; {} without one.
      origin: the config file and its changes; None: unknown.
    """

    name: str
    status: str
    reason: str = ""
    step: int | None = None
    run: RunDir | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    origin: Origin | None = None


def make_record(
    name: str, run: RunDir, config: dict[str, Any], origin: Origin | None
) -> TrialRecord:
    """Return the record of a run directory, some of whose files may not exist yet."""
    status = run.read_status()
    reason = status.get("reason") or (
        f"{status['metric']} is not finite" if "metric" in status else ""
    )
    return TrialRecord(
        name,
        run.describe_status(),
        str(reason),
        status.get("step"),
        run,
        config,
        documents.peek(run / "environment.json") or {},
        origin,
    )


def describe_record(
    record: TrialRecord, rows: Sequence[dict[str, Any]]
) -> dict[str, str]:  # columns of a trial
    """Return the status of a run with these rows, and the step at which it was
    interrupted.
    """
    if record.run is None or record.status not in RESUMABLE:
        return dict(status=record.status)
    return dict(status=record.status, failure=record.run.describe_step(rows))


def describe_failure(trial: dict[str, Any], results: Results) -> str:  # "" without a reason
    """Return the failure of a trial, or where it was interrupted and how it resumes."""
    failure = str(trial.get("failure", ""))
    is_resumable = failure and trial["status"] in RESUMABLE
    return f"{failure}; {format_resumption(results)}" if is_resumable else failure


def update_records(records: list[TrialRecord], results: Results) -> list[TrialRecord]:
    """Return the records with the statuses of the results, and as the step of an
    unfinished trial that of its last row.
    """
    last = {row["trial"]: row["step"] for row in results.rows}
    return [
        dataclasses.replace(
            record,
            status=trial["status"],
            step=record.step
            if trial["status"] in ("failed: diverged", DAMAGED)
            else last.get(record.name, record.step),
            reason=record.reason or describe_failure(trial, results),
        )
        for record, trial in zip(records, results.trials, strict=True)
    ]
