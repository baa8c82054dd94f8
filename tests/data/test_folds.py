"""Folds of cross-validation: stratified, apart, by group, and the same for every study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.data.dataset import Dataset, check_splits
from search.data.folds import fold_ids
from search.errors import UserError
from tests.support.array_files import SMALL, error_line, image_bytes, load, write_npz

HOLDOUT = {"protocol": "holdout", "holdout": 0.1}


def folds_of(data: Dataset) -> list[set[bytes]]:
    return [set(image_bytes(data.fold(index).x_val)) for index in range(data.folds)]


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_of_unequal_classes_differ_by_one_image_at_most(folds: int) -> None:
    labels = np.repeat([0, 1, 2], [7, 50, 23])[np.random.default_rng(1).permutation(80)]
    table = np.zeros((folds, 3), np.int64)
    np.add.at(table, (fold_ids(labels, folds, 0), labels), 1)
    assert (table.max(axis=0) - table.min(axis=0)).max() <= 1
    assert np.ptp(table.sum(axis=1)) <= 1
    assert (fold_ids(labels, folds, 0) == fold_ids(labels, folds, 0)).all()


def test_each_training_image_validates_once() -> None:
    plain, data = load(name="digits", **HOLDOUT), load(name="digits", folds=5, **HOLDOUT)
    np.testing.assert_array_equal(data.x_test, plain.x_test)  # finals test on the same images with and without folds
    folds, whole = folds_of(data), set(image_bytes(plain.x_train)) | set(image_bytes(plain.x_val))
    assert sum(map(len, folds)) == len(whole) == data.validated == 1438 and set().union(*folds) == whole
    label_of = dict(zip(image_bytes(plain.x_train), plain.y_train, strict=True))
    for index in range(5):
        fold = data.fold(index)
        assert set(image_bytes(fold.x_train)) == whole - folds[index] and fold.folds == 0
        assert all(
            label_of.get(key, label) == label for key, label in zip(image_bytes(fold.x_train), fold.y_train, strict=True)
        )
        assert np.ptp(np.bincount(fold.y_val)) <= 2 and not fold.x_train.flags.writeable
    assert len({data.fold(index).fingerprint for index in range(5)} | {data.fingerprint, plain.fingerprint}) == 7
    np.testing.assert_array_equal(data.fold(0).x_val, data.x_val)
    assert "1,438 training images in 5 folds that validate in turn, 359 test images" in data.summary()
    assert load(name="digits", folds=4, **HOLDOUT).fingerprint != data.fingerprint
    assert load(name="digits", folds=5, images=100, **HOLDOUT).validated == 100
    with pytest.raises(ValueError, match="no folds"):
        plain.fold(0)


def test_groups_stay_in_one_fold_and_copies_across_folds_are_counted(tmp_path: Path) -> None:
    group = np.arange(len(SMALL["y_train"])) // 4
    data = load(write_npz(tmp_path / "a.npz", **SMALL, groups_train=group), folds=3, **HOLDOUT)
    group_of = dict(zip(image_bytes(SMALL["x_train"]), group, strict=True))
    groups = [{group_of[key] for key in fold} for fold in folds_of(data)]
    assert sum(map(len, groups)) == len(set(group)) == 150
    twice = {key: np.concatenate([value, value[:40]]) if "train" in key else value for key, value in SMALL.items()}
    path = write_npz(tmp_path / "b.npz", **twice)
    copied, dropped = load(path, folds=3, **HOLDOUT), load(path, folds=3, drop_copies=True, **HOLDOUT)
    seen = [set(image_bytes(copied.fold(index).x_train)) for index in range(3)]
    count = sum(key in seen[index] for index in range(3) for key in image_bytes(copied.fold(index).x_val))
    assert count > 20 and f"{count} images equal one of another fold" in copied.summary()
    assert dropped.validated == 600 and "of another fold" not in dropped.summary()
    assert sum(map(len, folds_of(dropped))) == 600
    assert np.ptp([len(fold) for fold in folds_of(dropped)]) <= 1  # folds of what is left


def test_folds_that_cannot_be_are_rejected(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **SMALL)
    fewest = int(np.bincount(SMALL["y_train"]).min())
    assert load(path, folds=fewest, **HOLDOUT).folds == fewest
    assert f"take at most {fewest} folds" in error_line(path, folds=fewest + 1, **HOLDOUT)
    assert "validates on the test images" in error_line(path, folds=5)
    own = write_npz(tmp_path / "b.npz", **SMALL, x_val=SMALL["x_test"], y_val=SMALL["y_test"])
    assert "validation images of its own" in error_line(own, folds=5, **HOLDOUT)
    check_splits("cifar100", "holdout", 0.1, None, folds=100)
    with pytest.raises(UserError, match="take at most 10 folds"):
        check_splits("cifar100", "holdout", 0.1, 1000, folds=11)
