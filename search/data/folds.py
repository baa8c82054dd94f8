"""Folds of cross-validation: parts of the training images, each of which validates a training on the others.

Like every split they depend on the labels alone, or on the groups where there are some, and not on the study's seed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from search.data.copies import find_copies
from search.data.group_splits import group_folds
from search.data.groups import Groups
from search.data.splits import Labels, Split, reduced
from search.errors import UserError

FoldIds = NDArray[np.int64]  # fold of each image, from 0

COURSE_FOLDS = (
    'protocol = "course" validates on the test images; take "holdout", which keeps them for finals, or leave folds out'
)

_FOLDS = 5  # stream of random numbers, beside those of `search.data.splits` and `.group_splits`


def check_foldable(name: str, protocol: str, has_own_validation: bool) -> None:
    """Reject folds of images whose validation images are fixed.

    Raises:
        UserError: candidates are validated on other images than the training images.
    """
    if protocol == "course":
        raise UserError(f"data.folds: {COURSE_FOLDS}")
    if has_own_validation:
        raise UserError(
            f"data.folds: {name} has validation images of its own, and folds validate on the training images; put them "
            "among the training images, or leave folds out"
        )


def fold_parts(
    name: str,
    whole: Mapping[str, Split],
    folds: int,
    *,
    images: int | None,
    seed: int,
    groups: Groups | None,
    class_names: tuple[str, ...],
) -> dict[str, Split]:
    """The folds, "0" to "folds - 1", and the test images, "test".

    Args:
        whole: "train" and "test"; a part "val" that was only split off is put back among the training images.
        images: number of training images to take, None for all; see `search.data.splits.reduced`.

    Raises:
        UserError: a class has fewer images, or groups, than there are folds.
    """
    parts = dict(whole)
    if "val" in parts:
        first, second = parts["train"], parts.pop("val")
        parts["train"] = Split(np.concatenate([first.x, second.x]), np.concatenate([first.y, second.y]))
    if images is not None:
        parts = reduced(name, parts, images, seed)
    train = parts["train"]
    counts = np.bincount(train.y, minlength=len(class_names))
    if (fewest := int(counts.min())) < folds:
        rare = class_names[int(counts.argmin())]
        remedy = f"take at most {fewest} folds, add images" if fewest > 1 else "add images"
        raise UserError(
            f"data.folds: {folds}, and class {rare!r} of {name} has {fewest} training image{'' if fewest == 1 else 's'}, so "
            f"that a fold would have none; {remedy}, or leave the class out"
        )
    fold_of = fold_ids(train.y, folds, seed) if groups is None else group_folds(train, folds, seed, groups)
    members = [np.flatnonzero(fold_of == fold) for fold in range(folds)]
    named = {str(fold): Split(train.x[own], train.y[own]) for fold, own in enumerate(members)}
    return named | {"test": parts["test"]}


def fold_ids(labels: Labels, folds: int, seed: int) -> FoldIds:
    """Stratified folds: of each class, and in all, the largest has at most one image more than the smallest."""
    shuffled = np.random.RandomState([seed, _FOLDS]).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    ids = np.empty(len(labels), np.int64)
    ids[by_class] = np.arange(len(labels)) % folds
    return ids


def joined(parts: Mapping[str, Split]) -> tuple[dict[str, Split], FoldIds]:
    """The training images of all folds as one part, with the fold of each, and the test images."""
    folds = [part for name, part in parts.items() if name != "test"]
    train = Split(np.concatenate([fold.x for fold in folds]), np.concatenate([fold.y for fold in folds]))
    ids = np.repeat(np.arange(len(folds)), [len(fold.y) for fold in folds])
    return {"train": train, "test": parts["test"]}, ids


def check_fold_classes(name: str, labels: Labels, ids: FoldIds, class_names: tuple[str, ...]) -> None:
    """Reject folds of which one is empty, or has all images of a class, after images were left out.

    Raises:
        UserError: names the first.
    """
    table = np.zeros((int(ids.max()) + 1, len(class_names)), np.int64)
    np.add.at(table, (ids, labels), 1)
    if not table.sum(axis=1).all():
        raise UserError(f"{name}: a fold has no image left; take fewer folds, or leave data.folds out")
    alone = np.argwhere(table == table.sum(axis=0))
    if len(alone):
        rare = class_names[int(alone[0][1])]
        raise UserError(f"{name}: all images left of class {rare!r} are in one fold; add images, or leave the class out")


def copies_across(train: Split, ids: FoldIds) -> int:
    """Number of images that equal one of another fold, on which a training has seen them."""
    count = 0
    for fold in range(int(ids.max()) + 1):
        own = ids == fold
        copies, _ = find_copies({"train": Split(train.x[~own], train.y[~own]), "val": Split(train.x[own], train.y[own])})
        count += copies.across.get(("train", "val"), 0)
    return count
