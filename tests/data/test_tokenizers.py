"""Tokenizers: round trips, streaming, training, files."""

import json
import sys
import time
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import ALL, CHINESE, PLAY, build, load

from aigc_jax.data.tokenizers import chinese, huggingface, segments
from aigc_jax.data.tokenizers.base import from_files
from aigc_jax.utils import documents
from aigc_jax.utils.errors import FormatError, UserError

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
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.pieces[i] for i in ids) == text.encode()
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
def test_tokenizer_files_round_trip(name):
    tokenizer = ALL[name]
    again = from_files(tokenizer.files)
    assert (
        again.files == tokenizer.files
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
    assert tokenizer.files == ALL["bpe"].files and tokenizer.size == 300
    assert (
        len(tokenizer.encode(PLAY)) < len(PLAY) * 0.6
        and max(map(len, build("bpe", "=" * 5000 + "\n").pieces)) <= segments.LONGEST
    )


def test_vocabulary_limit_selects_the_most_frequent():
    tokenizer = build("characters", "aaabbc", vocabulary=5)
    assert tokenizer.pieces == [b"a", b"b", b"<unk>", b"", b""] and tokenizer.unknown == 2
    assert (
        tokenizer.encode("abz").tolist() == [0, 1, 2]
        and tokenizer.decode([0, 2]) == "a<unk>"
        and tokenizer.token_sizes[2].tolist() == [1, 1]
    )
    assert tokenizer.loses == "what its 5 tokens lack, which becomes <unk>"
    tokenizer = build("words", "so so so it is, it is", vocabulary=6)
    assert (
        tokenizer.pieces[:-3] == [b" is", b" it", b" so"]
        and tokenizer.decode(tokenizer.encode("so it is")) == "<unk> it is"
    )
    assert ALL["characters"].loses.endswith("which is refused") and ALL["bpe"].loses == "nothing"


def test_lone_surrogates_become_question_marks():
    for name in ("bytes", "bpe"):
        assert ALL[name].decode(ALL[name].encode("a\ud800b")) == "a?b"


def test_a_million_characters_encode_within_seconds():
    text, tokenizer = (PLAY * 1000)[:1_000_000], ALL["characters"]
    before = time.perf_counter()
    assert len(tokenizer.encode(text)) == 1_000_000 and time.perf_counter() - before < 10


@pytest.mark.parametrize("name", ALL)
@quick
@given(text=texts)
def test_division_of_a_text_preserves_its_tokens(name, text):
    """Long texts are encoded in segments; here they have three characters or more."""
    tokenizer = ALL[name]
    parts = list(segments.divide_text(text, 3))
    assert "".join(parts) == text
    assert segments.has_separable_words(tokenizer.contents) == (
        tokenizer.contents["normalizer"] is None
    )
    if tokenizer.contents["normalizer"]:  # texts are not divided
        return
    try:
        expected = tokenizer.encode(text).tolist()
    except UserError:
        return
    assert np.concatenate(tokenizer.encode_batch(parts)).tolist() == expected


def test_texts_of_a_batch_have_their_own_tokens():
    texts = [PLAY * 30, "", PLAY]
    for tokenizer in ALL.values():
        for ids, text in zip(tokenizer.encode_batch(texts), texts, strict=True):
            np.testing.assert_array_equal(ids, tokenizer.encode(text))
    assert ALL["words"].encode_batch([]) == []


def without_specials(text):
    """Other programs encode the names of special tokens as these tokens."""
    return text.replace("<|endoftext|>", "").replace("<|mask|>", "")


@pytest.mark.parametrize("name", ALL)
def test_the_tokenizers_library_gives_the_same_ids_and_texts(name, tmp_path):
    from tokenizers import Tokenizer as Library

    tokenizer = ALL[name]
    huggingface.write(tmp_path, tokenizer)
    check_same(tokenizer, Library.from_file(str(tmp_path / "tokenizer.json")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_transformers_gives_the_same_ids_and_texts(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = ALL[name]
    huggingface.write_for_transformers(tmp_path, tokenizer)
    plain = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    found = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (found.eos_token_id, found.mask_token_id) == (tokenizer.end, tokenizer.mask)
    assert len(found) == len(plain) == tokenizer.size
    for other in (plain, found):
        check_same(tokenizer, other.backend_tokenizer)
        ids = tokenizer.encode(PLAY).tolist()
        assert other(PLAY)["input_ids"] == ids
        assert other.decode(ids) == tokenizer.decode(ids)
        assert other.decode([*ids, tokenizer.end], skip_special_tokens=True) == tokenizer.decode(
            [*ids, tokenizer.end]
        )


def check_same(tokenizer, library):
    """Compare with another program's tokenizer of the same file."""
    assert library.get_vocab_size() == tokenizer.size
    for text in map(without_specials, [*ODD, PLAY]):
        try:
            ids = tokenizer.encode(text).tolist()
        except UserError:
            with pytest.raises(Exception, match="UNK"):
                library.encode(text)
            continue
        assert library.encode(text).ids == ids and library.decode(ids) == tokenizer.decode(ids)


class Segmenter:
    """Has the interface of jieba.Tokenizer, and makes words of two characters."""

    def cut(self, text):
        return (text[i : i + 2] for i in range(0, len(text), 2))


@pytest.fixture
def jieba(monkeypatch):
    """A package jieba of these words."""
    module = types.SimpleNamespace(setLogLevel=lambda level: None, Tokenizer=Segmenter)
    chinese.import_jieba_cut.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", module)
    yield
    chinese.import_jieba_cut.cache_clear()


def test_chinese_words_are_the_longest_matches(jieba, monkeypatch):
    tokenizer = build("chinese_words", "秦川雄帝宅，秦川雄。")
    assert tokenizer.kind == "WordPiece" and tokenizer.decode(tokenizer.encode(CHINESE[:5]))
    words = lambda text: [tokenizer.pieces[i].decode() for i in tokenizer.encode(text)]
    assert words("秦川雄帝宅。") == ["秦川", "雄帝", "宅", "。"]
    assert words("川秦川宅雄帝") == ["川", "秦川", "宅", "雄帝"]
    # one unknown character is one token, also within a run
    assert words("秦川x雄帝☃\n") == ["秦川", "<unk>", "雄帝", "<unk>", "<unk>"]
    assert tokenizer.token_sizes[tokenizer.encode("秦川雄帝")].tolist() == [[2, 6]] * 2
    run = "秦川" * 100
    assert tokenizer.decode(tokenizer.encode(run)) == run
    monkeypatch.setitem(sys.modules, "jieba", None)  # not needed for use
    chinese.import_jieba_cut.cache_clear()
    again = from_files(tokenizer.files)
    np.testing.assert_array_equal(again.encode(CHINESE), tokenizer.encode(CHINESE))


def test_chinese_vocabulary_has_characters_before_words(jieba):
    text = "一二一二三三三四四四" * 3 + "一二"
    assert build("chinese_words", text, vocabulary=5).pieces[:2] == ["三".encode(), "四".encode()]
    all_of_them = build("chinese_words", text, vocabulary=9)
    assert [piece.decode() for piece in all_of_them.pieces[:6]] == [*"三四一二", "一二", "三三"]


def test_agreement_with_jieba_counts_words_and_boundaries(jieba):
    """jieba: 秦川|雄帝|宅秦|川, longest match: 秦川|雄帝|宅|秦川, which share two of
    four words and two of three boundaries between them.
    """
    tokenizer = build("chinese_words", "秦川雄帝" * 2 + "宅")
    said = chinese.compare_with_jieba(tokenizer, ["秦川雄帝宅秦川"])
    assert said == (
        "of jieba's 4 words in the held-out text, longest match finds 50.0%, and 66.7% of the "
        "boundaries between them; of its own 4 words, 50.0% are jieba's"
    )


def test_agreement_with_jieba_is_reported_also_from_the_cache(jieba, tmp_path, capsys):
    for _ in range(2):
        ds = load(tmp_path / "a.txt", CHINESE * 20, tokenizer="chinese_words")
        assert "of jieba's" in ds.about["text"]["difference"]
    assert capsys.readouterr().err.count("chinese_words: of jieba's") == 1


def test_chinese_words_need_jieba_to_be_fit(monkeypatch):
    chinese.import_jieba_cut.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(
        UserError,
        match="^config.data.tokenizer = 'chinese_words' needs the package jieba: pip install "
        "jieba$",
    ):
        build("chinese_words", CHINESE)


def test_invalid_tokenizer_files_are_refused(tmp_path):
    plain = json.loads(ALL["bpe"].json)
    path = tmp_path / "tokenizer.json"
    vocabulary, merges = plain["model"]["vocab"], plain["model"]["merges"]
    split = dict(type="Split", pattern=dict(Regex="(a+)+$"), behavior="Isolated", invert=False)
    replace = dict(type="Replace", pattern=dict(String="a"), content="aa")
    model = lambda **more: plain | dict(model=plain["model"] | more)
    cases = {
        "": "",
        "[]": "",
        ALL["bpe"].json[:-9]: "",
        '{"model": ' * 10_000: "",
        json.dumps(plain | dict(kind="x")): "",
        json.dumps(model(type="Pickle")): "",
        json.dumps(model(vocab={})): "",
        json.dumps(model(vocab=vocabulary | {"Zz": 10**9})): "its token ids have gaps",
        json.dumps(model(merges=[*merges, ["q", "qq"]])): "",
        json.dumps(model(dropout=0.5)): "dropout = 0.5: it omits merges at random",
        json.dumps(plain | dict(pre_tokenizer=split | dict(pattern=dict(Regex="(")))): "",
        json.dumps(plain | dict(normalizer=dict(type="Sequence", normalizers=[replace] * 40))): (
            "its normalizer may replace a character by"
        ),
        json.dumps(plain | dict(decoder=dict(type="Sequence", decoders=[replace] * 40))): (
            "its decoder may replace a character by"
        ),
        json.dumps(dict(format=1, kind="bpe", sha256="x")): "has format 1, and this version",
    }
    for text, words in cases.items():
        path.write_text(text)
        with pytest.raises(UserError, match=words or "cannot be used as a tokenizer") as e:
            huggingface.read(path)
        assert "\n" not in str(e.value) and "tokenizer.json" in str(e.value)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="is not UTF-8"):
        huggingface.read(path)
    with pytest.raises(
        UserError, match="tokeniser.json: no such file; did you mean 'tokenizer.json'"
    ):
        huggingface.read(tmp_path / "tokeniser.json")


def test_failures_of_a_pattern_are_one_line_errors(tmp_path, capfd):
    """The library's patterns give up after a number of trials, by a panic of Rust."""
    plain = json.loads(ALL["bpe"].json)
    split = dict(type="Split", pattern=dict(Regex="(a+)+$"), behavior="Isolated", invert=False)
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain | dict(pre_tokenizer=split)))
    tokenizer = huggingface.read(tmp_path)
    with pytest.raises(UserError, match="^the tokenizer cannot encode the text: .*limit") as e:
        tokenizer.encode("a" * 3000 + "c")
    assert "\n" not in str(e.value)


def test_word_pieces_of_long_words_are_refused(tmp_path):
    """The time of WordPiece grows with the square of a word's length."""
    path = tmp_path / "tokenizer.json"
    model = dict(type="WordPiece", vocab={"a": 0, "[UNK]": 1}, unk_token="[UNK]")
    model |= dict(continuing_subword_prefix="##", max_input_chars_per_word=10**9)
    path.write_text(json.dumps(json.loads(ALL["bpe"].json) | dict(model=model, added_tokens=[])))
    with pytest.raises(UserError, match="max_input_chars_per_word = 1,000,000,000 must be at"):
        huggingface.read(path)


def test_tokenizer_loads_from_a_file_or_a_run(tmp_path):
    """Of a run, the files must be those that its config.json names."""
    run = tmp_path / "run"
    path = run / "assets" / "tokenizer.json"
    huggingface.write(path.parent, ALL["bpe"])
    config = dict(identity_version=1, hash="", changes={}, data="", config={})
    config["spec"] = dict(kind="text", shape=[1], n_train=1)
    for stored in (False, True):
        if stored:
            config["tokenizer"] = ALL["bpe"].sha256
            documents.write(run / "config.json", config)
        for given_ in (path, path.parent, run):
            ds = load(tmp_path / "a.txt", PLAY, tokenizer="file", tokenizer_path=str(given_))
            assert ds.tokenizer.sha256 == ALL["bpe"].sha256
            assert ds.about["text"]["tokenizer"] == "file"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        huggingface.write(path.parent, ALL["bpe"])
        file = path.parent / name
        file.write_text(file.read_text().replace("endoftext", "endofText"))
        for given_ in (path, path.parent, run):
            with pytest.raises(UserError, match="restore it from a copy") as e:
                huggingface.read(given_)
            assert "\n" not in str(e.value)
    path.write_text(json.dumps(dict(format=1, kind="bpe", sha256="x")))
    with pytest.raises(FormatError, match="tokenizer.json has format 1"):
        huggingface.read(run)


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
