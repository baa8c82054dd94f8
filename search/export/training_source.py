"""A recipe as readable, runnable Keras source: `compile` and `fit`, schedule, augmentation of the images.

The source holds only what the recipe uses. Its arithmetic is that of `search.training.engine`; comments in it name the
differences: random numbers, and bilinear warping, which Keras does in three steps. No Keras is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import dedent, indent

from search.export.keras_source import docstring_text
from search.training.measures import ACCURACY, BALANCED_ACCURACY, MACRO_F1, MEASURES
from search.training.recipe import Augment, Constant, Cosine, InverseTime, Linear, OneCycle, Plateau, Recipe

_HEAD = '''\
"""{subject} in plain Keras: {epochs} epochs of batches of {batch_size}.

The arithmetic is that of the training whose log is kept; orders, flips and initial weights are random, so
accuracies will differ by as much as those of two seeds.
"""

{imports}import keras
import numpy as np

EPOCHS = {epochs}
BATCH_SIZE = {batch_size}
LEARNING_RATE = {learning_rate!r}
'''


def training_source(
    recipe: Recipe, *, policy: str = "float32", subject: str = "The training", metric: str = ACCURACY
) -> str:
    """Source of a module with `train(build_model, prepare, x_train, y_train, x_val, y_val, path, seed)`.

    Args:
        policy: Keras dtype policy that the training was computed in.
        subject: of the first line, such as `The training of the winner`.
        metric: the measure whose best epoch is kept.
    """
    schedule = list(_schedule(recipe))
    imports = "import math\n\n" if any("math." in line for line in schedule) else ""
    head = _HEAD.format(
        subject=docstring_text(subject), imports=imports, epochs=recipe.epochs, batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
    )  # fmt: skip
    parts = [head.rstrip() + "".join(f"\n{line}" for line in _constants(recipe))]
    parts += ["\n".join(schedule)] if schedule else []
    parts += [
        batches_source(recipe.augment),
        *([_AVERAGE.format(ema=recipe.ema)] if recipe.ema else []),
        *(
            []
            if metric == ACCURACY
            else [measure_source(metric), _MEASURE.format(name=metric, label=MEASURES[metric].label)]
        ),
        _train(recipe, policy, metric),
    ]
    return "\n\n\n".join(part.strip("\n") for part in parts) + "\n"


# --- the learning rate -----------------------------------------------------------------------------------------------


def _constants(recipe: Recipe) -> Iterator[str]:
    if recipe.restarts:
        ends = ", ".join(map(str, recipe.restarts))
        yield f"RESTARTS = ({ends},)  # epochs after which the schedule begins anew"
    if recipe.augment.passes > 1:
        yield f"PASSES = {recipe.augment.passes}  # over all images in one epoch"


def _schedule(recipe: Recipe) -> Iterator[str]:
    """Lines that define `learning_rate(step, steps)` as `search.training.recipe.rate_at`; none if constant or a callback."""
    match recipe.schedule:
        case Constant() | Plateau():
            return
        case InverseTime(rate=rate):
            body = f"return LEARNING_RATE / (1 + {rate!r} * (step // steps))"
            yield from _function(f"Divided by 1 + {rate} * epoch (from 0).", [body])
            return
        case Cosine():
            description = "Half a cosine down to zero."
            body = "return LEARNING_RATE * (1 + math.cos(math.pi * done / total)) / 2"
        case OneCycle(warmup=warmup, start=start):
            description = (
                f"Up from LEARNING_RATE / {start:g} in {100 * warmup:g} % of the steps, then half a cosine down to zero."
            )
            body = f"""\
                progress = done / total
                if progress < {warmup!r}:
                    return LEARNING_RATE * (1 / {start!r} + (1 - 1 / {start!r}) * progress / {warmup!r})
                return LEARNING_RATE * (1 + math.cos(math.pi * (progress - {warmup!r}) / (1 - {warmup!r}))) / 2"""
        case Linear(warmup=warmup):
            description = f"Straight up in {100 * warmup:g} % of the steps, then straight down to zero."
            body = f"""\
                rising = min(round({warmup!r} * total), total - 1)
                return LEARNING_RATE * min((done + 1) / max(1, rising), (total - done) / (total - rising))"""
    course = ["done, total = step, EPOCHS * steps"]
    if recipe.restarts:
        course = [
            "epoch = step // steps",
            "begin = max(one for one in (0, *RESTARTS) if one <= epoch)",
            "end = min(one for one in (*RESTARTS, EPOCHS) if one > epoch)",
            "done, total = step - begin * steps, (end - begin) * steps",
        ]
    yield from _function(description, [*course, *dedent(body).splitlines()])


def _function(description: str, body: list[str]) -> Iterator[str]:
    yield "def learning_rate(step: int, steps: int) -> float:"
    yield f'    """{description}"""'
    yield from (f"    {line}" for line in body)
    yield from ("", "")
    yield from _SCHEDULE.splitlines()


_SCHEDULE = '''\
class Schedule(keras.callbacks.Callback):
    """Sets the learning rate of each step."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        steps = self.params["steps"]
        self.model.optimizer.learning_rate = learning_rate(self.epoch * steps + batch, steps)'''


# --- compile and fit -------------------------------------------------------------------------------------------------

_AVERAGE = '''\
class Average(keras.callbacks.Callback):
    """Moving average of all weights, which is validated and saved; comes after the ModelCheckpoint."""

    def on_train_begin(self, logs=None):
        self.done, self.average = 0, self.model.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        decay = min({ema!r}, self.done / (self.done + 9))
        weights = zip(self.average, self.model.get_weights(), strict=True)
        self.average = [old + (new - old) * (1 - decay) for old, new in weights]

    def on_test_begin(self, logs=None):
        self.raw = self.model.get_weights()
        self.model.set_weights(self.average)

    def on_epoch_end(self, epoch, logs=None):
        self.model.set_weights(self.raw)'''
_TRAIN = '''\
{weights}def train(build_model, prepare, x_train, y_train, x_val, y_val, path, seed=0):
    """Train a new model on uint8 images (n, height, width, channels) and labels (n,); its best epoch goes to `path`."""
    keras.utils.set_random_seed(seed)
{build}
    classes = model.output_shape[-1]
    batches = Batches(x_train, y_train, classes, prepare, seed)
    optimizer = {optimizer}
{exclude}    loss = keras.losses.CategoricalCrossentropy({smoothing})
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    callbacks = [
{measure}        keras.callbacks.ModelCheckpoint(path, monitor="val_{metric}", mode="max", save_best_only=True),
{callbacks}    ]
    validation = prepare(x_val), np.eye(classes, dtype="float32")[y_val]
    options = {{"validation_data": validation, "validation_batch_size": 500, "callbacks": callbacks, "verbose": 2}}
    return model.fit(batches, epochs=EPOCHS, {fit}**options)
'''
_WEIGHTS = '''\
def class_weights(labels):
    """Weight of each class in the loss, so that each class counts the same in total."""
    counts = np.bincount(labels)
    return {label: len(labels) / (len(counts) * count) for label, count in enumerate(counts)}


'''


_MEASURE = '''\
class Measure(keras.callbacks.Callback):
    """Adds the validation {label} to the log; comes before the ModelCheckpoint."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def on_epoch_end(self, epoch, logs=None):
        predicted = self.model.predict(self.images, batch_size=500, verbose=0).argmax(axis=1)
        logs["val_{name}"] = {name}(self.labels, predicted)'''
_MEASURES = {
    BALANCED_ACCURACY: '''\
def balanced_accuracy(labels, predicted):
    """Mean over classes of the share that is classified correctly."""
    return float(np.mean([np.mean(predicted[labels == label] == label) for label in np.unique(labels)]))''',
    MACRO_F1: '''\
def macro_f1(labels, predicted):
    """Mean over classes of F1, the harmonic mean of precision and recall."""
    scores = []
    for label in np.union1d(labels, predicted):
        hits, both = np.sum((labels == label) & (predicted == label)), np.sum(labels == label) + np.sum(predicted == label)
        scores.append(2 * hits / both)
    return float(np.mean(scores))''',
}


def measure_source(metric: str) -> str:
    """Source of a function of labels and predicted classes (n,) that computes a measure other than accuracy."""
    return _MEASURES[metric]


def _train(recipe: Recipe, policy: str, metric: str) -> str:
    callbacks = []
    match recipe.schedule:
        case Constant():
            pass
        case Plateau(factor=factor, patience=patience):
            options = f'"val_loss", factor={factor!r}, patience={patience}, min_delta=0'
            callbacks = [f"keras.callbacks.ReduceLROnPlateau({options}),"]
        case _:
            callbacks = ["Schedule(),"]
    callbacks += ["Average(),"] if recipe.ema else []
    build = ["model = build_model()"]
    if policy != "float32":
        build = [f'keras.config.set_dtype_policy("{policy}")', *build, 'keras.config.set_dtype_policy("float32")']
    exclude = ['optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])'] if recipe.weight_decay else []
    return _TRAIN.format(
        metric=metric,
        measure="" if metric == ACCURACY else "        Measure(prepare(x_val), y_val),\n",
        build="\n".join(f"    {line}" for line in build),
        optimizer=_optimizer(recipe),
        exclude="".join(f"    {line}\n" for line in exclude),
        smoothing=f"label_smoothing={recipe.label_smoothing!r}" if recipe.label_smoothing else "",
        callbacks="".join(f"        {line}\n" for line in callbacks),
        weights=_WEIGHTS if recipe.class_weights == "balanced" else "",
        fit="class_weight=class_weights(y_train), " if recipe.class_weights == "balanced" else "",
    )


def _optimizer(recipe: Recipe) -> str:
    """As `search.training.engine.base.optimizer_of`."""
    arguments = ["LEARNING_RATE"]
    if recipe.optimizer == "sgd":
        arguments += [f"momentum={recipe.momentum!r}", f"nesterov={recipe.momentum > 0}"]
    if recipe.weight_decay or recipe.optimizer == "adamw":
        arguments += [f"weight_decay={recipe.weight_decay!r}"]
    arguments += [f"global_clipnorm={recipe.clip_norm!r}"] if recipe.clip_norm else []
    name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[recipe.optimizer]
    return f"keras.optimizers.{name}({', '.join(arguments)})"


_BATCHES = '''\
class Batches(keras.utils.PyDataset):
    """Training batches in a new order each epoch, the partial last one included; each image is augmented anew."""

    def __init__(self, images, labels, classes, prepare, seed):
        super().__init__()
        self.images, self.targets, self.prepare = images, np.eye(classes, dtype="float32")[labels], prepare
        self.random = np.random.default_rng(seed)
{begin}        self.shuffle()

    def __len__(self):
        return -(-len(self.order) // BATCH_SIZE)

    def __getitem__(self, index):
        place = slice(index * BATCH_SIZE, (index + 1) * BATCH_SIZE)
        chosen = self.order[place]
        images, targets = self.images[chosen], self.targets[chosen]
{vary}        return images, targets

    def on_epoch_end(self):
{end}        self.shuffle()

    def shuffle(self):
        {shuffle}
'''


_PREPARE = "images = self.prepare(images)"


_FLIP = """\
flipped = self.random.random(len(images)) < 0.5
images[flipped] = images[flipped, :, ::-1]  # left-right"""


_ALTERNATE = """\
number = self.epoch * {passes} + np.arange(len(self.order))[place] // len(self.images)  # of the pass
flipped = self.first[chosen] ^ (number % 2 == 1)  # every image in every other pass
images[flipped] = images[flipped, :, ::-1]"""


_CROP = """\
border, (height, width) = {crop}, images.shape[1:3]
images = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
corners = self.random.integers(0, 2 * border + 1, (len(images), 2))
images = np.stack([
    image[y : y + height, x : x + width] for image, (y, x) in zip(images, corners, strict=True)
])"""


_WARP = """\
images = np.array(self.warp(images, training=True))"""


_CUTOUT = """\
side, (height, width) = {cutout}, images.shape[1:3]
for image in images:  # a square of zeros, its centre anywhere
    y, x = self.random.integers(height) - side // 2, self.random.integers(width) - side // 2
    image[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = 0"""


_MIXUP = """\
share = self.random.beta({mixup!r}, {mixup!r})
share = np.float32(max(share, 1 - share))  # the batch itself has the larger part
images = share * images + (1 - share) * images[::-1]
targets = share * targets + (1 - share) * targets[::-1]"""


def batches_source(augment: Augment) -> str:
    """Source of the class `Batches(images, labels, classes, prepare, seed)`; it takes BATCH_SIZE, and PASSES if several."""
    vary, begin, end = [], [], []
    if augment.flip == "alternating":
        begin += ["self.epoch, self.first = 0, self.random.random(len(images)) < 0.5"]
        end += ["self.epoch += 1"]
        vary += [_ALTERNATE.format(passes="PASSES" if augment.passes > 1 else "1").replace(" * 1 +", " +")]
    elif augment.flip:
        vary += [_FLIP]
    vary += [_CROP.format(crop=augment.crop)] if augment.crop else []
    vary += [_PREPARE]
    if warps := list(_warps(augment)):
        layers = "".join(f"\n    layers.{line}," for line in warps)
        begin += ["layers = keras.layers", f"self.warp = keras.Sequential([{layers}\n])  # the study warps in one step"]
        vary += [_WARP]
    vary += [_CUTOUT.format(cutout=augment.cutout)] if augment.cutout else []
    vary += [_MIXUP.format(mixup=augment.mixup)] if augment.mixup else []
    once = "self.random.permutation(len(self.images))"
    shuffle = f"self.order = {once}"
    if augment.passes > 1:
        shuffle = f"self.order = np.concatenate([{once} for _ in range(PASSES)])"
    return _BATCHES.format(begin=_inner(begin), vary=_inner(vary), end=_inner(end), shuffle=shuffle)


def _warps(augment: Augment) -> Iterator[str]:
    fill = 'fill_mode="nearest"'
    if augment.zoom:
        yield f"RandomZoom({augment.zoom!r}, {augment.zoom!r}, {fill})"
    if augment.rotation:
        yield f"RandomRotation({augment.rotation!r} / 360, {fill})"
    if augment.shift:
        yield f"RandomTranslation({augment.shift!r}, {augment.shift!r}, {fill})"


def _inner(lines: list[str]) -> str:
    return "".join(indent(f"{line}\n", " " * 8) for line in lines)
