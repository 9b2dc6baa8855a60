"""Tokenizers: round trips, streaming, training, serialization."""

import json
import sys
import time
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import ALL, CHINESE, PLAY, build, load

from aigc_jax.data import tokenizers
from aigc_jax.data.tokenizers import splitters
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("own_cache")]

ODD = [
    "",
    "\x00",
    "\r\n",
    "\n\n\n  \n\t\t ",
    "  two  spaces ",
    "<|endoftext|><|mask|>",
    "\ufffd\ufeff",
    "e\u0301é",
    "👩\u200d👩\u200d👧 🇨🇳",
    "it's we'LL",
    "a" * 300,
    CHINESE,
]
quick = settings(max_examples=60, deadline=None, database=None)
texts = st.text() | st.lists(
    st.sampled_from([*ODD, "the ", "。", " 秦川", "é", "\n", "🙂"]), max_size=8
).map("".join)


@pytest.mark.parametrize("name", ["bytes", "bpe"])
@quick
@given(text=texts)
def test_bytes_and_bpe_are_lossless(name, text):
    tokenizer = ALL[name]
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32 and ids.ndim == 1 and ids.max(initial=0) < tokenizer.end
    assert tokenizer.decode(ids) == text and tokenizer.decode_bytes(ids) == text.encode()
    characters, sizes = tokenizer.token_sizes[ids].astype(int).sum(0)
    assert (characters, sizes) == (len(text), len(text.encode()))


@pytest.mark.parametrize(
    "name, alphabet",
    [
        ("characters", sorted(set(PLAY + CHINESE))),
        ("all words", [*PLAY.split(), " ", "\n", " the", ", ", "。"]),
    ],
)
@quick
@given(draw=st.data())
def test_known_text_round_trips(name, alphabet, draw):
    tokenizer = ALL[name]
    text = "".join(draw.draw(st.lists(st.sampled_from(alphabet))))
    ids = tokenizer.encode(text)
    if tokenizer.unknown not in ids:
        assert tokenizer.decode(ids) == text
        assert tokenizer.token_sizes[ids].astype(int).sum(0).tolist() == [
            len(text),
            len(text.encode()),
        ]
    else:
        assert name == "all words"  # concatenated words form unknown ones


@pytest.mark.parametrize("name", ALL)
@quick
@given(ids=st.data())
def test_stream_equals_decode(name, ids):
    tokenizer = ALL[name]
    ids = ids.draw(st.lists(st.lists(st.integers(0, tokenizer.size - 1), max_size=5), max_size=8))
    stream = tokenizer.make_stream_decoder()
    assert "".join([*map(stream, ids), stream([], True)]) == tokenizer.decode(sum(ids, []))


def test_stream_buffers_incomplete_characters():
    stream = ALL["bytes"].make_stream_decoder()
    assert [stream([i]) for i in "秦a".encode()] == ["", "", "秦", "a"]
    assert ALL["bytes"].decode(list("秦".encode())[:2]) == "\ufffd"


@pytest.mark.parametrize("name", ALL)
def test_text_never_encodes_to_special_tokens(name):
    tokenizer = ALL[name]
    assert (tokenizer.end, tokenizer.mask) == (tokenizer.size - 2, tokenizer.size - 1) and len(
        tokenizer.pieces
    ) == tokenizer.size
    assert (
        tokenizer.decode([tokenizer.end, tokenizer.mask]) == ""
        and not tokenizer.token_sizes[-2:].any()
        and tokenizer.token_sizes.dtype == np.uint8
    )
    for text in ODD:
        try:
            assert tokenizer.encode(text).max(initial=0) < tokenizer.end
        except UserError as e:
            assert (
                name == "characters"
                and "is none of the tokenizer's" in str(e)
                and "\n" not in str(e)
            )


@pytest.mark.parametrize("name", ALL)
def test_tokenizer_json_round_trip(name):
    tokenizer = ALL[name]
    again = tokenizers.from_json(tokenizer.to_json())
    assert (
        again.to_json() == tokenizer.to_json()
        and again.sha256 == tokenizer.sha256
        and again.pieces == tokenizer.pieces
    )
    assert (again.kind, again.size, again.unknown, again.loses) == (
        tokenizer.kind,
        tokenizer.size,
        tokenizer.unknown,
        tokenizer.loses,
    )
    np.testing.assert_array_equal(again.encode(PLAY + CHINESE), tokenizer.encode(PLAY + CHINESE))
    assert len({t.sha256 for t in ALL.values()}) == len(ALL)


def test_bpe_is_deterministic_and_compresses():
    tokenizer = build("bpe", vocabulary=300)
    assert tokenizer.to_json() == ALL["bpe"].to_json() and tokenizer.size == 300
    assert (
        len(tokenizer.encode(PLAY)) < len(PLAY) * 0.6
        and max(map(len, build("bpe", "=" * 5000 + "\n").pieces)) <= splitters.LONGEST
    )


def test_vocabulary_limit_selects_the_most_frequent():
    tokenizer = build("characters", "aaabbc", vocabulary=5)
    assert tokenizer.pieces == [b"a", b"b", "\ufffd".encode(), b"", b""] and tokenizer.unknown == 2
    assert (
        tokenizer.encode("abz").tolist() == [0, 1, 2]
        and tokenizer.decode([0, 2]) == "a\ufffd"
        and tokenizer.token_sizes[2].tolist() == [1, 1]
    )
    assert tokenizer.loses == "characters other than its 2, which become <unk>"
    tokenizer = build("words", "so so so it is, it is", vocabulary=6)
    assert (
        tokenizer.pieces[:-3] == [b" is", b" it", b" so"]
        and tokenizer.decode(tokenizer.encode("so it is")) == "\ufffd it is"
    )
    assert ALL["characters"].loses.endswith("which are refused") and ALL["bpe"].loses == "nothing"


def test_lone_surrogates_become_question_marks():
    for name in ("bytes", "bpe"):
        assert ALL[name].decode(ALL[name].encode("a\ud800b")) == "a?b"


def test_a_million_characters_encode_within_a_second():
    text, tokenizer = (PLAY * 1000)[:1_000_000], ALL["characters"]
    before = time.perf_counter()
    assert len(tokenizer.encode(text)) == 1_000_000 and time.perf_counter() - before < 1


def test_chinese_words_use_jieba(monkeypatch):
    class Segmenter:
        def cut(self, text):
            return (text[i : i + 2] for i in range(0, len(text), 2))

    splitters.import_jieba_cut.cache_clear()
    monkeypatch.setitem(
        sys.modules,
        "jieba",
        types.SimpleNamespace(setLogLevel=lambda level: None, Tokenizer=Segmenter),
    )
    tokenizer = build("chinese_words", CHINESE)
    assert (
        tokenizer.kind == "chinese_words"
        and "秦川".encode() in tokenizer.pieces
        and tokenizer.decode(tokenizer.encode(CHINESE)) == CHINESE
    )
    splitters.import_jieba_cut.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(
        UserError,
        match="^config.data.tokenizer = 'chinese_words' needs the package jieba: pip install "
        "jieba$",
    ):
        build("chinese_words", CHINESE)


def test_invalid_tokenizer_files_are_refused(tmp_path):
    plain = json.loads(ALL["bpe"].to_json())
    path = tmp_path / "tokenizer.json"
    wrong = [
        dict(kind="pickle"),
        plain | dict(known=plain["known"][1:]),
        plain | dict(known=plain["known"] * 2),
        plain | dict(merges=[["q", "qq"]]),
        dict(kind="characters", known=["ab"], unknown=False),
        dict(kind="words", known=[1]),
    ]
    good = documents.encode(path, plain)
    for bad in (
        b"",
        b"[]",
        good[:-9],
        good.replace(b'"bpe"', b'"bqe"'),
        *(documents.encode(path, value) for value in wrong),
    ):
        path.write_bytes(bad)
        with pytest.raises(UserError, match="tokenizer.json is damaged: ") as e:
            tokenizers.read(path)
        assert "\n" not in str(e.value)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="is damaged"):
        tokenizers.read(path)
    with pytest.raises(
        UserError, match="tokeniser.json: no such file; did you mean 'tokenizer.json'"
    ):
        tokenizers.read(tmp_path / "tokeniser.json")


def test_tokenizer_loads_from_a_file_or_a_run(tmp_path):
    (tmp_path / "run" / "assets").mkdir(parents=True)
    path = tmp_path / "run" / "assets" / "tokenizer.json"
    tokenizers.write(path, ALL["bpe"])
    for given_ in (path, tmp_path / "run"):
        ds = load(tmp_path / "a.txt", PLAY, tokenizer="file", tokenizer_path=str(given_))
        assert ds.tokenizer.sha256 == ALL["bpe"].sha256 and ds.about["text"]["tokenizer"] == "bpe"


def test_bpe_trains_on_one_long_word_and_matches_the_library():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = build("bpe", "a" * 2**20, vocabulary=270)
    assert (
        len(tokenizer.encode("a" * 2**20)) < 2**16
        and tokenizer.decode(tokenizer.encode("a" * 999)) == "a" * 999
    )
    library = Tokenizer(models.BPE())  # trained by the library alone
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = PLAY * 20 + CHINESE * 30
    library.train_from_iterator(
        [text],
        trainers.BpeTrainer(
            vocab_size=318,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=60,
            show_progress=False,
        ),
    )
    assert build("bpe", text, vocabulary=320).encode(text).tolist() == library.encode(text).ids
