"""Bad and hostile inputs of a new study, through the command line's own entry: refused in one line, and nothing written.

What is refused beside a run that is there is in `tests.integration.test_command_line`; what the readers of files refuse,
format by format, in the tests of each.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.data import archives, folders
from tests.fault_table import Results, record
from tests.support.commands import assert_refused, search
from tests.support.keras_files import chain2, zipped

STUDY = """
base = 0.5
data = { path = "images.npz" }
budget = { params = 2_000 }
space = { blocks = { low = 1, high = 3 }, width = { low = 8, high = 48, step = 8 }, pools = 1 }
recipe = { epochs = 2 }
"""
LONG = "x" * 300
PLAN, RUN = "plan {study}", "run {study} --out {out}"

Make = Callable[[Path], None]


def arrays(**changes: Any) -> dict[str, Any]:
    """Blank images of two classes."""
    images, labels = np.random.default_rng(0).integers(0, 256, (240, 8, 8), np.uint8), np.arange(240) % 2
    return {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels} | changes


def npz(**changes: Any) -> Make:
    return lambda folder: np.savez(folder / "images.npz", allow_pickle=True, **arrays(**changes))


def file(name: str, content: bytes | str) -> Make:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)  # type: ignore[return-value]


def study(old: str, new: str) -> Make:
    assert old in STUDY
    return file("study.toml", STUDY.replace(old, new))


def of_path(path: str) -> Make:
    return study("images.npz", path)


def images(*names: str, size: int = 8) -> Make:
    """A folder of images, fifty in each of the classes, as the data of the study."""

    def make(folder: Path) -> None:
        of_path("images")(folder)
        for name in names:
            (folder / "images" / name).mkdir(parents=True)
            for place in range(50):
                Image.fromarray(np.full((size, size), place, np.uint8)).save(folder / "images" / name / f"{place}.png")

    return make


def both(*makes: Make) -> Make:
    def make(folder: Path) -> None:
        for one in makes:
            one(folder)

    return make


def refuse(words: str, hints: tuple[str, ...], make: Make, folder: Path) -> None:
    """The command, in a folder that `make` has filled, is refused with these words and leaves nothing behind."""
    file("study.toml", STUDY)(folder)
    npz()(folder)
    make(folder)
    before = tree(folder)
    places = {"study": folder / "study.toml", "out": folder / "out", "folder": folder}
    ended = search(*(word.format(**places) for word in words.split(" ")))
    assert_refused(ended, *(hint.format(**places) for hint in hints))
    assert len(ended.err) < 1_000 + 2 * len(words)
    assert tree(folder) == before


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file under a folder, with its size and when it was written."""
    stats = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
    return {name: (stat.st_size, stat.st_mtime_ns if not Path(name).is_dir() else 0) for name, stat in stats.items()}


# --- what people get wrong -------------------------------------------------------------------------------------------

BAD: dict[str, tuple[str, Make, tuple[str, ...]]] = {
    # a variable of the shell that was not set
    "empty --data": ("run {study} --out {out} --data ", npz(), ("--data: is empty", "leave it out")),
    "empty --out": ("run {study} --out ", npz(), ("--out: is empty", "leave it out")),
    "empty --data=": ("plan {study} --data=", npz(), ("--data: is empty", "leave it out")),
    "empty study": ("run ", npz(), ("an argument: is empty", "leave it out")),
    # names that no file can have
    "--out too long": (f"run {{study}} --out {{folder}}/{LONG}", npz(), ("File name too long", "pass another")),
    "--data too long": (f"{RUN} --data {{folder}}/{LONG}.npz", npz(), ("File name too long",)),
    "study too long": (f"plan {LONG * 20}.toml", npz(), ("File name too long", "pass another")),
    "study name too long": (f"plan {LONG}", npz(), ("File name too long", "pass another")),
    "new name too long": (f"new {LONG} --data {{folder}}/images.npz", npz(), ("File name too long",)),
    "data.path too long": (RUN, of_path(f"{LONG}.npz"), ("File name too long",)),
    "--reference too long": (f"{RUN} --reference {LONG}.json", npz(), (LONG,)),
    "NUL in data.path": (
        PLAN,
        of_path("a\\u0000.npz"),
        ("study.toml: ", "holds a zero byte, which no name has; take it out"),
    ),
    "NUL in base": (PLAN, study("0.5", '"a\\u0000.json"'), ("study.toml: ", "holds a zero byte")),
    # study files
    "UTF-16": (RUN, file("study.toml", STUDY.encode("utf-16")), ("study.toml: no valid TOML", "utf-8")),
    "nested deep": (RUN, file("study.toml", "a = " + "[" * 100_000), ("study.toml: no valid TOML", "recursion")),
    "infinite budget": (RUN, study("2_000", "inf"), ("budget.params", "valid integer", "inf")),
    "epochs beyond measure": (RUN, study("epochs = 2", f"epochs = {10**30}"), ("recipe.epochs", "100000")),
    "width beyond measure": (RUN, study("high = 48", f"high = {8 * 10**9}"), ("space.width", "65536")),
    "blocks beyond measure": (RUN, study("high = 3", "high = 100_000_000"), ("space.blocks", "64")),
    "a folder": ("run {folder}/dir.toml", lambda folder: (folder / "dir.toml").mkdir(), ("dir.toml: no such study file",)),
    # data of a new study, which leaves no run folder behind
    "data missing": (RUN, of_path("none.npz"), ("none.npz: no such file", "pass a folder of images")),
    "data corrupt": (PLAN, file("images.npz", b"PK\x03\x04" + bytes(200)), ("images.npz: damaged", "pass a fresh copy")),
    "data empty": (PLAN, file("images.npz", b""), ("images.npz: damaged", "pass a fresh copy")),
    "data cut off": (
        PLAN,
        lambda folder: file("images.npz", (folder / "images.npz").read_bytes()[:3_000])(folder),
        ("images.npz: damaged", "pass a fresh copy"),
    ),
    "NaN": (RUN, npz(x_train=np.full((240, 8, 8), np.nan)), ("x_train holds nan", "save it as uint8")),
    "one-hot": (PLAN, npz(y_train=np.eye(240, dtype=int)), ("y_train has shape (240, 240)", "argmax")),
    "one class": (PLAN, npz(y_train=np.zeros(240, int)), ("one class, at least 2", "pass images of another class")),
    "a text": (PLAN, both(of_path("images.txt"), file("images.txt", "x")), ("images.txt: this kind of file is not read",)),
    "folder of nothing": (
        RUN,
        both(of_path("images"), lambda folder: (folder / "images").mkdir()),
        ("images: holds none of CIFAR's files", "pass a folder of images by class"),
    ),
    "folder of one class": (PLAN, images("a"), ("one class (a), at least 2 are needed", "pass a folder")),
    "damaged image": (
        RUN,
        both(images("a", "b"), file("images/a/7.png", b"no image")),
        ("images/a/7.png: no PNG, JPEG, BMP, GIF, WebP, TIFF or PPM image", "skip_damaged = true"),
    ),
    "images of two sizes": (
        PLAN,
        both(images("a", "b"), lambda folder: Image.new("L", (9, 9)).save(folder / "images/a/7.png")),
        ("where the first image has", "give [data] a size"),
    ),
    # what no verb has anything of yet
    "finals before run": ("finals {study} --out {out}", npz(), ("nothing has run", "python -m search run {study}")),
    "report before run": ("report {study} --out {out}", npz(), ("nothing has run", "python -m search run {study}")),
    "export before run": ("export {study} --out {out}", npz(), ("nothing has run", "python -m search run {study}")),
    "dashboard before run": ("dashboard {study} --out {out}", npz(), ("nothing has run", "python -m search run {study}")),
    "import of nothing": ("import {folder}/none.keras", npz(), ("none.keras: no such file", "pass a .keras file")),
}


@pytest.mark.parametrize("fault", BAD)
def test_row_18_bad_input_is_rejected_in_one_line_and_nothing_is_written(fault: str, tmp_path: Path) -> None:
    words, make, hints = BAD[fault]
    refuse(words, hints, make, tmp_path)
    record({18: 1}, Results(0, sum(1 for _ in tmp_path.rglob("study.db"))))


def test_a_study_file_may_begin_with_the_mark_that_some_editors_put_there(tmp_path: Path) -> None:
    file("study.toml", b"\xef\xbb\xbf" + STUDY.encode())(tmp_path)
    npz()(tmp_path)
    ended = search("plan", tmp_path / "study.toml", "--json")
    assert (ended.status, ended.err) == (0, "")


# --- what somebody wants to do harm with -----------------------------------------------------------------------------


class Trap:
    """Its pickle makes the folder `sprung` in the current one when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


TRAP = pickle.dumps(Trap(), protocol=2)
CIFAR = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(64) + b"model_config"
LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
END = '{"kind": "global_average_pool"}, {"kind": "dense", "units": 10}, {"kind": "softmax"}'


def tar(members: list[tarfile.TarInfo | tuple[str, bytes]]) -> Make:
    """A tar.gz as the data of the study."""

    def make(folder: Path) -> None:
        of_path("images.tar.gz")(folder)
        with tarfile.open(folder / "images.tar.gz", "w:gz") as archive:
            for member in members:
                name, content = member if isinstance(member, tuple) else (member.name, b"")
                entry = tarfile.TarInfo(name) if isinstance(member, tuple) else member
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))

    return make


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


def zip_of_zeros(folder: Path) -> None:
    """80 KB that unpack to 80 MB, under a header that is true."""
    with zipfile.ZipFile(folder / "images.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in arrays():
            archive.writestr(f"{name}.npy", bytes(20 << 20))


def declaring(size: int) -> Make:
    """Arrays in a zip whose directory says that each member unpacks to so many bytes."""

    def make(folder: Path) -> None:
        np.savez_compressed(folder / "images.npz", **arrays())
        raw = (folder / "images.npz").read_bytes().split(b"PK\x01\x02")
        lying = [raw[0], *(entry[:20] + struct.pack("<I", size) + entry[24:] for entry in raw[1:])]
        (folder / "images.npz").write_bytes(b"PK\x01\x02".join(lying))

    return make


def huge_png(folder: Path) -> None:
    """An image of 60,000 x 60,000 in a thousand bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    (folder / "images/a/7.png").write_bytes(bomb)


def keras(path: Path, layer: dict[str, Any] | None = None, **members: bytes) -> Path:
    description = chain2()
    if layer:
        description["config"]["layers"][3] = layer
    return zipped(path, description, **members)


HOSTILE: dict[str, tuple[str, Make, tuple[str, ...]]] = {
    # data
    "pickle in an npz": (RUN, npz(y_test=np.array([Trap()], object)), ("y_test.npy holds Python objects", "never loaded")),
    "pickle under an npz's name": (PLAN, file("images.npz", TRAP), ("images.npz: damaged or not what its name says",)),
    "pickle": (PLAN, both(of_path("a.pkl"), file("a.pkl", TRAP)), ("a.pkl: this kind of file is not read",)),
    "pickles in CIFAR's folder": (
        RUN,
        both(of_path("c"), lambda folder: (folder / "c").mkdir(), *(file(f"c/{name}", TRAP) for name in CIFAR)),
        ("mkdir' is not CIFAR's",),
    ),
    "pickles in CIFAR's archive": (PLAN, tar([(name, TRAP) for name in CIFAR]), ("mkdir' is not CIFAR's",)),
    "tar that climbs out": (PLAN, tar([("../../sprung", b"x")]), ("points outside the archive",)),
    "tar with an absolute name": (PLAN, tar([("/tmp/sprung", b"x")]), ("points outside the archive",)),
    "tar with a link": (PLAN, tar([link("data_batch_1", "/etc/passwd")]), ("is a link or a device",)),
    "tar with a hard link": (PLAN, tar([link("data_batch_1", "/etc/passwd", tarfile.LNKTYPE)]), ("is a link or a device",)),
    "tar that unpacks to too much": (PLAN, tar([("zeros", bytes(4 << 20))]), ("unpacks to more than",)),
    "zip that unpacks to too much": (PLAN, declaring(0xFFFFFFFE), ("unpacks to 17,179,869,176 bytes",)),
    "zip that looks like a bomb": (PLAN, declaring(0x70000000), ("looks like a bomb",)),
    "zip of zeros": (PLAN, zip_of_zeros, ("images.npz: ",)),
    "image that declares too much": (RUN, both(images("a", "b"), huge_png), ("declares more than", "looks like a bomb")),
    "class that is a link": (
        PLAN,
        both(images("a", "b"), lambda folder: (folder / "images/c").symlink_to("/etc")),
        ("images/c: a link to a folder, which is not followed",),
    ),
    "class of links that lead out": (
        PLAN,
        both(
            images("a", "b"),
            file("secret.png", b"x"),
            lambda folder: (folder / "images/c").mkdir(),
            lambda folder: (folder / "images/c/1.png").symlink_to("../../secret.png"),
        ),
        ("class 'c' has no image of its own",),
    ),
    "pipe": (PLAN, both(of_path("p.npz"), lambda folder: os.mkfifo(folder / "p.npz")), ("p.npz: not a file or a folder",)),
    "device": (RUN, of_path("/dev/zero"), ("/dev/zero: not a file or a folder",)),
    # models
    "HDF5": ("import {folder}/a.h5", file("a.h5", HDF5), ("a.h5", "keras.models.load_model")),
    "HDF5 under another name": ("import {folder}/a.keras", file("a.keras", HDF5), ("HDF5 is not imported",)),
    "pickled model": ("import {folder}/a.pkl", file("a.pkl", TRAP), ("never loaded, as loading runs the code in it",)),
    "pickle under a model's name": ("import {folder}/a.keras", file("a.keras", TRAP), ("pickle is not imported",)),
    "Lambda": (
        "import {folder}/a.keras --to {out}",
        lambda folder: keras(folder / "a.keras", {"class_name": "Lambda", "config": {"name": "code", "function": LAMBDA}}),
        ("a.keras: nothing was written, because some layers are not supported",),
    ),
    "PyTorch in a zip": (
        "import {folder}/a.keras",
        lambda folder: keras(folder / "a.keras", **{"archive/data.pkl": TRAP}),
        ("PyTorch is not imported",),
    ),
    "model that looks like a bomb": (
        "import {folder}/a.keras",
        lambda folder: zipped(folder / "a.keras", b" " * (4 << 20)),
        ("looks like a bomb",),
    ),
    "Keras file as base": (
        RUN,
        both(study("0.5", '"a.keras"'), lambda folder: keras(folder / "a.keras")),
        ("a.keras: is a Keras model", "python -m search import"),
    ),
    "pickle as reference": (f"{RUN} --reference {{folder}}/a.pkl", file("a.pkl", TRAP), ("no reference of this name",)),
    "file of the system as base": (RUN, study("0.5", '"/etc/passwd"'), ("'/etc/passwd': no reference of this name",)),
    "network nested deep": (
        "show {folder}/a.json",
        file("a.json", '{"layers": [' + '{"kind": "residual", "branch": [' * 50_000),
        ("a.json: architecture: ", "recursion limit"),
    ),
    "network of a hundred thousand layers": (
        "show {folder}/a.json",
        file(
            "a.json", '{"input": [32, 32, 3], "classes": 10, "layers": [' + '{"kind": "batch_norm"}, ' * 100_000 + END + "]}"
        ),
        ("100,003 layers, at most 5,000 are read",),
    ),
    "network beyond measure": (
        "export {folder}/a.json --to {out}",
        file("a.json", '{"input": [32, 32, 3], "classes": 10, "layers": [{"kind": "conv", "filters": 1' + "0" * 30 + "}]}"),
        ("layers.0.conv: filters is 1", "between 1 and 65536"),
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_row_19_a_hostile_file_is_rejected_and_nothing_of_it_is_run_or_written(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "LARGEST_TAR", 1 << 20)
    words, make, hints = HOSTILE[what]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    refuse(words, hints, make, tmp_path)
    assert list((tmp_path / "here").iterdir()) == []
    record({19: 1}, Results(0, sum(1 for _ in tmp_path.rglob("study.db"))))


def test_the_trap_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(TRAP)
    assert (tmp_path / "sprung").is_dir()


def test_row_19_links_out_of_a_folder_of_images_are_skipped_and_reported(tmp_path: Path) -> None:
    images("a", "b")(tmp_path)
    (tmp_path / "images/a/secret.png").symlink_to("/etc/passwd")
    ended = search("plan", tmp_path / "study.toml", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert folders.find(tmp_path / "images").remark == "left out: 1 links that lead out of the folder or nowhere"
    record({19: 1}, Results(0, 0))
