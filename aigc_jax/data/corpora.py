"""Texts: found, split and tokenized once."""

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
# Directories of the standard library that hold no code of its own, or none to read.
NOT_CODE = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "__pycache__",
}

# Where texts come from: (config.data, data_dir, download) -> Dataset.


def shakespeare(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Shakespeare's plays as one text of 1,115,394 characters (Karpathy's char-rnn)."""
    look = lambda: files.find("tiny_shakespeare", SHAKESPEARE, data_dir, config.name)
    paths = look()
    if paths is None and download:
        files.fetch("tiny_shakespeare", data_dir)
        paths = look()
    if paths is None:
        raise files.missing("tiny_shakespeare", SHAKESPEARE, data_dir, files.advice(config.name))
    path = paths["input.txt"]
    play = decode_text(files.read_bytes(path), path)
    about = dict(
        source=f"{path.parent} (checksum as registered by tensorflow-datasets)",
        licence="public domain",
        files=SHAKESPEARE,
    )
    return windows_of(config, [play], about)


def tang_poems(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """20,011 poems of the Tang dynasty in traditional characters, each a text;
    simplified ones where a file of them lies beside.
    """
    path, script = located("tang_poems", "tang_20k.txt", data_dir), config.script
    beside = path.with_name("tang_20k_simplified.txt")
    if script == "simplified" and is_regular(beside):
        path, script = beside, "as_is"
    poems = [line for line in split_lines(decoded(path)) if line]
    return windows_of(
        config, poems, about_files([path], "MIT; the poems are public domain"), script
    )


def journey_to_the_west(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """The novel, in simplified characters, as one text."""
    path = located("journey_to_the_west", "xiyouji.txt", data_dir)
    return windows_of(config, [decoded(path)], about_files([path], "public domain"))


def nottingham(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Folk tunes in ABC notation, each a text: from one line `X:` to the next."""
    first = located("nottingham", "*.abc", data_dir)
    paths = sorted(first.parent.glob("*.abc"))
    blocks = [block for path in paths for block in re.split(r"(?m)^(?=X:)", decoded(path))]
    return windows_of(
        config, [block for block in blocks if block.startswith("X:")], about_files(paths, "GPL-3.0")
    )


def pydoc(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Python's reference as `help()` shows it, each topic a text: always at hand."""
    from pydoc_data.topics import topics

    about = dict(source=f"pydoc_data.topics of Python {sys.version.split()[0]}", licence="PSF-2.0")
    return windows_of(config, [topics[name] for name in sorted(topics)], about)


def stdlib(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """The source of Python's standard library but for its tests, each file a text:
    always at hand.
    """
    root, texts = library()
    return windows_of(config, list(texts.values()), about_files(texts, "PSF-2.0", root))


def library() -> tuple[Path, dict[Path, str]]:
    """Where Python's standard library lies, and its modules but for its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    inside = lambda path: path.relative_to(root)
    found = sorted(
        (p for p in files.walk(root, (".py",)) if not NOT_CODE & set(inside(p).parts[:-1])),
        key=lambda p: inside(p).as_posix(),
    )
    texts = {}
    for path in found:
        try:
            texts[path] = read_text(path)
        except UserError:  # written in another encoding
            continue
    return root, texts


def text(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """The user's own: a file, all .txt and .md files below a directory, or those of a
    glob such as books/*.html; each file a text.
    """
    require(
        config.path != "",
        "config.data.path = '' must name a file, a directory or a glob for config.data.name "
        "= 'text'",
    )
    places = [expand_user(config.path), *(root / config.path for root in files.roots(data_dir))]
    paths = next(filter(None, map(matching, places)), None)
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
            f"config.data.path = {config.path!r} is no file or directory, and no glob that "
            f"matches a file{near}"
        )
    root = Path(os.path.commonpath([p.parent for p in paths]))
    return windows_of(
        config, [decoded(path) for path in paths], about_files(paths, "the user's own", root)
    )


def matching(place: Path) -> list[Path]:
    """The file, those below the directory, or of the glob; names what is skipped."""
    if is_regular(place):
        return [place]
    if os.path.isdir(place):
        names, skipped = files.find_readable(place, SUFFIXES)
        found = [place / name for name in names]
    else:
        given = [Path(p) for p in glob.glob(str(place), recursive=True) if not os.path.isdir(p)]
        obstacles = {p: find_obstacle(p) for p in given}
        found = [p for p in given if not obstacles[p]]
        skipped = {str(p): why for p, why in obstacles.items() if why}
    if skipped:
        print_warning(files.describe_skipped(skipped, len(found) + len(skipped), "texts"))
    return sorted(found)


def located(name: str, pattern: str, data_dir: str) -> Path:
    """The first file of a data set that nothing downloads."""
    for root in files.roots(data_dir):
        if found := sorted(filter(is_regular, (root / name).glob(pattern))):
            return found[0]
    raise files.missing(
        name,
        {pattern: ""},
        data_dir,
        "set run.data_dir or AIGC_DATA_DIR to the directory that holds it",
    )


def decoded(path: Path) -> str:
    """A file of UTF-8, to the byte but for its byte order mark: line ends stay."""
    content = read_text(path)
    require(content != "", f"{path} is empty")
    require(
        "\0" not in content,
        f"{path} is no text: it has a NUL at character {content.find(chr(0)):,}",
    )
    return content


def about_files(paths: Iterable[Path], licence: str, root: Path | None = None) -> dict:
    """What to tell people: where the files lie, whose they are, and their SHA-256."""
    paths = list(paths)
    root = root or paths[0].parent
    return dict(
        source=str(root),
        licence=licence,
        files={p.relative_to(root).as_posix(): file_sha256(p) for p in paths},
    )
