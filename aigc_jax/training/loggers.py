"""Trackers, which export rows during training: TensorBoard events (without TensorFlow)
and Weights & Biases.
"""

import itertools
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.utils.errors import UserError


class TensorBoard:
    """Scalars `split/name` under WORKDIR/tensorboard."""

    def __init__(self, path: Path, config: ConfigDict, step: int) -> None:
        from tensorboardX import SummaryWriter

        before = set((path / "tensorboard").glob("*"))
        self._writer = SummaryWriter(
            str(path / "tensorboard"), purge_step=step + 1 if step else None
        )
        for file in set((path / "tensorboard").glob("*")) - before:
            _rename_without_host(file)

    def write_row(self, row: dict[str, Any]) -> None:
        """Write every value of a row that is not None, at the row's step."""
        for name, value in row.items():
            if name not in ("step", "split") and value is not None:
                self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def close(self) -> None:
        """Write what is pending and close the event file."""
        self._writer.close()


def _rename_without_host(file: Path) -> None:
    """Rename events.out.tfevents.TIME.HOST to events.out.tfevents.TIME.COUNT; the open
    file stays open.
    """
    stem = ".".join(file.name.split(".")[:4])
    names = (file.with_name(f"{stem}.{count}") for count in itertools.count())
    file.rename(next(name for name in names if not name.exists()))


class WandB:
    """The same scalars in Weights & Biases, on or offline; files in WORKDIR/wandb."""

    def __init__(self, path: Path, config: ConfigDict, step: int) -> None:
        check_loggers_installed(config)
        import wandb

        self._run = wandb.init(
            project="aigc_jax",
            name=path.name,
            dir=str(path),
            mode=config.run.wandb,
            resume="allow",
            config=json.loads(config.to_json_best_effort()),
        )

    def write_row(self, row: dict[str, Any]) -> None:
        """Send the values of a row that are not None, with the row's step."""
        values = {
            f"{row['split']}/{k}": v
            for k, v in row.items()
            if k not in ("step", "split") and v is not None
        }
        self._run.log(values | {"step": row["step"]})

    def close(self) -> None:
        """Send what is pending and mark the run as finished."""
        self._run.finish()


def check_loggers_installed(config: ConfigDict) -> None:
    """Raise a UserError unless the packages that `config.run` needs are installed."""
    try:
        if config.run.wandb != "off":
            import wandb  # noqa: F401
    except ImportError:
        raise UserError(
            f"config.run.wandb = {config.run.wandb!r} needs the package wandb: pip install wandb"
        ) from None


def start_loggers(workdir: Path, config: ConfigDict, after_step: int) -> list[TensorBoard | WandB]:
    """Return the trackers that `config.run` enables.

    Args:
      workdir: the run's directory.
      config: the run's config.
      after_step: the step after which rows follow; TensorBoard discards later events of
        an interrupted run.
    """
    enabled = [TensorBoard] * bool(config.run.tensorboard) + [WandB] * (config.run.wandb != "off")
    return [tracker(workdir, config, after_step) for tracker in enabled]
