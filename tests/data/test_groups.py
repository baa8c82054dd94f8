"""Groups: found by pattern or array, whole in every split, in proportion; what is told of them and what is rejected."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.data.dataset import Dataset, load_dataset
from search.data.group_splits import assign_groups, held_out_groups, three_parts_of_groups
from search.data.groups import Groups, check_group_arrays, match_groups
from search.data.splits import Split
from search.errors import UserError
from tests.data.test_folders import X, Y, put

N = 600
SHARES = {"two": (9, 1), "three": (6, 2, 2)}


def groups_of(ids: np.ndarray, classes: int) -> Groups:
    return Groups(np.asarray(ids, np.int64), "data.group 'p'", tuple(f"class {label}" for label in range(classes)))


def pure_groups(group_sizes: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and ids of groups of one class each, given by the sizes of the groups of each class."""
    sizes = np.concatenate([np.array(own) for own in group_sizes])
    labels = np.repeat(np.arange(len(group_sizes)), [len(own) for own in group_sizes])
    return np.repeat(labels, sizes).astype(np.int64), np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)


# --- the split itself ------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.integers(1, 12), min_size=3, max_size=12), min_size=1, max_size=5),
    st.sampled_from(sorted(SHARES)),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_groups_of_one_class_are_whole_and_in_proportion(
    group_sizes: list[list[int]], which: str, seed: int, random: Any
) -> None:
    labels, ids = pure_groups(group_sizes)
    order = list(range(len(labels)))
    random.shuffle(order)
    labels, ids = labels[order], ids[order]
    shares = SHARES[which]
    sizes = tuple(max(1, len(labels) * share // sum(shares)) for share in shares)
    part_of = assign_groups(labels, ids, sizes, (seed, 0, 0))
    assert part_of is not None  # as every class has a group for each part
    np.testing.assert_array_equal(part_of, assign_groups(labels, 7 * ids + 3, sizes, (seed, 0, 0)))  # names do not matter
    for group in np.unique(ids):
        assert len(np.unique(part_of[ids == group])) == 1
    for label, own in enumerate(group_sizes):
        counts = np.bincount(part_of[labels == label], minlength=len(sizes))
        assert counts.min() >= 1
        expected = np.array(sizes) * sum(own) / sum(sizes)
        assert np.abs(counts - expected).max() <= (len(sizes) - 1) * max(own)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2)), min_size=2, max_size=60))
def test_mixed_groups_are_whole_wherever_a_split_with_every_class_exists(images: list[tuple[int, int]]) -> None:
    """Two parts, against trying all 2 ** 8 of them."""
    ids, labels = (np.array(values, np.int64) for values in zip(*images, strict=True))
    names = np.unique(ids)
    wanted = set(labels.tolist())
    exists = any(
        {*labels[np.isin(ids, chosen)].tolist()} == wanted == {*labels[~np.isin(ids, chosen)].tolist()}
        for chosen in (names[[bool(code >> bit & 1) for bit in range(len(names))]] for code in range(2 ** len(names)))
    )
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    groups = groups_of(ids, len(wanted))
    indices = np.arange(len(ids))
    whole = Groups(groups.ids, groups.rule, groups.class_names)
    try:
        train, val = held_out_groups(Split(indices, labels), 0.2, 0, whole)
    except UserError:
        assert not exists
        return
    assert not {*ids[train.x].tolist()} & {*ids[val.x].tolist()}
    assert {*train.y.tolist()} == {*val.y.tolist()} == set(range(len(wanted)))
    assert sorted([*train.x, *val.x]) == indices.tolist()
    assert (np.diff(train.x) > 0).all() and (np.diff(val.x) > 0).all()


def test_many_groups_come_to_the_asked_proportions_in_every_class() -> None:
    random = np.random.default_rng(0)
    ids = random.integers(0, 2_000, 20_000)
    labels = (ids % 10 + (random.random(20_000) < 0.3) * random.integers(0, 10, 20_000)) % 10
    parts = three_parts_of_groups(Split(np.arange(20_000), labels), groups_of(ids, 10))
    shares = np.array([np.bincount(part.y) for part in parts.values()]) / np.bincount(labels)
    assert np.abs(shares - [[0.6], [0.2], [0.2]]).max() < 0.002


def test_a_group_split_stays_what_it_is() -> None:
    """A study that was begun goes on with its splits, under any version of numpy."""
    ids, labels = np.arange(120) // 4, np.arange(120) // 4 % 3
    _, val = held_out_groups(Split(np.arange(120), labels), 0.1, 0, groups_of(ids, 3))
    assert np.unique(ids[val.x]).tolist() == PINNED


PINNED = [3, 8, 25]


# --- patterns and arrays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected", "unmatched"),
    [
        (r"p\d+", [0, 0, 1, 2], 1),
        (r"p(\d)\d*", [0, 0, 0, 1], 1),
        (r"/(p\d+)|(other)", [0, 0, 1, 2], 0),
        (r"(?i)^(CAT|dog)/", [0, 1, 0, 1], 0),
        (r"p1()|x", [0, 1, 2, 3], 4),
    ],
)
def test_a_pattern_gives_the_first_group_or_the_whole_match(pattern: str, expected: list[int], unmatched: int) -> None:
    names = ["cat/p1_0.png", "dog/p1_1.png", "cat/deep/p12.png", "dog/other.png"]
    if unmatched == len(names):
        with pytest.raises(UserError, match=r"found in none of the 4 paths, .*, such as 'cat/p1_0\.png'; "):
            match_groups(pattern, names, ())
        return
    groups = match_groups(pattern, names, ())
    assert (groups.ids.tolist(), groups.unmatched) == (expected, unmatched)


def test_groups_are_described() -> None:
    found = Groups(np.array([0, 0, 0, 1, 2]), "data.group 'p'", (), 1).describe()
    assert found == "data.group 'p': 3 groups of 1 to 3 images, 1 image without a match as groups of their own"
    assert Groups(np.arange(3), "g", ()).describe() == "g: 3 groups of 1 image, so that nothing is kept together"


SPLITS = {part: Split(np.zeros((n, 2, 2, 1), np.uint8), np.zeros(n, np.int64)) for part, n in (("train", 3), ("test", 2))}


def test_arrays_of_numbers_and_texts_are_groups() -> None:
    both = {"train": np.array(["a", "b", "a"]), "test": np.array(["b", "c"])}
    assert check_group_arrays("f", both, SPLITS, ()).ids.tolist() == [0, 1, 0, 1, 2]
    train = {"train": np.array([[7], [7], [8]])}
    assert check_group_arrays("f", train, SPLITS, ()).ids.tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, np.int64), "f: groups_train has 4 groups for 3 images; give each image one group"),
        (np.zeros(3), "f: groups_train has shape (3,) and dtype float64, groups must be (n,) integers or texts"),
        (np.frombuffer(b"\xff" * 12, "<U1"), "f: groups_train holds text that is no Unicode; number the groups instead"),
        (np.array(3), "f: groups_train has shape () and dtype int64, groups must be (n,) integers or texts"),
        (
            np.zeros((3, 2), np.int64),
            "f: groups_train has shape (3, 2) and dtype int64, groups must be (n,) integers or texts",
        ),
    ],
)
def test_arrays_that_are_no_groups_are_rejected(array: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        check_group_arrays("f", {"train": array}, SPLITS, ())


# --- data sets -------------------------------------------------------------------------------------------------------


def patient(index: int) -> int:
    return index // 6


def put_patients(folder: Path, indices: range, first: int = 0) -> Path:
    """Digits named by patient; every image of the set is another."""
    for index in indices:
        put(folder / str(Y[index]) / f"patient{patient(index) + first:03}_{index}.png", X[index])
    return folder


def patients_of(data: Dataset) -> list[set[int]]:
    """The patients of each part, by the pixels of the images."""
    by_pixels = {X[index].tobytes(): patient(index) for index in range(N)}
    return [{by_pixels[image.tobytes()] for image in split.x[..., :1]} for split in data.splits.values()]


def load(path: Path, group: str | None, **options: Any) -> Dataset:
    return load_dataset(None, path, group=group, **({"protocol": "holdout", "holdout": 0.25, "images": None} | options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_patients(tmp_path_factory.mktemp("whole") / "set", range(N))


def test_a_folder_is_split_by_patient(whole: Path) -> None:
    plain, grouped = load(whole, None), load(whole, r"patient(\d+)")
    parts = patients_of(grouped)
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert patients_of(plain)[0] & patients_of(plain)[1]
    assert len(grouped.y_train) + len(grouped.y_val) + len(grouped.y_test) == N  # type: ignore[arg-type]
    assert abs(len(grouped.y_val) - N // 5) <= 6 and min(np.bincount(grouped.y_val)) >= 8
    assert r"data.group 'patient(\d+)': 100 groups of 6 images" in grouped.summary()
    assert load(whole, "patient[0-9]+").fingerprint == grouped.fingerprint != plain.fingerprint
    course = load(whole, r"patient(\d+)", protocol="course")
    np.testing.assert_array_equal(course.x_val, grouped.x_test)
    assert not patients_of(course)[0] & patients_of(course)[1]


def test_groups_stay_whole_where_fewer_images_are_taken(tmp_path: Path) -> None:
    put_patients(tmp_path / "set/train", range(480))
    put_patients(tmp_path / "set/test", range(480, N))
    data = load(tmp_path / "set", r"patient(\d+)", images=300)
    parts = patients_of(data)
    assert (len(data.y_train) + len(data.y_val), len(data.y_test)) == (300, 75)  # type: ignore[arg-type]
    assert abs(len(data.y_val) - 75) <= 6 and not parts[0] & parts[1]


def test_groups_across_given_parts_are_reported(tmp_path: Path) -> None:
    put_patients(tmp_path / "set/train", range(480))
    put_patients(tmp_path / "set/test", range(480, N), first=-2)  # two patients have images in both
    data = load(tmp_path / "set", r"patient(\d+)")
    counts = re.findall(
        r"(\d) groups? in both (?:training|validation) and test images \((\d+) test images?\)", data.summary()
    )
    assert [sum(map(int, column)) for column in zip(*counts, strict=True)] == [2, 12]
    plain = load(tmp_path / "set", None)
    assert "group" not in plain.summary()


def test_groups_of_an_array_file(tmp_path: Path) -> None:
    groups = np.array([f"p{patient(index)}" for index in range(N)])
    arrays = {"x_train": X[:480], "y_train": Y[:480], "x_test": X[480:N], "y_test": Y[480:N]}
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez(tmp_path / "set.npz", **arrays, groups=groups[:480], groups_test=np.r_[groups[:6], groups[486:N]])
    data = load(tmp_path / "set.npz", None)
    parts = patients_of(data)
    assert not parts[0] & parts[1] and abs(len(data.y_val) - 120) <= 6
    assert (
        "; groups of set.npz: 99 groups of 6 to 12 images; 1 group in both training and test images (6 test images)"
        in data.summary()
    )
    np.testing.assert_array_equal(data.x_test, load(tmp_path / "plain.npz", None).x_test)
    with pytest.raises(
        UserError, match=r"plain\.npz: data\.group is a pattern for paths in a folder .* array groups_train$"
    ):
        load(tmp_path / "plain.npz", "p")


def test_large_groups_are_reported_to_change_the_proportions(tmp_path: Path) -> None:
    arrays = {"x_train": X[:480], "y_train": Y[:480], "x_test": X[480:N], "y_test": Y[480:N]}
    np.savez(tmp_path / "set.npz", **arrays, groups_train=np.arange(480) // 160)
    data = load(tmp_path / "set.npz", None, holdout=0.1)
    assert len(data.y_val) == 160
    assert "160 validation images where 48 were asked for, as groups stay whole" in data.summary()


REJECTED: dict[str, tuple[Callable[[int], str], str, str]] = {
    "single": (lambda index: "one", "one", "all 600 images are one group, which cannot be split"),
    "class": (
        lambda index: f"g{'x' if Y[index] == 3 else index % 20}",
        "g[x0-9]+",
        "all images of class '3' are in 1 group, and it would vanish from one of training, validation and test images",
    ),
    "few": (lambda index: f"g{index % 2}", "g[01]", "are in 2 groups, and it would vanish from one of"),
    "none": (lambda index: f"n{index}", r"patient(\d+)", "found in none of the 600 paths, which begin with the class"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_groups_that_cannot_be_split_are_rejected_with_the_remedy(case: str, tmp_path: Path) -> None:
    name, pattern, message = REJECTED[case]
    for index in range(N):
        path = tmp_path / "set" / str(Y[index]) / f"{name(index)}_{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # groups are checked before an image is read
    with pytest.raises(UserError) as caught:
        load(tmp_path / "set", pattern)
    text = str(caught.value)
    assert text.startswith(f"data.group '{pattern}': ") and message in text and "; " in text and "\n" not in text


def test_groups_without_a_split_that_keeps_every_class_are_rejected() -> None:
    """Each of three classes is in two groups, and any two of the three groups have one in common."""
    labels, ids = np.array([0, 1, 1, 2, 2, 0]), np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(
        UserError, match="no split into training and validation images was found that has every class in each"
    ):
        held_out_groups(Split(np.arange(6), labels), 0.3, 0, groups_of(ids, 3))


def test_a_named_set_has_no_groups() -> None:
    with pytest.raises(UserError, match=r"data\.group: digits is taken as it is"):
        load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None, group="p")
