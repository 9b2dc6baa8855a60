"""One trial of a group on disk: its config and status, the rows that it writes during
training, and its final checkpoint and curves.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.media import curves
from aigc_jax.media.provenance_marks import describe_origin
from aigc_jax.methods.norms import PREFIX as NORMS
from aigc_jax.training import config_identity, loggers
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.divergence import describe_divergence
from aigc_jax.training.loggers.base import FailureReport, GuardedLogger, RunInfo, Samples
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.documents import json_float


@dataclasses.dataclass
class Trial:
    """One trial of the group: its config, its directory and its status."""

    config: ConfigDict
    dir: RunDir
    data_hash: str = ""  # the fingerprint of its data set
    # {"source": the config's file, "changes": {key: [in the file, in this run]}},
    # stored with the config for readers; {}: as stored before
    origin: dict = dataclasses.field(default_factory=dict)
    # None, or {"step": ..., "metric": ..., "before": last_finite} of the first value
    # that was not finite
    failed: dict | None = None
    last_finite: dict | None = None  # {"step": ..., metric: value} of the last call
    best: dict | None = None  # {"step": ..., "value": ...}
    sweep: str = ""  # the hash of its sweep; "": a run of its own
    loggers: list[GuardedLogger] = dataclasses.field(default_factory=list)

    def write_row(self, row: dict[str, Any]) -> None:
        """Append a row to rows.jsonl and pass it to the loggers.

        Args:
          row: {"step": int, "split": name, metric: number or None}.
        """
        self.dir.append_row(row)
        for logger in self.loggers:
            logger.write_row(row)

    def log_samples(self, samples: Samples) -> None:
        """Pass samples that were written to a file to the loggers."""
        for logger in self.loggers:
            logger.write_samples(samples)

    def open_loggers(self, first_step: int, report: FailureReport) -> None:
        """Open the loggers of config.run.log.

        Args:
          first_step: the step of the first row that follows.
          report: called with one line when a logger fails.
        """
        name = config_identity.hash_identity(self.config)
        run = RunInfo(self.dir.path, self.config, name, self.sweep, first_step)
        self.loggers = loggers.open_loggers(run, report)

    def close_loggers(self) -> None:
        """Write what is pending and close the loggers."""
        status = self.dir.describe_status()
        for logger in self.loggers:
            logger.close(status)

    def update_best(self, value: float, step: int) -> bool:  # whether it is the best so far
        """Return whether a value of config.best_metric is the best so far, and store it
        if so.
        """
        sign = dict(min=1, max=-1)[self.config.best_mode]
        better = math.isfinite(value) and (
            self.best is None or sign * value < sign * self.best["value"]
        )
        if better:
            self.best = dict(step=step, value=json_float(value))
        return better

    def write_train_rows(
        self, steps_before: int, values: dict[str, np.ndarray], is_logged: Callable[[int], bool]
    ) -> None:  # values {metric: [n]}
        """Write the due rows of a call. The rows end with the first value, other than a
        norm, that is not finite, where the trial fails.

        Args:
          steps_before: before the call; value i is of step steps_before + 1 + i.
          values: {metric: [n]} of the n steps of a call.
          is_logged: whether a step has a row.
        """
        bad = [
            (int(np.argmin(np.isfinite(v))), name)
            for name, v in values.items()
            if not (name.startswith(NORMS) or np.isfinite(v).all())
        ]
        end = min(bad)[0] if bad else len(next(iter(values.values())))
        for k in range(end + bool(bad)):
            step = steps_before + k + 1
            if k == end or is_logged(step):
                row = {name: json_float(v[k]) for name, v in values.items()}
                self.write_row(dict(step=step, split="train") | row)
        if end:
            last = {name: json_float(v[end - 1]) for name, v in values.items()}
            self.last_finite = dict(step=steps_before + end) | last
        if bad:
            self.mark_diverged(steps_before + end + 1, min(bad)[1])

    def mark_diverged(self, step: int, metric: str) -> None:
        """Mark the trial as failed at a step, where a metric or the parameters at this
        path are not finite, and write its status.
        """
        self.failed = dict(step=step, metric=metric)
        if before := self.last_finite or self.read_last_finite_row():
            self.failed["before"] = before
        self.write_failure()

    def read_last_finite_row(self) -> dict | None:  # {"step": ..., metric: value}
        """Return the last training row whose values are finite, None without any: the
        last finite values where the first call after resuming diverges.
        """
        self.dir.sync_rows()
        rows = reversed(documents.read_lines(self.dir / "rows.jsonl", skip_invalid=True))
        finite = (r for r in rows if r["split"] == "train" and None not in r.values())
        row = next(finite, None)
        return row and {name: value for name, value in row.items() if name != "split"}

    def write_failure(self) -> None:  # the status of a diverged trial
        """Write the status of a diverged trial, with its rows up to then."""
        assert self.failed is not None
        self.dir.sync_rows()
        reason = describe_divergence(self.failed, self.config)
        self.dir.write_status(
            "failed: diverged", **self.failed, reason=reason, rows=self.dir.digest_rows()
        )

    def sample_origin(self, weights_digest: str, step: int) -> dict[str, str]:
        """Return the metadata of its samples, by weights with this digest."""
        return describe_origin(
            config_identity.hash_identity(self.config), weights_digest, step, seed=0
        )

    def export_checkpoint(
        self, step: int, state: dict[str, np.ndarray], best: dict[str, np.ndarray]
    ) -> None:  # {path: [1, ...]}
        """Save a checkpoint of this trial alone, from a group's states.

        Args:
          step: the step of the states.
          state: {path: array [1, ...]} (`select_trial`).
          best: the same of the best state, used if the trial has a best value.
        """
        with Checkpoints(self.dir / "checkpoints") as checkpoints:
            meta = dict(failed=[None], best=[self.best], rows=[self.dir.digest_rows()])
            checkpoints.save(step, state, best if self.best else {}, meta, as_npz=True)

    def draw_curves(self, weights_digest: str, step: int) -> None:
        """Draw all rows but norms into curves.png, whose origin names the digest."""
        origin = self.sample_origin(weights_digest, step)
        rows = [
            {name: value for name, value in row.items() if not name.startswith(NORMS)}
            for row in self.dir.read_rows()
        ]
        curves.save_curves(self.dir / "curves.png", rows, origin)


def select_trial(
    leaves: dict[str, np.ndarray], i: int
) -> dict[str, np.ndarray]:  # {path: [N, ...]} -> {path: [1, ...]}
    """Return trial i of flattened stacked states, as a stack of one."""
    return {name: value[i : i + 1] for name, value in leaves.items()}
