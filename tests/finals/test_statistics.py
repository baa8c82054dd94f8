"""Finals and factorials against SciPy, against arithmetic done by hand, and against simulations where the truth is known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from search.finals.statistics import (
    Comparison,
    Effect,
    chance_gap,
    compare,
    effects,
    holm,
    rank,
    wilson,
    winners_curse,
    within,
)

SCORES = {
    "base": [0.901, 0.905, 0.899, 0.904],
    "wide": [0.921, 0.926, 0.917, 0.925],
    "deep": [0.918, 0.929, 0.915, 0.921],
}
DRAWS = 2_000  # the share of a 95 % interval is then known to half a point
LIKELIHOODS = st.lists(st.floats(0, 1), min_size=1, max_size=8)
# two blocks (seeds) of depth 1, 2 by width 8, 16: cell means 1, 3, 4, 10; blocks differ by 1; residuals are +-0.5
FACTORIAL = [
    {"depth": depth, "width": width, "seed": seed, "score": score}
    for depth, width, scores in [(1, 8, (0.0, 2.0)), (1, 16, (3.0, 3.0)), (2, 8, (3.0, 5.0)), (2, 16, (10.0, 10.0))]
    for seed, score in enumerate(scores)
]


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def of_factorial(rows: Sequence[dict[str, Any]], factors: Sequence[str] = ("depth", "width")) -> list[Effect]:
    return effects(rows, factors, "score", "seed")


def test_a_summary_is_the_t_interval_of_scipy() -> None:
    for one in rank(SCORES).summaries:
        scores = SCORES[one.name]
        low, high = stats.t.interval(0.95, len(scores) - 1, np.mean(scores), stats.sem(scores))
        assert (one.n, one.mean) == (4, pytest.approx(np.mean(scores)))
        assert (one.spread, one.low, one.high) == pytest.approx((np.std(scores, ddof=1), low, high))


def test_a_comparison_is_the_paired_test_of_scipy() -> None:
    found = compare(SCORES, "base")
    assert [one.name for one in found] == ["wide", "deep"]
    for one in found:
        oracle = stats.ttest_rel(SCORES[one.name], SCORES["base"])
        interval = oracle.confidence_interval(0.95)
        assert one.p == pytest.approx(oracle.pvalue)
        assert (one.low, one.high) == pytest.approx((interval.low, interval.high))


def test_a_plain_score_is_compared_as_by_the_one_sample_test_of_scipy() -> None:
    for one in compare(SCORES, 0.9):
        oracle = stats.ttest_1samp(SCORES[one.name], 0.9)
        interval = oracle.confidence_interval(0.95)
        assert (one.against, one.p) == (0.9, pytest.approx(oracle.pvalue))
        assert one.difference == pytest.approx(np.mean(SCORES[one.name]) - 0.9)
        assert (one.low, one.high) == pytest.approx((interval.low - 0.9, interval.high - 0.9))


def test_finals_have_a_leader_that_is_not_the_base() -> None:
    found = rank(SCORES | {"base": [0.95] * 4}, "base")
    assert [one.name for one in found.summaries] == ["base", "wide", "deep"]
    assert found.leader == "wide"
    assert [(one.name, one.against) for one in found.against_base] == [("wide", "base"), ("deep", "base")]
    assert [(one.name, one.against) for one in found.against_leader] == [("deep", "wide")]
    assert all(one.difference < 0 and not one.is_tie for one in found.against_base)
    assert [one.name for one in rank(SCORES, 0.9).against_base] == ["wide", "deep", "base"]
    assert rank(SCORES).against_base == ()


def test_holm_as_done_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


@given(LIKELIHOODS)
def test_holm_keeps_the_order_and_lowers_nothing(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= raised <= 1 for p, raised in zip(p_values, adjusted, strict=True))
    for (p, raised), (q, other) in itertools.combinations(zip(p_values, adjusted, strict=True), 2):
        assert raised <= other if p < q else raised >= other if p > q else raised == other
    assert min(adjusted) == min(1, len(p_values) * min(p_values))


@given(LIKELIHOODS, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order(p_values: list[float], generator: random.Random) -> None:
    places = generator.sample(range(len(p_values)), len(p_values))
    assert holm([p_values[place] for place in places]) == [holm(p_values)[place] for place in places]


@given(st.lists(st.tuples(*[st.integers(0, 1_000)] * 3), min_size=2, max_size=6), st.integers(-1_000, 1_000))
def test_a_shift_of_all_scores_changes_no_comparison(rows: list[tuple[int, ...]], shift: int) -> None:
    scores = dict(zip("abc", zip(*rows, strict=True), strict=True))
    moved = {name: [score + shift for score in values] for name, values in scores.items()}
    assert compare(moved, "a") == compare(scores, "a")
    assert rank(moved, "a").leader == rank(scores, "a").leader


def test_without_spread_the_difference_is_certain_also_beside_rounding() -> None:
    scores = {"a": [0.1 + 0.2, 0.8, 0.7], "same": [0.3, 0.8, 0.7], "more": [0.31, 0.81, 0.71]}
    same, more = compare(scores, "a")
    assert same == Comparison("same", "a", 0.0, 0.0, 0.0, 1.0, 1.0, True, 0.0, 0.0)
    assert more == Comparison("more", "a", *[more.difference] * 3, 0.0, 0.0, False, more.difference, more.difference)
    assert more.difference == pytest.approx(0.01)
    flat = rank({"flat": [0.1, 0.1, 0.1]}).summaries[0]
    assert (flat.spread, flat.low, flat.high) == (0.0, flat.mean, flat.mean)


def test_from_one_training_of_each_nothing_is_known() -> None:
    found = rank({"base": [0.5], "net": [0.9], "other": [0.7]}, "base")
    assert all((one.spread, one.low, one.high) == (None, None, None) for one in found.summaries)
    assert found.against_leader == (Comparison("other", "net", pytest.approx(-0.2), None, None, None, None, True),)
    assert all(one.is_tie for one in rank({"net": [0.9], "other": [0.7]}, 0.5).against_base)
    assert all(one.p is None and one.is_tie for one in of_factorial([row for row in FACTORIAL if row["seed"] == 0]))


@given(st.lists(st.lists(st.integers(0, 359), min_size=3, max_size=3), min_size=3, max_size=6))
def test_an_adjusted_interval_excludes_zero_exactly_where_the_verdict_is_no_tie(rows: list[list[int]]) -> None:
    scores = {f"net {index}": [value / 359 for value in row] for index, row in enumerate(rows)}
    for one in compare(scores, "net 0"):
        assert one.adjusted_low is not None and one.adjusted_high is not None and one.low is not None
        assert one.is_tie == (one.adjusted_low <= 0 <= one.adjusted_high)
        assert -1 <= one.adjusted_low <= one.low <= one.difference <= one.adjusted_high <= 1


@given(st.lists(st.integers(0, 359), min_size=2, max_size=6))
def test_no_interval_of_a_mean_accuracy_leaves_the_possible_values(counts: list[int]) -> None:
    (summary,) = rank({"net": [count / 359 for count in counts]}).summaries
    assert summary.low is not None and summary.high is not None
    assert 0 <= summary.low <= summary.mean <= summary.high <= 1


def test_a_lead_over_a_plain_score_ends_at_all_images_right() -> None:
    (one,) = compare({"net": [1.0, 0.99]}, 0.98)
    assert one.high == pytest.approx(0.02)


@given(st.integers(1, 20_000), st.floats(0, 1))
def test_the_interval_of_one_accuracy_is_wilsons_of_scipy(images: int, share: float) -> None:
    correct = round(share * images)
    oracle = stats.binomtest(correct, images).proportion_ci(0.95, "wilson")
    assert wilson(correct / images, images) == pytest.approx((oracle.low, oracle.high), abs=1e-6)


def test_a_gap_by_chance_is_that_of_two_proportions() -> None:
    assert chance_gap(0.9, 0.9, 10_000) == pytest.approx(1.96 * (2 * 0.09 / 10_000) ** 0.5, rel=1e-4)


def test_the_winners_curse_is_what_the_search_promised_too_much() -> None:
    assert winners_curse(0.93, SCORES["wide"]) == pytest.approx(0.93 - 0.92225)


@pytest.mark.parametrize(
    ("scores", "against", "message"),
    [
        ({}, 0.9, "one for each seed and finalist, not none"),
        ({"a": [], "b": []}, "a", "not a 0, b 0"),
        ({"a": [0.9, 0.8], "b": [0.9]}, "a", "not a 2, b 1"),
        ({"a": [0.9], "b": [float("nan")]}, "a", "not finite"),
        ({"a": [0.9]}, float("inf"), "not finite"),
        ({"a": [0.9]}, "b", "'b' is no finalist; known: a"),
        ({"a": [0.9]}, "a", "at least one finalist besides the base"),
    ],
)
def test_scores_that_cannot_be_compared_are_rejected(scores: dict[str, list[float]], against: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank(scores, against)


def test_a_factorial_as_done_by_hand() -> None:
    depth, width, both = of_factorial(FACTORIAL)
    assert [one.factors for one in (depth, width, both)] == [("depth",), ("width",), ("depth", "width")]
    assert (depth.difference, width.difference, both.difference) == (5.0, 4.0, 4.0)  # 7 - 2, 6.5 - 2.5, (10 - 3) - (4 - 1)
    assert (both.level, both.against, depth.level, depth.against) == ((2, 16), (1, 8), 2, 1)
    # sum of squares 8 * 0.25 on 3 degrees of freedom; a mean of four has a quarter of it, a cell a half
    square, quantile = 2 / 3, stats.t.ppf(0.975, 3)
    for one, error in ((depth, (square / 2) ** 0.5), (width, (square / 2) ** 0.5), (both, (2 * square) ** 0.5)):
        assert one.p == pytest.approx(2 * stats.t.sf(one.difference / error, 3))
        assert (one.low, one.high) == pytest.approx((one.difference - quantile * error, one.difference + quantile * error))
    assert [one.adjusted_p for one in (depth, width, both)] == pytest.approx(holm([depth.p, width.p, both.p]))


def test_the_effect_of_a_factor_at_each_level_of_another() -> None:
    found = within(FACTORIAL, "depth", "width", ["depth", "width"], "score", "seed")
    assert [(one.at, one.difference) for one in found] == [(("width", 8), 3.0), (("width", 16), 7.0)]
    for one in found:
        half = stats.t.ppf(0.975, 3) * (2 / 3) ** 0.5  # two means of two
        assert (one.low, one.high) == pytest.approx((one.difference - half, one.difference + half))


def test_with_one_factor_of_two_levels_a_factorial_is_the_paired_test() -> None:
    rows = [{"net": net, "seed": seed, "score": score} for net in SCORES for seed, score in enumerate(SCORES[net])]
    (found,) = of_factorial([row for row in rows if row["net"] != "deep"], ["net"])
    paired = compare(SCORES, "base")[0]
    assert (found.difference, found.low, found.high) == pytest.approx((paired.difference, paired.low, paired.high))
    assert found.p == pytest.approx(paired.p)
    three = of_factorial(rows, ["net"])
    assert [(one.level, one.against) for one in three] == [("wide", "base"), ("deep", "base")]
    assert [one.difference for one in three] == pytest.approx([one.difference for one in compare(SCORES, "base")])


def test_a_factorial_that_adds_up_exactly_is_certain() -> None:
    rows = [row | {"score": 0.1 * row["depth"] + 0.7 * row["seed"]} for row in FACTORIAL]
    depth, width, both = of_factorial(rows)
    assert (depth.difference, depth.p, depth.low) == (pytest.approx(0.1), 0.0, depth.difference)
    assert (width.difference, width.p, both.difference, both.p) == (0.0, 1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (FACTORIAL[:5] + FACTORIAL[6:], "none with depth=2, width=8, seed=1 .1 missing"),
        (
            [row for row in FACTORIAL if (row["depth"], row["width"]) != (1, 16)],
            "none with depth=1, width=16, seed=0 .2 miss",
        ),
        ([*FACTORIAL, FACTORIAL[3]], "two with depth=1, width=16, seed=1"),
        ([row for row in FACTORIAL if row["depth"] == 1], "'depth' has 1 level"),
        ([row | {"score": float("nan")} for row in FACTORIAL], "not finite"),
    ],
)
def test_a_factorial_that_is_not_balanced_is_rejected(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_factorial(rows)


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_of_finals_hold_the_truth_in_95_of_100(n: int) -> None:
    mean, difference = 0, 0
    for draw in normal(n, DRAWS, 2, n):
        found = rank({"base": draw[0], "net": 2 + 3 * draw[1]}, "base")
        net = next(one for one in found.summaries if one.name == "net")
        mean += net.low <= 2 <= net.high
        difference += found.against_base[0].low <= 2 <= found.against_base[0].high
    assert 0.93 <= mean / DRAWS <= 0.97
    assert 0.93 <= difference / DRAWS <= 0.97


def test_intervals_of_effects_hold_the_truth_in_95_of_100() -> None:
    cells, hits = list(itertools.product((0, 1), (0, 1))), np.zeros(4)
    for noise in normal(0, DRAWS, 5, 3):  # four cells and the blocks, on three seeds
        rows = [
            {"a": a, "b": b, "seed": seed, "score": 2 * a + 3 * a * b + 4 * noise[4, seed] + noise[place, seed]}
            for place, (a, b) in enumerate(cells)
            for seed in range(3)
        ]
        found = [*effects(rows, ["a", "b"], "score", "seed"), within(rows, "a", "b", ["a", "b"], "score", "seed")[1]]
        truths = (3.5, 1.5, 3.0, 5.0)  # of a: 2 without b and 5 with it; of b: 0 and 3
        hits += [one.low <= truth <= one.high for one, truth in zip(found, truths, strict=True)]
    assert np.all((hits / DRAWS >= 0.93) & (hits / DRAWS <= 0.97)), hits / DRAWS


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("nets", [2, 5])
def test_equal_nets_tie_with_the_one_that_happens_to_lead(nets: int, n: int) -> None:
    draws = normal(nets, DRAWS, nets, n)
    ties = sum(all(one.is_tie for one in rank(dict(zip("abcde", draw, strict=False))).against_leader) for draw in draws)
    assert 0.9 <= ties / DRAWS <= 0.97  # as the docstring of rank has it


def test_a_real_lead_is_found() -> None:
    draws = normal(1, 500, 5, 5)
    draws[:, 0] += 6  # spreads of one training
    found = [rank(dict(zip("abcde", draw, strict=True)), base="e") for draw in draws]
    assert np.mean([one.leader == "a" and not any(rival.is_tie for rival in one.against_leader) for one in found]) > 0.95
    assert np.mean([not one.against_base[0].is_tie for one in found]) > 0.95
