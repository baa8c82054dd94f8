"""Variation of training images, as arrays: flip, crop from a reflected border, and shift / zoom / rotation.

Images are uint8 (batch, height, width, channels), in and out; all randomness comes from the generator that is passed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from search.recipe import Augment

Images = npt.NDArray[np.uint8]


def augment(images: Images, how: Augment, generator: np.random.Generator) -> Images:
    """A varied copy of the batch, each image on its own."""
    if how.flip:
        images = flip(images, generator)
    if how.crop:
        images = crop(images, how.crop, generator)
    if how.shift or how.zoom or how.rotation:
        images = warp(images, how.shift, how.zoom, how.rotation, generator)
    return images


def flip(images: Images, generator: np.random.Generator) -> Images:
    """Half of the images, left for right."""
    chosen = generator.random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def crop(images: Images, border: int, generator: np.random.Generator) -> Images:
    """A window of the image's size out of the image with a reflected border of that many pixels."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
    top, left = generator.integers(0, 2 * border + 1, (2, count))
    rows = top[:, None] + np.arange(height)
    columns = left[:, None] + np.arange(width)
    cut: Images = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cut


def warp(images: Images, shift: float, zoom: float, rotation: float, generator: np.random.Generator) -> Images:
    """Rotated by up to `rotation` degrees, zoomed by up to 1 +- `zoom`, shifted by up to `shift` of each side.

    Pixels come from the nearest place of the original, and from its nearest edge beyond it, as in the classic Keras
    ImageDataGenerator that the published nets were trained with (which interpolates).
    """
    count, height, width, _ = images.shape
    angle = np.deg2rad(generator.uniform(-rotation, rotation, count))[:, None, None]
    scale_y, scale_x = generator.uniform(1 - zoom, 1 + zoom, (2, count))[..., None, None]
    move_y, move_x = generator.uniform(-shift, shift, (2, count))[..., None, None]
    y = np.arange(height)[:, None] - (height - 1) / 2
    x = np.arange(width)[None, :] - (width - 1) / 2
    from_y = (np.cos(angle) * y - np.sin(angle) * x) * scale_y + move_y * height + (height - 1) / 2
    from_x = (np.sin(angle) * y + np.cos(angle) * x) * scale_x + move_x * width + (width - 1) / 2
    rows = np.clip(np.rint(from_y).astype(np.intp), 0, height - 1)
    columns = np.clip(np.rint(from_x).astype(np.intp), 0, width - 1)
    warped: Images = images[np.arange(count)[:, None, None], rows, columns]
    return warped
