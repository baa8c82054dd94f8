"""Data files of any content, through `plan --data` and the reader: a data set, or one line that says what is wrong.

Bytes damaged at random are in tests/data/test_archives.py and tests/data/test_images.py; here they are such that more of a
reader believes them: whole files that hold the wrong arrays, archives whose checksums hold, pickles with other operations,
folders of files.

python -m pytest tests/fuzz/test_data.py --hypothesis-profile=long
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy
from PIL import Image

import search.study.survey
from tests.support.hostile import search as run
from tests.support.odd import Draw, damaged

MANY = settings.default.max_examples // 3  # of the profile
STUDY = """
protocol = "course"
base = 0.5
data = { path = "images" }
budget = { params = 9_000 }
space = { blocks = [1, 2], pools = 1 }
"""

DTYPES = [
    "u1",
    "<i8",
    ">i4",
    "<u8",
    "<f2",
    "<f4",
    ">f8",
    "<c8",
    "?",
    "S3",
    "<U2",
    "V4",
    "O",
    "M8[s]",
    "m8[D]",
    "u1,i4",
    "<g",
]
SHAPES = [(20, 4, 4, 3), (20, 4, 4), (20, 4, 4, 1), (20, 3, 4, 4), (20,), (20, 1), (20, 10), (), (0,), (0, 4, 4, 3), (19,)]
SHAPES += [
    (20, 4, 4, 17),
    (20, 4, 0, 3),
    (1, 1, 1, 1),
    (20, 2, 2, 2, 2),
    (1, 20),
    (40, 4, 4, 3),
    (40,),
    (1,) * 33,
    (20, 70_000),
]
HEADERS = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -4, 20), }",
    "{'descr': '|V0', 'shape': (10000000000,)}",
    "{}",
]
HEADERS += [
    "{'descr': '|u1', 'fortran_order': 1, 'shape': (20, 4, 4, 3), }",
    "[" * 5_000,
    "{'descr': '|O', 'fortran_order': False}",
]
CIFAR = "cifar-10-batches-py"


@st.composite
def arrays(draw: Draw, shape: tuple[int, ...], high: int) -> bytes:
    """One member of an .npz: a good array of this shape, another, or one whose header lies."""
    content = io.BytesIO()
    match draw(st.integers(0, 7)):
        case 0:
            shape = draw(st.sampled_from(SHAPES))
        case 1:
            header = draw(st.sampled_from(HEADERS)).encode()
            return npy.magic(1, 0) + len(header).to_bytes(2, "little") + header + bytes(960)
    dtype = np.dtype(draw(st.sampled_from(["u1"] * 20 + DTYPES)))
    filled = np.asarray(np.arange(int(np.prod(shape))).reshape(shape) % high)
    if dtype.kind == "f":
        filled = np.asarray(filled + draw(st.sampled_from([0.0, 0.5, -1.0, np.nan, np.inf, 1e6])))
    with np.errstate(all="ignore"):
        npy.write_array(content, filled.astype("i4").astype(dtype) if dtype.kind in "OVMmSU" else filled.astype(dtype))
    return content.getvalue()


@st.composite
def zips(draw: Draw) -> bytes:
    """An .npz, of which some members are wrong, missing, twice there or under other names."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))) as archive:
        for part in ("train", "test"):
            for name, shape, high in ((f"x_{part}", (20, 4, 4, 3), 256), (f"y_{part}", (20,), 2)):
                called = name + draw(st.sampled_from([""] * 20 + ["/", "2", "\n", ".npy"]))
                for _ in range(draw(st.sampled_from((1,) * 20 + (0,)))):
                    archive.writestr(zipfile.ZipInfo(f"{called}.npy"), draw(arrays(shape, high)))
    return content.getvalue()


def _pickled(protocol: int = 2, **more: Any) -> bytes:
    batch = {b"data": np.random.default_rng(0).integers(0, 256, (10, 3072), np.uint8), b"labels": list(range(10))} | more
    return pickle.dumps(batch, protocol)


def _archived(batch: bytes) -> bytes:
    """A .tar.gz of CIFAR-10 whose first batch this is."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
            info = tarfile.TarInfo(f"{CIFAR}/{name}")
            one = batch if name == "data_batch_1" else _pickled()
            info.size = len(one)
            archive.addfile(info, io.BytesIO(one))
    return gzip.compress(content.getvalue(), 1)


SOUND = {protocol: _pickled(protocol) for protocol in (2, 4)}
BLANK = bytes(30_000)  # pixels, of which no change would matter
OPCODES = b"".join(getattr(pickle, name) for name in sorted(set(pickle.__all__)) if isinstance(getattr(pickle, name), bytes))


@st.composite
def pickles(draw: Draw) -> bytes:
    """A batch of CIFAR in which operations are others, or stand between: what the unpickler then does, nobody planned."""
    parts = [bytearray(part) for part in draw(st.sampled_from(sorted(SOUND.values()))).split(BLANK, 1)]
    for _ in range(draw(st.integers(1, 4))):
        part = draw(st.sampled_from(parts))
        place = draw(st.integers(0, len(part) - 1))
        new = draw(st.binary(max_size=2) | st.sampled_from(OPCODES).map(lambda one: bytes([one])))
        part[place : place + draw(st.integers(0, 2))] = new
    return BLANK.join(map(bytes, parts))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to fuzz in, with a study and surveys of few draws."""
    home = tmp_path_factory.mktemp("data")
    (home / "own.toml").write_text(STUDY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search.study.survey, "DRAWS", 20)
        patch.setattr(search.study.survey, "survey_space", partial(search.study.survey.survey_space, draws=20))
        yield home


def planned(folder: Path, name: str, content: bytes, *options: str) -> int | None:
    """Plan a study of the data file of this content; the exit status."""
    (folder / name).write_bytes(content)
    try:
        return run("plan", "own.toml", "--data", name, *options, within=folder).status
    finally:
        (folder / name).unlink()


def test_the_originals_are_data(folder: Path) -> None:
    for protocol in SOUND:
        assert planned(folder, "own.tar.gz", _archived(SOUND[protocol])) == 0


@settings(max_examples=2 * MANY)
@given(content=zips(), options=st.sampled_from(((), ("--images", "7"), ("--images", "9" * 30), ("--json",))))
def test_wrong_arrays_are_a_data_set_or_rejected_in_one_line(content: bytes, options: tuple[str, ...], folder: Path) -> None:
    planned(folder, "own.npz", content, *options)


@settings(max_examples=MANY)
@given(batch=pickles())
def test_other_pickles_likewise(batch: bytes, folder: Path) -> None:
    planned(folder, "own.tar.gz", _archived(batch))


@settings(max_examples=MANY // 2)
@given(data=st.data())
def test_damaged_archives_likewise(data: st.DataObject, folder: Path) -> None:
    packed = _archived(SOUND[2])
    name = data.draw(st.sampled_from(("own.tar.gz", "own.tar", "own.npz", "own.tgz", "own")))
    inside = data.draw(st.booleans())
    content = gzip.compress(data.draw(damaged(gzip.decompress(packed))), 1) if inside else data.draw(damaged(packed))
    planned(folder, name, content)


# --- folders of images -----------------------------------------------------------------------------------------------

NAMES = [
    b"a.png",
    b"b.PNG",
    b"\xff\xfe.png",
    b"a\nb.jpg",
    b"[red].gif",
    b".hidden.png",
    b"no suffix",
    b"x.txt",
    b"e\xcc\x81.webp",
    b"-.bmp",
]
CLASSES = [b"a", b"b", b"[red]", b"\xff", b"1", b"02", b"train", b"test", b"a b\n", b"\xf0\x9f\xa4\x96"]


def _image(format: str, mode: str = "RGB", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size).save(content, format, **options)
    return content.getvalue()


ODD_IMAGES = [
    *(_image("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
    *(_image("JPEG", mode) for mode in ("L", "CMYK")),
    *(_image("PNG", size=size) for size in ((1, 1), (3_000, 1), (1, 3_000))),
    *(_image(format) for format in ("BMP", "GIF", "WEBP", "TIFF", "ICO")),
    _image("GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]),
    _image("PNG", "P", transparency=0),
    *(b"", b"text", b"\x89PNG\r\n\x1a\n", _image("PNG")[:50], b"\xff\xd8\xff"),
]


@settings(max_examples=MANY // 2)
@given(
    files=st.lists(
        st.tuples(
            st.sampled_from(CLASSES[:2] * 3 + CLASSES),
            st.sampled_from(NAMES[:1] * 9 + NAMES),
            st.sampled_from([_image("PNG")] * 60 + ODD_IMAGES) | damaged(_image("PNG")),
        ),
        max_size=8,
    ),
    options=st.sampled_from(
        ("", "size = 8", "size = [4, 9]\ngrayscale = true", "classes = ['a', 'b']", "background = 'black'")
    ),
    copies=st.sampled_from((1, 6)),
    loops=st.booleans(),
)
def test_odd_folders_of_images_likewise(
    files: list[tuple[bytes, bytes, bytes]], options: str, copies: int, loops: bool, folder: Path
) -> None:
    home = folder / "pictures"
    home.mkdir()
    try:
        for number, (kind, name, content) in enumerate(
            [(b"a", b"a.png", _image("PNG")), (b"b", b"b.png", _image("PNG")), *files]
        ):
            part = home / os.fsdecode(kind)
            part.mkdir(exist_ok=True)
            for copy in range(copies):
                (part / f"{number}-{copy}{os.fsdecode(name)}").write_bytes(content)
        if loops:
            (home / "a" / "loop").symlink_to(home)
        (folder / "pictures.toml").write_text(
            STUDY.replace('data = { path = "images" }\n', "") + f"[data]\npath = 'pictures'\n{options}\n"
        )
        run("plan", "pictures.toml", within=folder)
    finally:
        shutil.rmtree(home)
