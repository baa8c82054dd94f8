"""Copies: counted within and across the parts of a data set, and dropped by a fixed rule; against counting by hand."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.data import copies
from search.data.copies import Copies, find_copies
from search.data.dataset import load_dataset, without_copies
from search.data.splits import Split
from search.errors import UserError

PARTS = st.sampled_from(["train", "val", "test"])
IMAGES = st.lists(st.tuples(PARTS, st.integers(0, 6), st.sampled_from([0, 0, 0, 1])), min_size=1, max_size=40)


def splits_of(images: list[tuple[str, int, int]]) -> dict[str, Split]:
    """Splits of images, given as (part, content, label)."""
    splits = {}
    for part in ("train", "val", "test"):
        own = [(content, label) for name, content, label in images if name == part]
        x = np.array([content for content, _ in own], np.uint8).reshape(-1, 1, 1, 1).repeat(2, axis=1)
        splits[part] = Split(x, np.array([label for _, label in own], np.int64))
    return splits


@given(IMAGES)
def test_copies_are_counted_and_marked(images: list[tuple[str, int, int]]) -> None:
    found, keep = find_copies(splits_of(images))
    by_content = defaultdict(list)
    for part, content, label in images:
        by_content[content].append((part, label))
    per_part = Counter((part, content) for part, content, _ in images)
    assert found.within == sum(count - 1 for count in per_part.values())
    for pair in (("train", "val"), ("train", "test"), ("val", "test")):
        both = [content for content in by_content if all((part, content) in per_part for part in pair)]
        assert found.across.get(pair, 0) == sum(per_part[pair[1], content] for content in both)
    contradicting = {content for content, own in by_content.items() if len({label for _, label in own}) > 1}
    assert found.contradicting == sum(len(by_content[content]) for content in contradicting)
    kept = [
        (part, int(x), int(y))
        for part, split in splits_of(images).items()
        for x, y in zip(split.x[keep[part], 0, 0, 0], split.y[keep[part]], strict=True)
    ]
    assert sorted(content for _, content, _ in kept) == sorted(by_content.keys() - contradicting)
    rank = ["test", "val", "train"]
    for part, content, _ in kept:
        assert rank.index(part) == min(rank.index(own) for own, _ in by_content[content])
    assert bool(found) == (len(by_content) < len(images))
    assert (found.describe() == "") == (not found)


def test_images_of_one_checksum_are_compared_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [("train", 1, 0), ("train", 1, 0), ("val", 1, 0), ("test", 2, 0), ("train", 2, 1), ("train", 3, 0)]
    expected = find_copies(splits_of(images))[0]
    monkeypatch.setattr(copies, "_checksums", lambda x: np.zeros(len(x), np.uint64))
    assert find_copies(splits_of(images))[0] == expected


def test_the_words_name_the_parts() -> None:
    images = [("train", 1, 0), ("train", 1, 0), ("val", 1, 0), ("test", 2, 0), ("train", 2, 1), ("train", 3, 0)]
    found, _ = find_copies(splits_of(images))
    assert found == Copies(1, {("train", "val"): 1, ("train", "test"): 1}, 2)
    assert found.describe() == (
        "copies: 1 validation image equals a training image, 1 test image equals a training image, 1 repeats an image of "
        "the same part, 2 contradict each other (equal pixels, different classes)"
    )


def test_dropping_copies_changes_nothing_where_there_are_none() -> None:
    how = {"protocol": "holdout", "holdout": 0.1, "images": None}
    plain, dropped = (load_dataset("digits", None, **how, drop_copies=drop) for drop in (False, True))  # type: ignore[arg-type]
    assert not plain.copies and plain.fingerprint == dropped.fingerprint
    assert plain.summary() == dropped.summary()


def test_a_class_of_copies_alone_is_rejected(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.npz"
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (60, 8, 8), np.uint8), np.arange(60) % 3
    x[y == 1] = x[y == 2]
    np.savez(path, x_train=x, y_train=y, x_test=random.integers(0, 256, (30, 8, 8), np.uint8), y_test=y[:30])
    dataset = load_dataset(None, path, protocol="course", holdout=0.1, images=None)
    assert dataset.copies.contradicting == 40
    with pytest.raises(UserError, match="no training image of class '1' is left without copies; leave the class out"):
        load_dataset(None, path, protocol="course", holdout=0.1, images=None, drop_copies=True)
    with pytest.raises(UserError, match="no training image of class '1' is left"):
        without_copies(dataset)
