"""Samples of runs for a report: images as thumbnails, text, and sounds, within budgets.

Files are untrusted: only regular files are opened, images only after their dimensions
were read, and of a text only its beginning.
"""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aigc_jax.data.decoding import format_no_image
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.files import open_regular_file
from aigc_jax.utils.quantities import format_count
from aigc_jax.utils.terminal import escape_controls

IMAGE_BYTES = 900_000  # of all images, as base64
SOUND_BYTES = 500_000
TEXT_BYTES = 300_000
MOST_PIXELS = 40_000_000  # of an image that is opened
MOST_FILE_BYTES = 40_000_000
MOST_IMAGES = 240
MOST_STEPS = 12  # of a slider, where the images are many
MOST_LETTERS = 6_000  # of one text
MOST_FILES = 5_000  # of a directory
THUMBNAILED = ("PNG", "JPEG", "WEBP")  # formats of images in the page
MOST_REFUSED = 20  # images that are not opened and have a note of their own
SIDES = (720, 480, 320, 224, 160, 112)  # pixels of a thumbnail, the largest first
LEAST_BYTES = 0.08  # of a pixel of a lossy image; larger thumbnails are not tried
KINDS = {".png": "image", ".jpg": "image", ".webp": "image", ".txt": "text", ".wav": "sound"}
_STEP = re.compile(r"step_(\d{1,12})(?:_([\w.-]{1,40}))?")


class SampleFile(NamedTuple):
    """A file of samples."""

    trial: int  # the index of its trial
    kind: str  # "image", "text" or "sound"
    what: str  # "samples", or what the file's name says
    step: int  # -1: unknown
    path: Path


class Samples(NamedTuple):
    """The samples of a report."""

    # {kind and name: {trial: {step: data URI or text}}}
    series: dict[str, dict[int, dict[int, str]]]
    sounds: list[tuple[SampleFile, str]]  # the data URI; "": only a link
    notes: list[str]


def list_samples(runs: Sequence[RunDir | None]) -> list[SampleFile]:
    """Return the sample files of runs, in the order of the steps."""
    files = []
    for trial, run in enumerate(runs):
        for folder in ("samples", "sampled") if run else ():
            files += list_folder(trial, run / folder)  # type: ignore[operator]
    return sorted(files, key=lambda file: (file.trial, file.what, file.step))


def list_folder(trial: int, folder: Path) -> list[SampleFile]:
    """Return the sample files of a directory, which may not exist."""
    try:
        paths = sorted(folder.iterdir())[:MOST_FILES]
    except OSError:
        return []
    out = []
    for path in paths:
        found = _STEP.fullmatch(path.stem)
        kind = KINDS.get(path.suffix.lower())
        if kind and not path.is_symlink():
            step, what = (int(found[1]), found[2] or "samples") if found else (-1, path.stem)
            out.append(SampleFile(trial, kind, what if found else f"sampled: {what}", step, path))
    return out


def embed_samples(files: list[SampleFile], trials_shown: Iterable[int]) -> Samples:
    """Return the samples of files within the budgets, with notes about the others.

    Args:
      files: the files.
      trials_shown: indices of trials in the order in which they are preferred.
    """
    order = {trial: i for i, trial in enumerate(trials_shown)}
    images = [file for file in files if file.kind == "image"]
    texts = [file for file in files if file.kind == "text"]
    notes: list[str] = []
    series: dict[str, dict[int, dict[int, str]]] = {}
    for chosen, content in (
        (choose_files(images, order, MOST_IMAGES), make_thumbnails),
        (choose_files(texts, order, TEXT_BYTES // 1500), read_texts),
    ):
        for file, text in content(chosen, notes):
            key = f"{file.kind}: {file.what}"
            series.setdefault(key, {}).setdefault(file.trial, {})[file.step] = text
    for kind, all_files in (("image", images), ("text", texts)):
        count = sum(
            len(steps)
            for key, trials in series.items()
            if key.startswith(kind)
            for steps in trials.values()
        )
        if count < len(all_files):
            total = format_count(len(all_files), f"{kind} file")
            notes.append(f"{count:,} of {total} are in this page; the directories have all.")
    sounds = embed_sounds([file for file in files if file.kind == "sound"], notes)
    return Samples(series, sounds, notes)


def choose_files(files: list[SampleFile], order: dict[int, int], most: int) -> list[SampleFile]:
    """Return at most `most` files: first fewer steps, the first and the last included,
    then the preferred trials.
    """
    steps = sorted({file.step for file in files})
    if len(files) > most and len(steps) > MOST_STEPS:
        places = {round(i * (len(steps) - 1) / (MOST_STEPS - 1)) for i in range(MOST_STEPS)}
        picked = {steps[i] for i in places}
        files = [file for file in files if file.step in picked]
    if len(files) > most:  # the last step of every trial before the others
        last = {file.trial: file for file in files}
        rank = lambda f: (last[f.trial] is not f, order.get(f.trial, len(order)), -f.step)
        files = sorted(files, key=rank)[:most]
    return sorted(files, key=lambda f: (order.get(f.trial, len(order)), f.step))


def make_thumbnails(files: list[SampleFile], notes: list[str]) -> list[tuple[SampleFile, str]]:
    """Return images as data URIs, each within its share of IMAGE_BYTES. Unreadable
    images are left out, with a note.
    """
    from PIL import UnidentifiedImageError

    share, left = IMAGE_BYTES // max(1, len(files)), IMAGE_BYTES
    out, smaller, refused = [], 0, []
    for file in files:
        try:
            uri, is_smaller = encode_thumbnail(file.path, max(share, 1500))
        except UnidentifiedImageError:
            refused.append(describe_error(file.path, UserError(format_no_image(THUMBNAILED))))
            continue
        except Exception as e:  # of an untrusted file: also errors of the decoder
            refused.append(describe_error(file.path, e))
            continue
        if len(uri) > left:
            continue
        left -= len(uri)
        smaller += is_smaller
        out.append((file, uri))
    if smaller:
        notes.append(f"{format_count(smaller, 'thumbnail')}: the files are larger.")
    notes += [f"Not opened: {line}." for line in refused[:MOST_REFUSED]]
    if len(refused) > MOST_REFUSED:
        notes.append(f"{len(refused) - MOST_REFUSED:,} more images were not opened.")
    return out


def describe_error(path: Path, error: Exception) -> str:
    """Return the end of an image's path, and why it was not opened, on one line."""
    words = " ".join(escape_controls(str(error)).split()).replace(str(path), path.name)
    return f"{'/'.join(path.absolute().parts[-3:])}: {words[:120] or type(error).__name__}"


def encode_thumbnail(path: Path, most_bytes: int) -> tuple[str, bool]:  # data URI, is smaller
    """Return an image as a data URI of at most `most_bytes`, or of the smallest side of
    SIDES. Raise a UserError for a file that is no image or has too many pixels.
    """
    from PIL import Image

    with open_regular_file(path) as f:
        num_bytes = path.stat().st_size
        if num_bytes > MOST_FILE_BYTES:
            raise UserError(f"{num_bytes:,} bytes are too many")
        with Image.open(f, formats=THUMBNAILED) as image:
            width, height = image.size  # of the header: nothing is decoded yet
            if width * height > MOST_PIXELS:
                raise UserError(f"{width:,} x {height:,} pixels are too many")
            full = image.convert("RGB")
    largest = max(width, height)
    sides = [side for side in (min(largest, SIDES[0]), *SIDES) if side <= largest]
    cheap = [side for side in sides if side * side * LEAST_BYTES <= most_bytes]
    for side in cheap or sides[-1:]:
        small = full.copy()
        small.thumbnail((side, side))
        is_small = num_bytes <= most_bytes or side < 200
        data = encode_image(small, most_bytes if is_small else 0)
        if len(data) <= most_bytes:
            break
    return data, small.size != (width, height)


def encode_image(image: Any, most_lossless: int) -> str:  # data URI
    """Return an image as a lossless WebP of at most `most_lossless` bytes, or else as a
    lossy one, as a data URI.
    """
    content = io.BytesIO()
    if most_lossless:
        image.save(content, "WEBP", lossless=True, method=1)
    if not most_lossless or content.tell() * 4 > most_lossless * 3 - 99:
        content = io.BytesIO()
        image.save(content, "WEBP", quality=75, method=1)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def read_texts(files: list[SampleFile], notes: list[str]) -> list[tuple[SampleFile, str]]:
    """Return the beginnings of text files, without control sequences."""
    share = min(MOST_LETTERS, TEXT_BYTES // max(1, len(files)))
    out, cut = [], 0
    for file in files:
        try:
            with open_regular_file(file.path) as f:
                raw = f.read(4 * share + 4)
                size = file.path.stat().st_size
        except (UserError, OSError) as e:
            notes.append(escape_controls(str(e))[:200])
            continue
        text = raw.decode("utf-8", "replace")
        if len(text) > share or size > len(raw):
            cut += 1
            text = text[:share] + f"\n[... cut here; the file has {size:,} bytes]"
        out.append((file, escape_controls(text)))
    if cut:
        notes.append(f"{format_count(cut, 'text')} cut to {share:,} characters.")
    return out


def embed_sounds(files: list[SampleFile], notes: list[str]) -> list[tuple[SampleFile, str]]:
    """Return WAV files as data URIs within SOUND_BYTES; of the others, ''."""
    out, left = [], SOUND_BYTES
    for file in files[:MOST_IMAGES]:
        uri = encode_sound(file.path, left)
        left -= len(uri)
        out.append((file, uri))
    linked = sum(not uri for _, uri in out)
    if linked:
        notes.append(f"{format_count(linked, 'sound')} too large for this page, or no WAV: linked.")
    return out


def encode_sound(path: Path, most_bytes: int) -> str:
    """Return a WAV file as a data URI of at most `most_bytes`; '' for others."""
    most = most_bytes * 3 // 4 - 99
    try:
        with open_regular_file(path) as f:
            raw = f.read(max(0, most) + 1)
    except (UserError, OSError):
        return ""
    if len(raw) > most or raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        return ""
    return f"data:audio/wav;base64,{base64.b64encode(raw).decode()}"
