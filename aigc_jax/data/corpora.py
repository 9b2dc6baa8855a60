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
from aigc_jax.data.windows import windows_of
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, nearest, require
from aigc_jax.utils.files import (
    decode_text,
    expand_user,
    find_obstacle,
    is_regular,
    read_text,
    split_lines,
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

# Loaders: (config.data, data_dir, download) -> Dataset.


def shakespeare(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load Shakespeare's plays as one text of 1,115,394 characters (from Karpathy's
    char-rnn).
    """
    find_paths = lambda: files.find_file("tiny_shakespeare", SHAKESPEARE, data_dir, config.name)
    paths = find_paths()
    if paths is None and download:
        files.fetch_file("tiny_shakespeare", data_dir)
        paths = find_paths()
    if paths is None:
        raise files.missing_error(
            "tiny_shakespeare", SHAKESPEARE, data_dir, files.download_hint(config.name)
        )
    path = paths["input.txt"]
    play = decode_text(files.read_bytes(path), path)
    about = dict(
        source=f"{path.parent} (checksum as registered by tensorflow-datasets)",
        licence="public domain",
        files=SHAKESPEARE,
    )
    return windows_of(config, [play], about)


def tang_poems(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load 20,011 poems of the Tang dynasty in traditional characters, each a text. For
    config.script = 'simplified', use the file of simplified characters if it is in the
    same directory.
    """
    path, script = find_located("tang_poems", "tang_20k.txt", data_dir), config.script
    beside = path.with_name("tang_20k_simplified.txt")
    if script == "simplified" and is_regular(beside):
        path, script = beside, "as_is"
    poems = [line for line in split_lines(decode_files(path)) if line]
    return windows_of(
        config, poems, about_files([path], "MIT; the poems are public domain"), script
    )


def journey_to_the_west(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load the novel, in simplified characters, as one text."""
    path = find_located("journey_to_the_west", "xiyouji.txt", data_dir)
    return windows_of(config, [decode_files(path)], about_files([path], "public domain"))


def nottingham(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load folk tunes in ABC notation, each a text that begins with a line `X:`."""
    first = find_located("nottingham", "*.abc", data_dir)
    paths = sorted(first.parent.glob("*.abc"))
    blocks = [block for path in paths for block in re.split(r"(?m)^(?=X:)", decode_files(path))]
    return windows_of(
        config, [block for block in blocks if block.startswith("X:")], about_files(paths, "GPL-3.0")
    )


def pydoc(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load the topics of Python's `help()`, each a text; always available."""
    from pydoc_data.topics import topics

    about = dict(source=f"pydoc_data.topics of Python {sys.version.split()[0]}", licence="PSF-2.0")
    return windows_of(config, [topics[name] for name in sorted(topics)], about)


def stdlib(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load the source of Python's standard library without its tests, each file a text;
    always available.
    """
    root, texts = find_library()
    return windows_of(config, list(texts.values()), about_files(texts, "PSF-2.0", root))


def find_library() -> tuple[Path, dict[Path, str]]:
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


def text_dataset(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
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
        *(root / config.path for root in files.search_roots(data_dir)),
    ]
    paths = next(filter(None, map(matching_files, places)), None)
    if paths is None:
        require(
            not any(map(os.path.isdir, places)),
            f"config.data.path = {config.path!r} has no file that ends in {', '.join(SUFFIXES)}",
        )
        near = nearest(
            places[0].name,
            [p.name for p in places[0].parent.iterdir()] if os.path.isdir(places[0].parent) else [],
        )
        raise UserError(
            f"config.data.path = {config.path!r} is not a file, a directory, or a glob that "
            f"matches a file{near}"
        )
    root = Path(os.path.commonpath([p.parent for p in paths]))
    return windows_of(
        config, [decode_files(path) for path in paths], about_files(paths, "the user's own", root)
    )


def matching_files(place: Path) -> list[Path]:
    """Return the readable files of a path, which is a file, a directory or a glob.
    Print a warning that names the skipped files.
    """
    if is_regular(place):
        return [place]
    if os.path.isdir(place):
        names, skipped = files.find_readable(place, SUFFIXES)
        readable = [place / name for name in names]
    else:
        matches = [Path(p) for p in glob.glob(str(place), recursive=True) if not os.path.isdir(p)]
        obstacles = {p: find_obstacle(p) for p in matches}
        readable = [p for p in matches if not obstacles[p]]
        skipped = {str(p): why for p, why in obstacles.items() if why}
    if skipped:
        print_warning(files.describe_skipped(skipped, len(readable) + len(skipped), "texts"))
    return sorted(readable)


def find_located(name: str, pattern: str, data_dir: str) -> Path:
    """Return the first file of a data set that matches the pattern; raise a UserError
    where none does. For data sets without a download.
    """
    for root in files.search_roots(data_dir):
        if paths := sorted(filter(is_regular, (root / name).glob(pattern))):
            return paths[0]
    raise files.missing_error(
        name,
        {pattern: ""},
        data_dir,
        "set run.data_dir or AIGC_DATA_DIR to the directory that contains it",
    )


def decode_files(path: Path) -> str:
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


def about_files(paths: Iterable[Path], licence: str, root: Path | None = None) -> dict:
    """Return `Dataset.about` of text files: their directory, licence and SHA-256."""
    paths = list(paths)
    root = root or paths[0].parent
    return dict(
        source=str(root),
        licence=licence,
        files={p.relative_to(root).as_posix(): file_sha256(p) for p in paths},
    )
