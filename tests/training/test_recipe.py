"""Schedules, and the [recipe] table that may leave parts of a training to be searched."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from search.errors import first_problem
from search.spaces.domains import Choices, Range
from search.spaces.recipe import RecipeSpace, complete, parameters, suggest
from search.training.engine.epoch import plan_epoch
from search.training.recipe import (
    Augment,
    Constant,
    Cosine,
    InverseTime,
    Linear,
    OneCycle,
    Plateau,
    Recipe,
    label,
    rate_at,
    strengthened,
)

# --- schedules -------------------------------------------------------------------------------------------------------


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


# --- restarts --------------------------------------------------------------------------------------------------------

DECAYS = (Cosine(), OneCycle(), OneCycle(warmup=0.6, start=3.0), Linear(), Linear(warmup=0.5), Linear(warmup=0.999))


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


# --- one recipe ------------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_plain_published_recipe() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer, recipe.learning_rate) == (50, 128, "adam", 1e-3)
    assert recipe.initializer == "glorot_uniform"
    assert recipe.schedule == Constant()
    assert (recipe.clip_norm, recipe.ema, recipe.precision) == (0, 0, "auto")
    assert recipe.augment == Augment(passes=1, flip=False, crop=0, shift=0.0, zoom=0.0, rotation=0.0, cutout=0, mixup=0.0)


def test_a_recipe_survives_its_file() -> None:
    recipe = Recipe(
        schedule=Linear(warmup=0.2),
        augment=Augment(passes=2, flip="alternating", crop=4, rotation=10, cutout=3, mixup=0.2),
        optimizer="sgd",
        learning_rate=1,
        clip_norm=2,
        ema=0.99,
        precision="bfloat16",
    )
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert hash(recipe) == hash(Recipe.model_validate(recipe.model_dump()))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"epoch": 50}, "epoch: unknown key, did you mean 'epochs'?"),
    "no epochs": ({"epochs": 0}, "epochs"),
    "epochs a fraction": ({"epochs": 50.0}, "epochs"),
    "epochs a bool": ({"epochs": True}, "epochs"),
    "epochs a word": ({"epochs": "50"}, "epochs"),
    "batch of 0": ({"batch_size": 0}, "batch_size"),
    "batch a fraction": ({"batch_size": 64.0}, "batch_size"),
    "batch a bool": ({"batch_size": True}, "batch_size"),
    "batch too large": ({"batch_size": 65_537}, "batch_size"),
    "optimizer": ({"optimizer": "adma"}, "optimizer"),
    "rate 0": ({"learning_rate": 0}, "learning_rate"),
    "rate negative": ({"learning_rate": -0.1}, "learning_rate"),
    "rate NaN": ({"learning_rate": float("nan")}, "learning_rate"),
    "rate infinite": ({"learning_rate": float("inf")}, "learning_rate"),
    "rate a word": ({"learning_rate": "0.1"}, "learning_rate"),
    "momentum 1": ({"momentum": 1.0}, "momentum"),
    "decay negative": ({"weight_decay": -1e-4}, "weight_decay"),
    "weights of classes": ({"class_weights": "equal"}, "class_weights"),
    "smoothing 1": ({"label_smoothing": 1.0}, "label_smoothing"),
    "clip negative": ({"clip_norm": -1.0}, "clip_norm"),
    "clip infinite": ({"clip_norm": float("inf")}, "clip_norm"),
    "average of everything": ({"ema": 1.0}, "ema"),
    "average negative": ({"ema": -0.1}, "ema"),
    "average a bool": ({"ema": True}, "ema"),
    "precision": ({"precision": "float16"}, "precision"),
    "initializer": ({"initializer": "he"}, "initializer"),
    "normalize a number": ({"normalize": 1}, "normalize"),
    "schedule a word": ({"schedule": "cosine"}, "schedule"),
    "schedule unknown": ({"schedule": {"kind": "step"}}, "schedule"),
    "schedule without kind": ({"schedule": {}}, "schedule"),
    "cosine with a rate": ({"schedule": {"kind": "cosine", "rate": 0.1}}, "schedule"),
    "inverse-time without rate": ({"schedule": {"kind": "inverse-time"}}, "schedule"),
    "inverse-time of 0": ({"schedule": {"kind": "inverse-time", "rate": 0.0}}, "schedule"),
    "warmup 0": ({"schedule": {"kind": "one-cycle", "warmup": 0.0}}, "schedule"),
    "warmup 1": ({"schedule": {"kind": "one-cycle", "warmup": 1.0}}, "schedule"),
    "start below 1": ({"schedule": {"kind": "one-cycle", "start": 0.5}}, "schedule"),
    "linear warmup 1": ({"schedule": {"kind": "linear", "warmup": 1.0}}, "schedule"),
    "linear warmup negative": ({"schedule": {"kind": "linear", "warmup": -0.1}}, "schedule"),
    "factor 1": ({"schedule": {"kind": "plateau", "factor": 1.0}}, "schedule"),
    "patience 0": ({"schedule": {"kind": "plateau", "patience": 0}}, "schedule"),
    "patience a fraction": ({"schedule": {"kind": "plateau", "patience": 2.5}}, "schedule"),
    "flip a number": ({"augment": {"flip": 1}}, "augment"),
    "flip a word": ({"augment": {"flip": "always"}}, "augment"),
    "no passes": ({"augment": {"passes": 0}}, "augment"),
    "passes a fraction": ({"augment": {"passes": 1.5}}, "augment"),
    "cutout negative": ({"augment": {"cutout": -1}}, "augment"),
    "cutout a fraction": ({"augment": {"cutout": 0.5}}, "augment"),
    "mixup negative": ({"augment": {"mixup": -0.1}}, "augment"),
    "mixup NaN": ({"augment": {"mixup": float("nan")}}, "augment"),
    "crop negative": ({"augment": {"crop": -1}}, "augment"),
    "shift 1": ({"augment": {"shift": 1.0}}, "augment"),
    "rotation too far": ({"augment": {"rotation": 181}}, "augment"),
    "augment unknown": ({"augment": {"flop": True}}, "augment"),
}


@pytest.mark.parametrize("record", [Recipe, RecipeSpace])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_recipe_is_told_in_one_line(record: Any, case: str) -> None:
    table, message = BAD[case]
    with pytest.raises(ValidationError) as caught:
        record.model_validate(table)
    line = first_problem(caught.value, record.model_fields)
    assert message in line
    assert len(line.splitlines()) == 1


# --- a recipe to be searched -----------------------------------------------------------------------------------------

SEARCHED = {
    "batch_size": [64, 128, 256],
    "optimizer": ["adam", "sgd"],
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "weight_decay": {"low": 0.0, "high": 0.05, "step": 0.01},
    "label_smoothing": [0.0, 0.1],
    "class_weights": ["none", "balanced"],
    "clip_norm": [0.0, 1.0],
    "momentum": {"low": 0.8, "high": 0.9},
    "initializer": ["he_normal", "glorot_uniform"],
    "normalize": [True, False],
}


def test_what_is_searched_is_a_parameter() -> None:
    of = RecipeSpace.model_validate({"epochs": 7, **SEARCHED})
    assert set(parameters(of)) == {f"recipe.{name}" for name in SEARCHED}
    assert parameters(of)["recipe.learning_rate"] == Range(1e-4, 1e-1, None, True)
    assert parameters(of)["recipe.batch_size"] == Choices((64, 128, 256))
    assert list(parameters(of)) == sorted(parameters(of))
    assert parameters(RecipeSpace()) == {}


def test_every_searchable_part_reaches_the_recipe() -> None:
    of = RecipeSpace.model_validate({"epochs": 7, **SEARCHED})
    sampled = {f"recipe.{name}": value for name, value in (
        ("batch_size", 256), ("optimizer", "sgd"), ("learning_rate", 0.05), ("weight_decay", 0.02),
        ("label_smoothing", 0.1), ("class_weights", "balanced"),
        ("clip_norm", 1.0), ("momentum", 0.85), ("initializer", "he_normal"), ("normalize", False),
    )}  # fmt: skip
    expected = Recipe(
        epochs=7,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.05,
        weight_decay=0.02,
        label_smoothing=0.1,
        class_weights="balanced",
        clip_norm=1.0,
        momentum=0.85,
        initializer="he_normal",
        normalize=False,
    )
    assert complete(of, sampled, normalize=True) == expected
    assert suggest(of, optuna.trial.FixedTrial(sampled), normalize=True) == expected


def test_each_optimizer_has_a_rate_of_its_own() -> None:
    table = {
        "optimizer": ["adamw", "sgd"],
        "learning_rates": {"adamw": {"low": 1e-4, "high": 1e-2, "log": True}, "sgd": [0.1, 0.5]},
    }
    of = RecipeSpace.model_validate(table)
    assert list(parameters(of)) == ["recipe.optimizer", "recipe.learning_rate.adamw", "recipe.learning_rate.sgd"]
    sampled: dict[str, Any] = {"recipe.learning_rate.adamw": 0.003, "recipe.learning_rate.sgd": 0.5}
    for optimizer, rate in (("adamw", 0.003), ("sgd", 0.5)):
        expected = Recipe.model_validate({"optimizer": optimizer, "learning_rate": rate})
        assert complete(of, sampled | {"recipe.optimizer": optimizer}, False) == expected
    assert complete(of, {}, False).learning_rate == 1e-4
    again = RecipeSpace.model_validate(of.model_dump(mode="json"))
    assert again == of
    assert parameters(again) == parameters(of)


def test_a_searched_warmup_is_that_of_the_schedule() -> None:
    table = {"schedules": [{"kind": "one-cycle", "start": 10.0}, {"kind": "linear"}], "warmup": [0.1, 0.3]}
    of = RecipeSpace.model_validate(table)
    assert parameters(of)["recipe.warmup"] == Choices((0.1, 0.3))
    sampled: dict[str, Any] = {"recipe.schedule": "linear", "recipe.warmup": 0.3}
    assert complete(of, sampled, False) == Recipe(schedule=Linear(warmup=0.3))
    assert complete(of, {}, False) == Recipe(schedule=OneCycle(warmup=0.1, start=10.0))
    assert complete(RecipeSpace(schedule=Linear(warmup=0.2)), {}, False).schedule == Linear(warmup=0.2)
    assert RecipeSpace.model_validate(of.model_dump(mode="json")) == of


def test_a_searched_strength_scales_the_extents_of_the_augmentation() -> None:
    augment = Augment(passes=2, flip="alternating", crop=4, shift=0.2, zoom=0.1, rotation=15, cutout=9, mixup=0.2)
    of = RecipeSpace(augment=augment, augment_strength=Choices((1.0, 0.5, 0.0, 2.0)))
    assert parameters(of) == {"recipe.augment_strength": Choices((1.0, 0.5, 0.0, 2.0))}
    made = {
        strength: complete(of, {"recipe.augment_strength": strength}, False).augment for strength in (0.0, 0.5, 1.0, 2.0)
    }
    assert made[1.0] == augment
    assert made[0.0] == Augment(passes=2, flip="alternating")
    assert made[0.5] == replaced(augment, crop=2, shift=0.1, zoom=0.05, rotation=7.5, cutout=4, mixup=0.1)
    assert made[2.0] == replaced(augment, crop=8, shift=0.4, zoom=0.2, rotation=30.0, cutout=18, mixup=0.4)


def replaced(augment: Augment, **changes: Any) -> Augment:
    return Augment.model_validate(augment.model_dump() | changes)


@given(st.floats(0, 4))
def test_any_strength_makes_an_augmentation_that_can_be(strength: float) -> None:
    most = Augment(crop=64, shift=0.9, zoom=0.9, rotation=180, cutout=256, mixup=10)
    assert Augment.model_validate(strengthened(most, strength).model_dump()) == strengthened(most, strength)
    assert strengthened(Augment(flip=True, passes=3), strength) == Augment(flip=True, passes=3)


def test_suggest_completes_what_the_trial_holds() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    of = RecipeSpace.model_validate(SEARCHED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, set[Any]] = {name: set() for name in SEARCHED}
    for _ in range(200):
        trial = study.ask()
        recipe = suggest(of, trial, normalize=False)
        assert set(trial.params) == set(parameters(of))
        declared = {name: domain.find(trial.params[name]) for name, domain in parameters(of).items()}
        assert recipe == complete(of, {name: value for name, value in declared.items() if value is not None}, False)
        for name in SEARCHED:
            seen[name].add(getattr(recipe, name))
    assert seen["batch_size"] == {64, 128, 256}
    assert seen["optimizer"] == {"adam", "sgd"}
    assert seen["weight_decay"] == {0.0, 0.01, 0.02, 0.03, 0.04, 0.05}
    assert seen["normalize"] == {True, False}
    assert seen["initializer"] == {"he_normal", "glorot_uniform"}
    assert all(0.8 <= momentum <= 0.9 for momentum in seen["momentum"])
    assert min(seen["learning_rate"]) < 1e-3 < 1e-2 < max(seen["learning_rate"])


def test_what_was_not_drawn_is_the_first_of_its_domain() -> None:
    of = RecipeSpace.model_validate(SEARCHED)
    recipe = complete(of, {}, normalize=False)
    assert (recipe.batch_size, recipe.optimizer, recipe.weight_decay, recipe.normalize) == (64, "adam", 0.0, True)
    assert recipe.learning_rate == 1e-4


def test_normalisation_is_as_the_data_says_unless_the_recipe_speaks() -> None:
    for given_by_data in (True, False):
        assert complete(RecipeSpace(), {}, given_by_data).normalize is given_by_data
        for own in (True, False):
            assert complete(RecipeSpace.model_validate({"normalize": own}), {}, given_by_data).normalize is own


def test_the_fixed_parts_reach_the_recipe() -> None:
    table = {
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 1,
        "schedule": {"kind": "inverse-time", "rate": 0.3},
        "augment": {"flip": "alternating", "crop": 4, "passes": 2},
        "ema": 0.99,
        "precision": "float32",
    }
    recipe = complete(RecipeSpace.model_validate(table), {}, False)
    assert recipe == Recipe.model_validate({**table, "normalize": False})
    assert complete(RecipeSpace(), {}, False) == Recipe()


@pytest.mark.parametrize("table", [{}, SEARCHED, {"learning_rate": 0.1, "schedule": {"kind": "cosine"}}], ids=len)
def test_a_recipe_space_is_written_as_it_is_read(table: dict[str, Any]) -> None:
    of = RecipeSpace.model_validate(table)
    assert RecipeSpace.model_validate(of.model_dump(mode="json")) == of


# --- alternatives ----------------------------------------------------------------------------------------------------

ALTERNATIVES = {
    "schedules": [{"kind": "constant"}, {"kind": "inverse-time", "rate": 0.319}, {"kind": "one-cycle", "warmup": 0.2}],
    "augments": [{}, {"flip": True, "crop": 4}, {"flip": "alternating", "rotation": 10}],
}
LABELS = {
    "schedule": ("constant", "inverse-time, rate 0.319", "one-cycle, warmup 0.2"),
    "augment": ("none", "flip, crop 4", "flip alternating, rotation 10.0"),
}


def test_several_schedules_and_augmentations_are_searched_by_their_labels() -> None:
    of = RecipeSpace.model_validate(ALTERNATIVES)
    assert parameters(of) == {f"recipe.{name}": Choices(labels) for name, labels in LABELS.items()}


def test_each_alternative_reaches_the_recipe() -> None:
    of, optuna_too = RecipeSpace.model_validate(ALTERNATIVES), optuna.trial.FixedTrial
    for schedule, augment in itertools.product(range(3), range(3)):
        sampled = {"recipe.schedule": LABELS["schedule"][schedule], "recipe.augment": LABELS["augment"][augment]}
        expected = Recipe.model_validate(
            {"schedule": ALTERNATIVES["schedules"][schedule], "augment": ALTERNATIVES["augments"][augment]}
        )
        assert complete(of, sampled, False) == suggest(of, optuna_too(sampled), False) == expected
    assert complete(of, {}, False) == Recipe()  # the first of each


def test_one_alternative_is_no_parameter() -> None:
    of = RecipeSpace.model_validate({"schedules": [{"kind": "cosine"}], "augments": [{"crop": 2}]})
    assert parameters(of) == {}
    assert complete(of, {}, False) == Recipe(schedule=Cosine(), augment=Augment(crop=2))


def test_alternatives_are_written_as_they_are_read() -> None:
    of = RecipeSpace.model_validate(ALTERNATIVES)
    again = RecipeSpace.model_validate(of.model_dump(mode="json"))
    assert again == of
    assert parameters(again) == parameters(of)
    assert RecipeSpace.model_validate_json(of.model_dump_json()) == of


PARTS = st.builds(
    Augment,
    passes=st.integers(1, 9),
    flip=st.sampled_from([True, False, "alternating"]),
    crop=st.integers(0, 64),
    shift=st.floats(0, 0.9),
    zoom=st.floats(0, 0.9),
    rotation=st.floats(0, 180),
    cutout=st.integers(0, 9),
    mixup=st.floats(0, 10),
) | st.sampled_from((Constant(), Plateau(), Cosine(), OneCycle(), Linear(), *DECAYS)) | st.builds(
    InverseTime, rate=st.floats(0, 100, exclude_min=True)
)  # fmt: skip


@given(PARTS, PARTS)
def test_a_label_is_that_of_one_schedule_or_augmentation_alone(one: Any, other: Any) -> None:
    assert label(one)
    if type(one) is type(other):
        assert (label(one) == label(other)) == (one == other)


SEARCHED_BAD: dict[str, tuple[dict[str, Any], str]] = {
    "half an image": ({"batch_size": {"low": 32, "high": 64, "step": 0.5}}, "batch_size"),
    "log from zero": ({"weight_decay": {"low": 0.0, "high": 0.1, "log": True}}, "weight_decay"),
    "rate range from zero": ({"learning_rate": {"low": 0.0, "high": 0.1}}, "learning_rate"),
    "rate lost in rounding": ({"learning_rate": {"low": 1e-12, "high": 1e-11, "step": 1e-12}}, "learning_rate"),
    "one bad choice": ({"optimizer": ["adam", "rmsprop"]}, "optimizer"),
    "empty": ({"optimizer": []}, "optimizer"),
    "epochs searched": ({"epochs": [10, 20]}, "epochs"),
    "average searched": ({"ema": [0.0, 0.99]}, "ema"),
    "precision searched": ({"precision": ["auto", "float32"]}, "precision"),
    "schedule searched": ({"schedule": [{"kind": "cosine"}]}, "schedule"),
    "range of optimizers": ({"optimizer": {"low": "adam", "high": "sgd"}}, "optimizer"),
    "top not reached": ({"batch_size": {"low": 32, "high": 100, "step": 32}}, "batch_size"),
    "momentum range to 1": ({"momentum": {"low": 0.9, "high": 1.0}}, "momentum"),
    "schedule and schedules": (
        {"schedule": {"kind": "cosine"}, "schedules": [{"kind": "linear"}, {"kind": "constant"}]},
        "schedules: schedule is given too; leave one of them out",
    ),
    "augment and augments": ({"augment": {"crop": 1}, "augments": [{}, {"crop": 2}]}, "augments: augment is given too"),
    "the same schedule twice": (
        {"schedules": [{"kind": "linear"}, {"kind": "linear", "warmup": 0.0}]},
        "schedules: names the same schedule twice",
    ),
    "the same augmentation twice": (
        {"augments": [{"rotation": 10}, {"crop": 0, "rotation": 10.0}]},
        "augments: names the same augment twice",
    ),
    "a bad schedule among others": ({"schedules": [{"kind": "cosine"}, {"kind": "step"}]}, "schedules.1"),
    "a bad augmentation among others": ({"augments": [{}, {"crop": -1}]}, "augments.1.crop"),
    "rates of some optimizers": (
        {"optimizer": ["adamw", "sgd"], "learning_rates": {"sgd": 0.1}},
        "learning_rates: needs one for each of adamw, sgd, not for sgd",
    ),
    "rates and one rate": (
        {"optimizer": "sgd", "learning_rates": {"sgd": 0.1}, "learning_rate": 0.2},
        "learning_rates: learning_rate is given too",
    ),
    "rate of an optimizer from zero": ({"optimizer": "sgd", "learning_rates": {"sgd": 0.0}}, "learning_rates.sgd"),
    "warm-up of a schedule without": ({"warmup": [0.1, 0.2]}, "warmup: the constant schedule has none"),
    "warm-up of one of two": (
        {"schedules": [{"kind": "linear"}, {"kind": "cosine"}], "warmup": 0.1},
        "warmup: the cosine schedule has none; take one-cycle or linear",
    ),
    "no warm-up of one-cycle": (
        {"schedule": {"kind": "one-cycle"}, "warmup": {"low": 0.0, "high": 0.3}},
        "warmup: must be above 0 for the one-cycle schedule",
    ),
    "warm-up to the end": ({"schedule": {"kind": "linear"}, "warmup": 1.0}, "warmup"),
    "strength of nothing": (
        {"augment": {"flip": True}, "augment_strength": [0.5, 1.0]},
        "effect on the augmentation 'flip'",
    ),
    "strength below zero": ({"augment": {"crop": 4}, "augment_strength": -1.0}, "augment_strength"),
    "a schedule for schedules": ({"schedules": {"kind": "cosine"}}, "schedules"),
}


@pytest.mark.parametrize("case", SEARCHED_BAD)
def test_a_bad_search_is_told_in_one_line(case: str) -> None:
    table, message = SEARCHED_BAD[case]
    with pytest.raises(ValidationError) as caught:
        RecipeSpace.model_validate(table)
    line = first_problem(caught.value, RecipeSpace.model_fields)
    assert message in line
    assert len(line.splitlines()) == 1


def test_deterministic_kernels_are_an_option_that_leaves_other_recipes_as_they_were() -> None:
    """A stored study without the key keeps its digest, and a checkpoint its identity."""
    space = RecipeSpace.model_validate({"deterministic": True})
    assert complete(space, {}, False).deterministic
    assert space.model_dump(mode="json")["deterministic"] is True
    for record in (Recipe(), RecipeSpace()):
        assert not record.deterministic
        assert "deterministic" not in record.model_dump(mode="json")
