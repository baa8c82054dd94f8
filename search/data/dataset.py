"""Data sets as frozen arrays with fixed splits: cifar10, cifar100, digits, or one's own file or folder of images.

A split is the same for every study: it depends on the labels alone, not on the study's seed, nor on the form of the file.
Under protocol "course" validation is the test split; under "holdout" a stratified share of the training images is held out.
Keras and scikit-learn are imported only where their data is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.data import archives, folders
from search.data import loading as reading
from search.data.images import AS_THEY_ARE, Options, Pixels
from search.data.loading import Watch
from search.data.splits import LEAST_IN_A_PART, Labels, Split, held_out, reduced, three_parts
from search.errors import UserError, nearest, reason
from search.networks.layers import LARGEST
from search.text import format_shape

Protocol = Literal["course", "holdout"]

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
MOST_CHANNELS = 16
CHUNK = 2_048  # images at a time where a wider copy is needed
UNBALANCED = 3.0  # times as many training images of the commonest class as of the rarest, from which on that is told


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images uint8 (n, height, width, channels) and labels int64 (n,), all read-only; no test split under "course"."""

    name: str
    x_train: Pixels = field(repr=False)
    y_train: Labels = field(repr=False)
    x_val: Pixels = field(repr=False)
    y_val: Labels = field(repr=False)
    x_test: Pixels | None = field(repr=False)
    y_test: Labels | None = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    protocol: Protocol
    fingerprint: str  # 16 hexadecimal digits of the splits and the protocol, whatever file they came from
    remark: str = field(default="", repr=False)  # on how it was read, for people

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        _, height, width, channels = self.x_train.shape
        return height, width, channels

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def summary(self) -> str:
        """One line for people."""
        counts = f"{len(self.y_train):,} training, {len(self.y_val):,} validation"
        counts += "" if self.y_test is None else f", {len(self.y_test):,} test"
        protocol = "course: validation is the test split" if self.protocol == "course" else self.protocol
        name = "digits (scikit-learn's 0 to 16 scaled to 0 to 255)" if self.name == "digits" else self.name
        balance = "" if (told := self.imbalance()) is None else f"; {told}"
        remark = f"; {self.remark}" if self.remark else ""
        shape = format_shape(self.input_shape)
        return f"{name}: {counts} images of {shape}, {self.classes} classes ({protocol}){balance}{remark}"

    def imbalance(self) -> str | None:
        """One line for people where some classes are much rarer than others: what always guessing one would give."""
        counts, valid = np.bincount(self.y_train), np.bincount(self.y_val)
        if counts.max() < UNBALANCED * counts.min():
            return None
        share = valid[counts.argmax()] / valid.sum() if counts.argmax() < len(valid) else 0.0
        return (
            f"unbalanced, {counts.min():,} to {counts.max():,} training images a class: always guessing "
            f"{self.class_names[int(counts.argmax())]} would be right for {share:.2%}"
        )


class _Source(NamedTuple):
    """A data set before its protocol: "train" and "test", and "val" where the set comes in three parts."""

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    decode: Callable[[NDArray[np.int64]], Pixels] | None = None  # images from what the splits hold in their place
    remark: str = ""


def load_dataset(
    name: str | None,
    path: Path | None,
    *,
    protocol: Protocol,
    holdout: float,
    images: int | None,
    seed: int = 0,
    options: Options = AS_THEY_ARE,
    cache: Path | None = None,
    watch: Watch = lambda done, total: None,
) -> Dataset:
    """Read a data set and split it.

    Args:
        name: cifar10, cifar100 or digits; with a path, what the file must hold. Without a path, Keras' cached download.
        path: a file or folder in one of the forms of `archives.ACCEPTED`.
        protocol: "course", validation is the test split; "holdout", validation is held out of the training images.
        holdout: the share held out, between 0 and 1. Digits, and a folder without splits, ignore it: their three parts (60,
            20 and 20 %) are fixed; "course" trains on the first two and validates on the last.
        images: take this many training images, stratified, and as large a share of the other splits, before any
            holdout; None takes all. Fewer images are always among those of a larger number.
        seed: of the splits, not of the study; 0 gives the splits that all studies share.
        options: how the images of a path are read.
        cache: a file to keep a folder's pixels in, where they took long to read; see `reading.read`.
        watch: told how many images of a folder have been read, and of how many.

    Raises:
        UserError: what was asked for does not exist, cannot be read, is no data set, or leaves a class without images.
    """
    if protocol not in ("course", "holdout"):
        raise UserError(f"protocol must be 'course' or 'holdout', not {protocol!r}")
    if name is not None and options != AS_THEY_ARE:
        raise UserError(f"data: {name} is taken as it is; size, grayscale, background and classes go with a path alone")
    source = _source(name, path, options, cache, watch)
    splits = dict(source.splits)
    if protocol == "course" and "val" in splits:
        first, middle = splits["train"], splits.pop("val")
        splits["train"] = Split(np.concatenate([first.x, middle.x]), np.concatenate([first.y, middle.y]))
    if images is not None:
        splits = reduced(source.name, splits, images, seed)
    if protocol == "course":
        splits["val"] = splits.pop("test")
    elif "val" not in splits:
        splits["train"], splits["val"] = held_out(source.name, splits["train"], holdout, seed)
    if source.decode:  # only now, so that no image is opened that is not taken
        splits = _opened(source.decode, splits)
    return _frozen(source, splits, protocol)


def shape_of(
    name: str | None, path: str | None, protocol: Protocol, holdout: float, options: Options = AS_THEY_ARE
) -> tuple[tuple[int, int, int], int]:
    """((height, width, channels), classes) of a data set; a named one is known without reading it, a folder by one image."""
    if name is not None:
        (height, width, channels), names = NAMED[name]
        return (height, width, channels), len(names)
    where = Path(path or "")
    if not archives.is_official(where) and folders.is_folder_of_images(where):
        held = folders.find(where, options.classes)
        height, width, channels = reading.read(next(iter(held.parts.values())).files[:1], options).shape[1:]
        return (height, width, channels), len(held.classes)
    found = load_dataset(None, where, protocol=protocol, holdout=holdout, images=None, options=options)
    return found.input_shape, found.classes


def channel_statistics(x: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation, at least 1e-6, of each channel of uint8 (n, height, width, channels) images over 255.

    Exact up to the rounding of the result: it counts how often each of the 256 values occurs.
    """
    channels = x.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(x), CHUNK):
        for channel in range(channels):
            counts[channel] += np.bincount(x[start : start + CHUNK, ..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    n = counts.sum(axis=1)
    mean = counts @ values / n
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / n
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1e-6).astype(np.float32)


# --- where the arrays come from --------------------------------------------------------------------------------------


def _source(name: str | None, path: Path | None, options: Options, cache: Path | None, watch: Watch) -> _Source:
    if name is not None and name not in NAMED:
        raise UserError(f"data: no set is called {name!r}, {nearest(name, NAMED)}; pass the path of a file for any other")
    if path is not None:
        if not archives.is_official(path) and folders.is_folder_of_images(path):
            return _from_folder(name, path, options, cache, watch)
        return _from_file(name, path, options)
    match name:
        case "digits":
            return _digits()
        case None:
            raise UserError(f"data: neither a name nor a path is given; pass one of {', '.join(NAMED)}, or a path")
        case _:
            return _from_keras(name)


def _from_folder(name: str | None, path: Path, options: Options, cache: Path | None, watch: Watch) -> _Source:
    found = folders.find(path, options.classes)
    if name is not None and found.classes != NAMED[name][1]:
        theirs = next(one for one in (*found.classes, *NAMED[name][1]) if (one in found.classes) != (one in NAMED[name][1]))
        raise UserError(f"{path}: its classes are not those of {name} ({theirs!r}); pass the path without a name")
    files = [file for part in found.parts.values() for file in part.files]
    splits, first = {}, 0
    for part, (own, labels) in found.parts.items():
        splits[part] = Split(np.arange(first, first + len(own)), labels)
        first += len(own)
    if folders.WHOLE in splits:
        _check_enough(path, found)
        splits = three_parts(*splits[folders.WHOLE])
    elif "test" not in splits:
        splits["test"] = splits.pop("val")

    def decode(places: NDArray[np.int64]) -> Pixels:
        pixels = reading.read([files[place] for place in places], options, cache, watch)
        if name is not None and pixels.shape[1:] != NAMED[name][0]:
            here, there = format_shape(pixels.shape[1:]), format_shape(NAMED[name][0])
            raise UserError(f"{path}: {name} has images of {there}, this folder {here}; pass the path without a name")
        return pixels

    remark = "; ".join(filter(None, (options.describe(), found.remark)))
    return _Source(name or folders.shown(path.resolve().name), found.classes, splits, decode, remark)


def _check_enough(path: Path, found: folders.Folder) -> None:
    counts, least = np.bincount(found.parts[folders.WHOLE].labels), 5 * LEAST_IN_A_PART
    if few := [f"{found.classes[label]} ({counts[label]})" for label in np.flatnonzero(counts < least)]:
        shown = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
        raise UserError(
            f"{path}: fewer than {least} images of {shown}, of which a fifth would be tested on: add some, name the other "
            "classes in [data] classes, or split the folder into train/ and test/ yourself"
        )


def _from_file(name: str | None, path: Path, options: Options) -> _Source:
    if options.classes or options.background != AS_THEY_ARE.background:
        raise UserError(f"{path}: classes and background go with a folder of images, and this is none; leave them out")
    arrays = archives.read_arrays(path)
    splits, count = _checked(str(path), arrays)
    splits = {part: Split(reading.fitted(split.x, options), split.y) for part, split in splits.items()}
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
    remark = options.describe() if options != AS_THEY_ARE else ""
    return _Source(name or file_name[: len(file_name) - len(suffix)], names, splits, None, remark)


def _from_keras(name: str) -> _Source:
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
    splits, _ = _checked(name, archives.Arrays(x_train, y_train, x_test, y_test))
    return _Source(name, NAMED[name][1], splits)


def _digits() -> _Source:
    """scikit-learn's 1,797 digits, 0 to 16 scaled to 0 to 255, in three fixed stratified parts."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    y = bunch.target.astype(np.int64)
    return _Source("digits", NAMED["digits"][1], three_parts(x, y))


# --- is it a data set? -----------------------------------------------------------------------------------------------


def _checked(origin: str, arrays: archives.Arrays) -> tuple[dict[str, Split], int]:
    """The arrays as two splits of one shape with labels 0 to classes - 1, and the number of classes."""
    splits = {}
    for part in ("train", "test"):
        x = _pixels(f"{origin}: x_{part}", getattr(arrays, f"x_{part}"))
        splits[part] = Split(x, _labels(f"{origin}: y_{part}", getattr(arrays, f"y_{part}"), len(x)))
    shapes = [split.x.shape[1:] for split in splits.values()]
    if shapes[0] != shapes[1]:
        train, test = map(format_shape, shapes)
        raise UserError(f"{origin}: training images are {train}, test images {test}; make them equal")
    present = np.unique(splits["train"].y)
    classes = len(present)
    if gaps := np.flatnonzero(present != np.arange(classes)).tolist():
        raise UserError(
            f"{origin}: no training image of class {gaps[0]}, labels go up to {present[-1]}; number the classes from 0 "
            "without gaps and give each a training image"
        )
    if classes < 2:
        raise UserError(f"{origin}: y_train has one class, at least 2 are needed; pass images of another class too")
    if (highest := splits["test"].y.max()) >= classes:
        raise UserError(f"{origin}: y_test has label {highest}, y_train goes up to {classes - 1}; use the same classes")
    return splits, classes


def _pixels(where: str, x: NDArray[Any]) -> Pixels:
    if x.dtype.kind not in "uif":
        raise UserError(f"{where} has dtype {x.dtype}, pixels must be whole numbers 0 to 255; save it as uint8")
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape or x.shape[-1] > MOST_CHANNELS:
        raise UserError(
            f"{where} has shape {x.shape}, images must be (n, height, width, channels) with n at least 1 and "
            f"at most {MOST_CHANNELS} channels; channels come last"
        )
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1:
        raise UserError(f"{where} has {x.dtype} values 0 to 1; pass uint8 pixels 0 to 255 (multiply by 255 and round)")
    pixels = np.empty(x.shape, np.uint8)
    for start in range(0, len(x), CHUNK):
        chunk = x[start : start + CHUNK]
        is_pixel = (chunk >= 0) & (chunk <= 255) & (chunk == np.floor(chunk))
        if not is_pixel.all():
            raise UserError(f"{where} holds {chunk[~is_pixel][0]}, pixels must be whole numbers 0 to 255; save it as uint8")
        pixels[start : start + CHUNK] = chunk
    return pixels


def _labels(where: str, y: NDArray[Any], n: int) -> Labels:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "ui":
        raise UserError(f"{where} has shape {y.shape} and dtype {y.dtype}, labels must be (n,) integers; one-hot: argmax(1)")
    if len(y) != n:
        raise UserError(f"{where} has {len(y):,} labels for {n:,} images; give each image one label")
    if y.min() < 0 or y.max() >= LARGEST:
        raise UserError(
            f"{where} has labels {y.min()} to {y.max()}, they must be between 0 and {LARGEST - 1:,}; number them"
        )
    return y.astype(np.int64)


def _opened(decode: Callable[[NDArray[np.int64]], Pixels], splits: dict[str, Split]) -> dict[str, Split]:
    """Splits of images, in one piece of memory, in place of splits of files."""
    pixels = decode(np.concatenate([split.x for split in splits.values()]))
    ends = np.cumsum([len(split.y) for split in splits.values()])
    return {part: Split(pixels[end - len(y) : end], y) for (part, (_, y)), end in zip(splits.items(), ends, strict=True)}


def _frozen(source: _Source, splits: dict[str, Split], protocol: Protocol) -> Dataset:
    digest = hashlib.sha256(protocol.encode())
    for part in ("train", "val", "test"):
        for array in splits.get(part, ()):
            array.setflags(write=False)
            digest.update(f"{part} {array.dtype.str} {array.shape} ".encode())
            digest.update(array.data)
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = splits["train"], splits["val"], splits.get("test", (None, None))
    fingerprint = digest.hexdigest()[:16]
    names = source.class_names
    return Dataset(source.name, x_train, y_train, x_val, y_val, x_test, y_test, names, protocol, fingerprint, source.remark)
