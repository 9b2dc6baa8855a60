"""Pairs of texts, a source and a target, as rows of tokens padded to one length."""

import ast
import itertools
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import cleaning, corpora, files, tokenizers, windows
from aigc_jax.data.dataset import Dataset, join_splits, make_text_spec, require_end_token
from aigc_jax.data.downloads import download_files
from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.utils.errors import UserError, choose, require
from aigc_jax.utils.files import decode_text, is_regular_file, split_lines

MULTI30K = dict(train="train", valid="val", test="test_2016_flickr")  # split -> file name
LANGUAGES = ("en", "de", "fr")
# The most tokens of either side of a held-out pair: MOST_TIMES * config.data.length, or
# MOST_TOKENS if that is more.
MOST_TIMES, MOST_TOKENS = 64, 16_384

TokenPairs = list[tuple[np.ndarray, np.ndarray]]  # the tokens of pairs


def load_multi30k(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load Multi30k, 29,000 + 1,014 + 1,000 captions of images in English, German and
    French (Elliott et al. 2016), as pairs from the first to the second language of
    config.languages, such as "en-de".
    """
    languages = tuple(config.languages.split("-"))
    require(
        len(languages) == 2 and set(languages) <= set(LANGUAGES) and languages[0] != languages[1],
        f"config.data.languages = {config.languages!r} must name two of "
        f"{', '.join(LANGUAGES)}, such as 'en-de'",
    )
    paths = find_multi30k_files(languages, data_dir, download)
    splits = {}
    for split, name in MULTI30K.items():
        used = [paths[f"{name}.{language}"] for language in languages]
        sides = [split_lines(decode_text(files.read_bytes(path), path)) for path in used]
        require(
            len(sides[0]) == len(sides[1]),
            f"multi30k: {name} has {len(sides[0]):,} lines of {languages[0]} and "
            f"{len(sides[1]):,} of {languages[1]}",
        )
        splits[split] = list(zip(*sides, strict=True))
    return make_pair_dataset(config, splits, corpora.make_about(paths.values(), "none stated"))


def find_multi30k_files(
    languages: tuple[str, ...], data_dir: str, download: bool
) -> dict[str, Path]:  # {"train.en": path, ...}
    """Return {"train.en": path} of the files of two languages, plain or gzipped, and
    download missing ones if requested; else raise a UserError.
    """
    names = [f"{name}.{language}" for name in MULTI30K.values() for language in languages]
    fetch = lambda target: download_files("multi30k", [f"{name}.gz" for name in names], target)
    pattern = f"train.{languages[0]}*"
    folder = corpora.find_corpus_file(
        "multi30k", pattern, data_dir, fetch if download else None
    ).parent
    find_missing = lambda: [
        name for name in names if not is_regular_file(files.resolve_gzip_path(folder / name))
    ]
    if download:
        download_files("multi30k", [f"{name}.gz" for name in find_missing()], folder)
    for name in find_missing():
        hint = files.download_hint("multi30k")
        raise UserError(f"multi30k: {name}.gz is missing in {folder}; {hint}")
    return {name: files.resolve_gzip_path(folder / name) for name in names}


def load_tsv_pairs(config: ConfigDict, _data_dir: str, _download: bool) -> Dataset:
    """Load the user's own pairs: data.path is a file with a source, a tab and a target
    on each line; split by the hash of the source.
    """
    path = files.find_config_file(config, "a file with a source, a tab and a target on each line")
    numbered = {
        number: line.split("\t")
        for number, line in enumerate(split_lines(corpora.read_nonempty_text(path)), 1)
        if line
    }
    for number, row in numbered.items():
        require(len(row) == 2, f"{path}: line {number} is not a source, a tab and a target")
    rows = numbered.values()
    tenths = choose(windows.SPLITS, config.split, "config.data.split")
    splits = {
        name: [(row[0], row[1]) for row in rows if tenths[files.hash_decile(row[0])] == name]
        for name in dict.fromkeys(tenths)
    }
    return make_pair_dataset(config, splits, corpora.make_about([path], "the user's own"))


def load_docstrings(config: ConfigDict, _data_dir: str, _download: bool) -> Dataset:
    """Load the functions of Python's standard library as pairs from the docstring to
    the function without its docstring; split by the hash of the docstring. Always
    available.
    """
    root, sources = corpora.read_standard_library()
    rows = [pair for source in sources.values() for pair in extract_documented_functions(source)]
    tenths = choose(windows.SPLITS, config.split, "config.data.split")
    splits = {
        name: [row for row in rows if tenths[files.hash_decile(row[0])] == name]
        for name in dict.fromkeys(tenths)
    }
    return make_pair_dataset(config, splits, corpora.make_about(sources, "PSF-2.0", root))


def extract_documented_functions(
    source: str,
) -> list[tuple[str, str]]:  # (quoted docstring, function without it)
    """Return [(quoted docstring, function without its docstring)] of the functions that
    have a docstring and a body, dedented to the module level.
    """
    try:
        # Lines as Python counts them: a form feed ends no line.
        tree, rows = ast.parse(source), re.split(r"\r\n|\r|\n", source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    pairs = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if not docstring or len(node.body) < 2 or '"""' in docstring:
            continue
        first, last = node.body[0].lineno, node.body[0].end_lineno
        assert last is not None  # true of every parsed node
        if node.lineno < first and last < node.body[1].lineno:  # on lines of its own
            code = textwrap.dedent(
                "\n".join(rows[node.lineno - 1 : first - 1] + rows[last : node.end_lineno])
            )
            pairs.append((f'"""{docstring}"""', code))
    return pairs


def make_pair_dataset(
    config: ConfigDict, splits: dict[str, list[tuple[str, str]]], about: dict
) -> Dataset:
    """Return the data set of pairs, with one tokenizer that is fit to both sides of
    `tokenizers.select_examples_to_fit`.

    Args:
      config: the `data` section of a config. config.prefix_lm selects a row for each
        pair (`make_prefix_lm_dataset`) instead of two (`make_encoder_decoder_dataset`).
      splits: {split: [(source, target)]}, before cleaning.
      about: `Dataset.about`, to which statistics of the text are added.
    """
    require(config.length > 0, f"config.data.length = {config.length} tokens must be at least 1")
    clean = cleaning.make_cleaner(config, config.script)
    splits = {
        name: [(clean(a) + "\n" * config.prefix_lm, clean(b)) for a, b in rows]
        for name, rows in splits.items()
    }
    tokenizer = tokenizers.build(
        itertools.chain.from_iterable(tokenizers.select_examples_to_fit(splits, config)), config
    )
    require_end_token(tokenizer)
    encoded = {name: encode_pairs(rows, tokenizer) for name, rows in splits.items()}
    held_out = itertools.chain.from_iterable(splits.get("valid", []))
    difference = tokenizers.compare(tokenizer, held_out, config)
    letters = sum(len(a) + len(b) - config.prefix_lm for rows in splits.values() for a, b in rows)
    tokens = sum(len(a) + len(b) for rows in encoded.values() for a, b in rows)
    more = dict(
        documents=sum(map(len, splits.values())),
        characters=letters,
        tokens=tokens,
        characters_per_token=letters / max(tokens, 1),
        tokenizer=config.tokenizer,
        loses=tokenizer.loses,
        **(dict(difference=difference) if difference else {}),
    )
    return (make_prefix_lm_dataset if config.prefix_lm else make_encoder_decoder_dataset)(
        config, encoded, tokenizer, about | dict(text=more)
    )


def encode_pairs(pairs: list[tuple[str, str]], tokenizer: Tokenizer) -> TokenPairs:
    """Return the tokens of pairs of texts."""
    sources, targets = ([pair[side] for pair in pairs] for side in range(2))
    return list(zip(tokenizer.encode_batch(sources), tokenizer.encode_batch(targets), strict=True))


def make_encoder_decoder_dataset(
    config: ConfigDict, encoded: dict[str, TokenPairs], tokenizer: Tokenizer, about: dict
) -> Dataset:  # two rows of tokens per pair
    """Return a data set with two rows of tokens per pair.

    config.length is the most tokens of either side in training: longer training pairs
    are dropped, and counted in about["text"]["left_out"]. Held-out pairs are never
    dropped: rows are as wide as the longest, and a UserError refuses pairs that exceed
    both MOST_TIMES * config.length and MOST_TOKENS.

    Args:
      config: the `data` section of a config.
      encoded: {split: tokens of its pairs}; the training pairs are replaced by the
        short ones.
      tokenizer: of both sides.
      about: `Dataset.about`, with an entry text.
    """
    longest = lambda rows: max((len(side) for row in rows for side in row), default=0)
    short = [row for row in encoded["train"] if longest([row]) <= config.length]
    left_out, encoded["train"] = len(encoded["train"]) - len(short), short
    require(
        short, f"config.data.length = {config.length} tokens is too short for every training pair"
    )
    most = max(MOST_TIMES * config.length, MOST_TOKENS)
    for name, row in ((name, row) for name, rows in encoded.items() for row in rows):
        require(
            longest([row]) <= most,
            f"the {name} pair that begins {tokenizer.decode(row[0][:40])[:40]!r} "
            f"has {longest([row]):,} tokens on a side; config.data.length = {config.length} "
            f"allows at most {most:,}, because the longest side sets the width of all rows: "
            "shorten or remove the pair",
        )
    width = max(config.length, *(longest(rows) for rows in encoded.values()))
    arrays, bounds = join_splits(
        {name: pad_pairs(rows, width, tokenizer) for name, rows in encoded.items()}
    )
    spec = make_text_spec(
        tokenizer, (width, width + 1), bounds["train"][1], require_end_token(tokenizer), "pairs"
    )
    about = about | dict(text=about["text"] | dict(left_out=left_out))

    return Dataset(
        arrays | dict(sizes=tokenizer.token_sizes),
        bounds,
        lambda arrays, rows: take_pair_batch(arrays, rows, width),
        spec,
        about,
        lambda arrays, rows, words: take_pair_batch(arrays, rows, config.length),
        tokenizer,
    )


def take_pair_batch(
    arrays: dict[str, Any], rows: Any, max_tokens: int
) -> dict[str, Any]:  # -> {"source": [B, S], "tokens": [B, T + 1], "mask": [B, T], ...}
    """Return the batch of `rows`: source [B, S], tokens [B, T + 1], and their masks,
    which are 1 for tokens that count, the end token of the target included.

    Args:
      arrays: those of `pad_pairs`, and sizes uint8 [V, 2] of the tokens.
      rows: integers [B].
      max_tokens: the most tokens of either side: S, and T less the end token.
    """
    source, tokens = (
        arrays["source"][rows, :max_tokens].astype(np.int32),
        arrays["target"][rows, : max_tokens + 2].astype(np.int32),
    )
    places = lambda x: np.arange(x.shape[1], dtype=np.int32)
    source_mask = (places(source) < arrays["source_length"][rows][:, None]).astype(np.float32)
    mask = (places(tokens[:, 1:]) < arrays["target_length"][rows][:, None] + 1).astype(np.float32)
    size = arrays["sizes"][tokens[:, 1:]].astype(np.float32) * mask[..., None]
    return dict(
        source=source,
        source_mask=source_mask,
        tokens=tokens,
        mask=mask,
        characters=size[..., 0],
        bytes=size[..., 1],
    )


def make_prefix_lm_dataset(
    config: ConfigDict, encoded: dict[str, TokenPairs], tokenizer: Tokenizer, about: dict
) -> Dataset:  # one row of tokens per pair
    """Return a data set with one row of tokens per pair: an end token, the source, the
    target, and end tokens as padding up to config.length.

    Longer pairs are dropped from all splits, and counted in about["text"]["left_out"].
    In a batch, `mask` [B, T] is 1 on the target and the first end token after it.

    Args:
      config: the `data` section of a config.
      encoded: {split: tokens of its pairs}.
      tokenizer: of both sides.
      about: `Dataset.about`, with an entry text.

    Raises:
      UserError: config.length is too short for every pair of a split.
    """
    short = {
        name: [row for row in rows if sum(map(len, row)) < config.length]
        for name, rows in encoded.items()
    }
    left_out = sum(len(encoded[name]) - len(rows) for name, rows in short.items())
    for name, rows in short.items():
        require(
            rows, f"config.data.length = {config.length} tokens is too short for every {name} pair"
        )
    kind, parts = np.uint16 if tokenizer.size <= 2**16 else np.int32, {}
    for name, rows in short.items():
        tokens = np.full((len(rows), config.length + 1), tokenizer.end, kind)
        for line, row in zip(tokens, rows, strict=True):
            line[1 : 1 + sum(map(len, row))] = np.concatenate(row)
        lengths = np.array([[len(a), len(a) + len(b)] for a, b in rows], np.int32)
        parts[name] = dict(tokens=tokens, lengths=lengths)
    arrays, bounds = join_splits(parts)
    spec = make_text_spec(
        tokenizer, (config.length,), bounds["train"][1], require_end_token(tokenizer)
    )

    def take(arrays, rows):
        tokens = arrays["tokens"][rows].astype(np.int32)
        first, last = arrays["lengths"][rows].T[..., None]
        place = np.arange(config.length, dtype=np.int32)  # of the predicted tokens
        mask = ((place >= first) & (place <= last)).astype(np.float32)
        sizes = arrays["sizes"][tokens[:, 1:]].astype(np.float32) * mask[..., None]
        return dict(tokens=tokens, mask=mask, characters=sizes[..., 0], bytes=sizes[..., 1])

    about = about | dict(text=about["text"] | dict(left_out=left_out))
    return Dataset(
        arrays | dict(sizes=tokenizer.token_sizes), bounds, take, spec, about, None, tokenizer
    )


def pad_pairs(
    pairs: TokenPairs, max_tokens: int, tokenizer: Tokenizer
) -> dict[str, np.ndarray]:  # -> source [n, S], target [n, S + 2], and their lengths [n]
    """Return the arrays of one split: source [n, S] and target [n, S + 2], which has an
    end token on either side, both padded with end tokens; and source_length [n] and
    target_length [n], which count no end tokens.

    Args:
      pairs: the tokens of the pairs.
      max_tokens: the most tokens of either side, S.
      tokenizer: determines the end token and the dtype: uint16 if all tokens fit, else
        int32.
    """
    kind = np.uint16 if tokenizer.size <= 2**16 else np.int32
    out = dict(
        source=np.full((len(pairs), max_tokens), tokenizer.end, kind),
        target=np.full((len(pairs), max_tokens + 2), tokenizer.end, kind),
    )
    for i, (source, target) in enumerate(pairs):
        out["source"][i, : len(source)] = source
        out["target"][i, 1 : 1 + len(target)] = target
    for side, name in enumerate(("source_length", "target_length")):
        out[name] = np.array([len(row[side]) for row in pairs], np.int32)
    return out
