"""Accuracy of a network after int8 conversion, as a microcontroller computes it.

The file is the one that `export` writes of these weights, calibrated on the same training images. It is run with LiteRT's
reference kernels, whose arithmetic is that of TensorFlow Lite Micro: outputs are equal to the bit, except that a dense layer
may round a value to the next. The default kernels (XNNPACK) round differently: outputs change for most images, and the class
of some (figures: benchmarks/LOG.md, 2026-11-30). Its cost is time: 20 to 50 ms an image on one core for 12 to 26 million
multiply-adds, against 1 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.export import litert
from search.networks.architecture import Architecture
from search.training.device import no_tensorflow, not_installed
from search.training.measures import confusion_matrix

KERNELS = "LiteRT reference kernels (BUILTIN_REF), which TensorFlow Lite Micro shares"  # the card's words


def require_converter() -> None:
    """Raise where networks cannot be converted, before any is trained to be ranked by int8 accuracy.

    Raises:
        UserError: TensorFlow's converter or the LiteRT interpreter is missing.
    """
    if reason := no_tensorflow() or not_installed("ai_edge_litert"):
        raise UserError(f'search.rank_by: "int8" {reason}; or rank by "float"')


@dataclass(frozen=True, eq=False)
class Int8Network:
    """A trained network that is converted to an int8 file once, when that is first needed."""

    architecture: Architecture
    weights: Sequence[npt.NDArray[Any]]
    pixels: Pixels
    data: Dataset  # its training images give the ranges of the tensors

    @cached_property
    def content(self) -> bytes:
        """The .tflite file.

        Raises:
            RuntimeError: the converter cannot express the network.
        """
        from search.export.tflite import calibration_images, int8_tflite

        images = calibration_images(self.data.x_train, self.data.y_train)
        return int8_tflite(self.architecture, self.weights, images, self.pixels)


def int8_confusion(
    network: Int8Network, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Confusion matrix of the int8 network on images (n, height, width, channels).

    Raises:
        RuntimeError: the converter cannot express the network.
    """
    predicted = outputs(network.content, images, network.pixels).argmax(axis=1)
    return confusion_matrix(labels, predicted, network.architecture.classes)


def outputs(content: bytes, images: npt.NDArray[np.uint8], pixels: Pixels) -> npt.NDArray[np.float32]:
    """Outputs of an int8 .tflite file for images (n, height, width, channels), as real values (n, classes)."""
    input_tensor = litert.read(content).input
    channels = input_tensor.shape[-1]
    table = pixels.quantized(channels, input_tensor.scale, input_tensor.zero_point)
    return litert.outputs(content, images, lambda batch: table[np.arange(channels), batch], reference_kernels=True)
