"""How right a trained network is as int8, which is what a microcontroller runs: for studies that are ranked by it.

The file is the one that `export` would write of these weights, calibrated on the same training images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.export import litert
from search.networks.architecture import Architecture
from search.training.device import no_tensorflow, not_installed


def refuse_without_converter() -> None:
    """Before anything is trained that could not be ranked.

    Raises:
        UserError: TensorFlow's converter or the LiteRT interpreter is not there.
    """
    if why := no_tensorflow() or not_installed("ai_edge_litert"):
        raise UserError(f'search.rank_by: "int8" {why}; or rank by "float"')


def int8_accuracy(
    architecture: Architecture,
    weights: Sequence[npt.NDArray[Any]],
    pixels: Pixels,
    data: Dataset,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
) -> float:
    """The share of images (n, height, width, channels) that the network in integers tells right.

    Args:
        data: whose training images tell the ranges of the tensors.

    Raises:
        RuntimeError: the converter cannot express the network.
    """
    from search.export.tflite import calibration_images, int8_tflite

    content = int8_tflite(architecture, weights, calibration_images(data.x_train, data.y_train), pixels)
    return float(np.mean(outputs(content, images, pixels).argmax(axis=1) == labels))


def outputs(content: bytes, images: npt.NDArray[np.uint8], pixels: Pixels) -> npt.NDArray[np.float32]:
    """What a .tflite in integers makes of images (n, height, width, channels): real values (n, classes)."""
    given = litert.read(content).input
    channels = given.shape[-1]
    table = pixels.quantized(channels, given.scale, given.zero_point)
    return litert.outputs(content, images, lambda part: table[np.arange(channels), part])
