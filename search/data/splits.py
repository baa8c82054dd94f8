"""Splits of a data set: stratified, and fixed by the labels alone, so that they are the same for every study.

A split holds the images themselves, or their indices in a list of files that have not been opened yet.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.errors import UserError

Labels = NDArray[np.int64]

HELD_OUT = 10  # images of each class, at least: fewer and one image moves a class by more than ten points
LEAST_IN_A_PART = 5  # of each class, where a folder falls into three parts

_THREE_PARTS, _REDUCTION, _HOLDOUT = range(3)  # streams of random numbers


class Split(NamedTuple):
    """Images (n, height, width, channels), or indices of files (n,), and labels int64 (n,)."""

    x: NDArray[Any]
    y: Labels


def three_parts(x: NDArray[Any], y: Labels) -> dict[str, Split]:
    """Three fifths to train on, a fifth to validate on and a fifth to test on, each in the order in which it came."""
    order = _stratified_order(y, 0, _THREE_PARTS)
    fifth = len(y) // 5
    parts = {"test": order[:fifth], "val": order[fifth : 2 * fifth], "train": order[2 * fifth :]}
    return {part: Split(x[np.sort(parts[part])], y[np.sort(parts[part])]) for part in ("train", "val", "test")}


def _stratified_order(labels: Labels, seed: int, stream: int) -> NDArray[np.int64]:
    """Indices of all images in a random order whose every prefix is stratified.

    The k-th image of a class of n comes at (k - 1/2) / n of the way. For equal classes a prefix is the largest-remainder
    share; that rule itself would not nest where classes differ in size (the Alabama paradox).
    """
    # RandomState and not default_rng: only its streams are promised to stay as they are in every version of numpy.
    shuffled = np.random.RandomState([seed, stream]).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    own = labels[by_class]
    rank = np.arange(len(labels)) - (np.cumsum(counts) - counts)[own]
    return by_class[np.lexsort((own, (rank + 0.5) / counts[own]))].astype(np.int64)


def _shortest(ordered: Labels, each: int) -> int:
    """Length of the shortest prefix that has `each` of every class; every class must have as many."""
    by_class = np.argsort(ordered, kind="stable")
    counts = np.bincount(ordered)
    starts = (np.cumsum(counts) - counts)[counts > 0]
    return int(by_class[starts + each - 1].max()) + 1


def reduced(name: str, splits: dict[str, Split], images: int, seed: int) -> dict[str, Split]:
    """A stratified number of the training images, and as large a share of the other splits.

    Raises:
        UserError: so few images would leave a class of a split without any, or there are not so many.
    """
    n = len(splits["train"].y)
    orders = {part: _stratified_order(split.y, seed, _REDUCTION) for part, split in splits.items()}
    shortest = {part: _shortest(splits[part].y[order], 1) for part, order in orders.items()}

    def sizes(wanted: int) -> dict[str, int]:
        return {part: (2 * wanted * len(order) + n) // (2 * n) for part, order in orders.items()}  # rounded half up

    def fits(wanted: int) -> bool:
        return all(size >= shortest[part] for part, size in sizes(wanted).items())

    if not 1 <= images <= n or not fits(images):
        smallest = bisect_left(range(n), True, key=fits)
        raise UserError(
            f"images is {images}, {name} takes {smallest} to {n}: every split needs an image of each class, and there are "
            f"{n:,} training images; pass a number in between"
        )
    kept = {part: np.sort(orders[part][:size]) for part, size in sizes(images).items()}
    return {part: Split(splits[part].x[indices], splits[part].y[indices]) for part, indices in kept.items()}


def held_out(
    name: str, train: Split, holdout: float, seed: int, whole: dict[str, Split] | None = None
) -> tuple[Split, Split]:
    """Training and validation images.

    Args:
        whole: the splits out of which a number of images was taken, None where all were; to advise a larger number.

    Raises:
        UserError: the share is too small or too large for these images; gives one that is not.
    """
    if not 0 < holdout < 1:
        raise UserError(f"holdout is {holdout}, it must be between 0 and 1; pass 0.1 for a tenth")
    if (fewest := int(np.bincount(train.y).min())) <= HELD_OUT:
        raise UserError(
            f"holdout: a class of {name} has {fewest} training images, {HELD_OUT} are held out and one must be left; "
            f"use {_more_images(whole, holdout, seed) or 'more images'}, or protocol = 'course'"
        )
    n = len(train.y)
    order, lowest, highest = _holdout_bounds(train.y, seed)
    n_held = round(holdout * n)
    if not lowest <= n_held <= highest:
        more = _more_images(whole, holdout, seed)
        share = f"a holdout of {-(-lowest * 10_000 // n) / 10_000} to {highest * 10_000 // n / 10_000}"
        raise UserError(
            f"holdout is {holdout}, {n_held} of {name}'s {n:,} training images: at least {HELD_OUT} of each class are held "
            f"out and one is left; use {more}{', or ' if more else ''}{share}"
        )
    held, left = np.sort(order[:n_held]), np.sort(order[n_held:])
    return Split(train.x[left], train.y[left]), Split(train.x[held], train.y[held])


def _holdout_bounds(labels: Labels, seed: int) -> tuple[NDArray[np.int64], int, int]:
    """The order of the holdout, and its smallest and largest size; every class must have more than HELD_OUT."""
    order = _stratified_order(labels, seed, _HOLDOUT)
    return order, _shortest(labels[order], HELD_OUT), len(labels) - _shortest(labels[order[::-1]], 1)


def _more_images(whole: dict[str, Split] | None, holdout: float, seed: int) -> str:
    """`at least 1,000 images`, of which this share can be held out; empty if there is no such number."""
    if whole is None:
        return ""
    labels = whole["train"].y
    order = _stratified_order(labels, seed, _REDUCTION)

    def is_enough(images: int) -> bool:
        taken = labels[np.sort(order[:images])]
        if np.bincount(taken, minlength=int(labels.max()) + 1).min() <= HELD_OUT:
            return False
        _, lowest, highest = _holdout_bounds(taken, seed)
        return lowest <= round(holdout * images) <= highest

    n = len(labels)
    fewest = bisect_left(range(1, n + 1), True, key=is_enough) + 1
    if fewest > n:
        return ""
    step = 10 ** max(len(str(fewest)) - 2, 0)
    rounded = -(-fewest // step) * step
    return f"at least {rounded if rounded <= n and is_enough(rounded) else fewest:,} images"
