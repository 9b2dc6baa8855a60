"""`aigc export`: transformers opens the language model of any tokenizer."""

import json

import numpy as np
import pytest
from gpt2_directories import logits
from runs import train
from tiny_configs import tiny

import aigc_jax
from aigc_jax.cli import main as cli

PROMPT = "The statement "
SIZES = {"bytes": 0, "characters": 0, "words": 400, "bpe": 300}


def train_gpt2(path, tokenizer):
    """A small language model with the layers of GPT-2."""
    config = tiny(
        "lm",
        data__tokenizer=tokenizer,
        data__vocabulary=SIZES[tokenizer],
        data__length=32,
        model__context=32,
        model__kv_heads=2,
        steps="40 steps",
        hp__lr=1e-2,
        run__eval_every="never",
        run__sample_every="never",
        run__save_every="never",
    )
    train([config], [path])


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", SIZES)
def test_transformers_gives_the_same_logits_and_greedy_text(tokenizer, tmp_path, capsys):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    train_gpt2(tmp_path / "run", tokenizer)
    out = tmp_path / "exported"
    assert cli.main(["export", f"--workdir={tmp_path / 'run'}", f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    run = aigc_jax.load(tmp_path / "run")
    reader = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.GPT2LMHeadModel.from_pretrained(out).eval()
    inputs = reader(PROMPT, return_tensors="pt")
    ids = run.tokenizer.encode(PROMPT)
    assert inputs["input_ids"].tolist() == [ids.tolist()]
    with torch.no_grad():
        theirs = model(**inputs).logits.numpy()
        new = model.generate(**inputs, max_new_tokens=16, do_sample=False, pad_token_id=0)
    ours = logits(run, [ids.tolist()])[..., : run.tokenizer.size]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    written = reader.decode(new[0, len(ids) :], skip_special_tokens=True)
    assert run.generate([PROMPT], 16, temperature=0) == [written] and written
    assert aigc_jax.load(out).generate([PROMPT], 16, temperature=0) == [written]
    names = json.loads((out / "special_tokens_map.json").read_text())
    assert names == dict(eos_token="<|endoftext|>", mask_token="<|mask|>")
