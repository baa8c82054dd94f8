"""Domains: what is drawn, suggested and found is the same set of values, the top of a range among them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.spaces.domains import Choices, Dimension, Domain, Range, Value, fraction, one_of, parse_domain, whole

anything: Callable[[Any], Value] = lambda value: value  # noqa: E731


@st.composite
def ranges(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Range:
    """A stepped range of whole numbers or of fractions with up to three decimals."""
    low, step, count = draw(st.integers(0, 50)), draw(st.integers(1, 20)), draw(st.integers(1, 30))
    if draw(st.booleans()):
        raw: dict[str, Any] = {"low": low, "high": low + step * count, "step": step}
    else:
        raw = {"low": low / 1000, "high": (low + step * count) / 1000, "step": step / 1000}
    domain = parse_domain(raw, anything)
    assert isinstance(domain, Range)
    return domain


@st.composite
def numbers(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Domain:
    """A stepped range, or a few numbers in any order."""
    some = st.one_of(st.integers(1, 100), st.integers(1, 1000).map(lambda value: value / 1000))
    choices = st.lists(some, min_size=1, max_size=8, unique=True).map(lambda values: Choices(tuple(values)))
    domain: Domain = draw(st.one_of(ranges(), choices))
    return domain


def counted_up(domain: Domain) -> list[Any]:
    """The values from the lowest up, by hand."""
    if isinstance(domain, Choices):
        return sorted(domain.values)
    assert domain.step is not None
    count = 0
    while round(domain.low + count * domain.step, 10) <= domain.high:
        count += 1
    return [round(domain.low + index * domain.step, 10) for index in range(count)]


def suggested(domain: Domain, seed: int, count: int) -> list[Value]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [domain.suggest(study.ask(), "x") for _ in range(count)]


# --- values ----------------------------------------------------------------------------------------------------------


@given(ranges(), st.integers(0, 2**20))
@settings(max_examples=200)
def test_a_sampled_value_is_found(domain: Range, seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(10):
        value = domain.draw(generator)
        found = domain.find(value)
        assert found == value
        assert type(found) is type(value) is (int if domain.is_whole else float)
        assert domain.suggest(optuna.trial.FixedTrial({"x": value}), "x") == value


@given(ranges(), st.integers(0, 2**20))
@settings(max_examples=60)
def test_a_suggested_value_is_found_as_it_was_written(domain: Range, seed: int) -> None:
    for value in suggested(domain, seed, 5):
        assert domain.find(value) == value
        assert repr(value) == repr(domain.find(value))
        assert len(repr(value)) <= 6


@given(ranges())
@settings(max_examples=100)
def test_every_value_of_a_range_is_drawn_and_no_other(domain: Range) -> None:
    assert domain.step is not None
    wanted = {round(domain.low + index * domain.step, 10) for index in range(domain.size)}
    generator = random.Random(0)
    drawn = {domain.draw(generator) for _ in range(domain.size * 30)}
    assert drawn == wanted
    assert max(wanted) == domain.high
    assert min(wanted) == domain.low == domain.first


def test_the_top_of_a_range_is_suggested() -> None:
    assert set(suggested(Range(16, 48, 16), 0, 100)) == {16, 32, 48}
    assert set(suggested(Range(0.0, 0.3, 0.05), 0, 200)) == {0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3}
    assert set(suggested(Range(1, 3, 1, True), 0, 100)) == {1, 2, 3}
    assert set(suggested(Choices(("a", "b", "c")), 0, 100)) == {"a", "b", "c"}


def test_steps_come_out_rounded() -> None:
    """0.15, where 3 * 0.05 is 0.15000000000000002."""
    domain = Range(0.0, 0.3, 0.05)
    for drawn in (suggested(domain, 0, 100), [domain.draw(random.Random(seed)) for seed in range(100)]):
        assert {str(value) for value in drawn} == {"0.0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"}
    assert domain.find(3 * 0.05) == 0.15
    assert str(domain.find(0.1 + 0.2)) == "0.3"


def test_an_undeclared_value_is_not_found() -> None:
    for value in (15, 17, 48.5, 64, "16", True, float("nan"), float("inf"), -16):
        assert Range(16, 48, 16).find(value) is None, value
    for value in (-0.05, 0.07, 0.35, "0.1", False, float("nan")):
        assert Range(0.0, 0.3, 0.05).find(value) is None, value
    assert Range(0.0, 0.3).find(0.12345) == 0.12345
    assert Range(0.0, 0.3).find(0.31) is None
    assert Choices(("max", "average")).find("min") is None
    assert Choices((1, 3)).find(2) is None


def test_the_value_found_is_the_declared_one() -> None:
    assert type(Range(16, 48, 16).find(32.0)) is int
    assert type(Choices((1, 3)).find(3.0)) is int
    assert Choices((0.0, 0.1)).find(0) == 0.0


def test_a_continuous_range_is_drawn_within_its_ends() -> None:
    for domain in (Range(0.001, 0.1, None, True), Range(0.001, 0.1)):
        generator = random.Random(0)
        drawn = [domain.draw(generator) for _ in range(500)]
        for value in (*drawn, *suggested(domain, 0, 50)):
            assert isinstance(value, float)
            assert 0.001 <= value <= 0.1
            assert domain.find(value) == value
    logs = [math.log10(float(Range(0.001, 0.1, None, True).draw(random.Random(seed)))) for seed in range(500)]
    assert sum(value < -2 for value in logs) == pytest.approx(250, abs=40)  # each decade as often as the other


def test_whole_logarithmic_ranges_reach_both_ends() -> None:
    drawn = {Range(2, 16, 1, True).draw(random.Random(seed)) for seed in range(2000)}
    assert drawn == set(range(2, 17))


def test_one_value_is_fixed() -> None:
    assert parse_domain(3, anything).is_fixed
    assert parse_domain([3], anything).is_fixed
    assert not parse_domain([3, 4], anything).is_fixed
    assert not Range(3, 4, 1).is_fixed
    assert Choices((5, 3)).first == 5


def test_the_same_seed_draws_the_same() -> None:
    for domain in (Range(0, 100, 1), Range(0.0, 1.0), Choices(tuple(range(50)))):
        assert domain.draw(random.Random(7)) == domain.draw(random.Random(7))


# --- order -----------------------------------------------------------------------------------------------------------


@given(numbers())
@settings(max_examples=200)
def test_every_value_has_its_place(domain: Domain) -> None:
    values = counted_up(domain)
    assert domain.count == len(values)
    assert sorted(domain.declared()) == values
    assert list(domain.declared()) == (list(domain.values) if isinstance(domain, Choices) else values)
    assert [domain.at(place) for place in range(len(values))] == values
    assert [domain.index(value) for value in values] == list(range(len(values)))
    assert all(type(domain.at_most(value)) is type(domain.find(value)) for value in values)


@given(numbers(), st.floats(-5, 700) | st.integers(-5, 700) | st.just(math.inf) | st.just(-math.inf))
@settings(max_examples=300)
def test_at_most_is_the_largest_value_up_to_a_limit(domain: Domain, limit: float) -> None:
    values = counted_up(domain)
    near = [value for value in values if abs(value - limit) < 1e-6]
    assert near or domain.at_most(limit) == max((value for value in values if value <= limit), default=values[0])
    for value in values:  # also what arithmetic makes of it, and no farther
        assert domain.at_most(value) == value
        assert domain.at_most(value * 3 / 3) == domain.at_most(math.nextafter(value, 0)) == value
        assert domain.at_most(value - 1e-6) == max([values[0], *(one for one in values if one < value)])


def test_at_most_of_a_continuous_range_stays_within_its_ends() -> None:
    for limit, expected in ((-math.inf, 0.5), (0.2, 0.5), (0.7, 0.7), (1, 1.0), (2, 1.5), (math.inf, 1.5)):
        assert Range(0.5, 1.5).at_most(limit) == expected
        assert type(Range(0.5, 1.5).at_most(limit)) is float
    assert Range(0.5, 1.5).count is None
    assert Range(2, 16, 1, True).count == 15


@pytest.mark.parametrize("values", [("max", "average"), (False, True), (3, "x")])
def test_choices_without_an_order_have_no_largest_value(values: tuple[Value, ...]) -> None:
    with pytest.raises(TypeError, match="only numbers have an order"):
        Choices(values).at_most(1)


# --- what Optuna records ---------------------------------------------------------------------------------------------


def check_distribution(domain: Domain) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    domain.suggest(trial, "x")
    assert trial.distributions["x"] == domain.distribution()
    assert type(trial.distributions["x"]) is type(domain.distribution())
    again = optuna.distributions.json_to_distribution(optuna.distributions.distribution_to_json(domain.distribution()))
    assert again == domain.distribution()  # as a database hands it back


@given(numbers())
@settings(max_examples=100)
def test_the_distribution_is_what_optuna_records(domain: Domain) -> None:
    check_distribution(domain)


@pytest.mark.parametrize(
    "domain",
    [
        Choices(("max", "average")),
        Choices((True, False)),
        Choices((5,)),
        Range(2, 64, 1, True),
        Range(2, 64, 1),
        Range(0.001, 0.1, None, True),
        Range(0.001, 0.1),
        Range(0.0, 0.3, 0.05),
        Range(0.1, 0.4, 0.1),
    ],
    ids=str,
)
def test_the_distribution_of_every_form_is_what_optuna_records(domain: Domain) -> None:
    check_distribution(domain)


def test_distributions_of_different_domains_differ() -> None:
    domains: list[Domain] = [
        *(Range(2, 8, 1), Range(2, 8, 2), Range(2, 9, 1), Range(1, 8, 1), Range(2, 8, 1, True)),
        *(Range(2.0, 8.0, 1.0), Range(2.0, 8.0), Range(2.0, 8.0, None, True), Choices((2, 8)), Choices((8, 2))),
    ]
    for index, domain in enumerate(domains):
        assert [other.distribution() == domain.distribution() for other in domains].index(True) == index


# --- reading and writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (3, Choices((3,))),
        ([3, 5], Choices((3, 5))),
        ({"low": 4, "high": 8}, Range(4, 8, 1)),
        ({"low": 4, "high": 8, "step": 2}, Range(4, 8, 2)),
        ({"low": 4, "high": 8, "log": True}, Range(4, 8, 1, True)),
        ({"low": 0.0, "high": 0.3, "step": 0.05}, Range(0.0, 0.3, 0.05)),
        ({"low": 0.001, "high": 0.1, "log": True}, Range(0.001, 0.1, None, True)),
    ],
    ids=str,
)
def test_a_domain_is_read_and_written(raw: Any, expected: Domain) -> None:
    read = parse_domain(raw, anything)
    assert read == expected
    assert parse_domain(read.plain(), anything) == expected
    assert type(read.first) is type(expected.first)


@given(ranges())
@settings(max_examples=100)
def test_a_range_is_written_as_it_is_read(domain: Range) -> None:
    assert parse_domain(domain.plain(), anything) == domain


BAD: dict[str, tuple[object, str]] = {
    "nothing": ([], "empty"),
    "twice": ([3, 3], "twice"),
    "no low": ({"high": 3}, "'low'"),
    "no high": ({"low": 3}, "'high'"),
    "unknown": ({"low": 3, "high": 4, "steps": 1}, "'steps'"),
    "equal": ({"low": 3, "high": 3}, "below"),
    "words": ({"low": "a", "high": "b"}, "no order"),
    "bools": ({"low": False, "high": True}, "no order"),
    "top not reached": ({"low": 16, "high": 250, "step": 8}, "do not reach 250"),
    "fraction not reached": ({"low": 0.0, "high": 0.32, "step": 0.05}, "do not reach 0.32"),
    "step 0": ({"low": 1, "high": 3, "step": 0}, "step"),
    "step infinite": ({"low": 0.0, "high": 1.0, "step": float("inf")}, "step"),
    "log from 0": ({"low": 0.0, "high": 1.0, "log": True}, "log"),
    "log from 0, whole": ({"low": 0, "high": 8, "log": True}, "log"),
    "log below 0": ({"low": -1.0, "high": 1.0, "log": True}, "log"),
    "step and log": ({"low": 1, "high": 8, "step": 1, "log": True}, "not both"),
    "a step that is lost in rounding": ({"low": 0.0, "high": 1e-10, "step": 1e-11}, "step"),
    "steps past counting": ({"low": 0.0, "high": 1.0, "step": 5e-324}, "step"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_domain_tells_its_rule(case: str) -> None:
    raw, told = BAD[case]
    with pytest.raises(ValueError, match=told):
        parse_domain(raw, anything)


def test_whole_numbers_are_whole() -> None:
    for value in (True, 3.0, "3", None, 0, 11, float("nan")):
        with pytest.raises(ValueError, match="must be a whole number from 1 to 10"):
            whole(1, 10)(value)
    assert [whole(1, 10)(value) for value in (1, 10)] == [1, 10]
    with pytest.raises(ValueError, match="step"):
        parse_domain({"low": 1, "high": 9, "step": 0.5}, whole(1, 10))


def test_the_ends_of_a_range_of_fractions_are_fractions() -> None:
    read = parse_domain({"low": 0, "high": 0.5}, fraction)
    assert read == Range(0.0, 0.5)
    assert type(read.first) is float


@pytest.mark.parametrize(("low", "high", "step"), [(0.8, 0.9, 0.1), (0.05, 0.06, 0.01), (0.3, 0.4, 0.1)])
def test_a_step_may_be_the_whole_range(low: float, high: float, step: float) -> None:
    """0.9 - 0.8 is 0.09999999999999998."""
    domain = parse_domain({"low": low, "high": high, "step": step}, fraction)
    assert {domain.draw(random.Random(seed)) for seed in range(20)} == {low, high}


def test_fractions_are_below_one() -> None:
    for value in (True, 1, 1.0, -0.1, "0.5", None, float("nan")):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            fraction(value)
    assert type(fraction(0)) is float


def test_one_of_tells_what_is_known() -> None:
    with pytest.raises(ValueError, match="must be one of a, b, not 'c'"):
        one_of(("a", "b"))("c")
    for value in (1, 0, "true", None, []):
        with pytest.raises(ValueError, match="must be one of true, false"):
            one_of((True, False))(value)
    assert one_of((True, False))(False) is False


def test_a_dimension_is_shared_or_one_for_each() -> None:
    shared = Dimension((Choices((1, 2)),), "block")
    assert shared.domain(0) is shared.domain(5)
    each = Dimension((Choices((1, 2)), Range(3, 9, 2)), "block", each=True)
    assert each.domain(1) == Range(3, 9, 2)
    assert list(each.values) == [1, 2, 3, 9]
