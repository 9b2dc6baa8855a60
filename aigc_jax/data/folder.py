"""Images from a directory tree of files such as PNG: untrusted input, decoded once."""

import hashlib
import itertools
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import array_cache, files
from aigc_jax.data.dataset import Dataset, make_consecutive_bounds, wrap_image_arrays
from aigc_jax.data.decoding import DECODER, check_image_keys, try_decode_image
from aigc_jax.utils.disk import cache_dir
from aigc_jax.utils.errors import UserError, choose, first_line, require
from aigc_jax.utils.files import open_regular_file
from aigc_jax.utils.terminal import iterate_with_progress, print_warning

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Formats that are reported but not read: their decoders are other programs, large, or
# seldom reviewed.
NOT_READ = (
    ".avif", ".dng", ".eps", ".exr", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".pbm", ".pdf",
    ".pgm", ".pnm", ".ppm", ".psd", ".svg", ".tga", ".xcf",
)  # fmt: skip
AT_ONCE = 1024  # files that are decoded before the first of them is written
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
    check_image_keys(config)
    tenths = choose(SPLITS, config.split, "config.data.split")
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
        hashes = list(iterate_with_progress("reading", digests, len(paths), "images"))
        settings = json.dumps([DECODER, size, colour, paths, hashes])
        key = hashlib.sha256(settings.encode()).hexdigest()
        cached = cache_dir("images") / f"{key}.json"
        try:
            x, description = array_cache.load(cached)
            return x, description["skipped"]
        except OSError:  # not cached yet
            pass
        except Exception:  # a damaged file raises exceptions of many types
            print_warning(f"{cached} is damaged: decoding again")
        skipped: dict[str, str] = {}
        decode = lambda name: try_decode_image(root / name, size, colour)
        decoded = lambda: iterate_with_progress(
            "decoding", decode_in_parallel(paths, decode, pool, skipped), len(paths), "images"
        )
        shape = (size, size, 3 if colour == "rgb" else 1)
        images = lambda: (x for x in decoded() if not isinstance(x, str))
        write_all = lambda f: array_cache.write_npy(f, images(), np.uint8, shape)
        if array_cache.try_write(cached, write_all, dict(skipped=skipped), "decoded images"):
            return array_cache.load(cached)[0], skipped
        return np.stack([np.zeros(shape, np.uint8), *images()])[1:], skipped


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


def hash_file_or_reason(path: Path) -> str:  # SHA-256, or why it cannot be read
    """Return the SHA-256 of a file's bytes; where the file cannot be read, the reason,
    which replaces the hash in the cache's key.
    """
    try:
        with open_regular_file(path) as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except (UserError, OSError) as e:  # no permission, deleted: skipped later, same message
        return first_line(e)
