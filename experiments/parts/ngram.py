"""A baseline for models of text: interpolated n-grams with modified Kneser-Ney
smoothing (Chen & Goodman 1999, section 3).
"""

import math
from collections import Counter


def counts(ids: list[int], order: int) -> list[Counter]:
    """For n = 1 .. order how often each n-gram stands in the text; below the highest
    order, after how many different symbols.
    """
    out = [Counter()] * order
    out[order - 1] = Counter(tuple(ids[i : i + order]) for i in range(len(ids) - order + 1))
    for n in range(order - 1, 0, -1):
        out[n - 1] = Counter(gram[1:] for gram in out[n])
    return out


def discounts(table: Counter) -> tuple[float, float, float]:
    """D1, D2, D3+ of eq. 26, within [0, count]: undefined where a text is short."""
    n1, n2, n3, n4 = (sum(1 for c in table.values() if c == k) for k in (1, 2, 3, 4))
    y = n1 / max(n1 + 2 * n2, 1)
    return tuple(
        min(max(k - (k + 1) * y * b / a if a else 0.5 * k, 0.0), k)
        for k, a, b in ((1, n1, n2), (2, n2, n3), (3, n3, n4))
    )


class KneserNey:
    """p(symbol | the n - 1 before it), for symbols 0 .. size - 1; below the unigrams
    is the uniform distribution.
    """

    def __init__(self, ids: list[int], size: int, order: int = 5):
        self.size, self.order = size, order
        self.tables = counts(ids, order)
        self.discounts = [discounts(table) for table in self.tables]
        # context -> (sum of counts, mass that its discounts free)
        self.contexts = [{} for _ in range(order)]
        for table, (d1, d2, d3), sums in zip(
            self.tables, self.discounts, self.contexts, strict=True
        ):
            for gram, count in table.items():
                total, free = sums.get(gram[:-1], (0, 0.0))
                sums[gram[:-1]] = (
                    total + count,
                    free + (d1 if count == 1 else d2 if count == 2 else d3),
                )

    def probability(self, context: tuple, symbol: int) -> float:
        """By eq. 27: discounted counts, and the rest by the next lower order."""
        p = 1 / self.size
        for n in range(1, min(self.order, len(context) + 1) + 1):
            gram = (*context[len(context) - n + 1 :], symbol) if n > 1 else (symbol,)
            total, free = self.contexts[n - 1].get(gram[:-1], (0, 0.0))
            if not total:
                break  # the context is new: so are all longer ones
            count, (d1, d2, d3) = self.tables[n - 1].get(gram, 0), self.discounts[n - 1]
            discount = 0 if count == 0 else d1 if count == 1 else d2 if count == 2 else d3
            p = (count - discount) / total + free / total * p
        return p


def bits_per_character(train: str, heldout: str, order: int = 5) -> float:
    """Of a held-out text under n-grams of characters of the training text; all
    characters of both are known.
    """
    number = {c: i for i, c in enumerate(sorted(set(train) | set(heldout)))}
    model = KneserNey([number[c] for c in train], len(number), order)
    ids = [number[c] for c in heldout]
    return -sum(
        math.log2(model.probability(tuple(ids[max(0, i - order + 1) : i]), symbol))
        for i, symbol in enumerate(ids)
    ) / len(ids)
