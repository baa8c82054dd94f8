"""Confusion matrix and worst mistakes of a study's winner on the validation images.

Computed with the weights of its best epoch, on the images that it was ranked on.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from report.analysis.findings import Findings
from report.tables import Table
from search.data.dataset import Dataset
from search.errors import UserError
from search.finals.statistics import wilson
from search.study import trained as winner
from search.study.dataset import load_study_data
from search.text import format_percent, format_percent_span
from search.training.measures import confusion_matrix, measure_all, recalls

WORST = 24  # mistakes kept
SIDE = 96  # approximate side of a picture; smaller images are enlarged by a whole factor, larger ones reduced

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Mistake:
    """One misclassified image, uint8 (height, width, channels), with the probability of the predicted class."""

    image: Image
    truth: int
    predicted: int
    probability: float
    of_truth: float  # probability of the true class


@dataclass(frozen=True, eq=False)
class Predictions:
    """The winner's predictions for all validation images."""

    class_names: tuple[str, ...]
    confusion: npt.NDArray[np.int64]  # (classes, classes): rows are true classes, columns predicted ones
    worst: tuple[Mistake, ...]  # lowest probability of the true class first

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def measures(self) -> dict[str, float]:
        """Every measure of `search.training.measures`, by name."""
        return measure_all(self.confusion)


CLASS_TABLE = (
    "Recall: the share of a class's images that are given this class, with its 95 % interval. Precision: the share of the "
    "images given this class that belong to it. F1: the harmonic mean of both."
)


def recall_title(folds: int | None) -> str:
    """Heading of the table of classes; with folds it says that one of their networks is evaluated."""
    return "Recall of each class" + (f", first of {folds} folds" if folds else "")


def first_fold_words(folds: int | None) -> str:
    """Sentence on the networks of the other folds, after a space; empty without folds."""
    if not folds:
        return ""
    return f" It is the network of the first of {folds} folds, on the images of that fold; those of the others are not kept."


def evaluate_winner(findings: Findings) -> Predictions:
    """Re-evaluate the winner on the validation images.

    Raises:
        UserError: its weights or the images are missing, or differ from the study's.
    """
    trained = winner.candidate(findings.run, findings.number, findings.studies)
    data = _images(findings)

    from search.training.train import probabilities  # the first import of Keras

    try:
        scores = probabilities(trained.architecture, list(trained.weights), trained.pixels, data.x_val)
    except ValueError as error:  # of a trial of an earlier version, whose weights are known by the number of values alone
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"trial {findings.number}: the weights in its folder are another network's ({reason})") from None
    return summarize(scores, data)


def not_evaluated(findings: Findings, predictions: Predictions | str) -> str | None:
    """Line on a winner whose weights are in the run folder but could not be evaluated again; None where they were.

    None too where another machine trained it.

    Args:
        predictions: of the winner, or the reason why there are none.
    """
    if not isinstance(predictions, str) or not winner.is_here(findings.run, findings.number):
        return None
    return f"The winner was not evaluated again: {predictions}."


def summarize(scores: npt.NDArray[np.float32], data: Dataset) -> Predictions:
    """Summarize predicted probabilities (n, classes) of the validation images."""
    predicted, truths = scores.argmax(axis=1), data.y_val
    confusion = confusion_matrix(truths, predicted, data.classes)
    of_truth = scores[np.arange(len(truths)), truths]
    wrong = np.flatnonzero(predicted != truths)
    worst = wrong[np.lexsort((wrong, of_truth[wrong]))][:WORST]
    mistakes = (
        Mistake(data.x_val[i], int(truths[i]), int(predicted[i]), float(scores[i, predicted[i]]), float(of_truth[i]))
        for i in worst
    )
    return Predictions(data.class_names, confusion, tuple(mistakes))


def most_confused(predictions: Predictions, most: int) -> list[tuple[int, int, int]]:
    """Most frequent confusions as (true class, predicted class, images)."""
    counts = predictions.confusion.copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [(int(index // len(counts)), int(index % len(counts))) for index in order]
    return [(truth, predicted, int(counts[truth, predicted])) for truth, predicted in pairs if counts[truth, predicted]]


def class_table(predictions: Predictions) -> Table:
    """Recall, precision and F1 of each class, the lowest recall first; a class without images comes last."""
    rows = []
    truths, predicted = predictions.confusion.sum(axis=1), predictions.confusion.sum(axis=0)
    shares = recalls(predictions.confusion)
    for index in sorted(range(len(shares)), key=lambda index: (shares[index] is None, shares[index] or 0.0)):
        recall, images, right = shares[index], int(truths[index]), int(predictions.confusion[index, index])
        span = "" if recall is None else format_percent_span(*wilson(recall, images), images).removesuffix("%")
        precision = f"{right / predicted[index]:.1%}" if predicted[index] else ""
        both = images + int(predicted[index])
        f1 = f"{2 * right / both:.1%}" if both else ""
        name = predictions.class_names[index]
        rows.append((name, f"{images:,}", format_percent(recall, images), span, precision, f1))
    return Table(("class", "images", "recall", "95 % interval", "precision", "F1"), rows)


def picture(image: Image) -> str:
    """Encode an image as a PNG data URL; the first channel alone if it has more than a picture can."""
    from PIL import Image as Pictures

    channels = image if image.shape[-1] == 3 else image[..., 0]
    rendered = Pictures.fromarray(np.ascontiguousarray(channels))
    factor = SIDE // max(rendered.size)
    if factor > 1:
        rendered = rendered.resize((rendered.width * factor, rendered.height * factor), Pictures.Resampling.NEAREST)
    rendered.thumbnail((SIDE, SIDE), Pictures.Resampling.LANCZOS)
    rendered.save(stream := io.BytesIO(), "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _images(findings: Findings) -> Dataset:
    data = load_study_data(findings.run.config, findings.run.folder)
    expected = findings.data["fingerprint"]
    if data.fingerprint != expected:
        raise UserError(f"the images differ from the study's: fingerprint {data.fingerprint}, not {expected}")
    return data
