"""One trial of a group on disk: its config and status, the rows that it writes during
training, and its final checkpoint and curves.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.media import plots
from aigc_jax.media.provenance_marks import describe_origin
from aigc_jax.training import loggers
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.documents import json_float


@dataclasses.dataclass
class Trial:
    """One trial of the group: its config, its directory and its status."""

    config: ConfigDict
    dir: RunDir
    data_hash: str = ""  # the fingerprint of its data set
    # {key: [in the config's file, in this run]}, stored with the config for readers
    changes: dict = dataclasses.field(default_factory=dict)
    # None, or {"step": ..., "metric": ...} of the first value that was not finite.
    failed: dict | None = None
    best: dict | None = None  # {"step": ..., "value": ...}
    trackers: list = dataclasses.field(default_factory=list)

    def write_row(self, row: dict[str, Any]) -> None:
        """Append a row to rows.jsonl and pass it to the trackers.

        Args:
          row: {"step": int, "split": name, metric: number or None}.
        """
        self.dir.append_row(row)
        for tracker in self.trackers:
            tracker.write_row(row)

    def open_trackers(self, after_step: int) -> None:
        """Open the trackers that the config enables, for rows after a step."""
        self.trackers = loggers.start_loggers(self.dir.path, self.config, after_step)

    def close_trackers(self) -> None:
        """Write what is pending and close the trackers."""
        for tracker in self.trackers:
            tracker.close()

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

    def write_failure(self) -> None:  # the status of a diverged trial
        """Write the status of a diverged trial, with its rows up to then."""
        assert self.failed is not None
        self.dir.sync_rows()
        reason = f"{self.failed['metric']} is not finite at step {self.failed['step']}"
        self.dir.write_status(
            "failed: diverged", **self.failed, reason=reason, rows=self.dir.digest_rows()
        )

    def sample_origin(self, weights_digest: str, step: int) -> dict[str, str]:
        """Return the metadata of its samples, by weights with this digest."""
        return describe_origin(configs.hash_identity(self.config), weights_digest, step, seed=0)

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
        """Draw all rows into curves.png, whose origin names the digest."""
        origin = self.sample_origin(weights_digest, step)
        plots.save_curves(self.dir / "curves.png", self.dir.read_rows(), origin)


def select_trial(
    leaves: dict[str, np.ndarray], i: int
) -> dict[str, np.ndarray]:  # {path: [N, ...]} -> {path: [1, ...]}
    """Return trial i of flattened stacked states, as a stack of one."""
    return {name: value[i : i + 1] for name, value in leaves.items()}
