"""Metrics of text against published and hand-made values; n-gram baselines."""

import math

import pytest
from helpers import script
from hypothesis import given, settings
from hypothesis import strategies as st

from aigc_jax.metrics import METRICS, text
from aigc_jax.metrics.inputs import MetricInputs

pytestmark = pytest.mark.unit

ngram = script("parts/ngram")


def test_bleu_clips_word_counts_at_those_of_the_reference():
    """Papineni et al. 2002, section 2.1: "the" seven times against "the cat is on the
    mat" has a unigram precision of 2/7.
    """
    from sacrebleu.metrics import BLEU

    score = BLEU(max_ngram_order=1).corpus_score(
        ["the the the the the the the"], [["the cat is on the mat"]]
    )
    assert score.precisions[0] == pytest.approx(100 * 2 / 7)


def test_bleu_of_equal_and_unrelated_texts_and_its_signature():
    texts = ["a dog runs through the snow", "two men are talking at a table"]
    value, signature = text.corpus_bleu(texts, texts)
    assert value == pytest.approx(100) and "tok:13a" in signature and "version:" in signature
    assert text.corpus_bleu(["x y z w v u"] * 2, texts)[0] < 3


def test_rouge_matches_published_examples():
    """Lin 2004, section 3.1: against "police killed the gunman", "police kill the
    gunman" has ROUGE-L 3/4 and "the gunman kill police" 2/4; both share one of three
    bigrams.
    """
    reference = "police killed the gunman"
    near, far = (
        text.mean_rouge([hypothesis], [reference])
        for hypothesis in ("police kill the gunman", "the gunman kill police")
    )
    assert near["rougeL"] == pytest.approx(3 / 4) and far["rougeL"] == pytest.approx(2 / 4)
    assert near["rouge2"] == far["rouge2"] == pytest.approx(1 / 3)
    assert near["rouge1"] == far["rouge1"] == pytest.approx(3 / 4)


CHINESE = ["今天天气很好，我们去公园散步。", "他昨天买了一本新书，非常有意思。"]
JAPANESE = ["今日はとても天気がいいので散歩に行きます。", "彼は昨日新しい本を買いました。"]
THAI = ["วันนี้อากาศดีมาก", "เขาซื้อหนังสือเล่มใหม่"]


@pytest.mark.parametrize(
    "texts, name",
    [
        (CHINESE, "zh"),
        (JAPANESE, "char"),
        (THAI, "char"),
        (["오늘은 날씨가 좋습니다"], "13a"),
        (["The word 天气 is Chinese for weather"], "13a"),
        ([""], "13a"),
        (["Die Tür ist offen"], "13a"),
    ],
)
def test_tokenization_follows_the_script(texts, name, monkeypatch):
    monkeypatch.setattr(text.importlib.util, "find_spec", lambda name: None)  # no MeCab
    assert text.choose_bleu_tokenization(texts) == name
    assert f"tok:{name}" in text.corpus_bleu(texts, texts)[1]


@pytest.mark.parametrize("texts", [CHINESE, JAPANESE, THAI])
def test_texts_without_spaces_are_split_into_words(texts):
    assert text.corpus_bleu(texts, texts)[0] == pytest.approx(100)
    assert text.self_bleu([texts[0]] * 2)[0] == pytest.approx(100)
    assert text.self_bleu(texts)[0] < 30
    assert text.distinct_ngram_share([texts[0]] * 2, 1) <= 0.5
    assert (
        text.mean_rouge(texts, texts)["rougeL"] == 1
        and text.mean_rouge(texts, texts[::-1])["rougeL"] < 0.5
    )


def test_chinese_bleu_matches_sacrebleu():
    """The value of `sacrebleu --tokenize zh`, and of characters counted by hand."""
    from sacrebleu import corpus_bleu

    changed = [CHINESE[0].replace("公园", "商店"), CHINESE[1]]
    value, _ = text.corpus_bleu(changed, CHINESE)
    assert value == pytest.approx(corpus_bleu(changed, [CHINESE], tokenize="zh").score)
    words = len(CHINESE[0]) + len(CHINESE[1])  # one character each
    lost = [2, 3, 4, 5]  # n-grams that contain one of two neighbouring characters
    precisions = [(words - 2 * n - lost[n]) / (words - 2 * n) for n in range(4)]
    assert value == pytest.approx(100 * math.prod(precisions) ** 0.25)


def test_rouge_tokenizes_any_script():
    """A word without its umlaut is a different word; ASCII words are those of
    rouge-score.
    """
    from rouge_score.tokenize import tokenize

    assert text.RougeTokenizer().tokenize("Die Tür, naïve_élan") == ["die", "tür", "naïve", "élan"]
    assert text.mean_rouge(["Die Tür"], ["Die T r"])["rouge1"] == pytest.approx(
        0.4
    )  # 1 of 2 and 1 of 3
    assert text.mean_rouge(["дом у моря"], ["дом у леса"])["rouge1"] == pytest.approx(2 / 3)
    for line in ("It's a dog's life, isn't it?", "a_b c-d 3.14 e2e", ""):
        assert text.RougeTokenizer().tokenize(line) == [t for t in tokenize(line, None) if t]


def test_distinct_and_self_bleu_of_known_texts():
    assert text.distinct_ngram_share(["a b a b"], 1) == 2 / 4
    assert text.distinct_ngram_share(["a b a b"], 2) == 2 / 3
    assert text.distinct_ngram_share(["aab"], 2, "characters") == 1
    assert text.distinct_ngram_share([], 1) == 0
    same = ["the dog runs home today", "the dog runs home today"]
    assert text.self_bleu(same)[0] == pytest.approx(100)
    assert text.self_bleu(["one two three four", "five six seven eight"])[0] < 1


@given(st.text("ab", max_size=12), st.text("abc", max_size=30))
@settings(max_examples=200, deadline=None)
def test_longest_copy_equals_exhaustive_search(piece, corpus):
    runs = [piece[i:j] for i in range(len(piece)) for j in range(i + 1, len(piece) + 1)]
    assert text.longest_copy_length(piece, corpus) == max(
        (len(run) for run in runs if run in corpus), default=0
    )


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_n_gram_probabilities_sum_to_one(order):
    """After contexts that occur, do not occur and partly occur in the training text."""
    ids = [0, 1, 2, 0, 1, 3, 0, 1, 2, 2, 1, 0, 4, 4, 1, 2] * 3
    model = ngram.KneserNey(ids, 7, order)
    for context in ((), (0,), (0, 1), (5, 6), (4, 0, 1), (1, 2, 0, 1), (6, 0, 1, 2)):
        p = [model.probability(context[-(order - 1) :] if order > 1 else (), s) for s in range(7)]
        assert sum(p) == pytest.approx(1, abs=1e-12) and min(p) > 0


def test_n_grams_learn_a_deterministic_sequence():
    assert ngram.bits_per_character("abcd" * 500, "abcd" * 20, 3) < 0.2
    # four symbols in an unknown order: two bits each
    assert ngram.bits_per_character("abcd" * 500, "dcba" * 20, 3) > 1.9


def test_text_metrics_compare_with_references_of_the_split():
    texts = ["a dog runs through the snow", "two men are talking at a table", "not asked for"]
    real = dict(tokens=texts[:2])
    drawn = lambda answers: MetricInputs(
        lambda what: texts if what == "reference" else answers,
        "test",
        lambda split: real,
        None,
        None,
    )
    right, wrong = (
        METRICS["bleu"](drawn(answers))["bleu"]
        for answers in ([*texts[:2], "again"], ["x y z w"] * 3)
    )
    assert right == pytest.approx(100) and wrong < 5
    assert METRICS["rouge"](drawn(texts))["rougeL"] == pytest.approx(1)
    assert METRICS["bleu_greedy"](drawn(texts))["bleu_greedy"] == pytest.approx(100)
    assert METRICS["variety"](drawn(["a b", "a b"]))["distinct_1"] == 0.5


@pytest.mark.parametrize("texts, name", [(CHINESE, "zh"), (["a dog runs", "a cat sits"], "13a")])
def test_word_metrics_carry_the_tokenization_of_their_texts(texts, name):
    """The tokenization follows the script; ROUGE has only one."""
    inputs = MetricInputs(lambda what: texts, "test", lambda split: dict(tokens=texts), None, None)
    for metric in ("bleu", "bleu_greedy", "variety"):
        found = METRICS[metric](inputs)
        signature = found.pop(f"{metric}_signature")
        assert f"tok:{name}" in signature and all(
            isinstance(value, float) for value in found.values()
        )
    assert METRICS["rouge"](inputs).keys() == {"rouge1", "rouge2", "rougeL"}
