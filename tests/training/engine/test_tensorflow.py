"""The engine on TensorFlow against Keras' own training step, one step at a time from the same weights."""

from __future__ import annotations

import itertools
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import confusion_matrix
from sklearn.utils.class_weight import compute_class_weight

from search.data.dataset import Dataset, load_dataset
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Gate,
    GlobalAveragePool,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.training.engine.base import class_weights_of, optimizer_of, validation_of
from search.training.engine.epoch import plan_epoch
from search.training.engine.tensorflow import TensorFlowEngine
from search.training.model import build
from search.training.recipe import Recipe
from tests.support.snippet import snippet
from tests.support.tiers import tiered

ROOT = Path(__file__).parents[3]
CLOSE = 1e-5

EVERY_KIND = Architecture(
    (8, 8, 1),
    10,
    (
        *(
            SeparableConv(12, 3, depth_multiplier=4),
            BatchNorm(momentum=0.9),
            Activation("relu"),
            Dropout(0.2),
        ),
        Residual((SeparableConv(16, 5, dilation=1), BatchNorm(), Gate("silu")), (Conv(8, 1),)),
        *(SpatialSeparableConv(16, 3), BatchNorm(epsilon=1e-6), Activation("gelu"), MaxPool()),
        *(Conv(20, 3, use_bias=True), Activation("hard_silu"), Dropout(0.1), AveragePool(3, 1, "same")),
        *(SeparableConv(24, 3, stride=2), BatchNorm(), Activation("silu"), Dropout(0.5)),
        *(Flatten(), Dense(16, use_bias=False), BatchNorm(), Activation("elu"), Dense(10), Softmax()),
    ),
    "every_kind",
)
PYRAMID = Architecture(
    (8, 8, 1),
    10,
    (
        *(SeparableConv(16), BatchNorm(), Activation("relu"), MaxPool(), Dropout(0.15)),
        *(SeparableConv(24), Activation("relu"), BatchNorm(), SeparableConv(10, 1, use_bias=True)),
        *(GlobalAveragePool(), Softmax()),
    ),
    "pyramid",
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=150)


@pytest.fixture(scope="module")
def unbalanced(digits: Dataset) -> Dataset:
    """With 75 training images of the first class, 3 of each of the next five, 15 of the others."""
    labels, seen = digits.y_train.copy(), Counter[int]()
    for place, label in enumerate(digits.y_train):
        seen[int(label)] += 1
        if 1 <= label <= 5 and seen[int(label)] > 3:
            labels[place] = 0
    return replace(digits, y_train=labels)


def engine_of(data: Dataset, recipe: Recipe, network: Architecture = PYRAMID, **rest: Any) -> TensorFlowEngine:
    return TensorFlowEngine(network, data, recipe, Pixels((0.3,), (0.4,)), seed=3, **rest)


def masked_dropout(engine: TensorFlowEngine) -> type[keras.layers.Layer]:
    """Plain dropout by the very masks that the engine's layer of this name applies in the step that its draws stand at."""

    class Masked(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, rate: float, seed: int, **rest: Any) -> None:
            super().__init__(**rest)

        def call(self, inputs: Any, training: bool = False) -> Any:
            return inputs * engine.model.get_layer(self.name).mask_of(tf.shape(inputs)) if training else inputs

    return Masked


class KerasStep:
    """Keras' own training step on standard layers, dropout masks apart."""

    def __init__(
        self, network: Architecture, recipe: Recipe, engine: TensorFlowEngine, weights: dict[int, float] | None = None
    ) -> None:
        layers = SimpleNamespace(**vars(keras.layers) | {"Dropout": masked_dropout(engine)})
        self.model = build(network, seed=0, layers=layers)
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
        self.model.compile(optimizer_of(recipe), loss, run_eagerly=True, jit_compile=False)
        self.model.optimizer.build(self.model.trainable_variables)
        self.class_weight = weights

    @property
    def variables(self) -> list[Any]:
        return [*self.model.weights, *self.model.optimizer.variables]

    def __call__(self, engine: TensorFlowEngine, step: int) -> float:
        for variable, value in zip(self.variables, engine.state()[: len(self.variables)], strict=True):
            variable.assign(value)
        images, targets = engine.batch(tf.constant(step))  # sets the draws to this step, too
        self.model.optimizer.learning_rate = engine.rates[step]
        return float(self.model.train_on_batch(images, targets, class_weight=self.class_weight))


def apart(ours: Any, theirs: Any) -> float:
    """The distance of two tensors, relative to the length of the second."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-12))


def whole(tensors: Any) -> Any:
    """All of them as one vector; scalars, which are counters and rates, apart."""
    arrays = [np.asarray(tensor, np.float64) for tensor in tensors]
    return np.concatenate([array.ravel() for array in arrays if array.ndim])


RECIPES: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "learning_rate": 0.003},
    "adam, clipped, one-cycle": {"optimizer": "adam", "clip_norm": 0.3, "schedule": {"kind": "one-cycle"}},
    "adamw, decay, cosine": {"optimizer": "adamw", "weight_decay": 0.1, "schedule": {"kind": "cosine"}},
    "sgd": {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1, "schedule": {"kind": "inverse-time", "rate": 0.3}},
    "sgd, nesterov, decay, linear": {
        **{"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1, "weight_decay": 0.01},
        **{"schedule": {"kind": "linear", "warmup": 0.2}, "label_smoothing": 0.1, "class_weights": "balanced"},
    },
    "augmented": {
        "class_weights": "balanced",
        "augment": {"flip": True, "crop": 2, "shift": 0.1, "zoom": 0.1, "rotation": 10.0, "cutout": 3, "mixup": 0.4},
    },
}


OTHER_STEPS = (
    ("sgd, nesterov, decay, linear", EVERY_KIND),
    ("adam", PYRAMID),
    ("adam, clipped, one-cycle", PYRAMID),
    ("augmented", PYRAMID),
)


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("adamw, decay, cosine", EVERY_KIND),
        pytest.param("augmented", EVERY_KIND, marks=pytest.mark.long),
        ("sgd", PYRAMID),
        *(pytest.param(*case, marks=pytest.mark.long) for case in OTHER_STEPS),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_each_step_is_keras_own(name: str, network: Architecture, unbalanced: Dataset) -> None:
    """Loss, and what the step changes in weights, batch norm's averages and the optimizer's memory; three epochs.

    A value within rounding of the edge of a ReLU, or a tie in a max pool, may change a gradient: that happens in one step or
    two at most, and the error is then still small.
    """
    recipe = Recipe.model_validate({"epochs": 6, "batch_size": 40} | RECIPES[name])
    engine = engine_of(unbalanced, recipe, network)
    counts = Counter(unbalanced.y_train.tolist())
    balanced = {label: 150 / (10 * count) for label, count in counts.items()}
    reference = KerasStep(network, recipe, engine, balanced if recipe.class_weights == "balanced" else None)
    errors = []
    for epoch in (0, 2, 4):
        plan = plan_epoch(recipe, len(unbalanced.x_train), 5, epoch)
        engine.begin(plan)
        loss_before = 0.0
        for step in range(plan.steps):
            before = whole(engine.state())
            expected = reference(engine, step)
            loss = engine.train(step, step + 1).loss
            size = 40 if step < plan.steps - 1 else 30
            assert (loss - loss_before) / size == pytest.approx(expected, rel=CLOSE)
            loss_before = loss
            errors.append(apart(whole(engine.state()) - before, whole(reference.variables) - before))
    assert len(errors) == 12
    assert sorted(errors)[-3] < CLOSE
    assert max(errors) < 1e-2


@pytest.mark.parametrize("network", tiered((EVERY_KIND, PYRAMID), quick=(EVERY_KIND,)), ids=lambda network: network.name)
def test_gradients_are_keras_own(network: Architecture, digits: Dataset) -> None:
    """Of every tensor, as far as it is not small beside the others, where rounding is all that is left of it."""
    recipe = Recipe(epochs=1, batch_size=40)
    engine = engine_of(digits, recipe, network)
    reference = KerasStep(network, recipe, engine)
    engine.begin(plan_epoch(recipe, len(digits.x_train), 5, 0))
    for step in range(3):
        images, targets = engine.batch(tf.constant(step))
        for model in (engine.model, reference.model):
            model.set_weights(engine.weights())
        gradients = []
        for model in (engine.model, reference.model):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(keras.losses.categorical_crossentropy(targets, model(images, training=True)))
            gradients.append(tape.gradient(loss, model.trainable_variables))
        length = np.linalg.norm(whole(gradients[1]))
        for variable, ours, theirs in zip(engine.model.trainable_variables, *gradients, strict=True):
            error = np.linalg.norm(np.float64(ours) - np.float64(theirs))
            assert error < CLOSE * max(np.linalg.norm(theirs), 0.01 * length), (variable.path, step)
        engine.train(step, step + 1)


def test_steps_may_be_cut_into_calls_at_will(digits: Dataset) -> None:
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": 16, "ema": 0.9} | RECIPES["augmented"])
    plan = plan_epoch(recipe, len(digits.x_train), 5, 0)
    engine, found = engine_of(digits, recipe), []
    start = engine.state()
    for cuts in ([0, 10], [0, 1, 10], [0, 4, 5, 9, 10]):
        engine.restore(start)
        engine.begin(plan)
        for first, last in itertools.pairwise(cuts):
            sums = engine.train(first, last)
        found.append((sums, [array.tobytes() for array in engine.state()]))
    assert found[0] == found[1] == found[2]


@pytest.mark.long
def test_graphs_for_batches_of_one_size_compute_the_same(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As traced for a GPU: one graph for full batches, one for the partial last batch."""
    layers = tuple(layer for layer in PYRAMID.layers if not isinstance(layer, Dropout))  # other masks on a GPU
    network = replace(PYRAMID, layers=layers)
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": 40, "ema": 0.9} | RECIPES["augmented"])
    plan = plan_epoch(recipe, len(digits.x_train), 5, 0)
    outcomes = []
    for is_accelerated in (False, True):
        monkeypatch.setattr("search.training.device.is_accelerated", lambda found=is_accelerated: found)
        engine = engine_of(digits, recipe, network)
        engine.begin(plan)
        engine.train(0, 3)
        sums = engine.train(3, 4)
        outcomes.append((len(engine._train), sums, whole(engine.state()), engine.evaluate(averaged=True)))
    (one, sums, state, measured), (two, sums_by_size, state_by_size, measured_by_size) = outcomes
    assert (one, two) == (1, 2)
    assert sums_by_size == pytest.approx(sums, rel=CLOSE)
    assert measured_by_size[:2] == pytest.approx(measured[:2], rel=CLOSE)
    assert apart(state_by_size, state) < CLOSE


def test_the_partial_last_batch_is_trained_on(digits: Dataset) -> None:
    recipe = Recipe(epochs=1, batch_size=149)
    engine = engine_of(digits, recipe)
    engine.begin(plan_epoch(recipe, 150, 0, 0))
    images, targets = engine.batch(tf.constant(1))
    assert images.shape == (1, 8, 8, 1)
    assert targets.shape == (1, 10)
    before = engine.state()
    engine.train(1, 2)
    assert any(not np.array_equal(old, new) for old, new in zip(before, engine.state(), strict=True))


def test_a_batch_holds_the_images_of_its_place_in_the_order_with_their_labels(digits: Dataset) -> None:
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": 64, "augment": {"flip": True}})
    engine = engine_of(digits, recipe)
    plan = plan_epoch(recipe, 150, 0, 0)
    engine.begin(plan)
    for step in range(3):
        images, targets = engine.batch(tf.constant(step))
        place = slice(64 * step, 64 * (step + 1))
        chosen, flipped = plan.order[place], plan.flipped[place]
        plain = Pixels((0.3,), (0.4,)).apply(digits.x_train[chosen])
        plain[flipped] = plain[flipped][:, :, ::-1]
        np.testing.assert_allclose(images, plain, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(np.argmax(targets, axis=1), digits.y_train[chosen])


def test_evaluation_is_keras_own_on_standard_layers_and_never_augments(digits: Dataset) -> None:
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": 40, "ema": 0.5} | RECIPES["augmented"])
    engine = engine_of(digits, recipe, EVERY_KIND, confusion=True)
    engine.begin(plan_epoch(recipe, 150, 0, 0))
    engine.train(0, 4)
    standard = build(EVERY_KIND, seed=0)
    standard.compile("sgd", "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    images, targets = Pixels((0.3,), (0.4,)).apply(digits.x_val), np.eye(10)[digits.y_val]
    before = engine.state()
    for averaged in (False, True):
        standard.set_weights(engine.weights(averaged=averaged))
        evaluated = engine.evaluate(averaged=averaged)
        assert evaluated[:2] == pytest.approx(standard.evaluate(images, targets, verbose=0), rel=CLOSE)
        predicted = standard.predict(images, verbose=0).argmax(axis=1)
        assert np.array_equal(evaluated.confusion, confusion_matrix(digits.y_val, predicted, labels=range(10)))
    assert all(np.array_equal(old, new) for old, new in zip(before, engine.state(), strict=True))
    assert engine.evaluate()[:2] != engine.evaluate(averaged=True)[:2]


def test_the_last_validation_batch_is_filled_up_with_what_does_not_count(digits: Dataset) -> None:
    images, labels = np.repeat(digits.x_val, 41, axis=0)[1:], np.repeat(digits.y_val, 41)[1:]
    many = SimpleNamespace(x_val=images, y_val=labels, classes=10)
    found = validation_of(many)  # type: ignore[arg-type]
    n = len(many.y_val)
    assert n % found.size != 0, "the case that this is about"
    assert found.batches * found.size == len(found.images) == len(found.counts) < n + found.size
    assert found.counts.sum() == n
    np.testing.assert_array_equal(found.images[found.counts == 1], many.x_val)
    np.testing.assert_array_equal(found.targets[found.counts == 1].argmax(axis=1), many.y_val)


def test_balanced_weights_are_those_of_scikit_learn_and_mean_one(unbalanced: Dataset) -> None:
    ours = class_weights_of(unbalanced, Recipe(class_weights="balanced"))
    theirs = compute_class_weight("balanced", classes=np.arange(10), y=unbalanced.y_train)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert ours is not None and ours[unbalanced.y_train].mean() == pytest.approx(1)
    assert class_weights_of(unbalanced, Recipe()) is None


def test_weights_come_in_the_order_of_standard_keras(digits: Dataset) -> None:
    engine = engine_of(digits, Recipe(), EVERY_KIND)
    standard = build(EVERY_KIND, seed=3)
    assert [weight.path.split("/", 1)[1] for weight in engine.model.weights] == [
        weight.path.split("/", 1)[1] for weight in standard.weights
    ]
    for ours, theirs in zip(engine.weights(), standard.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_average_starts_short_and_covers_batch_norm(digits: Dataset) -> None:
    recipe = Recipe(epochs=1, batch_size=8, ema=0.8)
    engine = engine_of(digits, recipe)
    average = [np.array(one, np.float64) for one in engine.weights(averaged=True)]
    engine.begin(plan_epoch(recipe, 150, 0, 0))
    for step in range(19):
        engine.train(step, step + 1)
        decay = min(0.8, (step + 1) / (step + 10))
        for one, weight in zip(average, engine.weights(), strict=True):
            one += (weight - one) * (1 - decay)
    for ours, theirs in zip(engine.weights(averaged=True), average, strict=True):
        assert apart(ours, theirs) < CLOSE


# --- memory -------------------------------------------------------------------------------------------------------------

TRAIN = """
import gc, sys
from search.training.device import prepare_device
prepare_device()
from search.data.dataset import load_dataset
from search.training.recipe import Recipe
from search.training.train import fit
from tests.training.engine.test_tensorflow import PYRAMID
data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=150)

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

used = []
for seed in range(int(sys.argv[1])):
    fit(PYRAMID, data, Recipe(epochs=1), seed=seed)
    used.append(resident())
print(*used)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc, which Linux has")
def test_memory_grows_little_with_each_training() -> None:
    """The rest is released when the worker is recycled, after search.recycle_after trials."""
    words = snippet(TRAIN, 6)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    used = done.stdout.split()
    growth = (float(used[-1]) - float(used[2])) / 3  # MiB a training, once pools are filled
    assert growth < 15, used
