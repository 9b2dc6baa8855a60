"""Metrics of texts: agreement with references (BLEU, ROUGE), and repetition within
texts, between texts, or of a corpus.
"""

import importlib.util
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs

# Scripts without spaces between words: (first, last) code points.
KANA = ((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D))
HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
# Thai, Lao, Tibetan, Burmese, Khmer
OTHERS = ((0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF))


def is_in_ranges(character: str, ranges: Iterable[tuple[int, int]]) -> bool:
    """Return whether a character is in one of the ranges (first, last) of code
    points.
    """
    return any(low <= ord(character) <= high for low, high in ranges)


def choose_bleu_tokenization(texts: list[str]) -> str:  # "13a", "zh", "ja-mecab" or "char"
    """Return the name of sacrebleu's tokenization for the script of most letters.

    It is "zh" for Chinese; for Japanese (more than a tenth of the letters kana)
    "ja-mecab" if its optional packages are installed, else "char"; "char" for other
    scripts without spaces between words; and the default "13a" otherwise.
    """
    letters = [c for text in texts for c in text if c.isalpha()]
    count = lambda ranges: sum(is_in_ranges(c, ranges) for c in letters)
    kana, han, others = count(KANA), count(HAN), count(OTHERS)
    if 2 * (kana + han + others) <= len(letters):
        return "13a"
    if 10 * kana > kana + han:
        has_mecab = all(importlib.util.find_spec(name) for name in ("MeCab", "ipadic"))
        return "ja-mecab" if has_mecab else "char"
    return "zh" if han > others else "char"


def make_bleu(texts: list[str], **options: Any) -> Any:  # sacrebleu.metrics.BLEU
    """Return sacrebleu's BLEU with the tokenization for the script of the texts.

    Args:
      texts: texts whose script selects the tokenization.
      **options: further arguments of sacrebleu's BLEU, such as effective_order.
    """
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=choose_bleu_tokenization(texts), **options)


def corpus_bleu(
    hypotheses: list[str], references: list[str]
) -> tuple[float, str]:  # percent, sacrebleu's signature
    """Return corpus BLEU in percent with one reference each (Papineni et al. 2002), and
    its signature, without which values are not comparable.

    Both are sacrebleu's (Post 2018), with the tokenization for the script of the
    references (`choose_bleu_tokenization`).

    Args:
      hypotheses: generated texts.
      references: a reference for each.
    """
    metric = make_bleu(references)
    score = metric.corpus_score(hypotheses, [references])
    return score.score, str(metric.get_signature())


class RougeTokenizer:
    """A tokenizer for rouge-score: lower-case runs of letters, digits and marks of any
    script. A letter of a script without spaces is a word. For ASCII it is equivalent to
    rouge-score's own tokenizer.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text, after normalization to NFC."""
        text = unicodedata.normalize("NFC", text).lower()
        spaced = (f" {c} " if is_in_ranges(c, KANA + HAN + OTHERS) else c for c in text)
        characters = (c if unicodedata.category(c)[0] in "LNM" else " " for c in "".join(spaced))
        return "".join(characters).split()


def mean_rouge(
    hypotheses: list[str], references: list[str]
) -> dict[str, float]:  # rouge1, rouge2, rougeL in [0, 1]
    """Return ROUGE-1, -2 and -L (Lin 2004): the mean F-measures in [0, 1] of shared
    words, shared pairs of words, and the longest common subsequence.

    Computed by the rouge-score package without stemming, with `RougeTokenizer`.

    Args:
      hypotheses: generated texts.
      references: a reference for each.
    """
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, use_stemmer=False, tokenizer=RougeTokenizer())
    pairs = zip(hypotheses, references, strict=True)
    scores = [scorer.score(reference, hypothesis) for hypothesis, reference in pairs]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) for name in names}


def list_ngrams(text: str, n: int, unit: str = "words") -> list[tuple]:
    """Return all n-grams of a text, in their order.

    Args:
      text: a text.
      n: number of words or characters of an n-gram.
      unit: "words", separated by white space, or "characters".
    """
    parts = text.split() if unit == "words" else text
    return [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]


def separate_words(texts: list[str]) -> list[str]:  # with spaces between words
    """Return the texts with spaces between words: scripts without spaces are tokenized
    as for BLEU, other texts are unchanged.
    """
    if choose_bleu_tokenization(texts) == "13a":
        return texts
    return list(map(make_bleu(texts).tokenizer, texts))


def distinct_ngram_share(texts: list[str], n: int, unit: str = "words") -> float:  # in [0, 1]
    """Return the number of distinct n-grams divided by the number of all n-grams of all
    texts (Li et al. 2016, section 5.2): 1 without repetitions.

    Args:
      texts: texts, of any script.
      n: number of words or characters of an n-gram.
      unit: "words" (`separate_words`) or "characters".
    """
    texts = separate_words(texts) if unit == "words" else texts
    counts = Counter(gram for text in texts for gram in list_ngrams(text, n, unit))
    return len(counts) / max(sum(counts.values()), 1)


def self_bleu(texts: list[str]) -> tuple[float, str]:  # mean percent, sacrebleu's signature
    """Return the mean BLEU-4 in percent of each text with all others as its references
    (Zhu et al. 2018, section 3), 100 for identical texts, and sacrebleu's signature.
    """
    metric = make_bleu(texts, effective_order=True)
    others = (texts[:i] + texts[i + 1 :] for i in range(len(texts)))
    scores = [metric.sentence_score(*pair).score for pair in zip(texts, others, strict=True)]
    return float(np.mean(scores)), str(metric.get_signature())


def longest_copy_length(text: str, corpus: str) -> int:  # characters
    """Return the length in characters of the longest substring of a text that occurs in
    the corpus.

    Each start is tested only for substrings longer than the best so far, so that the
    number of searches is linear in the length of the text.
    """
    best, i = 0, 0
    while i + best < len(text):
        while i + best < len(text) and text[i : i + best + 1] in corpus:
            best += 1
        i += 1
    return best


# -- Metrics of a run: MetricInputs -> {name: float, "{metric}_signature": str}, on the
# split's examples in the order of `permute_fixed`.


def draw_answers_and_references(
    inputs: MetricInputs, sampler: str = "answer"
) -> tuple[list[str], list[str]]:  # answers, references
    """Return a method's answers to distinct examples of the split, and the references:
    targets of pairs, or the second halves of windows of a text.

    Args:
      inputs: inputs of a method on texts.
      sampler: the sampler that answers: "answer" or "greedy".
    """
    count = len(inputs.real_examples["tokens"])
    return inputs.draw(sampler)[:count], inputs.draw("reference")[:count]


def bleu_of_answers(
    inputs: MetricInputs,
) -> dict[str, float | str]:  # bleu in percent, bleu_signature
    """BLEU in percent of the method's answers, by beam search for encoder-decoders."""
    value, signature = corpus_bleu(*draw_answers_and_references(inputs))
    return dict(bleu=value, bleu_signature=signature)


def bleu_of_greedy(
    inputs: MetricInputs,
) -> dict[str, float | str]:  # bleu_greedy in percent, bleu_greedy_signature
    """BLEU in percent of the method's answers, by greedy decoding."""
    value, signature = corpus_bleu(*draw_answers_and_references(inputs, "greedy"))
    return dict(bleu_greedy=value, bleu_greedy_signature=signature)


def rouge_of_answers(inputs: MetricInputs) -> dict[str, float]:  # rouge1, rouge2, rougeL
    """ROUGE-1, -2 and -L of the method's answers: mean F-measures in [0, 1]."""
    return mean_rouge(*draw_answers_and_references(inputs))


def text_variety(
    inputs: MetricInputs,
) -> dict[str, float | str]:  # distinct_1, distinct_2, self_bleu in percent, variety_signature
    """distinct-1 and -2 of words, and self-BLEU of at most 100 unconditional texts."""
    texts = inputs.draw("text")
    value, signature = self_bleu(texts[:100])
    return dict(
        distinct_1=distinct_ngram_share(texts, 1),
        distinct_2=distinct_ngram_share(texts, 2),
        self_bleu=value,
        variety_signature=signature,
    )
