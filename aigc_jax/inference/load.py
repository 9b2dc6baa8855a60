"""Loading a work directory, or a directory with the weights of a GPT-2, as a run."""

import functools
from pathlib import Path

import jax
import numpy as np

from aigc_jax.data.dataset import Spec, make_dataset_without_arrays
from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.data.tokenizers.huggingface import read_directory
from aigc_jax.inference.run import Run
from aigc_jax.training import config as configs
from aigc_jax.training import config_identity, gpt2_weights
from aigc_jax.training.programs import Programs, drop_opt_states
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import flatten_state, restore_like
from aigc_jax.utils.errors import UserError, join_names

SHOWN = 8  # number of a sweep's trials that an error message lists


class Pretrained(Run):
    """A GPT-2 directory as a run without data and rows, for text generation."""

    def __init__(self, path: str | Path) -> None:
        self.dir, self.step, self.meta = RunDir(path), 0, {}
        context = gpt2_weights.read_model_fields(path)["context"]
        gpt2_weights.check_tokens_have_rows(path, self.tokenizer)
        start = gpt2_weights.find_start_token(path, self.tokenizer, self.end_tokens)
        self.spec = Spec("text", (context,), 1, vocabulary=self.tokenizer.size, start=start)
        self.config = configs.resolve_durations(gpt2_weights.make_config(path), 1, 1)
        self.stored = dict(hash=config_identity.hash_identity(self.config))
        self.programs = Programs(self.config, make_dataset_without_arrays(self.spec), 1)
        shapes = drop_opt_states(self.programs.shapes)
        params = gpt2_weights.read_params(path, shapes.params["net"]["embed"]["embedding"].shape[1])
        ours = {f"params/net/{name}": value[None] for name, value in params.items()}
        rest = shapes.replace(
            step=np.zeros(1, np.int32),
            key=jax.random.key(0)[None],
            params={},
            hp={k: np.zeros(1, np.float32) for k in shapes.hp},
        )
        self.states = self.programs.to_mesh(
            restore_like(shapes, flatten_state(rest) | ours, str(path))
        )

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the directory's files."""
        return read_directory(self.dir.path)

    @functools.cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The ids of the tokens that end a text, by the directory's config.json."""
        return gpt2_weights.find_end_tokens(self.dir.path, self.tokenizer)


def load(workdir: str | Path, checkpoint: str = "latest", data_dir: str | None = None) -> Run:
    """Return the run in a work directory, or a GPT-2 directory as a run. Raise a
    UserError where `workdir` is neither; of a sweep, the message lists the trials.

    Args:
      checkpoint: the "latest" or the "best" valid one; no effect on a GPT-2 directory.
      data_dir: directory of the data sets, instead of config.run.data_dir.
    """
    if (Path(workdir) / "sweep.json").is_file():
        trials = sorted(str(path.parent) for path in Path(workdir).glob("trials/*/config.json"))
        named = f"load one of {join_names(trials, SHOWN)}" if trials else "no trial has started yet"
        raise UserError(f"{workdir} is a sweep, whose trials are runs of their own: {named}")
    return (
        Pretrained(workdir)
        if gpt2_weights.is_huggingface_directory(workdir)
        else Run(workdir, checkpoint, data_dir)
    )
