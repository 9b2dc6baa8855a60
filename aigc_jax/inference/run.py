"""A run on disk as a Python object: sample, evaluate, generate text, read its rows."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from aigc_jax import data
from aigc_jax.core.mesh import make_mesh_or_single
from aigc_jax.core.method import TrainState
from aigc_jax.data.dataset import make_dataset_without_arrays, spec_from_json
from aigc_jax.data.tokenizers import huggingface
from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.inference import conditioning, generation
from aigc_jax.media import images
from aigc_jax.methods.decoding import SamplingParams, check_range
from aigc_jax.metrics.inputs import take_equal_random_subsets
from aigc_jax.metrics.pairwise import find_nearest_neighbours
from aigc_jax.metrics.two_sample_test import held_out_discriminant_scores
from aigc_jax.training import config as configs
from aigc_jax.training import feature_extractors, identity
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.evaluation import Evaluator, iterate_example_blocks, read_examples
from aigc_jax.training.memory import convert_inference_errors
from aigc_jax.training.programs import Programs, drop_opt_states
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import digest_leaves, flatten_state, restore_like
from aigc_jax.utils.errors import UserError, check_type, choose, mark_argument, require
from aigc_jax.utils.terminal import print_warning


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
        choose(dict.fromkeys(("latest", "best")), checkpoint, "checkpoint")
        self.dir = RunDir(workdir)
        self.stored = self.dir.read_config_json()
        self.config = identity.parse_stored_config(self.stored)
        self.data_dir = self.config.run.data_dir if data_dir is None else data_dir
        self.spec = spec_from_json(self.stored["spec"])
        with Checkpoints(Path(workdir) / "checkpoints") as checkpoints:
            newest = checkpoints.read_newest_valid(print_warning)
        if newest is None:
            raise UserError(f"{workdir} has no good checkpoint yet")
        self.mesh = make_mesh_or_single(self.config.run.mesh, self.config.batch_size)
        self.programs = Programs(self.config, make_dataset_without_arrays(self.spec), 1, self.mesh)
        state, best, self.meta = newest
        shapes = self.programs.shapes
        if checkpoint == "best":
            require(
                bool(best) and self.meta["best"][0] is not None,
                f"{workdir} has no best checkpoint: config.best_metric = "
                f"{self.config.best_metric!r}",
            )
            self.states = self.programs.to_mesh(
                restore_like(drop_opt_states(shapes), best, "the best checkpoint")
            )
            self.step = self.meta["best"][0]["step"]
        else:
            self.states = self.programs.to_mesh(restore_like(shapes, state, "the checkpoint"))
            self.step = self.meta["step"]

    @functools.cached_property
    def full_programs(self) -> Programs:  # with the run's data set
        """The programs with the run's data set, which is loaded on first use."""
        dataset = data.load(self.config.data, self.data_dir)
        return Programs(self.config, dataset, 1, self.mesh)

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """The evaluator of the run on its data set."""
        return Evaluator(self.full_programs, self.make_extractor)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of a run on text, read from the run's directory."""
        return huggingface.read_run(self.dir.path, self.stored.get("tokenizer"))

    @functools.cached_property
    def _compiled(self) -> dict[Any, Callable]:
        return {}

    @functools.cached_property
    def decoders(self) -> generation.DecoderCache:
        """The decoders of a run that generates text."""
        return generation.DecoderCache(self)

    def compiled(self, function: Callable) -> Callable:
        """Return the jit of a function such as a sampler, compiled once."""
        return self._compiled.setdefault(function, jax.jit(function))

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The ids of the tokens that end a text."""
        return () if self.tokenizer.end is None else (self.tokenizer.end,)

    @property
    def state(self) -> TrainState:  # without the trial axis
        """The TrainState of this run, without the trial axis."""
        return jax.tree.map(lambda x: x[0], self.states)

    def __repr__(self) -> str:
        return f"Run({str(self.dir.path)!r}, step {self.step:,})"

    def convert_memory_errors(
        self, smaller: str
    ) -> contextlib.AbstractContextManager:  # -> OutOfMemoryError
        """Convert out-of-memory errors to user errors; `smaller` needs less memory."""
        return convert_inference_errors(str(self.dir.path), smaller)

    def _check_split(self, split: str) -> None:
        splits = self.programs.dataset.splits
        choose(splits, split, "split")

    def rows(self, split: str | None = None) -> list[dict]:
        """Return the rows of rows.jsonl: those of one split, or all for None."""
        return [row for row in self.dir.read_rows() if split in (None, row["split"])]

    def sample(
        self,
        num: int | None = None,
        what: str | None = None,
        seed: int = 0,
        split: str = "test",
        label: int | None = None,
    ) -> np.ndarray | list[str]:  # -> [num, ...] on the host, or num texts
        """Return samples: the array of `draw`, or a list of texts, each up to its end.

        Args:
          num: by default the size of the sampler's image grid, 64 without one, 8 texts;
            at most the examples of the split, of a sampler that uses some.
          what: name of the sampler, by default the method's first ("prior", "text").
          seed: the same seed gives the same samples.
          split: as in `draw`.
          label: as in `draw`.
        """
        samples = self.draw(num, what, seed, split, label)
        return (
            [self.tokenizer.decode_until_end(row) for row in samples] if self.is_text else samples
        )

    @property
    def is_text(self) -> bool:
        """Whether the samples are texts."""
        return self.spec.kind in ("text", "pairs")

    @property
    def default_sampler(self) -> str:
        """The name of the method's first sampler."""
        return next(iter(self.programs.method.samplers))

    def sample_shape(self, what: str) -> tuple[int, ...]:  # without the batch axis
        """Return the shape of one image or point by a sampler, without sampling."""
        sampler = choose(self.programs.method.samplers, what, "what")
        one = jax.ShapeDtypeStruct((1,), "int32")
        x = jax.ShapeDtypeStruct((1, *self.spec.shape), "float32")
        batch = {"index": one, "class": one, "label": one, "x": x}
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
        """Return a language model's continuation of each prompt, without the prompt.
        Raise a UserError for another method or a number out of range.

        Args:
          prompts: texts; "" is the beginning of a text. An encoder-decoder and a prefix
            LM (config.data.prefix_lm) return the targets of these sources.
          num_tokens: most tokens of a text; no effect on an encoder-decoder, which uses
            beam search (config.num_beams) and accepts no sampling parameters.
          temperature: divides the logits; 0 selects the most likely token.
          top_k: sample from the k most likely tokens; 0: from all.
          top_p: sample from the most likely tokens of this total probability.
          min_p: sample from tokens at least this times as likely as the likeliest.
          repetition: penalty of tokens that the text has already; 1: none.
          seed: the same seed gives the same texts, whatever the number of prompts.
        """
        sampling = SamplingParams(temperature, top_k, top_p, min_p, repetition)
        require(
            self.programs.method.language is not None,
            f"config.method = {self.config.method!r} does not generate text",
        )
        is_valid = isinstance(prompts, (list, tuple)) and all(
            isinstance(prompt, str) for prompt in prompts
        )
        require(is_valid, f"prompts = {prompts!r:.60} must be a list of strings")
        with self.convert_memory_errors("fewer prompts or a smaller num_tokens"):
            return generation.generate_completions(
                self, prompts, num_tokens, sampling, seed, print_warning
            )

    def draw(
        self,
        num: int | None = None,
        what: str | None = None,
        seed: int = 0,
        split: str = "test",
        label: int | None = None,
        *,
        latents: dict[int, float] | None = None,
        image: np.ndarray | None = None,
    ) -> np.ndarray:  # -> [num, ...] on the host; texts as tokens
        """Return samples as an array: images with the values that files and metrics use
        (`media.images.quantize_as_saved`), texts as tokens. `num`, `what` and `seed`
        are those of `sample`.

        Args:
          split: split of the examples that conditional samplers use. Unconditional
            samplers need no data set on disk.
          label: class of all samples, for a class-conditional generator; class of
            `image`.
          latents: {latent: value} of all samples, for a sampler with latents.
          image: [*shape] in place of the examples (`conditioning.read_image`), for a
            conditional sampler, which returns one sample.
        """
        what = what or self.default_sampler
        self._check_split(split)
        check_range("seed", seed, 0, generation.SEEDS - 1, integer=True)
        sampler = choose(self.programs.method.samplers, what, "what")
        is_labelled = image is not None and conditioning.needs_label(self)
        self._check_label(label, self.spec.classes if is_labelled else sampler.classes, what)
        each, first = (1, 0) if label is None else (sampler.classes, label)
        num = conditioning.check_num(self, what, num, split, image)
        require(
            not self.is_text or what != "text" or self.spec.start >= 0,
            f"{mark_argument('what')}=text needs a start token, but the tokenizer has none: "
            "pass prompts",
        )
        with self.convert_memory_errors(f"a smaller {mark_argument('num')}"):
            if image is not None:
                conditioning.check_image_request(num, latents)
                samples = conditioning.draw_from_image(self, what, image, seed, label)
            else:
                z = conditioning.make_latents(self, what, latents) if latents else None
                programs = self.full_programs if sampler.conditioned else self.programs
                samples = programs.draw(
                    self.states, what, num, split, seed, stride=each, first=first, latents=z
                )[0]
        return images.quantize_as_saved(samples, self.spec) if sampler.is_image else samples

    def _check_label(self, label: int | None, classes: int, what: str) -> None:
        require(
            label is None or classes,
            f"{mark_argument('label')}={label} needs a sampler with classes, such as the prior "
            "of a class-conditional model (GANs: config.gan.condition, VAEs: "
            f"config.conditional), and {mark_argument('what')}={what} has none",
        )
        require(
            label is None or 0 <= label < classes,
            f"{mark_argument('label')}={label} must be one of 0 .. {classes - 1}",
        )

    def pair_with_neighbours(
        self,
        num: int | None = None,
        seed: int = 0,
        label: int | None = None,
        split: str = "train",
    ) -> np.ndarray:  # -> [num, 2, ...], (sample, nearest example)
        """Return `num` samples (default: 32) of the prior, each paired with its nearest
        example of a split in pixel space, which shows copies of training examples.
        """
        self._check_split(split)
        samples = self.draw(num or 32, "prior", seed, label=label)
        blocks = (block["x"] for block in iterate_example_blocks(self.full_programs.dataset, split))
        return np.stack([samples, find_nearest_neighbours(samples, blocks)[0]], axis=1)

    def sort_by_separability(
        self,
        num: int | None = None,
        seed: int = 0,
        label: int | None = None,
        split: str = "test",
    ) -> tuple[np.ndarray, np.ndarray]:  # -> [2, k, ...] (examples, samples), [2, k] scores
        """Return k examples of a split and k samples of the prior, each sorted by
        `held_out_discriminant_scores` (the higher, the more like an example), and these
        scores. `num` samples (default: 2,000) have the class frequencies of the split,
        or only the class `label`, as then have the examples.
        """
        self._check_split(split)
        examples, num = read_examples(self.full_programs.dataset, split), num or 2000
        if label is None:
            y = self.full_programs.read_class_labels(split, num)
            fake = self.full_programs.draw(self.states, "prior", num, split, seed, labels=y)[0]
            sets = take_equal_random_subsets(
                examples["x"], images.quantize_as_saved(fake, self.spec)
            )
        else:
            fake = self.draw(num, "prior", seed, label=label)
            sets = take_equal_random_subsets(examples["x"][examples["label"] == label], fake)
        scores = held_out_discriminant_scores(
            *(self.evaluator.extract_features(x)[0] for x in sets)
        )
        require(
            np.isfinite(scores).all(),
            f"{mark_argument('what')}=separability needs at least 4 samples and 4 examples, all "
            f"finite; each set has {len(sets[0])}",
        )
        order = np.argsort(scores, axis=1, kind="stable")
        return np.stack(
            [x[places] for x, places in zip(sets, order, strict=True)]
        ), np.take_along_axis(scores, order, 1)

    @property
    def num_classes(self) -> int:  # 0 unless the prior is conditional
        """Number of classes of the sampler "prior"; 0 where it is not conditional."""
        return self.programs.num_prior_classes

    def grid_columns(self, what: str) -> int | None:  # None for samplers without a grid
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
            self.evaluator.discard_extractor()
        num = self.config.num_metric_samples if samples is None else samples
        fewer = f"a smaller number than {num:,} of samples, or fewer {mark_argument('metrics')}"
        with self.convert_memory_errors(fewer):
            return self.evaluator.evaluate(self.states, split, num, metrics)[0]

    @property
    def metric_signatures(self) -> dict[str, str]:  # of the last evaluation
        """Tokenizations of the last evaluation's metrics, {"bleu_signature": ...}."""
        return self.evaluator.metric_signatures[0]

    def make_extractor(self, _config: ConfigDict | None = None) -> Any:
        """Return the feature extractor: the last `inception`, or config.extractor."""
        changes = {"run.data_dir": self.data_dir} | (
            {"extractor": self.inception} if self.inception else {}
        )
        return feature_extractors.make_extractor(configs.override(self.config, changes))

    def checkpoint_hash(self) -> str:  # of the state without `opt`
        """Return the digest of the state without `opt`, the origin of samples."""
        return digest_leaves(flatten_state(drop_opt_states(self.states)))
