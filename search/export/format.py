"""What is exported: a network with all that is known of it, and what several forms need of it, computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.export.card import Files
from search.networks.architecture import Architecture

CHUNK = 256  # images that Keras computes at a time
APART = 0.02  # at most, of the recorded accuracy: another device or precision turns a few images, other weights turn many


@dataclass(frozen=True, eq=False)
class Subject:
    """A network on its way into files named after `stem`."""

    architecture: Architecture
    weights: Sequence[npt.NDArray[Any]] | None = field(repr=False)  # of the best epoch, in the order of the model's own
    pixels: Pixels
    recipe: Mapping[str, Any] | None  # how it was trained
    facts: Mapping[str, Any] = field(repr=False)  # more entries of the card: scores, seeds, data
    heading: Sequence[str]  # lines for whoever opens a source
    stem: str
    images: Callable[[], Dataset] | None = field(repr=False)  # reads what it was trained and validated on

    @cached_property
    def model(self) -> Any:
        """The trained Keras model.

        Raises:
            UserError: the weights are not the network's, or hold values that are not finite.
        """
        from search.training.model import build

        assert self.weights is not None
        model = build(self.architecture)
        own = model.weights
        if len(self.weights) != len(own):
            raise UserError(f"weights: {len(self.weights)} arrays, the network has {len(own)}; they are another network's")
        for given, variable in zip(self.weights, own, strict=True):
            if given.shape != tuple(variable.shape):
                wanted = f"{variable.path} is {list(variable.shape)}"
                raise UserError(f"weights: {wanted}, not {list(given.shape)}; they are another network's")
            if not np.isfinite(given).all():
                raise UserError(f"weights: {variable.path} holds values that are not finite; export another trial")
        model.set_weights(list(self.weights))
        return model

    @cached_property
    def _read(self) -> tuple[Dataset | None, str]:
        if self.images is None:
            return None, "its images are not known"
        try:
            return self.images(), ""
        except UserError as error:
            return None, str(error)

    @property
    def data(self) -> Dataset | None:
        """The images it was trained and validated on, None where they are not at hand."""
        return self._read[0]

    @property
    def without_data(self) -> str:
        """Why its images are not at hand, and what to do about it."""
        why = self._read[1]
        return f"{why.partition(';')[0]}; pass the images that it was trained on with --data"

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """What Keras makes of the validation images (n, classes)."""
        assert self.data is not None
        x = self.data.x_val
        chunks = (self.pixels.apply(x[start : start + CHUNK]) for start in range(0, len(x), CHUNK))
        return np.concatenate([np.asarray(self.model(chunk, training=False)) for chunk in chunks])

    @cached_property
    def accuracy(self) -> float:
        """Of the Keras model on the validation images.

        Raises:
            RuntimeError: it is not the one that was recorded in the best epoch.
        """
        assert self.data is not None
        found = accuracy(self.probabilities, self.data)
        scores = self.facts.get("scores", {})
        recorded = scores.get("float_val_accuracy") or scores.get("best_val_accuracy", found)
        if abs(found - recorded) > APART:
            raise RuntimeError(
                f"export: {found:.2%} of the validation images are right, {recorded:.2%} were in the best epoch"
            )
        return found

    @cached_property
    def calibration(self) -> npt.NDArray[np.uint8]:
        """Training images that tell the ranges of all tensors."""
        from search.export.tflite import calibration_images

        assert self.data is not None
        return calibration_images(self.data.x_train, self.data.y_train)

    @cached_property
    def int8(self) -> bytes:
        """As a .tflite in integers."""
        from search.export.tflite import int8_tflite

        assert self.weights is not None
        return int8_tflite(self.architecture, self.weights, self.calibration, self.pixels)


def accuracy(probabilities: npt.NDArray[np.float32], data: Dataset) -> float:
    """The share of the validation images that is classified as labelled."""
    return float(np.mean(probabilities.argmax(axis=1) == data.y_val))


Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """One form; its files are named after the export, each with its ending."""

    name: str
    endings: tuple[str, ...]
    doing: str  # in words for people, while it is done
    write: Callable[[Subject, Sequence[Path], Files], None]  # to these paths, beside files that are already written
    verify: Callable[[Subject, Sequence[Path]], Facts]  # facts for the card; ValueError where it is another network
    trained: bool = True  # whether it needs weights
    brings: tuple[str, ...] = ()  # forms that come with it
    missing: Callable[[Subject], str | None] = lambda subject: None  # why it cannot be written of this network, or here

    def names(self, stem: str) -> list[str]:
        """The names of its files."""
        return [stem + ending for ending in self.endings]
