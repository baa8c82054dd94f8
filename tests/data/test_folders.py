"""Folders of images: both layouts, the order and the names, what is passed over and what is refused; as a data set.

Real images: scikit-learn's digits, one PNG each.
"""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from search.cli.progress import RunView
from search.data import folders, images
from search.data.dataset import load_dataset
from search.data.images import Options
from search.data.layout import WHOLE
from search.data.sources import CIFAR10_CLASSES
from search.runner.events import Event, ImagesRead
from search.runner.preparation import _read_data
from search.runner.reporter import Reporter
from search.study.run import Run
from search.study.study_file import parse
from tests.support.folders import GREY, X, Y, load, put, put_all, refused

BY_CLASS = np.argsort(Y, kind="stable")
DECODE = images.decode


# --- as a data set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["holdout", "course"])
@pytest.mark.parametrize("images", [None, 300])
def test_a_folder_is_the_set_that_its_images_are_as_arrays(protocol: Any, images: int | None, tmp_path: Path) -> None:
    """Sorted by class, as the files are: the same pixels in the same splits, so the same fingerprint and trainings."""
    put_all(tmp_path / "set/train", X[:600], Y[:600])
    put_all(tmp_path / "set/test", X[600:800], Y[600:800])
    first, last = (part[np.argsort(Y[part], kind="stable")] for part in (np.arange(600), np.arange(600, 800)))
    np.savez(tmp_path / "set.npz", x_train=X[first], y_train=Y[first], x_test=X[last], y_test=Y[last])
    folder = load(tmp_path / "set", protocol=protocol, images=images)
    arrays = load(tmp_path / "set.npz", protocol=protocol, images=images, options=Options())
    np.testing.assert_array_equal(folder.x_train, arrays.x_train)
    assert folder.fingerprint == arrays.fingerprint
    assert folder.summary() == f"{arrays.summary()}; {GREY.describe()}"
    assert folder.class_names == tuple("0123456789")


def test_a_folder_without_splits_falls_into_the_parts_that_digits_do(tmp_path: Path) -> None:
    put_all(tmp_path / "set", X, Y)
    ours, digits = (
        load(tmp_path / "set", holdout=0.4),
        load_dataset("digits", None, protocol="holdout", holdout=0.4, images=None),
    )
    for part in ("y_train", "y_val", "y_test"):
        np.testing.assert_array_equal(np.bincount(getattr(ours, part)), np.bincount(getattr(digits, part)))
    image = {x.tobytes(): label for x, label in zip(X, Y, strict=True)}
    pairs = ((ours.x_train, ours.y_train), (ours.x_val, ours.y_val), (ours.x_test, ours.y_test))
    everything = {one.tobytes(): label for x, y in pairs for one, label in zip(x, y, strict=True)}  # type: ignore[arg-type]
    assert everything == image
    course = load(tmp_path / "set", protocol="course")
    np.testing.assert_array_equal(course.x_val, ours.x_test)
    assert len(course.x_train) == len(ours.x_train) + len(ours.x_val)


@pytest.mark.parametrize(
    ("own", "parts"), [({"test": 200, "val": 300}, (600, 300, 200)), ({"validation": 200}, (360, 240, 200))]
)
def test_parts_of_ones_own_are_kept(own: dict[str, int], parts: tuple[int, ...], tmp_path: Path) -> None:
    """The test part is test/, or the one part beside train/."""
    put_all(tmp_path / "train", X[:600], Y[:600])
    first = 600
    for part, n in own.items():
        put_all(tmp_path / part, X[first : first + n], Y[first : first + n])
        first += n
    dataset = load(tmp_path)
    assert dataset.y_test is not None
    assert (len(dataset.y_train), len(dataset.y_val), len(dataset.y_test)) == parts


def test_only_the_images_that_are_taken_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(tmp_path, X, Y)
    opened = set()

    def decode(file: str, how: Options) -> Any:
        opened.add(file)
        return DECODE(file, how)

    monkeypatch.setattr("search.data.loading.decode", decode)
    dataset = load(tmp_path, images=50)
    assert len(dataset.y_train) == 50
    assert len(opened) == sum(len(y) for y in (dataset.y_train, dataset.y_val, dataset.y_test) if y is not None) < 100


def test_a_named_set_may_come_as_a_folder_of_its_classes(tmp_path: Path) -> None:
    put_all(tmp_path / "digits", X, Y)
    message = refused(tmp_path / "digits", name="cifar10", options=Options())
    assert "its classes are not those of cifar10" in message
    assert "digits is taken as it is" in refused(tmp_path / "digits", name="digits")
    told = "digits has images of 8x8x1, this folder 8x8x3; pass the path without a name"
    assert told in refused(tmp_path / "digits", name="digits", options=Options())
    for label, name in enumerate(CIFAR10_CLASSES):
        for place in range(2):
            for part in ("train", "test"):
                put(tmp_path / "cifar" / part / name / f"{place}.png", np.full((32, 32, 3), 10 * label + place, np.uint8))
    dataset = load(tmp_path / "cifar", name="cifar10", options=Options(), protocol="course")
    assert (dataset.name, dataset.input_shape, dataset.class_names) == ("cifar10", (32, 32, 3), CIFAR10_CLASSES)


def test_rare_classes_are_reported_with_the_accuracy_of_guessing(tmp_path: Path) -> None:
    kept = np.concatenate([np.flatnonzero(Y == 0)[:160], np.flatnonzero(Y == 1)[:40]])
    put_all(tmp_path / "set", X[kept], Y[kept])
    told = "unbalanced, 24 to 96 training images a class: always guessing 0 would be right for 80.00%"
    counts = "set: 120 training, 40 validation, 40 test images of 8x8x1, 2 classes (holdout)"
    assert load(tmp_path / "set").summary() == f"{counts}; {told}; {GREY.describe()}"
    assert load(put_all(tmp_path / "all", X, Y)).imbalance() is None


def test_a_worker_tells_how_far_it_has_read_and_keeps_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sign of life counts: the supervisor takes a silent worker for one that hangs."""
    clock = itertools.count()
    monkeypatch.setattr("search.data.loading.time", SimpleNamespace(monotonic=lambda: next(clock)))
    raw = {"base": 0.5, "data": {"path": str(put_all(tmp_path / "set", X, Y)), "size": 6}, "budget": {"params": 1200}}
    run = Run("mine", tmp_path / "run", parse(raw | {"space": {"blocks": [1, 2], "pools": 1}}, "test"), "")
    run.folder.mkdir()
    events: list[Event] = []
    data = _read_data(run, Reporter(events.append))
    assert events[-1] == ImagesRead(len(X), len(X))
    assert (tmp_path / "run/images.npz").is_file()
    shown = io.StringIO()
    with RunView(Console(file=shown, force_terminal=True)) as view:
        view.show(events[-1])
        view.live.refresh()
    assert "1,797 of 1,797 images read" in shown.getvalue()
    events.clear()
    assert _read_data(run, Reporter(events.append)).fingerprint == data.fingerprint
    assert events == []


# --- order and names -------------------------------------------------------------------------------------------------


def test_order_is_by_class_then_by_name_in_every_depth(tmp_path: Path) -> None:
    for name in ("b/1.png", "b/10.png", "b/2.PNG", "b/deep/er/0.png", "a/z.jpeg", "a/Z.jpg"):
        put(tmp_path / name)
    part = folders.find(tmp_path).parts[WHOLE]
    assert [str(Path(file).relative_to(tmp_path)) for file in part.files] == [
        *("a/Z.jpg", "a/z.jpeg", "b/1.png", "b/10.png", "b/2.PNG", "b/deep/er/0.png"),
    ]
    assert part.labels.tolist() == [0, 0, 1, 1, 1, 1]


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 0, 1, 2):
        put(tmp_path / str(number) / "a.png")
    assert folders.find(tmp_path).classes == ("0", "1", "2", "9", "10")
    put(tmp_path / "x" / "a.png")
    assert folders.find(tmp_path).classes == ("0", "1", "10", "2", "9", "x")


ODD = ["[red]", "a\nb", "ünïcode ½", "with space", "50% & <b>", "a'\"b", "*?", "~", "caf\udce9"]


def test_odd_names_of_classes_can_be_printed_and_stored(tmp_path: Path) -> None:
    for name in ODD:
        put(tmp_path / name / "a.png")
    found = folders.find(tmp_path)
    assert len(found.classes) == len(ODD)
    assert all(name.isprintable() and name.encode() for name in found.classes)
    assert {"[red]", "a?b", "ünïcode ½", "caf\ufffd"} <= set(found.classes)
    assert folders.find(tmp_path, ("a?b", "*?")).classes == ("*?", "a?b")


def test_a_relative_folder_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(tmp_path, X[:200], Y[:200])
    whole = folders.find(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert [file.lstrip("./") for file in folders.find(Path()).parts["all"].files] == [
        str(Path(file).relative_to(tmp_path)) for file in whole.parts["all"].files
    ]


# --- what is passed over ---------------------------------------------------------------------------------------------


def test_litter_and_other_files_are_skipped_and_the_latter_counted(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "a/.hidden.png", ".git/x/1.png", "__MACOSX/a/1.png", "a/.thumbs/1.png"):
        put(tmp_path / name)
    for name in (
        "a/Thumbs.db",
        "a/desktop.ini",
        "a/.DS_Store",
        "index.theme",
        "a/1.txt",
        "b/2.txt",
        "b/photo.heic",
        "b/LICENSE",
    ):
        (tmp_path / name).write_text("")
    found = folders.find(tmp_path)
    assert (found.classes, len(found.parts["all"].files)) == (("a", "b"), 2)
    assert found.remark == "left out: 4 files that are no PNG, JPEG, BMP, GIF, WebP, TIFF or PPM (.txt, no suffix, .heic)"


def test_an_image_is_taken_once_whatever_links_there_are(tmp_path: Path) -> None:
    put(tmp_path / "set/a/1.png")
    put(tmp_path / "set/b/1.png")
    put(tmp_path / "set/.store/2.png")
    (tmp_path / "set/a/0 of b.png").symlink_to("../b/1.png")
    (tmp_path / "set/a/2.png").symlink_to("1.png")
    (tmp_path / "set/a/of the store.png").symlink_to("../.store/2.png")
    (tmp_path / "set/b/of the store.png").symlink_to("../.store/2.png")
    found = folders.find(tmp_path / "set")
    assert [str(Path(file).relative_to(tmp_path / "set")) for file in found.parts["all"].files] == [
        *("a/1.png", "a/of the store.png", "b/1.png"),
    ]
    assert (found.doubles, found.astray, found.remark) == (3, 0, "")


def test_nothing_outside_is_read_whatever_links_there_are(tmp_path: Path) -> None:
    put(tmp_path / "secret/1.png", X[7])
    for label in range(2):
        for place in range(25):
            put(tmp_path / f"set/{label}/{place}.png", X[label])
    (tmp_path / "set/0/out.png").symlink_to(tmp_path / "secret/1.png")
    (tmp_path / "set/0/up.png").symlink_to("../../secret/1.png")
    (tmp_path / "set/0/passwd.png").symlink_to("/etc/passwd")
    (tmp_path / "set/0/nowhere.png").symlink_to("nothing.png")
    (tmp_path / "set/0/loop.png").symlink_to("loop.png")
    (tmp_path / "set/1/folder").symlink_to(tmp_path / "secret")
    (tmp_path / "set/1/back").symlink_to("..")
    (tmp_path / "near set").symlink_to(tmp_path / "set")
    found = load(tmp_path / "near set")
    assert found.remark == f"{GREY.describe()}; left out: 7 links that lead out of the folder or nowhere"
    assert f"; {found.remark}; copies: " in found.summary()
    assert found.x_test is not None
    everything = np.concatenate([found.x_train, found.x_val, found.x_test])
    assert len(everything) == 50
    assert {image.tobytes() for image in everything} == {X[0].tobytes(), X[1].tobytes()}


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    for name in "ab":
        put(tmp_path / name / "1.png")
    os.mkfifo(tmp_path / "a/0.png")
    assert len(folders.find(tmp_path).parts["all"].files) == 2
