"""Digits as array files and in CIFAR's formats, as they are (8x8x1) or enlarged to CIFAR's 32x32x3."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from search.data.dataset import Dataset, load_dataset
from search.errors import UserError

ROOT = Path(__file__).parents[2]
N_TRAIN, N_TEST = 600, 200


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return np.rint(bunch.images * 255 / 16).astype(np.uint8), bunch.target


def _small() -> dict[str, np.ndarray]:
    x, y = digit_images()
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


def load(path: Path | None = None, name: str | None = None, **options: Any) -> Dataset:
    return load_dataset(name, path, **({"protocol": "course", "holdout": 0.1, "images": None} | options))


def error_line(path: Path | None = None, name: str | None = None, **options: Any) -> str:
    """The one line in which the request is refused."""
    with pytest.raises(UserError) as caught:
        load(path, name, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert path is None or options or str(path) in message  # an option is at fault, or the file is
    return message


def assert_same_arrays(dataset: Dataset, arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(dataset.x_train, arrays["x_train"].reshape(dataset.x_train.shape))
    np.testing.assert_array_equal(dataset.y_train, arrays["y_train"].ravel())
    np.testing.assert_array_equal(dataset.x_val, arrays["x_test"].reshape(dataset.x_val.shape))
    np.testing.assert_array_equal(dataset.y_val, arrays["y_test"].ravel())


def cifar_rows(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2).reshape(len(x), 3072)


def python_two_pickle(rows: np.ndarray, labels: np.ndarray, key: bytes = b"labels") -> bytes:
    """Pickle of Python 2 and numpy 1, opcode by opcode, as in the official archive."""
    shape = b"M" + struct.pack("<H", len(rows)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01" + shape
    array += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    array += b"T" + struct.pack("<i", rows.nbytes) + rows.tobytes() + b"tb"
    numbers = b"".join(b"K" + bytes([label]) for label in labels.tolist())
    labelled = b"U" + bytes([len(key)]) + key + b"](" + numbers + b"e"
    return b"\x80\x02}q\x01(U\x04data" + array + labelled + b"U\x0bbatch_labelU\x05batch" + b"u."


def _pickled(rows: np.ndarray, labels: np.ndarray, protocol: int) -> bytes:
    return pickle.dumps({b"data": rows, b"labels": labels.tolist()}, protocol=protocol)


def binary_records(rows: np.ndarray, labels: np.ndarray) -> bytes:
    return np.column_stack([labels.astype(np.uint8), rows]).tobytes()


Writer = Callable[[np.ndarray, np.ndarray], bytes]


def batches(write: Writer, suffix: str = "", arrays: dict[str, np.ndarray] = LARGE) -> dict[str, bytes]:
    rows, labels = np.split(cifar_rows(arrays["x_train"]), 5), np.split(arrays["y_train"], 5)
    files = {f"data_batch_{i + 1}{suffix}": write(rows[i], labels[i]) for i in range(5)}
    return files | {f"test_batch{suffix}": write(cifar_rows(arrays["x_test"]), arrays["y_test"])}


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def write_tar(path: Path, files: dict[str, bytes], folder: str = "", extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for member in extra:
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_npz(path: Path, *, compressed: bool = False, **arrays: np.ndarray) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


PY, BIN = "cifar-10-batches-py/", "cifar-10-batches-bin/"
HEADS = {"README.html": b"<html>", "batches.meta": b"not read"}
FORMS: dict[str, Callable[[Path], Path]] = {
    "npz": lambda tmp: write_npz(tmp / "a.npz", **LARGE),
    "npz, compressed": lambda tmp: write_npz(tmp / "a.npz", compressed=True, **LARGE),
    "npz, labels (n, 1), int16 pixels": lambda tmp: write_npz(
        tmp / "a.npz",
        **{name: a[:, None] if a.ndim == 1 else a.astype(">i2") for name, a in LARGE.items()},
    ),
    "npz, float pixels, Fortran order": lambda tmp: write_npz(
        tmp / "a.npz",
        **{name: a if a.ndim == 1 else np.asfortranarray(a.astype(np.float32)) for name, a in LARGE.items()},
    ),
    "python folder": lambda tmp: write_folder(tmp / "cifar-10-batches-py", batches(python_two_pickle) | HEADS),
    "python folder of another name": lambda tmp: write_folder(tmp / "mine", batches(python_two_pickle)),
    "python tar.gz": lambda tmp: write_tar(tmp / "cifar-10-python.tar.gz", HEADS | batches(python_two_pickle), PY),
    "python tar": lambda tmp: write_tar(tmp / "a.tar", batches(python_two_pickle), "./" + PY),
    "python tgz, no folder inside": lambda tmp: write_tar(tmp / "b.gz", batches(python_two_pickle)).rename(tmp / "b.tgz"),
    "pickle protocol 2": lambda tmp: write_folder(tmp / "p2", batches(lambda x, y: _pickled(x, y, 2))),
    "pickle protocol 4": lambda tmp: write_folder(tmp / "p4", batches(lambda x, y: _pickled(x, y, 4))),
    "pickled in Fortran order": lambda tmp: write_folder(
        tmp / "pf", batches(lambda x, y: _pickled(np.asfortranarray(x), y, 2))
    ),
    "binary folder": lambda tmp: write_folder(tmp / "cifar-10-batches-bin", batches(binary_records, ".bin")),
    "binary tar.gz": lambda tmp: write_tar(tmp / "cifar-10-binary.tar.gz", batches(binary_records, ".bin"), BIN),
}


def image_bytes(x: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in x]


def uneven(n_each: list[int]) -> dict[str, np.ndarray]:
    """Training images with so many of each class: where largest remainders would not nest."""
    x, y = digit_images()
    chosen = np.sort(np.concatenate([np.flatnonzero(y == label)[:n] for label, n in enumerate(n_each)]))
    rest = np.setdiff1d(np.flatnonzero(y < len(n_each)), chosen)
    return {"x_train": x[chosen], "y_train": y[chosen], "x_test": x[rest], "y_test": y[rest]}


def with_arrays(**changed: Any) -> dict[str, np.ndarray]:
    return SMALL | changed


X, Y = SMALL["x_train"], SMALL["y_train"]
