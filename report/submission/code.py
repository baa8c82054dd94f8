"""Code cells of the submitted notebook; they read only files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from report.markdown.report import CURVES, MOST_EPOCHS, Mark
from search.export.training_source import measure_source
from search.text import percent_decimals
from search.training.measures import ACCURACY, MEASURES
from search.training.recipe import Recipe
from search.training.result import log_key

DATA = "data.npz"
ROUNDING = {"float32": 0.002, "mixed_bfloat16": 0.01}  # share of images that may be classified differently by other kernels


@dataclass(frozen=True)
class Network:
    """A trained network with files FILE.py, FILE.keras and logs/ROLE.json in the folder."""

    role: str  # "base" or "winner"
    name: str
    file: str
    source: str  # Keras source with `prepare` and `build_model`
    recipe: Recipe
    policy: str  # Keras dtype policy of its training


@dataclass(frozen=True)
class Images:
    """Contents of DATA, and the origin of the training images."""

    name: str
    training: int  # number of training images
    validation: int
    has_training: bool  # True if DATA holds them too
    is_handed_in: bool  # False if DATA is too large to submit and existed only while the notebook was executed
    are_test: bool  # whether validation is the test split, see protocol "course"


SETUP = '''\
import json
import os
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before Keras is imported: silences its backend's startup messages

import keras
import numpy as np
from IPython.display import display
from plotly.graph_objects import Figure

RETRAIN = False  # True trains again, from the first epoch
DECIMALS = 2  # of an accuracy in percent, as many as the number of validation images supports


def log_of(role):
    """The epochs of a training, as they were logged."""
    return json.loads(Path(f"logs/{role}.json").read_text())


def best_of(role):
    """The first epoch with the best validation accuracy."""
    return max(log_of(role), key=lambda row: row["val_accuracy"])


def print_log(role):
    log, best = log_of(role), best_of(role)
    for row in log:
        print(
            f"Epoch {row['epoch']:>2}/{len(log)}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
            f"learning_rate {row['learning_rate']:.3g}  {row['seconds']:.1f} s"
        )
    print(f"Best validation accuracy: {best['val_accuracy']:.{DECIMALS}%} in epoch {best['epoch']}")


print("Keras", keras.__version__, "on", keras.backend.backend())'''

IMAGES = f"""\
arrays = dict(np.load("{DATA}")) if Path("{DATA}").exists() else {{}}
for name, array in arrays.items():
    print(name, array.shape, array.dtype)
if not arrays:
    print("{DATA} is not here")"""


def setup(val_images: int | None, metric: str = ACCURACY) -> str:
    """The first cell, for a number of validation images; None if it is unknown."""
    return _ranked_by(metric, SETUP.replace("DECIMALS = 2", f"DECIMALS = {percent_decimals(val_images)}"))


def _ranked_by(metric: str, source: str) -> str:
    """The code with the validation accuracy replaced by another measure, in logs and texts."""
    named = source.replace("alidation accuracy", f"alidation {MEASURES[metric].label}")
    return named.replace(log_key(ACCURACY), log_key(metric))


def definition(network: Network) -> str:
    """Source of the network without its `__main__` part."""
    return network.source.partition('\nif __name__ == "__main__":')[0].replace("# ruff: noqa: E501\n\n", "")


def building(network: Network) -> str:
    """Code that builds the network defined in the previous cell."""
    return _BUILDING.substitute(role=network.role)


_BUILDING = Template("""\
build_$role, prepare_$role = build_model, prepare
$role = build_$role()
$role.summary(line_length=110)""")


def curves(networks: Sequence[Network], accuracy: float, metric: str = ACCURACY) -> str:
    """Code that draws the logs; a base that is a plain accuracy becomes a level."""
    styles = {"base": '("base", "#777777", "dash")', "winner": '("winner", "#D55E00", "solid")'}
    level = f'figure.add_hline(y={accuracy!r}, line={{"color": "#777777", "dash": "dash"}})\n' if len(networks) == 1 else ""
    listed = ", ".join(styles[network.role] for network in networks)
    return _ranked_by(metric, _CURVES.substitute(styles=listed, level=level, picture=CURVES))


_CURVES = Template("""\
figure = Figure(layout={
    "template": "plotly_white", "height": 420, "margin": {"t": 20}, "hovermode": "x unified",
    "xaxis": {"title": {"text": "epoch"}},
    "yaxis": {"title": {"text": "validation accuracy"}, "tickformat": ".0%"},
})
for role, colour, dash in [$styles]:
    log = log_of(role)
    figure.add_scatter(
        x=[row["epoch"] for row in log], y=[row["val_accuracy"] for row in log], mode="lines+markers",
        name=f"{role} ({best_of(role)['val_accuracy']:.{DECIMALS}%})", line={"color": colour, "dash": dash},
    )
${level}picture = Path("$picture").read_text("utf-8")  # for viewers that do not run plotly
display({"application/vnd.plotly.v1+json": json.loads(figure.to_json()), "image/svg+xml": picture}, raw=True)""")


def training_images(images: Images | None) -> str:
    """Code of a function that returns the training images, if they are available."""
    if images and images.has_training:
        return 'def training_images():\n    return arrays["x_train"], arrays["y_train"]'
    if images and images.name in ("cifar10", "cifar100"):
        return _FROM_KERAS.substitute(name=images.name, training=f"{images.training:,}")
    return f"def training_images():\n    {_NO_IMAGES}"


def retraining(networks: Sequence[Network]) -> str:
    """Calls of the training function of the previous cell, one for each network."""
    lines = ["if RETRAIN:", "    x_train, y_train = training_images()"]
    for network in networks:
        images = 'x_train, y_train, arrays["x_val"], arrays["y_val"]'
        lines.append(f'    train(build_{network.role}, prepare_{network.role}, {images}, "retrained_{network.role}.keras")')
    return "\n".join(lines)


_NO_IMAGES = f'raise SystemExit("{DATA} has no training images: return images uint8 (n, height, width, channels), labels")'
_FROM_KERAS = Template('''\
def training_images():
    """Those of Keras that are not validated on; the study trained on $training of them."""
    (images, labels), _ = keras.datasets.$name.load_data()
    held_out = {image.tobytes() for image in arrays["x_val"]}
    kept = [index for index, image in enumerate(images) if image.tobytes() not in held_out]
    return images[kept], labels[kept, 0]''')


def measuring(networks: Sequence[Network], metric: str = ACCURACY) -> str:
    """Code that loads the trained networks and compares their accuracies, or other measure, with the logs."""
    listed = ", ".join(f'("{one.role}", "{one.file}.keras", prepare_{one.role})' for one in networks)
    share = max(ROUNDING[network.policy] for network in networks)
    if metric == ACCURACY:
        measured = _MEASURING.substitute(networks=listed, score="accuracy(model, prepare_images)")
        return _ACCURACY + measured + _EQUAL.substitute(share=share)
    score = f'{metric}(arrays["y_val"], predicted_by(model, prepare_images))'
    measured = _ranked_by(metric, _MEASURING.substitute(networks=listed, score=score))
    return f"{measure_source(metric)}\n\n\n{_PREDICTED}{measured}{_ALIKE.substitute(share=share)}"


_ACCURACY = """\
def accuracy(model, prepare):
    probabilities = model.predict(prepare(arrays["x_val"]), batch_size=500, verbose=0)
    return float(np.mean(probabilities.argmax(axis=1) == arrays["y_val"]))


"""
_PREDICTED = """\
def predicted_by(model, prepare):
    return model.predict(prepare(arrays["x_val"]), batch_size=500, verbose=0).argmax(axis=1)


"""
_MEASURING = Template("""\
trained = {}
for role, file, prepare_images in [$networks]:
    trained[role] = model = keras.models.load_model(file, compile=False)
    logged = best_of(role)["val_accuracy"]
    print(f"{role}: {file}, {model.count_params():,} parameters, {logged:.{DECIMALS}%} logged")
    if arrays:
        measured, images = $score, len(arrays["y_val"])
""")
_EQUAL = Template("""\
        differing = round(abs(measured - logged) * images)
        print(f"    {measured:.{DECIMALS}%} measured here on {images:,} images: {differing} images away from the log")
        assert differing <= max(1, $share * images), "another machine may round otherwise, but not that often\"""")
_ALIKE = Template("""\
        print(f"    {measured:.{DECIMALS}%} measured here on {images:,} images, {logged:.{DECIMALS}%} logged")
        rarest = int(np.bincount(arrays["y_val"]).min())  # an image of this class moves it most
        assert abs(measured - logged) <= max(1 / rarest, $share), "another machine may round otherwise, not that much\"""")


def counting(
    limit: int, base_accuracy: float, mark: Mark, verdict: str, *, base_was_trained: bool, metric: str = ACCURACY
) -> str:
    """Code that checks the loaded winner, its source and the logs; parameters must be below `limit`.

    Args:
        mark: result of the comparison with the base, which the finals of the study decide where there are some.
        verdict: the same in a few words.
    """
    base = 'best_of("base")["val_accuracy"], len(log_of("base"))' if base_was_trained else f"{base_accuracy!r}, 0"
    source = _COUNTING.substitute(
        limit=f"{limit:_}", words=f"{limit:,}", base=base, most=MOST_EPOCHS, mark=repr(mark.value), verdict=verdict
    )
    return _ranked_by(metric, source)


_COUNTING = Template("""\
model, log, best = trained["winner"], log_of("winner"), best_of("winner")
kinds = Counter(type(layer).__name__ for layer in model.layers)
rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
lines = [line for line in Path("best_model.py").read_text("utf-8").splitlines() if "layers." in line and " params" in line]
fields = [line for line in lines if "receptive field" in line]
base_accuracy, base_epochs = $base
checks = {
    "under $words parameters": (model.count_params() < $limit, f"{model.count_params():,}"),
    "separable convolutions only": (
        kinds["SeparableConv2D"] > 0 == kinds["Conv2D"],
        f"{kinds['SeparableConv2D']} separable, {kinds['Conv2D']} plain",
    ),
    "batch normalisation": (kinds["BatchNormalization"] > 0, f"{kinds['BatchNormalization']} layers"),
    "dropout": (any(rates), f"{sum(rate > 0 for rate in rates)} layers, rates {sorted(set(rates))}"),
    "output sizes in comments": (len(lines) > 0, f"{len(lines)} lines of best_model.py"),
    "receptive fields in comments": (len(fields) > 0, f"{len(fields)} of them, up to where the whole map is pooled"),
    "at most $most epochs": (max(len(log), base_epochs) <= $most, f"{len(log)}, the base {base_epochs}"),
    "beats the base": (
        $mark,  # by the finals of the study, where there are some
        f"{best['val_accuracy']:.{DECIMALS}%} in epoch {best['epoch']} against {base_accuracy:.{DECIMALS}%}, "
        "one training each; $verdict",
    ),
}
for asked, (holds, evidence) in checks.items():
    print({True: "✓", False: "✗"}.get(holds, holds), f"{asked}: {evidence}")""")
