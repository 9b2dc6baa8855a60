"""GPT-2 (Radford et al. 2019) as Hugging Face's `transformers` stores it: a directory
with config.json, model.safetensors and the tokenizer's files. Directories are read
without pickle, and written for `GPT2LMHeadModel.from_pretrained`.

The layers are those of `models.transformer.Decoder` with the fields of SAME; kernels
have the same layout, [in, out].
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.data.tokenizers.huggingface import read_end_tokens, write_for_transformers
from aigc_jax.training.config import fill_defaults
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import read_text
from aigc_jax.utils.tensor_files import read_safetensors, read_safetensors_header

# Decoder fields of GPT-2; the width, heads, layers and context are read.
SAME = dict(
    activation="gelu",
    norm="layer",
    norm_position="pre",
    position_encoding="learned",
    qk_norm=False,
    bias=True,
    tied=True,
    scan=False,
    remat=False,
    remat_policy="nothing",
)
# Required values of config.json's fields, where present.
ASSUMED = dict(
    activation_function="gelu_new",
    layer_norm_epsilon=1e-5,
    scale_attn_weights=True,
    scale_attn_by_inverse_layer_idx=False,
    tie_word_embeddings=True,
    add_cross_attention=False,
)
ALIKE = {"gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new"}  # synonyms of one function
SIZES = dict(width="n_embd", heads="n_head", layers="n_layer", context="n_positions")
TYPES = ("F32", "F16", "BF16", "F64")  # of the arrays in a file
# Parameters of a layer: name in GPT-2 -> path in the Decoder's layer
LAYER = {
    f"{theirs}.{a}": f"{ours}/{b}"
    for theirs, ours, kernel in (
        ("ln_1", "norm_attention", "scale"),
        ("attn.c_attn", "attention/qkv", "kernel"),
        ("attn.c_proj", "attention/out", "kernel"),
        ("ln_2", "norm_feed_forward", "scale"),
        ("mlp.c_fc", "feed_forward/up", "kernel"),
        ("mlp.c_proj", "feed_forward/down", "kernel"),
    )
    for a, b in (("weight", kernel), ("bias", "bias"))
}
OUTER = {
    "wte.weight": "embed/embedding",
    "wpe.weight": "position/embedding",
    "ln_f.weight": "stack/last/scale",
    "ln_f.bias": "stack/last/bias",
}


def map_parameter_names(num_layers: int) -> dict[str, str]:
    """Return {name in GPT-2: path below params/net} of all parameters."""
    inner = {
        f"h.{i}.{theirs}": f"stack/layer_{i}/{ours}"
        for i in range(num_layers)
        for theirs, ours in LAYER.items()
    }
    return OUTER | inner


WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def is_huggingface_directory(path: str | Path) -> bool:
    """Return whether a directory holds weights of another library instead of a run."""
    path = Path(path)
    return (path / "config.json").is_file() and any((path / n).is_file() for n in (WEIGHTS, INDEX))


def read_json_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file of another library."""
    try:
        content = json.loads(read_text(file))
    except (UserError, ValueError, RecursionError) as e:
        reason = first_line(e, 100)
        raise UserError(f"{file} is not a GPT-2 {file.name}: {type(e).__name__} {reason}") from None
    require(
        isinstance(content, dict),
        f"{file} is not a GPT-2 {file.name}: the file contains no JSON object",
    )
    return content


def get_positive_integer(config: dict[str, Any], key: str, file: Path) -> int:
    """Return a field of a file's JSON object as an integer.

    Args:
      config: the contents of the file.
      key: name of the field.
      file: the file, which the error message names.

    Raises:
      UserError: the value is not an integer in 1 .. 2^31 - 1.
    """
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise UserError(
            f"{file} is not a GPT-2 config.json: {key} = {str(value)[:40]} must be a positive "
            "integer"
        )
    return value


def read_model_fields(path: str | Path) -> dict[str, Any]:  # {field of Decoder: value}
    """Return the fields of the Decoder that a directory's config.json describes. Raise
    a UserError if config.json is not a GPT-2's, or disagrees with the shapes of the
    weights; the weights themselves are not read.
    """
    file = Path(path) / "config.json"
    config = read_json_object(file)
    kind = config.get("model_type", "gpt2")
    require(kind == "gpt2", f"{file}: model_type = {kind!r:.40}, but only 'gpt2' can be read")
    model: dict[str, Any] = {
        ours: get_positive_integer(config, theirs, file) for ours, theirs in SIZES.items()
    }
    for key, expected in ASSUMED.items():
        value = config.get(key, expected)
        same = (ALIKE.get(value, value) if isinstance(value, str) else value) == expected
        require(same, f"{file}: {key} = {value!r}, but only {expected!r} is supported")
    divides = model["width"] % model["heads"] == 0
    require(
        divides, f"{file}: n_embd = {model['width']} is not divisible by n_head = {model['heads']}"
    )
    inner = config.get("n_inner") is not None
    hidden = get_positive_integer(config, "n_inner", file) if inner else 4 * model["width"]
    model |= dict(kv_heads=model["heads"], hidden=hidden) | SAME
    check_shapes(
        Path(path),
        model,
        get_positive_integer(config, "vocab_size", file) if "vocab_size" in config else None,
    )
    return model


def find_tensor_files(path: Path) -> dict[str, Path]:  # {name of a tensor: its file}
    """Return {name of a tensor: its file}, of a single file or an index of several."""
    if (path / WEIGHTS).is_file():
        return dict.fromkeys(read_safetensors_header(path / WEIGHTS), path / WEIGHTS)
    where, out = read_json_object(path / INDEX).get("weight_map"), {}
    if not isinstance(where, dict) or not where:
        raise UserError(f"{path / INDEX} has no weight_map")
    for name, file in where.items():
        inside = isinstance(file, str) and Path(file).name == file and file not in ("", ".", "..")
        require(
            inside,
            f"{path / INDEX}: {name} is stored in {file!r}, which is not a file of the directory",
        )
        require(
            (path / file).is_file(), f"{path / INDEX}: {name} is stored in {file}, which is missing"
        )
        out[name] = path / file
    return out


def read_headers(path: Path) -> dict[str, tuple[Path, tuple[int, ...], str]]:
    """Return {name of a tensor, without "transformer.": (file, shape, dtype)}."""
    where = find_tensor_files(path)
    read = {file: read_safetensors_header(file) for file in set(where.values())}
    out = {}
    for name, file in where.items():
        require(name in read[file], f"{file} has no {name}, which {INDEX} lists")
        out[name.removeprefix("transformer.")] = (file, *read[file][name])
    return out


def expected_shapes(model: dict[str, Any], vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Return {name in GPT-2: shape} of all parameters."""
    d, hidden = model["width"], model["hidden"]
    kernels = {
        "attn.c_attn": (d, 3 * d),
        "attn.c_proj": (d, d),
        "mlp.c_fc": (d, hidden),
        "mlp.c_proj": (hidden, d),
    }
    out = {
        "wte.weight": (vocab_size, d),
        "wpe.weight": (model["context"], d),
        "ln_f.weight": (d,),
        "ln_f.bias": (d,),
    }
    for i in range(model["layers"]):
        for name, shape in (kernels | {"ln_1": (d,), "ln_2": (d,)}).items():
            out |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[-1:]}
    return out


def check_shapes(path: Path, model: dict[str, Any], vocab_size: int | None) -> None:
    """Raise a UserError where the files' parameters are not those of the model. Called
    before any array of the model's size is allocated.

    Args:
      path: the directory.
      model: the Decoder's fields, as `read_model_fields` returns them.
      vocab_size: of config.json; None where absent, which allows any.
    """
    headers, file = read_headers(path), path / (WEIGHTS if (path / WEIGHTS).is_file() else INDEX)
    layers = {int(m[1]) for name in headers if (m := re.match(r"h\.(\d{1,9})\.", name))}
    num_layers = max(layers, default=-1) + 1
    require(
        num_layers == model["layers"],
        f"{file} has {num_layers} layers, but config.json has n_layer = {model['layers']}",
    )
    require("wte.weight" in headers, f"{file} is not a GPT-2: wte.weight is missing")
    rows = headers["wte.weight"][1][0] if headers["wte.weight"][1] else 0
    require(
        vocab_size in (None, rows),
        f"{path / 'config.json'}: vocab_size = {vocab_size}, but wte.weight has {rows} rows",
    )
    for name, shape in expected_shapes(model, rows).items():
        require(
            name in headers, f"{file} is not a GPT-2 of {model['layers']} layers: {name} is missing"
        )
        where, other, kind = headers[name]
        require(
            other == shape,
            f"{where}: {name} has the shape {list(other)}, but config.json needs {list(shape)}",
        )
        require(
            kind in TYPES,
            f"{where}: {name} has the dtype {kind}, but only {', '.join(TYPES)} are supported",
        )


def make_config(path: str | Path) -> ConfigDict:
    """Return a minimal config that builds the network of a directory."""
    return fill_defaults(
        ConfigDict(
            dict(
                method="lm",
                steps=1,
                batch_size=1,
                network="transformer",
                label_smoothing=0.0,
                optimizer="adamw",
                model=read_model_fields(path),
                schedule=dict(name="constant", warmup=0),
                hp=dict(lr=0.0, beta1=0.9, beta2=0.95, weight_decay=0.0, grad_clip=1.0),
                data=dict(name="text", tokenizer="file", tokenizer_path=str(path)),
                run=dict(mesh=dict(trial=1, data=1), log=()),
            )
        )
    )


def read_params(path: str | Path, embedding_rows: int) -> dict[str, np.ndarray]:
    """Return {path below params/net: array} of a directory's weights. The embedding is
    cut or zero-padded to `embedding_rows`; a value that is not finite is a UserError.
    """
    path = Path(path)
    headers, out = read_headers(path), {}
    ours = map_parameter_names(read_model_fields(path)["layers"])
    for file in dict.fromkeys(headers[name][0] for name in ours):
        for name, value in read_safetensors(file).items():
            short = name.removeprefix("transformer.")
            if short in ours and headers[short][0] == file:
                value = np.asarray(value, np.float32)
                require(np.isfinite(value).all(), f"{file}: {name} contains NaN or infinity")
                out[ours[short]] = value
    table = out["embed/embedding"][:embedding_rows]
    out["embed/embedding"] = np.pad(table, ((0, embedding_rows - len(table)), (0, 0)))
    return out


def check_tokens_have_rows(path: str | Path, tokenizer: Tokenizer) -> None:
    """Raise a UserError where a tokenizer has tokens without a row in a directory's
    embedding. Surplus rows of the embedding are not tokens.
    """
    rows = read_headers(Path(path))["wte.weight"][1][0]
    fits = tokenizer.size <= rows
    require(
        fits,
        f"{path}: the tokenizer has {tokenizer.size:,} tokens, but wte.weight has {rows:,} rows",
    )


def find_start_token(
    path: str | Path, tokenizer: Tokenizer, end_tokens: tuple[int, ...]
) -> int:  # -1: none
    """Return the start token of a text: bos_token_id of the config.json in `path` where
    it is in the vocabulary, else the first of `end_tokens`, else -1.
    """
    token = read_json_object(Path(path) / "config.json").get("bos_token_id")
    if isinstance(token, int) and not isinstance(token, bool) and 0 <= token < tokenizer.size:
        return token
    return end_tokens[0] if end_tokens else -1


def find_end_tokens(path: str | Path, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens that end a text: eos_token_id of generation_config.json or
    config.json, () where it is null; where absent or not in the vocabulary, the
    tokenizer's.
    """
    stops = read_end_tokens(Path(path))
    known = tuple(i for i in stops or () if i < tokenizer.size)
    own = () if tokenizer.end is None else (tokenizer.end,)
    return known if known or stops == () else own


def write_model_directory(
    path: str | Path,
    model: Mapping[str, Any],
    params: dict[str, np.ndarray],
    tokenizer: Tokenizer,
    end_tokens: tuple[int, ...] | None = None,
) -> None:
    """Write a directory that `transformers` loads. Absent biases are written as zeros,
    which is the same network.

    Args:
      path: the directory, which is made.
      model: the Decoder's fields.
      params: {path below params/net: array}.
      tokenizer: the tokenizer, whose size is the vocabulary's.
      end_tokens: the tokens that end a text, by default the tokenizer's.

    Raises:
      UserError: the network is not a GPT-2.
    """
    check_is_gpt2(model)
    own = () if tokenizer.end is None else (tokenizer.end,)
    ends = own if end_tokens is None else end_tokens
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    write_for_transformers(path, tokenizer)
    write_params(path, model, params, tokenizer.size)
    described = dict(
        model_type="gpt2",
        architectures=["GPT2LMHeadModel"],
        vocab_size=tokenizer.size,
        n_positions=model["context"],
        n_ctx=model["context"],
        n_embd=model["width"],
        n_head=model["heads"],
        n_layer=model["layers"],
        n_inner=model.get("hidden") or None,
        bos_token_id=tokenizer.end,
        eos_token_id=list(ends) if len(ends) > 1 else (*ends, None)[0],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **ASSUMED,
    )
    (path / "config.json").write_text(json.dumps(described, indent=1) + "\n")


def check_is_gpt2(model: Mapping[str, Any]) -> None:
    """Raise a UserError where a Decoder's fields are not those of a GPT-2."""
    for key, value in (SAME | dict(kv_heads=model.get("kv_heads", 0) and model["heads"])).items():
        if key not in ("scan", "remat", "remat_policy", "bias"):
            require(
                model.get(key, value) == value,
                f"config.model.{key} = {model.get(key)!r}: a GPT-2 has {value!r}",
            )
    require(
        not model.get("scan"),
        "config.model.scan = True must be False: a GPT-2 stores each layer separately",
    )


def write_params(
    path: Path, model: Mapping[str, Any], params: dict[str, np.ndarray], vocab_size: int
) -> None:
    """Write parameters under GPT-2's names; the embedding is cut to `vocab_size`
    rows. The other arguments are those of `write_model_directory`.
    """
    from safetensors.numpy import save_file

    hidden = model.get("hidden") or 4 * model["width"]
    shapes = expected_shapes(dict(model) | dict(hidden=hidden), vocab_size)
    theirs = {}
    for name, ours in map_parameter_names(model["layers"]).items():
        unbiased = name.endswith("bias") and ours not in params
        value = np.zeros(shapes[name]) if unbiased else params[ours]
        theirs[name] = np.ascontiguousarray(value, np.float32)
    theirs["wte.weight"] = np.ascontiguousarray(theirs["wte.weight"][:vocab_size])
    save_file(
        {f"transformer.{name}": value for name, value in theirs.items()},
        path / WEIGHTS,
        metadata=dict(format="pt"),
    )
