"""The network of an export, with results that several formats need, computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.networks.architecture import Architecture

BATCH = 256  # images in one call of the Keras model
OPSET = 18  # of ONNX, unless another is asked for
TOLERANCE = 0.02  # of the recorded accuracy: another device or precision changes a few images, other weights change many


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to export, and its facts."""

    architecture: Architecture
    weights: Sequence[npt.NDArray[Any]] | None = field(repr=False)  # of the best epoch, as `get_weights()`; None: untrained
    pixels: Pixels  # how images are prepared for the exported network
    recipe: Mapping[str, Any] | None  # of its training
    facts: Mapping[str, Any] = field(repr=False)  # more entries of the card: scores, seeds, data
    heading: Sequence[str]  # lines for the docstring of a source
    stem: str  # the name of every file begins with it
    images: Callable[[], Dataset] | None = field(repr=False)  # reads the training and validation images
    rescaled: Pixels | None = None  # the preprocessing that the exported network does itself, where it takes raw pixels
    opset: int = OPSET  # of ONNX

    @cached_property
    def model(self) -> Any:
        """The trained Keras model.

        Raises:
            UserError: the weights are another network's, or hold values that are not finite.
        """
        from search.training.model import build

        weights = self.trained_weights
        model = build(self.architecture, rescaled=self.rescaled)
        if len(weights) != len(model.weights):
            raise UserError(
                f"weights: {len(weights)} arrays, the network has {len(model.weights)}; they are another network's"
            )
        for array, variable in zip(weights, model.weights, strict=True):
            if array.shape != tuple(variable.shape):
                expected = f"{variable.path} is {list(variable.shape)}"
                raise UserError(f"weights: {expected}, not {list(array.shape)}; they are another network's")
            if not np.isfinite(array).all():
                raise UserError(f"weights: {variable.path} holds values that are not finite; export another trial")
        model.set_weights(list(weights))
        return model

    @property
    def trained_weights(self) -> Sequence[npt.NDArray[Any]]:
        """The weights of a network that has been trained."""
        assert self.weights is not None
        return self.weights

    @cached_property
    def _loaded(self) -> tuple[Dataset | None, str]:
        if self.images is None:
            return None, "its images are not known"
        try:
            return self.images(), ""
        except UserError as error:
            return None, str(error)

    @property
    def has_data(self) -> bool:
        """True if the training and validation images can be read."""
        return self._loaded[0] is not None

    @property
    def data(self) -> Dataset:
        """The training and validation images of a network that `has_data`."""
        data = self._loaded[0]
        assert data is not None
        return data

    @property
    def missing_data(self) -> str:
        """The reason why its images cannot be read, and the remedy."""
        reason = self._loaded[1].partition(";")[0]
        return f"{reason}; pass the images that it was trained on with --data"

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Outputs of the Keras model for the validation images (n, classes)."""
        images = self.data.x_val
        batches = (self.pixels.apply(images[start : start + BATCH]) for start in range(0, len(images), BATCH))
        return np.concatenate([np.asarray(self.model(batch, training=False)) for batch in batches])

    @cached_property
    def keras_accuracy(self) -> float:
        """Accuracy of the Keras model on the validation images.

        Raises:
            RuntimeError: it differs by more than TOLERANCE from the float accuracy that was recorded in the best epoch.
        """
        measured = self.accuracy(self.probabilities)
        scores = self.facts.get("scores", {})
        recorded = scores.get("float_val_accuracy") or scores.get("best_val_accuracy", measured)
        if abs(measured - recorded) > TOLERANCE:
            raise RuntimeError(
                f"the Keras model classifies {measured:.2%} of the validation images correctly, and {recorded:.2%} were "
                "recorded in its best epoch"
            )
        return measured

    def accuracy(self, outputs: npt.NDArray[np.float32]) -> float:
        """The share of the validation images that outputs (n, classes) classify correctly."""
        return float(np.mean(outputs.argmax(axis=1) == self.data.y_val))

    @cached_property
    def calibration(self) -> npt.NDArray[np.uint8]:
        """Training images that give the ranges of all tensors (see `search.export.tflite.calibration_images`)."""
        from search.export.tflite import calibration_images

        return calibration_images(self.data.x_train, self.data.y_train)

    @property
    def is_normalised_inside(self) -> bool:
        """True if the int8 file has a layer of its own that normalises raw pixels.

        Pixels that are only divided by 255 need none: the scale of the int8 input does it.
        """
        return self.rescaled is not None and bool(self.rescaled.mean)

    @property
    def int8_pixels(self) -> Pixels:
        """Preprocessing of the images for the int8 file, before they become integers."""
        return self.pixels if self.rescaled is None or self.is_normalised_inside else self.rescaled

    @cached_property
    def int8(self) -> bytes:
        """The network as an int8 .tflite file."""
        from search.export.tflite import int8_tflite

        inside = self.rescaled if self.is_normalised_inside else None
        return int8_tflite(self.architecture, self.trained_weights, self.calibration, self.int8_pixels, rescaled=inside)
