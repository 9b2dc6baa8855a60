"""Data files: search and verification."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax.utils import files
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, first_line, format_command, format_suggestion, require


def list_search_directories(data_dir: str) -> list[Path]:
    """Return the directories to search: data_dir, $AIGC_DATA_DIR and
    ~/tensorflow_datasets.
    """
    candidates = [data_dir, os.environ.get("AIGC_DATA_DIR", ""), "~/tensorflow_datasets"]
    files.require_local_path(candidates[1], f"$AIGC_DATA_DIR = {candidates[1]!r}")
    return [files.expand_user(d) for d in candidates if d]


def find_verified_files(
    directory: str, checksums: dict[str, str], data_dir: str, config_name: str = ""
) -> dict[str, Path] | None:  # {file: SHA-256} -> {file: path}
    """Return {file: verified path} of a data set, from the first search directory that
    has any of the files; None where none has. A file may be compressed, as FILE.gz.

    Args:
      directory: the directory of the data set.
      checksums: {file: SHA-256 of the uncompressed contents}.
      data_dir: a directory to search before the default ones; "" for none.
      config_name: the data set's name in a config, for error messages; "": `directory`.

    Raises:
      UserError: some of the files are missing, or a SHA-256 differs.
    """
    for root in list_search_directories(data_dir):
        paths = {file: resolve_gzip_path(root / directory / file) for file in checksums}
        if not any(map(files.is_regular_file, paths.values())):
            continue
        for file, path in paths.items():
            if not files.is_regular_file(path):
                raise UserError(
                    f"{directory}: {file} is missing in {path.parent}; "
                    f"{download_hint(config_name or directory)}"
                )
            verify_sha256(
                directory,
                path,
                file_sha256(path) if path.name == file else hash_gzip_contents(path),
                checksums[file],
                download_hint(config_name or directory),
            )
        return paths
    return None


def verify_sha256(dataset_name: str, path: Path, actual: str, expected: str, remedy: str) -> None:
    """Raise a UserError where a file's SHA-256 is not the expected one.

    Args:
      dataset_name: for the message.
      path: the file.
      actual: the SHA-256 of the file's contents.
      expected: the registered SHA-256.
      remedy: the end of the message, such as `download_hint`.
    """
    if actual != expected:
        raise UserError(
            f"{dataset_name}: {path} is damaged ({path.stat().st_size:,} bytes, SHA-256 not as "
            f"registered); delete it, then {remedy}"
        )


def resolve_gzip_path(path: Path) -> Path:  # path, or path.gz if only that exists
    """Return the path, or the path with .gz appended if only that is a regular file."""
    packed = path.with_name(path.name + ".gz")
    return packed if files.is_regular_file(packed) and not files.is_regular_file(path) else path


def hash_gzip_contents(path: Path) -> str:  # SHA-256, or "" for a damaged file
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


def read_bytes(path: Path) -> bytes:  # uncompressed, if the name ends in .gz
    """Return the contents of a file, uncompressed if its name ends in .gz; raise a
    UserError where they cannot be read.
    """
    try:
        with files.open_regular_file(path) as f:
            return (gzip.open(f) if path.suffix == ".gz" else f).read()
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path} cannot be read: {first_line(e)}") from None


def find_newest_tfds_version(name: str, data_dir: str) -> Path | None:  # its directory
    """Return the directory of the newest version of a data set that tensorflow-datasets
    prepared, from the first search directory that has one, or None.

    Args:
      name: the data set.
      data_dir: a directory to search before the default ones; "" for none.
    """
    for root in list_search_directories(data_dir):
        versions = sorted((root / name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json"))
        if versions:
            return versions[-1].parent
    return None


def download_hint(name: str) -> str:
    """Return the end of an error message: the command that downloads a data set."""
    return f"get it with: {format_command('data', name=name, download=True)}"


def make_missing_error(
    directory: str, checksums: dict[str, str], data_dir: str, remedy: str = ""
) -> UserError:
    """Return the error for a data set that is not found.

    Args:
      directory: the directory of the data set.
      checksums: {file: SHA-256}; the first file is named.
      data_dir: a directory that was searched before the default ones; "" for none.
      remedy: the end of the message; "": `download_hint` of `directory`.
    """
    file = next(iter(checksums))
    return UserError(
        f"{directory}: {file} not found (searched {list_places(directory, data_dir)}); "
        f"{remedy or download_hint(directory)}"
    )


def list_places(name: str, data_dir: str) -> str:  # "A/name, B/name"
    """Return the paths at which a file or directory was searched, for messages."""
    return ", ".join(str(root / name) for root in list_search_directories(data_dir))


def list_config_places(config_path: str, data_dir: str) -> list[Path]:
    """Return the paths that config.data.path may denote: an absolute path itself, a
    relative one also in the search directories.
    """
    path = files.expand_user(config_path)
    roots = [] if path.is_absolute() else list_search_directories(data_dir)
    return [path, *(root / config_path for root in roots)]


def format_searched(places: list[Path]) -> str:  # " (searched A, B)"; "" for one place
    """Return the paths that were searched, for the message of an error that names the
    first of them.
    """
    return f" (searched {', '.join(map(str, places))})" if len(places) > 1 else ""


def walk_files(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files below a directory that end in one of the suffixes. Hidden files
    and directories are ignored; links to directories are not followed.

    Args:
      root: the directory.
      suffixes: in lower case, with their dots; the case of file names is ignored.
    """
    for directory, inner, names in os.walk(root):
        inner[:] = [d for d in inner if not d.startswith(".")]
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield Path(directory, name)


def find_readable_files(
    root: Path, suffixes: tuple[str, ...], skipped_suffixes: tuple[str, ...] = ()
) -> tuple[list[str], dict[str, str]]:  # relative paths, {skipped path: reason}
    """Find the readable files below a directory.

    Args:
      root: the directory.
      suffixes: of the wanted files.
      skipped_suffixes: suffixes of files to report as skipped.

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
            if is_wanted and (obstacle := explain_unreadable(Path(directory, name), resolved)):
                skipped[relative(name)] = obstacle
            elif is_wanted:
                readable.append(relative(name))
            elif skipped_suffixes and name.lower().endswith(skipped_suffixes):
                skipped[relative(name)] = f"{Path(name).suffix.lower()} files are not read"
    return sorted(readable), dict(sorted(skipped.items()))


def explain_unreadable(path: Path, root: Path) -> str:  # "" for a readable file
    """Return why a file of a directory is not read: it is not regular, or a link out of
    the directory; "" where it is readable.

    Args:
      path: a file of the directory.
      root: the directory, resolved.
    """
    if path.is_symlink():
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # circular links
            return "is a link to itself"
        if not target.is_relative_to(root):
            return "is a link to a file outside the directory"
    return files.why_not_regular(path)


def describe_skipped(skipped: dict[str, str], num_files: int, noun: str) -> str:
    """Return a one-line message that names the first skipped files and the reasons.

    Args:
      skipped: {file: reason}.
      num_files: of all files, read or skipped.
      noun: the kind of the files, such as "images".
    """
    named = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:5])
    more = "; ..." if len(skipped) > 5 else ""
    return f"skipped {len(skipped):,} of {num_files:,} {noun} ({named}{more})"


def hash_decile(text: str) -> int:  # -> 0 .. 9
    """Return 0 .. 9 by the SHA-256 of a text, so that an example's split does not
    depend on which other examples exist.
    """
    return (
        int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")
        % 10
    )


def find_config_file(config: ConfigDict, contents: str) -> Path:
    """Return the file that config.data.path names. Raise a UserError where it does not
    exist, with the nearest name in its directory.

    Args:
      config: the `data` section of a config.
      contents: of such a file, for error messages.
    """
    wanted = f"must name {contents} for config.data.name = {config.name!r}"
    require(config.path != "", f"config.data.path = '' {wanted}")
    path = files.expand_user(config.path)
    require(
        files.why_not_regular(path) != files.MISSING,
        f"config.data.path = {config.path!r} is no such file, and {wanted}"
        f"{files.suggest_sibling(path)}",
    )
    return path


def find_config_directory(config_path: str, data_dir: str, config_name: str, contents: str) -> Path:
    """Return the directory that config.data.path names, as a path or as the name of a
    data set in a search directory. Raise a UserError where none exists.

    Args:
      config_path: config.data.path.
      data_dir: a directory to search before the default ones; "" for none.
      config_name: config.data.name, for error messages.
      contents: of such a directory, for error messages.
    """
    require(
        config_path != "",
        f"config.data.path = '' must name a directory of {contents} for config.data.name = "
        f"{config_name!r}",
    )
    places = list_config_places(config_path, data_dir)
    directory = next((p for p in places if os.path.isdir(p)), None)
    if directory is None:
        parents = [place.parent for place in places if os.path.isdir(place.parent)]
        known = [p.name for parent in parents for p in parent.iterdir() if os.path.isdir(p)]
        raise UserError(
            f"config.data.path = {config_path!r} is not a directory of {contents} for "
            f"config.data.name = {config_name!r}{format_searched(places)}"
            f"{format_suggestion(places[0].name, known)}"
        )
    return directory
