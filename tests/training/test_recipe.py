"""A training recipe: its defaults, its file and its limits."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from search.errors import first_problem
from search.spaces.recipe import RecipeSpace
from search.training.recipe import (
    Augment,
    Constant,
    Linear,
    Recipe,
)

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
def test_a_bad_recipe_is_reported_in_one_line(record: Any, case: str) -> None:
    table, message = BAD[case]
    with pytest.raises(ValidationError) as caught:
        record.model_validate(table)
    line = first_problem(caught.value, record.model_fields)
    assert message in line
    assert len(line.splitlines()) == 1
