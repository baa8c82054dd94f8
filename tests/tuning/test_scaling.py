"""Widths scaled to the budget: the result fits, the next larger one does not, and the widths keep their proportions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.budget.cost import compute_cost
from search.budget.metrics import METRICS
from search.networks.layers import ArchitectureError
from search.spaces.domains import Value
from search.spaces.pyramid import MOST_BLOCKS
from search.tuning.scaling import LISTED, LOOK_AHEAD, largest_that_fits
from space import Pyramid, Space, parameters, widths
from tests.support.pyramids import WIDE, built, given_networks, space, values_of
from tests.support.strategies import draw_values, drawn_points, reference

Fits = Callable[[Mapping[str, Value]], bool]


def size(of: Space, values: Mapping[str, Value]) -> int | None:
    """Parameters, None for a network that cannot exist."""
    try:
        return compute_cost(built(of, dict(values))).params
    except ArchitectureError:
        return None


def under(limit: int, of: Space) -> Fits:
    def fits(values: Mapping[str, Value]) -> bool:
        found = size(of, values)
        return found is not None and found < limit

    return fits


def limits(of: Space, values: Mapping[str, Value], share: float) -> int:
    """A limit between the smallest and the largest network that scaling these widths can make, or a little outside."""
    ends = [size(of, {**values, **{name: pick(listed(of, name)) for name in widths(of)}}) or 1 for pick in (min, max)]
    return round(ends[0] + share * (ends[1] - ends[0]))


def listed(of: Space, name: str) -> list[int]:
    return sorted(int(value) for value in values_of(parameters(of)[name]))


def scaled(of: Space, values: Mapping[str, Value], scale: Fraction) -> dict[str, Value]:
    """Every width the largest declared one up to scale * width, or else the lowest; in exact arithmetic."""
    at = {name: [one for one in listed(of, name) if one <= scale * int(values[name])] for name in widths(of)}
    return {**values, **{name: max(found, default=listed(of, name)[0]) for name, found in at.items()}}


def steps(of: Space, values: Mapping[str, Value]) -> list[dict[str, Value]]:
    """Everything that scaling these widths can make, the narrowest first, counted out."""
    scales = {Fraction(0), *(Fraction(one, int(values[name])) for name in widths(of) for one in listed(of, name))}
    found: list[dict[str, Value]] = []
    for scale in sorted(scales):
        made = scaled(of, values, scale)
        if made not in found[-1:]:
            found.append(made)
    return found


points_and_shares = st.tuples(drawn_points(), st.floats(-0.1, 1.1))


# --- against counting out --------------------------------------------------------------------------------------------


@given(points_and_shares)
@settings(max_examples=80)
def test_it_is_the_largest_of_all_that_scaling_can_make(drawn: tuple[tuple[Pyramid, dict[str, Value]], float]) -> None:
    (of, values), share = drawn
    fits = under(limits(of, values, share), of)
    fitting = [made for made in steps(of, values) if fits(made)]
    assert largest_that_fits(of, values, fits) == (fitting[-1] if fitting else None)


@pytest.mark.parametrize("limit", range(700, 2900, 31))
def test_every_limit_of_a_small_space_is_filled(limit: int) -> None:
    of = space(width={"each": [[8, 24, 12, 31], {"low": 4, "high": 32, "step": 4}]})
    for values in ({"width_1": first, "width_2": second} for first in (8, 24) for second in (4, 12, 32)):
        fitting = [made for made in steps(of, values) if under(limit, of)(made)]
        assert largest_that_fits(of, values, under(limit, of)) == (fitting[-1] if fitting else None)


@given(drawn_points(), st.sampled_from(["arena_bytes", "flash_bytes"]), st.floats(0, 1))
@settings(max_examples=60)
def test_it_is_the_largest_nearby_under_costs_that_can_fall(
    drawn: tuple[Pyramid, dict[str, Value]], metric: str, share: float
) -> None:
    """Arena and flash are not monotone in the widths: a larger network may fit where a smaller one does not."""
    of, values = drawn

    def measure(at: Mapping[str, Value]) -> float:
        try:
            return METRICS[metric].compute(compute_cost(built(of, dict(at))))
        except ArchitectureError:
            return math.inf

    made = steps(of, values)
    costs = [measure(at) for at in made]
    limit = sorted(costs)[min(int(share * len(costs)), len(costs) - 1)] + 1

    def fits(at: Mapping[str, Value]) -> bool:
        return measure(at) < limit

    first = largest_that_fits(of, values, fits)
    found = largest_that_fits(of, values, fits, LOOK_AHEAD)
    if first is None:
        assert found is None and costs[0] >= limit
        return
    boundary = made.index(first)
    near = range(boundary, min(boundary + 2 + LOOK_AHEAD, len(made)))
    assert found == made[max(index for index in near if costs[index] < limit)]


def test_a_larger_network_is_found_past_one_that_does_not_fit() -> None:
    of = space(blocks=2, width={"low": 4, "high": 40, "step": 4})
    values: dict[str, Value] = {"width_1": 4, "width_2": 20}
    allowed = [made for made in steps(of, values) if made["width_2"] not in (24, 28)]

    def fits(at: Mapping[str, Value]) -> bool:
        return dict(at) in allowed and int(at["width_2"]) <= 36

    found = largest_that_fits(of, values, fits, LOOK_AHEAD)
    assert found is not None and found["width_2"] == 36


# --- what holds of the result ----------------------------------------------------------------------------------------


@given(points_and_shares)
@settings(max_examples=100)
def test_it_fits_and_the_next_step_does_not(drawn: tuple[tuple[Pyramid, dict[str, Value]], float]) -> None:
    (of, values), share = drawn
    check(of, values, under(limits(of, values, share), of))


@given(st.integers(0, 2**20), st.floats(-0.1, 1.0))
@settings(max_examples=100)
def test_it_fits_and_the_next_step_does_not_in_a_wide_space(seed: int, share: float) -> None:
    values = draw_values(WIDE, seed)
    check(WIDE, values, under(limits(WIDE, values, share**3), WIDE))


def check(of: Space, values: dict[str, Value], fits: Fits) -> None:
    found = largest_that_fits(of, values, fits)
    if found is None:
        assert not fits(scaled(of, values, Fraction(0)))
        return
    assert fits(found)
    assert list(found) == list(values)
    for name, domain in parameters(of).items():
        assert domain.find(found[name]) == found[name]
        assert type(found[name]) is type(values[name])
        assert name in widths(of) or found[name] == values[name]
    least, most = scales_of(of, values, found)
    assert least < most  # one scale makes all of them: the proportions are kept up to the step
    assert most == LARGEST or not fits(scaled(of, values, most))


LARGEST = Fraction(10**9)


def scales_of(of: Space, values: Mapping[str, Value], found: Mapping[str, Value]) -> tuple[Fraction, Fraction]:
    """The scales that make these widths: from the first, up to but without the second."""
    least, most = Fraction(0), LARGEST
    for name in widths(of):
        width, own = int(values[name]), int(found[name])
        above = [one for one in listed(of, name) if one > own]
        least = max(least, Fraction(own, width) if own > listed(of, name)[0] else Fraction(0))
        most = min(most, Fraction(above[0], width) if above else LARGEST)
    return least, most


@given(points_and_shares)
@settings(max_examples=100)
def test_a_network_that_fits_only_grows_and_one_that_does_not_only_shrinks(
    drawn: tuple[tuple[Pyramid, dict[str, Value]], float],
) -> None:
    (of, values), share = drawn
    fits = under(limits(of, values, share), of)
    found = largest_that_fits(of, values, fits)
    if found is not None:
        grows = fits(values)
        assert all((int(found[name]) >= int(values[name])) >= grows for name in widths(of))
        assert grows or all(int(found[name]) <= int(values[name]) for name in widths(of))
        assert grows or found != values
    else:
        assert not fits(values)


def test_an_example_by_hand() -> None:
    """Widths 16 and 32, 1 to 2, in steps of 8."""
    of = space(width={"low": 8, "high": 64, "step": 8})
    values: dict[str, Value] = {"width_1": 16, "width_2": 32}

    def widest(most: int) -> Fits:
        return lambda at: int(at["width_1"]) + int(at["width_2"]) <= most

    for most, expected in ((15, None), (16, (8, 8)), (24, (8, 16)), (31, (8, 16)), (32, (8, 24)), (47, (8, 24))):
        found = largest_that_fits(of, values, widest(most))
        assert (found and (found["width_1"], found["width_2"])) == expected
    for most, expected in ((48, (16, 32)), (56, (16, 40)), (88, (24, 56)), (95, (24, 56)), (96, (32, 64)), (127, (56, 64))):
        found = largest_that_fits(of, values, widest(most))
        assert (found and (found["width_1"], found["width_2"])) == expected
    assert largest_that_fits(of, values, widest(128)) == {"width_1": 64, "width_2": 64}


def test_a_width_for_the_net_is_scaled_by_itself() -> None:
    of = space(width={"low": 8, "high": 64, "step": 8, "per": "net"}, kernel=[1, 3])
    assert largest_that_fits(of, {"width": 16, "kernel": 3}, lambda at: int(at["width"]) < 48) == {"width": 40, "kernel": 3}


def test_values_that_are_no_parameters_of_the_space_are_kept() -> None:
    of = space(width=[8, 16])
    values: dict[str, Value] = {"repeat": 1, "width_1": 8, "width_2": 16, "recipe.learning_rate": 0.1}
    asked: list[dict[str, Value]] = []

    def fits(at: Mapping[str, Value]) -> bool:
        asked.append(dict(at))
        return True

    found = largest_that_fits(of, values, fits)
    assert found == values | {"width_1": 16}
    assert all(list(at) == list(values) for at in asked)
    assert values["width_1"] == 8


# --- without widths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [space(kernel=[1, 3]), space(), given_networks("eip-c", "eip-d"), given_networks("eip-c")])
def test_without_sampled_widths_it_is_all_or_nothing(of: Space) -> None:
    values = {name: domain.first for name, domain in parameters(of).items()}
    params = size(of, values)
    assert params is not None
    assert largest_that_fits(of, values, under(params + 1, of)) == values
    assert largest_that_fits(of, values, under(params, of)) is None


def test_a_given_network_is_not_touched() -> None:
    limit = compute_cost(reference("eip-c")).params + 1
    assert largest_that_fits(given_networks("eip-c"), {"recipe.ema": 0.9}, under(limit, given_networks("eip-c"))) == {
        "recipe.ema": 0.9
    }


# --- how often it asks -----------------------------------------------------------------------------------------------


def counted(of: Space, values: Mapping[str, Value], most: int) -> tuple[dict[str, Value] | None, int]:
    """The largest whose widths sum to at most that, and how often it was asked for."""
    asked = 0

    def fits(at: Mapping[str, Value]) -> bool:
        nonlocal asked
        asked += 1
        return sum(int(at[name]) for name in widths(of)) <= most

    return largest_that_fits(of, values, fits), asked


WIDEST = Pyramid.model_validate({"blocks": MOST_BLOCKS, "width": {"low": 1, "high": 65_536}, "pools": 0})


@given(st.integers(0, 2**20), st.floats(0.0, 1.0), st.booleans())
@settings(max_examples=100)
def test_it_asks_seldom_and_is_exact_even_in_the_widest_space(seed: int, share: float, is_skewed: bool) -> None:
    values = draw_values(WIDEST, seed)
    if is_skewed:
        values |= {f"width_{1 + seed % 64}": 1, f"width_{1 + seed // 64 % 64}": 65_536}
    most = round(64 + share ** (8 if is_skewed else 1) * 63 * 65_536)
    found, asked = counted(WIDEST, values, most)
    assert asked <= 30
    assert found is not None
    own = {name: int(found[name]) for name in widths(WIDEST)}
    assert sum(own.values()) <= most
    scale = min(Fraction(own[name] + 1, int(values[name])) for name in own if own[name] < 65_536)
    further = {name: min(65_536, max(1, int(scale * int(values[name])))) for name in own}
    assert sum(further.values()) > most
    assert all(own[name] <= further[name] for name in own)


@given(st.integers(0, 2**20), st.floats(0.0, 1.0))
@settings(max_examples=100)
def test_it_asks_a_dozen_times_in_a_usual_space(seed: int, share: float) -> None:
    values: dict[str, Any] = draw_values(WIDE, seed)
    assert counted(WIDE, values, round(11 * (16 + share * 240)))[1] <= 14


def test_halving_the_scales_ends() -> None:
    """If scales coincide as often as they can, fewer than LISTED of them are so near that no scale lies between."""
    assert LISTED > MOST_BLOCKS
    values: dict[str, Value] = dict.fromkeys(widths(WIDEST), 65_536)
    assert counted(WIDEST, values, 64 * 40_000)[0] == dict.fromkeys(widths(WIDEST), 40_000)
