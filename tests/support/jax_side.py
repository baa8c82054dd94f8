"""Checks of the engine on JAX that test_jax.py runs apart: `KERAS_BACKEND=jax python jax_side.py NAME...`.

Every check of these names runs, and its failure or null is printed as JSON. A name that ends in .npz is a file in which the
batches are left that an epoch trains on.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import traceback
from typing import Any

import keras
import numpy as np

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture, from_json
from search.seeds import derive
from search.training.engine.base import Sums
from search.training.engine.epoch import EpochPlan, plan_epoch
from search.training.engine.layers import fast_layers
from search.training.measures import confusion_matrix
from search.training.model import build
from search.training.recipe import Augment, Cosine, Recipe
from search.training.train import open_engine

PIXELS = Pixels((0.5, 0.4, 0.6), (0.2, 0.3, 0.25))
NETWORK: list[dict[str, Any]] = [
    {"kind": "conv", "filters": 8, "use_bias": True},
    {"kind": "max_pool", "size": 3, "stride": 2, "padding": "same"},
    {"kind": "separable_conv", "filters": 6, "depth_multiplier": 2, "dilation": 2},
    {"kind": "batch_norm", "momentum": 0.8},
    {"kind": "activation", "function": "relu"},
    {
        "kind": "residual",
        "branch": [{"kind": "spatial_separable_conv", "filters": 6}, {"kind": "batch_norm"}],
        "shortcut": [],
    },
    {"kind": "separable_conv", "filters": 12, "kernel": 2, "stride": 2, "padding": "valid", "use_bias": True},
    {"kind": "gate", "function": "sigmoid"},
    {"kind": "dropout", "rate": 0.25},
    {"kind": "average_pool"},
    {"kind": "flatten"},
    {"kind": "dense", "units": 4},
    {"kind": "softmax"},
]
SMALL = [NETWORK[0], NETWORK[3], NETWORK[4], NETWORK[8], NETWORK[10], *NETWORK[-2:]]  # enough for an optimizer's arithmetic
IMAGES, BATCH, LAST, STEPS = 40, 15, 5, 6  # 2 passes make five full batches and one of 5
MIXED = Augment(passes=2, flip=True, mixup=0.4)
AUGMENTED = Augment(crop=1, rotation=20, cutout=3)
RECIPES = {
    "sgd": Recipe(
        batch_size=BATCH,
        optimizer="sgd",
        learning_rate=0.1,
        epochs=2,
        label_smoothing=0.1,
        class_weights="balanced",
        ema=0.6,
        augment=MIXED,
        schedule=Cosine(),
    ),
    "adam": Recipe(batch_size=5, optimizer="adam", learning_rate=0.01, clip_norm=0.1),
    "adamw": Recipe(batch_size=5, optimizer="adamw", learning_rate=0.01, weight_decay=0.1),
}


def toy(layers: list[dict[str, Any]] = NETWORK) -> tuple[Architecture, Dataset]:
    """A network, by default with a layer of every kind, and 40 training and 24 validation images 9x7 of 4 classes."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (64, 9, 7, 3)).astype(np.uint8)
    y = np.array([0, 1, 2, 3, 0, 0, 1, 0])[np.arange(64) % 8]
    names = ("a", "b", "c", "d")
    data = Dataset("toy", x[:IMAGES], y[:IMAGES], x[IMAGES:], y[IMAGES:], None, None, names, "course", "0")
    return from_json(json.dumps({"name": "toy", "input": [9, 7, 3], "classes": 4, "layers": layers})), data


def opened(
    recipe: Recipe, dtype: str = "float32", layers: list[dict[str, Any]] = NETWORK, *, confusion: bool = False
) -> tuple[Any, EpochPlan]:
    """An engine that has the first epoch before it."""
    architecture, data = toy(layers)
    engine = open_engine(architecture, data, recipe, PIXELS, seed=1, dtype=dtype, confusion=confusion)
    plan = plan_epoch(recipe, IMAGES, 1, 0)
    engine.begin(plan)
    return engine, plan


# --- Keras' own step -------------------------------------------------------------------------------------------------


class Masked(keras.layers.Layer):
    """Dropout by a mask that is handed in."""

    def __init__(self, rate: float, seed: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.rate = rate

    def build(self, shape: Any) -> None:
        self.mask = self.add_weight(shape=(BATCH, *shape[1:]), trainable=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return inputs * self.mask[: inputs.shape[0]] if training else inputs

    def draw(self, engine: Any, plan: EpochPlan, step: int, size: int) -> None:
        masks = []
        for seed, later, other in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
            engine.draws.at(plan.seed + seed, step + later)
            stream = derive(0, "dropout", self.name) + other
            masks.append(np.array(engine.draws.bits([size, *self.mask.shape[1:]], stream)))
        bits, *others = masks
        assert not any((bits == other).mean() > 0.1 for other in others), "not all of seed, step and stream count"
        kept = bits >= round(self.rate * 65536)
        assert abs(kept.mean() - (1 - self.rate)) < 0.15
        full = np.zeros(self.mask.shape, np.float32)
        full[:size] = kept / (1 - self.rate)
        self.mask.assign(full)


def reference(
    recipe: Recipe, *, dropout: Any = Masked, network: list[dict[str, Any]] = NETWORK
) -> tuple[Any, Any, list[Any]]:
    """(model of Keras' own layers, its mask layer, its weights but for the mask), compiled."""
    layers = fast_layers(Dropout=dropout)
    model = build(toy(network)[0], seed=2, layers=layers)
    common = {"global_clipnorm": recipe.clip_norm or None}
    match recipe.optimizer:
        case "sgd":
            optimizer = keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True, **common)
        case "adam":
            optimizer = keras.optimizers.Adam(0.5, **common)
        case "adamw":
            optimizer = keras.optimizers.AdamW(0.5, weight_decay=recipe.weight_decay, **common)
            optimizer.exclude_from_weight_decay([one for one in model.trainable_variables if "kernel" not in one.path])
    optimizer.build(model.trainable_variables)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=True)
    mask = next((layer for layer in model.layers if isinstance(layer, Masked)), None)
    return model, mask, [weight for weight in model.weights if mask is None or weight is not mask.mask]


def close(what: str, ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Equal to that share of their norm."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    off = np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-12)
    assert off <= tolerance, f"{what}: {off:.1e} apart"


def step_by_step(name: str) -> None:
    recipe, network = RECIPES[name], NETWORK if name == "sgd" else SMALL
    engine, plan = opened(recipe, layers=network)
    assert plan.steps >= STEPS
    model, mask, weights = reference(recipe, network=network)
    average = [np.float64(one) for one in engine.weights()]
    sums = Sums(0, 0)
    weights_of_classes = {0: 0.5, 1: 1.0, 2: 2.0, 3: 2.0} if recipe.class_weights == "balanced" else None
    for step in range(STEPS):
        images, targets = map(np.array, engine.batch(step))
        assert len(images) == (recipe.batch_size if step < 5 else LAST)
        state, before = engine.state(), engine.weights()
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)
        first = len(weights)
        for variable, value in zip(model.optimizer.variables, state[first:], strict=not recipe.ema):
            variable.assign(value)
        model.optimizer.learning_rate = plan.rates[step]
        mask.draw(engine, plan, step, len(images))
        model.reset_metrics()
        loss, accuracy = model.train_on_batch(images, targets, class_weight=weights_of_classes)
        sums, earlier = engine.train(step, step + 1), sums
        close(f"loss of step {step}", (sums.loss - earlier.loss) / len(images), loss, 1e-6)
        assert sums.correct - earlier.correct == round(accuracy * len(images))
        after = engine.state()
        for variable, value in zip(model.optimizer.variables, after[first:], strict=not recipe.ema):
            close(f"{variable.path} after step {step}", value, variable.value)
        for weight, value, old in zip(weights, engine.weights(), before, strict=True):
            close(f"{weight.path} after step {step}", value, weight.value)
            assert not np.array_equal(value, old), f"{weight.path} stands still"
        if recipe.ema:
            decay = min(recipe.ema, (step + 1) / (step + 10))
            average = [decay * old + (1 - decay) * new for old, new in zip(average, engine.weights(), strict=True)]
            for ours, theirs in zip(engine.weights(averaged=True), average, strict=True):
                close(f"average after step {step}", ours, theirs, 1e-6)


# --- the other checks ------------------------------------------------------------------------------------------------


def same(ours: Any, theirs: Any) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def continued() -> None:
    """Bit-equal: in a new engine, and however the steps are cut into calls; and what was copied out stays."""
    recipe = RECIPES["sgd"]
    engine, _ = opened(recipe)
    start = engine.state()
    engine.train(0, 2)
    state = engine.state()
    best = engine.weights(averaged=True)
    kept = [one.copy() for one in (*state, *best)]
    sums = engine.train(2, STEPS)
    end = engine.state()
    assert same(kept, (*state, *best)), "donated memory was seen from outside"
    assert not same(state, end)
    other, plan = opened(recipe)
    other.restore(state)
    other.train(2, STEPS)
    assert same(other.state(), end) and same(other.weights(averaged=True), engine.weights(averaged=True))
    assert other.evaluate(averaged=True) == engine.evaluate(averaged=True)
    other.restore(start)
    other.begin(plan)
    other.train(0, 3), other.train(3, 3), other.train(3, 5)
    assert other.train(5, STEPS) == sums and same(other.state(), end)
    other.restore(state)
    other.begin(plan_epoch(recipe, IMAGES, 1, 1))
    other.train(2, STEPS)
    assert not same(other.state(), end), "the plan of an epoch is not looked at"
    engine.restore(start)
    engine.begin(plan)
    assert engine.train(0, STEPS) == sums and same(engine.state(), end)


@functools.cache
def keras_model() -> Any:
    """A model of Keras' own layers, float32, whose programs are compiled once."""
    return reference(RECIPES["sgd"], dropout=keras.layers.Dropout)[0]


def keras_evaluation(weights: Any) -> tuple[float, float]:
    """Loss and accuracy of a model of Keras' own layers by its own `evaluate`."""
    data, model = toy()[1], keras_model()
    model.set_weights(weights)
    loss, accuracy = model.evaluate(PIXELS.apply(data.x_val), np.eye(4, dtype=np.float32)[data.y_val], verbose=0)
    return float(loss), float(accuracy)


def measured() -> None:
    """`evaluate` is Keras' own, of the weights and of their average."""
    engine, _ = opened(RECIPES["sgd"], confusion=True)
    engine.train(0, STEPS)
    data = toy()[1]
    for averaged in (False, True):
        ours, theirs = engine.evaluate(averaged=averaged), keras_evaluation(engine.weights(averaged=averaged))
        close("loss", ours[0], theirs[0])
        close("accuracy", ours[1], theirs[1])
        predicted = keras_model().predict(PIXELS.apply(data.x_val), verbose=0).argmax(axis=1)
        assert np.array_equal(ours.confusion, confusion_matrix(data.y_val, predicted, 4))
    assert engine.evaluate()[:2] != engine.evaluate(averaged=True)[:2]


def small() -> None:
    """Less than one batch of images, varied by what the step draws, in bfloat16: trained on all the same."""
    recipe = RECIPES["sgd"].model_copy(update={"batch_size": 100, "augment": AUGMENTED})
    engine, plan = opened(recipe, "mixed_bfloat16")
    images = np.array(engine.batch(0)[0])
    still = PIXELS.apply(toy()[1].x_train[plan.order])
    assert images.shape == still.shape and np.isfinite(images).all() and 0.2 < np.abs(images - still).mean() < 2
    before = engine.weights()
    assert plan.steps == 1 and np.isfinite(engine.train(0, 1).loss)
    assert all(one.dtype == np.float32 for one in (*engine.weights(), *engine.weights(averaged=True)))
    assert engine.model.outputs[0].dtype == "float32" and engine.model.layers[1].compute_dtype == "bfloat16"
    assert not any(map(np.array_equal, engine.weights(), before)) and all(np.isfinite(one).all() for one in engine.weights())
    loss, _ = keras_evaluation(engine.weights())
    assert loss != engine.evaluate()[0] and abs(loss / engine.evaluate()[0] - 1) < 0.02


def resident() -> None:
    """Nothing but the bounds of a call goes to the device while it trains and evaluates, and no program calls the host."""
    import jax  # not where the tests on TensorFlow import this module

    engine, _ = opened(RECIPES["adam"], layers=SMALL)
    with jax.transfer_guard_host_to_device("disallow"):  # implicit transfers; on a CPU too
        engine.train(0, 2), engine.train(2, STEPS), engine.evaluate()
    for program in (*engine._train.values(), engine._evaluate):
        text = program.as_text()
        assert "fusion(" in text
        assert not re.findall(r"\b(infeed|outfeed|send|recv|custom-call)\(", text)


CHECKS = {name: functools.partial(step_by_step, name) for name in RECIPES} | {
    check.__name__: check for check in (continued, measured, small, resident)
}


def batches() -> dict[str, Any]:
    """Sums of a training of one epoch, and the images and targets of its first and its partial batch."""
    engine, plan = opened(RECIPES["sgd"])
    pairs = {step: engine.batch(step) for step in (0, STEPS - 1)}
    found = {f"{part}_{step}": np.array(one) for step, pair in pairs.items() for part, one in zip("xy", pair, strict=True)}
    sums = engine.train(0, plan.steps)
    engine.evaluate()
    return found | {"sums": np.array(sums)}


def main() -> None:
    failures: dict[str, str | None] = {}
    for name in sys.argv[1:]:
        if name.endswith(".npz"):
            found = batches()
            suspects = ("tensorflow", "search.training.engine.jax", "search.training.engine.tensorflow")
            np.savez(name, modules=[suspect for suspect in suspects if suspect in sys.modules], **found)
            continue
        try:
            CHECKS[name]()
            failures[name] = None
        except Exception:
            failures[name] = traceback.format_exc()
    print(json.dumps(failures))


if __name__ == "__main__":
    main()
