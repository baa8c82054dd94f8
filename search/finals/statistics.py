"""What repeated trainings allow one to say: finals between a few nets on the same seeds, effects of a factorial ablation.

Sources: Student, "The probable error of a mean", Biometrika 1908 (paired differences, t intervals); Holm, "A simple
sequentially rejective multiple test procedure", Scand. J. Statistics 1979 (several comparisons at once); Montgomery,
"Design and Analysis of Experiments" (factorials in blocks).

Intervals are 95 % and each for itself; only `adjusted_p` allows for the number of comparisons, so an interval may leave
zero out where the verdict is a tie. A tie is a lack of evidence, not evidence of equality. From one training of each
nothing can be said: intervals and p are None and everything is a tie. Trainings without any spread are taken at their
word (p is 0 or 1), so scores that move in coarse steps can look more certain than they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

LEVEL = 0.05  # of the tests; intervals are 1 - LEVEL
ROUNDING = 1e-12  # of the largest score: what is smaller comes from floating point, and is cleared to zero


@dataclass(frozen=True)
class Summary:
    """Trainings of one net; spread is the sample standard deviation, low and high the interval of the mean."""

    name: str
    n: int
    mean: float
    spread: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Mean of `name` minus mean of `against` (a contender, or a plain score), paired by seed."""

    name: str
    against: str | float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    adjusted_p: float | None = None
    is_tie: bool = True


@dataclass(frozen=True)
class Finals:
    summaries: tuple[Summary, ...]  # best mean first, the base among them if it was trained
    leader: str  # the best mean but for the base
    against_base: tuple[Comparison, ...]
    against_leader: tuple[Comparison, ...]


@dataclass(frozen=True)
class Effect:
    """Mean at `level` minus mean at `against`, over all cells, or over those `at` one level of another factor.

    An interaction has two factors and pairs of levels: how much the difference made by the first factor grows as the
    second goes from its first to its second level. That is the full difference of differences, twice Montgomery's effect.
    """

    factors: tuple[str, ...]
    level: Any
    against: Any
    at: tuple[str, Any] | None
    difference: float
    low: float | None
    high: float | None
    p: float | None
    adjusted_p: float | None = None
    is_tie: bool = True


Tested = TypeVar("Tested", Comparison, Effect)


def confirm(scores: Mapping[str, Sequence[float]], base: str | float | None = None) -> Finals:
    """Contenders by name, each with its scores on the same seeds in the same order; none of them a seed of the search.

    The base is a contender, or a plain score that nobody trained here. The leader is found by looking at these very
    scores, so its mean flatters (of 5 equal nets on 5 seeds, by half a spread), and ties with it are called a little too
    seldom: of nets that are truly equal, all are ties in 95 % of finals with 2 nets, 93 % (3 seeds) and 92 % (5 seeds)
    with 5 nets, 89 % with 10 on 5 seeds (40,000 simulated finals each). Holm over all pairs of nets would keep 95 %, but
    on 5 seeds it finds a net 3 spreads above four others in 15 % of finals; this, in 73 %.
    """
    scale = _scale(scores)
    summaries = sorted((_summary(name, values, scale) for name, values in scores.items()), key=lambda one: -one.mean)
    candidates = {one.name: scores[one.name] for one in summaries if one.name != base}
    if not candidates:
        raise ValueError("scores: finals need at least one contender besides the base")
    leader = next(iter(candidates))
    against_base = () if base is None else tuple(compare({one.name: scores[one.name] for one in summaries}, base))
    return Finals(tuple(summaries), leader, against_base, tuple(compare(candidates, leader)))


def compare(scores: Mapping[str, Sequence[float]], against: str | float) -> list[Comparison]:
    """Every other contender against one of them, or all against a plain score; one Holm family, in the order of `scores`."""
    scale = _scale(scores, *([] if isinstance(against, str) else [against]))
    if isinstance(against, str) and against not in scores:
        raise ValueError(f"against: {against!r} is no contender; known: {', '.join(scores)}")
    found = []
    for name, values in scores.items():
        if name != against:
            others = scores[against] if isinstance(against, str) else [against] * len(values)
            difference, spread = _moments([a - b for a, b in zip(values, others, strict=True)], scale)
            verdict = _student(difference, spread / math.sqrt(len(values)), len(values) - 1)
            found.append(Comparison(name, against, difference, *verdict))
    return _judged(found)


def winners_curse(searched: float, scores: Sequence[float]) -> float:
    """By how much the score that won the search flatters: it, minus the mean of fresh trainings."""
    return searched - _mean(scores)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down p-values, in the order given: below a level, with that chance of any false finding among them all."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def effects(rows: Sequence[Mapping[str, Any]], factors: Sequence[str], response: str, block: str) -> list[Effect]:
    """Main effects (each level against the first), then interactions of pairs of two-level factors; one Holm family.

    A factor has the levels that the rows show, in the order in which they first do. The error is what cell means and
    blocks leave over, with (cells - 1)(blocks - 1) degrees of freedom: it assumes that all cells spread alike.

    Raises:
        ValueError: a cell is missing from a block or stands there twice, or a factor has one level.
    """
    design = _fit(rows, factors, response, block)
    found = [_simple(design, factor, level, None) for factor in factors for level in design.levels[factor][1:]]
    two_levels = [factor for factor in factors if len(design.levels[factor]) == 2]
    for one, other in itertools.combinations(two_levels, 2):
        (a, b), (c, d) = design.levels[one], design.levels[other]
        plus, minus = [{one: b, other: d}, {one: a, other: c}], [{one: a, other: d}, {one: b, other: c}]
        found.append(Effect((one, other), (b, d), (a, c), None, *_contrast(design, plus, minus)))
    return _judged(found)


def within(
    rows: Sequence[Mapping[str, Any]], factor: str, other: str, factors: Sequence[str], response: str, block: str
) -> list[Effect]:
    """The effect of `factor` at each level of `other`: error and refusals as in `effects`, a Holm family of their own."""
    design = _fit(rows, factors, response, block)
    pairs = itertools.product(design.levels[other], design.levels[factor][1:])
    return _judged([_simple(design, factor, level, (other, place)) for place, level in pairs])


@dataclass(frozen=True)
class _Design:
    levels: dict[str, list[Any]]
    cells: list[tuple[dict[str, Any], float]]  # the level of each factor, and the mean over the blocks
    blocks: int
    spread: float  # of the residual
    degrees: int
    scale: float


def _fit(rows: Sequence[Mapping[str, Any]], factors: Sequence[str], response: str, block: str) -> _Design:
    levels = {name: list(dict.fromkeys(row[name] for row in rows)) for name in (*factors, block)}
    if single := [name for name in factors if len(levels[name]) < 2]:
        raise ValueError(f"factors: {single[0]!r} has {len(levels[single[0]])} level; an effect needs two")
    table: dict[tuple[Any, ...], float] = {}
    for row in rows:
        key = tuple(row[name] for name in levels)
        if key in table:
            raise ValueError(f"rows: two with {_named(levels, key)}; keep one")
        table[key] = float(row[response])
    if absent := [key for key in itertools.product(*levels.values()) if key not in table]:
        raise ValueError(
            f"rows: none with {_named(levels, absent[0])} ({len(absent)} missing); each cell needs each {block}"
        )
    scale = _scale({response: list(table.values())})
    blocks = levels.pop(block)
    means = {cell: _mean([table[*cell, place] for place in blocks]) for cell in itertools.product(*levels.values())}
    shifts = {place: _mean([table[*cell, place] - means[cell] for cell in means]) for place in blocks}
    squares = math.fsum((table[*cell, place] - means[cell] - shifts[place]) ** 2 for cell in means for place in blocks)
    degrees = (len(means) - 1) * (len(blocks) - 1)
    spread = _cleared(math.sqrt(squares / max(1, degrees)), scale)
    cells = [(dict(zip(levels, cell, strict=True)), mean) for cell, mean in means.items()]
    return _Design(levels, cells, len(blocks), spread, degrees, scale)


def _simple(design: _Design, factor: str, level: Any, at: tuple[str, Any] | None) -> Effect:
    first, fixed = design.levels[factor][0], dict([at] if at else [])
    return Effect((factor,), level, first, at, *_contrast(design, [fixed | {factor: level}], [fixed | {factor: first}]))


def _contrast(
    design: _Design, plus: list[dict[str, Any]], minus: list[dict[str, Any]]
) -> tuple[float, float | None, float | None, float | None]:
    """Means over the cells with the given levels, added and subtracted; no cell is in two of them."""
    total, variance = 0.0, 0.0
    for sign, fixed in [(1, fixed) for fixed in plus] + [(-1, fixed) for fixed in minus]:
        means = [mean for cell, mean in design.cells if fixed.items() <= cell.items()]
        total += sign * _mean(means)
        variance += design.spread**2 / (len(means) * design.blocks)
    difference = _cleared(total, design.scale)
    return difference, *_student(difference, math.sqrt(variance), design.degrees)


def _summary(name: str, values: Sequence[float], scale: float) -> Summary:
    n, (mean, spread) = len(values), _moments(values, scale)
    low, high, _ = _student(mean, spread / math.sqrt(n), n - 1)
    return Summary(name, n, mean, spread if n > 1 else None, low, high)


def _moments(values: Sequence[float], scale: float) -> tuple[float, float]:
    """Mean and sample standard deviation, which is 0 for one value."""
    mean = _mean(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return _cleared(mean, scale), _cleared(math.sqrt(variance), scale)


def _student(difference: float, error: float, degrees: int) -> tuple[float | None, float | None, float | None]:
    """Interval, and two-sided p of no difference, from a standard error."""
    if degrees == 0:
        return None, None, None
    if error == 0:
        return difference, difference, float(difference == 0)
    from scipy import special  # Student's t alone, when it is asked for; scipy.stats takes a second to import

    half = error * float(special.stdtrit(degrees, 1 - LEVEL / 2))
    return difference - half, difference + half, 2 * float(special.stdtr(degrees, -abs(difference) / error))


def _judged(found: list[Tested]) -> list[Tested]:
    """One family: adjusted together, and ties called. Either all have a p or none has."""
    p_values = [one.p for one in found if one.p is not None]
    if len(p_values) < len(found):
        return found
    return [replace(one, adjusted_p=p, is_tie=p >= LEVEL) for one, p in zip(found, holm(p_values), strict=True)]


def _scale(scores: Mapping[str, Sequence[float]], *constants: float) -> float:
    if len(lengths := {len(values) for values in scores.values()}) != 1 or 0 in lengths:
        counts = ", ".join(f"{name} {len(values)}" for name, values in scores.items())
        raise ValueError(f"scores: one for each seed and contender, not {counts or 'none'}")
    every = [*itertools.chain.from_iterable(scores.values()), *constants]
    if not all(map(math.isfinite, every)):
        raise ValueError("scores: one is not finite; leave the contender out, or train it again")
    return max(map(abs, every))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _cleared(value: float, scale: float) -> float:
    return value if abs(value) > ROUNDING * scale else 0.0


def _named(levels: Mapping[str, Any], key: tuple[Any, ...]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in zip(levels, key, strict=True))
