"""Covering designs: a small number of rows of options that contain every option, or
every pair of options.

A problem is {base: {axis: values}}; a row is (base, {axis: value}) with all axes of its
base. The base is an option too. Axes of the same name in several bases are one axis: a
pair of options must occur in one row of any base.
"""

import itertools
import random
from collections.abc import Callable, Hashable

MOST_TRIES = 200  # until a missing set is reported as impossible
Base = Hashable
Row = tuple[Base, dict]


def items(base: Base, values: dict) -> list:
    """The options of a row, with its base."""
    return [("base", base), *values.items()]


def pairs(problem: dict[Base, dict], allowed: Callable) -> set:
    """All allowed pairs of options of different axes that a base has."""
    out = set()
    for base, axes in problem.items():
        every = [
            ("base", base),
            *((axis, value) for axis, values in axes.items() for value in values),
        ]
        for pair in itertools.combinations(every, 2):
            if pair[0][0] != pair[1][0] and allowed(base, dict(i for i in pair if i[0] != "base")):
                out.add(frozenset(pair))
    return out


def met(rows: list[Row], size: int) -> set:
    """The sets of `size` options that occur together in a row."""
    return {frozenset(some) for row in rows for some in itertools.combinations(items(*row), size)}


def cover(
    problem: dict[Base, dict],
    wanted: set,
    allowed: Callable,
    usual: Callable = lambda base: {},
    seed=0,
    tries=8,
    cost: Callable = lambda base: 0,
) -> list[Row]:
    """Rows that contain each of the `wanted` sets of one or two options (after Cohen et
    al. 1997, AETG). A row starts with a missing set and chooses for one axis after the
    other the value that completes most missing sets, on a tie the usual value; the
    best of a few such rows is added.

    allowed     (base, {axis: value} of some axes) -> whether they may occur together
    usual       base -> {axis: value}
    cost        base -> a number; the cheapest of several suitable bases is taken
    """
    draw, missing, rows = (
        random.Random(seed),
        dict.fromkeys(sorted(wanted, key=lambda s: sorted(map(repr, s)))),
        [],
    )
    # Option -> its missing partners; the option itself where a single one is wanted.
    near = {}
    for some in missing:
        for item in some:
            near.setdefault(item, set()).update(some - {item} or {item})
    while missing:
        first, best, gain = next(iter(missing)), None, 0
        for i in range(MOST_TRIES):  # a row fails if no value fits the earlier ones
            if i >= tries and best:
                break
            start = draw.choice(list(missing)) if 0 < i < tries else first
            row = _row(problem, start, near, allowed, usual, draw, cost)
            found = _met_now(row, near) if row else ()
            if len(found) > gain:
                best, gain, gone = row, len(found), found
        assert best, (
            f"no row holds {sorted(map(repr, first))}: what forbids it is not among the refusals"
        )
        rows.append(best)
        for some in gone:
            del missing[some]
            for item in some:
                near[item] -= some - {item} or {item}
    return rows


def _met_now(row: Row, near: dict) -> set:
    have = set(items(*row))
    return {frozenset((item, other)) for item in have for other in near.get(item, set()) & have}


def _row(problem, start, near, allowed, usual, draw, cost=lambda base: 0) -> Row | None:
    """One row that contains `start`, or None where no base allows one."""
    fixed = dict(start)
    has = lambda axes: all(v in axes.get(a, ()) for a, v in fixed.items())
    bases = (
        [fixed.pop("base")] if "base" in fixed else [b for b, axes in problem.items() if has(axes)]
    )
    for base in sorted(draw.sample(bases, len(bases)), key=cost):
        values, axes, most = dict(fixed), problem[base], usual(base)
        have = {("base", base), *values.items()}
        free = [axis for axis in axes if axis not in values] if allowed(base, values) else []
        for axis in draw.sample(free, len(free)):
            order = sorted(
                draw.sample(axes[axis], len(axes[axis])),
                key=lambda v, axis=axis: v != most.get(axis),
            )
            score = {v: len(near.get((axis, v), set()) & (have | {(axis, v)})) for v in order}
            fits = (
                v
                for v in sorted(order, key=score.get, reverse=True)
                if allowed(base, values | {axis: v})
            )
            values[axis] = found = next(fits, None)
            have.add((axis, found))
            if found is None:
                break
        else:
            if len(values) == len(axes):
                return base, {axis: values[axis] for axis in axes}
    return None


def row_with(axes: dict, base: Base, some: dict, allowed: Callable, usual: Callable) -> Row | None:
    """A row of a base that contains some options, with usual values where allowed."""
    return _row({base: axes}, {("base", base), *some.items()}, {}, allowed, usual, random.Random(0))
