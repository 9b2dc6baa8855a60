"""A run on disk as a Python object: sample, evaluate, look at its rows."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

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
from aigc_jax.methods.decoding import Choice, check_range
from aigc_jax.metrics.inputs import equally
from aigc_jax.metrics.pairwise import nearest
from aigc_jax.metrics.two_sample_test import scores
from aigc_jax.training import feature_extractors, gpt2_weights, resume
from aigc_jax.training.checkpoints import Checkpoints
from aigc_jax.training.programs import Programs, without_opt
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.serialization import digest, fill, flatten
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError, argument, check_type, choose, listing, require
from aigc_jax.utils.terminal import print_warning

SHOWN = 8  # trials of a sweep that an error names


class Run:
    """What `aigc_jax.load` returns.

    config      the resolved config
    state       the TrainState, without a trial axis; `opt` is {} where the best
                checkpoint was asked for
    step        its step
    meta        the checkpoint's metadata
    """

    data_dir = ""  # where data sets lie, if not in the usual places
    inception = ""  # the file of weights that the last evaluation was given
    mesh = None  # as the config says

    def __init__(
        self, workdir: str | Path, checkpoint: str = "latest", data_dir: str | None = None
    ) -> None:
        self.dir = RunDir(workdir)
        self.stored = self.dir.config()
        self.config = resume.stored_config(self.stored)
        self.data_dir = self.config.run.data_dir if data_dir is None else data_dir
        self.spec = spec_from_json(self.stored["spec"])
        with Checkpoints(Path(workdir) / "checkpoints") as checkpoints:
            found = checkpoints.newest(print_warning)
        require(found is not None, f"{workdir} has no good checkpoint yet")
        self.mesh = mesh_or_one(self.config.run.mesh, self.config.batch_size)
        self.programs = Programs(self.config, without_arrays(self.spec), 1, self.mesh)
        state, best, self.meta = found
        shapes = self.programs.shapes
        if checkpoint == "best":
            require(
                bool(best) and self.meta["best"][0] is not None,
                f"{workdir} has no best checkpoint: config.best = {self.config.best!r}",
            )
            self.states = self.programs.place(
                fill(without_opt(shapes), best, "the best checkpoint")
            )
            self.step = self.meta["best"][0]["step"]
        elif checkpoint == "latest":
            self.states = self.programs.place(fill(shapes, state, "the checkpoint"))
            self.step = self.meta["step"]
        else:
            raise UserError(f"{argument('checkpoint')}={checkpoint} is neither latest nor best")

    @functools.cached_property
    def full(self) -> Programs:
        """The programs with the run's data set, which is loaded when first needed."""
        return Programs(
            self.config,
            data.load(self.config.data, self.data_dir),
            1,
            self.mesh,
            extractor=self.extractor,
        )

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Of a run on text, as it lies in the run's directory."""
        path = self.dir / resume.TOKENIZER
        found = tokenizers.read(path)
        require(
            found.sha256 == self.stored.get("tokenizer"),
            f"{path} is not the tokenizer that the run was trained with; "
            f"{documents.FILES['tokenizer.json'].remedy}",
        )
        return found

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text."""
        return () if self.tokenizer.end is None else (self.tokenizer.end,)

    @property
    def state(self) -> TrainState:
        """The TrainState of this run, without the trial axis."""
        return jax.tree.map(lambda x: x[0], self.states)

    def __repr__(self):
        return f"Run({str(self.dir.path)!r}, step {self.step:,})"

    def _check_split(self, split):
        splits = self.programs.dataset.splits
        require(split in splits, f"{argument('split')}={split} is none of {', '.join(splits)}")

    def rows(self, split: str | None = None) -> list[dict]:
        """The rows of rows.jsonl, of one split or of all."""
        return [row for row in self.dir.rows() if split in (None, row["split"])]

    def sample(
        self,
        num: int | None = None,
        what: str | None = None,
        seed: int = 0,
        split: str = "test",
        label: int | None = None,
    ) -> np.ndarray | list[str]:  # -> [num, ...] on the host, or num texts
        """Samples of one of the method's samplers, by default of its first ("prior",
        "text"), 64 or as many as make one image; the same for the same seed. Images and
        points are an array, as `draw` returns it; of a run on text they are a list of
        str, each up to its end, by default 8.
        """
        samples = self.draw(num, what, seed, split, label)
        return [self.tokenizer.text(row) for row in samples] if self.is_text else samples

    @property
    def is_text(self) -> bool:
        """Are its samples texts?"""
        return self.spec.kind in ("text", "pairs")

    @property
    def default_sampler(self) -> str:
        """The name of the method's first sampler."""
        return next(iter(self.programs.method.samplers))

    def sample_shape(self, what: str) -> tuple[int, ...]:
        """Of one sample of images or points by a sampler; nothing is drawn."""
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
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """What a language model writes after each prompt, without the prompt: at most
        `num_tokens` tokens, up to the end of the text. The numbers are those of
        `methods.decoding.Choice` and of `aigc sample`; the same seed gives the
        same texts, whatever the number of prompts. "" is the beginning of a text. Of an
        encoder-decoder, and of a run on joined pairs, the prompts are sources and the
        texts their targets; an encoder-decoder searches with config.beams and takes
        none of the numbers. Raises a UserError for a number out of range.
        """
        choice = Choice(temperature, top_k, top_p, min_p, repetition)
        require(
            self.programs.method.language is not None,
            f"config.method = {self.config.method!r} writes no text after a prompt",
        )
        sound = isinstance(prompts, (list, tuple)) and all(
            isinstance(prompt, str) for prompt in prompts
        )
        require(sound, f"prompts = {prompts!r:.60} must be a list of texts")
        return generation.completions(self, prompts, num_tokens, choice, seed, print_warning)

    def draw(
        self,
        num: int | None = None,
        what: str | None = None,
        seed: int = 0,
        split: str = "test",
        label: int | None = None,
    ) -> np.ndarray:  # [num, ...] on the host
        """Samples as arrays, by default of the method's first sampler: of images the
        values that files hold and metrics measure (`media.images.as_saved`), of text
        tokens. What they are conditioned on, where they are, comes from the split; the
        data set need not be there for those that are conditioned on nothing. label:
        samples of that class alone, of a generator that knows classes.
        """
        what = what or self.default_sampler
        self._check_split(split)
        check_range("seed", seed, 0, generation.SEEDS - 1, whole=True)
        each, first = (1, 0) if label is None else (self.classes, label)
        require(
            label is None or (self.classes and what == "prior"),
            f"{argument('label')}={label} is for samples of the prior of a model that knows "
            "classes, and this one was trained without (GANs: config.game.condition, VAEs: "
            "config.conditional)",
        )
        require(
            label is None or 0 <= label < self.classes,
            f"{argument('label')}={label} must be one of 0 .. {self.classes - 1}",
        )
        sampler = choose(self.programs.method.samplers, what, "what")
        default = 8 if self.is_text else math.prod(self.programs.method.sheets.get(what, (8, 8)))
        num = default if num is None else num
        check_range("num", num, 1, generation.MOST, whole=True)
        require(
            not self.is_text or what != "text" or self.spec.start >= 0,
            f"{argument('what')}=text needs a token that begins a text, and the tokenizer has "
            "none: give prompts",
        )
        one = jax.ShapeDtypeStruct((1,), "int32")
        try:
            jax.eval_shape(sampler, self.state, jax.random.key(0), {"index": one, "class": one})
            programs = self.programs
        except KeyError:  # it asks the batch for more
            programs = self.full
        samples = programs.draw(self.states, what, num, split, seed, each, first)[0]
        is_map = what in self.programs.method.maps
        return samples if is_map else images.as_saved(samples, self.spec)

    def neighbours(
        self, num: int | None = None, seed: int = 0, label: int | None = None
    ) -> np.ndarray:  # -> [num, 2, ...]
        """Samples of the prior, each beside the training example that is nearest to it
        in pixels: is it a copy?
        """
        samples = self.draw(num or 32, "prior", seed, label=label)
        train = (block["x"] for block in self.full.blocks("train"))
        return np.stack([samples, nearest(samples, train)[0]], axis=1)

    def separated(
        self, num: int | None = None, seed: int = 0, label: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:  # -> [2, k, ...], [2, k]
        """k examples of the test split and k samples of the prior, each in the order of
        what a linear classifier of features says of them
        (`metrics.two_sample_test.scores`: the higher, the more like an example), and
        that; by default of 2,000 samples. Classes are as frequent as in the split.
        label: examples and samples of that class alone.
        """
        examples, num = self.full.examples("test"), num or 2000
        if label is None:
            labels = self.full.labels("test", num)
            fake = self.full.draw(self.states, "prior", num, "test", seed, labels=labels)[0]
            sets = equally(examples["x"], images.as_saved(fake, self.spec))
        else:
            fake = self.draw(num, "prior", seed, label=label)
            sets = equally(examples["x"][examples["label"] == label], fake)
        found = scores(*(self.full.extract(x)[0] for x in sets))
        require(
            np.isfinite(found).all(),
            f"{argument('what')}=separability needs at least 4 samples and 4 examples, all finite; "
            f"there are {len(sets[0])} each",
        )
        order = np.argsort(found, axis=1, kind="stable")
        return np.stack(
            [x[places] for x, places in zip(sets, order, strict=True)]
        ), np.take_along_axis(found, order, 1)

    @property
    def classes(self) -> int:
        """How many classes the sampler "prior" can draw; 0 where it knows none."""
        return self.programs.classes

    def columns(self, what: str) -> int | None:
        """Of a grid of such samples, where that is given."""
        return self.programs.method.sheets.get(what, (None, None))[1]

    def evaluate(
        self,
        split: str = "test",
        samples: int | None = None,
        metrics: Sequence[str] | None = None,
        inception: str = "",
    ) -> dict[str, float]:
        """The method's metrics over a whole split, and those of config.metrics, or of
        the given names, with so many samples. inception: a file of Inception's weights,
        instead of config.extractor.
        """
        self._check_split(split)
        if samples is not None:
            check_range("samples", samples, 2, generation.MOST, whole=True)
        if metrics is not None:
            check_type(
                "metrics", metrics, (list, tuple), "a list of names such as ['frechet_pixels']"
            )
        if inception != self.inception:
            self.inception, self.full.look = inception, None
        return self.full.evaluate(
            self.states, split, self.config.metric_samples if samples is None else samples, metrics
        )[0]

    @property
    def signatures(self) -> dict[str, str]:
        """How the last evaluation divided texts, {"bleu_signature": ...}."""
        return self.full.signatures[0]

    def extractor(self, config: ConfigDict | None = None):
        """What metrics see images through: the last `inception` or config.extractor."""
        changes = {"run.data_dir": self.data_dir} | (
            {"extractor": self.inception} if self.inception else {}
        )
        return feature_extractors.extractor(configs.override(self.config, changes))

    def checkpoint_hash(self) -> str:
        """Return the digest of the state without `opt`, the origin of samples."""
        return digest(flatten(without_opt(self.states)))


class Pretrained(Run):
    """A GPT-2 directory as a run that has no data and no rows: to write text with."""

    def __init__(self, path: str | Path) -> None:
        self.dir, self.step, self.meta = RunDir(path), 0, {}
        context = gpt2_weights.read_model(path)["context"]
        gpt2_weights.check_tokens(path, self.tokenizer)
        start = gpt2_weights.first_token(path, self.tokenizer, self.ends)
        self.spec = Spec("text", (context,), 1, vocabulary=self.tokenizer.size, start=start)
        self.config = configs.resolve(gpt2_weights.config(path), 1, 1)
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
        self.states = self.programs.place(fill(shapes, flatten(rest) | ours, str(path)))

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the directory's own files."""
        return read_tokenizer(self.dir.path)

    @functools.cached_property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text, by the directory's config.json."""
        return gpt2_weights.end_tokens(self.dir.path, self.tokenizer)


def load(workdir: str | Path, checkpoint: str = "latest", data_dir: str | None = None) -> Run:
    """The run in a work directory, at its latest or best good checkpoint; or a GPT-2
    directory. Raises a UserError where there is none, and one that names the trials
    where the directory is a sweep.
    """
    if (Path(workdir) / "sweep.json").is_file():
        trials = sorted(str(path.parent) for path in Path(workdir).glob("trials/*/config.json"))
        named = f"load one of {listing(trials, SHOWN)}" if trials else "none of them has begun yet"
        raise UserError(f"{workdir} is a sweep, whose trials are runs of their own: {named}")
    return (
        Pretrained(workdir)
        if gpt2_weights.is_directory(workdir)
        else Run(workdir, checkpoint, data_dir)
    )
