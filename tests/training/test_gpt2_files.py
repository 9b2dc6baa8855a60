"""GPT-2 directories of other programs: all kinds of tokenizers, end-of-text tokens,
sharded weights, and invalid values.
"""

import json

import numpy as np
import pytest
from gpt2_directories import TOKENS, logits, numbers, shapes
from ml_collections import ConfigDict
from texts import ALL
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Library

import aigc_jax
from aigc_jax import data
from aigc_jax.data import schema as data_schema
from aigc_jax.data.tokenizers.base import from_files, map_letters_to_bytes
from aigc_jax.data.tokenizers.huggingface import read as read_tokenizer
from aigc_jax.training import gpt2_weights
from aigc_jax.training.serialization import flatten_state
from aigc_jax.utils.errors import UserError

END = "<|endoftext|>"
TEXTS = (
    "the thing in 1984, the 12th",
    " Äh, ﬁve\n\n  the é 世界 🙂",
    "",
    "a<|endoftext|>b",
    "THE the",
)


def rewrite(path, **changes):
    """Changes keys of a config.json."""
    described = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(described))


def write_weights(path, vocabulary, **more):
    from safetensors.numpy import save_file

    arrays = {
        f"transformer.{name}": numbers(name, shape) for name, shape in shapes(vocabulary).items()
    }
    save_file(arrays | more, path / "model.safetensors")
    rewrite(path, vocab_size=vocabulary)


def byte_level(prefix=False, end=END, first=False):
    """Byte-level BPE of the library; the end of text is the last token or the first."""
    words = [*sorted(map_letters_to_bytes()), "th", "the", "Ġthe"]
    words = [end, *words] if first else [*words, *([end] if end else [])]
    model = models.BPE(
        {word: i for i, word in enumerate(words)}, [("t", "h"), ("th", "e"), ("Ġ", "the")]
    )
    library = Library(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    library.decoder = decoders.ByteLevel()
    if end:
        library.add_special_tokens([end])
    return library


def with_digits():
    library = byte_level()
    parts = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    library.pre_tokenizer = pre_tokenizers.Sequence(parts)
    return library


def lower_case():
    library = byte_level()
    library.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return library


def of_words():
    library = Library(
        models.WordLevel(
            {word: i for i, word in enumerate(("[UNK]", END, "the", "thing", "in", ","))}, "[UNK]"
        )
    )
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens(["[UNK]", END])
    return library


def with_metaspace():
    words = [END, "<unk>", "▁", "t", "h", "e", "i", "n", "g", "th", "the", "▁the"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    library = Library(
        models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token="<unk>")
    )
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    library.add_special_tokens([END])
    return library


def with_added():
    library = byte_level()
    library.add_tokens([AddedToken("thing", special=False)])
    return library


KINDS = {
    "prefix": lambda: byte_level(prefix=True),
    "digits": with_digits,
    "normalizer": lower_case,
    "end first": lambda: byte_level(first=True),
    "words": of_words,
    "metaspace": with_metaspace,
    "added token": with_added,
    "plain": byte_level,
    "no end": lambda: byte_level(end=None),
}


@pytest.fixture
def with_library(directory):
    """(library) -> the directory with its tokenizer.json and weights of that size."""

    def make(library):
        for name in ("vocab.json", "merges.txt"):
            (directory / name).unlink(missing_ok=True)
        library.save(str(directory / "tokenizer.json"))
        write_weights(directory, library.get_vocab_size())
        return directory

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_equal_those_of_the_tokenizers_library(with_library, tmp_path, kind):
    """Except that text is never encoded as a special token. Storing the tokenizer in a
    run and exporting it preserve the ids.
    """
    library = KINDS[kind]()
    path = with_library(library)
    found = read_tokenizer(path)
    library.encode_special_tokens = True
    expected = {text: library.encode(text).ids for text in TEXTS}
    back = tmp_path / "back"
    back.mkdir()
    tokenizers_of = [found, from_files(found.files)]
    run = aigc_jax.load(path)
    gpt2_weights.write_model_directory(
        back, run.config.model.to_dict(), flatten_state(run.state.params["net"]), run.tokenizer
    )
    tokenizers_of.append(aigc_jax.load(back).tokenizer)
    for other in tokenizers_of:
        assert {text: other.encode(text).tolist() for text in TEXTS} == expected
        assert other.end == (None if kind == "no end" else library.token_to_id(END))
        for ids in expected.values():
            assert other.decode(ids) == library.decode(ids)
            stream = other.make_stream_decoder()
            assert "".join([stream([i]) for i in ids]) + stream([], final=True) == library.decode(
                ids
            )


def test_prefix_space_and_normalizer_are_applied(with_library):
    """Ids of tokenizers 0.23: "the" is 257 and "Ġthe" is 258."""
    assert read_tokenizer(with_library(byte_level(prefix=True))).encode("the").tolist() == [258]
    assert read_tokenizer(with_library(byte_level())).encode("the").tolist() == [257]
    assert read_tokenizer(with_library(lower_case())).encode("THE").tolist() == [257]


def test_vocab_files_follow_add_prefix_space_of_the_tokenizer_config(directory):
    text = "the"
    assert read_tokenizer(directory).encode(text).tolist() == [257]
    (directory / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    blank = json.loads((directory / "vocab.json").read_text())["Ġ"]
    assert read_tokenizer(directory).encode(text).tolist() == [blank, 257]


def template():
    library = byte_level()
    library.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, 259)]
    )
    return library


def at_random():
    library = byte_level()
    library.model.dropout = 0.1
    return library


@pytest.mark.parametrize(
    "library, config, words",
    [
        (template, {}, "its post_processor adds 1 tokens to each text"),
        (at_random, {}, "dropout = 0.1"),
        (
            byte_level,
            dict(add_prefix_space=True),
            "add_prefix_space = False, but tokenizer_config.json has True",
        ),
    ],
)
def test_unsupported_tokenizers_are_refused(with_library, library, config, words):
    path = with_library(library())
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=words) as e:
        aigc_jax.load(path)
    assert "\n" not in str(e.value)


def negative(path, vocabulary):
    """Writes weights whose logits are all negative: the output of the last norm is 1
    along one axis, where the embeddings of all tokens are negative.
    """
    arrays = {name: numbers(name, shape) for name, shape in shapes(vocabulary).items()}
    arrays["ln_f.weight"], arrays["ln_f.bias"] = (
        np.zeros(8, np.float32),
        np.eye(8, dtype=np.float32)[0],
    )
    arrays["wte.weight"][:, 0] = -1 - np.arange(vocabulary, dtype=np.float32) / vocabulary
    write_weights(
        path, vocabulary, **{f"transformer.{name}": value for name, value in arrays.items()}
    )


def test_no_end_of_text_token_is_invented(with_library):
    """Token 0 always has the largest logit. An invented, untrained token would have the
    logit 0, which exceeds the logits of all tokens.
    """
    path = with_library(byte_level(end=None))
    negative(path, 259)
    run = aigc_jax.load(path)
    assert run.tokenizer.end is None and run.end_tokens == () and run.spec.start == -1
    assert (run.tokenizer.size, run.spec.vocabulary) == (259, 259)
    assert run.generate(["the"], 20, temperature=0) == ["!" * 20]
    for call in (lambda: run.generate([""], 2), lambda: run.sample(2)):
        with pytest.raises(UserError, match="the tokenizer has none"):
            call()
    config = ConfigDict(
        data_schema.DEFAULTS
        | dict(name="pydoc", length=16, tokenizer="file", tokenizer_path=str(path))
    )
    with pytest.raises(UserError, match="the tokenizer has no end-of-text token"):
        data.load(config)


@pytest.mark.parametrize(
    "files, ends",
    [
        (dict(config=dict(eos_token_id=5)), (5,)),
        (dict(config=dict(eos_token_id=[5, 7])), (5, 7)),
        (dict(config=dict(eos_token_id=5), generation_config=dict(eos_token_id=7)), (7,)),
        (dict(config=dict(eos_token_id=5), generation_config=dict(max_length=7)), (5,)),
        (
            dict(config=dict(eos_token_id=50256)),
            (258,),
        ),  # the default that transformers writes
        (dict(config=dict(eos_token_id=None)), ()),
        (dict(config={}), (258,)),
    ],
)
def test_end_tokens_follow_generation_config_then_config(directory, files, ends):
    if generation := files.get("generation_config"):
        (directory / "generation_config.json").write_text(json.dumps(generation))
    rewrite(directory, **files["config"])
    run = aigc_jax.load(directory)
    assert (
        run.end_tokens == ends and run.tokenizer.end == 258 and run.spec.start == (ends or (-1,))[0]
    )


def test_generation_ends_at_eos_token_id(directory):
    free = aigc_jax.load(directory)
    text = free.generate(["the"], 24, seed=1)[0]
    # one byte, which is one token, after a complete character
    stop = next(b for a, b in zip(text, text[1:], strict=False) if (a + b).isascii())
    rewrite(directory, eos_token_id=int(free.tokenizer.encode(stop)[0]))
    assert aigc_jax.load(directory).generate(["the"], 24, seed=1) == [text[: text.index(stop)]]


def test_special_tokens_beyond_vocab_size_are_ignored(with_library):
    """A padding token is often added to a tokenizer without a row in the model."""
    path = with_library(byte_level())
    library = byte_level()
    library.add_special_tokens(["[PAD]"])
    library.save(str(path / "tokenizer.json"))
    run = aigc_jax.load(path)
    assert run.tokenizer.size == run.spec.vocabulary == 260 and run.tokenizer.end == 259
    assert run.tokenizer.encode("the[PAD]").max() < 259
    library.add_tokens(["thing"])
    library.save(str(path / "tokenizer.json"))
    with pytest.raises(UserError, match="'thing' is not among the 260 tokens of config.json"):
        aigc_jax.load(path)


def shard(path):
    """Splits the weights into two files and an index."""
    from safetensors.numpy import load_file, save_file

    arrays = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    where = {
        name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(arrays))
    }
    for file in set(where.values()):
        save_file({name: arrays[name] for name in where if where[name] == file}, path / file)
    write_index(path, where)
    return where


def write_index(path, where):
    (path / "model.safetensors.index.json").write_text(
        json.dumps(dict(metadata={}, weight_map=where))
    )


def test_sharded_weights_give_the_same_logits(directory):
    whole = logits(aigc_jax.load(directory), TOKENS)
    shard(directory)
    np.testing.assert_array_equal(logits(aigc_jax.load(directory), TOKENS), whole)


NAME = "transformer.h.0.ln_1.bias"


@pytest.mark.parametrize(
    "change, words",
    [
        ({NAME: "../model.safetensors"}, "is not a file of the directory"),
        ({NAME: "/etc/passwd"}, "is not a file of the directory"),
        ({NAME: 3}, "is not a file"),
        ({NAME: "x.safetensors"}, "x.safetensors, which is missing"),
        ({NAME: "config.json"}, "is damaged or no safetensors file"),
        ({NAME: None}, "h.0.ln_1.bias is missing"),
        ({"h.0.new": "model-00001-of-00002.safetensors"}, "has no h.0.new"),
        (None, "has no weight_map"),
    ],
)
def test_invalid_shard_index_is_a_one_line_error(directory, change, words):
    where = shard(directory)
    where = {name: file for name, file in (where | (change or {})).items() if file is not None}
    write_index(directory, ["x"] if change is None else where)
    with pytest.raises(UserError, match=words) as e:
        aigc_jax.load(directory)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(n_layer=10**9), "has 2 layers, but config.json has n_layer = 1000000000"),
        (dict(n_layer=1), "has 2 layers, but"),
        (dict(n_layer=0), "n_layer = 0"),
        (dict(n_layer=-2), "n_layer = -2"),
        (dict(n_layer=10**400), "n_layer = 1000"),
        (dict(n_layer=2.0), "n_layer = 2.0"),
        (dict(n_layer="2"), "n_layer = 2"),
        (dict(n_layer=True), "n_layer = True"),
        (dict(n_layer=None), "n_layer = None"),
        (dict(n_layer=[2]), "n_layer"),
        (
            dict(n_embd=10**9),
            r"wte.weight has the shape \[259, 8\], but config.json needs \[259, 1000000000\]",
        ),
        (dict(n_embd=9), "n_embd = 9 is not divisible by n_head = 2"),
        (dict(n_embd=-8), "n_embd = -8"),
        (dict(n_head=3), "n_embd = 8 is not divisible by n_head = 3"),
        (dict(n_head=0), "n_head = 0"),
        (dict(n_positions=10**9), r"wpe.weight has the shape \[16, 8\]"),
        (dict(n_inner=7), r"mlp.c_fc.weight has the shape \[8, 32\]"),
        (dict(n_inner=0), "n_inner = 0"),
        (dict(vocab_size=10**9), "vocab_size = 1000000000, but wte.weight has 259 rows"),
        (dict(eos_token_id="x"), "eos_token_id = 'x'"),
        (dict(eos_token_id=-1), "eos_token_id = -1"),
        (dict(layer_norm_epsilon=1e-3), "layer_norm_epsilon = 0.001"),
        (dict(activation_function=["x"]), "activation"),
    ],
)
def test_invalid_config_values_are_one_line_errors(directory, change, words):
    rewrite(directory, **change)
    with pytest.raises(UserError, match=words) as e:
        aigc_jax.load(directory)
    assert "\n" not in str(e.value)


def test_invalid_config_json_is_a_user_error(directory):
    for text in ("[" * 100_000, "[]", "{}", "3"):
        (directory / "config.json").write_text(text)
        with pytest.raises(UserError, match="is not a GPT-2 config.json"):
            aigc_jax.load(directory)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weights_are_refused(directory, value):
    write_weights(directory, 259, **{NAME: np.full(8, value, np.float32)})
    with pytest.raises(UserError, match="h.0.ln_1.bias contains NaN or infinity"):
        aigc_jax.load(directory)


def test_activation_aliases_give_the_same_logits(directory):
    whole = logits(aigc_jax.load(directory), TOKENS)
    rewrite(directory, activation_function="gelu_pytorch_tanh")
    np.testing.assert_array_equal(logits(aigc_jax.load(directory), TOKENS), whole)


def test_export_fills_missing_biases_with_zeros(directory, tmp_path):
    run = aigc_jax.load(directory)
    params = {
        name: value
        for name, value in flatten_state(run.state.params["net"]).items()
        if not name.endswith("bias")
    }
    gpt2_weights.write_model_directory(
        tmp_path / "back", run.config.model.to_dict() | dict(bias=False), params, run.tokenizer
    )
    again = aigc_jax.load(tmp_path / "back")
    net = run.programs.method.language.net.clone(bias=False)
    nested = {}
    for name, value in params.items():
        *folders, last = name.split("/")
        at = nested
        for folder in folders:
            at = at.setdefault(folder, {})
        at[last] = value
    expected = net.apply({"params": nested}, np.array(TOKENS), None)[0]
    np.testing.assert_allclose(logits(again, TOKENS)[..., :259], expected[..., :259], atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "no end", "prefix", "characters"])
def test_logits_and_greedy_text_equal_transformers(with_library, tmp_path, kind):
    """Compares with GPT2LMHeadModel, which reads the directory and an export of the
    loaded run.
    """
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    library = ALL[kind].library if kind in ALL else KINDS[kind]()
    path = with_library(library)
    run = aigc_jax.load(path)
    gpt2_weights.write_model_directory(
        tmp_path / "back",
        run.config.model.to_dict(),
        flatten_state(run.state.params["net"]),
        run.tokenizer,
        run.end_tokens,
    )
    ids = run.tokenizer.encode("the th").tolist()
    ours = logits(run, [ids])[..., : run.tokenizer.size]
    written = run.generate(["the th"], 8, temperature=0)
    for place in (path, tmp_path / "back"):
        model = transformers.GPT2LMHeadModel.from_pretrained(place).eval()
        with torch.no_grad():
            np.testing.assert_allclose(ours, model(torch.tensor([ids])).logits.numpy(), atol=1e-5)
        stop = list(run.end_tokens) or None
        text = model.generate(
            torch.tensor([ids]),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=stop,
            pad_token_id=0,
        )
        text = text[0, len(ids) :].tolist()
        assert written == [run.tokenizer.decode_until_end(text)]
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert reader("the th")["input_ids"] == ids
