"""What the winner of a study tells wrong: its confusion matrix on the validation images, and its worst mistakes.

Worked out with the weights of its best epoch, which the run folder keeps, on the very images that it was ranked on.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from report.analysis.findings import Findings
from search.data.dataset import Dataset
from search.errors import UserError
from search.study import trained as winner
from search.study.dataset import PIXELS, read

WORST = 24  # mistakes that are kept
SIDE = 96  # pixels of a picture, about: smaller ones are enlarged by a whole factor, larger ones reduced

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Mistake:
    """One image, uint8 (height, width, channels), that was told wrong, and the probability of what was said of it."""

    image: Image
    truth: int
    said: int
    probability: float
    of_truth: float  # the probability of the class that it has


@dataclass(frozen=True, eq=False)
class Told:
    """The winner's answers to all validation images."""

    class_names: tuple[str, ...]
    confusion: npt.NDArray[np.int64]  # (classes, classes): images of the row's class that were said to be the column's
    worst: tuple[Mistake, ...]  # the least probable truth first

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.images)


def tell(found: Findings) -> Told:
    """Let the winner tell the validation images again.

    Raises:
        UserError: its weights or the images are gone, or are others than the study's.
    """
    trained = winner.candidate(found.run, found.number, found.studies)
    data = _images(found)

    from search.training.train import probabilities  # the first import of Keras

    said = probabilities(trained.architecture, list(trained.weights), trained.pixels, data.x_val)
    return told(said, data)


def told(said: npt.NDArray[np.float32], data: Dataset) -> Told:
    """The answers in order, from probabilities (n, classes) of the validation images."""
    answers, truths = said.argmax(axis=1), data.y_val
    confusion = np.zeros((data.classes, data.classes), np.int64)
    np.add.at(confusion, (truths, answers), 1)
    of_truth = said[np.arange(len(truths)), truths]
    wrong = np.flatnonzero(answers != truths)
    worst = wrong[np.lexsort((wrong, of_truth[wrong]))][:WORST]
    mistakes = (
        Mistake(data.x_val[i], int(truths[i]), int(answers[i]), float(said[i, answers[i]]), float(of_truth[i]))
        for i in worst
    )
    return Told(data.class_names, confusion, tuple(mistakes))


def confused(told: Told, most: int) -> list[tuple[int, int, int]]:
    """(class, taken for, images) of what is taken for another class most often."""
    counts = told.confusion.copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [(int(place // len(counts)), int(place % len(counts))) for place in order]
    return [(truth, said, int(counts[truth, said])) for truth, said in pairs if counts[truth, said]]


def picture(image: Image) -> str:
    """An image as the address of a PNG that holds it; of more channels than a picture has, the first alone."""
    from PIL import Image as Pictures

    shown = image if image.shape[-1] == 3 else image[..., 0]
    made = Pictures.fromarray(np.ascontiguousarray(shown))
    factor = SIDE // max(made.size)
    if factor > 1:
        made = made.resize((made.width * factor, made.height * factor), Pictures.Resampling.NEAREST)
    made.thumbnail((SIDE, SIDE), Pictures.Resampling.LANCZOS)
    made.save(stream := io.BytesIO(), "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _images(found: Findings) -> Dataset:
    data = read(found.run.config, found.run.folder / PIXELS)
    if data.fingerprint != found.data["fingerprint"]:
        raise UserError(f"the images are others than the study's ({data.fingerprint}, not {found.data['fingerprint']})")
    return data
