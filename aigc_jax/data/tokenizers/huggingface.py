"""Tokenizer files: those of runs, and those of other programs in the formats of Hugging
Face, tokenizer.json, or vocab.json and merges.txt.
"""

import json
from pathlib import Path
from typing import Any

from aigc_jax.data.tokenizers.base import SPECIALS, Tokenizer, from_files
from aigc_jax.data.tokenizers.bpe import make_byte_level
from aigc_jax.data.tokenizers.checks import convert_library_errors, parse_library
from aigc_jax.utils import documents
from aigc_jax.utils.errors import FormatError, UserError, first_line, format_suggestion, require
from aigc_jax.utils.files import expand_user, read_text, require_regular_file, why_not_regular

END, MASK = SPECIALS
NAMES = ("tokenizer.json", "tokenizer_config.json")  # of `Tokenizer.files`
ASSETS = "assets"  # the directory of these files within that of a run


def write(directory: str | Path, tokenizer: Tokenizer) -> None:
    """Write the files of a tokenizer to a directory, which is made."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, text in tokenizer.files.items():
        documents.write_atomically(Path(directory, name), text)


def write_for_transformers(directory: str | Path, tokenizer: Tokenizer) -> None:
    """Write the files of a tokenizer, and special_tokens_map.json, which some programs
    read in place of tokenizer_config.json.
    """
    write(directory, tokenizer)
    settings = json.loads(tokenizer.files["tokenizer_config.json"])
    names = {key: name for key, name in settings.items() if key.endswith("_token")}
    Path(directory, "special_tokens_map.json").write_text(json.dumps(names, indent=1) + "\n")


def read(path: str | Path) -> Tokenizer:
    """Return the tokenizer at a path: the directory of a run, a directory of Hugging
    Face's files, or a tokenizer.json.

    Raises:
      UserError: a file is missing, damaged or not supported.
    """
    path = expand_user(str(path))
    run = find_run(path)
    if run is not None:
        return read_run(run, (documents.read(run / "config.json") or {}).get("tokenizer"))
    if path.is_dir():
        return read_directory(path / ASSETS if (path / ASSETS / NAMES[0]).is_file() else path)
    known = [p.name for p in path.parent.glob("*.json")]
    missing = why_not_regular(path) == "no such file"
    require(not missing, f"{path}: no such file{format_suggestion(path.name, known)}")
    return read_foreign_files(path, path.parent)


def find_run(path: Path) -> Path | None:
    """Return the directory of a run, named directly or by its tokenizer."""
    for run in (path, path.parent, path.parent.parent):
        file = run / ASSETS / NAMES[0]
        is_run = file.is_file() and (run / "config.json").is_file()
        if is_run and path in (run, file.parent, file):
            return run
    return None


def read_run(run: str | Path, sha256: str | None) -> Tokenizer:
    """Return the tokenizer of a run; raise a UserError where it is not the tokenizer
    that the run was trained with.

    Args:
      run: the directory of the run.
      sha256: `Tokenizer.sha256`, from the run's config.json.
    """
    files = {name: Path(run, ASSETS, name) for name in NAMES}
    path = files[NAMES[0]]
    refuse_earlier_format(path, read_text(path))
    try:
        tokenizer = from_files({name: read_text(file) for name, file in files.items()})
    except Exception as e:  # a damaged file raises exceptions of many types
        reason = str(e) if isinstance(e, UserError) else first_line(e, 100)
        raise UserError(f"{path} is damaged: {reason}; {documents.COPY}") from None
    require(
        tokenizer.sha256 == sha256,
        f"{path} is not the tokenizer that the run was trained with; {documents.COPY}",
    )
    return tokenizer


def refuse_earlier_format(path: Path, text: str) -> None:
    """Raise a FormatError for a tokenizer.json of format 1, which was not a file of the
    library `tokenizers`.
    """
    try:
        contents = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(contents, dict) and "model" not in contents and "kind" in contents:
        raise FormatError(
            f"{path} has format 1, and this version of aigc_jax reads the format of the library "
            "tokenizers: use the earlier version that wrote it"
        )


# Files of other programs.


def read_directory(directory: Path) -> Tokenizer:
    """Return the tokenizer of a directory of Hugging Face's files; raise a UserError as
    `read` does.
    """
    names = ("tokenizer.json", "vocab.json")
    file = next((directory / name for name in names if (directory / name).is_file()), None)
    if file is None:
        raise UserError(f"{directory / names[0]}: no such file")
    return read_foreign_files(file, directory)


def read_foreign_files(file: Path, directory: Path) -> Tokenizer:
    """Return the tokenizer of a file, with the ids of the library `tokenizers`.

    Args:
      file: a tokenizer.json, or a vocab.json with a merges.txt beside it.
      directory: has further files: tokenizer_config.json and config.json.
    """
    require_regular_file(file)
    text = read_text(file)
    refuse_earlier_format(file, text)
    try:
        settings = read_json_or_empty(directory / "tokenizer_config.json")
        prefix = settings.get("add_prefix_space")
        with convert_library_errors():
            library = (
                make_gpt2_library(json.loads(text), directory, bool(prefix))
                if file.name == "vocab.json"
                else read_library(text)
            )
            contents = json.loads(library.to_str())
        check_prefix_space(contents["pre_tokenizer"], prefix)
        drop_tokens_without_rows(contents, library.get_vocab(), read_number_of_rows(directory))
        return make_foreign_tokenizer(contents, settings, read_end_tokens(directory))
    except Exception as e:  # a damaged file raises exceptions of many types
        reason = str(e) if isinstance(e, UserError) else first_line(e, 100)
        raise UserError(f"{file} cannot be used as a tokenizer: {reason}") from None


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; {} where the file does not exist."""
    fields = json.loads(read_text(path)) if path.is_file() else {}
    require(isinstance(fields, dict), f"{path} holds no JSON object")
    return fields


def read_library(text: str) -> Any:
    """Return the `tokenizers.Tokenizer` of a tokenizer.json. A byte-level one without a
    decoder gets the decoder of bytes.
    """
    from tokenizers import decoders

    library = parse_library(text)
    step = json.loads(library.to_str())["pre_tokenizer"] or {}
    parts = step.get("pretokenizers", [step])
    if library.decoder is None and any(part.get("type") == "ByteLevel" for part in parts):
        library.decoder = decoders.ByteLevel()
    return library


def make_gpt2_library(token_ids: dict[str, int], directory: Path, add_prefix_space: bool) -> Any:
    """Return the `tokenizers.Tokenizer` of vocab.json with merges.txt.

    Args:
      token_ids: the contents of vocab.json, {token: id}.
      directory: has merges.txt and, where tokens were added, added_tokens.json.
      add_prefix_space: whether a blank is prepended to each text.
    """
    from tokenizers import models, pre_tokenizers

    lines = read_text(directory / "merges.txt").split("\n")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    pairs = [(left, right) for left, right in merges]
    library = make_byte_level(models.BPE(token_ids, pairs), divides_words=True)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    added = read_json_or_empty(directory / "added_tokens.json")
    for name, i in sorted(added.items(), key=lambda item: item[1]):
        library.add_special_tokens([name])
        require(library.token_to_id(name) == i, f"added_tokens.json: {name!r} cannot have id {i}")
    return library


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


def read_number_of_rows(directory: Path) -> int | None:
    """Return the number of tokens of a directory's GPT-2 model; None without one."""
    fields = read_json_or_empty(directory / "config.json")
    return fields.get("vocab_size") if "n_embd" in fields else None


def drop_tokens_without_rows(
    contents: dict[str, Any], token_ids: dict[str, int], rows: int | None
) -> None:
    """Remove the special tokens that a model has no row for, such as a padding token;
    raise a UserError for any other token without a row.

    Args:
      contents: of tokenizer.json, which is modified.
      token_ids: its vocabulary {token: id}.
      rows: the number of the model's tokens; None: any number.
    """
    added, vocabulary = contents["added_tokens"], contents["model"]["vocab"]
    if rows is None:
        return
    lost = {word for word, i in token_ids.items() if i >= rows}
    special = {token["content"] for token in added if token["special"]} | set(SPECIALS)
    word = min(lost - special, key=token_ids.__getitem__, default=None)
    require(word is None, f"its token {word!r} is not among the {rows:,} tokens of config.json")
    contents["added_tokens"] = [token for token in added if token["content"] not in lost]
    contents["model"]["vocab"] = (
        vocabulary[:rows]
        if isinstance(vocabulary, list)  # of the type Unigram
        else {word: i for word, i in vocabulary.items() if word not in lost}
    )


def make_foreign_tokenizer(
    contents: dict[str, Any], settings: dict[str, Any], end_tokens: tuple[int, ...] | None
) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json.

    The end token is the first special one of: `end_tokens`, eos_token, <|endoftext|>;
    the mask token is mask_token or <|mask|>. None of them is added to a vocabulary that
    lacks it.

    Args:
      contents: of tokenizer.json.
      settings: of tokenizer_config.json.
      end_tokens: ids of the tokens that end a text by the model's configs, or None.
    """
    library = parse_library(json.dumps(contents))
    vocabulary = library.get_vocab()
    named = {key: get_token_name(settings, key) for key in ("eos_token", "mask_token")}
    names = [*named.values(), *SPECIALS]
    library.add_special_tokens([name for name in names if name in vocabulary])
    added = library.get_added_tokens_decoder()
    special = {i: token.content for i, token in added.items() if token.special}
    by_id = [special.get(i) for i in end_tokens or ()]
    find = lambda *candidates: next((x for x in candidates if x in special.values()), None)
    return Tokenizer(
        library.to_str(pretty=True),
        find(*by_id, named["eos_token"], END),
        find(named["mask_token"], MASK),
    )


def get_token_name(settings: dict[str, Any], key: str) -> str | None:
    """Return a token of tokenizer_config.json, a string or an object with `content`."""
    value = settings.get(key)
    name = value.get("content") if isinstance(value, dict) else value
    return name if isinstance(name, str) else None


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
