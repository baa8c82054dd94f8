"""Image arrays from untrusted files: .npz, and the four official forms of CIFAR.

Nothing in a file is executed, nothing is written to disk, and sizes are bounded before memory is taken: NumPy's own
reader runs without pickles, and an archive's members are read by their exact names as a stream. `search.data.checks` checks
that the arrays make a data set.
"""

from __future__ import annotations

import gzip
import io
import math
import stat
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from search.data.cifar_batches import read_binary_batch, read_python_batch
from search.errors import UserError, reason
from search.files import is_file

ACCEPTED = (
    "a folder of images by class, an .npz with x_train, y_train, x_test, y_test (and x_val, y_val, if there are validation "
    "images), or CIFAR's official archive as downloaded: "
    "the cifar-10-batches-py or cifar-10-batches-bin folder or its .tar.gz"
)
SUFFIXES = (".npz", ".tar.gz", ".tgz", ".tar")

LARGEST_NPZ = 8 << 30  # bytes of the arrays: fifty times CIFAR-10
# Deflate packs zeros 1030 : 1, so a ratio alone cannot tell a bomb from blank images: it is asked only above 1 GiB.
UNSUSPICIOUS_NPZ = 1 << 30
LARGEST_RATIO = 500
LARGEST_MEMBER = 256 << 20  # bytes; CIFAR-100's largest is 155 MB
LARGEST_TAR = 1 << 30  # bytes unpacked; CIFAR-10's is 186 MB
MOST_MEMBERS = 1_000


class Arrays(NamedTuple):
    """Splits as they lie in the file, and the official set whose archive it is; at least one of validation and test."""

    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any] | None = None
    y_test: NDArray[Any] | None = None
    x_val: NDArray[Any] | None = None
    y_val: NDArray[Any] | None = None
    official: str | None = None
    others: tuple[str, ...] = ()  # names of arrays that were left out
    groups: dict[str, NDArray[Any]] | None = None  # of the images, by part, where there are such arrays

    def parts(self) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
        """(part, images, labels) of each split that is there, "train" first and "test" last."""
        yield "train", self.x_train, self.y_train
        if self.x_val is not None and self.y_val is not None:
            yield "val", self.x_val, self.y_val
        if self.x_test is not None and self.y_test is not None:
            yield "test", self.x_test, self.y_test


class _Layout(NamedTuple):
    """Files of an official archive, and the function that reads one: (n, 32, 32, 3) uint8 and (n,) labels."""

    official: str
    folder: str
    train: tuple[str, ...]
    test: str
    read: Callable[[bytes], tuple[NDArray[Any], NDArray[Any]]]


def read_arrays(path: Path) -> Arrays:
    """The arrays of a file or an official folder.

    Raises:
        UserError: there is no such file, its form is not an accepted one, it is damaged, or it is unsafe to read.
    """
    with _one_line_errors(path):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _official(path, _folder_files(path))
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise UserError(f"{path}: not a file or a folder; pass {ACCEPTED}")
        if path.name.lower().endswith(".npz"):
            return _npz(path)
        if path.name.lower().endswith(SUFFIXES):
            return _official(path, _tar_files(path))
    raise UserError(f"{path}: this kind of file is not read; pass {ACCEPTED}")


def is_official(path: Path) -> bool:
    """True if a folder holds any of the files of CIFAR's official archives."""
    return any(is_file(path / name) for name in _NAMES)


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; pass {ACCEPTED}") from None
    except Exception as error:  # parsers of zip, tar, npy and pickle raise almost anything on hostile bytes
        is_refused = isinstance(error, OSError) and error.errno is not None  # by the system, not by a parser
        rule = "cannot be read" if is_refused else "damaged or not what its name says"
        raise UserError(f"{path}: {rule} ({reason(error)}); pass a fresh copy") from error


# --- .npz ------------------------------------------------------------------------------------------------------------


_TRAIN, _TEST, _VAL = ("x_train", "y_train"), ("x_test", "y_test"), ("x_val", "y_val")
_GROUPS = {"train": ("groups_train", "groups"), "val": ("groups_val",), "test": ("groups_test",)}  # names of the arrays


def _npz(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        wanted = [*_TRAIN, *(_TEST if infos.keys() & {*_TEST} or not infos.keys() >= {*_VAL} else ())]
        wanted += _VAL if infos.keys() & {*_VAL} else ()
        if missing := [name for name in wanted if name not in infos]:
            shown = reason(ValueError(", ".join(sorted(infos)[:8]) or "nothing"))
            raise UserError(f"{path}: {', '.join(missing)} missing, it holds {shown}; pass {ACCEPTED}")
        groups = _group_names(infos, wanted)
        wanted += groups.values()
        members = [infos[name] for name in wanted]
        size, packed = sum(info.file_size for info in members), sum(info.compress_size for info in members)
        if size > LARGEST_NPZ:
            raise UserError(f"{path}: unpacks to {size:,} bytes, at most {LARGEST_NPZ:,} are read; pass fewer images")
        if size > UNSUSPICIOUS_NPZ and size > LARGEST_RATIO * packed:
            raise UserError(
                f"{path}: {packed:,} bytes unpack to {size:,}, more than {LARGEST_RATIO} : 1 looks like a bomb; "
                "save it with numpy.savez, uncompressed"
            )
        for info in members:
            _check_npy(path, archive, info)
        arrays = {name: _npy(archive, info) for name, info in zip(wanted, members, strict=True)}
    return Arrays(
        x_train=arrays["x_train"],
        y_train=arrays["y_train"],
        x_test=arrays.get("x_test"),
        y_test=arrays.get("y_test"),
        x_val=arrays.get("x_val"),
        y_val=arrays.get("y_val"),
        others=tuple(sorted(reason(ValueError(name)) for name in infos.keys() - {*wanted})),
        groups={part: arrays[name] for part, name in groups.items()} or None,
    )


def _group_names(infos: Mapping[str, object], wanted: Collection[str]) -> dict[str, str]:
    """The name of the array of groups by part, of the parts that are read and have one."""
    present = {part: [name for name in names if name in infos] for part, names in _GROUPS.items() if f"x_{part}" in wanted}
    return {part: names[0] for part, names in present.items() if names}


def _check_npy(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Compare the size in the array's header with the bytes in the file."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # only these unpack in bounded pieces
        raise UserError(f"{path}: {info.filename} is packed with method {info.compress_type}; save it with numpy.savez")
    with archive.open(info) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise UserError(f"{path}: {info.filename} holds Python objects, which are never loaded; save plain numbers")
        if math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
            raise UserError(f"{path}: {info.filename} is not as long as its header says ({shape}); pass a fresh copy")


def _npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return array


# --- CIFAR's folders and tars ----------------------------------------------------------------------------------------


def _folder_files(path: Path) -> dict[str, bytes]:
    files = {}
    for name in _NAMES:
        if (path / name).is_file():
            _check_member(path, name, (path / name).stat().st_size)
            files[name] = (path / name).read_bytes()
    return files


def _tar_files(path: Path) -> dict[str, bytes]:
    """The official files of a tar, read as a stream: no seeking back, no links, nothing unpacked to disk."""
    files: dict[str, bytes] = {}
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if is_gzip else raw
        with tarfile.open(fileobj=_Bounded(path, stream), mode="r|") as archive:
            for count, member in enumerate(archive, start=1):
                where = PurePosixPath(member.name)
                if count > MOST_MEMBERS:
                    raise UserError(f"{path}: more than {MOST_MEMBERS:,} members; pass {ACCEPTED}")
                if where.is_absolute() or ".." in where.parts:
                    raise UserError(f"{path}: member {member.name!r} points outside the archive; pass {ACCEPTED}")
                if member.isdir():
                    continue
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise UserError(f"{path}: member {member.name!r} is a link or a device; pass {ACCEPTED}")
                _check_member(path, member.name, member.size)
                if where.name not in _NAMES or where.parent.name not in _FOLDERS or len(where.parts) > 2:
                    continue
                if where.name in files:
                    raise UserError(f"{path}: member {member.name!r} is there twice; pass {ACCEPTED}")
                content = archive.extractfile(member)
                assert content is not None  # a regular file, checked above
                files[where.name] = content.read()
    return files


def _check_member(path: Path, name: str, size: int) -> None:
    if not 0 <= size <= LARGEST_MEMBER:
        raise UserError(f"{path}: {name!r} has {size:,} bytes, at most {LARGEST_MEMBER:,} are read; pass {ACCEPTED}")


class _Bounded(io.RawIOBase):
    """Stream that unpacks at most LARGEST_TAR bytes: a header may declare any length, and tarfile believes it."""

    def __init__(self, path: Path, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._path, self._stream, self._left = path, stream, LARGEST_TAR

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise UserError(f"{self._path}: unpacks to more than {LARGEST_TAR:,} bytes; pass {ACCEPTED}")
        return piece


def _official(path: Path, files: dict[str, bytes]) -> Arrays:
    layout = max(_LAYOUTS, key=lambda layout: sum(name in files for name in (*layout.train, layout.test)))
    if missing := [name for name in (*layout.train, layout.test) if name not in files]:
        if not files:
            raise UserError(f"{path}: holds none of CIFAR's files; pass {ACCEPTED}")
        raise UserError(f"{path}: {', '.join(missing)} missing from {layout.folder}; pass a fresh copy")
    batches = []
    for name in (*layout.train, layout.test):
        try:
            batches.append(layout.read(files[name]))
        except UserError as error:
            raise UserError(f"{path}: {name}: {error}; pass a fresh copy of {layout.folder}") from None
    images, labels = zip(*batches, strict=True)
    x_train, y_train = np.concatenate(images[:-1]), np.concatenate(labels[:-1])
    return Arrays(x_train, y_train, images[-1], labels[-1], official=layout.official)


_TEN = tuple(f"data_batch_{number}" for number in range(1, 6))
_LAYOUTS = (
    _Layout("cifar10", "cifar-10-batches-py", _TEN, "test_batch", partial(read_python_batch, label_key=b"labels")),
    _Layout(
        "cifar10",
        "cifar-10-batches-bin",
        tuple(f"{name}.bin" for name in _TEN),
        "test_batch.bin",
        partial(read_binary_batch, label_bytes=1),
    ),
    _Layout("cifar100", "cifar-100-python", ("train",), "test", partial(read_python_batch, label_key=b"fine_labels")),
    _Layout("cifar100", "cifar-100-binary", ("train.bin",), "test.bin", partial(read_binary_batch, label_bytes=2)),
)
_NAMES = tuple(name for layout in _LAYOUTS for name in (*layout.train, layout.test))
_FOLDERS = ("", *(layout.folder for layout in _LAYOUTS))
