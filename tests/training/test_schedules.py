"""Learning rate schedules and their restarts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from search.errors import first_problem
from search.training.engine.epoch import plan_epoch
from search.training.recipe import (
    Constant,
    Cosine,
    InverseTime,
    Linear,
    OneCycle,
    Plateau,
    Recipe,
    rate_at,
)
from tests.support.strategies import DECAYS


def rates(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    return [rate_at(recipe, step, steps_per_epoch) for step in range(recipe.epochs * steps_per_epoch)]


def test_a_constant_rate_and_a_plateau_stay() -> None:
    for schedule in (Constant(), Plateau()):
        recipe = Recipe(epochs=3, learning_rate=0.01, schedule=schedule)
        assert set(rates(recipe, 7)) == {0.01}


def test_inverse_time_is_that_of_the_published_nets() -> None:
    recipe = Recipe(epochs=50, learning_rate=0.01, schedule=InverseTime(rate=0.319))
    for epoch in range(50):
        for step in (epoch * 391, epoch * 391 + 390):
            assert rate_at(recipe, step, 391) == pytest.approx(0.01 / (1 + 0.319 * epoch), rel=1e-12)


def test_cosine_falls_from_the_peak_to_nothing() -> None:
    recipe = Recipe(epochs=10, learning_rate=0.2, schedule=Cosine())
    seen = rates(recipe, 30)
    assert seen[0] == 0.2
    assert seen == sorted(seen, reverse=True)
    assert seen[150] == pytest.approx(0.1)
    assert 0 < seen[-1] < 0.2 * 1e-4
    assert rate_at(recipe, 300, 30) == pytest.approx(0, abs=1e-15)


@given(st.floats(0.01, 0.99), st.floats(1.5, 1000), st.integers(1, 40), st.integers(1, 40))
def test_one_cycle_rises_to_the_peak_and_falls_to_nothing(warmup: float, start: float, epochs: int, steps: int) -> None:
    recipe = Recipe(epochs=epochs, learning_rate=0.5, schedule=OneCycle(warmup=warmup, start=start))
    seen = rates(recipe, steps)
    assert seen[0] == pytest.approx(0.5 / start)
    assert max(seen) <= 0.5 * (1 + 1e-12)
    turn = next((step for step in range(len(seen)) if step / len(seen) >= warmup), len(seen))
    assert seen[:turn] == sorted(seen[:turn])
    assert seen[turn:] == sorted(seen[turn:], reverse=True)
    if len(seen) > 100 and turn < len(seen) - 1:
        assert max(seen) >= 0.5 * (1 - 1 / start) * (1 - 1 / (warmup * len(seen))) * 0.99
    assert rate_at(recipe, epochs * steps, steps) == pytest.approx(0, abs=1e-12)


def test_one_cycle_peaks_where_it_says() -> None:
    recipe = Recipe(epochs=10, learning_rate=1.0, schedule=OneCycle(warmup=0.3, start=25.0))
    seen = rates(recipe, 100)
    assert seen[0] == pytest.approx(0.04)
    assert seen[150] == pytest.approx((0.04 + 1) / 2)
    assert seen.index(max(seen)) == 300
    assert seen[300] == pytest.approx(1)
    assert seen[650] == pytest.approx(0.5)
    assert seen[-1] < 1e-4
    assert max(abs(right - left) for left, right in itertools.pairwise(seen)) < 0.01  # no jump anywhere


def test_linear_climbs_to_the_peak_and_comes_down_to_almost_nothing() -> None:
    plain = rates(Recipe(epochs=5, learning_rate=0.8, schedule=Linear()), 2)
    assert plain == pytest.approx([0.8 * left / 10 for left in range(10, 0, -1)])
    warmed = rates(Recipe(epochs=5, learning_rate=0.8, schedule=Linear(warmup=0.4)), 2)
    assert warmed == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, *(0.8 * left / 6 for left in range(5, 0, -1))])


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 40), st.integers(1, 40))
def test_linear_is_straight_either_way_at_any_warmup(warmup: float, epochs: int, steps: int) -> None:
    seen = rates(Recipe(epochs=epochs, learning_rate=0.5, schedule=Linear(warmup=warmup)), steps)
    top = seen.index(max(seen))
    assert max(seen) == pytest.approx(0.5)
    assert abs(top - warmup * len(seen)) <= 2
    for side in (seen[: top + 1], seen[top + 1 :]):
        assert np.diff(side, 2) == pytest.approx(0, abs=1e-12)
    assert min(seen) > 0


@given(
    st.sampled_from(
        (
            Constant(),
            Cosine(),
            OneCycle(),
            InverseTime(rate=0.3),
            Linear(),
            Linear(warmup=0.9),
            Linear(warmup=0.999),
            Plateau(),
        )
    ),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_no_rate_is_negative_or_over_the_peak(schedule: Any, epochs: int, steps: int) -> None:
    recipe = Recipe(epochs=epochs, learning_rate=0.1, schedule=schedule)
    assert all(0 <= rate <= 0.1 * (1 + 1e-12) and math.isfinite(rate) for rate in rates(recipe, steps))


@st.composite
def restarted(draw: st.DrawFn) -> Recipe:
    """A recipe whose schedule begins anew once or more often."""
    epochs = draw(st.integers(2, 20))
    restarts = draw(st.lists(st.integers(1, epochs - 1), min_size=1, max_size=4, unique=True).map(sorted))
    schedule = draw(st.sampled_from(DECAYS))
    return Recipe.model_validate({"epochs": epochs, "learning_rate": 0.3, "schedule": schedule, "restarts": restarts})


@given(restarted(), st.integers(1, 20))
def test_up_to_each_restart_the_rates_are_those_of_a_shorter_training(recipe: Recipe, steps: int) -> None:
    lengths = [end - begin for begin, end in itertools.pairwise((0, *recipe.restarts, recipe.epochs))]
    shorter = [recipe.model_copy(update={"restarts": (), "epochs": length}) for length in lengths]
    assert rates(recipe, steps) == [rate for each in shorter for rate in rates(each, steps)]


@given(restarted())
def test_at_each_restart_the_rate_has_come_down_to_nothing_and_climbs_to_its_peak_again(recipe: Recipe) -> None:
    """Of many steps; a linear schedule that only climbs is at its peak in the last."""
    assume(recipe.schedule != Linear(warmup=0.999))
    steps, seen = 500, rates(recipe, 500)
    for begin, end in itertools.pairwise((0, *recipe.restarts, recipe.epochs)):
        cycle = seen[begin * steps : end * steps]
        assert 0 <= cycle[-1] < 0.3 * 0.01
        assert max(cycle) == pytest.approx(0.3, rel=0.01)


def test_restarts_are_counted_in_epochs_whatever_their_steps() -> None:
    recipe = Recipe(epochs=4, learning_rate=1.0, schedule=Linear(), restarts=(1, 2))
    assert rates(recipe, 1) == [1, 1, 1, 0.5]
    assert rates(recipe, 2) == [1, 0.5, 1, 0.5, 1, 0.75, 0.5, 0.25]


def test_a_plan_of_an_epoch_has_the_rates_of_its_restarts() -> None:
    """The engines get their rates from there."""
    recipe = Recipe(epochs=3, batch_size=10, learning_rate=1.0, schedule=Linear(), restarts=(1,))
    plans = [plan_epoch(recipe, 20, 0, epoch) for epoch in range(3)]
    assert [plan.rates.tolist() for plan in plans] == [[1, 0.5], [1, 0.75], [0.5, 0.25]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"restarts": [2, 1]}, "restarts must ascend and lie before the last epoch, 8, not [2, 1]"),
        ({"restarts": [2, 2]}, "restarts must ascend"),
        ({"restarts": [8]}, "lie before the last epoch, 8, not [8]"),
        ({"restarts": [2, 9]}, "lie before the last epoch"),
        ({"restarts": [0]}, "restarts.0"),
        ({"restarts": [1.0]}, "restarts.0"),
        ({"restarts": [True]}, "restarts.0"),
        ({"restarts": 2}, "restarts"),
        ({"schedule": {"kind": "constant"}}, "constant does not decay to zero"),
        ({"schedule": {"kind": "plateau"}}, "plateau does not decay to zero, which restarts need; take cosine, linear or"),
        ({"schedule": {"kind": "inverse-time", "rate": 0.3}}, "inverse-time does not decay to zero"),
    ],
)
def test_impossible_restarts_are_rejected(changes: dict[str, Any], message: str) -> None:
    good = {"epochs": 8, "schedule": {"kind": "cosine"}, "restarts": [1, 7]}
    assert Recipe.model_validate(good).restarts == (1, 7)
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(good | changes)
    assert message in first_problem(caught.value, Recipe.model_fields)


def test_another_restart_is_another_training() -> None:
    plain = Recipe(epochs=8, schedule=Cosine())
    others = [plain.model_copy(update={"restarts": restarts}) for restarts in ((), (1,), (2,), (1, 2))]
    assert len({one.model_dump_json() for one in others}) == len(set(others)) == 4
    for one in others:
        assert Recipe.model_validate_json(one.model_dump_json()) == one
        assert Recipe.model_validate(one.model_dump()) == one
