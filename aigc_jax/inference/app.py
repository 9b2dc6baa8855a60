"""What the controls of a run's page do: each output comes with the command that makes
it again, and images are written by that command's own code.

`inference.app_page` arranges the controls, `inference.app_server` serves the page.
"""

import functools
import itertools
import random
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.inference import conditioning, generation
from aigc_jax.media import images, sample_files
from aigc_jax.methods import classifier
from aigc_jax.methods.decoding import PLAIN, SamplingParams, check_range
from aigc_jax.utils.errors import UserError, format_flags, mark_argument, require
from aigc_jax.utils.terminal import escape_controls

MOST_SAMPLES = 256  # of one image
MOST_TOKENS = 2048  # of one text
MOST_TEXTS = 16  # of a sampler of texts
MOST_PROMPT = 20_000  # characters: far more than a network reads, far less than a command
NUM_SLIDERS = 8  # latents with a slider
SLIDER_REACH = 3.0  # largest absolute value of a slider
MOST_SEED = 999_999  # of a new seed: short enough to be copied by hand
# Names of the sampling parameters whose values the page limits to a slider: others are
# numbers.
SLIDERS = {
    "temperature": (0.0, 2.0),
    "top_p": (0.01, 1.0),
    "min_p": (0.0, 0.99),
    "repetition": (0.5, 2.0),
}


class Output(NamedTuple):
    """A result of the page, and the command that makes it again."""

    value: Any  # path of an image, a text, or {class: probability}
    command: str  # "" without one
    notes: Sequence[str] = ()


def check_set_once(by_sliders: dict[int, float], typed: dict[int, float]) -> None:
    """Raise a UserError if a latent is set by its slider and in the field of others."""
    if both := by_sliders.keys() & typed.keys():
        i = min(both)
        raise UserError(
            f"latent {i} is set by its slider ({by_sliders[i]:g}) and in the field of other "
            f"latents ({typed[i]:g}): reset the latents, or remove it from the field"
        )


class PageFunctions:
    """The functions behind the controls of a run's page.

    Args:
      run: the run.
      program: words that start the command line, such as "aigc".
      flags: flags of all commands: workdir, and checkpoint where it is not the latest.
      save_images: ({flag: value}, file) -> writes what `aigc sample` writes, and
        returns its note, or "".
      draw_texts: {flag: value} -> the text that `aigc sample` prints.
      folder: directory of the images, which the caller removes.
    """

    def __init__(
        self,
        run: Any,
        program: str,
        flags: dict[str, Any],
        save_images: Callable[[dict[str, Any], Path], str],
        draw_texts: Callable[[dict[str, Any]], str],
        folder: Path,
    ) -> None:
        self.run, self.program, self.flags, self.folder = run, program, flags, folder
        self.save_images, self._draw_texts = save_images, draw_texts
        self._numbers = itertools.count()

    # -- what the run can show

    @property
    def samplers(self) -> dict[str, Any]:
        """The run's samplers by name."""
        return self.run.programs.method.samplers

    def find_drawable_samplers(self) -> list[str]:
        """Return the names of the samplers whose samples are images or points, or are
        drawn as a figure.
        """
        spec = self.run.spec
        if spec.kind not in ("image", "points"):
            return []
        is_drawn = lambda name: (
            self.samplers[name].figure or images.is_drawable(self.run.sample_shape(name), spec)
        )
        return list(filter(is_drawn, self.samplers))

    def find_upload_samplers(self) -> list[str]:
        """Return the names of the samplers that can use an uploaded image."""
        shape = self.run.spec.shape
        if self.run.spec.kind != "image" or shape[0] != shape[1] or shape[2] not in (1, 3):
            return []
        return [name for name in self.find_drawable_samplers() if self.samplers[name].conditioned]

    def find_text_samplers(self) -> list[str]:
        """Return the names of the samplers whose samples are texts."""
        return list(self.samplers) if self.run.is_text else []

    @property
    def has_prompt(self) -> bool:
        """Whether the run generates text from a prompt."""
        return self.run.programs.method.language is not None

    @property
    def is_translator(self) -> bool:
        """Whether prompts are the sources of an encoder-decoder, by beam search."""
        return self.has_prompt and self.run.programs.method.language.begin is not None

    @property
    def is_classifier(self) -> bool:
        """Whether the run gives class probabilities of an image."""
        return self.run.config.method == "classifier"

    def count_latents(self, what: str) -> int:
        """Return the number of latents of a sampler that can be set."""
        return conditioning.count_latents(self.run, what)

    # -- images

    def command(self, **flags: Any) -> str:
        """Return the command line of `sample` with these flags, for a shell."""
        shown = {name: value for name, value in flags.items() if value not in (None, "")}
        words = [*shlex.split(self.program), "sample", *format_flags(**self.flags | shown)]
        return shlex.join(words)

    def make_image(self, what: str, flags: dict[str, Any], command: str) -> Output:
        """Write the image of these flags to a new file of the folder."""
        path = self.folder / f"{what}-{next(self._numbers)}.png"
        note = self.save_images(flags | dict(what=what), path)
        (self.folder / f"{what}-{int(path.stem.rpartition('-')[2]) - 50}.png").unlink(True)
        return Output(path, command, [note] if note else ())

    def latent_values(self, what: str, seed: int | str, label: int | None = None) -> list[float]:
        """Return the first NUM_SLIDERS latents of a seed's first sample as positions of
        sliders; [] of a sampler without latents.
        """
        if not self.count_latents(what):
            return []
        z = conditioning.draw_latents(self.run, what, check_seed(seed), label)[:NUM_SLIDERS]
        return [round(float(x), 2) for x in np.clip(z, -SLIDER_REACH, SLIDER_REACH)]

    def draw_images(
        self,
        what: str,
        num: int,
        seed: int | str,
        label: int | None = None,
        split: str = "test",
        sliders: Sequence[float] = (),
        other_latents: str = "",
    ) -> Output:
        """Draw samples as one image.

        Args:
          what: name of the sampler.
          num: number of samples.
          seed: the seed.
          label: the class; None: the index modulo the number of classes.
          split: of the examples of a sampler that uses some.
          sliders: positions of the sliders; those at `latent_values` are not set.
          other_latents: further latents, as `conditioning.parse_latents` reads them.
        """
        check_number("num", num, 1, MOST_SAMPLES)
        label = label if self.samplers[what].classes else None
        positions = self.latent_values(what, seed, label)
        latents: dict[int, float] = {}
        if positions:
            moved = enumerate(zip(sliders, positions, strict=False))
            latents = {i: value for i, (value, drawn) in moved if value != drawn}
            for value in latents.values():
                most = conditioning.MOST_LATENT
                check_number("latent", value, -most, most, integer=False)
            typed = conditioning.parse_latents(other_latents)
            check_set_once(latents, typed)
            latents |= typed
        flags = dict(num=num, seed=check_seed(seed), latent=conditioning.format_latents(latents))
        flags |= {"class": label, "split": split if self.samplers[what].conditioned else None}
        return self.make_image(what, flags, self.command(what=what, **flags))

    @functools.cached_property
    def _extract(self) -> Callable:
        return classifier.make_feature_extractor(self.run.config, self.run.spec)

    def check_upload(self, path: str) -> None:
        """Raise a UserError unless a file was uploaded to the folder."""
        inside = Path(path).resolve().is_relative_to(self.folder.resolve())
        require(inside, f"{Path(path).name} was not uploaded to this page")

    def preview_upload(self, path: str) -> Path:
        """Write an uploaded image as the model's input; else raise a UserError."""
        image = conditioning.read_image(path, self.run.spec)
        out = self.folder / f"input-{next(self._numbers)}.png"
        sample_files.save_samples_png(out, image[None], self.run.spec, {})
        return out

    def draw_from_upload(
        self, what: str, path: str, seed: int | str, label: int | None = None, name: str = ""
    ) -> Output:
        """Draw what a sampler makes of an uploaded image. The command names the file in
        the user's directory, not its copy, which ends with the page.

        Args:
          what: name of the sampler.
          path: the copy of the file.
          seed: the seed.
          label: class of the image, which a conditional VAE needs.
          name: of the user's file; "": that of the copy.
        """
        flags = dict(seed=check_seed(seed)) | {"class": label}
        if not conditioning.needs_label(self.run):
            flags["class"] = None
        shown = self.command(what=what, input=Path(name or path).name, **flags)
        return self.make_image(what, flags | dict(input=str(path)), shown)

    def classify_upload(self, path: str) -> Output:
        """Return {class: probability} of an uploaded image."""
        image = conditioning.read_image(path, self.run.spec)
        extract = self.run.compiled(self._extract)
        probabilities = np.asarray(extract(self.run.state.params, image[None])[1])[0]
        names = self.run.spec.label_classes()
        return Output(dict(zip(names, map(float, probabilities), strict=True)), "")

    # -- texts

    def draw_texts(self, what: str, num: int, seed: int | str, split: str = "test") -> Output:
        """Return the texts of a sampler as `aigc sample` prints them."""
        check_number("num", num, 1, MOST_TEXTS)
        flags = dict(what=what, num=num, seed=check_seed(seed))
        if self.samplers[what].conditioned:
            flags["split"] = split
        return Output(escape_controls(self._draw_texts(flags)), self.command(**flags))

    def stream_text(
        self, prompt: str, tokens: int, seed: int | str, **sampling: Any
    ) -> Iterator[Output]:
        """Yield the prompt with its growing continuation, as a terminal shows it.

        Args:
          prompt: the text to continue; "": the start of a text.
          tokens: the most tokens of the continuation.
          seed: the seed.
          **sampling: fields of `SamplingParams`.
        """
        prompt = check_prompt(prompt)
        check_number("tokens", tokens, 1, MOST_TOKENS)
        seed = check_seed(seed)
        for name, value in sampling.items():
            require_number(name, value, getattr(PLAIN, name))
        choice = SamplingParams(**sampling)
        changed = {k: v for k, v in sampling.items() if v != getattr(PLAIN, k)}
        command = self.command(prompt=prompt, tokens=tokens, seed=seed, **changed)
        notes: list[str] = []
        text = generation.format_prompt(self.run, prompt)
        pieces = generation.stream_continuations(
            self.run, [text], tokens, choice, seed, notes.append
        )
        for (piece,) in pieces:
            text += piece
            yield Output(escape_controls(text), command, notes)

    def translate(self, source: str) -> Output:
        """Return the translation of each line by an encoder-decoder."""
        source = check_prompt(source)
        lines = source.split("\n")
        require(len(lines) <= MOST_TEXTS, f"at most {MOST_TEXTS} lines are translated at once")
        notes: list[str] = []
        answers = generation.translate(self.run, lines, notes.append)
        text = escape_controls("\n".join(answers))
        return Output(text, self.command(prompt=source), notes)


def make_seed() -> int:
    """Return a new seed."""
    return random.SystemRandom().randint(0, MOST_SEED)


def require_number(name: str, value: Any, example: float) -> None:
    """Raise a UserError if the field of a number is empty."""
    require(value not in (None, ""), f"{name} is empty: a number is needed, such as {example}")


def check_number(name: str, value: Any, low: float, high: float, *, integer: bool = True) -> None:
    """Raise a UserError unless the value of a field is a number in [low, high]."""
    require_number(name, value, max(low, 0))
    check_range(name, value, low, high, integer=integer)


def check_seed(seed: Any) -> int:
    """Return the seed of a number or of a field's text, or raise a UserError, which
    quotes the text as it is.
    """
    if isinstance(seed, str):
        seed = seed.strip()
        if re.fullmatch("[0-9]{1,20}", seed) and int(seed) < generation.SEEDS:
            seed = int(seed)
    check_number("seed", seed, 0, generation.SEEDS - 1)
    return seed


def check_prompt(prompt: str) -> str:  # with LF line breaks
    """Return a prompt that a command line can pass, or raise a UserError."""
    prompt = (prompt or "").replace("\r\n", "\n")
    name = mark_argument("prompt")
    require(
        len(prompt) <= MOST_PROMPT,
        f"the {name} has {len(prompt):,} characters, more than {MOST_PROMPT:,}",
    )
    require("\0" not in prompt, f"the {name} has a NUL character")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UserError(f"the {name} has a character that is no Unicode text") from None
    return prompt
