"""Metrics of texts: against references (BLEU, ROUGE), and of how much texts repeat themselves, one another or a corpus."""

from collections import Counter

import numpy as np


def bleu(hypotheses: list[str], references: list[str]) -> tuple[float, str]:
    """Corpus BLEU in percent, one reference each (Papineni et al. 2002), and its signature, without which no two values can be
    compared: sacrebleu's defaults (Post 2018)."""
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    score = metric.corpus_score(hypotheses, [references])
    return score.score, str(metric.get_signature())


def rouge(hypotheses: list[str], references: list[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L (Lin 2004): the mean F-measure in [0, 1] of shared words, shared pairs of words, and the longest common
    subsequence, by the rouge-score package with stemming off."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, use_stemmer=False)
    scores = [scorer.score(reference, hypothesis) for hypothesis, reference in zip(hypotheses, references, strict=True)]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) for name in names}


def grams(text: str, n: int, unit: str = "words") -> list[tuple]:
    """The runs of n words (separated by blanks) or characters of a text."""
    parts = text.split() if unit == "words" else text
    return [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]


def distinct(texts: list[str], n: int, unit: str = "words") -> float:
    """Different n-grams divided by all n-grams of the texts together (Li et al. 2016, section 5.2): 1 where none comes twice."""
    counts = Counter(gram for text in texts for gram in grams(text, n, unit))
    return len(counts) / max(sum(counts.values()), 1)


def self_bleu(texts: list[str]) -> float:
    """The mean BLEU-4 in percent of each text with all others as its references (Zhu et al. 2018, section 3): 100 where all are one."""
    from sacrebleu.metrics import BLEU

    metric = BLEU(effective_order=True)
    return float(np.mean([metric.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]))


def longest_copy(text: str, corpus: str) -> int:
    """Characters of the longest run of a text that stands in the corpus too. What is a copy at one place is at most one character
    longer at the next, so that each place is looked at once for a longer one."""
    best, i = 0, 0
    while i + best < len(text):
        while i + best < len(text) and text[i : i + best + 1] in corpus:
            best += 1
        i += 1
    return best


# -- as metrics of a run: Given -> {name: float}. Texts are of the split's examples in `fixed_order`.


def compared(given, what="answer") -> tuple[list[str], list[str]]:
    """A method's answers to examples of the split, no example twice, and what the data say:
    targets of pairs, the second halves of windows of a text."""
    count = len(given.real["tokens"])
    return given.draw(what)[:count], given.draw("reference")[:count]


def answered(given) -> dict[str, float]:
    """`bleu` of the method's answers, those of an encoder-decoder by beam search, in percent."""
    return dict(bleu=bleu(*compared(given))[0])


def answered_greedily(given) -> dict[str, float]:
    """As `bleu`, but an encoder-decoder takes the likeliest token again and again."""
    return dict(bleu_greedy=bleu(*compared(given, "greedy"))[0])


def overlap(given) -> dict[str, float]:
    """ROUGE of the method's answers."""
    return rouge(*compared(given))


def varied(given) -> dict[str, float]:
    """distinct-1 and -2 of words, and self-BLEU of at most 100 texts from nothing."""
    texts = given.draw("text")
    return dict(distinct_1=distinct(texts, 1), distinct_2=distinct(texts, 2), self_bleu=self_bleu(texts[:100]))
