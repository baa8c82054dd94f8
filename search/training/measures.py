"""Measures of a classifier by which a study can rank, each computed from a confusion matrix.

A confusion matrix has shape (classes, classes): rows are the true classes, columns the predicted ones, and each entry counts
images. The definitions are those of scikit-learn: `accuracy_score`, `balanced_accuracy_score`, and `f1_score` with
average="macro", where a class that is never predicted correctly has an F1 of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ACCURACY, BALANCED_ACCURACY, MACRO_F1 = "accuracy", "balanced_accuracy", "macro_f1"

Matrix = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """A figure of a confusion matrix, from 0 to 1, the higher the better.

    Attributes:
        label: the name in texts, as in "validation macro F1".
        gradient: derivative by each entry of the matrix, shape (classes, classes).
        meaning: the definition in one sentence.
    """

    label: str
    compute: Callable[[Matrix], float]
    gradient: Callable[[Matrix], Values]
    meaning: str

    @property
    def with_article(self) -> str:
        """The label with its indefinite article."""
        return f"{'an' if self.label[0] in 'aeiou' else 'a'} {self.label}"

    @property
    def title(self) -> str:
        """The label at the beginning of a sentence."""
        return f"{self.label[0].upper()}{self.label[1:]}"


def confusion_matrix(
    labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Count images by true and predicted class; labels and predictions have shape (n,)."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def recalls(confusion: Matrix) -> list[float | None]:
    """The share of each class that is classified correctly; None for a class without images."""
    totals = confusion.sum(axis=1)
    return [float(confusion[k, k] / totals[k]) if totals[k] else None for k in range(len(confusion))]


def _accuracy(confusion: Matrix) -> float:
    return float(np.trace(confusion) / confusion.sum())


def _accuracy_gradient(confusion: Matrix) -> Values:
    return np.asarray(np.eye(len(confusion)) / confusion.sum())


def _balanced_accuracy(confusion: Matrix) -> float:
    totals = confusion.sum(axis=1)
    present = totals > 0
    return float(np.mean(np.diag(confusion)[present] / totals[present]))


def _balanced_accuracy_gradient(confusion: Matrix) -> Values:
    """Derivative with the number of images of each class fixed, as a data set fixes it."""
    totals = confusion.sum(axis=1)
    return np.asarray(np.diag(_inverse(totals)) / np.count_nonzero(totals))


def _macro_f1(confusion: Matrix) -> float:
    sizes = confusion.sum(axis=1) + confusion.sum(axis=0)  # of F1 = 2 * true positives / (2 * true positives + all errors)
    present = sizes > 0
    return float(np.mean(2 * np.diag(confusion)[present] / sizes[present]))


def _macro_f1_gradient(confusion: Matrix) -> Values:
    """Derivative with the number of images of each class fixed: an entry changes the predictions of its column."""
    sizes = confusion.sum(axis=1) + confusion.sum(axis=0)
    inverse = _inverse(sizes)
    by_column = -2 * np.diag(confusion) * inverse**2
    return np.asarray((by_column + np.diag(2 * inverse)) / np.count_nonzero(sizes))


MEASURES = {
    ACCURACY: Measure("accuracy", _accuracy, _accuracy_gradient, "the share of images that are classified correctly"),
    BALANCED_ACCURACY: Measure(
        "balanced accuracy",
        _balanced_accuracy,
        _balanced_accuracy_gradient,
        "the mean over classes of the share that is classified correctly, so that rare classes count as much as common ones",
    ),
    MACRO_F1: Measure(
        "macro F1",
        _macro_f1,
        _macro_f1_gradient,
        "the mean over classes of F1, the harmonic mean of a class's precision and recall",
    ),
}


def measure_all(confusion: Matrix) -> dict[str, float]:
    """The value of every measure, by name."""
    return {name: measure.compute(confusion) for name, measure in MEASURES.items()}


def constant_guess(metric: str, share: float, classes: int) -> float:
    """Value of a measure where every image is given the commonest class, which has this share of the images."""
    confusion = np.zeros((classes, classes))
    confusion[:, 0] = [share, *[(1 - share) / max(1, classes - 1)] * (classes - 1)]
    return MEASURES[metric].compute(confusion)


def is_near_guess(value: float, guess: float, classes: int) -> bool:
    """True for a value so near that of a guess that beating it is no evidence: by 1 / classes, or a ninth of what is left.

    For accuracy on balanced classes this is twice the guess from 10 classes on: 20 % for 10 classes, and 56 % for two.
    """
    return value < guess + min(1 / classes, (1 - guess) / 9)


def other_measures(measures: Mapping[str, float], metric: str) -> dict[str, float]:
    """The values of the measures beside the ranked one, by label."""
    return {MEASURES[name].label: value for name, value in measures.items() if name != metric}


def effective_images(metric: str, confusion: Matrix) -> float:
    """Number of images on which an accuracy of this value would vary as much as the measure does, at most all of them.

    The variance p (1 - p) / n of an accuracy p on n images is solved for n, with the variance of the measure by the delta
    method: the images of each class are a sample of their own, and predictions of a class are multinomial (for macro F1 see
    Takahashi et al., "Confidence interval for micro-averaged F1 and macro-averaged F1 scores", Appl. Intelligence 2022). The
    name is that of survey statistics (Kish, "Survey Sampling", 1965). One image, spread over all classes, is added to each
    class: a class of five images without an error is no certainty.
    """
    images = float(confusion.sum())
    if metric == ACCURACY:
        return images
    totals = confusion.sum(axis=1, keepdims=True)
    shares = (confusion + 1 / len(confusion)) / (totals + 1)
    smoothed = shares * totals
    measure = MEASURES[metric]
    gradient = measure.gradient(smoothed)
    variances = (shares * gradient**2).sum(axis=1) - (shares * gradient).sum(axis=1) ** 2
    variance, value = float((totals[:, 0] * variances).sum()), measure.compute(smoothed)
    return min(images, max(1.0, value * (1 - value) / variance))


def _inverse(values: Matrix) -> Values:
    """1 / value, and 0 for 0."""
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)
