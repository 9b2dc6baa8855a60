"""Data sets of text: locate the files, decode and split them into documents."""

import glob
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax.data import files
from aigc_jax.data.dataset import Dataset
from aigc_jax.data.downloads import SOURCES, download_files, download_missing_files
from aigc_jax.data.windows import make_window_dataset
from aigc_jax.utils import documents
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, format_suggestion, require
from aigc_jax.utils.files import (
    decode_text,
    is_regular_file,
    read_text,
    split_lines,
    why_not_regular,
)
from aigc_jax.utils.terminal import print_warning

SUFFIXES = (".txt", ".md")

# Directories of the standard library that have no source of its own, or tests.
NOT_CODE = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "__pycache__",
}

# Data sets without a download: directory -> the files, and where they are published.
PUBLISHED = {
    "tang_poems": "tang_20k.txt, UTF-8 with a poem on each line, such as the Tang poems of "
    "https://github.com/chinese-poetry/chinese-poetry",
    "journey_to_the_west": "xiyouji.txt, the novel as UTF-8 text, such as "
    "https://www.gutenberg.org/ebooks/23962",
    "nottingham": "ABC_cleaned/*.abc of https://github.com/jukedeck/nottingham-dataset",
    "multi30k": "data/task1/raw/*.gz of https://github.com/multi30k/dataset",
}

# Loaders: (config.data, data_dir, download) -> Dataset, as `data.load`.


def load_shakespeare(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load Shakespeare's plays as one text of 1,115,394 characters (from Karpathy's
    char-rnn).
    """
    directory, checksums = "tiny_shakespeare", SOURCES["tiny_shakespeare"].checksums
    if download:
        download_missing_files(directory, checksums, data_dir)
    paths = files.find_verified_files(directory, checksums, data_dir, config.name)
    if paths is None:
        hint = files.download_hint(config.name)
        raise files.make_missing_error(directory, checksums, data_dir, hint)
    path = paths["input.txt"]
    play = decode_text(files.read_bytes(path), path)
    about = dict(
        source=f"{path.parent} (checksum as published)",
        licence="public domain",
        files=checksums,
    )
    return make_window_dataset(config, [play], about)


def load_tang_poems(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load 20,011 poems of the Tang dynasty in traditional characters, each a text. For
    config.script = 'simplified', use the file of simplified characters if it is in the
    same directory.
    """
    path = find_corpus_file(
        "tang_poems", "tang_20k.txt", data_dir, download_tang_poems if download else None
    )
    script = config.script
    beside = path.with_name("tang_20k_simplified.txt")
    if script == "simplified" and is_regular_file(beside):
        path, script = beside, "as_is"
    poems = [line for line in split_lines(read_nonempty_text(path)) if line]
    return make_window_dataset(
        config, poems, make_about([path], "MIT; the poems are public domain"), script
    )


def download_tang_poems(target: Path) -> None:
    """Download the first twenty files of the collection chinese-poetry, and write the
    lines of each poem as one line of TARGET/tang_20k.txt.

    Raises:
      UserError: a download failed.
    """
    names = SOURCES["tang_poems"].checksums
    download_files("tang_poems", names, target)
    poems = [poem for name in names for poem in json.loads(read_text(target / name))]
    text = "".join("".join(poem["paragraphs"]) + "\n" for poem in poems)
    documents.write_atomically(target / "tang_20k.txt", text)


def load_journey_to_the_west(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load the novel, in simplified characters, as one text."""
    path = find_corpus_file("journey_to_the_west", "xiyouji.txt", data_dir)
    return make_window_dataset(
        config, [read_nonempty_text(path)], make_about([path], "public domain")
    )


def load_nottingham(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load folk tunes in ABC notation, each a text that begins with a line `X:`."""
    fetch = lambda target: download_files("nottingham", SOURCES["nottingham"].checksums, target)
    first = find_corpus_file("nottingham", "*.abc", data_dir, fetch if download else None)
    paths = sorted(first.parent.glob("*.abc"))
    blocks = [
        block for path in paths for block in re.split(r"(?m)^(?=X:)", read_nonempty_text(path))
    ]
    return make_window_dataset(
        config, [block for block in blocks if block.startswith("X:")], make_about(paths, "GPL-3.0")
    )


def load_pydoc(config: ConfigDict, _data_dir: str, _download: bool) -> Dataset:
    """Load the topics of Python's `help()`, each a text; always available."""
    from pydoc_data.topics import topics

    about = dict(source=f"pydoc_data.topics of Python {sys.version.split()[0]}", licence="PSF-2.0")
    return make_window_dataset(config, [topics[name] for name in sorted(topics)], about)


def load_stdlib(config: ConfigDict, _data_dir: str, _download: bool) -> Dataset:
    """Load the source of Python's standard library without its tests, each file a text;
    always available.
    """
    root, texts = read_standard_library()
    return make_window_dataset(config, list(texts.values()), make_about(texts, "PSF-2.0", root))


def read_standard_library() -> tuple[Path, dict[Path, str]]:  # directory, {file: source}
    """Return the directory of Python's standard library, and {path: source} of its
    modules without the tests.
    """
    root = Path(sysconfig.get_path("stdlib"))
    inside = lambda path: path.relative_to(root)
    paths = sorted(
        (p for p in files.walk_files(root, (".py",)) if not NOT_CODE & set(inside(p).parts[:-1])),
        key=lambda p: inside(p).as_posix(),
    )
    texts = {}
    for path in paths:
        try:
            texts[path] = read_text(path)
        except UserError:  # not UTF-8
            continue
    return root, texts


def load_text_files(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load the user's own texts, each file a text: data.path is a file, a directory,
    whose .txt and .md files are read recursively, or a glob such as books/*.html.
    """
    require(
        config.path != "",
        "config.data.path = '' must name a file, a directory or a glob for config.data.name "
        "= 'text'",
    )
    places = files.list_config_places(config.path, data_dir)
    paths = next(filter(None, map(list_text_files, places)), None)
    if paths is None:
        require(
            not any(map(os.path.isdir, places)),
            f"config.data.path = {config.path!r} has no file that ends in {', '.join(SUFFIXES)}",
        )
        near = format_suggestion(
            places[0].name,
            [p.name for p in places[0].parent.iterdir()] if os.path.isdir(places[0].parent) else [],
        )
        raise UserError(
            f"config.data.path = {config.path!r} is not a file, a directory, or a glob that "
            f"matches a file, for config.data.name = 'text'{files.format_searched(places)}{near}"
        )
    root = Path(os.path.commonpath([p.parent for p in paths]))
    return make_window_dataset(
        config,
        [read_nonempty_text(path) for path in paths],
        make_about(paths, "the user's own", root),
    )


def list_text_files(path_or_glob: Path) -> list[Path]:  # sorted, readable ones
    """Return the readable files of a path, which is a file, a directory or a glob.
    Print a warning that names the skipped files.

    Args:
      path_or_glob: a path or a glob pattern, in which ** matches any directories.
    """
    if is_regular_file(path_or_glob):
        return [path_or_glob]
    if os.path.isdir(path_or_glob):
        names, skipped = files.find_readable_files(path_or_glob, SUFFIXES)
        readable = [path_or_glob / name for name in names]
    else:
        matches = [
            Path(p) for p in glob.glob(str(path_or_glob), recursive=True) if not os.path.isdir(p)
        ]
        obstacles = {p: why_not_regular(p) for p in matches}
        readable = [p for p in matches if not obstacles[p]]
        skipped = {str(p): why for p, why in obstacles.items() if why}
    if skipped:
        print_warning(files.describe_skipped(skipped, len(readable) + len(skipped), "texts"))
    return sorted(readable)


def find_corpus_file(
    directory: str,
    pattern: str,
    data_dir: str,
    download: Callable[[Path], None] | None = None,
) -> Path:
    """Return the first file of a data set that matches the pattern.

    Args:
      directory: the directory of the data set.
      pattern: a glob pattern of file names.
      data_dir: a directory to search before the default ones; "" for none.
      download: writes the files to a directory where none matches; None: raise an
        error.

    Raises:
      UserError: no file matches, or the download failed.
    """
    roots = files.list_search_directories(data_dir)
    for root in roots:
        if paths := sorted(filter(is_regular_file, (root / directory).glob(pattern))):
            return paths[0]
    if download is not None:
        download(roots[0] / directory)
        return find_corpus_file(directory, pattern, data_dir)
    remedy = (
        files.download_hint(directory) if directory in SOURCES else copy_hint(directory, data_dir)
    )
    raise files.make_missing_error(directory, {pattern: ""}, data_dir, remedy)


def copy_hint(directory: str, data_dir: str) -> str:
    """Return the end of an error message about a data set without a download: which
    files to copy into which directory. The arguments are those of `find_corpus_file`.
    """
    target = files.list_search_directories(data_dir)[0] / directory
    return f"copy into {target}: {PUBLISHED[directory]}"


def read_nonempty_text(path: Path) -> str:
    """Return the text of a UTF-8 file. Line endings are preserved; a byte order mark is
    removed.
    """
    content = read_text(path)
    require(content != "", f"{path} is empty")
    require(
        "\0" not in content,
        f"{path} is not text: it has a NUL at character {content.find(chr(0)):,}",
    )
    return content


def make_about(
    paths: Iterable[Path], licence: str, root: Path | None = None
) -> dict:  # {"source", "licence", "files": {name: SHA-256}}
    """Return `Dataset.about` of text files: their directory, licence and SHA-256.

    Args:
      paths: the files.
      licence: of their contents.
      root: the directory that their names are relative to; None: the directory of the
        first file.
    """
    paths = list(paths)
    root = root or paths[0].parent
    return dict(
        source=str(root),
        licence=licence,
        files={p.relative_to(root).as_posix(): file_sha256(p) for p in paths},
    )
