"""A trained network as .tflite: float32, or int8 for microcontrollers; batches of one image.

Variables are turned into constants before TensorFlow's converter sees the graph: that is quicker than its way by a saved
model, leaves shorter names in the file, and gives the same bytes every time.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from search.data.preprocessing import Pixels
from search.export.quantization import quantizable
from search.networks.architecture import Architecture
from search.seeds import generator
from search.system import quiet
from search.training.model import build

NAME = "net"  # of every converted model: it is part of nearly every tensor's name, so a longer one makes a larger file
CALIBRATION_IMAGES = 128  # from 64 to 512 of them the outputs are as near to the float network's, see benchmarks/LOG.md


def float_tflite(
    architecture: Architecture, weights: Sequence[npt.NDArray[Any]], *, rescaled: Pixels | None = None
) -> bytes:
    """Convert a network with float32 input and output.

    Args:
        rescaled: preprocessing that the file does itself, see `search.training.model.build`.

    Raises:
        RuntimeError: the converter cannot express it; tells what it printed.
    """
    model = build(replace(architecture, name=NAME), rescaled=rescaled)
    model.set_weights(list(weights))
    return _converted(model, lambda converter: None)


def int8_tflite(
    architecture: Architecture,
    weights: Sequence[npt.NDArray[Any]],
    images: npt.NDArray[np.uint8],
    pixels: Pixels,
    *,
    rescaled: Pixels | None = None,
) -> bytes:
    """The network in int8 from input to output: int8 values, int8 weights with a scale for each channel, int32 biases.

    The range of every tensor is the one that the images give it (see `calibration_images`).

    Args:
        pixels: preprocessing of the images before they become integers.
        rescaled: preprocessing that the file does itself, after that.

    Raises:
        RuntimeError: the converter cannot express it; tells what it printed.
    """
    model = quantizable(replace(architecture, name=NAME), weights, rescaled=rescaled)

    def settings(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([pixels.apply(image[None])] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8

    return _converted(model, settings)


def calibration_images(x: npt.NDArray[np.uint8], y: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """CALIBRATION_IMAGES of the images, as many of each class as can be, always the same.

    One pixel is made black and one white, so that the range of the input is that of all images and no pixel is cut off.
    """
    order = generator(0, "calibration").permutation(len(y))
    by_class = np.argsort(y[order], kind="stable")
    counts = np.bincount(y)
    nth = np.arange(len(y)) - (np.cumsum(counts) - counts)[y[order][by_class]]  # of its class
    chosen = x[order[by_class[np.argsort(nth, kind="stable")[:CALIBRATION_IMAGES]]]].copy()
    chosen[0, 0, 0], chosen[-1, 0, 0] = 0, 255
    return chosen


def _converted(model: keras.Model, settings: Callable[[Any], None]) -> bytes:
    image = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="image")
    logger = logging.getLogger("absl")  # in a notebook it does not write to the process' standard error, which is quiet
    level = logger.level
    with quiet() as printed, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            function = tf.function(lambda image: model(image, training=False)).get_concrete_function(image)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(function)])
            settings(converter)
            return bytes(converter.convert())
        except Exception as error:
            raise RuntimeError(
                f"TensorFlow Lite's converter cannot express it ({error}); it printed: {printed()}"
            ) from error
        finally:
            logger.setLevel(level)
