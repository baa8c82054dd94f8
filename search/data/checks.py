"""Checks that arrays are images and labels of a data set, and remarks on images from which little can be learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data.archives import Arrays
from search.data.images import Pixels
from search.data.splits import Labels, Split
from search.errors import UserError
from search.networks.layers import LARGEST
from search.text import format_shape

MOST_CHANNELS = 16
CHUNK = 2_048  # images at a time where a wider copy is needed
DARK = 31  # brightest pixel out of 255, up to which the range of values is likely to be a mistake


def check_arrays(origin: str, arrays: Arrays) -> tuple[dict[str, Split], int]:
    """The arrays as splits of one shape with labels 0 to classes - 1, and the number of classes.

    Raises:
        UserError: the rule that they break, with the array's name.
    """
    splits = {}
    for part, x, y in arrays.parts():
        pixels = _pixels(f"{origin}: x_{part}", x)
        splits[part] = Split(pixels, _labels(f"{origin}: y_{part}", y, len(pixels)))
    shapes = {part: split.x.shape[1:] for part, split in splits.items()}
    for part, shape in shapes.items():
        if shape != shapes["train"]:
            sizes = f"training images are {format_shape(shapes['train'])}, {part} images {format_shape(shape)}"
            raise UserError(f"{origin}: {sizes}; make them equal")
    present = np.unique(splits["train"].y)
    classes = len(present)
    if gaps := np.flatnonzero(present != np.arange(classes)).tolist():
        raise UserError(
            f"{origin}: no training image of class {gaps[0]}, labels go up to {present[-1]}; number the classes from 0 "
            "without gaps and give each a training image"
        )
    if classes < 2:
        raise UserError(f"{origin}: y_train has one class, at least 2 are needed; pass images of another class too")
    for part, split in splits.items():
        if (highest := split.y.max()) >= classes:
            range_of_train = f"y_train goes up to {classes - 1}"
            raise UserError(f"{origin}: y_{part} has label {highest}, {range_of_train}; use the same classes")
    return splits, classes


def content_remarks(origin: str, splits: Mapping[str, Split]) -> list[str]:
    """Remarks on images that are hardly images, in words.

    Raises:
        UserError: all training images are equal, so that nothing can be learnt from them.
    """
    x_train = splits["train"].x
    if len(x_train) > 1 and all(
        (x_train[start : start + CHUNK] == x_train[0]).all() for start in range(0, len(x_train), CHUNK)
    ):
        content = f"pixels of value {x_train.flat[0]} alone" if (x_train[0] == x_train.flat[0]).all() else "the same pixels"
        raise UserError(f"{origin}: all {len(x_train):,} training images hold {content}; pass the images that were meant")
    flat = brightest = 0
    for split in splits.values():
        for start in range(0, len(split.x), CHUNK):
            chunk = split.x[start : start + CHUNK]
            brightest = max(brightest, int(chunk.max()))
            flat += _count_flat(chunk)
    remarks = []
    if flat:
        remarks.append(f"{flat:,} images are of one colour all over")
    if brightest <= DARK:
        remarks.append(
            f"no pixel is brighter than {brightest} of 255: scale the arrays, or give [data] bits where 16-bit files hold "
            "fewer bits (12 for values up to 4,095)"
        )
    return remarks


def _count_flat(x: Pixels) -> int:
    """Number of images of one colour all over; most are ruled out by three of their pixels."""
    corner = x[:, 0, 0]
    alike = (corner == x[:, -1, -1]) & (corner == x[:, x.shape[1] // 2, x.shape[2] // 2])
    suspects = x[alike.all(axis=1)]
    return int((suspects == suspects[:, :1, :1]).all(axis=(1, 2, 3)).sum())


def _pixels(where: str, x: NDArray[Any]) -> Pixels:
    if x.dtype.kind not in "uif":
        raise UserError(f"{where} has dtype {x.dtype}, pixels must be whole numbers 0 to 255; save it as uint8")
    if x.ndim == 3:
        x = x[..., None]
    if _is_channels_first(x.shape):
        raise UserError(
            f"{where} has shape {x.shape}, which looks like (n, channels, height, width), and channels must come last; "
            "save it transposed: x.transpose(0, 2, 3, 1)"
        )
    if x.ndim != 4 or 0 in x.shape or x.shape[-1] > MOST_CHANNELS:
        raise UserError(
            f"{where} has shape {x.shape}, images must be (n, height, width, channels) with n at least 1 and "
            f"at most {MOST_CHANNELS} channels; channels come last"
        )
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1:
        raise UserError(f"{where} has {x.dtype} values 0 to 1; pass uint8 pixels 0 to 255 (multiply by 255 and round)")
    pixels = np.empty(x.shape, np.uint8)
    for start in range(0, len(x), CHUNK):
        chunk = x[start : start + CHUNK]
        is_pixel = (chunk >= 0) & (chunk <= 255) & (chunk == np.floor(chunk))
        if not is_pixel.all():
            raise UserError(f"{where} holds {chunk[~is_pixel][0]}, pixels must be whole numbers 0 to 255; save it as uint8")
        pixels[start : start + CHUNK] = chunk
    return pixels


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """True for (n, 1, 3 or 4, height, width) where the last axis is too long for channels and longer than that."""
    return len(shape) == 4 and shape[1] in (1, 3, 4) and shape[2] > 4 and shape[3] > 4


def _labels(where: str, y: NDArray[Any], n: int) -> Labels:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "ui":
        raise UserError(f"{where} has shape {y.shape} and dtype {y.dtype}, labels must be (n,) integers; one-hot: argmax(1)")
    if len(y) != n:
        raise UserError(f"{where} has {len(y):,} labels for {n:,} images; give each image one label")
    if y.min() < 0 or y.max() >= LARGEST:
        raise UserError(
            f"{where} has labels {y.min()} to {y.max()}, they must be between 0 and {LARGEST - 1:,}; number them"
        )
    return y.astype(np.int64)
