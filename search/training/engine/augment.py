"""Augmentation of training images inside the compiled step: flip, crop, shift / zoom / rotation, cutout, mixup.

Images are (batch, height, width, channels); lengths are pixels, angles degrees. Random numbers are arguments: `DRAWS` values
from [0, 1) for an image, of which each operation has its own columns, whatever else is enabled.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from search.data.preprocessing import Pixels
from search.training.recipe import Augment

_CROP, _WARP, _CUTOUT = slice(0, 2), slice(2, 7), slice(7, 9)
DRAWS = 9  # crop: top, left; warp: rotation, zoom y, zoom x, shift y, shift x; cutout: centre y, centre x


def augment(images: Any, flipped: Any, uniform: Any, options: Augment, pixels: Pixels) -> Any:
    """Vary and normalise a batch: pixel values (n, h, w, c) in, float32 of the same shape out; mixup is left to the step.

    Args:
        flipped: bool (n,), used only if `options` flips.
        uniform: float32 (n, DRAWS).
    """
    if options.flip:
        images = flip(images, flipped)
    if options.crop:
        images = crop(images, options.crop, uniform[:, _CROP])
    images = normalize(images, pixels)
    if options.shift or options.zoom or options.rotation:
        images = warp(images, options.shift, options.zoom, options.rotation, uniform[:, _WARP])
    if options.cutout:
        images = cutout(images, options.cutout, uniform[:, _CUTOUT])
    return images


def normalize(images: Any, pixels: Pixels) -> Any:
    """`Pixels.apply` as tensors: pixel values (n, h, w, c) to float32."""
    scaled = ops.cast(images, "float32") / 255.0
    if pixels.mean:
        scaled = (scaled - np.asarray(pixels.mean, np.float32)) / np.asarray(pixels.std, np.float32)
    return scaled


def flip(images: Any, flipped: Any) -> Any:
    """Flip the images (n, h, w, c) for which `flipped`, bool (n,), is true left to right."""
    _, height, width, _ = images.shape
    columns = _range(width)
    return _gather(images, _range(height)[None], ops.where(flipped[:, None], width - 1 - columns, columns))


def crop(images: Any, border: int, uniform: Any) -> Any:
    """Crop each image (n, h, w, c) to its own size from the image with a reflected border of `border` pixels.

    `uniform` (n, 2) selects top and left, each out of 2 * border + 1 offsets. The border is never built.
    """
    _, height, width, _ = images.shape
    offset = _whole(uniform, 2 * border + 1) - border
    rows = _reflect(offset[:, :1] + _range(height), height)
    columns = _reflect(offset[:, 1:] + _range(width), width)
    return _gather(images, rows, columns)


def warp(images: Any, shift: float, zoom: float, rotation: float, uniform: Any) -> Any:
    """Rotate by up to `rotation` degrees, zoom each axis by 1 +- `zoom`, then shift by up to `shift` of its length.

    Images are float (n, h, w, c), rotated and zoomed about their centre; `uniform` is (n, 5): rotation, zoom y, zoom x,
    shift y, shift x. Bilinear, and beyond the image its nearest edge, as in the classic Keras ImageDataGenerator that the
    published nets were trained with.
    """
    _, height, width, _ = images.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    strength = np.asarray([math.radians(rotation), zoom, zoom, shift * height, shift * width], np.float32)
    angle, zoom_y, zoom_x, move_y, move_x = ops.unstack((2 * uniform - 1) * strength, 5, axis=1)
    sine, cosine = ops.sin(angle), ops.cos(angle)
    # the pixel (x, y) comes from (x_x * x + x_y * y + x_1, y_x * x + y_y * y + y_1)
    x_x, x_y = cosine * (1 + zoom_x), sine * (1 + zoom_x)
    y_x, y_y = -sine * (1 + zoom_y), cosine * (1 + zoom_y)
    x_1 = middle_x + move_x - x_x * middle_x - x_y * middle_y
    y_1 = middle_y + move_y - y_x * middle_x - y_y * middle_y
    none = ops.zeros_like(angle)
    transform = ops.stack([x_x, x_y, x_1, y_x, y_y, y_1, none, none], axis=1)
    fill = _on_host(0.0)
    return ops.image.affine_transform(
        *(images, transform), interpolation="bilinear", fill_mode="nearest", fill_value=fill, data_format="channels_last"
    )


def cutout(images: Any, side: int, uniform: Any) -> Any:
    """Set a square of `side` pixels around a random pixel of each image to 0, the mean of normalised images.

    Images are float (n, h, w, c); `uniform` (n, 2) is the centre's y and x; the square is cut off at the image's edge.
    (DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.)
    """
    _, height, width, _ = images.shape

    def covered(share: Any, size: int) -> Any:
        offset = _range(size) - (_whole(share, size) - side // 2)
        return (offset >= 0) & (offset < side)

    rows, columns = covered(uniform[:, :1], height), covered(uniform[:, 1:], width)
    kept = ops.logical_not(rows[:, :, None] & columns[:, None, :])
    return images * ops.cast(kept, images.dtype)[..., None]


def mixup(images: Any, targets: Any, share: Any) -> tuple[Any, Any]:
    """Mix `share` of each image (n, h, w, c) and one-hot target (n, classes) with the rest of the batch in reverse order.

    (Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond empirical risk minimization", 2018.)
    """
    mixed = [share * batch + (1 - share) * ops.flip(batch, axis=0) for batch in (images, targets)]
    return mixed[0], mixed[1]


def _gather(images: Any, rows: Any, columns: Any) -> Any:
    """Take the pixels at `rows` (n or 1, h) and `columns` (n, w) of each image, by one gather of pixels from the batch."""
    _, height, width, channels = images.shape
    first = _range(ops.shape(images)[0])[:, None] * height
    index = (first + rows)[:, :, None] * width + columns[:, None, :]
    return _take(ops.reshape(images, (-1, channels)), index)


def _take(rows: Any, index: Any) -> Any:
    """Take rows of a table by non-negative index."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(rows, index)  # Keras' own would wrap negative ones, by sizes computed on the host
    return ops.take(rows, index, axis=0)


def _on_host(value: float) -> Any:
    """A constant that TensorFlow keeps in the host's memory, where the operation reads it."""
    if keras.backend.backend() != "tensorflow":
        return value
    with keras.device("cpu:0"):
        return ops.convert_to_tensor(value)


def _range(count: Any) -> Any:
    """The numbers below `count`, of the integer type that the backend computes on the device, not on the host."""
    integer = keras.backend.standardize_dtype("int")  # int64 for TensorFlow, int32 for JAX
    if isinstance(count, int):
        return ops.convert_to_tensor(np.arange(count), integer)
    return ops.cast(ops.arange(count), integer)


def _whole(uniform: Any, count: int) -> Any:
    """Map [0, 1) to the integers below `count`, all equally likely."""
    return ops.cast(ops.floor(uniform * count), "int")


def _reflect(position: Any, size: int) -> Any:
    """Reflect positions on an unbounded axis into [0, size); as in np.pad's "reflect", edges come once."""
    period = max(1, 2 * (size - 1))
    wave = ops.abs(position) % period
    return ops.minimum(wave, period - wave)
