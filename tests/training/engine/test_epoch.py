"""Plans of epochs: every image once a pass, and everything from (seed, epoch) alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.training.engine.epoch import EpochPlan, plan_epoch
from search.training.recipe import Augment, Recipe, rate_at
from tests.support.strategies import recipes

SEEDS = st.integers(0, 2**31 - 1)


def arrays(plan: EpochPlan) -> dict[str, Any]:
    return {field.name: np.asarray(getattr(plan, field.name)).tolist() for field in fields(plan)}


# --- order -----------------------------------------------------------------------------------------------------------


@given(recipes(), st.integers(1, 60), SEEDS, st.integers(0, 5))
def test_each_pass_sees_every_image_once(recipe: Recipe, images: int, seed: int, epoch: int) -> None:
    plan = plan_epoch(recipe, images, seed, epoch)
    passes = plan.order.reshape(recipe.augment.passes, images)
    np.testing.assert_array_equal(np.sort(passes), np.tile(np.arange(images), (recipe.augment.passes, 1)))
    assert plan.flipped.shape == plan.order.shape


@given(recipes(), st.integers(1, 60), SEEDS, st.integers(0, 5))
def test_every_step_has_a_rate_and_a_share_the_partial_last_batch_too(
    recipe: Recipe, images: int, seed: int, epoch: int
) -> None:
    plan = plan_epoch(recipe, images, seed, epoch)
    places = range(0, images * recipe.augment.passes, recipe.batch_size)
    assert plan.steps == len(plan.rates) == len(plan.shares) == len(places)


@pytest.mark.parametrize(
    ("images", "passes", "batch_size", "steps"), [(300, 1, 64, 5), (300, 1, 300, 1), (300, 1, 299, 2), (300, 2, 200, 3)]
)
def test_a_batch_may_lie_in_two_passes_and_only_the_last_is_short(
    images: int, passes: int, batch_size: int, steps: int
) -> None:
    assert plan_epoch(Recipe(batch_size=batch_size, augment=Augment(passes=passes)), images, 0, 0).steps == steps


def test_the_order_is_another_in_each_pass_epoch_and_seed() -> None:
    recipe = Recipe(augment=Augment(passes=3))
    orders = [
        *plan_epoch(recipe, 100, 0, 0).order.reshape(3, 100),
        *plan_epoch(recipe, 100, 0, 1).order.reshape(3, 100),
        *plan_epoch(recipe, 100, 1, 0).order.reshape(3, 100),
    ]
    assert len({order.tobytes() for order in orders}) == 9


@given(recipes(), st.integers(1, 40), SEEDS, st.integers(0, 5))
def test_seed_and_epoch_decide_everything(recipe: Recipe, images: int, seed: int, epoch: int) -> None:
    """An epoch does not depend on those before it: a training can resume after any."""
    first = arrays(plan_epoch(recipe, images, seed, epoch))
    plan_epoch(recipe, images, seed, epoch + 1)
    assert arrays(plan_epoch(recipe, images, seed, epoch)) == first


def test_values_sampled_inside_the_step_have_a_seed_for_each_epoch() -> None:
    seeds = {plan_epoch(Recipe(), 9, seed, epoch).seed for seed in (0, 1) for epoch in range(5)}
    assert len(seeds) == 10
    assert all(0 <= seed < 2**31 for seed in seeds)


# --- flips -----------------------------------------------------------------------------------------------------------


def test_no_image_is_flipped_where_the_recipe_does_not() -> None:
    assert not plan_epoch(Recipe(), 1000, 0, 0).flipped.any()


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("flip", [True, "alternating"])
def test_about_half_of_the_images_are_flipped(flip: Any, epoch: int) -> None:
    """Of 2000; five standard deviations are 112."""
    plan = plan_epoch(Recipe(augment=Augment(flip=flip)), 2000, 0, epoch)
    assert 888 < plan.flipped.sum() < 1112
    assert 388 < plan.flipped[:1000].sum() < 612


def test_flips_are_drawn_anew_in_each_pass_and_epoch_and_from_the_seed() -> None:
    recipe = Recipe(augment=Augment(flip=True, passes=2))
    plans = [plan_epoch(recipe, 400, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    by_image = [of_image(plan, 400) for plan in plans]
    by_place = [plan.flipped.reshape(2, 400) for plan in plans]
    passes = np.concatenate([*by_image, *by_place])
    for one in range(12):
        for other in range(one):
            assert 120 < (passes[one] == passes[other]).sum() < 280  # not the same, not the opposite


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 50), SEEDS, st.integers(0, 4))
def test_alternating_turns_every_image_from_pass_to_pass(
    images: int, passes: int, batch_size: int, seed: int, epoch: int
) -> None:
    """Over the end of the epoch, too."""
    recipe = Recipe(batch_size=batch_size, augment=Augment(flip="alternating", passes=passes))
    seen = np.concatenate([of_image(plan_epoch(recipe, images, seed, number), images) for number in (epoch, epoch + 1)])
    np.testing.assert_array_equal(seen[1:], ~seen[:-1])


def test_alternating_starts_from_the_seed() -> None:
    recipe = Recipe(augment=Augment(flip="alternating"))
    first, other = (of_image(plan_epoch(recipe, 400, seed, 0), 400) for seed in (0, 1))
    assert 120 < (first == other).sum() < 280


def of_image(plan: EpochPlan, images: int) -> Any:
    """(passes, images): whether each image is flipped in each pass."""
    order, flipped = plan.order.reshape(-1, images), plan.flipped.reshape(-1, images)
    return np.take_along_axis(flipped, np.argsort(order, axis=1), axis=1)


# --- rates and shares ------------------------------------------------------------------------------------------------


@given(recipes(), st.integers(1, 60), st.sampled_from((1.0, 0.5, 0.01)))
def test_the_rates_of_all_epochs_are_those_of_the_schedule_times_the_factor(
    recipe: Recipe, images: int, factor: float
) -> None:
    plans = [plan_epoch(recipe, images, 0, epoch, factor=factor) for epoch in range(recipe.epochs)]
    steps = math.ceil(images * recipe.augment.passes / recipe.batch_size)
    expected = [rate_at(recipe, step, steps) * factor for step in range(recipe.epochs * steps)]
    np.testing.assert_allclose(np.concatenate([plan.rates for plan in plans]), expected, rtol=1e-6)


def test_without_mixup_a_batch_is_itself() -> None:
    assert set(plan_epoch(Recipe(batch_size=1), 50, 0, 0).shares) == {1}


@given(st.floats(0.01, 10), SEEDS, st.integers(0, 5))
def test_a_mixed_batch_keeps_the_larger_share(alpha: float, seed: int, epoch: int) -> None:
    shares = plan_epoch(Recipe(batch_size=1, augment=Augment(mixup=alpha)), 40, seed, epoch).shares
    assert (shares >= 0.5).all()
    assert (shares <= 1).all()


@pytest.mark.parametrize(
    ("alpha", "share"),
    [
        (1.0, lambda u: 0.5 + u / 2),  # Beta(1, 1) is uniform, and so its larger part on [0.5, 1]
        (0.5, lambda u: (1 + np.sin(np.pi * u / 2)) / 2),  # Beta(1/2, 1/2) is the arcsine distribution
    ],
)
def test_shares_have_the_distribution_of_the_larger_part(alpha: float, share: Callable[[Any], Any]) -> None:
    shares = plan_epoch(Recipe(batch_size=1, augment=Augment(mixup=alpha)), 20_000, 0, 0).shares
    quantiles = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(np.quantile(shares, quantiles), share(quantiles), atol=0.01)


def test_shares_are_another_in_each_step_epoch_and_seed() -> None:
    recipe = Recipe(batch_size=1, augment=Augment(mixup=0.5))
    shares = np.concatenate([plan_epoch(recipe, 50, seed, epoch).shares for seed, epoch in ((0, 0), (0, 1), (1, 0))])
    assert len(set(shares.tolist())) > 140


# --- one choice does not change another ------------------------------------------------------------------------------


def test_sampled_values_do_not_depend_on_other_options() -> None:
    """So that two recipes that differ in one thing are compared on the same draws of all others."""
    plain, all_on = (plan_epoch(Recipe(augment=how), 200, 3, 1) for how in (Augment(), Augment(flip=True, mixup=0.5)))
    alternating = plan_epoch(Recipe(augment=Augment(flip="alternating", mixup=0.5)), 200, 3, 1)
    assert plain.seed == all_on.seed
    np.testing.assert_array_equal(plain.order, all_on.order)
    np.testing.assert_array_equal(all_on.shares, alternating.shares)
