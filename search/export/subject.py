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
from search.training.measures import ACCURACY, MEASURES, confusion_matrix, measure_all

BATCH = 256  # images in one call of the Keras model
OPSET = 18  # of ONNX, unless another is asked for
TOLERANCE_OF_OTHERS = 0.1  # of another recorded measure, in which an image of a rare class counts for much
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

    @property
    def metric(self) -> str:
        """The measure that the study ranks by."""
        return str(self.facts.get("scores", {}).get("metric", ACCURACY))

    @cached_property
    def keras_measures(self) -> dict[str, float]:
        """The measures of the Keras model on the validation images, see `measures`.

        Raises:
            RuntimeError: the ranked one is not that which was recorded of the float network in the best epoch.
        """
        measured = self.measures(self.probabilities)
        scores, metric = self.facts.get("scores", {}), self.metric
        network = scores.get("float_val_accuracy") or scores.get("network_val_accuracy")  # the latter of data in folds
        recorded = network or scores.get("best_val_accuracy", measured[metric])
        if abs(measured[metric] - recorded) > (TOLERANCE if metric == ACCURACY else TOLERANCE_OF_OTHERS):
            raise RuntimeError(
                f"the validation {MEASURES[metric].label} of the Keras model is {measured[metric]:.2%}, and {recorded:.2%} "
                "was recorded in its best epoch"
            )
        return measured

    def measures(self, outputs: npt.NDArray[np.float32]) -> dict[str, float]:
        """Accuracy of outputs (n, classes) for the validation images; all measures where the study ranks by another."""
        confusion = confusion_matrix(self.data.y_val, outputs.argmax(axis=1), self.data.classes)
        values = measure_all(confusion)
        return {ACCURACY: values[ACCURACY]} if self.metric == ACCURACY else values

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
