"""Keys of trainings against real trainings: equal keys mean bit-equal weights, and other keys other weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from search.data.dataset import Dataset
from search.networks.architecture import Architecture
from search.networks.layers import BatchNorm, Dense, GlobalAveragePool, SeparableConv, Softmax
from search.training.recipe import Augment, Cosine, InverseTime, Linear, OneCycle, Plateau, Recipe
from search.training.result import Weights
from search.training.train import fit
from search.tuning.candidate import DataFacts, canonical_recipe

NETWORK = Architecture((8, 8, 1), 3, (SeparableConv(4), BatchNorm(), GlobalAveragePool(), Dense(3), Softmax()), "small")
SEED = 5
BALANCED, UNBALANCED = (20, 20, 20), (40, 12, 8)  # training images of each class


@cache
def images(counts: tuple[int, ...]) -> Dataset:
    """Noise around a grey level of its own for each class."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    levels = 60 + 60 * labels[:, None, None, None] + generator.normal(0, 40, (len(labels), 8, 8, 1))
    pixels = np.clip(levels, 0, 255).astype(np.uint8)
    return Dataset("noise", pixels, labels, pixels[:20], labels[:20], None, None, ("a", "b", "c"), "course", f"{counts}")


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"epochs": 1, "batch_size": 16, "learning_rate": 0.01} | changes)


@cache
def weights(recipe: Recipe, counts: tuple[int, ...]) -> Weights:
    """Of a real training."""
    return fit(NETWORK, images(counts), recipe, seed=SEED).best_weights


def are_equal(one: Recipe, other: Recipe, counts: tuple[int, ...]) -> bool:
    """True if the trainings are bit-equal."""
    return all(np.array_equal(*pair) for pair in zip(weights(one, counts), weights(other, counts), strict=True))


def have_one_key(one: Recipe, other: Recipe, counts: tuple[int, ...]) -> bool:
    facts = DataFacts.of(images(counts))
    return canonical_recipe(one, facts) == canonical_recipe(other, facts)


SAME: list[tuple[str, dict[str, Any], dict[str, Any], tuple[int, ...]]] = [
    ("momentum of adam", {"momentum": 0.8}, {"momentum": 0.9}, UNBALANCED),
    ("adam and adamw without decay", {}, {"optimizer": "adamw"}, UNBALANCED),
    (
        "adam and adamw with the same decay",
        {"weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1, "momentum": 0.5},
        UNBALANCED,
    ),
    ("class weights of balanced classes", {}, {"class_weights": "balanced"}, BALANCED),
    ("inverse time within one epoch", {}, {"schedule": InverseTime(rate=0.5)}, UNBALANCED),
    ("a plateau that cannot cut", {"epochs": 2}, {"epochs": 2, "schedule": Plateau(patience=1)}, UNBALANCED),
    (
        "warm-ups of as many steps",
        {"schedule": Linear(warmup=0.25)},
        {"schedule": Linear(warmup=0.3)},
        UNBALANCED,
    ),
    (
        "cutouts that cover the image",
        {"augment": Augment(cutout=16)},
        {"augment": Augment(cutout=200)},
        UNBALANCED,
    ),
    ("batches of all images", {"batch_size": 60}, {"batch_size": 512}, UNBALANCED),
]

DIFFERENT: list[tuple[str, dict[str, Any], dict[str, Any], tuple[int, ...]]] = [
    ("momentum of sgd", {"optimizer": "sgd", "momentum": 0.8}, {"optimizer": "sgd"}, UNBALANCED),
    ("adam and sgd", {}, {"optimizer": "sgd"}, UNBALANCED),
    ("decay of adamw", {"optimizer": "adamw"}, {"optimizer": "adamw", "weight_decay": 0.1}, UNBALANCED),
    ("class weights of unbalanced classes", {}, {"class_weights": "balanced"}, UNBALANCED),
    ("label smoothing", {}, {"label_smoothing": 0.1}, UNBALANCED),
    ("clipping", {}, {"optimizer": "sgd", "clip_norm": 1e-3}, UNBALANCED),
    ("moving average", {}, {"ema": 0.5}, UNBALANCED),
    ("initialiser", {}, {"initializer": "he_normal"}, UNBALANCED),
    ("normalisation", {}, {"normalize": True}, UNBALANCED),
    ("schedule", {}, {"schedule": Cosine()}, UNBALANCED),
    ("start of one-cycle", {"schedule": OneCycle()}, {"schedule": OneCycle(start=5.0)}, UNBALANCED),
    ("warm-ups of other lengths", {"schedule": Linear()}, {"schedule": Linear(warmup=0.5)}, UNBALANCED),
    ("flips", {}, {"augment": Augment(flip=True)}, UNBALANCED),
    ("cutouts within the image", {"augment": Augment(cutout=2)}, {"augment": Augment(cutout=4)}, UNBALANCED),
    ("mixup", {}, {"augment": Augment(mixup=0.5)}, UNBALANCED),
    ("batches of some images", {}, {"batch_size": 59}, UNBALANCED),
]


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        pytest.param(*case[1:], id=case[0], marks=[pytest.mark.long] if number % 2 else [])
        for number, case in enumerate(SAME)
    ],
)
def test_equal_keys_are_bit_equal_trainings(one: dict[str, Any], other: dict[str, Any], counts: tuple[int, ...]) -> None:
    assert recipe(**one) != recipe(**other)
    assert have_one_key(recipe(**one), recipe(**other), counts)
    assert are_equal(recipe(**one), recipe(**other), counts)


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        pytest.param(*case[1:], id=case[0], marks=[pytest.mark.long] if number % 4 else [])
        for number, case in enumerate(DIFFERENT)
    ],
)
def test_other_keys_are_other_trainings(one: dict[str, Any], other: dict[str, Any], counts: tuple[int, ...]) -> None:
    assert not have_one_key(recipe(**one), recipe(**other), counts)
    assert not are_equal(recipe(**one), recipe(**other), counts)


def test_the_canonical_form_of_a_canonical_recipe_is_itself() -> None:
    for _, one, other, counts in (*SAME, *DIFFERENT):
        facts = DataFacts.of(images(counts))
        for changes in (one, other):
            canonical = canonical_recipe(recipe(**changes), facts)
            assert canonical_recipe(canonical, facts) == canonical


def test_without_the_number_of_images_batches_and_warm_ups_are_kept_apart() -> None:
    facts = DataFacts((8, 8, 1), 3, "data")
    for one, other in (
        ({"batch_size": 60}, {"batch_size": 61}),
        ({"schedule": Linear()}, {"schedule": Linear(warmup=0.001)}),
    ):
        assert canonical_recipe(recipe(**one), facts) != canonical_recipe(recipe(**other), facts)
