"""Texts: what a tokenizer gives back, what a window holds, how texts are divided and cleaned; whatever is wrong is a sentence."""

import hashlib
import json
import os
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from aigc_jax import config as configs
from aigc_jax import data, input_files, stored
from aigc_jax.data import dataset as datasets
from aigc_jax.data import files, splitters, tokenizers
from aigc_jax.data import text as module
from aigc_jax.errors import UserError
from aigc_jax.results import cache_dir

PLAY = "ROMEO:\nBut soft, what light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n\n" * 12
CHINESE = "秦川雄帝宅，函谷壯皇居。綺殿千尋起，離宮百雉餘。\n連甍遙接漢，飛觀迥凌虛。雲日隱層闕，風煙出綺疎。\n"
ODD = [
    "", "\x00", "\r\n", "\n\n\n  \n\t\t ", "  two  spaces ", "<|endoftext|><|mask|>",
    "\ufffd\ufeff", "e\u0301é", "👩\u200d👩\u200d👧 🇨🇳", "it's we'LL", "a" * 300, CHINESE,
]  # fmt: skip
quick = settings(max_examples=60, deadline=None, database=None)
texts = st.text() | st.lists(st.sampled_from([*ODD, "the ", "。", " 秦川", "é", "\n", "🙂"]), max_size=8).map("".join)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def section(**more):
    return ConfigDict(configs.DATA | more)


def build(kind, *corpus, **more):
    return tokenizers.build(list(corpus) or [PLAY, CHINESE], section(tokenizer=kind, **more))


def load(path, content=None, **more):
    """The data set `text` of a file, written first; or of each of several."""
    if isinstance(content, list):
        path.mkdir()
        for i, each in enumerate(content):
            (path / f"{i:04}.txt").write_bytes(each.encode())
    elif content is not None:
        path.write_bytes(content.encode())
    return data.load(section(name="text", path=str(path), **dict(length=8) | more))


def split_texts(ds):
    """{split: its text}, from the tokens that lie in its windows."""
    batches = {name: ds.take(ds.arrays, np.arange(start, start + count)) for name, (start, count) in ds.splits.items()}
    return {name: ds.tokenizer.decode(np.append(batch["tokens"][:, :-1], batch["tokens"][-1, -1])) for name, batch in batches.items()}


ALL = {
    "bytes": build("bytes"),
    "bpe": build("bpe", vocabulary=300),
    "characters": build("characters", PLAY, CHINESE),
    "some characters": build("characters", vocabulary=20),
    "words": build("words", vocabulary=12),
    "all words": build("words"),
}


@pytest.mark.parametrize("name", ["bytes", "bpe"])
@quick
@given(text=texts)
def test_bytes_and_bpe_lose_nothing(name, text):
    tokenizer = ALL[name]
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32 and ids.ndim == 1 and ids.max(initial=0) < tokenizer.end
    assert tokenizer.decode(ids) == text and tokenizer.joined(ids) == text.encode()
    characters, sizes = tokenizer.sizes[ids].astype(int).sum(0)
    assert (characters, sizes) == (len(text), len(text.encode()))


@pytest.mark.parametrize("name, alphabet", [
    ("characters", sorted(set(PLAY + CHINESE))), ("all words", [*PLAY.split(), " ", "\n", " the", ", ", "。"]),
])  # fmt: skip
@quick
@given(draw=st.data())
def test_what_is_known_comes_back(name, alphabet, draw):
    tokenizer = ALL[name]
    text = "".join(draw.draw(st.lists(st.sampled_from(alphabet))))
    ids = tokenizer.encode(text)
    if tokenizer.unknown not in ids:
        assert tokenizer.decode(ids) == text
        assert tokenizer.sizes[ids].astype(int).sum(0).tolist() == [len(text), len(text.encode())]
    else:
        assert name == "all words"  # words that were joined anew


@pytest.mark.parametrize("name", ALL)
@quick
@given(ids=st.data())
def test_a_stream_says_what_decode_says(name, ids):
    tokenizer = ALL[name]
    ids = ids.draw(st.lists(st.lists(st.integers(0, tokenizer.size - 1), max_size=5), max_size=8))
    stream = tokenizer.stream()
    assert "".join([*map(stream, ids), stream([], True)]) == tokenizer.decode(sum(ids, []))


def test_half_a_character_is_held_back():
    stream = ALL["bytes"].stream()
    assert [stream([i]) for i in "秦a".encode()] == ["", "", "秦", "a"]
    assert ALL["bytes"].decode(list("秦".encode())[:2]) == "\ufffd"


@pytest.mark.parametrize("name", ALL)
def test_no_text_becomes_a_special_token(name):
    tokenizer = ALL[name]
    assert (tokenizer.end, tokenizer.mask) == (tokenizer.size - 2, tokenizer.size - 1) and len(tokenizer.pieces) == tokenizer.size
    assert tokenizer.decode([tokenizer.end, tokenizer.mask]) == "" and not tokenizer.sizes[-2:].any() and tokenizer.sizes.dtype == np.uint8
    for text in ODD:
        try:
            assert tokenizer.encode(text).max(initial=0) < tokenizer.end
        except UserError as e:
            assert name == "characters" and "is none of the tokenizer's" in str(e) and "\n" not in str(e)


@pytest.mark.parametrize("name", ALL)
def test_json_is_the_tokenizer(name):
    tokenizer = ALL[name]
    again = tokenizers.from_json(tokenizer.to_json())
    assert again.to_json() == tokenizer.to_json() and again.sha256 == tokenizer.sha256 and again.pieces == tokenizer.pieces
    assert (again.kind, again.size, again.unknown, again.loses) == (tokenizer.kind, tokenizer.size, tokenizer.unknown, tokenizer.loses)
    np.testing.assert_array_equal(again.encode(PLAY + CHINESE), tokenizer.encode(PLAY + CHINESE))
    assert len({t.sha256 for t in ALL.values()}) == len(ALL)


def test_bpe_is_the_same_each_time_and_learns_the_frequent():
    tokenizer = build("bpe", vocabulary=300)
    assert tokenizer.to_json() == ALL["bpe"].to_json() and tokenizer.size == 300
    assert len(tokenizer.encode(PLAY)) < len(PLAY) * 0.6 and max(map(len, build("bpe", "=" * 5000 + "\n").pieces)) <= splitters.LONGEST


def test_vocabularies_keep_the_most_frequent():
    tokenizer = build("characters", "aaabbc", vocabulary=5)
    assert tokenizer.pieces == [b"a", b"b", "\ufffd".encode(), b"", b""] and tokenizer.unknown == 2
    assert tokenizer.encode("abz").tolist() == [0, 1, 2] and tokenizer.decode([0, 2]) == "a\ufffd" and tokenizer.sizes[2].tolist() == [1, 1]
    assert tokenizer.loses == "characters other than its 2, which become <unk>"
    tokenizer = build("words", "so so so it is, it is", vocabulary=6)
    assert tokenizer.pieces[:-3] == [b" is", b" it", b" so"] and tokenizer.decode(tokenizer.encode("so it is")) == "\ufffd it is"
    assert ALL["characters"].loses.endswith("which are refused") and ALL["bpe"].loses == "nothing"


def test_a_lone_surrogate_is_a_question_mark():
    for name in ("bytes", "bpe"):
        assert ALL[name].decode(ALL[name].encode("a\ud800b")) == "a?b"


def test_a_megabyte_of_characters_is_quick():
    text, tokenizer = (PLAY * 1000)[:1_000_000], ALL["characters"]
    before = time.perf_counter()
    assert len(tokenizer.encode(text)) == 1_000_000 and time.perf_counter() - before < 1


def test_chinese_words_are_those_of_jieba(monkeypatch):
    class Segmenter:
        def cut(self, text):
            return (text[i : i + 2] for i in range(0, len(text), 2))

    splitters.jieba_cut.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", types.SimpleNamespace(setLogLevel=lambda level: None, Tokenizer=Segmenter))
    tokenizer = build("chinese_words", CHINESE)
    assert tokenizer.kind == "chinese_words" and "秦川".encode() in tokenizer.pieces and tokenizer.decode(tokenizer.encode(CHINESE)) == CHINESE
    splitters.jieba_cut.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UserError, match="^config.data.tokenizer = 'chinese_words' needs the package jieba: pip install jieba$"):
        build("chinese_words", CHINESE)


def test_a_tokenizer_file_that_is_none(tmp_path):
    plain = json.loads(ALL["bpe"].to_json())
    path = tmp_path / "tokenizer.json"
    wrong = [dict(kind="pickle"), plain | dict(known=plain["known"][1:]), plain | dict(known=plain["known"] * 2), plain | dict(merges=[["q", "qq"]]),
             dict(kind="characters", known=["ab"], unknown=False), dict(kind="words", known=[1])]  # fmt: skip
    good = stored.encode(path, plain)
    for bad in (b"", b"[]", good[:-9], good.replace(b'"bpe"', b'"bqe"'), *(stored.encode(path, value) for value in wrong)):
        path.write_bytes(bad)
        with pytest.raises(UserError, match="tokenizer.json is damaged: ") as e:
            tokenizers.read(path)
        assert "\n" not in str(e.value)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="is damaged"):
        tokenizers.read(path)
    with pytest.raises(UserError, match="tokeniser.json: no such file; did you mean 'tokenizer.json'"):
        tokenizers.read(tmp_path / "tokeniser.json")


def test_a_tokenizer_comes_from_a_file_or_a_run(tmp_path):
    (tmp_path / "run" / "assets").mkdir(parents=True)
    path = tmp_path / "run" / "assets" / "tokenizer.json"
    tokenizers.write(path, ALL["bpe"])
    for given_ in (path, tmp_path / "run"):
        ds = load(tmp_path / "a.txt", PLAY, tokenizer="file", tokenizer_path=str(given_))
        assert ds.tokenizer.sha256 == ALL["bpe"].sha256 and ds.about["text"]["tokenizer"] == "bpe"


@pytest.mark.parametrize("split", module.SPLITS)
def test_windows_of_one_text(tmp_path, split):
    ds = load(tmp_path / "a.txt", PLAY, split=split, tokenizer="characters")
    shares = [10 * module.SPLITS[split].count(name) for name in ("train", "valid", "test")]
    cuts = np.cumsum([0, *shares]) * len(PLAY) // 100
    tokens, T = ds.arrays["tokens"], 8
    assert tokens.dtype == np.uint16 and ds.spec.shape == (T,) and ds.spec.n_train == ds.splits["train"][1] and ds.spec.kind == "text"
    assert ds.spec.vocabulary == ds.tokenizer.size == len(set(PLAY)) + 2 and ds.tokenizer.pieces[ds.spec.start] == b"\n"
    if shares[2] == 0:
        assert ds.splits["test"] == ds.splits["valid"]
    held = 0
    for i, (name, got) in enumerate(split_texts(ds).items()):
        if name != "test" or shares[2]:
            whole = PLAY[cuts[i] : cuts[i + 1]]
            assert whole.startswith(got) and len(whole) - len(got) < (2 * T if name == "train" else T)
            assert ds.splits[name][1] == ((len(whole) - T) // T if name == "train" else (len(whole) - 1) // T)
            assert ds.splits[name][0] * T >= held  # no split reads what is another's
            held = ds.splits[name][0] * T + len(whole)
    assert len(tokens) % T == 0 and (tokens[held:] == ds.tokenizer.end).all()


def test_batches_hold_inputs_targets_and_their_sizes(tmp_path):
    ds = load(tmp_path / "a.txt", PLAY + CHINESE * 9, length=16)
    rows = np.arange(*np.cumsum(ds.splits["train"]))
    batch = ds.take(ds.arrays, rows)
    tokens = batch["tokens"]
    assert tokens.shape == (len(rows), 17) and tokens.dtype == np.int32 and batch["characters"].dtype == batch["bytes"].dtype == np.float32
    np.testing.assert_array_equal(tokens[:-1, -1], tokens[1:, 0])  # a window's last target begins the next window
    np.testing.assert_array_equal(batch["bytes"], 1)
    targets = tokens[:, 1:].astype(np.uint8).tobytes()
    assert batch["characters"].sum() == sum(b & 0xC0 != 0x80 for b in targets)
    for take in (ds.take, jax.jit(ds.take)):
        arrays = jax.tree.map(jnp.asarray, ds.arrays)
        jax.tree.map(np.testing.assert_array_equal, take(arrays, jnp.asarray(rows)), batch)


def test_an_epoch_moves_its_windows_by_one_word(tmp_path):
    ds = load(tmp_path / "a.txt", PLAY)
    T, (_, n) = 8, ds.splits["train"]
    rows = np.arange(n)
    stop = ds.splits["valid"][0] * T
    jax.tree.map(np.testing.assert_array_equal, ds.vary(ds.arrays, rows, np.full(n, 5 * T, np.uint32)), ds.take(ds.arrays, rows))
    for word in (1, 7, 2**32 - 1):
        moved = ds.vary(ds.arrays, rows, np.full(n, word, np.uint32))["tokens"]
        first = word % T
        np.testing.assert_array_equal(moved[:, 1:].ravel(), ds.arrays["tokens"][first + 1 : first + 1 + n * T])  # each position once
        assert first + n * T < stop
    source = jax.jit(datasets.source(ds, section(order="trial"), n))
    for step in range(3):  # a step is an epoch: all its windows are moved alike, and each is there once
        batch = source(ds.arrays, jax.random.key(0), jnp.int32(step))
        word = jax.random.bits(datasets.fold(jax.random.key(0), datasets.DATA, step, 1), (), jnp.uint32)
        all_ = ds.vary(ds.arrays, rows, np.full(n, word))["tokens"]
        np.testing.assert_array_equal(np.unique(np.asarray(batch["tokens"]), axis=0), np.unique(all_, axis=0))
        np.testing.assert_array_equal(batch["index"], rows)


def test_a_batch_across_two_epochs_has_the_word_of_each():
    n, size, key = 10, 4, jax.random.key(3)
    words = np.concatenate([datasets.varied(n, size)(key, jnp.int32(s)) for s in range(15)])
    assert words.dtype == np.uint32
    for epoch in range(6):
        expected = jax.random.bits(datasets.fold(key, datasets.DATA, epoch, 1), (), jnp.uint32)
        assert (words[epoch * n : (epoch + 1) * n] == expected).all()


def test_streams_go_on_where_they_ended(tmp_path):
    ds = load(tmp_path / "a.txt", PLAY)
    n, size = ds.splits["train"][1], 7
    per = n // size
    source = jax.jit(datasets.source(ds, section(order="stream"), size))
    batches = [source(ds.arrays, jax.random.key(0), jnp.int32(s)) for s in range(2 * per + 1)]
    for s, (a, b) in enumerate(zip(batches, batches[1:], strict=False), 1):
        fresh = s % per == 0
        assert b["fresh"].shape == (size,) and (np.asarray(b["fresh"]) == fresh).all()
        assert bool((a["tokens"][:, -1] == b["tokens"][:, 0]).all()) or fresh
    assert np.asarray(batches[0]["fresh"]).all()
    np.testing.assert_array_equal(batches[0]["tokens"], batches[per]["tokens"])
    np.testing.assert_array_equal(batches[0]["tokens"], ds.take(ds.arrays, np.arange(size) * per)["tokens"])
    with pytest.raises(UserError, match=f"config.batch_size = {n + 1} streams .* must not outnumber the {n} training examples"):
        datasets.source(ds, section(order="stream"), n + 1)


def test_many_texts_are_divided_whole_and_the_same_stay_together(tmp_path):
    corpus = [f"<poem {i % 150} of the moon over the river>" for i in range(300)]
    ds = load(tmp_path / "a", corpus)
    parts = module.by_content(corpus, module.SPLITS["80/10/10"])
    assert sorted(sum(parts.values(), [])) == sorted(corpus)
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not set(parts[a]) & set(parts[b])
    assert module.by_content(corpus[:200], module.SPLITS["80/10/10"])["valid"] == [t for t in corpus[:200] if t in parts["valid"]]
    ends = sum(ds.arrays["tokens"] == ds.tokenizer.end) - sum(-(len(t.encode()) + len(p)) % 8 for p in parts.values() for t in ["".join(p)])
    assert ends == 300 and ds.spec.start == ds.tokenizer.end
    letters = sum(map(len, corpus))
    assert ds.about["text"] == dict(documents=300, characters=letters, tokens=letters + 300, characters_per_token=letters / (letters + 300),
                                    tokenizer="bytes", loses="nothing")
    got = split_texts(ds)
    assert all("".join(parts[name]).startswith(got[name]) for name in parts)


def test_few_texts_are_cut_by_position():
    parts = module.by_position(["abcdef", "ghij", "klmnopqrst"], module.SPLITS["80/10/10"])
    assert parts == dict(train=["abcdef", "ghij", "klmnop"], valid=["qr"], test=["st"])


def test_characters_of_held_out_texts_have_numbers(tmp_path):
    ds = load(tmp_path / "a.txt", PLAY + CHINESE, tokenizer="characters", split="90/10")
    assert ds.tokenizer.decode(ds.tokenizer.encode(CHINESE)) == CHINESE
    words = load(tmp_path / "a.txt", tokenizer="words", split="90/10").tokenizer
    assert "秦川雄帝宅".encode() not in words.pieces


def test_cleaning(tmp_path):
    text = "Ｆｕｌｌ ﬁ E\u0301 The end\x07\x7f\x85\r\n\tof THE stop-word"
    clean = lambda **more: module.cleaner(section(**more), more.get("script", "as_is"))(text)  # noqa: E731
    assert clean() == text
    assert clean(normalize="NFC") == text.replace("E\u0301", "É") and clean(normalize="NFKC").startswith("Full fi É ")
    assert clean(normalize="NFD") == text and clean(normalize="NFKD").startswith("Full fi E\u0301 ")
    assert clean(lower=True) == text.lower()
    assert clean(control="drop").endswith("The end\n\tof THE stop-word")
    (tmp_path / "stop.txt").write_text("The\r\nword\nTHE")
    assert clean(stop_words=str(tmp_path / "stop.txt"), control="drop").endswith("  end\n\tof  stop-")
    (tmp_path / "stop.txt").write_text("THE")
    assert clean(stop_words=str(tmp_path / "stop.txt"), lower=True, control="drop").endswith("  end\n\tof  stop-word")


def test_simplified_characters_are_those_of_opencc(tmp_path, monkeypatch):
    converter = lambda name: types.SimpleNamespace(convert=lambda text: text.replace("壯", "壮") if name == "t2s" else "")  # noqa: E731
    monkeypatch.setitem(sys.modules, "opencc", types.SimpleNamespace(OpenCC=converter))
    assert "函谷壮皇居" in split_texts(load(tmp_path / "a.txt", CHINESE * 9, script="simplified"))["train"]
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(UserError, match="^config.data.script = 'simplified' needs the package opencc: pip install opencc$"):
        load(tmp_path / "a.txt", script="simplified")
    poems = tmp_path / "tang_poems"
    poems.mkdir()
    (poems / "tang_20k.txt").write_text(CHINESE * 30, "utf-8")
    (poems / "tang_20k_simplified.txt").write_text(CHINESE.replace("壯", "壮") * 30, "utf-8")
    ds = data.load(section(name="tang_poems", script="simplified"), str(tmp_path))
    assert list(ds.about["files"]) == ["tang_20k_simplified.txt"] and ds.about["text"]["documents"] == 60
    assert "壯" in ds.tokenizer.decode(data.load(section(name="tang_poems"), str(tmp_path)).arrays["tokens"])


def test_tokens_are_kept_until_something_changes(tmp_path, monkeypatch, capsys):
    calls = []
    real = tokenizers.build
    monkeypatch.setattr(tokenizers, "build", lambda *args: calls.append(args) or real(*args))
    first = load(tmp_path / "a.txt", PLAY, tokenizer="bpe", vocabulary=270)
    again = load(tmp_path / "a.txt", tokenizer="bpe", vocabulary=270)
    assert len(calls) == 1 and data.fingerprint(first) == data.fingerprint(again) and again.tokenizer.to_json() == first.tokenizer.to_json()
    assert (first.splits, first.spec, first.about) == (again.splits, again.spec, again.about) and not again.arrays["tokens"].flags.writeable
    for more in (dict(vocabulary=280), dict(length=9), dict(lower=True), dict(split="90/10"), dict(tokenizer="words")):
        load(tmp_path / "a.txt", **dict(tokenizer="bpe", vocabulary=270) | more)
    assert len(calls) == 6
    cache = cache_dir("texts")
    for bad in (lambda whole: whole[:-40], lambda whole: whole[:-1] + b"\xee", lambda whole: b""):
        for kind in ("npy", "json"):
            for path in cache.glob(f"*.{kind}"):
                path.write_bytes(bad(path.read_bytes()))
            calls.clear()
            assert data.fingerprint(load(tmp_path / "a.txt", tokenizer="bpe", vocabulary=270)) == data.fingerprint(first)
            assert len(calls) == 1 and "is damaged: tokenizing again" in capsys.readouterr().err
    assert not list(cache.glob("*.part"))
    load(tmp_path / "a.txt", PLAY + "more", tokenizer="bpe", vocabulary=270)
    assert len(calls) == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    load(tmp_path / "a.txt", PLAY)
    assert "tokens are not kept in" in capsys.readouterr().err


def test_a_file_a_directory_and_a_glob(tmp_path, monkeypatch):
    folder = tmp_path / "books"
    (folder / "inner").mkdir(parents=True)
    for name in ("b.txt", "inner/a.md", "c.html", ".hidden.txt"):
        (folder / name).write_text(PLAY + name)
    for path, names in ((folder, ["b.txt", "inner/a.md"]), (folder / "*.html", ["c.html"]), (folder / "**" / "[a-b].*", ["b.txt", "inner/a.md"]),
                        (folder / "c.html", ["c.html"])):
        ds = load(path)
        assert list(ds.about["files"]) == names and ds.about["text"]["documents"] == len(names) and ds.about["licence"] == "the user's own"
        assert ds.about["files"][names[0]] == files.file_sha256(folder / names[0])
    monkeypatch.setenv("AIGC_DATA_DIR", str(tmp_path))
    assert data.load(section(name="text", path="books")).about["text"]["documents"] == 2


def test_texts_that_are_always_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)
    pydoc = data.load(section(name="pydoc"))
    assert pydoc.about["text"]["documents"] > 70 and "statement" in split_texts(pydoc)["valid"]
    root = tmp_path / "python"
    for name in ("a.py", "json/b.py", "test/no.py", "json/tests/no.py", "site-packages/no.py", "__pycache__/no.py", "no.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"name = {name!r}\n" * 20)
    (root / "latin.py").write_bytes(b"# \xe9\n")
    real = data.load(section(name="stdlib", length=256))
    assert {"ast.py", "json/decoder.py"} <= set(real.about["files"]) and not any("test" in f.split("/")[:-1] for f in real.about["files"])
    monkeypatch.setattr(module.sysconfig, "get_path", lambda name: str(root))
    assert list(data.load(section(name="stdlib", length=4)).about["files"]) == ["a.py", "json/b.py"]


def test_real_texts(real_data):
    ds = data.load(section(name="shakespeare", tokenizer="characters", length=64, split="90/10"))
    assert ds.spec.vocabulary == 67 and ds.splits["valid"][1] == 1742 and ds.about["text"]["tokens"] == 1_115_394
    assert split_texts(ds)["train"].startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n")
    assert split_texts(ds)["valid"].startswith("?\n\nGREMIO:\nGood morrow, neighbour Baptista.\n")
    poems = data.load(section(name="tang_poems", tokenizer="characters"))
    assert poems.about["text"]["documents"] == 20_011 and poems.spec.vocabulary == 7_235 + 2
    tunes = data.load(section(name="nottingham", tokenizer="characters"))
    assert tunes.about["text"]["documents"] == 1_034 and len(tunes.about["files"]) == 14
    assert split_texts(tunes)["train"].startswith("X:")
    novel = data.load(section(name="journey_to_the_west", tokenizer="characters"))
    assert split_texts(novel)["train"].startswith("第一回：灵根育孕源流出，心性修持大道生\n") and novel.about["text"]["documents"] == 1


def test_a_text_that_is_nowhere_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AIGC_DATA_DIR", raising=False)
    for name, words in (("shakespeare", "python launch.py data --name=shakespeare --download"), ("tang_poems", "tang_20k.txt not found"),
                        ("journey_to_the_west", "set run.data_dir or AIGC_DATA_DIR"), ("nottingham", "*.abc not found")):
        with pytest.raises(UserError) as e:
            data.load(section(name=name), str(tmp_path / "b"))
        assert words in str(e.value) and str(tmp_path / "b") in str(e.value) and str(tmp_path / "tensorflow_datasets") in str(e.value)
    (tmp_path / "b" / "tiny_shakespeare").mkdir(parents=True)
    (tmp_path / "b" / "tiny_shakespeare" / "input.txt").write_text("First Citizen")
    with pytest.raises(UserError, match="input.txt is damaged .* --name=shakespeare --download"):
        data.load(section(name="shakespeare"), str(tmp_path / "b"))


def test_shakespeare_is_downloaded_when_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("AIGC_DATA_DIR", str(tmp_path))
    monkeypatch.setitem(module.SHAKESPEARE, "input.txt", hashlib.sha256(PLAY.encode()).hexdigest())

    def fetch(name, data_dir):
        os.makedirs(tmp_path / name)
        (tmp_path / name / "input.txt").write_text(PLAY)

    monkeypatch.setattr(files, "fetch", fetch)
    assert data.load(section(name="shakespeare"), download=True).about["text"]["characters"] == len(PLAY)


def test_mistakes_are_sentences(tmp_path):
    play = tmp_path / "play.txt"
    play.write_text(PLAY)
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("")
    (tmp_path / "nul.txt").write_bytes(b"ab\0c")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    for path, more, words in (
        ("", {}, "config.data.path = '' must name a file, a directory or a glob"),
        (tmp_path / "pley.txt", {}, "is no file or directory, and no glob that matches a file; did you mean 'play.txt'?"),
        (tmp_path / "*.rst", {}, "no glob that matches a file"),
        (tmp_path / "empty", {}, "has no file that ends in .txt, .md"),
        (tmp_path / "none.txt", {}, "none.txt is empty"),
        (tmp_path / "nul.txt", {}, "nul.txt is no text: it has a NUL at character 2"),
        (tmp_path / "latin.txt", {}, "latin.txt is no UTF-8 text: unexpected end of data at byte 3"),
        (play, dict(split="80/10"), "config.data.split = '80/10' is none of 80/10/10, 90/10, 80/20; did you mean '90/10'?"),
        (play, dict(tokenizer="byte"),
         "config.data.tokenizer = 'byte' is none of bytes, characters, words, chinese_words, bpe, file; did you mean 'bytes'?"),
        (play, dict(normalize="nfc"), "config.data.normalize = 'nfc' is none of NFC, NFKC, NFD, NFKD"),
        (play, dict(control="remove"), "config.data.control = 'remove' is none of keep, drop"),
        (play, dict(script="simple"), "config.data.script = 'simple' is none of as_is, simplified; did you mean 'simplified'?"),
        (play, dict(stop_words="gone.txt"), "config.data.stop_words = 'gone.txt': no such file"),
        (play, dict(length=0), "config.data.length = 0 tokens must be at least 1"),
        (play, dict(length=len(PLAY)), f"is too long: the train split has {len(PLAY) * 8 // 10:,} tokens and a window needs {2 * len(PLAY):,}"),
        (play, dict(length=len(PLAY) // 4), "is too long: the valid split has"),
        (play, dict(vocabulary=300), "config.data.vocabulary = 300 must be 0 or 258 for config.data.tokenizer = 'bytes'"),
        (play, dict(tokenizer="bpe", vocabulary=257), "config.data.vocabulary = 257 must be 0 or at least 258 for config.data.tokenizer = 'bpe'"),
        (play, dict(tokenizer="words", vocabulary=3), "config.data.vocabulary = 3 must be 0 or at least 4"),
        (play, dict(tokenizer="characters", vocabulary=-1), "config.data.vocabulary = -1 must be 0 or at least 4"),
        (play, dict(tokenizer="file"), "config.data.tokenizer_path = '' must name a tokenizer.json or a run directory"),
        (play, dict(tokenizer="file", tokenizer_path=str(tmp_path / "empty")), "tokenizer.json: no such file"),
    ):
        with pytest.raises(UserError) as e:
            load(path, **more)
        assert words in str(e.value) and "\n" not in str(e.value), str(e.value)


def test_byte_order_marks_and_crlf_are_no_words(tmp_path):
    (tmp_path / "stop.txt").write_bytes("\ufeffThe\r\nword\r\n".encode())
    clean = module.cleaner(section(stop_words=str(tmp_path / "stop.txt")), "as_is")
    assert clean("The last word") == " last "
    (tmp_path / "crlf.txt").write_bytes(("\ufeff" + PLAY.replace("\n", "\r\n")).encode())
    for name in ("bytes", "characters", "bpe"):
        ds = load(tmp_path / "crlf.txt", tokenizer=name, vocabulary=300 * (name == "bpe"))
        text = split_texts(ds)["train"]
        assert text.startswith("ROMEO:\r\n") and "\ufeff" not in text and "\r\n" in text
        assert ds.tokenizer.decode([ds.spec.start]) in ("\n", "\r\n")
    one_line = load(tmp_path / "line.txt", "\ufeff" + "abcdefgh" * 20, tokenizer="bytes")
    assert one_line.spec.start == ord("a")
    (tmp_path / "wide.txt").write_text(PLAY, "utf-16")
    with pytest.raises(UserError, match="wide.txt is UTF-16 text, as its byte order mark says"):
        load(tmp_path / "wide.txt")


def test_lines_end_at_line_feeds_alone():
    text = "a\x0cb\x85c\u2028d\r\n\ne\rf\n"
    assert input_files.split_lines(text) == ["a\x0cb\x85c\u2028d", "", "e\rf"]
    assert input_files.split_lines("") == [] and input_files.split_lines("a\nb") == ["a", "b"]


def test_poems_are_divided_at_line_feeds_alone(tmp_path):
    (tmp_path / "tang_poems").mkdir()
    poems = [f"秦川雄帝宅\u2028函谷壯皇居{i}" for i in range(60)]
    (tmp_path / "tang_poems" / "tang_20k.txt").write_bytes(("\ufeff" + "\r\n".join(poems) + "\r\n").encode())
    ds = data.load(section(name="tang_poems"), str(tmp_path))
    assert ds.about["text"]["documents"] == 60 and ds.about["text"]["characters"] == sum(map(len, poems))


def test_texts_that_are_no_regular_files_are_named(tmp_path, capsys):
    books = tmp_path / "books"
    books.mkdir()
    (books / "a.txt").write_text(PLAY)
    (tmp_path / "outside.txt").write_text(PLAY)
    os.mkfifo(books / "b.txt")
    (books / "c.txt").symlink_to(tmp_path / "outside.txt")
    for path in (books, books / "*.txt"):
        ds = load(path)
        said = capsys.readouterr().err
        assert "b.txt: is a FIFO" in said and "a.txt" in ds.about["files"] and "b.txt" not in ds.about["files"]
    assert "c.txt" in ds.about["files"]  # a glob names it, a directory only holds it
    with pytest.raises(UserError, match="stop_words = '.*b.txt' is a FIFO, and must be a regular file"):
        load(books / "a.txt", stop_words=str(books / "b.txt"))
    with pytest.raises(UserError, match="is a FIFO, and must be a regular file"):
        load(books / "a.txt", tokenizer="file", tokenizer_path=str(books / "b.txt"))
    for path in ("x" * 5000, "~nobody_of_this_name/x", "a\0b"):
        with pytest.raises(UserError, match="is no file or directory"):
            load(path)


def test_bpe_of_one_long_word_is_quick_and_of_ordinary_text_the_same():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = build("bpe", "a" * 2**20, vocabulary=270)
    assert len(tokenizer.encode("a" * 2**20)) < 2**16 and tokenizer.decode(tokenizer.encode("a" * 999)) == "a" * 999
    library = Tokenizer(models.BPE())  # as the library trains by itself
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = PLAY * 20 + CHINESE * 30
    library.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=318, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=60, show_progress=False))
    assert build("bpe", text, vocabulary=320).encode(text).tolist() == library.encode(text).ids
