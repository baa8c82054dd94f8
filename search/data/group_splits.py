"""Splits that keep groups whole: every class in each part, and in proportion as far as the groups allow.

The rule is that of scikit-learn's `StratifiedGroupKFold` for parts of any size: the largest group first, each group where it
disturbs the proportions least. It counts in integers, so that a tie and with it a split is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray

from search.data.copies import PARTS
from search.data.groups import GroupIds, Groups
from search.data.splits import Labels, Split
from search.errors import UserError

_THREE_PARTS, _HOLDOUT, _FOLDS = 3, 4, 6  # streams of random numbers, beside those of `search.data.splits` and `.folds`
_ATTEMPTS = 20  # orders of the groups that are tried until every class is in each part
_PASSES = 10  # over all groups, to move one by one to where they disturb the proportions less
_SCALE = 1 << 80  # of the weights, which are integers

_Contents = list[tuple[int, int]]  # (class, number of images) of a group


def three_parts_of_groups(whole: Split, groups: Groups) -> dict[str, Split]:
    """About three fifths to train on, a fifth to validate on and a fifth to test on.

    Raises:
        UserError: the groups do not suffice for three parts with images of every class.
    """
    fifth = len(whole.y) // 5
    sizes = {"train": len(whole.y) - 2 * fifth, "val": fifth, "test": fifth}
    return _split(whole, groups, sizes, 0, _THREE_PARTS)


def held_out_groups(train: Split, holdout: float, seed: int, groups: Groups) -> tuple[Split, Split]:
    """Training and validation images, about a share `holdout` of them, out of indices of images.

    Raises:
        UserError: the share is none, or the groups do not suffice for two parts with images of every class.
    """
    if not 0 < holdout < 1:
        raise UserError(f"holdout is {holdout}, it must be between 0 and 1; pass 0.1 for a tenth")
    n_held = holdout_size(len(train.y), holdout)
    parts = _split(train, groups, {"train": len(train.y) - n_held, "val": n_held}, seed, _HOLDOUT)
    return parts["train"], parts["val"]


def holdout_size(n: int, holdout: float) -> int:
    """Number of validation images that a holdout asks for; at least one, and one is left."""
    return min(max(round(holdout * n), 1), max(n - 1, 1))


def group_folds(train: Split, folds: int, seed: int, groups: Groups) -> NDArray[np.int64]:
    """Fold of each image, from 0, out of indices of images; folds are of about one size, and keep groups whole.

    Raises:
        UserError: the groups do not suffice for so many folds with images of every class.
    """
    n = len(train.y)
    sizes = tuple(n // folds + (index < n % folds) for index in range(folds))
    return _assign(train, groups, sizes, (seed, _FOLDS), f"{folds} folds")


def _split(whole: Split, groups: Groups, sizes: Mapping[str, int], seed: int, stream: int) -> dict[str, Split]:
    assignment = _assign(whole, groups, tuple(sizes.values()), (seed, stream), f"{_words(tuple(sizes))} images")
    members = {part: np.flatnonzero(assignment == index) for index, part in enumerate(sizes)}
    return {part: Split(whole.x[indices], whole.y[indices]) for part, indices in members.items()}


def _assign(
    whole: Split, groups: Groups, sizes: tuple[int, ...], seed: tuple[int, ...], parts_text: str
) -> NDArray[np.int64]:
    """Part of each image, from 0, with images of every class in each part.

    Args:
        parts_text: the parts in words, for messages.

    Raises:
        UserError: no such split was found.
    """
    ids = groups.ids[whole.x]
    _check_enough(whole.y, ids, groups, len(sizes), parts_text)
    for attempt in range(_ATTEMPTS):
        assignment = assign_groups(whole.y, ids, sizes, (*seed, attempt))
        if assignment is not None:
            return assignment
    raise UserError(
        f"{groups.rule}: no split into {parts_text} was found that has every class in each part, as its "
        f"{len(np.unique(ids)):,} groups are too few or too mixed; make the groups smaller, or split the images yourself"
    )


def _check_enough(labels: Labels, ids: GroupIds, groups: Groups, parts: int, parts_text: str) -> None:
    """Reject groups of which some class has fewer than there are parts.

    Raises:
        UserError: names the class.
    """
    if (ids == ids[0]).all():
        raise UserError(
            f"{groups.rule}: all {len(ids):,} images are one group, which cannot be split; make the groups smaller, or "
            "leave them out"
        )
    pairs = np.unique(np.stack([labels, ids]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(groups.class_names))
    if (fewest := int(counts.min())) < parts:
        name = groups.class_names[int(counts.argmin())]
        raise UserError(
            f"{groups.rule}: all images of class {name!r} are in {fewest} group{'' if fewest == 1 else 's'}, and it would "
            f"vanish from one of {parts_text}; make the groups smaller, add images, or leave the class out"
        )


def _words(parts: tuple[str, ...]) -> str:
    *first, last = (PARTS[part] for part in parts)
    return f"{', '.join(first)} and {last}"


def assign_groups(labels: Labels, ids: GroupIds, sizes: tuple[int, ...], seed: tuple[int, ...]) -> NDArray[np.int64] | None:
    """The part of each image, from 0; None if some class is missing from some part.

    The groups come by size, in a random order among equals, each to the part where it raises least the sum of squared
    differences from the proportional counts of each class, relative to these (Pearson's chi-square).

    Args:
        sizes: number of images that each part should have, all of them together.
        seed: of the order of groups of one size.
    """
    contents, group_of = _contents(labels, ids)
    group_sizes = np.bincount(group_of)
    shuffled = np.random.RandomState(list(seed)).permutation(len(contents))
    order = shuffled[np.argsort(-group_sizes[shuffled], kind="stable")].tolist()
    table = _Table(np.bincount(labels).tolist(), sizes)
    part_of = [0] * len(contents)
    for group in order:
        part_of[group] = min(table.parts, key=lambda part: table.increase(part, contents[group]))
        table.add(part_of[group], contents[group])
    while (empty := table.first_empty()) is not None:
        if not _move_into(empty, contents, part_of, table):
            return None
    for _ in range(_PASSES):
        if not sum([_improve(group, contents, part_of, table) for group in order]):
            break
    return np.array(part_of, np.int64)[group_of]


def _contents(labels: Labels, ids: GroupIds) -> tuple[list[_Contents], NDArray[np.int64]]:
    """Classes with their numbers of images for each group, and the index of the group of each image."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # by first appearance, so that the names of groups do not matter
    group_of = rank[inverse].astype(np.int64)
    classes = int(labels.max()) + 1
    pairs, counts = np.unique(group_of * classes + labels, return_counts=True)
    contents: list[_Contents] = [[] for _ in range(len(first))]
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        contents[pair // classes].append((pair % classes, count))
    return contents, group_of


class _Table:
    """Number of images of each class in each part."""

    def __init__(self, class_sizes: list[int], sizes: tuple[int, ...]) -> None:
        self.parts = range(len(sizes))
        self._counts = [[0] * len(class_sizes) for _ in sizes]
        self._classes = [label for label, size in enumerate(class_sizes) if size]
        self._class_weights = [_SCALE // max(size, 1) for size in class_sizes]
        self._part_weights = [_SCALE // size for size in sizes]

    def increase(self, part: int, contents: _Contents) -> int:
        """Increase of chi-square by a group, but for what is the same in every part."""
        own = self._counts[part]
        squares = sum(count * (2 * own[label] + count) * self._class_weights[label] for label, count in contents)
        return squares * self._part_weights[part]

    def add(self, part: int, contents: _Contents, sign: int = 1) -> None:
        """Count a group in a part; `sign` -1 takes it out."""
        for label, count in contents:
            self._counts[part][label] += sign * count

    def first_empty(self) -> tuple[int, int] | None:
        """A (part, class) without images, None if there is none."""
        pairs = product(self.parts, self._classes)
        return next(((part, label) for part, label in pairs if not self._counts[part][label]), None)

    def is_spare(self, part: int, contents: _Contents) -> bool:
        """True if a part keeps images of every class without this group."""
        return all(self._counts[part][label] > count for label, count in contents)


def _improve(group: int, contents: list[_Contents], part_of: list[int], table: _Table) -> bool:
    """Move a group to the part where it disturbs the proportions least; false if it is there, or its part needs it."""
    part, content = part_of[group], contents[group]
    if not table.is_spare(part, content):
        return False
    table.add(part, content, -1)
    part_of[group] = min(table.parts, key=lambda other: (table.increase(other, content), other != part))
    table.add(part_of[group], content)
    return part_of[group] != part


def _move_into(empty: tuple[int, int], contents: list[_Contents], part_of: list[int], table: _Table) -> bool:
    """Move the group that disturbs the proportions least into a part without its class; False if none can be moved."""
    target, label = empty
    best: tuple[int, int] | None = None
    for group, content in enumerate(contents):
        part = part_of[group]
        if any(own == label for own, _ in content) and part != target and table.is_spare(part, content):
            table.add(part, content, -1)
            change = table.increase(target, content) - table.increase(part, content)
            table.add(part, content)
            best = min(best or (change, group), (change, group))
    if best is None:
        return False
    group = best[1]
    table.add(part_of[group], contents[group], -1)
    table.add(target, contents[group])
    part_of[group] = target
    return True
