"""Sources of data sets: a folder of images, an array file, Keras' downloads of CIFAR, scikit-learn's digits.

Keras is imported only where its data is asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.data import archives, folders
from search.data.checks import check_arrays
from search.data.group_splits import three_parts_of_groups
from search.data.groups import Groups, check_group_arrays, match_groups, split_remarks
from search.data.images import AS_THEY_ARE, Options
from search.data.layout import WHOLE, shown
from search.data.loading import ReadImages, Watch, fit_arrays, not_watched, read_images
from search.data.splits import LEAST_IN_A_PART, Split, three_parts
from search.errors import UserError, nearest, reason
from search.text import format_shape

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100_WORDS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar
cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl
hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CLASSES = tuple(_CIFAR100_WORDS.split())
NAMED: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {  # (height, width, channels) and the classes
    "cifar10": ((32, 32, 3), CIFAR10_CLASSES),
    "cifar100": ((32, 32, 3), CIFAR100_CLASSES),
    "digits": ((8, 8, 1), tuple("0123456789")),
}

_DIGITS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)  # images of each class

Decode = Callable[[NDArray[np.int64]], ReadImages]  # images from their indices in the list of all files


@dataclass(frozen=True)
class Reading:
    """Options of reading the files of a folder that change no pixel."""

    skip_damaged: bool = False  # leave out files that cannot be decoded
    listing: Path | None = None  # a text file that names all that cannot be used
    cache: Path | None = None  # a file to keep the pixels in, where they took long to read
    watch: Watch = not_watched  # called with the progress


class Source(NamedTuple):
    """A data set before its protocol: "train" and "test", and "val" where the set comes in three parts."""

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    decode: Decode | None = None  # where the splits hold indices of images in place of the images themselves
    remark: str = ""  # on how it was read
    groups: Groups | None = None  # of all images by index, where they are kept together
    is_split_here: bool = False  # its three parts were made here out of one


def open_source(name: str | None, path: Path | None, options: Options, reading: Reading, group: str | None = None) -> Source:
    """The data set of a name or a path; of a folder no image is decoded yet.

    Args:
        group: the pattern of groups in the paths of a folder; see `search.data.groups`.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    if name is not None and name not in NAMED:
        raise UserError(f"data: no set is called {name!r}, {nearest(name, NAMED)}; pass the path of a file for any other")
    if path is not None:
        if is_folder_of_images(path):
            return _open_folder(name, path, options, reading, group)
        if group is not None and path.exists():
            raise UserError(
                f"{path}: data.group is a pattern for paths in a folder of images, and this is none; leave it out, or give "
                "the groups of an .npz as its array groups_train"
            )
        return _open_file(name, path, options)
    match name:
        case "digits":
            return _open_digits()
        case None:
            raise UserError(f"data: neither a name nor a path is given; pass one of {', '.join(NAMED)}, or a path")
        case _:
            return _open_keras(name)


def class_counts(name: str) -> dict[str, tuple[int, ...]]:
    """The number of images of each class of a named set, by part; digits come in one part."""
    match name:
        case "cifar10":
            return {"train": (5_000,) * 10, "test": (1_000,) * 10}
        case "cifar100":
            return {"train": (500,) * 100, "test": (100,) * 100}
        case _:
            return {WHOLE: _DIGITS}


def is_folder_of_images(path: Path) -> bool:
    """True for a folder of images by class, false for an official folder of CIFAR and for files."""
    return not archives.is_official(path) and folders.is_folder_of_images(path)


def _open_folder(name: str | None, path: Path, options: Options, reading: Reading, group: str | None) -> Source:
    folder = folders.find(path, options.classes)
    if name is not None and folder.classes != NAMED[name][1]:
        known = NAMED[name][1]
        theirs = next(one for one in (*folder.classes, *known) if (one in folder.classes) != (one in known))
        raise UserError(f"{path}: its classes are not those of {name} ({theirs!r}); pass the path without a name")
    files = [file for part in folder.parts.values() for file in part.files]
    splits, remarks, first = {}, [options.describe(), folder.remark], 0
    for part, images in folder.parts.items():
        splits[part] = Split(np.arange(first, first + len(images.files)), images.labels)
        first += len(images.files)
    groups = None
    if group is not None:
        groups = match_groups(group, [own for part in folder.parts.values() for own in part.names], folder.classes)
    if WHOLE in splits:
        _check_enough(path, folder)
        whole = splits[WHOLE]
        if groups is None:
            splits = three_parts(*whole)
        else:
            splits = three_parts_of_groups(whole, groups)
            fifth = len(whole.y) // 5
            remarks += split_remarks(splits, {"val": fifth, "test": fifth}, groups)
    elif "test" not in splits:
        splits["test"] = splits.pop("val")

    def decode(indices: NDArray[np.int64]) -> ReadImages:
        images = read_images(
            [files[index] for index in indices],
            options,
            skip_damaged=reading.skip_damaged,
            listing=reading.listing,
            cache=reading.cache,
            watch=reading.watch,
        )
        if name is not None and images.pixels.shape[1:] != NAMED[name][0]:
            here, there = format_shape(images.pixels.shape[1:]), format_shape(NAMED[name][0])
            raise UserError(f"{path}: {name} has images of {there}, this folder {here}; pass the path without a name")
        return images

    remark = "; ".join(filter(None, remarks))
    called, is_split_here = name or shown(path.resolve().name), WHOLE in folder.parts
    return Source(called, folder.classes, splits, decode, remark, groups, is_split_here)


def _check_enough(path: Path, folder: folders.Folder) -> None:
    counts, least = np.bincount(folder.parts[WHOLE].labels), 5 * LEAST_IN_A_PART
    if few := [f"{folder.classes[label]} ({counts[label]})" for label in np.flatnonzero(counts < least)]:
        listed = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
        raise UserError(
            f"{path}: fewer than {least} images of {listed}, of which a fifth would be tested on: add some, name the other "
            "classes in [data] classes, or split the folder into train/ and test/ yourself"
        )


def _open_file(name: str | None, path: Path, options: Options) -> Source:
    if options.classes or options.background != AS_THEY_ARE.background or options.bits:
        given = "bits" if options.bits else "classes and background"
        goes = "goes" if options.bits else "go"
        raise UserError(f"{path}: {given} {goes} with a folder of images, and this is none; leave it out")
    arrays = archives.read_arrays(path)
    splits, count = check_arrays(str(path), arrays)
    splits = {part: Split(fit_arrays(split.x, options), split.y) for part, split in splits.items()}
    if "test" not in splits:
        splits["test"] = splits.pop("val")  # as of a folder: what is named beside the training images is kept for the end
    shape = splits["train"].x.shape[1:]
    known = name or (arrays.official if options == AS_THEY_ARE else None)
    if known is not None and (shape, count) != (NAMED[known][0], len(NAMED[known][1])):
        raise UserError(
            f"{path}: {known} has images of {format_shape(NAMED[known][0])} in {len(NAMED[known][1])} classes, "
            f"this file {format_shape(shape)} in {count}; pass the path without a name to use it as a set of its own"
        )
    file_name = path.resolve().name
    suffix = next((suffix for suffix in archives.SUFFIXES if file_name.lower().endswith(suffix)), "")
    official = known or arrays.official
    names = NAMED[official][1] if official else tuple(map(str, range(count)))
    left_out = f"left out: the arrays {', '.join(arrays.others)}" if arrays.others else ""
    remark = "; ".join(filter(None, (options.describe() if options != AS_THEY_ARE else "", left_out)))
    source = Source(name or file_name[: len(file_name) - len(suffix)], names, splits, None, remark)
    return _grouped(source, path, arrays.groups) if arrays.groups else source


def _grouped(source: Source, path: Path, arrays: Mapping[str, NDArray[Any]]) -> Source:
    """A source of images as one of indices, with the groups of an array file."""
    if "val" in arrays and "val" not in source.splits:  # they are kept for the end, see `_open_file`
        arrays = {**arrays, "test": arrays["val"]}
    pixels = np.concatenate([split.x for split in source.splits.values()])
    splits, first = {}, 0
    for part, split in source.splits.items():
        splits[part] = Split(np.arange(first, first + len(split.y)), split.y)
        first += len(split.y)

    def decode(indices: NDArray[np.int64]) -> ReadImages:
        return ReadImages(pixels[indices], np.ones(len(indices), np.bool_), ())

    groups = check_group_arrays(str(path), arrays, source.splits, source.class_names)
    return source._replace(splits=splits, decode=decode, groups=groups)


def _open_keras(name: str) -> Source:
    import keras

    with contextlib.redirect_stdout(sys.stderr):  # its progress bar would end up in --json output
        try:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
        except Exception as error:  # Keras raises a bare Exception when the download fails
            raise UserError(
                f"{name}: not cached and the download failed ({reason(error)}); pass --data FILE, {archives.ACCEPTED}"
            ) from error
    if keras.config.image_data_format() == "channels_first":  # a setting of the user's, which the loader follows
        x_train, x_test = x_train.transpose(0, 2, 3, 1), x_test.transpose(0, 2, 3, 1)
    splits, _ = check_arrays(name, archives.Arrays(x_train, y_train, x_test, y_test))
    return Source(name, NAMED[name][1], splits)


def _open_digits() -> Source:
    """scikit-learn's 1,797 digits, 0 to 16 scaled to 0 to 255, in three fixed stratified parts.

    The rows of its file are 64 pixels and a label. They are read from there, as importing scikit-learn takes 2 seconds.
    """
    (package,) = importlib.util.find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr, misc]
    rows = np.loadtxt(Path(package) / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    x = np.rint(rows[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    y = rows[:, -1].astype(np.int64)
    return Source("digits", NAMED["digits"][1], three_parts(x, y), is_split_here=True)
