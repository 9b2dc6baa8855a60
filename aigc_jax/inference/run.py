"""A run on disk as a Python object: sample, evaluate, generate text, read its rows."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from aigc_jax import data
from aigc_jax.core import config as configs
from aigc_jax.core.mesh import mesh_or_one
from aigc_jax.core.method import TrainState
from aigc_jax.data import tokenizers
from aigc_jax.data.dataset import Spec, spec_from_json, without_arrays
from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.data.tokenizers.gpt2 import read_tokenizer
from aigc_jax.inference import generation
from aigc_jax.media import images
from aigc_jax.methods.decoding import SamplingParams, check_range
from aigc_jax.metrics.inputs import equal_parts
from aigc_jax.metrics.pairwise import nearest_neighbours
from aigc_jax.metrics.two_sample_test import discriminant_scores
from aigc_jax.training import feature_extractors, gpt2_weights, identity
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.evaluation import Evaluator, example_blocks, read_examples
from aigc_jax.training.programs import Programs, without_opt
from aigc_jax.training.run_dir import TOKENIZER, RunDir
from aigc_jax.training.serialization import digest_leaves, flatten_state, restore_like
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError, argument, check_type, choose, listing, require
from aigc_jax.utils.terminal import print_warning

SHOWN = 8  # number of a sweep's trials that an error message lists


class Run:
    """A run at one of its checkpoints, as `aigc_jax.load` returns it.

    Attributes:
      config: the resolved config.
      state: the TrainState without a trial axis; for the best checkpoint, `opt` is {}.
      step: the step of the state.
      meta: the checkpoint's metadata.
    """

    data_dir = ""  # directory of the data sets; by default the usual locations
    inception = ""  # weights file that the last evaluation used
    mesh = None  # the config's mesh

    def __init__(
        self, workdir: str | Path, checkpoint: str = "latest", data_dir: str | None = None
    ) -> None:
        self.dir = RunDir(workdir)
        self.stored = self.dir.config()
        self.config = identity.stored_config(self.stored)
        self.data_dir = self.config.run.data_dir if data_dir is None else data_dir
        self.spec = spec_from_json(self.stored["spec"])
        with Checkpoints(Path(workdir) / "checkpoints") as checkpoints:
            newest = checkpoints.newest(print_warning)
        if newest is None:
            raise UserError(f"{workdir} has no good checkpoint yet")
        self.mesh = mesh_or_one(self.config.run.mesh, self.config.batch_size)
        self.programs = Programs(self.config, without_arrays(self.spec), 1, self.mesh)
        state, best, self.meta = newest
        shapes = self.programs.shapes
        if checkpoint == "best":
            require(
                bool(best) and self.meta["best"][0] is not None,
                f"{workdir} has no best checkpoint: config.best_metric = "
                f"{self.config.best_metric!r}",
            )
            self.states = self.programs.to_mesh(
                restore_like(without_opt(shapes), best, "the best checkpoint")
            )
            self.step = self.meta["best"][0]["step"]
        elif checkpoint == "latest":
            self.states = self.programs.to_mesh(restore_like(shapes, state, "the checkpoint"))
            self.step = self.meta["step"]
        else:
            raise UserError(f"{argument('checkpoint')}={checkpoint} is neither latest nor best")

    @functools.cached_property
    def full(self) -> Programs:
        """The programs with the run's data set, which is loaded on first use."""
        dataset = data.load(self.config.data, self.data_dir)
        return Programs(self.config, dataset, 1, self.mesh)

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """The evaluator of the run on its data set."""
        return Evaluator(self.full, self.extractor)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of a run on text, read from the run's directory."""
        path = self.dir / TOKENIZER
        tokenizer = tokenizers.read(path)
        require(
            tokenizer.sha256 == self.stored.get("tokenizer"),
            f"{path} is not the tokenizer that the run was trained with; "
            f"{documents.FILES['tokenizer.json'].remedy}",
        )
        return tokenizer

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids of the tokens that end a text."""
        return () if self.tokenizer.end is None else (self.tokenizer.end,)

    @property
    def state(self) -> TrainState:
        """The TrainState of this run, without the trial axis."""
        return jax.tree.map(lambda x: x[0], self.states)

    def __repr__(self) -> str:
        return f"Run({str(self.dir.path)!r}, step {self.step:,})"

    def _check_split(self, split: str) -> None:
        splits = self.programs.dataset.splits
        require(split in splits, f"{argument('split')}={split} is none of {', '.join(splits)}")

    def rows(self, split: str | None = None) -> list[dict]:
        """Return the rows of rows.jsonl, of one split or of all."""
        return [row for row in self.dir.rows() if split in (None, row["split"])]

    def sample(
        self,
        num: int | None = None,
        what: str | None = None,
        seed: int = 0,
        split: str = "test",
        label: int | None = None,
    ) -> np.ndarray | list[str]:  # -> [num, ...] on the host, or num texts
        """Return samples: images and points as the array of `draw`, texts as a list of
        str, each up to its end.

        Args:
          num: number of samples; by default the size of the sampler's image grid, or 64
            without a grid; 8 texts.
          what: name of the sampler, by default the method's first ("prior", "text").
          seed: the same seed gives the same samples.
          split, label: as in `draw`.
        """
        samples = self.draw(num, what, seed, split, label)
        return [self.tokenizer.text(row) for row in samples] if self.is_text else samples

    @property
    def is_text(self) -> bool:
        """Whether the samples are texts."""
        return self.spec.kind in ("text", "pairs")

    @property
    def default_sampler(self) -> str:
        """The name of the method's first sampler."""
        return next(iter(self.programs.method.samplers))

    def sample_shape(self, what: str) -> tuple[int, ...]:
        """Return the shape of one image or point by a sampler, without sampling."""
        sampler = choose(self.programs.method.samplers, what, "what")
        one = jax.ShapeDtypeStruct((1,), "int32")
        batch = {
            "index": one,
            "class": one,
            "label": one,
            "x": jax.ShapeDtypeStruct((1, *self.spec.shape), "float32"),
        }
        return jax.eval_shape(sampler, self.state, jax.random.key(0), batch).shape[1:]

    def generate(
        self,
        prompts: list[str],
        num_tokens: int = 256,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """Return a language model's continuation of each prompt, without the prompt: at
        most `num_tokens` tokens, up to the end of the text.

        The sampling parameters are those of `methods.decoding.SamplingParams` and of
        `aigc sample`. The same seed gives the same texts, whatever the number of
        prompts. "" is the beginning of a text. Of an encoder-decoder, and of a prefix
        LM (config.data.prefix_lm), the prompts are sources and the texts their
        targets; an encoder-decoder decodes by beam search with config.num_beams
        hypotheses and accepts no sampling parameters. Raises a UserError for a number
        out of range.
        """
        choice = SamplingParams(temperature, top_k, top_p, min_p, repetition)
        require(
            self.programs.method.language is not None,
            f"config.method = {self.config.method!r} does not generate text",
        )
        is_valid = isinstance(prompts, (list, tuple)) and all(
            isinstance(prompt, str) for prompt in prompts
        )
        require(is_valid, f"prompts = {prompts!r:.60} must be a list of strings")
        return generation.generate_completions(
            self, prompts, num_tokens, choice, seed, print_warning
        )

    def draw(
        self,
        num: int | None = None,
        what: str | None = None,
        seed: int = 0,
        split: str = "test",
        label: int | None = None,
    ) -> np.ndarray:  # [num, ...] on the host
        """Return samples as an array: images with the values that files and metrics use
        (`media.images.as_saved`), texts as tokens. `num`, `what` and `seed` are those
        of `sample`.

        Args:
          split: split of the examples that conditional samplers use. Unconditional
            samplers need no data set on disk.
          label: class of all samples, for a class-conditional generator.
        """
        what = what or self.default_sampler
        self._check_split(split)
        check_range("seed", seed, 0, generation.SEEDS - 1, integer=True)
        each, first = (1, 0) if label is None else (self.classes, label)
        require(
            label is None or (self.classes and what == "prior"),
            f"{argument('label')}={label} needs prior samples of a class-conditional model (GANs: "
            "config.gan.condition, VAEs: config.conditional)",
        )
        require(
            label is None or 0 <= label < self.classes,
            f"{argument('label')}={label} must be one of 0 .. {self.classes - 1}",
        )
        sampler = choose(self.programs.method.samplers, what, "what")
        default = 8 if self.is_text else math.prod(sampler.grid or (8, 8))
        num = default if num is None else num
        check_range("num", num, 1, generation.MOST, integer=True)
        require(
            not self.is_text or what != "text" or self.spec.start >= 0,
            f"{argument('what')}=text needs a start token, but the tokenizer has none: "
            "pass prompts",
        )
        programs = self.full if sampler.conditioned else self.programs
        samples = programs.draw(self.states, what, num, split, seed, each=each, first=first)[0]
        return images.as_saved(samples, self.spec) if sampler.is_image else samples

    def neighbours(
        self, num: int | None = None, seed: int = 0, label: int | None = None
    ) -> np.ndarray:  # -> [num, 2, ...]
        """Return samples of the prior, each paired with its nearest training example in
        pixel space, which shows copies of training examples.
        """
        samples = self.draw(num or 32, "prior", seed, label=label)
        train = (block["x"] for block in example_blocks(self.full.dataset, "train"))
        return np.stack([samples, nearest_neighbours(samples, train)[0]], axis=1)

    def separated(
        self, num: int | None = None, seed: int = 0, label: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:  # -> [2, k, ...], [2, k]
        """Return k examples of the test split and k samples of the prior, each sorted
        by `metrics.two_sample_test.discriminant_scores` (the higher, the more like an
        example), and these scores; by default of 2,000 samples. Classes are as frequent
        as in the split. label: the only class of the examples and the samples.
        """
        examples, num = read_examples(self.full.dataset, "test"), num or 2000
        if label is None:
            labels = self.full.class_labels("test", num)
            fake = self.full.draw(self.states, "prior", num, "test", seed, labels=labels)[0]
            sets = equal_parts(examples["x"], images.as_saved(fake, self.spec))
        else:
            fake = self.draw(num, "prior", seed, label=label)
            sets = equal_parts(examples["x"][examples["label"] == label], fake)
        scores = discriminant_scores(*(self.evaluator.extract(x)[0] for x in sets))
        require(
            np.isfinite(scores).all(),
            f"{argument('what')}=separability needs at least 4 samples and 4 examples, all finite; "
            f"each set has {len(sets[0])}",
        )
        order = np.argsort(scores, axis=1, kind="stable")
        return np.stack(
            [x[places] for x, places in zip(sets, order, strict=True)]
        ), np.take_along_axis(scores, order, 1)

    @property
    def classes(self) -> int:
        """Number of classes of the sampler "prior"; 0 where it is not conditional."""
        return self.programs.num_classes

    def columns(self, what: str) -> int | None:
        """Return the number of columns of a sampler's image grid, None without one."""
        sampler = self.programs.method.samplers.get(what)
        return sampler.grid[1] if sampler and sampler.grid else None

    def evaluate(
        self,
        split: str = "test",
        samples: int | None = None,
        metrics: Sequence[str] | None = None,
        inception: str = "",
    ) -> dict[str, float]:
        """Return the method's own metrics over a complete split, and sample metrics.

        Args:
          split: name of the split.
          samples: number of samples, by default config.num_metric_samples.
          metrics: names of the sample metrics, by default config.metrics.
          inception: file of Inception's weights, instead of config.extractor.
        """
        self._check_split(split)
        if samples is not None:
            check_range("samples", samples, 2, generation.MOST, integer=True)
        if metrics is not None:
            check_type(
                "metrics", metrics, (list, tuple), "a list of names such as ['frechet_pixels']"
            )
        if inception != self.inception:
            self.inception = inception
            self.evaluator.forget_features()
        return self.evaluator.evaluate(
            self.states,
            split,
            self.config.num_metric_samples if samples is None else samples,
            metrics,
        )[0]

    @property
    def signatures(self) -> dict[str, str]:
        """Tokenizations of the last evaluation's metrics, {"bleu_signature": ...}."""
        return self.evaluator.signatures[0]

    def extractor(self, config: ConfigDict | None = None) -> Any:
        """Return the feature extractor: the last `inception`, or config.extractor."""
        changes = {"run.data_dir": self.data_dir} | (
            {"extractor": self.inception} if self.inception else {}
        )
        return feature_extractors.make_extractor(configs.override(self.config, changes))

    def checkpoint_hash(self) -> str:
        """Return the digest of the state without `opt`, the origin of samples."""
        return digest_leaves(flatten_state(without_opt(self.states)))


class Pretrained(Run):
    """A GPT-2 directory as a run without data and rows, for text generation."""

    def __init__(self, path: str | Path) -> None:
        self.dir, self.step, self.meta = RunDir(path), 0, {}
        context = gpt2_weights.read_model(path)["context"]
        gpt2_weights.check_tokens(path, self.tokenizer)
        start = gpt2_weights.first_token(path, self.tokenizer, self.ends)
        self.spec = Spec("text", (context,), 1, vocabulary=self.tokenizer.size, start=start)
        self.config = configs.resolve(gpt2_weights.gpt2_config(path), 1, 1)
        self.stored = dict(hash=configs.hash_of(self.config))
        self.programs = Programs(self.config, without_arrays(self.spec), 1)
        shapes = without_opt(self.programs.shapes)
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
        return read_tokenizer(self.dir.path)

    @functools.cached_property
    def ends(self) -> tuple[int, ...]:
        """The ids of the tokens that end a text, by the directory's config.json."""
        return gpt2_weights.end_tokens(self.dir.path, self.tokenizer)


def load(workdir: str | Path, checkpoint: str = "latest", data_dir: str | None = None) -> Run:
    """Return the run in a work directory at its latest or best valid checkpoint, or a
    GPT-2 directory as a run. Raise a UserError where the directory holds neither; for a
    sweep, the error message lists the trials.
    """
    if (Path(workdir) / "sweep.json").is_file():
        trials = sorted(str(path.parent) for path in Path(workdir).glob("trials/*/config.json"))
        named = f"load one of {listing(trials, SHOWN)}" if trials else "no trial has started yet"
        raise UserError(f"{workdir} is a sweep, whose trials are runs of their own: {named}")
    return (
        Pretrained(workdir)
        if gpt2_weights.is_directory(workdir)
        else Run(workdir, checkpoint, data_dir)
    )
