"""Statistics of repeated trainings: finals of a few networks on the same seeds, effects of a factorial ablation.

Sources: Student, "The probable error of a mean", Biometrika 1908 (paired differences, t intervals); Holm, "A simple
sequentially rejective multiple test procedure", Scand. J. Statistics 1979 (several comparisons at once); Montgomery,
"Design and Analysis of Experiments" (factorials in blocks).

Intervals `low` to `high` have 95 % coverage each by itself. `adjusted_low` to `adjusted_high` account for the number of
comparisons as `adjusted_p` does, and exclude zero exactly where the verdict is no tie: pages show these. A tie is a lack of
evidence, not evidence of equality. One training of each gives no evidence: intervals and p are None and everything is a tie.
Trainings without any spread give p = 0 or 1, so scores that move in coarse steps can look more certain than they are.

No interval of accuracies (scores from 0 to 1) leaves the possible values. That of a mean is computed on the logit scale
where Student's would leave them (delta method: logit' = 1 / (p (1 - p))); that of a difference is cut there. The interval of
one accuracy on n images is Wilson's ("Probable inference, the law of succession, and statistical inference", J. American
Statistical Association 1927).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

LEVEL = 0.05  # of the tests; intervals are 1 - LEVEL
Z = 1.959964  # quantile of the normal distribution at 1 - LEVEL / 2
ROUNDING = 1e-12  # of the largest score: smaller values are rounding errors, and set to zero


@dataclass(frozen=True)
class Summary:
    """Scores of one network; spread is the sample standard deviation, low and high the interval of the mean."""

    name: str
    n: int
    mean: float
    spread: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Mean of `name` minus mean of `against` (a finalist, or a plain score), paired by seed."""

    name: str
    against: str | float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    adjusted_p: float | None = None
    is_tie: bool = True
    adjusted_low: float | None = None
    adjusted_high: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Finalists by mean score, and their comparisons with the base and with the leader."""

    summaries: tuple[Summary, ...]  # best mean first, the base among them if it was trained
    leader: str  # the best mean, the base excluded
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
    adjusted_low: float | None = None
    adjusted_high: float | None = None


Tested = TypeVar("Tested", Comparison, Effect)


def rank(scores: Mapping[str, Sequence[float]], base: str | float | None = None) -> Ranking:
    """Rank finalists by their mean score and compare them with the base and with the leader.

    The leader is selected by these same scores, so its mean is optimistic (for 5 equal networks on 5 seeds, by half a
    spread), and ties with it are found a little too rarely: of networks that are equal, all are ties in 95 % of finals with
    2 networks, 93 % (3 seeds) and 92 % (5 seeds) with 5, 89 % with 10 on 5 seeds (40,000 simulated finals each). Holm over
    all pairs of networks would keep 95 %, but on 5 seeds it detects a network 3 spreads above four others in 15 % of finals,
    and this method in 73 %.

    Args:
        scores: by finalist, on the same seeds in the same order, none of them a seed of the search.
        base: the name of a finalist, or a score that was not trained here.
    """
    scale = _scale(scores)
    summaries = sorted((_summary(name, values, scale) for name, values in scores.items()), key=lambda summary: -summary.mean)
    candidates = {summary.name: scores[summary.name] for summary in summaries if summary.name != base}
    if not candidates:
        raise ValueError("scores: finals need at least one finalist besides the base")
    leader = next(iter(candidates))
    by_mean = {summary.name: scores[summary.name] for summary in summaries}
    against_base = () if base is None else tuple(compare(by_mean, base))
    return Ranking(tuple(summaries), leader, against_base, tuple(compare(candidates, leader)))


def compare(scores: Mapping[str, Sequence[float]], against: str | float) -> list[Comparison]:
    """Compare all others with one finalist, or all with a plain score; one Holm family, in the order of `scores`."""
    scale = _scale(scores, *([] if isinstance(against, str) else [against]))
    if isinstance(against, str) and against not in scores:
        raise ValueError(f"against: {against!r} is no finalist; known: {', '.join(scores)}")
    comparisons = []
    for name, values in scores.items():
        if name != against:
            others = scores[against] if isinstance(against, str) else [against] * len(values)
            difference, spread = _moments([a - b for a, b in zip(values, others, strict=True)], scale)
            low, high, p = _student(difference, spread / math.sqrt(len(values)), len(values) - 1)
            comparisons.append(Comparison(name, against, difference, low, high, p))
    degrees = len(next(iter(scores.values()))) - 1
    adjusted = _adjusted(comparisons, degrees)
    if not _are_accuracies(scores, *([] if isinstance(against, str) else [against])):
        return adjusted
    least, most = (-1.0, 1.0) if isinstance(against, str) else (-against, 1 - against)
    return [_cut(comparison, least, most) for comparison in adjusted]


def winners_curse(searched: float, scores: Sequence[float]) -> float:
    """Optimism of a score that won a search: that score minus the mean of fresh trainings."""
    return searched - _mean(scores)


def wilson(accuracy: float, images: float) -> tuple[float, float]:
    """95 % interval of the accuracy of one network, measured on a sample of images: Wilson's score interval.

    Args:
        images: of another measure the effective number, see `search.training.measures.effective_images`.
    """
    square = Z * Z
    middle = (accuracy + square / (2 * images)) / (1 + square / images)
    half = Z / (1 + square / images) * math.sqrt(accuracy * (1 - accuracy) / images + square / (4 * images * images))
    return max(0.0, middle - half), min(1.0, middle + half)


def chance_gap(accuracy: float, other: float | None, images: float, other_images: float | None = None) -> float:
    """Largest difference of two accuracies, one training each, that chance makes in 95 % of cases.

    The variance of a proportion of n images bounds that of a training over seeds: if image i is classified correctly with
    probability p_i, the mean of p_i (1 - p_i) is at most p (1 - p).

    Args:
        other: None for a given number in its place, which does not vary.
        other_images: of the other accuracy, where its (effective) number is different.
    """
    if other_images is None or other is None or other_images == images:
        variance = accuracy * (1 - accuracy) + (0.0 if other is None else other * (1 - other))
        return Z * math.sqrt(variance / images)
    return Z * math.sqrt(accuracy * (1 - accuracy) / images + other * (1 - other) / other_images)


def adjusted_ratio(p: float, adjusted_p: float, degrees: int) -> float:
    """Factor by which an interval widens, so that it excludes zero exactly where the adjusted p is below `LEVEL`.

    The interval of level 1 - LEVEL * p / adjusted_p: a test and its interval are dual.
    """
    if adjusted_p <= p:
        return 1.0
    from scipy import special

    level = LEVEL * p / adjusted_p
    return float(special.stdtrit(degrees, 1 - level / 2)) / float(special.stdtrit(degrees, 1 - LEVEL / 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down p-values, in the order given; a level bounds the chance of any false finding among them all."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for smaller, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - smaller) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def effects(rows: Sequence[Mapping[str, Any]], factors: Sequence[str], response: str, block: str) -> list[Effect]:
    """Main effects (each level against the first), then interactions of pairs of two-level factors; one Holm family.

    The levels of a factor are those in the rows, in order of first appearance. The error is the residual of cell means and
    blocks, with (cells - 1)(blocks - 1) degrees of freedom, under the assumption of equal variance in all cells.

    Raises:
        ValueError: a cell is missing from a block or occurs twice in it, or a factor has one level.
    """
    design = _fit(rows, factors, response, block)
    family = [_simple(design, factor, level, None) for factor in factors for level in design.levels[factor][1:]]
    two_levels = [factor for factor in factors if len(design.levels[factor]) == 2]
    for one, other in itertools.combinations(two_levels, 2):
        (a, b), (c, d) = design.levels[one], design.levels[other]
        plus, minus = [{one: b, other: d}, {one: a, other: c}], [{one: a, other: d}, {one: b, other: c}]
        family.append(Effect((one, other), (b, d), (a, c), None, *_contrast(design, plus, minus)))
    return _adjusted(family, design.degrees)


def within(
    rows: Sequence[Mapping[str, Any]], factor: str, other: str, factors: Sequence[str], response: str, block: str
) -> list[Effect]:
    """Effects of `factor` at each level of `other`, with the error of `effects`; a Holm family of their own."""
    design = _fit(rows, factors, response, block)
    pairs = itertools.product(design.levels[other], design.levels[factor][1:])
    return _adjusted([_simple(design, factor, level, (other, at)) for at, level in pairs], design.degrees)


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
    means = {cell: _mean([table[*cell, level] for level in blocks]) for cell in itertools.product(*levels.values())}
    shifts = {level: _mean([table[*cell, level] - means[cell] for cell in means]) for level in blocks}
    squares = math.fsum((table[*cell, level] - means[cell] - shifts[level]) ** 2 for cell in means for level in blocks)
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
    """Sum of the means over the cells of each entry of `plus` minus that of `minus`; no cell is in two of them."""
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
    if low is not None and high is not None and _are_accuracies({name: values}) and (low < 0 or high > 1):
        low, high = _logit_interval(mean, (high - low) / 2)
    return Summary(name, n, mean, spread if n > 1 else None, low, high)


def _moments(values: Sequence[float], scale: float) -> tuple[float, float]:
    """Mean and sample standard deviation, which is 0 for one value."""
    mean = _mean(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return _cleared(mean, scale), _cleared(math.sqrt(variance), scale)


def _student(difference: float, error: float, degrees: int) -> tuple[float | None, float | None, float | None]:
    """Interval, and two-sided p of no difference, from a standard error by Student's t."""
    if degrees == 0:
        return None, None, None
    if error == 0:
        return difference, difference, float(difference == 0)
    from scipy import special  # here, as scipy is heavy; scipy.stats would take a second to import

    half = error * float(special.stdtrit(degrees, 1 - LEVEL / 2))
    return difference - half, difference + half, 2 * float(special.stdtr(degrees, -abs(difference) / error))


def _adjusted(family: list[Tested], degrees: int) -> list[Tested]:
    """One Holm family with adjusted p, intervals and ties; unchanged where a member has no p."""
    p_values = [tested.p for tested in family if tested.p is not None]
    if len(p_values) < len(family):
        return family
    adjusted = []
    for tested, p, adjusted_p in zip(family, p_values, holm(p_values), strict=True):
        assert tested.low is not None and tested.high is not None
        half = (tested.high - tested.low) / 2 * adjusted_ratio(p, adjusted_p, degrees)
        low, high = tested.difference - half, tested.difference + half
        adjusted.append(
            replace(tested, adjusted_p=adjusted_p, is_tie=adjusted_p >= LEVEL, adjusted_low=low, adjusted_high=high)
        )
    return adjusted


def _cut(comparison: Comparison, least: float, most: float) -> Comparison:
    """The comparison with its intervals within the possible differences."""
    names = ("low", "high", "adjusted_low", "adjusted_high")
    bounds = {name: getattr(comparison, name) for name in names if getattr(comparison, name) is not None}
    return replace(comparison, **{name: min(max(bound, least), most) for name, bound in bounds.items()})


def _logit_interval(mean: float, half: float) -> tuple[float, float]:
    """Interval of a mean accuracy strictly between 0 and 1, from the half-width of Student's."""
    if not 0 < mean < 1:  # rounded
        return mean, mean
    centre, step = math.log(mean / (1 - mean)), half / (mean * (1 - mean))
    return _logistic(centre - step), _logistic(centre + step)


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > 0 else math.exp(value) / (1 + math.exp(value))


def _are_accuracies(scores: Mapping[str, Sequence[float]], *constants: float) -> bool:
    """True if every score is between 0 and 1."""
    return all(0 <= score <= 1 for score in itertools.chain(constants, *scores.values()))


def _scale(scores: Mapping[str, Sequence[float]], *constants: float) -> float:
    if len(lengths := {len(values) for values in scores.values()}) != 1 or 0 in lengths:
        counts = ", ".join(f"{name} {len(values)}" for name, values in scores.items())
        raise ValueError(f"scores: one for each seed and finalist, not {counts or 'none'}")
    every = [*itertools.chain.from_iterable(scores.values()), *constants]
    if not all(map(math.isfinite, every)):
        raise ValueError("scores: one is not finite; leave the finalist out, or train it again")
    return max(map(abs, every))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _cleared(value: float, scale: float) -> float:
    return value if abs(value) > ROUNDING * scale else 0.0


def _named(levels: Mapping[str, Any], key: tuple[Any, ...]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in zip(levels, key, strict=True))
