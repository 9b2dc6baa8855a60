"""Data sets of text: locate the files, decode and split them into documents."""

import glob
import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax.data import files
from aigc_jax.data.dataset import Dataset
from aigc_jax.data.windows import make_window_dataset
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, format_suggestion, require
from aigc_jax.utils.files import (
    decode_text,
    expand_user,
    is_regular_file,
    read_text,
    split_lines,
    why_not_regular,
)
from aigc_jax.utils.terminal import print_warning

SUFFIXES = (".txt", ".md")

# The file of char-rnn, with the SHA-256 that tensorflow-datasets 4.9 registers
# (url_checksums/tiny_shakespeare.txt).
SHAKESPEARE = {"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"}
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

# Loaders: (config.data, data_dir, download) -> Dataset, as `data.load`.


def load_shakespeare(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load Shakespeare's plays as one text of 1,115,394 characters (from Karpathy's
    char-rnn).
    """
    find_paths = lambda: files.find_verified_files(
        "tiny_shakespeare", SHAKESPEARE, data_dir, config.name
    )
    paths = find_paths()
    if paths is None and download:
        files.download_tfds_files("tiny_shakespeare", data_dir)
        paths = find_paths()
    if paths is None:
        raise files.make_missing_error(
            "tiny_shakespeare", SHAKESPEARE, data_dir, files.download_hint(config.name)
        )
    path = paths["input.txt"]
    play = decode_text(files.read_bytes(path), path)
    about = dict(
        source=f"{path.parent} (checksum as registered by tensorflow-datasets)",
        licence="public domain",
        files=SHAKESPEARE,
    )
    return make_window_dataset(config, [play], about)


def load_tang_poems(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load 20,011 poems of the Tang dynasty in traditional characters, each a text. For
    config.script = 'simplified', use the file of simplified characters if it is in the
    same directory.
    """
    path, script = find_corpus_file("tang_poems", "tang_20k.txt", data_dir), config.script
    beside = path.with_name("tang_20k_simplified.txt")
    if script == "simplified" and is_regular_file(beside):
        path, script = beside, "as_is"
    poems = [line for line in split_lines(read_nonempty_text(path)) if line]
    return make_window_dataset(
        config, poems, make_about([path], "MIT; the poems are public domain"), script
    )


def load_journey_to_the_west(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load the novel, in simplified characters, as one text."""
    path = find_corpus_file("journey_to_the_west", "xiyouji.txt", data_dir)
    return make_window_dataset(
        config, [read_nonempty_text(path)], make_about([path], "public domain")
    )


def load_nottingham(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load folk tunes in ABC notation, each a text that begins with a line `X:`."""
    first = find_corpus_file("nottingham", "*.abc", data_dir)
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
    places = [
        expand_user(config.path),
        *(root / config.path for root in files.list_search_directories(data_dir)),
    ]
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
            f"matches a file{near}"
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


def find_corpus_file(directory: str, pattern: str, data_dir: str) -> Path:
    """Return the first file of a data set that matches the pattern; raise a UserError
    where none does. For data sets without a download.

    Args:
      directory: the directory of the data set.
      pattern: a glob pattern of file names.
      data_dir: a directory to search before the default ones; "" for none.
    """
    for root in files.list_search_directories(data_dir):
        if paths := sorted(filter(is_regular_file, (root / directory).glob(pattern))):
            return paths[0]
    raise files.make_missing_error(
        directory,
        {pattern: ""},
        data_dir,
        "set run.data_dir or AIGC_DATA_DIR to the directory that contains it",
    )


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
