"""Where data files lie, whether they are whole, and how they are fetched."""

import contextlib
import errno
import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from aigc_jax import stored
from aigc_jax.errors import UserError, nearest, require
from aigc_jax.results import file_sha256


def roots(data_dir: str) -> list[Path]:
    """The directories that are searched, in order: run.data_dir, $AIGC_DATA_DIR, ~/tensorflow_datasets."""
    given = [data_dir, os.environ.get("AIGC_DATA_DIR", ""), "~/tensorflow_datasets"]
    return [Path(d).expanduser() for d in given if d]


def find(name: str, checksums: dict[str, str], data_dir: str, called: str = "") -> dict[str, Path] | None:
    """The files of one data set, each verified, from the first root that has any of them; None where none has. A file may lie
    there packed, as FILE.gz. `called` is its name in a config, where that is not the directory's.

    Raises a UserError where a file is missing beside the others, or is not the one whose SHA-256 is registered.
    """
    for root in roots(data_dir):
        paths = {file: plain_or_packed(root / name / file) for file in checksums}
        if not any(p.is_file() for p in paths.values()):
            continue
        for file, path in paths.items():
            if not path.is_file():
                raise UserError(f"{name}: {file} is missing in {path.parent}; {advice(called or name)}")
            verify(name, path, file_sha256(path) if path.name == file else unpacked_sha256(path), checksums[file], advice(called or name))
        return paths
    return None


def verify(name: str, path: Path, found: str, registered: str, remedy: str):
    """A UserError where a file's SHA-256 is not the registered one."""
    if found != registered:
        raise UserError(f"{name}: {path} is damaged ({path.stat().st_size} bytes, SHA-256 not as registered); delete it, then {remedy}")


def plain_or_packed(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    return packed if packed.is_file() and not path.is_file() else path


def unpacked_sha256(path: Path) -> str:
    """SHA-256 of what a gzip file holds; of nothing where it cannot be unpacked. No more is unpacked at once than a piece."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as f:
            while piece := f.read(2**20):
                digest.update(piece)
    except (OSError, EOFError, zlib.error):
        return ""
    return digest.hexdigest()


def prepared(name: str, data_dir: str) -> Path | None:
    """The newest version of a data set that tensorflow-datasets prepared in one of the roots, or None."""
    for root in roots(data_dir):
        versions = sorted((root / name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json"))
        if versions:
            return versions[-1].parent
    return None


def advice(name: str) -> str:
    return f"get it with: python launch.py data --name={name} --download"


def missing(name: str, checksums: dict[str, str], data_dir: str, remedy: str = "") -> UserError:
    """The sentence for a data set that is nowhere; it ends in what to do, which is to download it unless `remedy` says otherwise."""
    places = ", ".join(str(root / name) for root in roots(data_dir))
    return UserError(f"{name}: {next(iter(checksums))} not found (looked in {places}); {remedy or advice(name)}")


def fetch(name: str, data_dir: str) -> None:
    """Download the raw files of a tensorflow-datasets builder into the first root, with its URLs and checksums."""
    import tensorflow_datasets as tfds

    target = roots(data_dir)[0] / name
    target.mkdir(parents=True, exist_ok=True)
    infos = tfds.builder_cls(name).url_infos
    manager = tfds.download.DownloadManager(
        download_dir=target / "downloads", url_infos=infos, dataset_name=name, force_checksums_validation=True
    )
    try:
        got = manager.download({info.filename: url for url, info in infos.items()})
    except Exception as e:  # a library's many network errors: one sentence for all
        reason = f"{e}".splitlines()[0][:200] if f"{e}" else type(e).__name__
        raise UserError(f"{name}: the download failed: {reason}") from None
    for file, path in got.items():
        os.replace(path, target / file)


def walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files below a directory that end in one of the suffixes. Hidden ones are left out; links to directories are not followed."""
    for directory, inner, names in os.walk(root):
        inner[:] = [d for d in inner if not d.startswith(".")]
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield Path(directory, name)


def tenth(text: str) -> int:
    """0 .. 9 by the SHA-256 of a text: what it names stays in its split when others come and go."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big") % 10


def directory(path: str, data_dir: str, name: str, holds: str) -> Path:
    """The directory config.data.path itself, or the one of that name among the data sets."""
    require(path != "", f"config.data.path = '' must name a directory of {holds} for config.data.name = {name!r}")
    places = [Path(path).expanduser(), *(root / path for root in roots(data_dir))]
    found = next((p for p in places if p.is_dir()), None)
    if found is None:
        known = [p.name for place in places if place.parent.is_dir() for p in place.parent.iterdir() if p.is_dir()]
        raise UserError(f"config.data.path = {path!r} is no directory{nearest(places[0].name, known)}")
    return found


def keep_array(cached: Path, write: Callable, described: dict, what: str) -> bool:
    """`write(file)` an array as .npy beside `cached`, and then `cached`, which describes it: where it is, the array is. Were both written?"""
    array = cached.with_suffix(".npy")
    whole = lambda f: f.write(stored.encode(cached, described | dict(array_sha256=file_sha256(array)), "cache"))
    return keep(array, write, what) and keep(cached, whole, what)


def kept_array(cached: Path) -> tuple[np.ndarray, dict]:
    """The array, mapped, and what describes it. An OSError where they are not there, another where they are damaged."""
    described = stored.read(cached, "cache")
    if described is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(cached))
    if file_sha256(cached.with_suffix(".npy")) != described["array_sha256"]:
        raise ValueError("the array is not the one that was kept")
    return np.load(cached.with_suffix(".npy"), mmap_mode="r", allow_pickle=False), described


def keep(cached: Path, write: Callable, what: str) -> bool:
    """`write(file)` a file of the cache, whole or not at all; where it cannot be written, `what` is made again the next time."""
    part = cached.with_suffix(f".{os.getpid()}.part")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as f:
            write(f)
        os.replace(part, cached)
        return True
    except BaseException as e:
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(e, OSError):
            raise
        print(f"{what} are not kept in {cached.parent}: {e.strerror or e}", file=sys.stderr)
        return False
