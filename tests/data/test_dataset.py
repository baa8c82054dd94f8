"""Data sets: every form of a file gives the same arrays, splits are fixed and clean, and no file can do harm.

Real images throughout: scikit-learn's digits, as they are (8x8x1) or enlarged to 32x32x3 where a format is CIFAR's.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from search.data import archives
from search.data.dataset import Dataset, channel_statistics, load_dataset
from search.data.sources import CIFAR10_CLASSES, CIFAR100_CLASSES
from search.errors import UserError

ROOT = Path(__file__).parents[2]
N_TRAIN, N_TEST = 600, 200


def _digit_images() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return np.rint(bunch.images * 255 / 16).astype(np.uint8), bunch.target


def _small() -> dict[str, np.ndarray]:
    x, y = _digit_images()
    last = N_TRAIN + N_TEST
    return {"x_train": x[:N_TRAIN], "y_train": y[:N_TRAIN], "x_test": x[N_TRAIN:last], "y_test": y[N_TRAIN:last]}


def _enlarged() -> dict[str, np.ndarray]:
    """The same in the shape of CIFAR; the channels differ, so that a mixed-up axis shows."""
    arrays = _small()
    for name in ("x_train", "x_test"):
        grey = np.kron(arrays[name], np.ones((1, 4, 4), np.uint8))
        arrays[name] = np.stack([grey, 255 - grey, grey // 2], axis=-1)
    return arrays


SMALL, LARGE = _small(), _enlarged()


def _load(path: Path | None = None, name: str | None = None, **options: Any) -> Dataset:
    return load_dataset(name, path, **({"protocol": "course", "holdout": 0.1, "images": None} | options))


def _refused(path: Path | None = None, name: str | None = None, **options: Any) -> str:
    """The one line in which the request is refused."""
    with pytest.raises(UserError) as caught:
        _load(path, name, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert path is None or options or str(path) in message  # an option is at fault, or the file is
    return message


def _same(dataset: Dataset, arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(dataset.x_train, arrays["x_train"].reshape(dataset.x_train.shape))
    np.testing.assert_array_equal(dataset.y_train, arrays["y_train"].ravel())
    np.testing.assert_array_equal(dataset.x_val, arrays["x_test"].reshape(dataset.x_val.shape))
    np.testing.assert_array_equal(dataset.y_val, arrays["y_test"].ravel())


# --- writers of CIFAR's formats --------------------------------------------------------------------------------------


def _rows(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2).reshape(len(x), 3072)


def _python_two(rows: np.ndarray, labels: np.ndarray, key: bytes = b"labels") -> bytes:
    """What Python 2 and numpy 1 wrote, opcode by opcode, as in the official archive."""
    shape = b"M" + struct.pack("<H", len(rows)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01" + shape
    array += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    array += b"T" + struct.pack("<i", rows.nbytes) + rows.tobytes() + b"tb"
    numbers = b"".join(b"K" + bytes([label]) for label in labels.tolist())
    labelled = b"U" + bytes([len(key)]) + key + b"](" + numbers + b"e"
    return b"\x80\x02}q\x01(U\x04data" + array + labelled + b"U\x0bbatch_labelU\x05batch" + b"u."


def _pickled(rows: np.ndarray, labels: np.ndarray, protocol: int) -> bytes:
    return pickle.dumps({b"data": rows, b"labels": labels.tolist()}, protocol=protocol)


def _binary(rows: np.ndarray, labels: np.ndarray) -> bytes:
    return np.column_stack([labels.astype(np.uint8), rows]).tobytes()


Writer = Callable[[np.ndarray, np.ndarray], bytes]


def _batches(write: Writer, suffix: str = "", arrays: dict[str, np.ndarray] = LARGE) -> dict[str, bytes]:
    rows, labels = np.split(_rows(arrays["x_train"]), 5), np.split(arrays["y_train"], 5)
    files = {f"data_batch_{i + 1}{suffix}": write(rows[i], labels[i]) for i in range(5)}
    return files | {f"test_batch{suffix}": write(_rows(arrays["x_test"]), arrays["y_test"])}


def _folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def _tar(path: Path, files: dict[str, bytes], folder: str = "", extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for member in extra:
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _npz(path: Path, *, compressed: bool = False, **arrays: np.ndarray) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


PY, BIN = "cifar-10-batches-py/", "cifar-10-batches-bin/"
HEADS = {"README.html": b"<html>", "batches.meta": b"not read"}
FORMS: dict[str, Callable[[Path], Path]] = {
    "npz": lambda tmp: _npz(tmp / "a.npz", **LARGE),
    "npz, compressed": lambda tmp: _npz(tmp / "a.npz", compressed=True, **LARGE),
    "npz, labels (n, 1), int16 pixels": lambda tmp: _npz(
        tmp / "a.npz",
        **{name: a[:, None] if a.ndim == 1 else a.astype(">i2") for name, a in LARGE.items()},
    ),
    "npz, float pixels, Fortran order": lambda tmp: _npz(
        tmp / "a.npz",
        **{name: a if a.ndim == 1 else np.asfortranarray(a.astype(np.float32)) for name, a in LARGE.items()},
    ),
    "python folder": lambda tmp: _folder(tmp / "cifar-10-batches-py", _batches(_python_two) | HEADS),
    "python folder of another name": lambda tmp: _folder(tmp / "mine", _batches(_python_two)),
    "python tar.gz": lambda tmp: _tar(tmp / "cifar-10-python.tar.gz", HEADS | _batches(_python_two), PY),
    "python tar": lambda tmp: _tar(tmp / "a.tar", _batches(_python_two), "./" + PY),
    "python tgz, no folder inside": lambda tmp: _tar(tmp / "b.gz", _batches(_python_two)).rename(tmp / "b.tgz"),
    "pickle protocol 2": lambda tmp: _folder(tmp / "p2", _batches(lambda x, y: _pickled(x, y, 2))),
    "pickle protocol 4": lambda tmp: _folder(tmp / "p4", _batches(lambda x, y: _pickled(x, y, 4))),
    "pickled in Fortran order": lambda tmp: _folder(tmp / "pf", _batches(lambda x, y: _pickled(np.asfortranarray(x), y, 2))),
    "binary folder": lambda tmp: _folder(tmp / "cifar-10-batches-bin", _batches(_binary, ".bin")),
    "binary tar.gz": lambda tmp: _tar(tmp / "cifar-10-binary.tar.gz", _batches(_binary, ".bin"), BIN),
}


@pytest.mark.parametrize("name", ["cifar10", None])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_set(form: str, name: str | None, tmp_path: Path) -> None:
    dataset = _load(FORMS[form](tmp_path), name)
    _same(dataset, LARGE)
    assert dataset.fingerprint == "ceeb7444ef14b18d"
    assert dataset.input_shape == (32, 32, 3) and dataset.classes == 10
    if name or "npz" not in form:
        assert dataset.class_names == CIFAR10_CLASSES
    if form == "python tar.gz":
        assert dataset.name == (name or "cifar-10-python")


@pytest.mark.parametrize("form", ["npz", "python tar.gz", "binary folder"])
def test_the_holdout_does_not_depend_on_the_form(form: str, tmp_path: Path) -> None:
    dataset = _load(FORMS[form](tmp_path), protocol="holdout", holdout=0.2)
    assert dataset.fingerprint == "bcc2337e77e3305a"


@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar100_takes_the_fine_labels(form: str, tmp_path: Path) -> None:
    fine = {name: a if a.ndim > 1 else a * 10 + np.arange(len(a)) // 10 % 10 for name, a in LARGE.items()}
    y = fine["y_train"]
    kept = np.concatenate([np.arange(len(y)), np.arange(len(y))])  # every class must be there
    fine["y_train"] = np.where(np.arange(len(kept)) < 100, np.arange(len(kept)), y[kept])
    fine["x_train"] = fine["x_train"][kept]
    files = {}
    for part, file in (("train", "train"), ("test", "test")):
        x, labels = _rows(fine[f"x_{part}"]), fine[f"y_{part}"]
        if form == "python":
            files[file] = _python_two(x, labels, b"fine_labels")
        else:
            files[f"{file}.bin"] = np.column_stack([labels // 5, labels, x]).astype(np.uint8).tobytes()
    path = _tar(tmp_path / "a.tar.gz", files, "cifar-100-python/" if form == "python" else "cifar-100-binary/")
    dataset = _load(path, "cifar100")
    _same(dataset, fine)
    assert dataset.class_names == CIFAR100_CLASSES and len(set(CIFAR100_CLASSES)) == 100


def test_a_set_of_ones_own_gets_its_name_and_a_channel_axis(tmp_path: Path) -> None:
    dataset = _load(_npz(tmp_path / "my.digits.npz", **SMALL))
    _same(dataset, SMALL)
    assert dataset.name == "my.digits" and dataset.class_names == tuple("0123456789")
    assert dataset.summary() == (
        "my.digits: 600 training, 200 validation images of 8x8x1, 10 classes (course: validation is the test split)"
    )


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_named_file_must_hold_that_set(name: str, tmp_path: Path) -> None:
    message = _refused(_npz(tmp_path / "a.npz", **SMALL), name)
    assert "32x32x3" in message and "8x8x1 in 10" in message


# --- splits ----------------------------------------------------------------------------------------------------------

SETS: dict[str, Callable[[Path], tuple[str | None, Path | None]]] = {
    "digits": lambda tmp: ("digits", None),
    "file": lambda tmp: (None, _npz(tmp / "a.npz", **LARGE)),
}


def _keys(x: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in x]


@pytest.mark.parametrize("images", [None, 400])
@pytest.mark.parametrize("protocol", ["course", "holdout"])
@pytest.mark.parametrize("which", SETS)
def test_splits_are_frozen_stratified_and_apart(which: str, protocol: str, images: int | None, tmp_path: Path) -> None:
    name, path = SETS[which](tmp_path)
    dataset = _load(path, name, protocol=protocol, holdout=0.3, images=images)
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
    seen = [set(_keys(x)) for x, _ in splits]  # no digit occurs twice in scikit-learn's set
    assert sum(map(len, seen)) == sum(len(y) for _, y in splits) == len(set().union(*seen))


def test_digits_fall_into_three_fixed_parts() -> None:
    course, holdout = _load(name="digits"), _load(name="digits", protocol="holdout", holdout=0.4)
    scaled = "digits (scikit-learn's 0 to 16 scaled to 0 to 255)"  # who exports the winner must scale them too
    assert course.summary() == (
        f"{scaled}: 1,438 training, 359 validation images of 8x8x1, 10 classes (course: validation is the test split)"
    )
    assert holdout.summary() == f"{scaled}: 1,079 training, 359 validation, 359 test images of 8x8x1, 10 classes (holdout)"
    np.testing.assert_array_equal(course.x_val, holdout.x_test)
    assert sorted(_keys(course.x_train)) == sorted(_keys(holdout.x_train) + _keys(holdout.x_val))
    x, y = _digit_images()
    label_of = dict(zip(_keys(x), y, strict=True))
    assert [label_of[key] for key in _keys(course.x_train)] == course.y_train.tolist()
    assert (course.x_train.max(), holdout.x_test.max()) == (255, 255)


def test_fingerprints_stay_what_they_are() -> None:
    """The splits of a study that was begun must be those with which it goes on, under any version of numpy."""
    assert _load(name="digits").fingerprint == "3b545d7b300f3f43"
    assert _load(name="digits", protocol="holdout").fingerprint == "00410748fa5aabf5"
    assert _load(name="digits", protocol="holdout", images=500).fingerprint == "4be3680432eccbc6"


def test_the_fingerprint_tells_sets_apart(tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", **SMALL)
    flipped = SMALL["x_train"].copy()
    flipped[17, 3, 3] ^= 1
    relabelled = SMALL["y_test"].copy()
    relabelled[0] = (relabelled[0] + 1) % 10
    prints = [
        _load(path).fingerprint,
        _load(path, protocol="holdout", holdout=0.2).fingerprint,
        _load(path, protocol="holdout", holdout=0.25).fingerprint,
        _load(path, protocol="holdout", holdout=0.2, seed=1).fingerprint,
        _load(path, images=300).fingerprint,
        _load(path, images=301).fingerprint,
        _load(_npz(tmp_path / "b.npz", **(SMALL | {"x_train": flipped}))).fingerprint,
        _load(_npz(tmp_path / "c.npz", **(SMALL | {"y_test": relabelled}))).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(digits) == 16 and int(digits, 16) >= 0 for digits in prints)
    assert _load(path, images=N_TRAIN).fingerprint == prints[0]


def _uneven(n_each: list[int]) -> dict[str, np.ndarray]:
    """Training images with so many of each class: where largest remainders would not nest."""
    x, y = _digit_images()
    chosen = np.sort(np.concatenate([np.flatnonzero(y == label)[:n] for label, n in enumerate(n_each)]))
    rest = np.setdiff1d(np.flatnonzero(y < len(n_each)), chosen)
    return {"x_train": x[chosen], "y_train": y[chosen], "x_test": x[rest], "y_test": y[rest]}


@pytest.mark.parametrize("n_each", [[60] * 10, [6, 6, 2], [150, 90, 40, 11]])
def test_fewer_images_nest_and_keep_proportions(n_each: list[int], tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", **_uneven(n_each))
    whole = _load(path)
    total = sum(n_each)
    before: list[set[bytes]] = [set(), set()]
    first = int(_refused(path, images=0).split(" takes ")[1].split(" to ")[0])
    assert f"takes {first} to {total}" in _refused(path, images=total + 1)
    if first > 1:
        assert f"takes {first} to {total}" in _refused(path, images=first - 1)
    for images in range(first, total + 1, max(1, total // 40)):
        dataset = _load(path, images=images)
        assert len(dataset.y_train) == images
        assert len(dataset.y_val) == int(len(whole.y_val) * images / total + 0.5)
        for split, n_whole in ((dataset.y_train, n_each), (dataset.y_val, np.bincount(whole.y_val))):
            shares = np.asarray(n_whole) * len(split) / sum(n_whole)
            assert np.bincount(split, minlength=len(n_each)).min() >= 1
            assert np.abs(np.bincount(split, minlength=len(n_each)) - shares).max() <= 1
        now = [set(_keys(dataset.x_train)), set(_keys(dataset.x_val))]
        assert before[0] <= now[0] and before[1] <= now[1]
        before = now


def test_images_are_taken_before_the_holdout(tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", **LARGE)
    reduced, held = _load(path, images=300), _load(path, images=300, protocol="holdout", holdout=0.4)
    assert (len(held.y_train), len(held.y_val), len(held.y_test)) == (180, 120, 100)
    assert sorted(_keys(reduced.x_train)) == sorted(_keys(held.x_train) + _keys(held.x_val))
    np.testing.assert_array_equal(reduced.x_val, held.x_test)


@pytest.mark.parametrize("holdout", [0.0, 1.0, -0.1, float("nan")])
def test_a_holdout_is_a_share(holdout: float, tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", **SMALL)
    assert "it must be between 0 and 1" in _refused(path, protocol="holdout", holdout=holdout)


@pytest.mark.parametrize("holdout", [0.05, 0.998])
def test_a_refused_holdout_names_the_fractions_that_do(holdout: float, tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", **SMALL)
    message = _refused(path, protocol="holdout", holdout=holdout)
    low, high = (float(word) for word in message.split("; use a holdout of ")[1].split(" to "))
    smallest, largest = (_load(path, protocol="holdout", holdout=share) for share in (low, high))
    assert np.bincount(smallest.y_val).min() == 10
    assert np.bincount(largest.y_train).min() == 1
    for n_held in (len(smallest.y_val) - 1, len(largest.y_val) + 1):
        _refused(path, protocol="holdout", holdout=n_held / N_TRAIN)


def test_ten_images_of_a_class_cannot_be_held_out_of_ten(tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", **_uneven([50, 10]))
    assert "has 10 training images" in _refused(path, protocol="holdout", holdout=0.5)


# --- what is no data set ---------------------------------------------------------------------------------------------


def _with(**changed: Any) -> dict[str, np.ndarray]:
    return SMALL | changed


X, Y = SMALL["x_train"], SMALL["y_train"]
NAN = np.where(np.arange(N_TRAIN)[:, None, None] == 7, np.nan, X)
BAD: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "fractions": (_with(x_train=X / 255), "float64 values 0 to 1; pass uint8"),
    "half a pixel": (_with(x_train=X + 0.5), "holds 0.5"),
    "not a number": (_with(x_train=NAN), "holds nan"),
    "negative pixel": (_with(x_test=SMALL["x_test"].astype(int) - 1), "holds -1"),
    "pixel 256": (_with(x_train=X.astype(int) + 1), "holds 256"),
    "complex": (_with(x_train=X.astype(complex)), "dtype complex128"),
    "text": (_with(x_train=np.full(N_TRAIN, "cat.png")), "dtype <U7"),
    "channels first": (_with(x_train=np.stack([X] * 17, 1).transpose(0, 2, 3, 1)), "(600, 8, 8, 17)"),
    "flat": (_with(x_train=X.reshape(N_TRAIN, 64)), "(600, 64)"),
    "five axes": (_with(x_train=X[..., None, None]), "(600, 8, 8, 1, 1)"),
    "empty": (_with(x_train=X[:0], y_train=Y[:0]), "(0, 8, 8, 1)"),
    "empty test": (_with(x_test=X[:0], y_test=Y[:0]), "x_test has shape (0, 8, 8, 1)"),
    "no pixels": (_with(x_train=X[:, :0]), "(600, 0, 8, 1)"),
    "another test shape": (_with(x_test=SMALL["x_test"][:, 1:]), "training images are 8x8x1, test images 7x8x1"),
    "too few labels": (_with(y_train=Y[:-1]), "599 labels for 600 images"),
    "one-hot": (_with(y_train=np.eye(10, dtype=int)[Y]), "(600, 10)"),
    "float labels": (_with(y_train=Y.astype(float)), "dtype float64"),
    "negative label": (_with(y_train=Y - 1), "-1 to 8"),
    "from one": (_with(y_train=Y + 1), "no training image of class 0"),
    "a gap": (_with(y_train=np.where(Y == 4, 3, Y)), "no training image of class 4"),
    "enormous label": (_with(y_train=np.where(Y == 9, np.uint64(2**64 - 1), Y.astype(np.uint64))), "18446744073709551615"),
    "one class": (_with(y_train=Y * 0, y_test=SMALL["y_test"] * 0), "one class"),
    "unknown test label": (_with(y_test=SMALL["y_test"] + 1), "y_test has label 10"),
    "objects": (_with(x_train=np.array([X, None], dtype=object)), "Python objects, which are never loaded"),
    "a record": (_with(y_train=np.zeros(N_TRAIN, [("label", "i4")])), "(n,) integers"),
    "missing": ({name: a for name, a in SMALL.items() if name != "y_test"}, "y_test missing, it holds x_test, x_train"),
}


@pytest.mark.parametrize("what", BAD)
def test_arrays_that_are_no_data_set(what: str, tmp_path: Path) -> None:
    arrays, words = BAD[what]
    assert words in _refused(_npz(tmp_path / "a.npz", **arrays))


def _split_in_three() -> dict[str, np.ndarray]:
    x, y = _digit_images()
    return {
        "x_train": x[:600],
        "y_train": y[:600],
        "x_val": x[600:750],
        "y_val": y[600:750],
        "x_test": x[750:],
        "y_test": y[750:],
    }


def test_validation_images_of_a_file_are_validated_on(tmp_path: Path) -> None:
    """Under "course" they are trained on, as those of a folder are; without them everything is as it was."""
    arrays = _split_in_three()
    path = _npz(tmp_path / "a.npz", **arrays)
    for holdout in (0.1, 0.5):
        dataset = _load(path, protocol="holdout", holdout=holdout)
        for part in ("train", "val", "test"):
            np.testing.assert_array_equal(getattr(dataset, f"x_{part}")[..., 0], arrays[f"x_{part}"])
            np.testing.assert_array_equal(getattr(dataset, f"y_{part}"), arrays[f"y_{part}"])
    course = _load(path)
    assert (len(course.y_train), len(course.y_val), course.x_test) == (750, len(arrays["y_test"]), None)
    few = _load(path, protocol="holdout", images=300)
    assert (len(few.y_train), len(few.y_val)) == (300, 75)
    without = {name: array for name, array in arrays.items() if not name.endswith("val")}
    assert _load(_npz(tmp_path / "b.npz", **without)).fingerprint == _load(_npz(tmp_path / "c.npz", **without)).fingerprint


def test_validation_images_alone_are_kept_for_the_end(tmp_path: Path) -> None:
    """As a folder's val/ beside train/ is."""
    arrays = {name: array for name, array in _split_in_three().items() if not name.endswith("test")}
    dataset = _load(_npz(tmp_path / "a.npz", **arrays), protocol="holdout", holdout=0.2)
    np.testing.assert_array_equal(dataset.y_test, arrays["y_val"])
    assert len(dataset.y_val) == 120


def test_arrays_that_are_not_read_are_named(tmp_path: Path) -> None:
    dataset = _load(_npz(tmp_path / "a.npz", **SMALL, names=np.arange(10), x_extra=SMALL["x_test"]))
    assert dataset.summary().endswith("; left out: the arrays names, x_extra")
    assert "y_val missing" in _refused(_npz(tmp_path / "b.npz", **SMALL, x_val=SMALL["x_test"]))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("side", [8, 32])
def test_channels_first_is_refused_with_the_line_that_mends_it(channels: int, side: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, channels, side, side), np.uint8)
    y = np.arange(20) % 2
    message = _refused(_npz(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y))
    assert "looks like (n, channels, height, width)" in message and "x.transpose(0, 2, 3, 1)" in message
    x = x.transpose(0, 2, 3, 1)
    assert _load(_npz(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x, y_test=y)).input_shape == (side, side, channels)


@pytest.mark.parametrize("value", [0, 7])
def test_constant_arrays_are_refused(value: int, tmp_path: Path) -> None:
    x = np.full((40, 8, 8, 3), value, np.uint8)
    arrays = {"x_train": x, "y_train": np.arange(40) % 2, "x_test": x, "y_test": np.arange(40) % 2}
    message = _refused(_npz(tmp_path / "a.npz", **arrays))
    assert f"all 40 training images hold pixels of value {value} alone; pass the images that were meant" in message
    arrays["x_train"] = np.repeat(LARGE["x_train"][:1], 40, axis=0)
    arrays["x_test"] = LARGE["x_test"][:40]
    assert "all 40 training images hold the same pixels" in _refused(_npz(tmp_path / "b.npz", **arrays))


def test_images_of_one_colour_and_dark_images_are_told(tmp_path: Path) -> None:
    blank = SMALL | {"x_train": np.concatenate([np.zeros((3, 8, 8), np.uint8), SMALL["x_train"][3:]])}
    assert "; 3 images are of one colour all over; copies: 2 repeat" in _load(_npz(tmp_path / "a.npz", **blank)).summary()
    dark = {name: array // 16 if name.startswith("x") else array for name, array in SMALL.items()}
    assert "; no pixel is brighter than 15 of 255" in _load(_npz(tmp_path / "b.npz", **dark)).summary()
    assert _load(_npz(tmp_path / "c.npz", **SMALL)).remark == ""


def test_the_commonest_class_and_its_share_are_known(tmp_path: Path) -> None:
    dataset = _load(_npz(tmp_path / "a.npz", **_uneven([50, 30])), protocol="holdout", holdout=0.5)
    assert dataset.majority == ("0", 25 / 40)


@pytest.mark.parametrize("name", ["a.h5", "a.pkl", "a.npy", "a.zip", "a"])
def test_other_files_are_not_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(SMALL))
    message = _refused(tmp_path / name)
    assert "this kind of file is not read" in message and ".npz" in message and "cifar-10-batches-py" in message


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "no such file" in _refused(tmp_path / "a.npz")
    assert "did you mean 'cifar10'" in _refused(name="cifar-10")
    assert "neither a name nor a path" in _refused()
    assert "'course' or 'holdout'" in _refused(name="digits", protocol="both")
    os.mkfifo(tmp_path / "b.npz")
    assert "not a file or a folder" in _refused(tmp_path / "b.npz")
    assert "none of CIFAR's files" in _refused(_folder(tmp_path / "empty", {}))
    files = _batches(_python_two)
    del files["data_batch_3"]
    assert "data_batch_3 missing from cifar-10-batches-py" in _refused(_folder(tmp_path / "four", files))


# --- hostile and damaged files ---------------------------------------------------------------------------------------


class _Touch:
    """Its pickle runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["folder", "tar.gz", "npz"])
def test_no_pickle_runs(form: str, tmp_path: Path) -> None:
    marker = tmp_path / "was_here"
    hostile = pickle.dumps({b"data": _Touch(marker), b"labels": []}, protocol=2)
    pickle.loads(hostile)
    assert marker.exists()  # it does bite
    marker.unlink()
    files = _batches(_python_two) | {"test_batch": hostile}
    if form == "folder":
        path = _folder(tmp_path / "a", files)
    elif form == "tar.gz":
        path = _tar(tmp_path / "a.tar.gz", files, PY)
    else:
        path = _npz(tmp_path / "a.npz", **_with(y_test=np.array([_Touch(marker)], dtype=object)))
    message = _refused(path)
    assert "Python objects" in message if form == "npz" else "system' is not CIFAR's" in message
    assert not marker.exists()


def _reduced_to(function: Any, *arguments: Any) -> Any:
    return type("Call", (), {"__reduce__": lambda self: (function, arguments)})()


ROW = np.zeros((1, 3072), np.uint8)
PICKLES: dict[str, tuple[bytes, str]] = {
    "eval": (pickle.dumps(_reduced_to(eval, "1"), 2), "eval' is not CIFAR's"),
    "a name that would colour the terminal": (b"\x80\x02cos\x1b[31m\nsystem\n.", "'os?[31m.system' is not CIFAR's"),
    "numpy's own loader": (pickle.dumps(_reduced_to(np.load, "x"), 2), "load' is not CIFAR's"),
    "an attribute of an admitted name": (b"\x80\x04\x8c\x05numpy\x8c\x12dtype.newbyteorder\x93.", "is not CIFAR's"),
    "array of objects": (pickle.dumps({b"data": ROW.astype(object), b"labels": [1]}, 2), "must be of uint8"),
    "array of floats": (pickle.dumps({b"data": ROW.astype(float), b"labels": [1]}, 2), "must be of uint8"),
    "not a dictionary": (pickle.dumps([1]), "no dictionary with b'data'"),
    "no labels": (pickle.dumps({b"data": ROW}, 2), "no dictionary with b'data' and b'labels'"),
    "data is a list": (pickle.dumps({b"data": [1], b"labels": [1]}), "array of shape (n, 3072)"),
    "short rows": (pickle.dumps({b"data": ROW[:, 1:], b"labels": [1]}, 2), "array of shape (n, 3072)"),
    "labels are text": (pickle.dumps({b"data": ROW, b"labels": ["cat"]}, 2), "list of whole numbers"),
    "label 256": (pickle.dumps({b"data": ROW, b"labels": [256]}, 2), "list of whole numbers"),
    "no state": (b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\nNNN\x87RU\x06labels]u.", "(n, 3072)"),
    "lying shape": (_python_two(ROW, Y[:1]).replace(b"M\x01\x00M", b"M\xff\xffM"), "not what its shape asks for"),
    "persistent id": (b"\x80\x02K\x01Q.", "operations that CIFAR's lacks"),
    "all memory": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 45) + b".", "operations that CIFAR's lacks"),
    "a set": (b"\x80\x04\x8f.", "operations that CIFAR's lacks"),
    "a key that takes for ever to hash": (b"\x80\x02})" + b"q\x00h\x00\x86" * 100 + b"Ns.", "keys that are no names"),
    "keys likewise": (b"\x80\x02}()" + b"q\x00h\x00\x86" * 100 + b"Nu.", "keys that are no names"),
    "attributes of a stand-in": (b"\x80\x02cnumpy\nndarray\nN}U\x01xK\x01s\x86b.", "operations that CIFAR's lacks"),
    "a shape of many sizes": (
        _python_two(ROW, Y[:1]).replace(b"M\x01\x00M\x00\x0c\x86", b"(" + (b"\x8a\xff" + b"\x7f" * 255) * 20_000 + b"t"),
        "not what its shape asks for",
    ),
    "nothing": (b"", "damaged"),
    "cut": (_python_two(ROW, Y[:1])[:-50], "damaged"),
    "noise": (bytes(range(256)), "operations that CIFAR's lacks"),
}


@pytest.mark.parametrize("what", PICKLES)
def test_pickles_that_are_not_cifars(what: str, tmp_path: Path) -> None:
    content, words = PICKLES[what]
    assert words in _refused(_folder(tmp_path / "a", _batches(_python_two) | {"data_batch_2": content}))


def test_a_memo_index_takes_no_memory(tmp_path: Path) -> None:
    path = _folder(tmp_path / "a", _batches(_python_two) | {"test_batch": b"\x80\x02K\x01r\xff\xff\xff\x03."})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB; the compiled unpickler: 1 GiB


def _link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize(
    ("member", "words"),
    [
        (tarfile.TarInfo("../data_batch_1"), "points outside the archive"),
        (tarfile.TarInfo(PY + "../../data_batch_1"), "points outside the archive"),
        (tarfile.TarInfo("/tmp/data_batch_1"), "points outside the archive"),
        (_link(PY + "data_batch_1", tarfile.SYMTYPE), "is a link or a device"),
        (_link(PY + "data_batch_1", tarfile.LNKTYPE), "is a link or a device"),
        (_link(PY + "anything", tarfile.SYMTYPE), "is a link or a device"),
        (_link(PY + "pipe", tarfile.FIFOTYPE), "is a link or a device"),
        (_link(PY + "disk", tarfile.BLKTYPE), "is a link or a device"),
        (tarfile.TarInfo(PY + "data_batch_1"), "is there twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.name} {value.type!r}",
)
def test_tars_that_reach_out(member: tarfile.TarInfo, words: str, suffix: str, tmp_path: Path) -> None:
    assert words in _refused(_tar(tmp_path / f"a{suffix}", _batches(_python_two), PY, (member,)))
    assert [entry.name for entry in tmp_path.iterdir()] == [f"a{suffix}"]


def test_files_in_other_folders_of_a_tar_are_not_taken(tmp_path: Path) -> None:
    assert "none of CIFAR's files" in _refused(_tar(tmp_path / "a.tar", _batches(_python_two), "backup/"))


def test_a_member_may_not_declare_more_than_it_may_have(tmp_path: Path) -> None:
    member = tarfile.TarInfo(PY + "data_batch_1")
    member.size = archives.LARGEST_MEMBER + 1
    (tmp_path / "a.tar").write_bytes(member.tobuf() + bytes(10_240))
    assert "268,435,457 bytes" in _refused(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_tar_bomb(kind: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names and extended headers are read by tarfile itself, before anyone sees a member."""
    monkeypatch.setattr(archives, "LARGEST_TAR", 1 << 20)
    member = tarfile.TarInfo("zeros")
    member.type, member.size = kind, 8 << 20
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(member.tobuf(format=tarfile.GNU_FORMAT) + bytes(8 << 20))
    assert "unpacks to more than 1,048,576 bytes" in _refused(tmp_path / "a.tar.gz")


def test_a_tar_of_many_members(tmp_path: Path) -> None:
    extra = tuple(tarfile.TarInfo(f"{i}") for i in range(archives.MOST_MEMBERS))
    assert "more than 1,000 members" in _refused(_tar(tmp_path / "a.tar", _batches(_python_two), PY, extra))


def _declare(path: Path, size: int) -> Path:
    """Rewrite the sizes in the zip's directory."""
    content = bytearray(path.read_bytes())
    start = 0
    while (start := content.find(b"PK\x01\x02", start)) >= 0:
        content[start + 24 : start + 28] = struct.pack("<I", size)
        start += 4
    path.write_bytes(content)
    return path


def test_a_zip_bomb(tmp_path: Path) -> None:
    path = _declare(_npz(tmp_path / "a.npz", compressed=True, **SMALL), 0xFFFFFFFE)
    assert "unpacks to 17,179,869,176 bytes" in _refused(path)
    path = _declare(_npz(tmp_path / "b.npz", compressed=True, **SMALL), 0x70000000)
    assert "looks like a bomb" in _refused(path)


def test_blank_images_are_no_bomb(tmp_path: Path) -> None:
    blank = {"x_train": np.zeros((4_000, 32, 32, 3), np.uint8), "y_train": np.arange(4_000) % 2}
    blank["x_train"][0, 0] = 255
    path = _npz(tmp_path / "a.npz", compressed=True, **blank, x_test=blank["x_train"], y_test=blank["y_train"])
    assert path.stat().st_size * 400 < 2 * blank["x_train"].nbytes
    assert len(_load(path).y_train) == 4_000


@pytest.mark.parametrize("shape", [(10**9, 8, 8), (601, 8, 8), (599, 8, 8), (2**64, 2**64)])
def test_a_header_that_asks_for_more_than_there_is(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", **{name: a for name, a in SMALL.items() if name != "x_train"})
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", header.getvalue() + X.tobytes())
    assert "not as long as its header says" in _refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bound(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        for name, array in SMALL.items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{name}.npy", content.getvalue())
    assert f"method {method}" in _refused(tmp_path / "a.npz")


@pytest.mark.parametrize("form", ["npz", "npz, compressed", "python tar.gz", "binary tar.gz", "python tar"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file(form: str, share: float, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert any(words in _refused(path) for words in ("damaged", "missing from", "none of CIFAR's"))


def test_a_flipped_bit_fails_the_checksum(tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", **SMALL)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1  # inside x_train
    path.write_bytes(content)
    assert "damaged" in _refused(path) and "CRC" in _refused(path)


def test_a_binary_file_of_half_a_record(tmp_path: Path) -> None:
    files = _batches(_binary, ".bin")
    files["test_batch.bin"] = files["test_batch.bin"][:-1]
    assert "test_batch.bin: 614,599 bytes are not a whole number" in _refused(_folder(tmp_path / "a", files))


def _tiny() -> dict[str, bytes]:
    x, y = _rows(LARGE["x_train"])[:20], LARGE["y_train"][:20]
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        batches = {f"data_batch_{i}": _python_two(x[:10], y[:10]) for i in range(1, 6)}
        return {
            ".npz": _npz(tmp / "a.npz", **{key: a[:20] for key, a in SMALL.items()}).read_bytes(),
            ".tar": _tar(tmp / "a.tar", batches | {"test_batch": _python_two(x, y)}, PY).read_bytes(),
        }


TINY = _tiny()


@pytest.mark.parametrize("suffix", TINY)
@settings(max_examples=150, deadline=None)
@given(damage=st.data())
def test_any_damage_is_one_line(suffix: str, damage: st.DataObject) -> None:
    content = bytearray(TINY[suffix])
    headers = st.sampled_from([i for i in range(len(content)) if i < 1_000 or i > len(content) - 1_000 or i % 512 < 130])
    for _ in range(damage.draw(st.integers(1, 4))):
        content[damage.draw(headers)] = damage.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"a{suffix}"
        path.write_bytes(content)
        try:
            assert isinstance(_load(path), Dataset)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(error).isprintable()


# --- Keras' download -------------------------------------------------------------------------------------------------


def _keras(load_data: Callable[[], Any], image_format: str = "channels_last") -> SimpleNamespace:
    loader = SimpleNamespace(load_data=load_data)
    config = SimpleNamespace(image_data_format=lambda: image_format)
    return SimpleNamespace(datasets=SimpleNamespace(cifar10=loader, cifar100=loader), config=config)


@pytest.mark.parametrize("image_format", ["channels_last", "channels_first"])
def test_keras_download(
    image_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = (0, 1, 2, 3) if image_format == "channels_last" else (0, 3, 1, 2)

    def load_data() -> Any:
        print("Downloading data")
        y_train, y_test = (LARGE[name].astype(np.uint8)[:, None] for name in ("y_train", "y_test"))
        return (LARGE["x_train"].transpose(axes), y_train), (LARGE["x_test"].transpose(axes), y_test)

    monkeypatch.setitem(sys.modules, "keras", _keras(load_data, image_format))
    dataset = _load(name="cifar10")
    _same(dataset, LARGE)
    assert dataset.fingerprint == _load(FORMS["npz"](tmp_path), "cifar10").fingerprint
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Downloading data\n")


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_data() -> Any:
        raise Exception("URL fetch failure on https://host/file: None -- [Errno 111]\nConnection refused")

    monkeypatch.setitem(sys.modules, "keras", _keras(load_data))
    message = _refused(name="cifar100")
    assert message.startswith("cifar100: not cached and the download failed (URL fetch failure")
    assert "[Errno 111] Connection refused); pass --data FILE" in message


def test_an_interrupted_download_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_data() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "keras", _keras(load_data))
    with pytest.raises(KeyboardInterrupt):
        _load(name="cifar10")


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_offline_and_not_cached(tmp_path: Path) -> None:
    code = (
        "from search.data.dataset import load_dataset\nfrom search.errors import UserError\n"
        "try: load_dataset('cifar10', None, protocol='course', holdout=0.1, images=None)\n"
        "except UserError as error: print(error)"
    )
    closed = "http://127.0.0.1:9"  # discard: nobody listens
    done = _python(code, KERAS_HOME=str(tmp_path), https_proxy=closed, http_proxy=closed, TF_CPP_MIN_LOG_LEVEL="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cifar10: not cached and the download failed (URL fetch failure on https://")
    assert "--data FILE" in done.stdout and "cifar-10-batches-py" in done.stdout
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "datasets").is_dir()  # Keras did look there


def test_the_import_is_light() -> None:
    done = _python("import sys, search.data.dataset; print({'keras', 'tensorflow', 'sklearn'} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr


# --- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 600])
def test_channel_statistics(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.data.dataset.CHUNK", 77)
    x = LARGE["x_train"][:n]
    mean, std = channel_statistics(x)
    assert mean.dtype == std.dtype == np.float32 and mean.shape == std.shape == (3,)
    np.testing.assert_allclose(mean, (x / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, (x / 255).std(axis=(0, 1, 2)), rtol=1e-6)


def test_a_blank_channel_has_a_floor() -> None:
    x = LARGE["x_train"].copy()
    x[..., 1] = 40
    mean, std = channel_statistics(x)
    assert std[1] == np.float32(1e-6) and mean[1] == np.float32(40 / 255) and std[0] > 0.1


# --- the whole of CIFAR-10 -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "unpack_cifar10.py").is_file() or importlib.util.find_spec("PIL") is None:
        pytest.skip("needs the packed copy of CIFAR-10 beside the checkout, and pillow")
    path = tmp_path_factory.mktemp("cifar10") / "cifar10.npz"
    subprocess.run([sys.executable, folder / "unpack_cifar10.py", path], check=True, capture_output=True)
    return path


@pytest.mark.slow
def test_cifar10(cifar10: Path) -> None:
    dataset = _load(cifar10, "cifar10", protocol="holdout")
    assert dataset.summary() == (
        "cifar10: 45,000 training, 5,000 validation, 10,000 test images of 32x32x3, 10 classes (holdout)"
    )
    assert np.bincount(dataset.y_train).tolist() == [4_500] * 10
    assert np.bincount(dataset.y_val).tolist() == [500] * 10
    mean, std = channel_statistics(dataset.x_train)
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=0.003)  # the published figures of the original
    np.testing.assert_allclose(std, [0.2470, 0.2435, 0.2616], atol=0.005)


@pytest.mark.slow
def test_a_tenth_of_cifar10(cifar10: Path) -> None:
    dataset = _load(cifar10, "cifar10", protocol="holdout", images=5_000)
    assert np.bincount(dataset.y_train).tolist() == [450] * 10
    assert np.bincount(dataset.y_val).tolist() == [50] * 10
    assert np.bincount(dataset.y_test).tolist() == [100] * 10
    message = _refused(cifar10, None, protocol="holdout", holdout=0.01, images=5_000)
    assert message.endswith("use at least 10,000 images, or a holdout of 0.02 to 0.998")
    assert "use at least 1,000 images" in _refused(cifar10, None, protocol="holdout", holdout=0.1, images=600)
    assert np.bincount(_load(cifar10, None, protocol="holdout", holdout=0.1, images=1_000).y_val).tolist() == [10] * 10
