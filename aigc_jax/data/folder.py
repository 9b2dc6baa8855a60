"""Images from a directory tree of files such as PNG: untrusted input, decoded once."""

import hashlib
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files
from aigc_jax.data.dataset import Dataset, bounds_of, images_of
from aigc_jax.utils.disk import cache_dir
from aigc_jax.utils.errors import UserError, choose, first_line, require
from aigc_jax.utils.files import open_regular
from aigc_jax.utils.terminal import print_warning

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageFile

T = TypeVar("T")

# Formats of pictures that Pillow decodes by itself; of an animation, or of several
# pages, the first.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Formats that are named and not read: their decoders are other programs, large, or
# seldom looked at.
NOT_READ = (
    ".avif", ".dng", ".eps", ".exr", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".pbm", ".pdf",
    ".pgm", ".pnm", ".ppm", ".psd", ".svg", ".tga", ".xcf",
)  # fmt: skip
SMALLEST, LARGEST = 8, 1024  # pixels a side that are drawn; smaller files are skipped
MOST_PIXELS = 100_000_000  # of a file; more may be a decompression bomb
TOO_MANY = f"it has more than {MOST_PIXELS:,} pixels"
# Mode of a PNG of 2 or 4 bits -> how far apart its grey levels are in 8 bits.
GREY_STEPS = {"L;2": 85, "L;4": 17}
AT_ONCE = 1024  # files that are decoded before the first of them is written
DECODER = 3  # raise it when `decode` gives other pixels: caches of another number are not read

COLOURS = {"rgb": "RGB", "grey": "L"}
# config.data.split -> the split of each tenth of the hash values. 80/20: valid and test
# are the same pictures.
SPLITS = {"80/10/10": ("train",) * 8 + ("valid", "test"), "80/20": ("train",) * 8 + ("valid",) * 2}


def folder(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """All files below data.path that end in one of SUFFIXES, as pictures of data.size
    pixels a side in data.colour (rgb or grey).

    Each is resized with antialiasing until its shorter side fits and cropped to its
    centre. Its class is the directory it lies in; its split, the hash of its relative
    path, whatever other files there are. A file that cannot be read is skipped and
    named.
    """
    root = files.directory(config.path, data_dir, config.name, "pictures")
    choose(COLOURS, config.colour, "config.data.colour")
    tenths = choose(SPLITS, config.split, "config.data.split")
    require(
        SMALLEST <= config.size <= LARGEST,
        f"config.data.size = {config.size} pixels a side must lie between {SMALLEST} and {LARGEST}",
    )
    paths, not_read = files.find_readable(root, SUFFIXES, NOT_READ)
    total = len(paths) + len(not_read)
    require(
        total, f"config.data.path = {config.path!r} has no file that ends in {', '.join(SUFFIXES)}"
    )
    split_of = {name: tenths[files.tenth(name)] for name in paths}
    # In the order of the array: split by split.
    paths.sort(key=lambda name: ("train", "valid", "test").index(split_of[name]))
    x, skipped = pictures(root, paths, config.size, config.colour)
    skipped = not_read | skipped
    names = [p for p in paths if p not in skipped]
    require(
        names,
        f"config.data.path = {config.path!r}: none of its {total:,} pictures can be used; "
        f"the first: {next(iter(skipped.items()), ('', ''))[1]}",
    )
    if skipped:
        print_warning(files.describe_skipped(skipped, total, "pictures"))
    arrays, about, classes = (
        dict(x=x),
        dict[str, Any](source=str(root), licence="the user's own"),
        Counter(map(os.path.dirname, names)),
    )
    if len(classes) > 1:
        about["classes"] = dict(sorted(classes.items()))
        number = {name: i for i, name in enumerate(about["classes"])}
        arrays["label"] = np.array([number[os.path.dirname(name)] for name in names], np.int32)
    counts = Counter(map(split_of.get, names))
    return images_of(
        arrays,
        bounds_of({split: counts[split] for split in dict.fromkeys(tenths)}),
        255,
        about,
        len(about.get("classes", ())),
    )


def pictures(
    root: Path, paths: list[str], size: int, colour: str
) -> tuple[np.ndarray, dict[str, str]]:
    """All pictures that can be read, decoded once: kept in the user's cache under the
    hash of every file's name and content, and mapped from there, so that no more of
    them need be in memory than are looked at.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(progress("reading", pool.map(lambda p: digest(root / p), paths), len(paths)))
        key = hashlib.sha256(
            json.dumps([DECODER, size, colour, paths, hashes]).encode()
        ).hexdigest()
        cached = cache_dir("pictures") / f"{key}.json"
        try:
            x, described = files.kept_array(cached)
            return x, described["skipped"]
        except OSError:  # not there
            pass
        except Exception:  # a damaged file is damaged in many ways
            print_warning(f"{cached} is damaged: decoding again")
        skipped: dict[str, str] = {}

        def decoded():
            skipped.clear()
            with warnings.catch_warnings():
                # Pillow warns of what `decode` refuses, and of odd metadata
                warnings.simplefilter("ignore")
                for low in range(0, len(paths), AT_ONCE):
                    some = paths[low : low + AT_ONCE]
                    for name, found in zip(
                        some, pool.map(lambda p: attempt(root, p, size, colour), some), strict=True
                    ):
                        if isinstance(found, str):
                            skipped[name] = found
                        yield found

        shape = (len(paths), size, size, 3 if colour == "rgb" else 1)
        write_all = lambda f: write(f, progress("decoding", decoded(), len(paths)), shape)
        if files.keep_array(cached, write_all, dict(skipped=skipped), "decoded pictures"):
            return files.kept_array(cached)[0], skipped
        kept = [x for x in progress("decoding", decoded(), len(paths)) if not isinstance(x, str)]
    return (np.stack(kept) if kept else np.zeros((0, *shape[1:]), np.uint8)), skipped


def write(f: BinaryIO, decoded: Iterable[np.ndarray | str], shape: tuple[int, ...]) -> None:
    """The pictures, at most shape[0] of them, as an .npy file, one after another; what
    is no picture is left out.
    """
    head = lambda n: np.lib.format.write_array_header_1_0(
        f, dict(descr="|u1", fortran_order=False, shape=(n, *shape[1:]))
    )
    head(shape[0])
    count = 0
    for x in decoded:
        if not isinstance(x, str):
            f.write(x.tobytes())
            count += 1
    f.seek(0)
    # The header of a smaller number is as long: NumPy fills it up to a multiple of 64
    # bytes, with room for digits.
    head(count)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; where it cannot be read, the reason, which
    then stands for them.
    """
    try:
        with open_regular(path) as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except (UserError, OSError) as e:  # no permission, gone: skipped later, by the same words
        return first_line(e)


def attempt(root: Path, name: str, size: int, colour: str) -> np.ndarray | str:
    """The decoded picture, or in a few words why it is skipped."""
    from PIL import Image, UnidentifiedImageError

    try:
        return decode(root / name, size, colour)
    except Image.DecompressionBombError:  # Pillow's own bound, above ours
        return TOO_MANY
    except UnidentifiedImageError:
        return f"none of {', '.join(FORMATS)}"
    except Exception as e:
        # a decoder of untrusted files fails in many ways, none of which may end the run
        return first_line(e, 80)


def decode(path: Path, size: int, colour: str) -> np.ndarray:  # -> uint8 [size, size, C]
    """One file as it is meant to be seen: turned by its EXIF tag, 16 bits scaled to 8,
    palette and CMYK converted, transparent parts on white; resized by a Lanczos filter
    with antialiasing until the shorter side is `size`, and cropped to the centre.
    """
    from PIL import Image, ImageOps

    with open_regular(path, "it") as file, Image.open(file, formats=FORMATS) as opened:
        require(opened.width * opened.height <= MOST_PIXELS, TOO_MANY)
        require(
            min(opened.size) >= SMALLEST,
            f"{opened.width} x {opened.height} pixels are fewer than {SMALLEST} a side",
        )
        image = ImageOps.exif_transpose(to_eight_bits(opened, file))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = ImageOps.fit(image.convert(COLOURS[colour]), (size, size), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(size, size, -1)


def to_eight_bits(image: "PIL.ImageFile.ImageFile", file: BinaryIO) -> "PIL.Image.Image":
    """A picture of 8 bits a channel. Pillow's own conversion would cut 16 bits of grey
    off at 255 and colours to their upper byte, and it compares a PNG's transparent
    colour (tRNS), which has the bits of the file, with pixels that are scaled to 8
    (https://www.w3.org/TR/png-3/#11tRNS).
    """
    raw = image.tile[0][3] if image.format == "PNG" and image.tile else ""
    clear = image.info.get("transparency")
    if raw in GREY_STEPS and clear is not None:
        image.info["transparency"] = clear * GREY_STEPS[raw]
        return image
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        clear = None if clear is None else pixels == clear
    elif raw == "RGB;16B":
        pixels = read_sixteen_bits(image, file)
        clear = None if clear is None else (pixels == clear).all(-1)
    else:
        require(image.mode not in ("I", "F"), f"{image.mode} pixels of 32 bits have no known range")
        return image
    from PIL import Image

    out = Image.fromarray((pixels / 257 + 0.5).astype(np.uint8))
    if clear is not None:
        out.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    out.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return out


def read_sixteen_bits(
    image: "PIL.Image.Image", file: BinaryIO
) -> np.ndarray:  # -> uint16 [H, W, 3]
    """The colours of a PNG of 16 bits a channel, of which Pillow gives the upper byte,
    or, read in the other byte order, the lower one.
    """
    from PIL import Image

    upper = np.asarray(image).astype(np.uint16)
    file.seek(0)
    with Image.open(file, formats=("PNG",)) as again:
        codec, extents, offset, _ = again.tile[0][:4]
        again.tile = [type(again.tile[0])(codec, extents, offset, "RGB;16L")]
        return upper << 8 | np.asarray(again)


def progress(verb: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The items, with a line of progress on a terminal."""
    for i, item in enumerate(items, 1):
        if sys.stderr.isatty() and (i % 100 == 0 or i == total):
            print(
                f"\r\x1b[K{verb} {i:,} of {total:,} pictures",
                end="\n" if i == total else "",
                file=sys.stderr,
                flush=True,
            )
        yield item
