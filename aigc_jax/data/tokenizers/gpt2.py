"""The tokenizer files of a GPT-2 directory in the format of Hugging Face's
`transformers`: tokenizer.json, or vocab.json and merges.txt.
"""

import json
from pathlib import Path

from aigc_jax.data.tokenizers import from_plain
from aigc_jax.data.tokenizers.base import SPECIALS, Tokenizer
from aigc_jax.data.tokenizers.bpe import byte_letters
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import read_text

END = SPECIALS[0]
# Parts of GPT-2's tokenizer.json, with their values.
PLAIN_MODEL = dict(
    type="BPE",
    dropout=None,
    continuing_subword_prefix=None,
    end_of_word_suffix=None,
    byte_fallback=False,
    ignore_merges=False,
)
PLAIN_STEP = dict(type="ByteLevel", add_prefix_space=False, use_regex=True)


def has_tokenizer(path: Path) -> bool:
    """Return whether a directory contains another library's tokenizer, and is not the
    directory of a run.
    """
    return any((path / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def read_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a directory, with the ids of the library `tokenizers`.

    Raises:
      UserError: files are missing or damaged, or the tokenizer is not supported
        (`huggingface.make_tokenizer`).
    """
    file = path / "tokenizer.json"
    file = file if file.is_file() else path / "vocab.json"
    try:
        contents = json.loads(read_text(file))
        prefix = read_json(path / "tokenizer_config.json").get("add_prefix_space")
        if file.name == "vocab.json":
            contents = describe_files(contents, path, prefix or False)
        else:
            contents = complete_files(contents)
            check_prefix(contents["pre_tokenizer"], prefix)
        rows = read_json(path / "config.json").get("vocab_size") if is_gpt2(path) else None
        return from_plain(plain_of(contents, read_stops(path), rows))
    except UserError as e:
        raise UserError(f"{file} holds no GPT-2 tokenizer: {e}") from None
    except Exception as e:  # a damaged file raises exceptions of many types
        reason = first_line(e, 100)
        raise UserError(f"{file} cannot be read as a tokenizer: {reason}") from None


def is_gpt2(path: Path) -> bool:
    """Return whether the directory also contains the config.json of a GPT-2 model."""
    return "n_embd" in read_json(path / "config.json")


def read_json(file: Path) -> dict:
    """Return the JSON object in a file; {} where the file does not exist."""
    fields = json.loads(read_text(file)) if file.is_file() else {}
    require(isinstance(fields, dict), f"{file} holds no JSON object")
    return fields


def complete_files(contents: dict) -> dict:
    """Return a tokenizer.json as the library writes it, with every part and key."""
    from tokenizers import Tokenizer as Library

    return json.loads(Library.from_str(json.dumps(contents)).to_str())


def describe_files(numbers: dict, path: Path, prefix: bool) -> dict:
    """Return the tokenizer.json equivalent to vocab.json, merges.txt and
    added_tokens.json.

    Args:
      numbers: the contents of vocab.json, {token: id}.
      path: the directory of the other files.
      prefix: whether a blank is prepended to each text.
    """
    lines = read_text(path / "merges.txt").split("\n")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    added = read_json(path / "added_tokens.json")
    added |= {name: numbers[name] for name in SPECIALS if name in numbers}
    step = PLAIN_STEP | dict(add_prefix_space=prefix, trim_offsets=True)
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    tokens = [dict(id=i, content=name) | flags for name, i in added.items()]
    return complete_files(
        dict(
            version="1.0",
            truncation=None,
            padding=None,
            normalizer=None,
            post_processor=None,
            added_tokens=sorted(tokens, key=lambda token: token["id"]),
            pre_tokenizer=step,
            decoder=step,
            model=PLAIN_MODEL | dict(vocab=numbers, merges=merges),
        )
    )


def check_prefix(step: dict | None, prefix: bool | None) -> None:
    """Raise a UserError where tokenizer_config.json and tokenizer.json disagree on
    whether a blank is prepended to each text.
    """
    if prefix is None or step is None or step.get("type") != "ByteLevel":
        return
    value = step["add_prefix_space"]
    require(value == prefix, f"add_prefix_space = {value}, but tokenizer_config.json has {prefix}")


def plain_of(contents: dict, stops: tuple[int, ...] | None, rows: int | None) -> dict:
    """Return the description of a tokenizer: of kind "bpe" for byte-level BPE like
    GPT-2's, otherwise of kind "library".

    Args:
      contents: the contents of tokenizer.json.
      stops: the tokens that end a text by the model's configs, or None.
      rows: the number of the model's tokens, or None. Special tokens beyond that number
        are dropped; a UserError is raised for any other token beyond it.
    """
    numbers = numbers_of(contents)
    order = sorted(numbers, key=numbers.__getitem__)
    size = min(len(order), rows or len(order))
    special = {numbers[name] for name in SPECIALS if name in numbers}
    special |= {token["id"] for token in contents["added_tokens"] if token["special"]}
    lost = next((word for word in order[size:] if numbers[word] not in special), None)
    require(lost is None, f"its token {lost!r} is not among the {rows:,} tokens of config.json")
    end = next((i for i in (*(stops or ()), numbers.get(END)) if i in special and i < size), None)
    count = sum(name in numbers for name in SPECIALS)
    known = order[: len(order) - count]
    last = order == [*known, *SPECIALS[:count]] and end == (len(known) if count else None)
    is_dense = [numbers[word] for word in order] == list(range(size))
    if not (is_plain(contents) and last and is_dense):
        text = json.dumps(contents, ensure_ascii=False)
        return dict(kind="library", json=text, size=size, end=end)
    return dict(kind="bpe", known=known, merges=contents["model"]["merges"], specials=count)


def numbers_of(contents: dict) -> dict[str, int]:
    """Return the vocabulary {token: id} of a tokenizer.json, added tokens included."""
    from tokenizers import Tokenizer as Library

    return Library.from_str(json.dumps(contents)).get_vocab()


def is_plain(contents: dict) -> bool:
    """Return whether a tokenizer differs from GPT-2's in its vocabulary alone."""
    model = {key: contents["model"].get(key) or default for key, default in PLAIN_MODEL.items()}
    step, after = contents["pre_tokenizer"] or {}, contents["post_processor"]
    names = {token["content"] for token in contents["added_tokens"]}
    return (
        model == PLAIN_MODEL
        and set(byte_letters()) <= set(contents["model"]["vocab"])
        and {key: step.get(key) for key in PLAIN_STEP} == PLAIN_STEP
        and contents["normalizer"] is None
        and (after is None or after["type"] == "ByteLevel")
        and names <= set(SPECIALS)
    )


def read_stops(path: Path) -> tuple[int, ...] | None:
    """Return the tokens that end generation, from generation_config.json, or else from
    config.json; None where neither specifies them.
    """
    for name in ("generation_config.json", "config.json"):
        fields = read_json(path / name)
        if "eos_token_id" in fields:
            value = fields["eos_token_id"]
            value = [] if value is None else value
            stops = tuple(value) if isinstance(value, list) else (value,)
            is_valid = all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in stops)
            require(is_valid, f"{name} has eos_token_id = {value!r}, which is not a token")
            return stops
    return None


def write_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Write a tokenizer to a directory: byte-level BPE as the files of
    `transformers.GPT2Tokenizer`, any other tokenizer of the library as tokenizer.json.
    """
    kinds = ("bpe", "library")
    require(
        tokenizer.kind in kinds,
        f"a GPT-2 directory needs byte-level BPE, but the run's tokenizer is {tokenizer.kind!r}",
    )
    if tokenizer.kind == "library":
        (path / "tokenizer.json").write_text(tokenizer.plain["json"], encoding="utf-8")
        about = dict(
            tokenizer_class="PreTrainedTokenizerFast"
        )  # this class reads tokenizer.json without changes
        (path / "tokenizer_config.json").write_text(json.dumps(about) + "\n")
        return
    words = [*tokenizer.plain["known"], *SPECIALS[: tokenizer.size - len(tokenizer.plain["known"])]]
    (path / "vocab.json").write_text(
        json.dumps({word: i for i, word in enumerate(words)}, ensure_ascii=False), encoding="utf-8"
    )
    lines = ["#version: 0.2", *(" ".join(pair) for pair in tokenizer.plain["merges"])]
    (path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
