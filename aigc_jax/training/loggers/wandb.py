"""The logger `wandb`: Weights & Biases, with its files in WORKDIR/wandb."""

import os
from typing import Any

from aigc_jax.training.config import to_json_dict
from aigc_jax.training.loggers.base import RunInfo, Samples, metrics_of


class WeightsAndBiases:
    """A run of the project aigc_jax ($WANDB_PROJECT: another one) with the hash of the
    trial as its id and the hash of its sweep as its group.

    A resumed run appends to the run of this id. Rows that were sent before are ignored,
    since their step is not new.
    """

    def __init__(self, run: RunInfo) -> None:
        import wandb

        self._library = wandb
        self._run = wandb.init(
            id=run.hash,
            name=run.path.name,
            group=run.sweep or None,
            project=os.environ.get("WANDB_PROJECT", "aigc_jax"),
            dir=str(run.path),
            resume="allow",
            reinit="create_new",  # the trials of a group are open at once
            config=to_json_dict(run.config),
            # Its capture and its own lines would break the progress line.
            settings=wandb.Settings(console="off", quiet=True, x_disable_machine_info=True),
        )

    def write_row(self, row: dict[str, Any]) -> None:
        """Send every finite value at the row's step."""
        self._run.log(metrics_of(row), step=row["step"])

    def write_samples(self, samples: Samples) -> None:
        """Send texts as a table, an image or a sound as it is stored."""
        library, name = self._library, str(samples.path)
        if samples.texts:
            rows = [[samples.step, i, text] for i, text in enumerate(samples.texts, 1)]
            value = library.Table(columns=["step", "number", "text"], data=rows)
        elif samples.path.suffix == ".png":
            value = library.Image(name)
        elif samples.path.suffix == ".wav":
            value = library.Audio(name)
        else:
            return
        self._run.log({"samples": value}, step=samples.step)

    def close(self, status: str) -> None:
        """Send what is pending and end the run, as failed if it did."""
        self._run.finish(exit_code=int(status.startswith("failed")))
