"""A recipe whose values are searched."""

from __future__ import annotations

import itertools
import random
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search.errors import first_problem
from search.spaces.domains import Choices, Range
from search.spaces.recipe import RecipeSpace, complete, encode, first_difference, parameters, suggest
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
    strengthened,
)
from tests.support.strategies import DECAYS

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


def test_a_searched_value_is_a_parameter() -> None:
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


@pytest.mark.parametrize(
    "table",
    [
        SEARCHED,
        {
            "optimizer": ["adamw", "sgd"],
            "learning_rates": {"adamw": {"low": 1e-4, "high": 1e-2, "log": True}, "sgd": [0.1, 0.5]},
        },
        {
            "schedules": [{"kind": "one-cycle"}, {"kind": "one-cycle", "start": 9.0}, {"kind": "linear"}],
            "warmup": [0.1, 0.3],
        },
        {"augments": [{"zoom": 0.1}, {"crop": 4, "flip": True}], "augment_strength": [0.5, 1.0, 2.0]},
        {"augment": {"rotation": 15}, "augment_strength": {"low": 0.0, "high": 2.0, "step": 0.1}},
    ],
)
def test_encode_finds_the_values_of_a_recipe(table: dict[str, Any]) -> None:
    of = RecipeSpace.model_validate(table)
    generator = random.Random(0)
    for _ in range(30):
        values = {name: domain.draw(generator) for name, domain in parameters(of).items()}
        recipe = complete(of, values, False)
        found = encode(of, recipe, {})
        assert found.keys() == values.keys()
        assert first_difference(complete(of, found, False), recipe) is None


def test_encode_takes_what_a_recipe_does_not_show_from_known_values() -> None:
    of = RecipeSpace.model_validate({"augment": {"rotation": 15}, "augment_strength": {"low": 0.0, "high": 2.0}})
    values: dict[str, Any] = {"recipe.augment_strength": 0.123}
    assert encode(of, complete(of, values, False), values) == values


def test_a_recipe_that_a_space_does_not_have_is_reported_by_its_first_difference() -> None:
    of, recipe = RecipeSpace(batch_size=Choices((32, 64))), Recipe(batch_size=128, learning_rate=0.5)
    assert encode(of, recipe, {}) == {"recipe.batch_size": 32}
    assert first_difference(complete(of, {"recipe.batch_size": 32}, False), recipe) == "batch_size is 128"
    assert first_difference(Recipe(), Recipe(schedule=Linear())) == "schedule is linear"
    assert first_difference(Recipe(), Recipe(deterministic=True)) == "deterministic is True"
    assert first_difference(Recipe(deterministic=True), Recipe()) == "deterministic is False"


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


def test_a_value_that_was_not_sampled_is_the_first_of_its_domain() -> None:
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
def test_a_bad_search_is_reported_in_one_line(case: str) -> None:
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
