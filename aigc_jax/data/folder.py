"""Images from a directory tree of files such as PNG: untrusted input, decoded once."""

import hashlib
import itertools
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files
from aigc_jax.data.dataset import Dataset, make_consecutive_bounds, wrap_image_arrays
from aigc_jax.utils.disk import cache_dir
from aigc_jax.utils.errors import UserError, choose, first_line, require
from aigc_jax.utils.files import open_regular_file
from aigc_jax.utils.terminal import print_warning

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageFile

T = TypeVar("T")

# Image formats that Pillow decodes itself. Of an animation, or of several pages, the
# first image is used.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Formats that are reported but not read: their decoders are other programs, large, or
# seldom reviewed.
NOT_READ = (
    ".avif", ".dng", ".eps", ".exr", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".pbm", ".pdf",
    ".pgm", ".pnm", ".ppm", ".psd", ".svg", ".tga", ".xcf",
)  # fmt: skip
SMALLEST, LARGEST = 8, 1024  # bounds of config.data.size, pixels; smaller files are skipped
MOST_PIXELS = 100_000_000  # of a file; more may be a decompression bomb
TOO_MANY = f"more than {MOST_PIXELS:,} pixels"
# Mode of a PNG of 2 or 4 bits -> the distance of its grey levels in 8 bits.
GREY_STEPS = {"L;2": 85, "L;4": 17}
AT_ONCE = 1024  # files that are decoded before the first of them is written
DECODER = 3  # increase when `decode_image` yields other pixels: invalidates older caches

COLOURS = {"rgb": "RGB", "grey": "L"}
# config.data.split -> the split of each tenth of the hash values. 80/20: valid and test
# are the same images.
SPLITS = {"80/10/10": ("train",) * 8 + ("valid", "test"), "80/20": ("train",) * 8 + ("valid",) * 2}


def load_image_folder(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load all files below data.path that end in one of SUFFIXES, as square images of
    data.size pixels a side in data.colour (rgb or grey).

    Images are resized with antialiasing until the shorter side fits, and cropped to the
    centre. The class of an image is its directory. Its split is determined by the hash
    of its relative path and does not depend on other files. Files that cannot be read
    are skipped, and named in a warning.
    """
    root = files.find_config_directory(config.path, data_dir, config.name, "images")
    choose(COLOURS, config.colour, "config.data.colour")
    tenths = choose(SPLITS, config.split, "config.data.split")
    require(
        SMALLEST <= config.size <= LARGEST,
        f"config.data.size = {config.size} pixels per side must be between {SMALLEST} and "
        f"{LARGEST}",
    )
    paths, not_read = files.find_readable_files(root, SUFFIXES, NOT_READ)
    total = len(paths) + len(not_read)
    require(
        total, f"config.data.path = {config.path!r} has no file that ends in {', '.join(SUFFIXES)}"
    )
    split_of = {name: tenths[files.hash_decile(name)] for name in paths}
    # The splits are consecutive in the array.
    paths.sort(key=lambda name: ("train", "valid", "test").index(split_of[name]))
    x, skipped = read_images_cached(root, paths, config.size, config.colour)
    skipped = not_read | skipped
    names = [p for p in paths if p not in skipped]
    require(
        names,
        f"config.data.path = {config.path!r}: none of its {total:,} images is readable; "
        f"the first: {next(iter(skipped.items()), ('', ''))[1]}",
    )
    if skipped:
        print_warning(files.describe_skipped(skipped, total, "images"))
    arrays, classes = dict(x=x), Counter(map(os.path.dirname, names))
    about: dict[str, Any] = dict(source=str(root), licence="the user's own")
    if len(classes) > 1:
        about["classes"] = dict(sorted(classes.items()))
        number = {name: i for i, name in enumerate(about["classes"])}
        arrays["label"] = np.array([number[os.path.dirname(name)] for name in names], np.int32)
    counts = Counter(map(split_of.get, names))
    bounds = make_consecutive_bounds({split: counts[split] for split in dict.fromkeys(tenths)})
    return wrap_image_arrays(arrays, bounds, 255, about, len(about.get("classes", ())))


def read_images_cached(
    root: Path, paths: list[str], size: int, colour: str
) -> tuple[np.ndarray, dict[str, str]]:  # uint8 [n, size, size, C], {skipped path: reason}
    """Decode all readable images once.

    The decoded images are stored in the user's cache, under the hash of every file's
    name and contents, and memory-mapped, so that only accessed images occupy memory.

    Args:
      root: the directory.
      paths: of the files, relative to the directory, in the order of the result.
      size: pixels per side of the result.
      colour: a key of COLOURS; C is 3 for rgb, 1 for grey.

    Returns:
      The images, uint8 [n, size, size, C], and {path: reason} of the skipped files.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(lambda p: hash_file_or_reason(root / p), paths)
        hashes = list(iterate_with_progress("reading", digests, len(paths)))
        settings = json.dumps([DECODER, size, colour, paths, hashes])
        key = hashlib.sha256(settings.encode()).hexdigest()
        cached = cache_dir("pictures") / f"{key}.json"
        try:
            x, description = files.load_cached_array(cached)
            return x, description["skipped"]
        except OSError:  # not cached yet
            pass
        except Exception:  # a damaged file raises exceptions of many types
            print_warning(f"{cached} is damaged: decoding again")
        skipped: dict[str, str] = {}
        decode = lambda name: try_decode_image(root, name, size, colour)
        decoded = lambda: iterate_with_progress(
            "decoding", decode_in_parallel(paths, decode, pool, skipped), len(paths)
        )
        shape = (len(paths), size, size, 3 if colour == "rgb" else 1)
        write_all = lambda f: write_images_npy(f, decoded(), shape)
        if files.try_cache_array(cached, write_all, dict(skipped=skipped), "decoded images"):
            return files.load_cached_array(cached)[0], skipped
        images = [x for x in decoded() if not isinstance(x, str)]
    return (np.stack(images) if images else np.zeros((0, *shape[1:]), np.uint8)), skipped


def decode_in_parallel(
    paths: list[str],
    decode: Callable[[str], np.ndarray | str],
    pool: ThreadPoolExecutor,
    skipped: dict[str, str],
) -> Iterator[np.ndarray | str]:  # image, or why it is skipped
    """Yield the image of every path in order, or the reason why it is skipped.

    Args:
      paths: of the files.
      decode: path -> image, or the reason why it is skipped.
      pool: the threads that decode.
      skipped: replaced by {path: reason} of the skipped files.
    """
    skipped.clear()
    with warnings.catch_warnings():
        # Pillow warns about files that `decode_image` refuses, and about odd metadata.
        warnings.simplefilter("ignore")
        parts = (paths[low : low + AT_ONCE] for low in range(0, len(paths), AT_ONCE))
        # Only one part is decoded at a time, which bounds the memory.
        items = (zip(part, pool.map(decode, part), strict=True) for part in parts)
        for name, result in itertools.chain.from_iterable(items):
            if isinstance(result, str):
                skipped[name] = result
            yield result


def write_images_npy(
    file: BinaryIO, decoded: Iterable[np.ndarray | str], shape: tuple[int, ...]
) -> None:  # images uint8 [size, size, C], or reasons, which are skipped
    """Write the decoded images, at most shape[0], to an .npy file as they arrive; skip
    the reasons of skipped files.

    Args:
      file: a binary file, open for writing and seeking.
      decoded: images uint8 [size, size, C], and the reasons of skipped files.
      shape: (n, size, size, C) of the array if no file is skipped.
    """
    head = lambda n: np.lib.format.write_array_header_1_0(
        file, dict(descr="|u1", fortran_order=False, shape=(n, *shape[1:]))
    )
    head(shape[0])
    count = 0
    for x in decoded:
        if not isinstance(x, str):
            file.write(x.tobytes())
            count += 1
    file.seek(0)
    # The header with a smaller number has the same length: NumPy pads it to a multiple
    # of 64 bytes, with room for digits.
    head(count)


def hash_file_or_reason(path: Path) -> str:  # SHA-256, or why it cannot be read
    """Return the SHA-256 of a file's bytes; where the file cannot be read, the reason,
    which replaces the hash in the cache's key.
    """
    try:
        with open_regular_file(path) as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except (UserError, OSError) as e:  # no permission, deleted: skipped later, same message
        return first_line(e)


def try_decode_image(
    root: Path, relative_path: str, size: int, colour: str
) -> np.ndarray | str:  # uint8 [size, size, C], or why it is skipped
    """Return the decoded image, or a short reason why it is skipped.

    Args:
      root: the directory.
      relative_path: of the file, relative to the directory.
      size: as in `decode_image`.
      colour: as in `decode_image`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return decode_image(root / relative_path, size, colour)
    except Image.DecompressionBombError:  # Pillow's own limit, above MOST_PIXELS
        return TOO_MANY
    except UnidentifiedImageError:
        return f"none of {', '.join(FORMATS)}"
    except Exception as e:
        # Decoders of untrusted files raise errors of many types; none may end the run.
        return first_line(e, 80)


def decode_image(path: Path, size: int, colour: str) -> np.ndarray:  # -> uint8 [size, size, C]
    """Decode one file as it is meant to be displayed: rotated by its EXIF tag, 16 bits
    scaled to 8, palette and CMYK converted, transparent parts composited on white.
    Resize it by a Lanczos filter with antialiasing until the shorter side is `size`,
    and crop it to the centre.

    Args:
      path: the file.
      size: pixels per side of the result.
      colour: a key of COLOURS; C is 3 for rgb, 1 for grey.

    Raises:
      UserError: the image is too small, too large, or of 32 bits. Pillow raises errors
        of other types for files that it cannot decode.
    """
    from PIL import Image, ImageOps

    with open_regular_file(path, "it") as file, Image.open(file, formats=FORMATS) as opened:
        require(opened.width * opened.height <= MOST_PIXELS, TOO_MANY)
        require(
            min(opened.size) >= SMALLEST,
            f"{opened.width} x {opened.height} pixels are fewer than {SMALLEST} per side",
        )
        image = ImageOps.exif_transpose(convert_to_8_bits(opened, file))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = ImageOps.fit(image.convert(COLOURS[colour]), (size, size), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(size, size, -1)


def convert_to_8_bits(image: "PIL.ImageFile.ImageFile", file: BinaryIO) -> "PIL.Image.Image":
    """Convert an image to 8 bits per channel.

    Pillow's own conversion would clip 16 bits of grey at 255 and truncate colours to
    the upper byte. It also compares a PNG's transparent colour (tRNS), which has the
    bit depth of the file, with pixels that are scaled to 8 bits
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
        pixels = read_png_16_bits(image, file)
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


def read_png_16_bits(image: "PIL.Image.Image", file: BinaryIO) -> np.ndarray:  # -> uint16 [H, W, 3]
    """Return the colours of a PNG of 16 bits per channel. Pillow decodes the upper byte
    or, with the other byte order, the lower byte.
    """
    from PIL import Image

    upper = np.asarray(image).astype(np.uint16)
    file.seek(0)
    with Image.open(file, formats=("PNG",)) as again:
        codec, extents, offset, _ = again.tile[0][:4]
        again.tile = [type(again.tile[0])(codec, extents, offset, "RGB;16L")]
        return upper << 8 | np.asarray(again)


def iterate_with_progress(verb: str, items: Iterable[T], total: int) -> Iterator[T]:
    """Yield the items, and print a progress line where stderr is a terminal.

    Args:
      verb: what happens to the images, such as "decoding".
      items: one per image.
      total: number of items.
    """
    for i, item in enumerate(items, 1):
        if sys.stderr.isatty() and (i % 100 == 0 or i == total):
            print(
                f"\r\x1b[K{verb} {i:,} of {total:,} images",
                end="\n" if i == total else "",
                file=sys.stderr,
                flush=True,
            )
        yield item
