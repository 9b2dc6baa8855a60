"""Samples from latents and images that the user sets, without a data set.

Each sampler is compiled once for the values of all latents and images: they are inputs
of its program.
"""

import io
import math
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aigc_jax.core.rng import sample_key
from aigc_jax.data.dataset import Spec
from aigc_jax.data.decoding import FORMATS, format_no_image, try_decode_image
from aigc_jax.inference.generation import MOST
from aigc_jax.methods.decoding import check_range
from aigc_jax.utils.errors import UserError, mark_argument, require, short_repr
from aigc_jax.utils.files import open_regular_file

MOST_FILE_BYTES = 16 * 2**20  # of an image file
MOST_FILE_PIXELS = 25_000_000  # of an image file: a photograph of 24 megapixels
MOST_LATENT = 100.0  # largest absolute value of a latent


def parse_latents(text: str) -> dict[int, float]:  # "0:1.5,3:-0.2" -> {0: 1.5, 3: -0.2}
    """Return {latent: value} of a text such as "0:1.5,3:-0.2"; {} of "".

    Raises:
      UserError: an entry is no pair of numbers, or a latent occurs twice.
    """
    out: dict[int, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        number, _, value = entry.partition(":")
        try:
            index, at = int(number), float(value)
        except ValueError:
            raise UserError(
                f"{mark_argument('latent')}={short_repr(text)}: {short_repr(entry)} is no "
                "LATENT:VALUE, such as 0:1.5; several are separated by commas: 0:1.5,3:-0.2"
            ) from None
        require(index not in out, f"{mark_argument('latent')} sets the latent {index} twice")
        out[index] = at
    return out


def format_latents(latents: dict[int, float]) -> str:  # {0: 1.5} -> "0:1.5"
    """Return the text that `parse_latents` reads as these latents."""
    return ",".join(f"{i}:{float(value)!r}" for i, value in sorted(latents.items()))


def count_latents(run: Any, what: str) -> int:  # 0 for a sampler without
    """Return the number of latents that can be set for a run's sampler."""
    sampler = run.programs.method.samplers[what]
    if sampler.latents is None:
        return 0
    batch = {"index": jax.ShapeDtypeStruct((1,), "int32")}
    return jax.eval_shape(sampler.latents, run.state, jax.random.key(0), batch).shape[1]


def check_latents(run: Any, what: str, latents: dict[int, float]) -> None:
    """Raise a UserError unless the latents can be set for a run's sampler."""
    size, name = count_latents(run, what), mark_argument("latent")
    require(
        size,
        f"{name} needs a sampler with latents, such as the prior of a GAN or a VAE, and "
        f"{mark_argument('what')}={what} of this run has none",
    )
    for index, value in latents.items():
        require(0 <= index < size, f"{name}: the latent {index} must be one of 0 .. {size - 1}")
        check_range("latent", value, -MOST_LATENT, MOST_LATENT)


def draw_latents(
    run: Any, what: str, seed: int, label: int | None = None
) -> np.ndarray:  # -> [Z] of the first sample
    """Return the latents of the first sample of a seed, before any of them is set."""
    sampler = run.programs.method.samplers[what]
    batch = {"index": np.array([label or 0], np.int32)}
    key = sample_key(run.state.key, seed)
    return np.asarray(run.compiled(sampler.latents)(run.state, key, batch))[0]


def make_latents(
    run: Any, what: str, latents: dict[int, float]
) -> np.ndarray:  # -> [Z], NaN for the latents that are drawn
    """Return the latents {latent: value} of a run's sampler as `Programs.draw` has
    them. Raise a UserError if the sampler has no such latent, or a value is out of
    range.
    """
    check_latents(run, what, latents)
    out = np.full(count_latents(run, what), np.nan, np.float32)
    for i, value in latents.items():
        out[i] = value
    return out


def draw_from_image(
    run: Any, what: str, image: np.ndarray, seed: int, label: int | None
) -> np.ndarray:  # [*shape] -> [1, ...]
    """Return what a sampler makes of an image in the place of an example.

    Args:
      run: the run.
      what: name of a sampler that uses examples, such as "reconstruction".
      image: the image [*shape], in the range of the data.
      seed: the user's seed.
      label: class of the image, which a conditional VAE needs.

    Raises:
      UserError: the sampler uses no images, or the class is missing.
    """
    sampler, name = run.programs.method.samplers[what], mark_argument("input")
    require(
        sampler.conditioned and run.spec.kind == "image",
        f"{name} needs a sampler that uses images, such as the reconstruction of a VAE, and "
        f"{mark_argument('what')}={what} of this run uses none",
    )
    require(
        label is not None or not needs_label(run),
        f"{name} needs {mark_argument('label')}=K, the class of the image, because "
        "config.conditional = True",
    )
    one = np.array([label or 0], np.int32)
    batch = {"x": image[None], "index": np.zeros(1, np.int32), "class": one, "label": one}
    return np.asarray(run.compiled(sampler)(run.state, sample_key(run.state.key, seed), batch))


def check_num(run: Any, what: str, num: int | None, split: str, image: Any) -> int:
    """Return the number of samples of a sampler; None: the size of its grid, 64 without
    one, 8 texts, 1 of an image. A sampler that uses examples uses each of the split
    once: their number is the most.

    Raises:
      UserError: the number is out of range.
    """
    sampler, name = run.programs.method.samplers[what], mark_argument("num")
    default = 8 if run.is_text else math.prod(sampler.grid or (8, 8))
    check_range("num", default if num is None else num, 1, MOST, integer=True)
    if image is not None:
        return 1 if num is None else num
    if sampler.conditioned:
        count = run.full_programs.dataset.splits[split][1]
        default = min(default, count)
        require(
            num is None or num <= count,
            f"{name}={num} is more than the {count:,} examples of the {split} split, each of "
            f"which {mark_argument('what')}={what} uses once",
        )
    return default if num is None else num


def check_image_request(num: int, latents: dict[int, float] | None) -> None:
    """Raise a UserError unless one sample is drawn of an image, without set latents."""
    require(num == 1, f"{mark_argument('num')}={num} must be 1 for one image")
    require(
        not latents,
        f"{mark_argument('latent')} and {mark_argument('input')} are mutually exclusive",
    )


def needs_label(run: Any) -> bool:
    """Return whether the samplers of a run that use examples read their labels."""
    return bool(run.config.get("conditional"))


def read_image(path: str | Path, spec: Spec) -> np.ndarray:  # -> float32 [*shape] in [-1, 1]
    """Return an image file, which is untrusted, as the input of a model of this data:
    resized until the shorter side fits, cropped to the centre, and rounded to the grey
    levels of the data.

    Args:
      path: the file, in a format of `data.decoding.FORMATS`.
      spec: the properties of the data.

    Raises:
      UserError: the file is too large, damaged, animated or no image, or the data are
        no square images of one or three channels.
    """
    height, width, channels = spec.shape if spec.kind == "image" else (0, 1, 0)
    name = f"{mark_argument('input')}={path}"
    require(
        height == width and channels in (1, 3),
        f"{name} needs a run on square images of 1 or 3 channels, and its data are {spec.kind} "
        f"{list(spec.shape)}",
    )
    with open_regular_file(path, name) as file:
        content = file.read(MOST_FILE_BYTES + 1)
    require(
        len(content) <= MOST_FILE_BYTES,
        f"{name} has more than {MOST_FILE_BYTES // 2**20} MB, the most of an image file",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about files that are refused
        reason = find_header_problem(content)
        pixels = reason or try_decode_image(content, height, "grey" if channels == 1 else "rgb")
    if isinstance(pixels, str):
        raise UserError(f"{name} cannot be used: {pixels}")
    levels = spec.levels or 255
    steps = np.floor(pixels.astype(np.float64) / 255 * levels + 0.5)
    return (2 * steps / levels - 1).astype(np.float32)


def find_header_problem(content: bytes) -> str:  # "" without one
    """Return why the contents of a file are not decoded, by its header alone."""
    from PIL import Image

    too_many = f"more than {MOST_FILE_PIXELS / 1e6:.0f} megapixels"
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if math.prod(image.size) > MOST_FILE_PIXELS:
                return f"{image.width:,} x {image.height:,} pixels are {too_many}"
            return "it is an animation" if getattr(image, "is_animated", False) else ""
    except Image.DecompressionBombError:
        return f"it has {too_many}"
    except Exception:  # of many types; decoding names the reason
        return format_no_image()
