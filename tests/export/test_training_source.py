"""search.export.training_source: what a person can run trains as the engine does."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

from search.data.dataset import Dataset, load_dataset
from search.data.preprocessing import Pixels
from search.export.training_source import training_source
from search.networks.architecture import Architecture
from search.networks.layers import Activation, BatchNorm, GlobalAveragePool, SeparableConv, Softmax
from search.training.engine.augment import crop, cutout
from search.training.engine.base import optimizer_of
from search.training.measures import MEASURES, confusion_matrix
from search.training.model import build
from search.training.recipe import DECAYING, SCHEDULES, Augment, Constant, InverseTime, OneCycle, Plateau, Recipe, rate_at
from search.training.train import fit

# Keras 3.15 hands its variables to NumPy 2 in a way that NumPy calls outdated, whenever a model is saved.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")

NET = Architecture(
    (8, 8, 1), 10, (SeparableConv(16), BatchNorm(0.5), Activation("relu"), SeparableConv(10), GlobalAveragePool(), Softmax())
)
EVERYTHING = Augment(passes=2, flip="alternating", crop=2, shift=0.1, zoom=0.1, rotation=15, cutout=3, mixup=0.2)
RECIPES = {
    "plain": Recipe(),
    "everything": Recipe(
        epochs=3, optimizer="sgd", weight_decay=0.01, label_smoothing=0.1, clip_norm=1.0, ema=0.9, schedule=OneCycle(),
        restarts=(1,), augment=EVERYTHING, class_weights="balanced",
    ),
    "plateau": Recipe(epochs=2, optimizer="adamw", schedule=Plateau(), augment=Augment(flip=True, passes=2)),
}  # fmt: skip


def module(recipe: Recipe, **options: Any) -> ModuleType:
    made = ModuleType("training")
    exec(compile(training_source(recipe, **options), "training.py", "exec"), made.__dict__)
    return made


def digits(images: int) -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=images)


COURSES = [(kind, ()) for kind in SCHEDULES if kind not in (Constant, Plateau)] + [(kind, (2, 3)) for kind in DECAYING]


@pytest.mark.parametrize(("schedule", "restarts"), COURSES)
def test_the_learning_rate_is_the_recipes_in_every_step(schedule: Any, restarts: tuple[int, ...]) -> None:
    given = {"rate": 0.3} if schedule is InverseTime else {}
    recipe = Recipe(epochs=5, learning_rate=0.02, schedule=schedule(**given), restarts=restarts)
    rates = [module(recipe).learning_rate(step, 7) for step in range(5 * 7)]
    assert rates == pytest.approx([rate_at(recipe, step, 7) for step in range(5 * 7)], rel=1e-12)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_source_holds_only_what_is_used_and_is_clean(recipe: Recipe, tmp_path: Path) -> None:
    source = training_source(recipe)
    (tmp_path / "training.py").write_text(source)
    rules = ["--isolated", "--line-length", "120", "--select", "E,F,W,I,B,UP,C4,SIM,PTH,RUF,TID"]
    words = [sys.executable, "-m", "ruff", "check", *rules, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert 'monitor="val_accuracy"' in source and "Measure" not in source
    for word, used in {
        "warp": recipe.augment.zoom, "Schedule": recipe.schedule.kind == "one-cycle", "PASSES": recipe.augment.passes > 1,
        "Average": recipe.ema, "beta(": recipe.augment.mixup, "flipped": recipe.augment.flip, "math": recipe.ema,
        "class_weight": recipe.class_weights != "none",
        "clipnorm": recipe.clip_norm, "smoothing": recipe.label_smoothing, "RESTARTS": recipe.restarts,
    }.items():  # fmt: skip
        assert (word in source) == bool(used), word


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_optimizer_is_the_engines(name: Any) -> None:
    recipe = Recipe(optimizer=name, learning_rate=0.02, momentum=0.8, weight_decay=0.01, clip_norm=0.5)
    made = module(recipe)
    expression = next(line for line in training_source(recipe).splitlines() if "optimizer = " in line).split(" = ")[1]
    given, expected = (one.get_config() | {"name": ""} for one in (eval(expression, made.__dict__), optimizer_of(recipe)))
    assert given == expected


@pytest.mark.long
def test_it_trains_as_the_engine_does(tmp_path: Path) -> None:
    """Each epoch one batch of all images, so that their order does not matter; the same initial weights."""
    data = digits(200)
    kept = (data.y_train > 2) | (np.arange(200) % 4 == 0)  # the first three classes are rare
    data = replace(data, x_train=data.x_train[kept], y_train=data.y_train[kept])
    recipe = Recipe(
        class_weights="balanced",
        epochs=12, batch_size=1_000, optimizer="sgd", learning_rate=3.0, weight_decay=0.01, label_smoothing=0.1,
        clip_norm=0.3, ema=0.6, schedule=OneCycle(), restarts=(4,), initializer="he_normal",
    )  # fmt: skip
    ours = fit(NET, data, recipe, seed=3, metric="macro_f1")
    made, kept = module(recipe, metric="macro_f1"), tmp_path / "best.keras"
    splits = data.x_train, data.y_train, data.x_val, data.y_val
    theirs = made.train(lambda: build(NET, seed=3, initializer="he_normal"), Pixels().apply, *splits, kept, seed=0).history
    for key in ("loss", "accuracy", "val_loss", "val_accuracy", "val_macro_f1"):
        assert theirs[key] == pytest.approx([getattr(epoch, key) for epoch in ours.history], abs=2e-5), key
    assert theirs["val_loss"][-1] < theirs["val_loss"][0] - 0.03, "it learns, so the two could have come apart"
    for one, other in zip(keras.models.load_model(kept).get_weights(), ours.best_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_the_measure_is_that_of_the_study(metric: str) -> None:
    made, random = module(Recipe(), metric=metric), np.random.default_rng(0)
    for classes in (2, 3, 7):
        labels, predicted = (random.integers(0, classes - lacking, 40) for lacking in (1, 0))  # a class without images
        confusion = confusion_matrix(labels, predicted, classes)
        assert getattr(made, metric)(labels, predicted) == pytest.approx(MEASURES[metric].compute(confusion))


@pytest.mark.parametrize(
    "recipe",
    [RECIPES["everything"], pytest.param(RECIPES["plateau"], marks=pytest.mark.long)],
    ids=["everything", "plateau"],
)
def test_every_variation_of_images_runs(recipe: Recipe, tmp_path: Path) -> None:
    data = digits(100)
    made = module(recipe.model_copy(update={"batch_size": 32}), policy="mixed_bfloat16")
    splits = data.x_train, data.y_train, data.x_val, data.y_val
    history = made.train(lambda: build(NET, dtype=keras.config.dtype_policy().name), Pixels().apply, *splits,
                         tmp_path / "best.keras").history  # fmt: skip
    assert len(history["loss"]) == recipe.epochs
    assert np.isfinite(history["val_loss"]).all()
    assert keras.config.dtype_policy().name == "float32", "the policy is as it was"


def test_no_field_of_a_recipe_is_forgotten() -> None:
    """Each field is listed here once its plain Keras form exists; `initializer` and `normalize` are in the network's source.

    `deterministic` is not exported: it makes trainings on a GPU repeatable, and is no part of what is trained.
    """
    known = {"epochs", "batch_size", "optimizer", "learning_rate", "momentum", "weight_decay", "label_smoothing"}
    known |= {
        "class_weights",
        "clip_norm",
        "ema",
        "precision",
        "initializer",
        "normalize",
        "schedule",
        "restarts",
        "augment",
        "deterministic",
    }
    assert set(Recipe.model_fields) == known
    assert set(Augment.model_fields) == {"passes", "flip", "crop", "shift", "zoom", "rotation", "cutout", "mixup"}


def test_batches_hold_every_image_once_in_each_pass_and_flip_in_every_other() -> None:
    recipe = Recipe(batch_size=7, augment=Augment(flip="alternating", passes=3))
    images = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2, 1)
    batches = module(recipe).Batches(images, np.arange(10) % 2, 2, lambda given: given.astype("float32"), seed=0)
    turned = []  # of each pass: which images are flipped
    for _ in range(2):
        seen = np.concatenate([batches[index][0] for index in range(len(batches))])
        for one in np.split(seen, 3):
            turned.append({int(image.min()) // 4: bool(image[0, 0, 0] > image[0, 1, 0]) for image in one})
        batches.on_epoch_end()
    assert all(sorted(one) == list(range(10)) for one in turned), "each image once"
    assert 0 < sum(turned[0].values()) < 10
    for number, one in enumerate(turned):
        assert one == {image: flipped ^ (number % 2 == 1) for image, flipped in turned[0].items()}, number


@pytest.mark.parametrize(
    ("how", "of_engine"), [(Augment(crop=1), crop), (Augment(cutout=2), cutout)], ids=["crop", "cutout"]
)
def test_images_are_varied_in_all_the_ways_of_the_engine_and_in_no_other(how: Augment, of_engine: Any) -> None:
    image = (1 + np.arange(25, dtype=np.uint8)).reshape(5, 5, 1)
    batches = module(Recipe(batch_size=500, augment=how)).Batches(
        np.stack([image] * 500), np.zeros(500, int), 2, lambda given: given.astype("float32"), seed=0
    )
    ways = 3 if how.crop else 5
    corners = (np.stack(np.meshgrid(range(ways), range(ways)), axis=-1).reshape(-1, 2) + 0.5) / ways
    given = np.stack([image.astype("float32")] * len(corners))
    expected = np.asarray(of_engine(given, how.crop or how.cutout, corners.astype("float32")))
    found = {one.tobytes() for one in np.asarray(batches[0][0], "float32")}
    assert found == {one.tobytes() for one in expected}
    assert len(found) == ways**2
