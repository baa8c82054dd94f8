"""CIFAR-10 at the size that benchmarks of many trainings afford: a stratified part of it, each image averaged down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np


def small_images(path: Path | None, images: int, validation: int, side: int = 16) -> Any:
    """A data set of so many training and validation images of side x side pixels; validation on test images."""
    from search.data.dataset import load_dataset

    data = load_dataset("cifar10", path, protocol="course", holdout=0.1, images=None)
    train, val = _part(data.y_train, images), _part(data.y_val, validation)
    return replace(
        data,
        x_train=averaged(data.x_train[train], side),
        y_train=data.y_train[train],
        x_val=averaged(data.x_val[val], side),
        y_val=data.y_val[val],
        fingerprint=f"{data.fingerprint}/{images}/{validation}/{side}",
    )


def _part(labels: Any, count: int) -> Any:
    """Indices of the first `count` images, equally many of each class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[: count // 10] for label in range(10)]))


def averaged(images: Any, side: int) -> Any:
    """Images reduced to side x side pixels by means; uint8, shape (n, side, side, channels)."""
    count, height, width, channels = images.shape
    means = images.reshape(count, side, height // side, side, width // side, channels).mean(axis=(2, 4))
    return np.round(means).astype(np.uint8)
