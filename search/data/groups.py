"""Groups: images that belong together, such as those of one patient, and stay on one side of every split.

A network that has seen an image's group in training knows more of it than of new data, so that a split through the middle of
groups flatters every candidate.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.data.copies import PARTS
from search.data.layout import shown
from search.data.splits import HELD_OUT, Split
from search.errors import UserError

GroupIds = NDArray[np.int64]

_NOTABLE = 0.2  # relative difference between the asked and the actual size of a part, from which on it is reported


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of all images of a source, in its order."""

    ids: GroupIds  # of every image, numbered in the order in which the groups first occur
    rule: str  # how they were found, for messages: `data.group 'p[0-9]+'`
    class_names: tuple[str, ...]  # for messages
    unmatched: int = 0  # images without a match of the pattern; each is a group of its own

    def describe(self) -> str:
        """The number of groups and their sizes, in words."""
        sizes = np.bincount(self.ids)
        text = f"{self.rule}: {len(sizes):,} groups of {_range(int(sizes.min()), int(sizes.max()))}"
        if self.unmatched:
            text += f", {self.unmatched:,} image{_s(self.unmatched)} without a match as groups of their own"
        return text if sizes.max() > 1 else f"{text}, so that nothing is kept together"


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression.

    Raises:
        ValueError: it is none; gives the reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{pattern!r} is no regular expression of Python ({error}); give one such as 'patient_([0-9]+)', or leave it out"
        ) from None


def match_groups(pattern: str, names: Sequence[str], class_names: tuple[str, ...]) -> Groups:
    """Groups by a pattern that is searched in each image's path from the folder of its class on, such as `cat/p12_003.png`.

    Images with equal text in the first capture group that takes part in the match, or in the whole match where the pattern
    has none, are one group; an image without a match, or with an empty one, is a group of its own.

    Raises:
        UserError: the pattern is no regular expression, or matches no name.
    """
    try:
        compiled = compile_pattern(pattern)
    except ValueError as error:
        raise UserError(f"data.group: {error}") from None
    rule = f"data.group '{shown(pattern)}'"
    ids, known, unmatched = np.empty(len(names), np.int64), dict[str, int](), 0
    for index, name in enumerate(names):
        text = _captured(compiled.search(name))
        if text:
            ids[index] = known.setdefault(text, len(known) + unmatched)
        else:
            ids[index] = len(known) + unmatched
            unmatched += 1
    if not known:
        raise UserError(
            f"{rule}: found in none of the {len(names):,} paths, which begin with the class, such as {shown(names[0])!r}; "
            "correct it, or leave it out"
        )
    return Groups(ids, rule, class_names, unmatched)


def _captured(match: re.Match[str] | None) -> str:
    """The text of the first capture group that takes part in a match, else of the whole match; empty without a match."""
    if match is None:
        return ""
    return next((text for text in match.groups() if text is not None), match[0])


def check_group_arrays(
    origin: str, arrays: Mapping[str, NDArray[np.generic]], splits: Mapping[str, Split], class_names: tuple[str, ...]
) -> Groups:
    """Groups of an array file: one number or text for each image of each part.

    Args:
        arrays: by part; images of a part without an array are groups of their own.

    Raises:
        UserError: an array has another length than its part, or is of another kind.
    """
    values: list[tuple[str, int | str]] = []
    unmatched = 0
    for part, split in splits.items():
        if part not in arrays:
            values += [(part, index) for index in range(len(split.y))]
            unmatched += len(split.y)
            continue
        array = arrays[part]
        name = f"{origin}: groups_{part}"
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1 or array.dtype.kind not in "uiSU":
            raise UserError(f"{name} has shape {array.shape} and dtype {array.dtype}, groups must be (n,) integers or texts")
        if len(array) != len(split.y):
            raise UserError(f"{name} has {len(array):,} groups for {len(split.y):,} images; give each image one group")
        try:
            values += [("", value) for value in array.tolist()]
        except (ValueError, SystemError):  # numbers that are no characters
            raise UserError(f"{name} holds text that is no Unicode; number the groups instead") from None
    known: dict[tuple[str, int | str], int] = {}
    ids = np.array([known.setdefault(value, len(known)) for value in values], np.int64)
    return Groups(ids, f"groups of {shown(Path(origin).name)}", class_names, unmatched)


def across_parts(ids: Mapping[str, GroupIds]) -> str:
    """The number of groups that lie in two parts, and of their images in the later part, in words; empty if there is none.

    Args:
        ids: the group of each image, by part.
    """
    texts = []
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        if first in ids and second in ids:
            is_shared = np.isin(ids[second], ids[first])
            if count := int(is_shared.sum()):
                groups = len(np.unique(ids[second][is_shared]))
                texts.append(
                    f"{groups:,} group{_s(groups)} in both {PARTS[first]} and {PARTS[second]} images "
                    f"({count:,} {PARTS[second]} image{_s(count)})"
                )
    return ", ".join(texts)


def split_remarks(splits: Mapping[str, Split], asked: Mapping[str, int], groups: Groups) -> list[str]:
    """Remarks on parts that groups make much larger or smaller than was asked for, or that have few images of a class.

    Args:
        asked: the number of images that was asked for, by part.
    """
    remarks = []
    for part, n_asked in asked.items():
        n = len(splits[part].y)
        if abs(n - n_asked) > max(_NOTABLE * n_asked, 1):
            remarks.append(f"{n:,} {PARTS[part]} images where {n_asked:,} were asked for, as groups stay whole")
        counts = np.bincount(splits[part].y, minlength=len(groups.class_names))
        if counts.min() < min(HELD_OUT, n_asked // len(counts)):
            rare = groups.class_names[int(counts.argmin())]
            remarks.append(f"{counts.min():,} {PARTS[part]} image{_s(int(counts.min()))} of class {rare!r}")
    return remarks


def _range(low: int, high: int) -> str:
    return f"{low:,} to {high:,} images" if low < high else f"{low:,} image{_s(low)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
