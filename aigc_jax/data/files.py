"""Where data files lie, whether they are whole, and how they are fetched."""

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


def roots(data_dir: str) -> list[Path]:
    """The directories to search: data_dir, $AIGC_DATA_DIR, ~/tensorflow_datasets."""
    given = [data_dir, os.environ.get("AIGC_DATA_DIR", ""), "~/tensorflow_datasets"]
    return [files.expand_user(d) for d in given if d]


def find(
    name: str, checksums: dict[str, str], data_dir: str, called: str = ""
) -> dict[str, Path] | None:
    """The files of one data set, each verified, from the first root that has any of
    them; None where none has. A file may lie there packed, as FILE.gz. `called` is its
    name in a config, where that is not the directory's.

    Raises a UserError where a file is missing beside the others, or is not the one
    whose SHA-256 is registered.
    """
    for root in roots(data_dir):
        paths = {file: plain_or_packed(root / name / file) for file in checksums}
        if not any(map(files.is_regular, paths.values())):
            continue
        for file, path in paths.items():
            if not files.is_regular(path):
                raise UserError(
                    f"{name}: {file} is missing in {path.parent}; {advice(called or name)}"
                )
            verify(
                name,
                path,
                file_sha256(path) if path.name == file else unpacked_sha256(path),
                checksums[file],
                advice(called or name),
            )
        return paths
    return None


def verify(name: str, path: Path, found: str, registered: str, remedy: str) -> None:
    """A UserError where a file's SHA-256 is not the registered one."""
    if found != registered:
        raise UserError(
            f"{name}: {path} is damaged ({path.stat().st_size} bytes, SHA-256 not as "
            f"registered); delete it, then {remedy}"
        )


def plain_or_packed(path: Path) -> Path:
    """Return the path, or the .gz beside it where that alone is a regular file."""
    packed = path.with_name(path.name + ".gz")
    return packed if files.is_regular(packed) and not files.is_regular(path) else path


def unpacked_sha256(path: Path) -> str:
    """SHA-256 of what a gzip file holds; of nothing where it cannot be unpacked. No
    more is unpacked at once than a piece.
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
    """What a file holds, unpacked where its name ends in .gz; a UserError where it
    cannot be read.
    """
    try:
        with files.open_regular(path) as f:
            return (gzip.open(f) if path.suffix == ".gz" else f).read()
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path} cannot be read: {first_line(e)}") from None


def prepared(name: str, data_dir: str) -> Path | None:
    """The newest version of a data set that tensorflow-datasets prepared in one of the
    roots, or None.
    """
    for root in roots(data_dir):
        versions = sorted((root / name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json"))
        if versions:
            return versions[-1].parent
    return None


def advice(name: str) -> str:
    """Return how to fetch the data set, for the end of an error message."""
    return f"get it with: {command('data', name=name, download=True)}"


def missing(name: str, checksums: dict[str, str], data_dir: str, remedy: str = "") -> UserError:
    """The sentence for a data set that is nowhere; it ends in what to do, which is to
    download it unless `remedy` says otherwise.
    """
    places = ", ".join(str(root / name) for root in roots(data_dir))
    return UserError(
        f"{name}: {next(iter(checksums))} not found (looked in {places}); {remedy or advice(name)}"
    )


def fetch(name: str, data_dir: str) -> None:
    """Download the raw files of a tensorflow-datasets builder into the first root, with
    its URLs and checksums.
    """
    import tensorflow_datasets as tfds

    target = roots(data_dir)[0] / name
    target.mkdir(parents=True, exist_ok=True)
    infos = tfds.builder_cls(name).url_infos
    manager = tfds.download.DownloadManager(
        download_dir=target / "downloads",
        url_infos=infos,
        dataset_name=name,
        force_checksums_validation=True,
    )
    try:
        got = manager.download({info.filename: url for url, info in infos.items()})
    except Exception as e:  # a library's many network errors: one sentence for all
        raise UserError(f"{name}: the download failed: {first_line(e)}") from None
    for file, path in got.items():
        os.replace(path, target / file)


def walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files below a directory that end in one of the suffixes. Hidden ones are left
    out; links to directories are not followed.
    """
    for directory, inner, names in os.walk(root):
        inner[:] = [d for d in inner if not d.startswith(".")]
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield Path(directory, name)


def find_readable(
    root: Path, suffixes: tuple[str, ...], other: tuple[str, ...] = ()
) -> tuple[list[str], dict[str, str]]:
    """(paths below a directory that end in one of the suffixes, {path: why it is not
    read}), both relative to it and sorted. Read are regular files, and links to such
    within the directory. Links to directories, and files that end in one of `other`,
    are named among those that are not.
    """
    inside = root.resolve()
    found: list[str] = []
    skipped: dict[str, str] = {}
    for directory, inner, names in os.walk(root):
        inner[:] = [d for d in inner if not d.startswith(".")]
        relative = lambda name, directory=directory: (
            Path(directory, name).relative_to(root).as_posix()
        )
        links = [d for d in inner if os.path.islink(os.path.join(directory, d))]
        skipped |= {relative(d): "is a link to a directory" for d in links}
        for name in (n for n in names if not n.startswith(".")):
            if name.lower().endswith(suffixes):
                obstacle = find_link_obstacle(Path(directory, name), inside)
                if obstacle:
                    skipped[relative(name)] = obstacle
                else:
                    found.append(relative(name))
            elif other and name.lower().endswith(other):
                skipped[relative(name)] = f"{Path(name).suffix.lower()} files are not read"
    return sorted(found), dict(sorted(skipped.items()))


def find_link_obstacle(path: Path, inside: Path) -> str:
    """Why a file of a directory is not read: it is not regular, or a link out of the
    directory; "" where nothing is wrong with it.
    """
    if path.is_symlink():
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # links that go in a circle
            return "is a link to itself"
        if not target.is_relative_to(inside):
            return "is a link out of the directory"
    return files.find_obstacle(path)


def describe_skipped(skipped: dict[str, str], total: int, what: str) -> str:
    """One line that names the first files that were not read, and why."""
    named = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:5])
    more = "; ..." if len(skipped) > 5 else ""
    return f"skipped {len(skipped):,} of {total:,} {what} ({named}{more})"


def tenth(text: str) -> int:
    """0 .. 9 by the SHA-256 of a text: what it names stays in its split when others
    come and go.
    """
    return (
        int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")
        % 10
    )


def directory(path: str, data_dir: str, name: str, holds: str) -> Path:
    """The directory config.data.path, or the one of that name among the data sets."""
    require(
        path != "",
        f"config.data.path = '' must name a directory of {holds} for config.data.name = {name!r}",
    )
    places = [files.expand_user(path), *(root / path for root in roots(data_dir))]
    found = next((p for p in places if os.path.isdir(p)), None)
    if found is None:
        parents = [place.parent for place in places if os.path.isdir(place.parent)]
        known = [p.name for parent in parents for p in parent.iterdir() if os.path.isdir(p)]
        raise UserError(
            f"config.data.path = {path!r} is no directory{nearest(places[0].name, known)}"
        )
    return found


def keep_array(cached: Path, write: Callable, described: dict, what: str) -> bool:
    """`write(file)` an array as .npy beside `cached`, and then `cached`, which
    describes it: where it is, the array is. Were both written?
    """
    array = cached.with_suffix(".npy")
    whole = lambda f: f.write(
        documents.encode(cached, described | dict(array_sha256=file_sha256(array)), "cache")
    )
    return keep(array, write, what) and keep(cached, whole, what)


def kept_array(cached: Path) -> tuple[np.ndarray, dict]:
    """The array, mapped, and what describes it. An OSError where they are not there,
    another where they are damaged.
    """
    described = documents.read(cached, "cache")
    if described is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(cached))
    if file_sha256(cached.with_suffix(".npy")) != described["array_sha256"]:
        raise ValueError("the array is not the one that was kept")
    return np.load(cached.with_suffix(".npy"), mmap_mode="r", allow_pickle=False), described


def keep(cached: Path, write: Callable, what: str) -> bool:
    """`write(file)` a file of the cache, whole or not at all; where it cannot be
    written, `what` is made again the next time.
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
        print_warning(f"{what} are not kept in {cached.parent}: {e.strerror or e}")
        return False
