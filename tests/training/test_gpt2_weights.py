"""GPT-2 directories: reading, writing, and recorded logits of transformers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpt2_directories import SIZES, TOKENS, logits

import aigc_jax
from aigc_jax.cli import main as cli
from aigc_jax.data import tokenizers
from aigc_jax.data.tokenizers import huggingface
from aigc_jax.inference import generation
from aigc_jax.methods.decoding import SamplingParams
from aigc_jax.training import config as configs
from aigc_jax.training import gpt2_weights, init_from
from aigc_jax.training.serialization import flatten_state
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.terminal import escape_controls

GOLDEN = [0.67353, -2.00292, 1.95055, -0.55254, -1.22664, 2.1596, -1.60271, -0.05985]


def test_logits_equal_recorded_transformers_logits(directory):
    run = aigc_jax.load(directory)
    np.testing.assert_allclose(logits(run, TOKENS)[0, -1, :8], GOLDEN, atol=1e-4)


def test_written_directory_loads_as_the_same_network(directory, tmp_path):
    run = aigc_jax.load(directory)
    gpt2_weights.write_model_directory(
        tmp_path / "back",
        run.config.model.to_dict(),
        flatten_state(run.state.params["net"]),
        run.tokenizer,
    )
    again = aigc_jax.load(tmp_path / "back")
    np.testing.assert_array_equal(logits(again, TOKENS), logits(run, TOKENS))
    text = "the thing: 世界 🙂\n"
    assert again.tokenizer.encode(text).tolist() == run.tokenizer.encode(text).tolist()
    assert run.tokenizer.decode(run.tokenizer.encode(text)) == text
    assert (run.tokenizer.end, run.tokenizer.mask) == (258, None)


def test_generated_text_is_deterministic_in_the_seed(directory, capsys):
    run = aigc_jax.load(directory)
    texts = [
        generation.generate_continuations(run, ["the", "a t"], 30, SamplingParams(), seed)[0]
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert cli.main(["sample", f"--workdir={directory}", "--prompt=the", "--tokens=30"]) == 0
    assert capsys.readouterr().out == f"the{escape_controls(texts[0])}\n"


def test_evaluation_and_class_labels_are_refused(directory):
    run = aigc_jax.load(directory)
    with pytest.raises(UserError, match="config.data.path = ''"):
        run.evaluate()
    with pytest.raises(UserError, match="^label=3 needs a sampler with classes"):
        run.sample(2, label=3)


def test_init_from_takes_weights_and_tokenizer_file(directory):
    """config.init_from and the tokenizer "file" both accept a GPT-2 directory."""
    run = aigc_jax.load(directory)
    states = jax.tree.map(
        lambda x: jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else x, run.states
    )
    config = configs.override(
        configs.fill_defaults(gpt2_weights.make_config(directory)), {"init_from": str(directory)}
    )
    begun = init_from.warm_start_states(states, config)
    np.testing.assert_array_equal(
        begun.params["net"]["embed"]["embedding"], run.states.params["net"]["embed"]["embedding"]
    )
    given = tokenizers.build((), config.data)
    assert given.files == huggingface.read(directory).files


def damaged(directory, what):
    if what == "cut":
        data = (directory / "model.safetensors").read_bytes()
        (directory / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif what == "noise":
        (directory / "model.safetensors").write_bytes(b"\x80\x02}q\x00." * 40)
    elif what == "layers":
        (directory / "config.json").write_text(json.dumps(SIZES | dict(n_layer=3)))
    elif what == "config":
        (directory / "config.json").write_text('{"n_embd": 8')
    elif what == "other":
        (directory / "config.json").write_text(json.dumps(SIZES | dict(activation_function="relu")))
    elif what == "vocab":
        (directory / "vocab.json").write_text('{"a": 5}')
    elif what == "merges":
        (directory / "merges.txt").write_text("t h e\n")


@pytest.mark.parametrize(
    "what, words",
    [
        ("cut", "is damaged or no safetensors file"),
        ("noise", "is damaged or no safetensors file"),
        ("layers", "config.json has n_layer = 3"),
        ("config", "is not a GPT-2 config.json"),
        ("other", "activation_function = 'relu'"),
        ("vocab", "vocab.json cannot be used as a tokenizer"),
        ("merges", "vocab.json"),
    ],
)
def test_damaged_directory_is_a_one_line_error(directory, what, words):
    damaged(directory, what)
    with pytest.raises(UserError, match=words) as e:
        aigc_jax.load(directory)
    assert "\n" not in str(e.value)


def test_export_of_other_architectures_is_refused(directory, tmp_path):
    run = aigc_jax.load(directory)
    wrong = (
        (dict(position_encoding="rotary"), "position_encoding = 'rotary'"),
        (dict(kv_heads=1), "kv_heads = 1"),
        (dict(scan=True), "stores each layer separately"),
    )
    for change, words in wrong:
        with pytest.raises(UserError, match=words):
            gpt2_weights.write_model_directory(
                tmp_path / "no",
                run.config.model.to_dict() | change,
                flatten_state(run.state.params["net"]),
                run.tokenizer,
            )
