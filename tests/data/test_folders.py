"""Folders of images: both layouts, the order and the names, what is passed over and what is refused; as a data set.

Real images: scikit-learn's digits, one PNG each.
"""

from __future__ import annotations

import io
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

from search.cli.progress import RunView
from search.data import folders, images
from search.data.dataset import Dataset, load_dataset
from search.data.images import Options
from search.data.layout import WHOLE, part_of
from search.data.sources import CIFAR10_CLASSES
from search.errors import UserError
from search.runner.events import Event, ImagesRead
from search.runner.preparation import _read_data
from search.runner.reporter import Reporter
from search.study.run import Run
from search.study.study_file import parse

BUNCH = load_digits()
X, Y = np.rint(BUNCH.images * 255 / 16).astype(np.uint8), BUNCH.target.astype(np.int64)
BY_CLASS = np.argsort(Y, kind="stable")
GREY = Options(grayscale=True)
DECODE = images.decode


def put(path: Path, image: np.ndarray = X[0]) -> Path:
    """Write one image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def put_all(folder: Path, x: np.ndarray, y: np.ndarray, name: Callable[[int], str] = str) -> Path:
    """Write images by class, their names in the order of the array; which is written first is left to chance."""
    places = list(range(len(x)))
    random.Random(len(x)).shuffle(places)
    for place in places:
        put(folder / name(int(y[place])) / f"{place:05}.png", x[place])
    return folder


def load(path: Path, **options: Any) -> Dataset:
    return load_dataset(
        options.pop("name", None),
        path,
        **({"protocol": "holdout", "holdout": 0.4, "images": None, "options": GREY} | options),
    )


def refused(path: Path, **options: Any) -> str:
    """The one line in which it is refused."""
    with pytest.raises(UserError) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


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


def test_rare_classes_are_told_with_what_guessing_gives(tmp_path: Path) -> None:
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


def test_litter_and_other_files_are_passed_over_and_the_latter_told(tmp_path: Path) -> None:
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


# --- what is refused -------------------------------------------------------------------------------------------------


def _links(folder: Path) -> None:
    put(folder / "a/1.png")
    put(folder / "b/1.png")
    (folder / "c").symlink_to("b")


def _only_links(folder: Path) -> None:
    put(folder / "a/1.png")
    (folder / "b").mkdir()
    (folder / "b/1.png").symlink_to("../a/1.png")


def _heics(folder: Path) -> None:
    put(folder / "a/1.png")
    (folder / "b").mkdir()
    (folder / "b/1.heic").write_bytes(b"....ftypheic")


def _few(folder: Path) -> None:
    kept = np.concatenate([np.flatnonzero(label == Y)[: 20 + 4 * label] for label in range(4)])
    put_all(folder, X[kept], Y[kept], lambda label: "cdef"[label])


LAYOUTS: dict[str, tuple[list[str] | Callable[[Path], None], str]] = {
    "no folders": (
        ["1.png", "2.png"],
        "1.png lies beside the folders of the classes (and 1 more); move it into one of them",
    ),
    "a loose image": (["a/1.png", "b/1.png", "3.jpg"], "3.jpg lies beside the folders of the classes; move it"),
    "one class": (["a/1.png"], "one class (a), at least 2 are needed; pass a folder with a sub-folder of images for each"),
    "an empty class": (["a/1.png", "b/1.png", "c/"], "class 'c' has no image of its own; put some in, or remove its folder"),
    "a class of links": (_only_links, "class 'b' has no image of its own; put some in"),
    "a class of another format": (
        _heics,
        "class 'b' has no image of its own; PNG, JPEG, BMP, GIF, WebP, TIFF or PPM files are read",
    ),
    "train alone": (["train/a/1.png", "train/b/1.png"], "holds train/ alone; add test/ or val/, or pass"),
    "an empty test": (
        ["train/a/1.png", "train/b/1.png", "test/a/", "test/b/"],
        "test: holds no images; put some in, or remove",
    ),
    "a test without classes": (["train/a/1.png", "train/b/1.png", "test/1.png"], "test: holds no folders of images"),
    "a class only in test": (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "train: class 'c' has no image of its own"),
    "splits and more": (["train/a/1.png", "test/a/1.png", "extra/1.png"], "'extra' stands beside train/ and is no split"),
    "a linked class": (_links, "c: a link to a folder, which is not followed; put the folder itself here"),
    "few images": (_few, "fewer than 25 images of c (20), d (24), of which a fifth would be tested on"),
    "training images as classes": (["training_a/x/1.png", "Training/1.png", "Testing/1.png"], "stands beside train/ and is"),
    "test beside classes": (["cat/1.png", "dog/1.png", "test/1.png"], "'test' would be a class by the layout and is a part"),
    "no training part": (["valid/1.png", "Test set/1.png"], "'Test set', 'valid' would be a class by the layout"),
    "two training parts": (
        ["train/a/1.png", "Training/a/1.png", "test/a/1.png"],
        "'Training' and 'train' are both the train part",
    ),
    "parts within classes": (
        ["cat/train/1.png", "cat/test/1.png", "dog/train/1.png", "dog/test/1.png"],
        "cat/ holds a training and another part of its own; put the parts above the classes, as in train/cat and test/cat",
    ),
    "parts without classes": (["Training/1.png", "Testing/1.png"], "ing: holds no folders of images"),
    "nothing": ([], "holds none of CIFAR's files; pass a folder of images by class, an .npz"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_is_none_is_refused_with_its_remedy(layout: str, tmp_path: Path) -> None:
    make, told = LAYOUTS[layout]
    if callable(make):
        make(tmp_path)
    else:
        for name in make:
            (tmp_path / name).mkdir(parents=True) if name.endswith("/") else put(tmp_path / name)
    message = refused(tmp_path)
    assert told in message
    assert message.startswith(str(tmp_path))


PAIRS = [
    *(("train", "test"), ("Training", "Testing"), ("training_set", "test_set"), ("TRAIN", "TEST"), ("trn", "tst")),
    *(("train2017", "val2017"), ("train-images", "test-images"), ("Train Set", "Dev Set"), ("train", "eval")),
    *(("trainset", "testset"), ("training", "validation"), ("train_data", "valid_data"), ("train 256", "evaluation 256")),
]


@pytest.mark.parametrize("nesting", ["", "archive/", "inner", "images"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_parts_are_known_by_all_usual_names(first: str, second: str, nesting: str, tmp_path: Path) -> None:
    """Also in one more folder, as archives unpack: around the parts, or inside each (`training_set/training_set/cats`)."""
    for part, n in ((first, 3), (second, 2)):
        inside = {"inner": f"{part}/{part}", "images": f"{part}/Images"}.get(nesting, f"{nesting}{part}")
        for name in "ab":
            for place in range(n):
                put(tmp_path / inside / name / f"{place}.png")
    found = folders.find(tmp_path)
    assert found.classes == ("a", "b")
    assert sorted(len(part.files) for part in found.parts.values()) == [4, 6]
    assert len(found.parts["train"].files) == 6


def test_three_parts_are_told_apart(tmp_path: Path) -> None:
    for names in (
        ("train", "val", "test"),
        ("Training", "dev", "eval"),
        ("trn", "evaluation", "test_set"),
        ("train", "valid", "tst"),
    ):
        folder = tmp_path / "-".join(names)
        for n, part in enumerate(names, start=1):
            for name in "ab":
                for place in range(n):
                    put(folder / part / name / f"{place}.png")
        sizes = {part: len(own.files) for part, own in folders.find(folder).parts.items()}
        assert sizes == {"train": 2, "val": 4, "test": 6}


@pytest.mark.parametrize(
    "name", ["cat", "trains", "training_shoes", "protest", "0", "10", "latest", "devil", "vale", "set", "images"]
)
def test_other_names_are_those_of_classes(name: str) -> None:
    assert part_of(name) is None


def test_a_word_that_is_also_a_part_may_be_a_class(tmp_path: Path) -> None:
    for name in ("valid", "invalid"):
        put(tmp_path / "stamps" / name / "1.png")
    assert folders.find(tmp_path / "stamps").classes == ("invalid", "valid")
    for name in ("test", "rest"):
        put(tmp_path / "words" / name / "1.png")
    with pytest.raises(UserError, match="or list the classes in"):
        folders.find(tmp_path / "words")
    assert folders.find(tmp_path / "words", ("rest", "test")).classes == ("rest", "test")


def test_a_class_is_one_in_upper_and_lower_case(tmp_path: Path) -> None:
    for name in (
        "train/Cat/1.png",
        "train/dog/1.png",
        "train/e\u0301/1.png",
        "test/cat/2.png",
        "test/DOG/2.png",
        "test/\u00e9/2.png",
    ):
        put(tmp_path / name)
    found = folders.find(tmp_path)
    assert found.classes == ("Cat", "dog", "e\u0301")
    assert [part.labels.tolist() for part in found.parts.values()] == [[0, 1, 2], [0, 1, 2]]
    assert folders.find(tmp_path, ("Cat", "dog")).parts["test"].labels.tolist() == [0, 1]


def test_letters_in_both_cases_are_classes_of_their_own(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "A", "b"):
            put(tmp_path / part / name / "1.png")
    found = folders.find(tmp_path)
    assert found.classes == ("A", "a", "b")
    assert found.parts["test"].labels.tolist() == [0, 1, 2]


def test_folders_of_the_system_are_no_class(tmp_path: Path) -> None:
    system = (
        "@eaDir",
        "lost+found",
        "__MACOSX",
        ".ipynb_checkpoints",
        "$RECYCLE.BIN",
        "System Volume Information",
        "#recycle",
    )
    for name in system:
        put(tmp_path / name / "a/1.png")
        put(tmp_path / "a" / name / "1.png")
    for name in "ab":
        put(tmp_path / name / "1.png")
    found = folders.find(tmp_path)
    assert (found.classes, len(found.parts[WHOLE].files)) == (("a", "b"), 2)


def test_images_are_known_by_their_content(tmp_path: Path) -> None:
    formats = {
        "1.jfif": "JPEG",
        "2.jpe": "JPEG",
        "3.tif": "TIFF",
        "4.ppm": "PPM",
        "5": "PNG",
        "6.dat": "WEBP",
        "7.x": "GIF",
        "8.txt": "JPEG",
    }
    for label in "ab":
        (tmp_path / label).mkdir()
        for name, kind in formats.items():
            Image.fromarray(X[0]).convert("RGB").save(tmp_path / label / name, kind)
        (tmp_path / label / "9.txt").write_text("no image")
    found = folders.find(tmp_path)
    assert [Path(file).name for file in found.parts[WHOLE].files] == [*formats] * 2
    assert found.others == {".txt": 2}
    assert all(images.decode(file).shape == (8, 8, 3) for file in found.parts[WHOLE].files)


def test_a_class_may_be_called_train_where_nothing_is_split(tmp_path: Path) -> None:
    for name in ("train", "bus", "car"):
        put(tmp_path / name / "1.png")
    assert folders.find(tmp_path).classes == ("bus", "car", "train")


def test_some_of_the_classes_may_be_asked_for(tmp_path: Path) -> None:
    put_all(tmp_path, X, Y)
    dataset = load(tmp_path, options=Options(grayscale=True, classes=("3", "1")))
    assert dataset.class_names == ("1", "3")
    assert len(dataset.y_train) == len(X[(Y == 1) | (Y == 3)]) - 2 * (len(X[(Y == 1) | (Y == 3)]) // 5)
    assert "holds no class '33'; did you mean '3'?" in refused(tmp_path, options=Options(classes=("1", "33")))


def test_array_files_take_no_background_and_no_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X[:600], y_train=Y[:600], x_test=X[600:], y_test=Y[600:])
    for options in (Options(classes=("0", "1")), Options(background="black")):
        assert "go with a folder of images, and this is none" in refused(tmp_path / "a.npz", options=options)
