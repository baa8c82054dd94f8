"""Shared by the tests of new and proposal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]


def colourful(path: Path, n: int, size: tuple[int, int] = (20, 24), seed: int = 0, **options: Any) -> None:
    """Photographs of a kind: soft colours in a size (height, width)."""
    path.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for place in range(n):
        tiny = Image.fromarray(random.integers(0, 256, (3, 4, 3), np.uint8))
        tiny.resize(size[::-1], Image.Resampling.BICUBIC).save(path / f"{place:03}.jpg", **options)
