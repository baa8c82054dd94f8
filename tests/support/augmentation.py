"""Shared by the tests of augment and augment_warp."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from search.training.engine.augment import DRAWS

Array = npt.NDArray[Any]
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


def values(tensor: Any) -> Array:
    return np.asarray(ops.convert_to_numpy(tensor))


def noise(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def draws(count: int, columns: int = DRAWS, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((count, columns), dtype=np.float32)
