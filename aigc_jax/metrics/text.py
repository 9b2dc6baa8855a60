"""Metrics of texts: against references (BLEU, ROUGE), and of how much texts repeat
themselves, one another or a corpus.
"""

import importlib.util
import unicodedata
from collections import Counter

import numpy as np

# Scripts that write words without blanks between them: (first, last) code points.
KANA = ((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D))
HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
# Thai, Lao, Tibetan, Burmese, Khmer
OTHERS = ((0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF))


def is_in(character: str, ranges) -> bool:
    """Whether a character is of one of the ranges of code points."""
    return any(low <= ord(character) <= high for low, high in ranges)


def choose_tokenization(texts: list[str]) -> str:
    """The name of sacrebleu's tokenization for the script of most letters: "zh" for
    Chinese, "ja-mecab" for Japanese (a tenth of its letters kana) where its optional
    packages are installed, else "char" as for other scripts without blanks between
    words; "13a", the default, for the rest.
    """
    letters = [c for text in texts for c in text if c.isalpha()]
    count = lambda ranges: sum(is_in(c, ranges) for c in letters)
    kana, han, others = count(KANA), count(HAN), count(OTHERS)
    if 2 * (kana + han + others) <= len(letters):
        return "13a"
    if 10 * kana > kana + han:
        has_mecab = all(importlib.util.find_spec(name) for name in ("MeCab", "ipadic"))
        return "ja-mecab" if has_mecab else "char"
    return "zh" if han > others else "char"


def make_bleu(texts: list[str], **options):
    """sacrebleu's BLEU for the script of the texts."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=choose_tokenization(texts), **options)


def bleu(hypotheses: list[str], references: list[str]) -> tuple[float, str]:
    """Corpus BLEU in percent, one reference each (Papineni et al. 2002), and its
    signature, without which no two values can be compared: sacrebleu's (Post 2018), its
    tokenization chosen by the references' script (`choose_tokenization`).
    """
    metric = make_bleu(references)
    score = metric.corpus_score(hypotheses, [references])
    return score.score, str(metric.get_signature())


class Words:
    """The tokenizer that rouge-score is given: lower-case runs of letters, digits and
    marks of any script; a letter of a script without blanks is a word. Of ASCII it is
    rouge-score's own.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text, after normalization to NFC."""
        text = unicodedata.normalize("NFC", text).lower()
        spaced = (f" {c} " if is_in(c, KANA + HAN + OTHERS) else c for c in text)
        kept = (c if unicodedata.category(c)[0] in "LNM" else " " for c in "".join(spaced))
        return "".join(kept).split()


def rouge(hypotheses: list[str], references: list[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L (Lin 2004): the mean F-measure in [0, 1] of shared words,
    shared pairs of words, and the longest common subsequence, by the rouge-score
    package with stemming off and the words of any script (`Words`).
    """
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, use_stemmer=False, tokenizer=Words())
    pairs = zip(hypotheses, references, strict=True)
    scores = [scorer.score(reference, hypothesis) for hypothesis, reference in pairs]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) for name in names}


def grams(text: str, n: int, unit: str = "words") -> list[tuple]:
    """The runs of n words (separated by blanks) or characters of a text."""
    parts = text.split() if unit == "words" else text
    return [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]


def split_words(texts: list[str]) -> list[str]:
    """The texts with blanks between words: of scripts without them as BLEU divides
    them, of others as they are.
    """
    if choose_tokenization(texts) == "13a":
        return texts
    return list(map(make_bleu(texts).tokenizer, texts))


def distinct(texts: list[str], n: int, unit: str = "words") -> float:
    """Different n-grams divided by all n-grams of the texts together (Li et al. 2016,
    section 5.2): 1 where none comes twice.
    """
    texts = split_words(texts) if unit == "words" else texts
    counts = Counter(gram for text in texts for gram in grams(text, n, unit))
    return len(counts) / max(sum(counts.values()), 1)


def self_bleu(texts: list[str]) -> tuple[float, str]:
    """The mean BLEU-4 in percent of each text with all others as its references (Zhu et
    al. 2018, section 3), 100 where all are one, and sacrebleu's signature.
    """
    metric = make_bleu(texts, effective_order=True)
    others = (texts[:i] + texts[i + 1 :] for i in range(len(texts)))
    scores = [metric.sentence_score(*pair).score for pair in zip(texts, others, strict=True)]
    return float(np.mean(scores)), str(metric.get_signature())


def longest_copy(text: str, corpus: str) -> int:
    """Characters of the longest run of a text that stands in the corpus too. What is a
    copy at one place is at most one character longer at the next, so that each place is
    looked at once for a longer one.
    """
    best, i = 0, 0
    while i + best < len(text):
        while i + best < len(text) and text[i : i + best + 1] in corpus:
            best += 1
        i += 1
    return best


# -- as metrics of a run: Given -> {name: float, "{metric}_signature": str}. Texts are
# of the split's
# examples in `fixed_order`.


def compared(given, what="answer") -> tuple[list[str], list[str]]:
    """A method's answers to examples of the split, no example twice, and what the data
    say: targets of pairs, the second halves of windows of a text.
    """
    count = len(given.real["tokens"])
    return given.draw(what)[:count], given.draw("reference")[:count]


def answered(given) -> dict[str, float | str]:
    """BLEU in percent of the method's answers, an encoder-decoder's by beam search."""
    value, signature = bleu(*compared(given))
    return dict(bleu=value, bleu_signature=signature)


def answered_greedily(given) -> dict[str, float | str]:
    """As `bleu`, but an encoder-decoder takes the likeliest token again and again."""
    value, signature = bleu(*compared(given, "greedy"))
    return dict(bleu_greedy=value, bleu_greedy_signature=signature)


def overlap(given) -> dict[str, float]:
    """ROUGE of the method's answers."""
    return rouge(*compared(given))


def varied(given) -> dict[str, float | str]:
    """distinct-1 and -2 of words, and self-BLEU of at most 100 texts from nothing."""
    texts = given.draw("text")
    value, signature = self_bleu(texts[:100])
    return dict(
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        self_bleu=value,
        variety_signature=signature,
    )
