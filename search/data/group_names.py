"""Groups that the names of a folder's images suggest, for a user who has not thought of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.data.folders import Folder, Part
from search.data.group_splits import held_out_groups, holdout_size, three_parts_of_groups
from search.data.groups import Groups, across_parts, match_groups
from search.data.layout import WHOLE
from search.data.splits import Split
from search.errors import UserError

LEAST_SHARE = 0.5  # of the images that match a pattern, and of these the share that is not alone in its group, at least
SHORT = 4  # letters of a word that may be the end of another, such as pat
MOST_OFF = 0.5  # relative difference between the asked and the actual size of a part, up to which a pattern is of use

ANY_NUMBER = r"^(.+?)[ ._(-]*\d+\)?\.\w+$"  # that ends a name: of a frame, or of an image of a series
SAME_NAME = r"([^/]+[^/\d])\.\w+$"  # the name of a file, unless a number ends it

_WORDS = (  # that a number follows, the most important first
    *("patient", "subject", "participant", "person", "donor", "pat", "subj", "sub"),
    *("session", "recording", "sequence", "scene", "video", "clip", "burst", "visit", "study", "scan", "seq", "vid", "ses"),
    *("camera", "station", "site", "location", "cam"),
    *("specimen", "sample", "slide", "plot", "object", "obj"),
)


@dataclass(frozen=True)
class Suggestion:
    """A pattern for [data] group, and its reason."""

    pattern: str
    reason: str  # what the names hold, in words
    is_sure: bool  # the study should use it; else it is for the user to judge
    groups: int
    largest: int  # images of the largest group
    across: str = ""  # groups in several given parts, in words; see `groups.across_parts`
    problem: str = ""  # why the study cannot use it, in words

    @property
    def is_usable(self) -> bool:
        """True if the study should use it, without asking the user."""
        return self.is_sure and not self.problem

    def describe(self) -> str:
        """The suggestion in words."""
        text = f"{self.reason}: {self.groups:,} groups of up to {self.largest:,} images"
        return "; ".join(filter(None, (text, self.across, self.problem)))


def suggest_groups(folder: Folder, classes: Sequence[str], holdout: float | None) -> Suggestion | None:
    """The first pattern by which most images are in groups that can be split; None if there is none.

    A pattern that says what the groups are, such as patients, is suggested also where the groups cannot be split.

    Args:
        classes: the names of the classes that the study takes.
        holdout: the share of training images that the study holds out, None where it holds out none.
    """
    labels = {name: label for label, name in enumerate(classes)}
    own = [labels.get(name, -1) for name in folder.classes]
    taken = {part: _taken(images, own) for part, images in folder.parts.items()}
    names = [name for images in taken.values() for name in images.names]
    doubtful: Suggestion | None = None
    for pattern, reason, is_sure in _candidates(names):
        try:
            groups = match_groups(pattern, names, tuple(classes))
        except UserError:  # no name has a match
            continue
        sizes = np.bincount(groups.ids)
        several = int(sizes[sizes > 1].sum())
        if groups.unmatched > (1 - LEAST_SHARE) * len(names) or several < LEAST_SHARE * (len(names) - groups.unmatched):
            continue
        across, problem = _tried(taken, groups, holdout)
        is_split = WHOLE in taken or holdout is not None
        suggestion = Suggestion(pattern, reason, is_sure, len(sizes) - groups.unmatched, int(sizes.max()), across, problem)
        if not problem and (is_split or across):
            return suggestion
        if is_sure and is_split and doubtful is None:
            doubtful = suggestion
    return doubtful


def _taken(images: Part, labels: Sequence[int]) -> Part:
    """The images of a part that are in the classes of the study, with its labels; -1 marks other classes."""
    own = np.array(labels, np.int64)[images.labels]
    indices = np.flatnonzero(own >= 0).tolist()
    files, names = ([of[index] for index in indices] for of in (images.files, images.names))
    return Part(tuple(files), own[indices], tuple(names))


def _candidates(names: Sequence[str]) -> list[tuple[str, str, bool]]:
    """(pattern, reason, True if it says what the groups are), the surest first."""
    text = "\n".join(names)
    lower = text.lower()
    candidates = []
    for word in _WORDS:
        if word in lower:
            case = "(?i)" if word not in text else ""
            start = "(?<![a-z])" if len(word) <= SHORT else ""
            candidates.append((rf"{case}{start}{word}[ _-]?\d+", f"the names hold {word} numbers", True))
    if ".rf." in lower:
        candidates.append((r"^(.+)\.rf\.[0-9a-f]+", "the names are Roboflow's, which adds varied copies of an image", True))
    candidates.append((r"(?i)/(?:.*[^a-z0-9])?([ps]\d+)[^a-z0-9]", "the names hold numbers such as p012", True))
    if sum(re.search(SAME_NAME, name) is not None for name in names) > LEAST_SHARE * len(names):
        candidates.append((SAME_NAME, "files of one name lie in several folders", False))
    candidates.append((ANY_NUMBER, "the names end in numbers, as those of frames or series do", False))
    candidates.append((r"^(.+/.+)/", "the images of a class lie in several folders", False))
    return candidates


def _tried(parts: Mapping[str, Part], groups: Groups, holdout: float | None) -> tuple[str, str]:
    """(Groups that lie in several given parts, why the groups cannot be split as the study would split them), in words."""
    splits, first = {}, 0
    for part, images in parts.items():
        splits[part] = Split(np.arange(first, first + len(images.labels)), images.labels)
        first += len(images.labels)
    across = across_parts({part: groups.ids[split.x] for part, split in splits.items()})
    try:
        if WHOLE in splits:
            asked, val = len(splits[WHOLE].y) // 5, three_parts_of_groups(splits[WHOLE], groups)["val"]
        elif holdout is not None:
            asked = holdout_size(len(splits["train"].y), holdout)
            _, val = held_out_groups(splits["train"], holdout, 0, groups)
        else:
            return across, ""
    except UserError as error:
        return across, str(error).removeprefix(f"{groups.rule}: ").split("; ")[0]
    n = len(val.y)
    is_far = abs(n - asked) > MOST_OFF * asked
    return across, f"{n:,} validation images where {asked:,} are asked for, as groups stay whole" if is_far else ""
