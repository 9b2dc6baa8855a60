"""Texts as windows of tokens: found, cleaned, split, tokenized once."""

import functools
import glob
import hashlib
import json
import os
import re
import sys
import sysconfig
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aigc_jax import input_files
from aigc_jax.data import files, tokenizers
from aigc_jax.data.dataset import Dataset, Spec, end_of, text_spec
from aigc_jax.errors import UserError, choose, nearest, require
from aigc_jax.results import cache_dir, file_sha256
from aigc_jax.terminal import print_warning

SUFFIXES = (".txt", ".md")
LAYOUT = 2  # raise it when the same texts give other tokens: caches of another number are not read
MANY = 100  # documents; as many are divided whole, fewer are cut by position

# The file of char-rnn, with the SHA-256 that tensorflow-datasets 4.9 registers (url_checksums/tiny_shakespeare.txt).
SHAKESPEARE = {"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"}
# Directories of the standard library that hold no code of its own, or none that is read.
NOT_CODE = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}

# config.data.split -> the split of each tenth of the texts. Without a test split, the valid one is both.
SPLITS = {
    "80/10/10": ("train",) * 8 + ("valid", "test"),
    "90/10": ("train",) * 9 + ("valid",),
    "80/20": ("train",) * 8 + ("valid",) * 2,
}

# Where texts come from: (config.data, data_dir, download) -> Dataset.


def shakespeare(config, data_dir, download) -> Dataset:
    """40,000 lines of Shakespeare's plays, 1,115,394 characters, as one text (Karpathy's char-rnn)."""
    look = lambda: files.find("tiny_shakespeare", SHAKESPEARE, data_dir, config.name)
    paths = look()
    if paths is None and download:
        files.fetch("tiny_shakespeare", data_dir)
        paths = look()
    if paths is None:
        raise files.missing("tiny_shakespeare", SHAKESPEARE, data_dir, files.advice(config.name))
    path = paths["input.txt"]
    play = input_files.decode_text(files.read_bytes(path), path)
    about = dict(source=f"{path.parent} (checksum as registered by tensorflow-datasets)", licence="public domain", files=SHAKESPEARE)
    return windows_of(config, [play], about)


def tang_poems(config, data_dir, download) -> Dataset:
    """20,011 poems of the Tang dynasty in traditional characters, each a text; simplified ones where a file of them lies beside."""
    path, script = located("tang_poems", "tang_20k.txt", data_dir), config.script
    beside = path.with_name("tang_20k_simplified.txt")
    if script == "simplified" and input_files.is_regular(beside):
        path, script = beside, "as_is"
    poems = [line for line in input_files.split_lines(decoded(path)) if line]
    return windows_of(config, poems, about_files([path], "MIT; the poems are public domain"), script)


def journey_to_the_west(config, data_dir, download) -> Dataset:
    """The novel, in simplified characters, as one text."""
    path = located("journey_to_the_west", "xiyouji.txt", data_dir)
    return windows_of(config, [decoded(path)], about_files([path], "public domain"))


def nottingham(config, data_dir, download) -> Dataset:
    """Folk tunes in ABC notation, each a text: from one line `X:` to the next."""
    first = located("nottingham", "*.abc", data_dir)
    paths = sorted(first.parent.glob("*.abc"))
    blocks = [block for path in paths for block in re.split(r"(?m)^(?=X:)", decoded(path))]
    return windows_of(config, [block for block in blocks if block.startswith("X:")], about_files(paths, "GPL-3.0"))


def pydoc(config, data_dir, download) -> Dataset:
    """Python's reference as `help()` shows it, each topic a text: always at hand."""
    from pydoc_data.topics import topics

    about = dict(source=f"pydoc_data.topics of Python {sys.version.split()[0]}", licence="PSF-2.0")
    return windows_of(config, [topics[name] for name in sorted(topics)], about)


def stdlib(config, data_dir, download) -> Dataset:
    """The source of Python's standard library but for its tests, each file a text: always at hand."""
    root, texts = library()
    return windows_of(config, list(texts.values()), about_files(texts, "PSF-2.0", root))


def library() -> tuple[Path, dict[Path, str]]:
    """Where Python's standard library lies, and its modules but for its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    inside = lambda path: path.relative_to(root)
    found = sorted((p for p in files.walk(root, (".py",)) if not NOT_CODE & set(inside(p).parts[:-1])), key=lambda p: inside(p).as_posix())
    texts = {}
    for path in found:
        try:
            texts[path] = input_files.read_text(path)
        except UserError:  # written in another encoding
            continue
    return root, texts


def text(config, data_dir, download) -> Dataset:
    """The user's own: a file, all .txt and .md files below a directory, or those of a glob such as books/*.html; each file a text."""
    require(config.path != "", "config.data.path = '' must name a file, a directory or a glob for config.data.name = 'text'")
    places = [input_files.expand_user(config.path), *(root / config.path for root in files.roots(data_dir))]
    paths = next(filter(None, map(matching, places)), None)
    if paths is None:
        require(not any(map(os.path.isdir, places)), f"config.data.path = {config.path!r} has no file that ends in {', '.join(SUFFIXES)}")
        near = nearest(places[0].name, [p.name for p in places[0].parent.iterdir()] if os.path.isdir(places[0].parent) else [])
        raise UserError(f"config.data.path = {config.path!r} is no file or directory, and no glob that matches a file{near}")
    root = Path(os.path.commonpath([p.parent for p in paths]))
    return windows_of(config, [decoded(path) for path in paths], about_files(paths, "the user's own", root))


def matching(place: Path) -> list[Path]:
    """The file, those below the directory, or those of the glob; what is skipped is named."""
    if input_files.is_regular(place):
        return [place]
    if os.path.isdir(place):
        found, skipped = files.find_readable(place, SUFFIXES)
        found = [place / name for name in found]
    else:
        given = [Path(p) for p in glob.glob(str(place), recursive=True) if not os.path.isdir(p)]
        obstacles = {p: input_files.find_obstacle(p) for p in given}
        found = [p for p in given if not obstacles[p]]
        skipped = {str(p): why for p, why in obstacles.items() if why}
    if skipped:
        print_warning(files.describe_skipped(skipped, len(found) + len(skipped), "texts"))
    return sorted(found)


def located(name: str, pattern: str, data_dir: str) -> Path:
    """The first file of a data set that nothing downloads."""
    for root in files.roots(data_dir):
        if found := sorted(filter(input_files.is_regular, (root / name).glob(pattern))):
            return found[0]
    raise files.missing(name, {pattern: ""}, data_dir, "set run.data_dir or AIGC_DATA_DIR to the directory that holds it")


def decoded(path: Path) -> str:
    """A file of UTF-8, to the byte but for its byte order mark: line ends stay as they are."""
    content = input_files.read_text(path)
    require(content != "", f"{path} is empty")
    require("\0" not in content, f"{path} is no text: it has a NUL at character {content.find(chr(0)):,}")
    return content


def about_files(paths, licence: str, root: Path | None = None) -> dict:
    """What to tell people: where the files lie, whose they are, and the SHA-256 of each."""
    paths = list(paths)
    root = root or paths[0].parent
    return dict(source=str(root), licence=licence, files={p.relative_to(root).as_posix(): file_sha256(p) for p in paths})


# From texts to windows.


def windows_of(config, texts: list[str], about: dict, script: str | None = None) -> Dataset:
    """The data set of all windows of config.length tokens, and the one that follows each of them.

    Where there are several texts, each is followed by the tokenizer's `end`, and so is each part of one that a split's border cuts.
    """
    clean, tenths = cleaner(config, config.script if script is None else script), choose(SPLITS, config.split, "config.data.split")
    require(config.length > 0, f"config.data.length = {config.length} tokens must be at least 1")
    texts = [cleaned for cleaned in map(clean, texts) if cleaned]
    parts = (by_content if len(texts) >= MANY else by_position)(texts, tenths)
    tokenizer, tokens, counts = tokenized(config, parts, len(texts) > 1)
    bounds = layout(counts, config.length)
    letters, total = sum(map(len, texts)), sum(counts.values())
    about = about | dict(text=dict(documents=len(texts), characters=letters, tokens=total, characters_per_token=letters / total,
                                   tokenizer=tokenizer.kind, loses=tokenizer.loses))
    start = beginning(tokenizer, parts["train"], len(texts) > 1)
    spec = text_spec(tokenizer, (config.length,), bounds["train"][1], start)
    take, vary = takers(config.length)
    return Dataset(dict(tokens=tokens, sizes=tokenizer.sizes), bounds, take, spec, about, vary, tokenizer)


def takers(length: int) -> tuple[Callable, Callable]:
    """`take` and `vary` of windows of `length` tokens: where they stand, and all moved on by as much as an epoch's word says."""

    def at(arrays, first):  # [B] -> {"tokens": [B, T + 1], "characters": [B, T], "bytes": [B, T]}, the sizes of tokens[:, 1:]
        tokens = arrays["tokens"][first[:, None] + np.arange(length + 1, dtype=np.int32)].astype(np.int32)
        sizes = arrays["sizes"][tokens[:, 1:]].astype(np.float32)
        return dict(tokens=tokens, characters=sizes[..., 0], bytes=sizes[..., 1])

    take = lambda arrays, rows: at(arrays, rows * length)
    vary = lambda arrays, rows, words: at(arrays, rows * length + (words % length).astype(np.int32))
    return take, vary


def beginning(tokenizer, train: list[str], several: bool) -> int:
    """The token after which a text begins: the one between texts; of a single text the last of its line
    break, or its first."""
    if several:
        return end_of(tokenizer)
    line_break = next((mark for mark in ("\r\n", "\n") if mark in train[0]), None)
    return int(tokenizer.encode(line_break)[-1] if line_break else tokenizer.encode(train[0])[0])


def layout(counts: dict[str, int], length: int) -> dict[str, tuple[int, int]]:
    """{split: (first window, windows)} of splits with so many tokens, each from a multiple of `length` on. A training window can
    move on by length - 1 tokens and still lie in its split."""
    bounds, first = {}, 0
    for name, count in counts.items():
        spare = length if name == "train" else 1
        require(count >= length + spare,
                f"config.data.length = {length} is too long: the {name} split has {count:,} tokens and a window needs {length + spare:,}")
        bounds[name] = (first, (count - spare) // length)
        first += -(-count // length)
    return bounds | dict(test=bounds.get("test", bounds["valid"]))


def blank(vocabulary: int, length: int, windows: int) -> Dataset:
    """A text of nothing but token 0, with as many training windows: what a program is compiled for does not hang on what a text says."""
    bounds = layout(dict(train=(windows + 1) * length, valid=10 * length), length)
    take, vary = takers(length)
    tokens = np.zeros((windows + 12) * length, np.uint16 if vocabulary <= 2**16 else np.int32)
    spec = Spec("text", (length,), bounds["train"][1], vocabulary=vocabulary, mask=vocabulary - 1)
    return Dataset(dict(tokens=tokens, sizes=np.ones((vocabulary, 2), np.uint8)), bounds, take, spec, {}, vary)


def by_content(texts: list[str], tenths) -> dict[str, list[str]]:
    """Each text by the hash of what it says, so that the same text twice is in one split."""
    which = [tenths[files.tenth(text)] for text in texts]
    return {name: [text for text, its in zip(texts, which, strict=True) if its == name] for name in dict.fromkeys(tenths)}


def by_position(texts: list[str], tenths) -> dict[str, list[str]]:
    """The first tenths of all characters, those after them, and so on; a text that a border cuts is two."""
    starts = np.cumsum([0, *map(len, texts)]).tolist()
    border = lambda tenth: starts[-1] * tenth // 10
    parts = {}
    for name in dict.fromkeys(tenths):
        low, high = border(tenths.index(name)), border(tenths.index(name) + tenths.count(name))
        cut = [text[max(low - start, 0) : max(high - start, 0)] for text, start in zip(texts, starts, strict=False)]
        parts[name] = [part for part in cut if part]
    return parts


def tokenized(config, parts: dict[str, list[str]], several: bool):  # -> Tokenizer, [splits' tokens, each filled up], {split: its tokens}
    """All splits as one array, kept in the user's cache. The tokenizer is fit to `tokenizers.fitted_part`."""
    hashes = {name: [hashlib.sha256(part.encode()).hexdigest() for part in texts] for name, texts in parts.items()}
    given = tokenizers.build((), config) if config.tokenizer == "file" else None
    settings = [LAYOUT, config.tokenizer, given and given.sha256, config.vocabulary, config.length, several, hashes]
    cached = cache_dir("texts") / f"{hashlib.sha256(json.dumps(settings).encode()).hexdigest()}.json"
    try:
        tokens, described = files.kept_array(cached)
        return tokenizers.from_json(described["tokenizer"]), np.asarray(tokens), described["counts"]
    except OSError:  # not there
        pass
    except Exception:  # a damaged file is damaged in many ways
        print_warning(f"{cached} is damaged: tokenizing again")
    tokenizer = given or tokenizers.build(tokenizers.fitted_part(parts, config), config)
    end = np.array([end_of(tokenizer)] * several, np.int32)
    join = lambda texts: np.concatenate([np.zeros(0, np.int32), *(ids for part in texts for ids in (tokenizer.encode(part), end))])
    ids = {name: join(texts) for name, texts in parts.items()}
    counts = {name: len(x) for name, x in ids.items()}
    layout(counts, config.length)  # before it is kept: is every split long enough?
    filler = tokenizer.size - 1 if tokenizer.end is None else tokenizer.end  # which nobody reads
    filled = [np.append(x, np.full(-len(x) % config.length, filler)) for x in ids.values()]
    tokens = np.concatenate(filled).astype(np.uint16 if tokenizer.size <= 2**16 else np.int32)
    save = lambda f: np.save(f, tokens, allow_pickle=False)
    files.keep_array(cached, save, dict(tokenizer=tokenizer.to_json(), counts=counts), "tokens")
    return tokenizer, tokens, counts


# Cleaning, in this order: script, normal form, small letters, control characters, stop words.


def opencc() -> Callable:
    try:
        from opencc import OpenCC
    except ImportError:
        raise UserError("config.data.script = 'simplified' needs the package opencc: pip install opencc") from None
    return OpenCC("t2s").convert


same = lambda text: text
SCRIPTS = {"as_is": lambda: same, "simplified": opencc}
FORMS = {form: functools.partial(unicodedata.normalize, form) for form in ("NFC", "NFKC", "NFD", "NFKD")}
CONTROL = {"keep": same, "drop": functools.partial(re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]").sub, "")}


def cleaner(config, script: str) -> Callable:
    """text -> text, as the config's keys script, normalize, lower, control and stop_words say. Stop words are normalized and written
    small as the text is; a word is a run of letters, digits and underscores."""
    steps = [choose(SCRIPTS, script, "config.data.script")(),
             choose(FORMS, config.normalize, "config.data.normalize") if config.normalize else same,
             str.lower if config.lower else same, choose(CONTROL, config.control, "config.data.control")]
    clean = lambda text: functools.reduce(lambda text, step: step(text), steps, text)
    if config.stop_words == "":
        return clean
    path = input_files.expand_user(config.stop_words)
    content = input_files.read_text(path, f"config.data.stop_words = {config.stop_words!r}")
    stop = {clean(word.strip()) for word in input_files.split_lines(content)}
    return lambda text: re.sub(r"\w+", lambda found: "" if found[0] in stop else found[0], clean(text))
