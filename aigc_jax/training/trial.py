"""One trial of a group on disk: its config and status, the rows that it writes during
training, and its final checkpoint and curves.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.media import plots
from aigc_jax.media.provenance_marks import describe_origin
from aigc_jax.training import loggers
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.documents import plain


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

    def write(self, row: dict) -> None:
        """Append a row to rows.jsonl and pass it to the trackers."""
        self.dir.append(row)
        for tracker in self.trackers:
            tracker.row(row)

    def open_trackers(self, step: int) -> None:
        """Open the trackers that the config enables, for rows after a step."""
        self.trackers = loggers.start_loggers(self.dir.path, self.config, step)

    def close_trackers(self) -> None:
        """Write what is pending and close the trackers."""
        for tracker in self.trackers:
            tracker.close()

    def improves(self, value: float, step: int) -> bool:
        """Return whether a value of config.best_metric is the best so far, and store it
        if so.
        """
        sign = dict(min=1, max=-1)[self.config.best_mode]
        better = math.isfinite(value) and (
            self.best is None or sign * value < sign * self.best["value"]
        )
        if better:
            self.best = dict(step=step, value=plain(value))
        return better

    def mark_failed(self) -> None:
        """Write the status of a diverged trial, with its rows up to then."""
        assert self.failed is not None
        self.dir.sync()
        reason = f"{self.failed['metric']} is not finite at step {self.failed['step']}"
        self.dir.status(
            "failed: diverged", **self.failed, reason=reason, rows=self.dir.written_rows()
        )

    def origin(self, weights: str, step: int) -> dict:
        """Return the metadata of its samples, by weights with the hash `weights`."""
        return describe_origin(configs.hash_of(self.config), weights, step, seed=0)

    def export(self, step: int, state: dict, best: dict) -> None:
        """Save a checkpoint of this trial alone, from a group's states."""
        with Checkpoints(self.dir / "checkpoints") as checkpoints:
            meta = dict(failed=[None], best=[self.best], rows=[self.dir.written_rows()])
            checkpoints.save(step, state, best if self.best else {}, meta, as_npz=True)

    def draw_curves(self, weights: str, step: int) -> None:
        """Draw all rows into curves.png, whose origin names the hash `weights`."""
        plots.save_curves(self.dir / "curves.png", self.dir.rows(), self.origin(weights, step))


def select_trial(flat: dict, i: int) -> dict:
    """Return trial i of flattened stacked states, as a stack of one."""
    return {name: value[i : i + 1] for name, value in flat.items()}
