"""Small images that are soft like photographs, for tests of what is calibrated and measured on images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from search.data.dataset import Dataset
from search.networks.architecture import Architecture
from search.seeds import generator


def pictures(shape: tuple[int, int, int], n: int, *names: str | int) -> npt.NDArray[np.uint8]:
    """Images (n, *shape): a slope of light over a brightness, under a little noise."""
    height, width, channels = shape
    random = generator(0, "pictures", *names)
    slopes, light = random.uniform(-1, 1, (2, n, 1, 1, channels)), random.uniform(40, 215, (n, 1, 1, channels))
    down, across = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    soft = light + 60 * (down * slopes[0] + across * slopes[1])
    return np.clip(soft + 20 * random.standard_normal((n, *shape)), 0, 255).astype(np.uint8)


def picture_set(architecture: Architecture, n: int = 160) -> Dataset:
    """A data set for a network, with labels that mean nothing."""
    shape, classes = architecture.input, architecture.classes
    y = np.arange(n, dtype=np.int64) % classes
    names = tuple(f"class {number}" for number in range(classes))
    train, val = (pictures(shape, n, part) for part in ("train", "val"))
    return Dataset("pictures", train, y, val, y, None, None, names, "course", "0" * 16)
