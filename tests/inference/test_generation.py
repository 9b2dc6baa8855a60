"""Language models: pairs, masked tokens, carried states, metrics, and text generation
from Python and the command line.
"""

import io
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import command_line
from ml_collections import ConfigDict
from runs import train
from tiny_configs import PAIRS, dataset, resolved, tiny

import aigc_jax
from aigc_jax import data
from aigc_jax.cli import main as cli
from aigc_jax.data import schema as data_schema
from aigc_jax.data.dataset import hash_arrays_and_splits
from aigc_jax.data.files import hash_decile
from aigc_jax.data.pairs import extract_documented_functions
from aigc_jax.inference import generation
from aigc_jax.methods.decoding import SamplingParams
from aigc_jax.methods.mlm import mask_tokens
from aigc_jax.methods.text_decoder import TextDecoder
from aigc_jax.training import config as configs
from aigc_jax.training.evaluation import Evaluator
from aigc_jax.training.programs import Programs
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError


def pairs(path, **more):
    return data.load(
        ConfigDict(data_schema.DEFAULTS | dict(name="pairs", path=str(path), length=8) | more)
    )


def test_pairs_match_the_file():
    found = pairs(PAIRS)
    batch = found.take(found.arrays, np.arange(found.spec.n_train))
    end = found.tokenizer.end
    for source, seen, target, counts in zip(
        *(batch[k] for k in ("source", "source_mask", "tokens", "mask")), strict=True
    ):
        number = found.tokenizer.decode(source[seen > 0])
        assert target[0] == end and found.tokenizer.decode_until_end(target[1:]) == number[::-1]
        # the mask includes the end token
        assert counts.sum() == len(number) + 1 and target[1:][counts > 0][-1] == end
    assert (batch["bytes"].sum(1) == batch["source_mask"].sum(1)).all()
    short = found.vary(found.arrays, np.arange(3), np.zeros(3, np.uint32))
    assert short["source"].shape == (3, 8) and short["tokens"].shape == (3, 10)


def test_long_pairs_are_dropped_from_training_only(tmp_path):
    rows = [f"{n}\t{'x' * (30 if n % 5 == 0 else 3)}" for n in range(1000, 1400)]
    (tmp_path / "long.tsv").write_text("\n".join(rows))
    found = pairs(tmp_path / "long.tsv")
    assert found.spec.shape == (30, 31) and found.about["text"]["left_out"] > 30
    assert sum(count for _, count in found.splits.values()) == 400 - found.about["text"]["left_out"]
    assert (
        found.arrays["target_length"][: found.spec.n_train].max() == 3
        and found.arrays["target_length"][found.spec.n_train :].max() == 30
    )


def test_held_out_characters_are_in_the_vocabulary(tmp_path):
    """Each letter occurs in one pair only, and some pairs are held out."""
    letters = [chr(0x4E00 + i) for i in range(40)]
    (tmp_path / "letters.tsv").write_text("".join(f"{c}\t{c}{c}\n" for c in letters))
    found = pairs(tmp_path / "letters.tsv", tokenizer="characters")
    assert [found.tokenizer.decode(found.tokenizer.encode(c)) for c in letters] == letters


@pytest.mark.parametrize(
    "content, more, words",
    [
        ("a b\n", {}, "line 1 is not a source, a tab and a target"),
        ("a\tb\tc\n", {}, "line 1 is not a source, a tab and a target"),
        ("a\tb\n\n\nc\td\n\ne\n", {}, "line 6 is not a source, a tab and a target"),
        ("a\tb\u2028c\n\x0cd\n", {}, "line 2 is not a source, a tab and a target"),
        ("", {}, "is empty"),
        ("a\tb\n", dict(length=0), "config.data.length = 0"),
    ],
)
def test_malformed_pair_files_are_user_errors(tmp_path, content, more, words):
    (tmp_path / "x.tsv").write_text(content)
    with pytest.raises(UserError, match=words):
        pairs(tmp_path / "x.tsv", **more)


def test_bom_and_crlf_do_not_change_pairs(tmp_path):
    rows = [f"{n}\u2028\x0c\tx{n}\x85" for n in range(1000, 1400)]
    (tmp_path / "a.tsv").write_bytes("\n".join(rows).encode())
    (tmp_path / "b.tsv").write_bytes(("\ufeff" + "\r\n\r\n".join(rows) + "\r\n").encode())
    first, second = (pairs(tmp_path / name, length=16) for name in ("a.tsv", "b.tsv"))
    assert (
        hash_arrays_and_splits(first) == hash_arrays_and_splits(second)
        and first.about["text"]["documents"] == 400
    )
    batch = first.take(first.arrays, np.arange(400))
    sources = {
        first.tokenizer.decode(row[seen > 0])
        for row, seen in zip(batch["source"], batch["source_mask"], strict=True)
    }
    assert sources == {row.split("\t")[0] for row in rows}


def test_multi30k_lines_end_only_at_line_feeds(tmp_path):
    (tmp_path / "multi30k").mkdir()
    for name, count in (("train", 40), ("val", 10), ("test_2016_flickr", 10)):
        for language in ("en", "de"):
            text = "\ufeff" + "".join(f"{language}{i}\u2028\r\n" for i in range(count))
            (tmp_path / "multi30k" / f"{name}.{language}").write_bytes(text.encode())
    found = data.load(
        ConfigDict(data_schema.DEFAULTS | dict(name="multi30k", length=16)), str(tmp_path)
    )
    batch = found.take(found.arrays, np.arange(2))
    assert found.splits["train"] == (0, 40)
    assert found.tokenizer.decode_until_end(batch["tokens"][1, 1:]) == "de1\u2028"
    assert found.tokenizer.decode(batch["source"][0][batch["source_mask"][0] > 0]) == "en0\u2028"


def test_overlong_held_out_pair_is_refused_and_named(tmp_path):
    rows = [f"{n}\t{n}" for n in range(1000, 1400)]
    held = next(row for row in rows if hash_decile(row.split("\t")[0]) == 8)
    rows[rows.index(held)] = held + "y" * 20_000
    (tmp_path / "huge.tsv").write_text("\n".join(rows))
    with pytest.raises(UserError) as e:
        pairs(tmp_path / "huge.tsv")
    assert f"the valid pair that begins '{held[:4]}' has 20,004 tokens on a side" in str(e.value)
    assert "config.data.length = 8 allows at most 16,384" in str(e.value)
    assert pairs(tmp_path / "huge.tsv", length=400).spec.shape == (20_004, 20_005)  # 64 times 400


def test_functions_after_form_feeds_are_complete():
    source = 'import a\n\x0c\ndef f(x):\n    """Say x."""\n    y = x\n\x0c\n    return y\n'
    ((said, code),) = extract_documented_functions(source)
    assert said == '"""Say x."""' and code == "def f(x):\n    y = x\n\x0c\n    return y"


def test_multi30k_split_sizes(real_data):
    found = data.load(
        ConfigDict(
            data_schema.DEFAULTS
            | dict(name="multi30k", tokenizer="bytes", length=300, languages="de-fr")
        )
    )
    assert {k: n for k, (_, n) in found.splits.items()} == dict(
        train=29_000, valid=1_014, test=1_000
    )
    with pytest.raises(UserError, match="must name two of en, de, fr"):
        data.load(ConfigDict(data_schema.DEFAULTS | dict(name="multi30k", languages="en-en")))


def test_mask_tokens_follows_the_bert_proportions():
    """Devlin et al. 2019, section 3.1: of the chosen 15 % of tokens, 80 % become the
    mask token, 10 % another token, and 10 % remain unchanged.
    """
    tokens = jnp.broadcast_to(jnp.arange(500) % 90, (200, 500))
    seen, chosen = (
        np.asarray(x) for x in mask_tokens(jax.random.key(0), jnp.arange(200), tokens, 0.15, 99, 99)
    )
    assert chosen.mean() == pytest.approx(0.15, abs=0.005)
    assert (seen == np.asarray(tokens))[chosen == 0].all()
    assert (seen == 99)[chosen == 1].mean() == pytest.approx(0.8, abs=0.01)
    assert (seen == np.asarray(tokens))[chosen == 1].mean() == pytest.approx(0.1, abs=0.01)
    again = mask_tokens(jax.random.key(0), jnp.arange(100, 110), tokens[100:110], 0.15, 99, 99)[0]
    assert (np.asarray(again) == seen[100:110]).all()  # keyed by example, not by batch


def test_carry_resets_each_epoch_and_is_unchanged_by_evaluation():
    config = tiny("lm_stream")
    programs = Programs(resolved(config), dataset(config), 1)
    states, per = programs.init([config]), dataset(config).spec.n_train // config.batch_size
    assert all(not x.any() for x in jax.tree.leaves(jax.device_get(states.extra)))
    states, _ = programs.train(states, 0, 3)
    kept = jax.device_get(states.extra)
    assert all(x.any() for x in jax.tree.leaves(kept))
    Evaluator(programs).evaluate(states, "valid", 16)
    jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get(states.extra))
    step_of = lambda s: programs.train(programs.to_mesh(jax.tree.map(jnp.copy, s)), 0, 1)[1][
        "loss"
    ][0, 0]
    # The first step of an epoch does not depend on the carry; later steps do.
    for step, same in ((per, True), (per + 1, False)):
        there = jax.tree.map(lambda x: x, states.replace(step=jnp.full(1, step, jnp.int32)))
        other = there.replace(extra=jax.tree.map(lambda x: x + 1, there.extra))
        losses = [step_of(s) for s in (there, other)]
        assert (losses[0] == losses[1]) == same


def test_stream_order_requires_a_recurrent_network():
    with pytest.raises(UserError, match="is for config.network = 'recurrent'"):
        config = tiny("lm", data__order="stream")
        Programs(resolved(config), dataset(config), 1)


@pytest.mark.parametrize(
    "name, change, words",
    [
        (
            "lm",
            {"model.context": 8},
            "config.model.context = 8 positions are less than config.data.length = 16",
        ),
        ("lm", {"model.position_encoding": "rotory"}, "did you mean 'rotary'"),
        ("lm", {"label_smoothing": 1.0}, "must be below 1"),
        (
            "lm",
            {"data.name": "digits", "data.tokenizer": "bytes", "data.length": 64},
            "holds no text",
        ),
        ("mlm", {"mask_rate": 0.0}, "config.mask_rate = 0.0"),
        ("seq2seq", {"num_beams": 0}, "config.num_beams = 0"),
        ("seq2seq", {"data.name": "pydoc", "data.path": ""}, "holds no pairs"),
    ],
)
def test_invalid_configs_are_user_errors(name, change, words):
    with pytest.raises(UserError, match=words):
        config = configs.override(tiny(name), change)
        Programs(resolved(config), dataset(config), 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small character-level language model after 60 steps."""
    path = tmp_path_factory.mktemp("lm") / "run"
    config = tiny(
        "lm",
        data__length=32,
        model__context=32,
        batch_size=16,
        steps="60 steps",
        run__eval_every="never",
        run__save_every="never",
        data__tokenizer="characters",
    )
    train([config], [path])
    return aigc_jax.load(path)


@pytest.fixture(scope="module", autouse=True)
def share_decoders():
    """Decoders of one network with equal sampling parameters share their programs."""
    made = {}

    def cached_decoder(apply, net, params, choice, ends):
        key = id(net), choice, ends
        if key not in made:
            made[key] = net, TextDecoder(apply, net, params, choice, ends)
        made[key][1].params = params
        return made[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "TextDecoder", cached_decoder)
        yield


@pytest.fixture
def sample(run, monkeypatch, capsys):
    """(words) -> exit code, standard output and standard error of `aigc sample` for
    `run`, in this process.
    """
    monkeypatch.setattr("aigc_jax.inference.load.load", lambda *_: run)

    def call(*words):
        code = cli.main(["sample", f"--workdir={run.dir.path}", *words])
        return code, *capsys.readouterr()

    return call


def test_sample_command_output_equals_generated_continuations(run):
    words = (
        "sample",
        f"--workdir={run.dir.path}",
        "--prompt=The ",
        "--tokens=40",
        "--temperature=0.7",
    )
    first = command_line(*words)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("The ") and len(first.stdout) == 4 + 40 + 1
    assert (
        first.stdout[4:-1]
        == generation.generate_continuations(run, ["The "], 40, SamplingParams(0.7))[0]
    )


def test_overlong_prompt_is_truncated_and_reported(run):
    said = []
    long = generation.generate_continuations(
        run, ["abc " * 30], 10, SamplingParams(0.0), warn=said.append
    )
    assert len(said) == 1 and "the prompt has 120 tokens and the network 32 positions" in said[0]
    assert long == generation.generate_continuations(
        run, [("abc " * 30)[-24:]], 10, SamplingParams(0.0)
    )


def test_bom_and_crlf_do_not_change_prompts(run, tmp_path):
    (tmp_path / "prompt.txt").write_bytes("\ufeffThe\r\nif\r\n".encode())
    assert generation.read_prompt_file(tmp_path / "prompt.txt") == "The\nif"
    said = []
    for text in ("The\nif\n", "\ufeffThe\r\nif\r\n"):
        said.append(io.StringIO())
        generation.interactive_loop(
            run, 5, SamplingParams(0.0), 0, None, io.StringIO(text, newline=""), said[-1]
        )
    with pytest.raises(
        UserError, match="the standard input is not UTF-8 text: invalid continuation byte"
    ):
        latin = io.TextIOWrapper(io.BytesIO(b"caf\xe9\xff\n"), "utf-8")
        generation.interactive_loop(run, 5, SamplingParams(0.0), 0, None, latin, io.StringIO())
    assert said[0].getvalue() == said[1].getvalue()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(
        UserError, match="^prompt_file=.*fifo is a FIFO, and must be a regular file"
    ):
        generation.read_prompt_file(tmp_path / "fifo")


def test_prompts_are_read_from_files_and_lines(run, sample, tmp_path):
    (tmp_path / "prompt.txt").write_text("The if\n")
    out = tmp_path / "texts.txt"
    code, _, err = sample(
        f"--prompt_file={tmp_path / 'prompt.txt'}", "--num=3", "--tokens=8", f"--out={out}"
    )
    assert code == 0, err
    text = out.read_text()
    assert (
        text.startswith("# Software generated by aigc_jax, config ") and text.count("The if") == 3
    )
    answers = io.StringIO()
    generation.interactive_loop(
        run, 5, SamplingParams(0.0), 0, None, io.StringIO("The\nif\n"), answers
    )
    assert [line[:3] for line in answers.getvalue().splitlines() if line][
        0
    ] == "The" and "if" in answers.getvalue()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--temperature=-1"], "--temperature=-1.0 must be 0 or a number in"),
        (["--tokens=0"], "--tokens=0 must be an integer in [1, 10,000,000]"),
        (["--prompt=a", "--prompt_file=b"], "--prompt and --prompt_file are mutually exclusive"),
        (["--prompt_file=/nowhere"], "--prompt_file=/nowhere: no such file"),
        (["--prompt=☃"], "the character '☃' (U+2603) is none of the tokenizer's"),
        (["--out=x.png", "--prompt=a"], "must end in .txt"),
    ],
)
def test_invalid_text_sampling_flags_are_a_one_line_error(sample, words, sentence):
    code, _, err = sample(*words)
    assert code == 1 and sentence in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    "flag, values",
    [
        ("seed", ["-1", "4294967296", str(10**30), "1.5"]),
        ("tokens", [str(10**30)]),
        ("num", ["0", str(10**30)]),
        ("temperature", ["nan"]),
        ("top_k", ["-1"]),
        ("top_p", ["nan"]),
        ("min_p", ["inf"]),
        ("repetition", ["-inf"]),
    ],
)
def test_out_of_range_sampling_flags_are_a_one_line_error(run, flag, values, capsys, monkeypatch):
    monkeypatch.setattr("aigc_jax.inference.load.load", lambda *_: run)
    for value in values:
        assert cli.main(["sample", f"--workdir={run.dir.path}", f"--{flag}={value}"]) == 1
        said = capsys.readouterr().err
        assert f"--{flag}" in said and value in said and said.count("\n") == 1


def test_all_text_sampling_flags_combine(run, capsys, monkeypatch):
    """Beyond the context, with the largest seed; 128 does not divide the vocabulary."""
    monkeypatch.setattr("aigc_jax.inference.load.load", lambda *_: run)
    assert run.tokenizer.size % 128
    words = [
        "sample",
        f"--workdir={run.dir.path}",
        "--prompt=The if",
        "--tokens=60",
        "--temperature=0.8",
        "--top_k=20",
        "--top_p=0.9",
        "--min_p=0.01",
        "--repetition=1.3",
        "--seed=4294967295",
    ]
    texts = []
    for more in ([], ["--num=2"]):
        assert cli.main(words + more) == 0
        texts.append(capsys.readouterr().out)
    assert len(texts[0]) == len("The if") + 60 + 1
    assert texts[1].startswith(texts[0].removesuffix("\n") + "\n----\nThe if")
    numbers = dict(temperature=0.8, top_k=20, top_p=0.9, min_p=0.01, repetition=1.3, seed=2**32 - 1)
    assert "The if" + run.generate(["The if"], 60, **numbers)[0] + "\n" == texts[0]


def test_run_generate_is_seeded_and_validates_arguments(run):
    first = run.generate(["The ", "", "if it "], 20, seed=3)
    assert len(first) == 3 and all(0 < len(text) <= 20 for text in first)
    assert run.generate(["The "], 20, seed=3) == first[:1] != run.generate(["The "], 20, seed=4)
    assert run.generate([], 5) == []
    assert run.generate(["The "], 20, temperature=0) == run.generate(["The "], 20, top_k=1, seed=9)
    mistakes = {
        "prompts = 'The '": dict(prompts="The "),
        "^seed=-1": dict(prompts=["a"], seed=-1),
        "^tokens=0": dict(prompts=["a"], num_tokens=0),
        "^top_p=2": dict(prompts=["a"], top_p=2),
    }
    for words, wrong in mistakes.items():
        with pytest.raises(UserError, match=words):
            run.generate(**wrong)


def test_language_model_samples_are_texts(run, sample, tmp_path):
    texts = run.sample(3)
    assert (
        len(texts) == 3 and all(isinstance(text, str) for text in texts) and len(run.sample()) == 8
    )
    assert (
        texts
        == [run.tokenizer.decode_until_end(row) for row in run.draw(3, "text")]
        == run.sample(4, "text")[:3]
        != run.sample(3, seed=1)
    )
    assert (
        run.draw(3, "text").shape == (3, 32)
        and [len(text) for text in run.sample(2, "answer")] == [16] * 2
    )
    for out, expected in (
        (None, "\n----\n".join(texts) + "\n"),
        (tmp_path / "x.txt", None),
        (tmp_path / "x.npy", None),
    ):
        code, printed, _ = sample("--what=text", "--num=3", *([f"--out={out}"] if out else []))
        assert code == 0 and expected in (None, printed)
    assert all(text in (tmp_path / "x.txt").read_text() for text in texts)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), run.draw(3, "text"))


def test_language_models_refuse_image_and_music_outputs(sample):
    for out in ("x.png", "x.mid"):
        code, _, err = sample("--what=text", f"--out={out}")
        assert code == 1 and "because the run's samples are text" in err
    code, _, err = sample("--what=neighbours")
    assert code == 1 and "--what = 'neighbours' is none of text, answer, reference" in err


def test_training_samples_are_text_with_provenance(run):
    files = sorted((run.dir / "samples").glob("*"))
    assert [f.suffix for f in files] == [".txt"] * len(files) and files
    text = files[-1].read_text()
    assert "checkpoint" in text.splitlines()[0] and text.count("\n# ") >= 4
    assert (
        run.tokenizer.size == run.spec.vocabulary
        and (run.dir / "assets" / "tokenizer.json").is_file()
    )


def test_perplexity_and_bits_follow_from_the_loss(run):
    row = run.rows("test")[-1]
    assert row["perplexity"] == pytest.approx(np.exp(row["loss"]), rel=1e-6)
    # each token is one character, except for end tokens, which have none
    bits = row["loss"] / np.log(2)
    assert bits < row["bits_per_character"] < 1.01 * bits
    assert row["bits_per_byte"] <= row["bits_per_character"]


def test_init_from_requires_the_same_tokenizer(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Programs, "start_compiling_training", lambda _: None
    )  # programs compile when first called
    other = tiny(
        "lm",
        data__tokenizer="bytes",
        data__length=32,
        model__context=32,
        init_from=str(run.dir.path),
    )
    with pytest.raises(UserError, match="another tokenizer"):
        train([other], [tmp_path / "other"])
    there = str(run.dir.path)
    same = tiny(
        "lm",
        data__tokenizer="file",
        data__tokenizer_path=there,
        data__length=32,
        model__context=32,
        init_from=there,
        steps="1 step",
        schedule__warmup="0 steps",
    )
    train([same], [tmp_path / "same"])
    before, after = run.rows("valid")[-1], RunDir(tmp_path / "same").read_rows()
    assert before["step"] == run.step
    before, after = (
        before["loss"],
        next(row for row in after if row["split"] == "valid")["loss"],
    )
    assert after == pytest.approx(before, rel=1e-5)  # evaluated before the first step


@pytest.mark.slow
def test_encoder_decoder_learns_to_reverse_numbers(tmp_path, capsys):
    config = tiny(
        "seq2seq",
        steps="250 steps",
        batch_size=32,
        model__width=32,
        model__layers=2,
        model__position_encoding="learned",
        hp__lr=5e-3,
        model__dropout=0.0,
        label_smoothing=0.0,
        run__eval_every="never",
        run__sample_every="never",
        run__save_every="never",
    )
    train([config], [tmp_path])
    run = aigc_jax.load(tmp_path)
    answers = generation.translate(run, ["1234", "1399"])
    assert answers == ["4321", "9931"] and run.rows("test")[-1]["loss"] < 0.1
    assert run.generate(["1234", "1399"]) == answers and all(
        isinstance(text, str) for text in run.sample(2)
    )
    with pytest.raises(
        UserError,
        match="^temperature=0.5 top_k=3 cannot be set: an encoder-decoder uses beam search",
    ):
        run.generate(["1234"], temperature=0.5, top_k=3)
    assert cli.main(["sample", f"--workdir={tmp_path}", "--prompt=1234"]) == 0
    assert capsys.readouterr().out == f"{answers[0]}\n"


def test_data_command_reports_the_tokenizer(capsys):
    code = cli.main(["data", "--name=pydoc", "--tokenizer=bytes"])
    out, err = capsys.readouterr()
    assert code == 0 and "(bytes, BPE), 1.00 characters each; loses nothing" in out, out + err
