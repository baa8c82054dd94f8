"""Data sets: the same arrays from every form of a file, and array files that are rejected."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from search.data.dataset import channel_statistics
from search.data.sources import CIFAR10_CLASSES, CIFAR100_CLASSES
from tests.support.array_files import (
    FORMS,
    LARGE,
    N_TRAIN,
    SMALL,
    X,
    Y,
    assert_same_arrays,
    batches,
    cifar_rows,
    digit_images,
    error_line,
    load,
    python_two_pickle,
    uneven,
    with_arrays,
    write_folder,
    write_npz,
    write_tar,
)


@pytest.mark.parametrize("name", ["cifar10", None])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_set(form: str, name: str | None, tmp_path: Path) -> None:
    dataset = load(FORMS[form](tmp_path), name)
    assert_same_arrays(dataset, LARGE)
    assert dataset.fingerprint == "ceeb7444ef14b18d"
    assert dataset.input_shape == (32, 32, 3) and dataset.classes == 10
    if name or "npz" not in form:
        assert dataset.class_names == CIFAR10_CLASSES
    if form == "python tar.gz":
        assert dataset.name == (name or "cifar-10-python")


@pytest.mark.parametrize("form", ["npz", "python tar.gz", "binary folder"])
def test_the_holdout_does_not_depend_on_the_form(form: str, tmp_path: Path) -> None:
    dataset = load(FORMS[form](tmp_path), protocol="holdout", holdout=0.2)
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
        x, labels = cifar_rows(fine[f"x_{part}"]), fine[f"y_{part}"]
        if form == "python":
            files[file] = python_two_pickle(x, labels, b"fine_labels")
        else:
            files[f"{file}.bin"] = np.column_stack([labels // 5, labels, x]).astype(np.uint8).tobytes()
    path = write_tar(tmp_path / "a.tar.gz", files, "cifar-100-python/" if form == "python" else "cifar-100-binary/")
    dataset = load(path, "cifar100")
    assert_same_arrays(dataset, fine)
    assert dataset.class_names == CIFAR100_CLASSES and len(set(CIFAR100_CLASSES)) == 100


def test_a_set_of_ones_own_gets_its_name_and_a_channel_axis(tmp_path: Path) -> None:
    dataset = load(write_npz(tmp_path / "my.digits.npz", **SMALL))
    assert_same_arrays(dataset, SMALL)
    assert dataset.name == "my.digits" and dataset.class_names == tuple("0123456789")
    assert dataset.summary() == (
        "my.digits: 600 training, 200 validation images of 8x8x1, 10 classes (course: validation is the test split)"
    )


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_named_file_must_hold_that_set(name: str, tmp_path: Path) -> None:
    message = error_line(write_npz(tmp_path / "a.npz", **SMALL), name)
    assert "32x32x3" in message and "8x8x1 in 10" in message


NAN = np.where(np.arange(N_TRAIN)[:, None, None] == 7, np.nan, X)
BAD: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "fractions": (with_arrays(x_train=X / 255), "float64 values 0 to 1; pass uint8"),
    "half a pixel": (with_arrays(x_train=X + 0.5), "holds 0.5"),
    "not a number": (with_arrays(x_train=NAN), "holds nan"),
    "negative pixel": (with_arrays(x_test=SMALL["x_test"].astype(int) - 1), "holds -1"),
    "pixel 256": (with_arrays(x_train=X.astype(int) + 1), "holds 256"),
    "complex": (with_arrays(x_train=X.astype(complex)), "dtype complex128"),
    "text": (with_arrays(x_train=np.full(N_TRAIN, "cat.png")), "dtype <U7"),
    "channels first": (with_arrays(x_train=np.stack([X] * 17, 1).transpose(0, 2, 3, 1)), "(600, 8, 8, 17)"),
    "flat": (with_arrays(x_train=X.reshape(N_TRAIN, 64)), "(600, 64)"),
    "five axes": (with_arrays(x_train=X[..., None, None]), "(600, 8, 8, 1, 1)"),
    "empty": (with_arrays(x_train=X[:0], y_train=Y[:0]), "(0, 8, 8, 1)"),
    "empty test": (with_arrays(x_test=X[:0], y_test=Y[:0]), "x_test has shape (0, 8, 8, 1)"),
    "no pixels": (with_arrays(x_train=X[:, :0]), "(600, 0, 8, 1)"),
    "another test shape": (with_arrays(x_test=SMALL["x_test"][:, 1:]), "training images are 8x8x1, test images 7x8x1"),
    "too few labels": (with_arrays(y_train=Y[:-1]), "599 labels for 600 images"),
    "one-hot": (with_arrays(y_train=np.eye(10, dtype=int)[Y]), "(600, 10)"),
    "float labels": (with_arrays(y_train=Y.astype(float)), "dtype float64"),
    "negative label": (with_arrays(y_train=Y - 1), "-1 to 8"),
    "from one": (with_arrays(y_train=Y + 1), "no training image of class 0"),
    "a gap": (with_arrays(y_train=np.where(Y == 4, 3, Y)), "no training image of class 4"),
    "enormous label": (
        with_arrays(y_train=np.where(Y == 9, np.uint64(2**64 - 1), Y.astype(np.uint64))),
        "18446744073709551615",
    ),
    "one class": (with_arrays(y_train=Y * 0, y_test=SMALL["y_test"] * 0), "one class"),
    "unknown test label": (with_arrays(y_test=SMALL["y_test"] + 1), "y_test has label 10"),
    "objects": (with_arrays(x_train=np.array([X, None], dtype=object)), "Python objects, which are never loaded"),
    "a record": (with_arrays(y_train=np.zeros(N_TRAIN, [("label", "i4")])), "(n,) integers"),
    "missing": ({name: a for name, a in SMALL.items() if name != "y_test"}, "y_test missing, it holds x_test, x_train"),
}


@pytest.mark.parametrize("what", BAD)
def test_arrays_that_are_no_data_set(what: str, tmp_path: Path) -> None:
    arrays, words = BAD[what]
    assert words in error_line(write_npz(tmp_path / "a.npz", **arrays))


def _split_in_three() -> dict[str, np.ndarray]:
    x, y = digit_images()
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
    path = write_npz(tmp_path / "a.npz", **arrays)
    for holdout in (0.1, 0.5):
        dataset = load(path, protocol="holdout", holdout=holdout)
        for part in ("train", "val", "test"):
            np.testing.assert_array_equal(getattr(dataset, f"x_{part}")[..., 0], arrays[f"x_{part}"])
            np.testing.assert_array_equal(getattr(dataset, f"y_{part}"), arrays[f"y_{part}"])
    course = load(path)
    assert (len(course.y_train), len(course.y_val), course.x_test) == (750, len(arrays["y_test"]), None)
    few = load(path, protocol="holdout", images=300)
    assert (len(few.y_train), len(few.y_val)) == (300, 75)
    without = {name: array for name, array in arrays.items() if not name.endswith("val")}
    assert (
        load(write_npz(tmp_path / "b.npz", **without)).fingerprint
        == load(write_npz(tmp_path / "c.npz", **without)).fingerprint
    )


def test_validation_images_alone_are_kept_for_the_end(tmp_path: Path) -> None:
    """As a folder's val/ beside train/ is."""
    arrays = {name: array for name, array in _split_in_three().items() if not name.endswith("test")}
    dataset = load(write_npz(tmp_path / "a.npz", **arrays), protocol="holdout", holdout=0.2)
    np.testing.assert_array_equal(dataset.y_test, arrays["y_val"])
    assert len(dataset.y_val) == 120


def test_arrays_that_are_not_read_are_named(tmp_path: Path) -> None:
    dataset = load(write_npz(tmp_path / "a.npz", **SMALL, names=np.arange(10), x_extra=SMALL["x_test"]))
    assert dataset.summary().endswith("; left out: the arrays names, x_extra")
    assert "y_val missing" in error_line(write_npz(tmp_path / "b.npz", **SMALL, x_val=SMALL["x_test"]))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("side", [8, 32])
def test_channels_first_is_rejected_with_the_line_that_mends_it(channels: int, side: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, channels, side, side), np.uint8)
    y = np.arange(20) % 2
    message = error_line(write_npz(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y))
    assert "looks like (n, channels, height, width)" in message and "x.transpose(0, 2, 3, 1)" in message
    x = x.transpose(0, 2, 3, 1)
    assert load(write_npz(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x, y_test=y)).input_shape == (
        side,
        side,
        channels,
    )


@pytest.mark.parametrize("value", [0, 7])
def test_constant_arrays_are_rejected(value: int, tmp_path: Path) -> None:
    x = np.full((40, 8, 8, 3), value, np.uint8)
    arrays = {"x_train": x, "y_train": np.arange(40) % 2, "x_test": x, "y_test": np.arange(40) % 2}
    message = error_line(write_npz(tmp_path / "a.npz", **arrays))
    assert f"all 40 training images hold pixels of value {value} alone; pass the images that were meant" in message
    arrays["x_train"] = np.repeat(LARGE["x_train"][:1], 40, axis=0)
    arrays["x_test"] = LARGE["x_test"][:40]
    assert "all 40 training images hold the same pixels" in error_line(write_npz(tmp_path / "b.npz", **arrays))


def test_images_of_one_colour_and_dark_images_are_reported(tmp_path: Path) -> None:
    blank = SMALL | {"x_train": np.concatenate([np.zeros((3, 8, 8), np.uint8), SMALL["x_train"][3:]])}
    assert (
        "; 3 images are of one colour all over; copies: 2 repeat" in load(write_npz(tmp_path / "a.npz", **blank)).summary()
    )
    dark = {name: array // 16 if name.startswith("x") else array for name, array in SMALL.items()}
    assert "; no pixel is brighter than 15 of 255" in load(write_npz(tmp_path / "b.npz", **dark)).summary()
    assert load(write_npz(tmp_path / "c.npz", **SMALL)).remark == ""


def test_the_commonest_class_and_its_share_are_known(tmp_path: Path) -> None:
    dataset = load(write_npz(tmp_path / "a.npz", **uneven([50, 30])), protocol="holdout", holdout=0.5)
    assert dataset.majority == ("0", 25 / 40)


@pytest.mark.parametrize("name", ["a.h5", "a.pkl", "a.npy", "a.zip", "a"])
def test_other_files_are_not_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(SMALL))
    message = error_line(tmp_path / name)
    assert "this kind of file is not read" in message and ".npz" in message and "cifar-10-batches-py" in message


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert "no such file" in error_line(tmp_path / "a.npz")
    assert "did you mean 'cifar10'" in error_line(name="cifar-10")
    assert "neither a name nor a path" in error_line()
    assert "'course' or 'holdout'" in error_line(name="digits", protocol="both")
    os.mkfifo(tmp_path / "b.npz")
    assert "not a file or a folder" in error_line(tmp_path / "b.npz")
    assert "none of CIFAR's files" in error_line(write_folder(tmp_path / "empty", {}))
    files = batches(python_two_pickle)
    del files["data_batch_3"]
    assert "data_batch_3 missing from cifar-10-batches-py" in error_line(write_folder(tmp_path / "four", files))


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
