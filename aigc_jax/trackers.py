"""Rows sent elsewhere while a run goes on: TensorBoard events (without TensorFlow) and Weights & Biases."""

import itertools
import json
from pathlib import Path

from aigc_jax.errors import UserError


class TensorBoard:
    """Scalars `split/name` under WORKDIR/tensorboard."""

    def __init__(self, path, config, step):
        from tensorboardX import SummaryWriter

        before = set((path / "tensorboard").glob("*"))
        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=step + 1 if step else None)
        for file in set((path / "tensorboard").glob("*")) - before:
            _rename_without_host(file)

    def row(self, row):
        for name, value in row.items():
            if name not in ("step", "split") and value is not None:
                self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def close(self):
        self._writer.close()


def _rename_without_host(file: Path):
    """events.out.tfevents.TIME.HOST becomes events.out.tfevents.TIME.COUNT; what is open stays so."""
    stem = ".".join(file.name.split(".")[:4])
    names = (file.with_name(f"{stem}.{count}") for count in itertools.count())
    file.rename(next(name for name in names if not name.exists()))


class WandB:
    """The same scalars in Weights & Biases, online or offline; its files lie in WORKDIR/wandb."""

    def __init__(self, path, config, step):
        check(config)
        import wandb

        self._run = wandb.init(
            project="aigc_jax", name=path.name, dir=str(path), mode=config.run.wandb, resume="allow",
            config=json.loads(config.to_json_best_effort()),
        )  # fmt: skip

    def row(self, row):
        values = {f"{row['split']}/{k}": v for k, v in row.items() if k not in ("step", "split") and v is not None}
        self._run.log(values | {"step": row["step"]})

    def close(self):
        self._run.finish()


def check(config):
    """Raise a UserError unless the packages that `config.run` asks for are installed."""
    try:
        if config.run.wandb != "off":
            import wandb  # noqa: F401
    except ImportError:
        raise UserError(f"config.run.wandb = {config.run.wandb!r} needs the package wandb: pip install wandb") from None


def start(path, config, step) -> list:
    """The trackers that `config.run` asks for, going on after a step."""
    wanted = [TensorBoard] * bool(config.run.tensorboard) + [WandB] * (config.run.wandb != "off")
    return [tracker(path, config, step) for tracker in wanted]
