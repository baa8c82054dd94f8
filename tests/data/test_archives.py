"""Hostile and damaged files: pickles, tars and zips."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import resource
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.data import archives
from search.data.dataset import Dataset
from search.errors import UserError
from tests.support.array_files import (
    FORMS,
    LARGE,
    PY,
    SMALL,
    X,
    Y,
    batches,
    binary_records,
    cifar_rows,
    error_line,
    load,
    python_two_pickle,
    with_arrays,
    write_folder,
    write_npz,
    write_tar,
)


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
    files = batches(python_two_pickle) | {"test_batch": hostile}
    if form == "folder":
        path = write_folder(tmp_path / "a", files)
    elif form == "tar.gz":
        path = write_tar(tmp_path / "a.tar.gz", files, PY)
    else:
        path = write_npz(tmp_path / "a.npz", **with_arrays(y_test=np.array([_Touch(marker)], dtype=object)))
    message = error_line(path)
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
    "lying shape": (python_two_pickle(ROW, Y[:1]).replace(b"M\x01\x00M", b"M\xff\xffM"), "not what its shape asks for"),
    "persistent id": (b"\x80\x02K\x01Q.", "operations that CIFAR's lacks"),
    "all memory": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 45) + b".", "operations that CIFAR's lacks"),
    "a set": (b"\x80\x04\x8f.", "operations that CIFAR's lacks"),
    "a key that takes for ever to hash": (b"\x80\x02})" + b"q\x00h\x00\x86" * 100 + b"Ns.", "keys that are no names"),
    "keys likewise": (b"\x80\x02}()" + b"q\x00h\x00\x86" * 100 + b"Nu.", "keys that are no names"),
    "attributes of a stand-in": (b"\x80\x02cnumpy\nndarray\nN}U\x01xK\x01s\x86b.", "operations that CIFAR's lacks"),
    "a shape of many sizes": (
        python_two_pickle(ROW, Y[:1]).replace(
            b"M\x01\x00M\x00\x0c\x86", b"(" + (b"\x8a\xff" + b"\x7f" * 255) * 20_000 + b"t"
        ),
        "not what its shape asks for",
    ),
    "nothing": (b"", "damaged"),
    "cut": (python_two_pickle(ROW, Y[:1])[:-50], "damaged"),
    "noise": (bytes(range(256)), "operations that CIFAR's lacks"),
}


@pytest.mark.parametrize("what", PICKLES)
def test_pickles_that_are_not_cifars(what: str, tmp_path: Path) -> None:
    content, words = PICKLES[what]
    assert words in error_line(write_folder(tmp_path / "a", batches(python_two_pickle) | {"data_batch_2": content}))


def test_a_memo_index_takes_no_memory(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "a", batches(python_two_pickle) | {"test_batch": b"\x80\x02K\x01r\xff\xff\xff\x03."})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error_line(path)
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
    assert words in error_line(write_tar(tmp_path / f"a{suffix}", batches(python_two_pickle), PY, (member,)))
    assert [entry.name for entry in tmp_path.iterdir()] == [f"a{suffix}"]


def test_files_in_other_folders_of_a_tar_are_not_taken(tmp_path: Path) -> None:
    assert "none of CIFAR's files" in error_line(write_tar(tmp_path / "a.tar", batches(python_two_pickle), "backup/"))


def test_a_member_may_not_declare_more_than_it_may_have(tmp_path: Path) -> None:
    member = tarfile.TarInfo(PY + "data_batch_1")
    member.size = archives.LARGEST_MEMBER + 1
    (tmp_path / "a.tar").write_bytes(member.tobuf() + bytes(10_240))
    assert "268,435,457 bytes" in error_line(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_tar_bomb(kind: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names and extended headers are read by tarfile itself, before anyone sees a member."""
    monkeypatch.setattr(archives, "LARGEST_TAR", 1 << 20)
    member = tarfile.TarInfo("zeros")
    member.type, member.size = kind, 8 << 20
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(member.tobuf(format=tarfile.GNU_FORMAT) + bytes(8 << 20))
    assert "unpacks to more than 1,048,576 bytes" in error_line(tmp_path / "a.tar.gz")


def test_a_tar_of_many_members(tmp_path: Path) -> None:
    extra = tuple(tarfile.TarInfo(f"{i}") for i in range(archives.MOST_MEMBERS))
    assert "more than 1,000 members" in error_line(write_tar(tmp_path / "a.tar", batches(python_two_pickle), PY, extra))


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
    path = _declare(write_npz(tmp_path / "a.npz", compressed=True, **SMALL), 0xFFFFFFFE)
    assert "unpacks to 17,179,869,176 bytes" in error_line(path)
    path = _declare(write_npz(tmp_path / "b.npz", compressed=True, **SMALL), 0x70000000)
    assert "looks like a bomb" in error_line(path)


def test_blank_images_are_no_bomb(tmp_path: Path) -> None:
    blank = {"x_train": np.zeros((4_000, 32, 32, 3), np.uint8), "y_train": np.arange(4_000) % 2}
    blank["x_train"][0, 0] = 255
    path = write_npz(tmp_path / "a.npz", compressed=True, **blank, x_test=blank["x_train"], y_test=blank["y_train"])
    assert path.stat().st_size * 400 < 2 * blank["x_train"].nbytes
    assert len(load(path).y_train) == 4_000


@pytest.mark.parametrize("shape", [(10**9, 8, 8), (601, 8, 8), (599, 8, 8), (2**64, 2**64)])
def test_a_header_that_asks_for_more_than_there_is(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **{name: a for name, a in SMALL.items() if name != "x_train"})
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", header.getvalue() + X.tobytes())
    assert "not as long as its header says" in error_line(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bound(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        for name, array in SMALL.items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{name}.npy", content.getvalue())
    assert f"method {method}" in error_line(tmp_path / "a.npz")


@pytest.mark.parametrize("form", ["npz", "npz, compressed", "python tar.gz", "binary tar.gz", "python tar"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file(form: str, share: float, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert any(words in error_line(path) for words in ("damaged", "missing from", "none of CIFAR's"))


def test_a_flipped_bit_fails_the_checksum(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **SMALL)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1  # inside x_train
    path.write_bytes(content)
    assert "damaged" in error_line(path) and "CRC" in error_line(path)


def test_a_binary_file_of_half_a_record(tmp_path: Path) -> None:
    files = batches(binary_records, ".bin")
    files["test_batch.bin"] = files["test_batch.bin"][:-1]
    assert "test_batch.bin: 614,599 bytes are not a whole number" in error_line(write_folder(tmp_path / "a", files))


def _tiny() -> dict[str, bytes]:
    x, y = cifar_rows(LARGE["x_train"])[:20], LARGE["y_train"][:20]
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        batches = {f"data_batch_{i}": python_two_pickle(x[:10], y[:10]) for i in range(1, 6)}
        return {
            ".npz": write_npz(tmp / "a.npz", **{key: a[:20] for key, a in SMALL.items()}).read_bytes(),
            ".tar": write_tar(tmp / "a.tar", batches | {"test_batch": python_two_pickle(x, y)}, PY).read_bytes(),
        }


TINY = _tiny()


@pytest.mark.parametrize("suffix", TINY)
@settings(max_examples=30, deadline=None)
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
            assert isinstance(load(path), Dataset)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(error).isprintable()
