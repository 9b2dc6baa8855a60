"""One trial of a group on disk: what it is, how it stands, what it writes while it
trains and what is left of it in the end.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from aigc_jax.core import config as configs
from aigc_jax.media import plots
from aigc_jax.media.provenance_marks import origin
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.documents import plain


@dataclasses.dataclass
class Trial:
    """One trial of the group: its config, its directory, and how it stands."""

    config: ConfigDict
    dir: RunDir
    # None, or {"step": ..., "metric": ...} of the first value that was not finite.
    failed: dict | None = None
    best: dict | None = None  # {"step": ..., "value": ...}
    trackers: list = dataclasses.field(default_factory=list)

    def write(self, row: dict) -> None:
        """Append a row to rows.jsonl and hand it to the trackers."""
        self.dir.append(row)
        for tracker in self.trackers:
            tracker.row(row)

    def improves(self, value: float, step: int) -> bool:
        """Whether a value of config.best is the best so far; it becomes the best."""
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
        """What its samples say of themselves, whose weights have this hash."""
        return origin(configs.hash_of(self.config), weights, step, seed=0)

    def export(self, step: int, state: dict, best: dict) -> None:
        """Its own checkpoint, out of a group's."""
        with Checkpoints(self.dir / "checkpoints") as checkpoints:
            meta = dict(failed=[None], best=[self.best], rows=[self.dir.written_rows()])
            checkpoints.save(step, state, best if self.best else {}, meta, plain=True)

    def draw_curves(self, weights: str, step: int) -> None:
        """Draw all rows into curves.png, whose origin names the hash `weights`."""
        plots.save_curves(self.dir / "curves.png", self.dir.rows(), self.origin(weights, step))


def part(flat: dict, i: int) -> dict:
    """Trial i of flattened stacked states, as a stack of one."""
    return {name: value[i : i + 1] for name, value in flat.items()}
