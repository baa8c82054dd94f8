"""Patterns of groups that names suggest: which are proposed, which are left to the user, and which names suggest nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.data.folders import Folder, Part
from search.data.group_names import ANY_NUMBER, SAME_NAME, Suggestion, suggest_groups
from search.data.groups import match_groups

CLASSES = ("cat", "dog")


def folder(parts: dict[str, list[str]]) -> Folder:
    """A folder of these names of images, which begin with their classes."""
    listed = {}
    for part, names in parts.items():
        ordered = sorted(names)
        labels = np.array([CLASSES.index(name.split("/")[0]) for name in ordered], np.int64)
        listed[part] = Part(tuple(ordered), labels, tuple(ordered))
    return Folder(Path("set"), CLASSES, listed, 0, 0, {})  # type: ignore[arg-type]


def names_of(form: str, groups: int = 40, each: int = 5) -> list[str]:
    """Images of groups, every other one of cats."""
    return [
        f"{CLASSES[group % 2]}/" + form.format(group=group, image=image, number=group * each + image)
        for group in range(groups)
        for image in range(each)
    ]


def suggested(form: str, **sizes: int) -> Suggestion | None:
    return suggest_groups(folder({"all": names_of(form, **sizes)}), CLASSES, None)


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("patient_{group:03}-slice{image}.png", r"patient[ _-]?\d+"),
        ("Subject {group} ({image}).jpg", r"(?i)subject[ _-]?\d+"),
        ("scan{image}_pat{group}.png", r"(?<![a-z])pat[ _-]?\d+"),
        ("camera3_video{group}_frame{image}.png", r"video[ _-]?\d+"),
        ("P{group:02}_{image}.png", r"(?i)/(?:.*[^a-z0-9])?([ps]\d+)[^a-z0-9]"),
        ("im{group}_png.rf.{number:08x}.jpg", r"^(.+)\.rf\.[0-9a-f]+"),
    ],
)
def test_names_that_say_what_belongs_together_give_a_pattern_to_use(form: str, pattern: str) -> None:
    found = suggested(form)
    assert found is not None and found.is_usable
    assert (found.pattern, found.groups, found.largest) == (pattern, 40, 5)
    groups = match_groups(pattern, names_of(form), CLASSES)
    assert groups.ids.tolist() == np.repeat(np.arange(40), 5).tolist()


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("x{group:02}a_{image}.png", ANY_NUMBER),
        ("IMG_20200101_{group:02}h{image}.png", ANY_NUMBER),
        ("walk {group} ({image}).png", ANY_NUMBER),
        ("size{image}/icon of {group:02}x.png", SAME_NAME),
        ("day{group}/{number:05}x.png", r"^(.+/.+)/"),
        ("day{group}/img{image}.png", ANY_NUMBER),
    ],
)
def test_numbers_and_folders_are_left_to_the_user(form: str, pattern: str) -> None:
    found = suggested(form)
    assert found is not None and not found.is_usable
    assert (found.pattern, found.groups, found.largest) == (pattern, 40, 5)


@pytest.mark.parametrize(
    "form", ["{number}.png", "cat.{number}.jpg", "IMG_{number:04}.JPG", "patient{number}.png", "a{number}b.png"]
)
def test_names_of_no_groups_suggest_nothing(form: str) -> None:
    assert suggested(form) is None


def test_unsplittable_groups_are_reported_with_the_reason() -> None:
    found = suggested("patient{group}_{number}.png", groups=4, each=30)
    assert found is not None and found.is_sure and not found.is_usable
    assert found.describe() == (
        "the names hold patient numbers: 4 groups of up to 30 images; all images of class 'cat' are in 2 groups, and it "
        "would vanish from one of training, validation and test images"
    )


def test_given_parts_are_looked_through_for_groups_in_several() -> None:
    names = names_of("patient{group}_{image}.png")
    apart = {"train": names[:100], "val": names[100:150], "test": names[150:]}
    assert suggest_groups(folder(apart), CLASSES, None) is None
    mixed = {"train": names[:98], "val": names[98:150], "test": names[150:]}
    found = suggest_groups(folder(mixed), CLASSES, None)
    assert found is not None and found.across == "1 group in both training and validation images (2 validation images)"
    held_out = suggest_groups(folder({"train": names[:98], "test": names[98:]}), CLASSES, 0.1)
    assert held_out is not None and held_out.is_usable


def test_classes_that_the_study_leaves_out_do_not_count() -> None:
    names = [*names_of("patient{group}_{image}.png"), *(f"rare/{number}.png" for number in range(3))]
    whole = Part(tuple(names), np.array([("cat", "dog", "rare").index(name.split("/")[0]) for name in names]), tuple(names))
    found = suggest_groups(Folder(Path("set"), ("cat", "dog", "rare"), {"all": whole}, 0, 0, {}), CLASSES, None)  # type: ignore[arg-type]
    assert found is not None and found.groups == 40 and found.is_usable
