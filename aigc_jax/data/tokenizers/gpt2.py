"""The tokenizer files of a GPT-2 directory in the format of Hugging Face's
`transformers`: tokenizer.json, or vocab.json and merges.txt.
"""

import json
from pathlib import Path

from aigc_jax.data.tokenizers import from_description
from aigc_jax.data.tokenizers.base import SPECIALS, Tokenizer
from aigc_jax.data.tokenizers.bpe import map_letters_to_bytes
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


def has_tokenizer_files(directory: Path) -> bool:
    """Return whether a directory contains another library's tokenizer, and is not the
    directory of a run.
    """
    return any((directory / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def read_tokenizer(directory: Path) -> Tokenizer:
    """Return the tokenizer of a directory, with the ids of the library `tokenizers`.

    Raises:
      UserError: files are missing or damaged, or the tokenizer is not supported
        (`huggingface.make_tokenizer`).
    """
    file = directory / "tokenizer.json"
    file = file if file.is_file() else directory / "vocab.json"
    try:
        contents = json.loads(read_text(file))
        prefix = read_json_or_empty(directory / "tokenizer_config.json").get("add_prefix_space")
        if file.name == "vocab.json":
            contents = make_tokenizer_json(contents, directory, prefix or False)
        else:
            contents = complete_tokenizer_json(contents)
            check_prefix_space(contents["pre_tokenizer"], prefix)
        rows = (
            read_json_or_empty(directory / "config.json").get("vocab_size")
            if has_gpt2_config(directory)
            else None
        )
        return from_description(describe_tokenizer(contents, read_end_tokens(directory), rows))
    except UserError as e:
        raise UserError(f"{file} holds no GPT-2 tokenizer: {e}") from None
    except Exception as e:  # a damaged file raises exceptions of many types
        reason = first_line(e, 100)
        raise UserError(f"{file} cannot be read as a tokenizer: {reason}") from None


def has_gpt2_config(directory: Path) -> bool:
    """Return whether the directory also contains the config.json of a GPT-2 model."""
    return "n_embd" in read_json_or_empty(directory / "config.json")


def read_json_or_empty(path: Path) -> dict:
    """Return the JSON object in a file; {} where the file does not exist."""
    fields = json.loads(read_text(path)) if path.is_file() else {}
    require(isinstance(fields, dict), f"{path} holds no JSON object")
    return fields


def complete_tokenizer_json(contents: dict) -> dict:  # with every part and key
    """Return a tokenizer.json as the library writes it, with every part and key."""
    from tokenizers import Tokenizer as Library

    return json.loads(Library.from_str(json.dumps(contents)).to_str())


def make_tokenizer_json(token_ids: dict[str, int], directory: Path, add_prefix_space: bool) -> dict:
    """Return the tokenizer.json equivalent to vocab.json, merges.txt and
    added_tokens.json.

    Args:
      token_ids: the contents of vocab.json, {token: id}.
      directory: the directory of the other files.
      add_prefix_space: whether a blank is prepended to each text.
    """
    lines = read_text(directory / "merges.txt").split("\n")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    added = read_json_or_empty(directory / "added_tokens.json")
    added |= {name: token_ids[name] for name in SPECIALS if name in token_ids}
    step = PLAIN_STEP | dict(add_prefix_space=add_prefix_space, trim_offsets=True)
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    tokens = [dict(id=i, content=name) | flags for name, i in added.items()]
    return complete_tokenizer_json(
        dict(
            version="1.0",
            truncation=None,
            padding=None,
            normalizer=None,
            post_processor=None,
            added_tokens=sorted(tokens, key=lambda token: token["id"]),
            pre_tokenizer=step,
            decoder=step,
            model=PLAIN_MODEL | dict(vocab=token_ids, merges=merges),
        )
    )


def check_prefix_space(pre_tokenizer: dict | None, add_prefix_space: bool | None) -> None:
    """Raise a UserError where tokenizer_config.json and tokenizer.json disagree on
    whether a blank is prepended to each text.

    Args:
      pre_tokenizer: the pre-tokenizer of tokenizer.json, or None.
      add_prefix_space: add_prefix_space of tokenizer_config.json; None if it has none.
    """
    if (
        add_prefix_space is None
        or pre_tokenizer is None
        or pre_tokenizer.get("type") != "ByteLevel"
    ):
        return
    value = pre_tokenizer["add_prefix_space"]
    require(
        value == add_prefix_space,
        f"add_prefix_space = {value}, but tokenizer_config.json has {add_prefix_space}",
    )


def describe_tokenizer(
    tokenizer_json: dict, end_tokens: tuple[int, ...] | None, max_tokens: int | None
) -> dict:  # `Tokenizer.description` of kind "bpe" or "library"
    """Return the description of a tokenizer: of kind "bpe" for byte-level BPE like
    GPT-2's, otherwise of kind "library".

    Args:
      tokenizer_json: the contents of tokenizer.json.
      end_tokens: the tokens that end a text by the model's configs, or None.
      max_tokens: the number of the model's tokens, or None. Special tokens beyond that
        number are dropped; a UserError is raised for any other token beyond it.
    """
    numbers = read_token_ids(tokenizer_json)
    order = sorted(numbers, key=numbers.__getitem__)
    size = min(len(order), max_tokens or len(order))
    special = {numbers[name] for name in SPECIALS if name in numbers}
    special |= {token["id"] for token in tokenizer_json["added_tokens"] if token["special"]}
    lost = next((word for word in order[size:] if numbers[word] not in special), None)
    require(
        lost is None, f"its token {lost!r} is not among the {max_tokens:,} tokens of config.json"
    )
    end = next(
        (i for i in (*(end_tokens or ()), numbers.get(END)) if i in special and i < size), None
    )
    count = sum(name in numbers for name in SPECIALS)
    known = order[: len(order) - count]
    last = order == [*known, *SPECIALS[:count]] and end == (len(known) if count else None)
    is_dense = [numbers[word] for word in order] == list(range(size))
    if not (is_like_gpt2(tokenizer_json) and last and is_dense):
        text = json.dumps(tokenizer_json, ensure_ascii=False)
        return dict(kind="library", json=text, size=size, end=end)
    return dict(kind="bpe", known=known, merges=tokenizer_json["model"]["merges"], specials=count)


def read_token_ids(tokenizer_json: dict) -> dict[str, int]:  # {token: id}
    """Return the vocabulary {token: id} of a tokenizer.json, added tokens included."""
    from tokenizers import Tokenizer as Library

    return Library.from_str(json.dumps(tokenizer_json)).get_vocab()


def is_like_gpt2(tokenizer_json: dict) -> bool:
    """Return whether a tokenizer differs from GPT-2's in its vocabulary alone."""
    model = {
        key: tokenizer_json["model"].get(key) or default for key, default in PLAIN_MODEL.items()
    }
    step, after = tokenizer_json["pre_tokenizer"] or {}, tokenizer_json["post_processor"]
    names = {token["content"] for token in tokenizer_json["added_tokens"]}
    return (
        model == PLAIN_MODEL
        and set(map_letters_to_bytes()) <= set(tokenizer_json["model"]["vocab"])
        and {key: step.get(key) for key in PLAIN_STEP} == PLAIN_STEP
        and tokenizer_json["normalizer"] is None
        and (after is None or after["type"] == "ByteLevel")
        and names <= set(SPECIALS)
    )


def read_end_tokens(directory: Path) -> tuple[int, ...] | None:  # None: not specified
    """Return the tokens that end generation, from generation_config.json, or else from
    config.json; None where neither specifies them.
    """
    for name in ("generation_config.json", "config.json"):
        fields = read_json_or_empty(directory / name)
        if "eos_token_id" in fields:
            value = fields["eos_token_id"]
            value = [] if value is None else value
            stops = tuple(value) if isinstance(value, list) else (value,)
            is_valid = all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in stops)
            require(is_valid, f"{name} has eos_token_id = {value!r}, which is not a token")
            return stops
    return None


def write_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Write a tokenizer to a directory: byte-level BPE as the files of
    `transformers.GPT2Tokenizer`, any other tokenizer of the library as tokenizer.json.

    Raises:
      UserError: the tokenizer is of another kind.
    """
    kinds = ("bpe", "library")
    require(
        tokenizer.kind in kinds,
        f"a GPT-2 directory needs byte-level BPE, but the run's tokenizer is {tokenizer.kind!r}",
    )
    if tokenizer.kind == "library":
        (directory / "tokenizer.json").write_text(tokenizer.description["json"], encoding="utf-8")
        about = dict(
            tokenizer_class="PreTrainedTokenizerFast"
        )  # this class reads tokenizer.json without changes
        (directory / "tokenizer_config.json").write_text(json.dumps(about) + "\n")
        return
    words = [
        *tokenizer.description["known"],
        *SPECIALS[: tokenizer.size - len(tokenizer.description["known"])],
    ]
    (directory / "vocab.json").write_text(
        json.dumps({word: i for i, word in enumerate(words)}, ensure_ascii=False), encoding="utf-8"
    )
    lines = ["#version: 0.2", *(" ".join(pair) for pair in tokenizer.description["merges"])]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
