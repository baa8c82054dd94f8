"""Folders of images that are read otherwise or rejected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data import folders, images
from search.data.images import Options
from search.data.layout import WHOLE, part_of
from search.errors import UserError
from tests.support.folders import X, Y, load, put, put_all, refused

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
def test_a_layout_that_is_none_is_rejected_with_its_remedy(layout: str, tmp_path: Path) -> None:
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


def test_three_parts_are_distinguished(tmp_path: Path) -> None:
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
