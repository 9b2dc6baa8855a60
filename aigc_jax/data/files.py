"""Data files: search, verification, download, and a cache of arrays."""

import contextlib
import errno
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from aigc_jax.utils import documents, files
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, command, first_line, nearest, require
from aigc_jax.utils.terminal import print_warning


def search_roots(data_dir: str) -> list[Path]:
    """Return the directories to search: data_dir, $AIGC_DATA_DIR and
    ~/tensorflow_datasets.
    """
    candidates = [data_dir, os.environ.get("AIGC_DATA_DIR", ""), "~/tensorflow_datasets"]
    return [files.expand_user(d) for d in candidates if d]


def find_file(
    name: str, checksums: dict[str, str], data_dir: str, called: str = ""
) -> dict[str, Path] | None:
    """Return {file: verified path} of a data set, from the first search directory that
    has any of the files; None where none has. A file may be compressed, as FILE.gz.

    Args:
      name: the directory of the data set.
      checksums: {file: SHA-256}.
      data_dir: a directory to search before the default ones; "" for none.
      called: the data set's name in a config, by default `name`.

    Raises:
      UserError: some of the files are missing, or a SHA-256 differs.
    """
    for root in search_roots(data_dir):
        paths = {file: plain_or_packed(root / name / file) for file in checksums}
        if not any(map(files.is_regular, paths.values())):
            continue
        for file, path in paths.items():
            if not files.is_regular(path):
                raise UserError(
                    f"{name}: {file} is missing in {path.parent}; {download_hint(called or name)}"
                )
            verify_sha256(
                name,
                path,
                file_sha256(path) if path.name == file else unpacked_sha256(path),
                checksums[file],
                download_hint(called or name),
            )
        return paths
    return None


def verify_sha256(name: str, path: Path, sha256: str, registered: str, remedy: str) -> None:
    """Raise a UserError where a file's SHA-256 is not the registered one."""
    if sha256 != registered:
        raise UserError(
            f"{name}: {path} is damaged ({path.stat().st_size} bytes, SHA-256 not as "
            f"registered); delete it, then {remedy}"
        )


def plain_or_packed(path: Path) -> Path:
    """Return the path, or the path with .gz appended if only that is a regular file."""
    packed = path.with_name(path.name + ".gz")
    return packed if files.is_regular(packed) and not files.is_regular(path) else path


def unpacked_sha256(path: Path) -> str:
    """Return the SHA-256 of the uncompressed contents of a gzip file, or "" where they
    cannot be uncompressed. Reads in pieces of 1 MiB.
    """
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as f:
            while piece := f.read(2**20):
                digest.update(piece)
    except (OSError, EOFError, zlib.error):
        return ""
    return digest.hexdigest()


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file, uncompressed if its name ends in .gz; raise a
    UserError where they cannot be read.
    """
    try:
        with files.open_regular(path) as f:
            return (gzip.open(f) if path.suffix == ".gz" else f).read()
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path} cannot be read: {first_line(e)}") from None


def prepared_path(name: str, data_dir: str) -> Path | None:
    """Return the directory of the newest version of a data set that tensorflow-datasets
    prepared, from the first search directory that has one, or None.
    """
    for root in search_roots(data_dir):
        versions = sorted((root / name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json"))
        if versions:
            return versions[-1].parent
    return None


def download_hint(name: str) -> str:
    """Return the end of an error message: the command that downloads a data set."""
    return f"get it with: {command('data', name=name, download=True)}"


def missing_error(
    name: str, checksums: dict[str, str], data_dir: str, remedy: str = ""
) -> UserError:
    """Return the error for a data set that is not found. The message ends in `remedy`,
    by default the `download_hint`.
    """
    places = ", ".join(str(root / name) for root in search_roots(data_dir))
    file = next(iter(checksums))
    return UserError(
        f"{name}: {file} not found (searched {places}); {remedy or download_hint(name)}"
    )


def fetch_file(name: str, data_dir: str) -> None:
    """Download the raw files of a tensorflow-datasets builder, with its URLs and
    checksums, into the first search directory.
    """
    import tensorflow_datasets as tfds

    target = search_roots(data_dir)[0] / name
    target.mkdir(parents=True, exist_ok=True)
    infos = tfds.builder_cls(name).url_infos
    manager = tfds.download.DownloadManager(
        download_dir=target / "downloads",
        url_infos=infos,
        dataset_name=name,
        force_checksums_validation=True,
    )
    try:
        paths = manager.download({info.filename: url for url, info in infos.items()})
    except Exception as e:  # one user-facing error for all network errors of the library
        raise UserError(f"{name}: the download failed: {first_line(e)}") from None
    for file, path in paths.items():
        os.replace(path, target / file)


def walk_files(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files below a directory that end in one of the suffixes. Hidden files
    and directories are ignored; links to directories are not followed.
    """
    for directory, inner, names in os.walk(root):
        inner[:] = [d for d in inner if not d.startswith(".")]
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield Path(directory, name)


def find_readable(
    root: Path, suffixes: tuple[str, ...], other: tuple[str, ...] = ()
) -> tuple[list[str], dict[str, str]]:
    """Find the readable files below a directory.

    Args:
      root: the directory.
      suffixes: of the wanted files.
      other: suffixes of files to report as skipped.

    Returns:
      The paths of regular files, and of links to regular files within the directory,
      that end in one of the suffixes; and {path: reason} of skipped ones, links to
      directories included. Paths are relative to the directory and sorted.
    """
    resolved = root.resolve()
    readable: list[str] = []
    skipped: dict[str, str] = {}
    for directory, inner, names in os.walk(root):
        inner[:] = [d for d in inner if not d.startswith(".")]
        relative = lambda name, directory=directory: (
            Path(directory, name).relative_to(root).as_posix()
        )
        links = [d for d in inner if os.path.islink(os.path.join(directory, d))]
        skipped |= {relative(d): "is a link to a directory" for d in links}
        for name in (n for n in names if not n.startswith(".")):
            is_wanted = name.lower().endswith(suffixes)
            if is_wanted and (obstacle := find_link_obstacle(Path(directory, name), resolved)):
                skipped[relative(name)] = obstacle
            elif is_wanted:
                readable.append(relative(name))
            elif other and name.lower().endswith(other):
                skipped[relative(name)] = f"{Path(name).suffix.lower()} files are not read"
    return sorted(readable), dict(sorted(skipped.items()))


def find_link_obstacle(path: Path, root: Path) -> str:
    """Return why a file of a directory is not read: it is not regular, or a link out of
    the directory; "" where it is readable.
    """
    if path.is_symlink():
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # circular links
            return "is a link to itself"
        if not target.is_relative_to(root):
            return "is a link to a file outside the directory"
    return files.find_obstacle(path)


def describe_skipped(skipped: dict[str, str], total: int, what: str) -> str:
    """Return a one-line message that names the first skipped files and the reasons."""
    named = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:5])
    more = "; ..." if len(skipped) > 5 else ""
    return f"skipped {len(skipped):,} of {total:,} {what} ({named}{more})"


def hash_decile(text: str) -> int:
    """Return 0 .. 9 by the SHA-256 of a text, so that an example's split does not
    depend on which other examples exist.
    """
    return (
        int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")
        % 10
    )


def data_directory(path: str, data_dir: str, name: str, holds: str) -> Path:
    """Return the directory that config.data.path names, as a path or as the name of a
    data set in a search directory. Raise a UserError where none exists.

    Args:
      path: config.data.path.
      data_dir: a directory to search before the default ones; "" for none.
      name: config.data.name, for error messages.
      holds: the contents of such a directory, for error messages.
    """
    require(
        path != "",
        f"config.data.path = '' must name a directory of {holds} for config.data.name = {name!r}",
    )
    places = [files.expand_user(path), *(root / path for root in search_roots(data_dir))]
    directory = next((p for p in places if os.path.isdir(p)), None)
    if directory is None:
        parents = [place.parent for place in places if os.path.isdir(place.parent)]
        known = [p.name for parent in parents for p in parent.iterdir() if os.path.isdir(p)]
        raise UserError(
            f"config.data.path = {path!r} is not a directory{nearest(places[0].name, known)}"
        )
    return directory


def cache_array(cached: Path, write: Callable, description: dict, what: str) -> bool:
    """Write an array to the cache, and return whether that succeeded. The .npy file is
    written before the description, whose existence implies that of the array.

    Args:
      cached: the path of the description; the array has the suffix .npy instead.
      write: writes the array, as .npy, to an open file.
      description: the description, to which the SHA-256 of the array is added.
      what: the kind of the contents, for warnings.
    """
    array = cached.with_suffix(".npy")
    write_description = lambda f: f.write(
        documents.encode(cached, description | dict(array_sha256=file_sha256(array)), "cache")
    )
    return store_array(array, write, what) and store_array(cached, write_description, what)


def load_array(cached: Path) -> tuple[np.ndarray, dict]:
    """Return the memory-mapped array and its description, which `cache_array` wrote.

    Raises:
      OSError: the files do not exist.
      Exception: of another type, where the files are damaged.
    """
    description = documents.read(cached, "cache")
    if description is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(cached))
    if file_sha256(cached.with_suffix(".npy")) != description["array_sha256"]:
        raise ValueError("the SHA-256 of the array is not the stored one")
    return np.load(cached.with_suffix(".npy"), mmap_mode="r", allow_pickle=False), description


def store_array(cached: Path, write: Callable, what: str) -> bool:
    """Write a file of the cache atomically with `write(file)`, and return whether that
    succeeded. An OSError prints a warning, and the next run computes `what` again.
    """
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
        print_warning(f"{what} cannot be cached in {cached.parent}: {e.strerror or e}")
        return False
