"""Shared by the tests of folders and folder_layouts."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from search.data.dataset import Dataset, load_dataset
from search.data.images import Options
from search.errors import UserError

BUNCH = load_digits()


X, Y = np.rint(BUNCH.images * 255 / 16).astype(np.uint8), BUNCH.target.astype(np.int64)


GREY = Options(grayscale=True)


def put(path: Path, image: np.ndarray = X[0]) -> Path:
    """Write one image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def put_all(folder: Path, x: np.ndarray, y: np.ndarray, name: Callable[[int], str] = str) -> Path:
    """Write images by class, their names in the order of the array; which is written first is left to chance."""
    places = list(range(len(x)))
    random.Random(len(x)).shuffle(places)
    for place in places:
        put(folder / name(int(y[place])) / f"{place:05}.png", x[place])
    return folder


def load(path: Path, **options: Any) -> Dataset:
    return load_dataset(
        options.pop("name", None),
        path,
        **({"protocol": "holdout", "holdout": 0.4, "images": None, "options": GREY} | options),
    )


def refused(path: Path, **options: Any) -> str:
    """The one line in which it is refused."""
    with pytest.raises(UserError) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)
