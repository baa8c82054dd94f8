"""Splits of a data set: fixed, stratified, without common images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.array_files import LARGE, N_TRAIN, SMALL, digit_images, error_line, image_bytes, load, uneven, write_npz

SETS: dict[str, Callable[[Path], tuple[str | None, Path | None]]] = {
    "digits": lambda tmp: ("digits", None),
    "file": lambda tmp: (None, write_npz(tmp / "a.npz", **LARGE)),
}


@pytest.mark.parametrize("images", [None, 400])
@pytest.mark.parametrize("protocol", ["course", "holdout"])
@pytest.mark.parametrize("which", SETS)
def test_splits_are_frozen_stratified_and_apart(which: str, protocol: str, images: int | None, tmp_path: Path) -> None:
    name, path = SETS[which](tmp_path)
    dataset = load(path, name, protocol=protocol, holdout=0.3, images=images)
    splits = [(dataset.x_train, dataset.y_train), (dataset.x_val, dataset.y_val)]
    if protocol == "course":
        assert dataset.x_test is None and dataset.y_test is None
    else:
        splits.append((dataset.x_test, dataset.y_test))
    for x, y in splits:
        assert x.dtype == np.uint8 and y.dtype == np.int64 and y.shape == x.shape[:1]
        assert x.flags.c_contiguous and not x.flags.writeable and not y.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 0
    if which == "digits" or protocol == "holdout":
        for _, y in splits[: 3 if which == "digits" else 2]:
            expected = np.bincount(dataset.y_train) * len(y) / len(dataset.y_train)
            assert np.abs(np.bincount(y) - expected).max() <= 1.5
    seen = [set(image_bytes(x)) for x, _ in splits]  # no digit occurs twice in scikit-learn's set
    assert sum(map(len, seen)) == sum(len(y) for _, y in splits) == len(set().union(*seen))


def test_digits_fall_into_three_fixed_parts() -> None:
    course, holdout = load(name="digits"), load(name="digits", protocol="holdout", holdout=0.4)
    scaled = "digits (scikit-learn's 0 to 16 scaled to 0 to 255)"  # who exports the winner must scale them too
    assert course.summary() == (
        f"{scaled}: 1,438 training, 359 validation images of 8x8x1, 10 classes (course: validation is the test split)"
    )
    assert holdout.summary() == f"{scaled}: 1,079 training, 359 validation, 359 test images of 8x8x1, 10 classes (holdout)"
    np.testing.assert_array_equal(course.x_val, holdout.x_test)
    assert sorted(image_bytes(course.x_train)) == sorted(image_bytes(holdout.x_train) + image_bytes(holdout.x_val))
    x, y = digit_images()
    label_of = dict(zip(image_bytes(x), y, strict=True))
    assert [label_of[key] for key in image_bytes(course.x_train)] == course.y_train.tolist()
    assert (course.x_train.max(), holdout.x_test.max()) == (255, 255)


def test_fingerprints_stay_what_they_are() -> None:
    """The splits of a study that was begun must be those with which it goes on, under any version of numpy."""
    assert load(name="digits").fingerprint == "3b545d7b300f3f43"
    assert load(name="digits", protocol="holdout").fingerprint == "00410748fa5aabf5"
    assert load(name="digits", protocol="holdout", images=500).fingerprint == "4be3680432eccbc6"


def test_the_fingerprint_tells_sets_apart(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **SMALL)
    flipped = SMALL["x_train"].copy()
    flipped[17, 3, 3] ^= 1
    relabelled = SMALL["y_test"].copy()
    relabelled[0] = (relabelled[0] + 1) % 10
    prints = [
        load(path).fingerprint,
        load(path, protocol="holdout", holdout=0.2).fingerprint,
        load(path, protocol="holdout", holdout=0.25).fingerprint,
        load(path, protocol="holdout", holdout=0.2, seed=1).fingerprint,
        load(path, images=300).fingerprint,
        load(path, images=301).fingerprint,
        load(write_npz(tmp_path / "b.npz", **(SMALL | {"x_train": flipped}))).fingerprint,
        load(write_npz(tmp_path / "c.npz", **(SMALL | {"y_test": relabelled}))).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(digits) == 16 and int(digits, 16) >= 0 for digits in prints)
    assert load(path, images=N_TRAIN).fingerprint == prints[0]


@pytest.mark.parametrize("n_each", [[60] * 10, [6, 6, 2], [150, 90, 40, 11]])
def test_fewer_images_nest_and_keep_proportions(n_each: list[int], tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **uneven(n_each))
    whole = load(path)
    total = sum(n_each)
    before: list[set[bytes]] = [set(), set()]
    first = int(error_line(path, images=0).split(" takes ")[1].split(" to ")[0])
    assert f"takes {first} to {total}" in error_line(path, images=total + 1)
    if first > 1:
        assert f"takes {first} to {total}" in error_line(path, images=first - 1)
    for images in range(first, total + 1, max(1, total // 40)):
        dataset = load(path, images=images)
        assert len(dataset.y_train) == images
        assert len(dataset.y_val) == int(len(whole.y_val) * images / total + 0.5)
        for split, n_whole in ((dataset.y_train, n_each), (dataset.y_val, np.bincount(whole.y_val))):
            shares = np.asarray(n_whole) * len(split) / sum(n_whole)
            assert np.bincount(split, minlength=len(n_each)).min() >= 1
            assert np.abs(np.bincount(split, minlength=len(n_each)) - shares).max() <= 1
        now = [set(image_bytes(dataset.x_train)), set(image_bytes(dataset.x_val))]
        assert before[0] <= now[0] and before[1] <= now[1]
        before = now


def test_images_are_taken_before_the_holdout(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **LARGE)
    reduced, held = load(path, images=300), load(path, images=300, protocol="holdout", holdout=0.4)
    assert (len(held.y_train), len(held.y_val), len(held.y_test)) == (180, 120, 100)
    assert sorted(image_bytes(reduced.x_train)) == sorted(image_bytes(held.x_train) + image_bytes(held.x_val))
    np.testing.assert_array_equal(reduced.x_val, held.x_test)


@pytest.mark.parametrize("holdout", [0.0, 1.0, -0.1, float("nan")])
def test_a_holdout_is_a_share(holdout: float, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **SMALL)
    assert "it must be between 0 and 1" in error_line(path, protocol="holdout", holdout=holdout)


@pytest.mark.parametrize("holdout", [0.05, 0.998])
def test_a_rejected_holdout_names_the_fractions_that_do(holdout: float, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **SMALL)
    message = error_line(path, protocol="holdout", holdout=holdout)
    low, high = (float(word) for word in message.split("; use a holdout of ")[1].split(" to "))
    smallest, largest = (load(path, protocol="holdout", holdout=share) for share in (low, high))
    assert np.bincount(smallest.y_val).min() == 10
    assert np.bincount(largest.y_train).min() == 1
    for n_held in (len(smallest.y_val) - 1, len(largest.y_val) + 1):
        error_line(path, protocol="holdout", holdout=n_held / N_TRAIN)


def test_ten_images_of_a_class_cannot_be_held_out_of_ten(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **uneven([50, 10]))
    assert "has 10 training images" in error_line(path, protocol="holdout", holdout=0.5)
