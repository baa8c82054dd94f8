"""Data sets as frozen arrays with fixed splits: cifar10, cifar100, digits, or a file of one's own (see `search.archives`).

A split is the same for every study: it depends on the labels alone, not on the study's seed, nor on the form of the file.
Under protocol "course" validation is the test split; under "holdout" a stratified share of the training images is held out.
Keras and scikit-learn are imported only where their data is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search import archives
from search.errors import UserError, nearest
from search.layers import LARGEST

Protocol = Literal["course", "holdout"]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

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
HELD_OUT = 10  # images of each class, at least: fewer and one image moves a class by more than ten points
MOST_CHANNELS = 16
CHUNK = 2_048  # images at a time where a wider copy is needed

_DIGITS_SPLIT, _REDUCTION, _HOLDOUT = range(3)  # streams of random numbers


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
        return f"{name}: {counts} images of {_by(self.input_shape)}, {self.classes} classes ({protocol})"


class _Split(NamedTuple):
    x: Pixels
    y: Labels


class _Source(NamedTuple):
    """A data set before its protocol: "train" and "test", and "val" where the set comes in three parts."""

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, _Split]


def load_dataset(
    name: str | None,
    path: Path | None,
    *,
    protocol: Protocol,
    holdout: float,
    images: int | None,
    seed: int = 0,
) -> Dataset:
    """Read a data set and split it.

    Args:
        name: cifar10, cifar100 or digits; with a path, what the file must hold. Without a path, Keras' cached download.
        path: a file or folder in one of the forms of `archives.ACCEPTED`.
        protocol: "course", validation is the test split; "holdout", validation is held out of the training images.
        holdout: the share held out, between 0 and 1. Digits ignores it: its three parts (60, 20 and 20 %) are fixed;
            "course" trains it on the first two and validates on the last.
        images: take this many training images, stratified, and as large a share of the other splits, before any
            holdout; None takes all. Fewer images are always among those of a larger number.
        seed: of the splits, not of the study; 0 gives the splits that all studies share.

    Raises:
        UserError: what was asked for does not exist, cannot be read, is no data set, or leaves a class without images.
    """
    if protocol not in ("course", "holdout"):
        raise UserError(f"protocol must be 'course' or 'holdout', not {protocol!r}")
    source = _source(name, path)
    splits = dict(source.splits)
    if protocol == "course" and "val" in splits:
        first, middle = splits["train"], splits.pop("val")
        splits["train"] = _Split(np.concatenate([first.x, middle.x]), np.concatenate([first.y, middle.y]))
    if images is not None:
        splits = _reduced(source.name, splits, images, seed)
    if protocol == "course":
        splits["val"] = splits.pop("test")
    elif "val" not in splits:
        splits["train"], splits["val"] = _held_out(source.name, splits["train"], holdout, seed)
    return _frozen(source, splits, protocol)


def shape_of(name: str | None, path: str | None, protocol: Protocol, holdout: float) -> tuple[tuple[int, int, int], int]:
    """((height, width, channels), classes) of a data set; a named one is known without reading it."""
    if name is not None:
        (height, width, channels), names = NAMED[name]
        return (height, width, channels), len(names)
    found = load_dataset(None, Path(path or ""), protocol=protocol, holdout=holdout, images=None)
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


def _source(name: str | None, path: Path | None) -> _Source:
    if name is not None and name not in NAMED:
        raise UserError(f"data: no set is called {name!r}, {nearest(name, NAMED)}; pass the path of a file for any other")
    if path is not None:
        return _from_file(name, path)
    match name:
        case "digits":
            return _digits()
        case None:
            raise UserError(f"data: neither a name nor a path is given; pass one of {', '.join(NAMED)}, or a path")
        case _:
            return _from_keras(name)


def _from_file(name: str | None, path: Path) -> _Source:
    arrays = archives.read_arrays(path)
    splits, classes = _checked(str(path), arrays)
    shape = splits["train"].x.shape[1:]
    known = name or arrays.official
    if known is not None and (shape, classes) != (NAMED[known][0], len(NAMED[known][1])):
        raise UserError(
            f"{path}: {known} has images of {_by(NAMED[known][0])} in {len(NAMED[known][1])} classes, "
            f"this file {_by(shape)} in {classes}; pass the path without a name to use it as a set of its own"
        )
    file_name = path.resolve().name
    suffix = next((suffix for suffix in archives.SUFFIXES if file_name.lower().endswith(suffix)), "")
    names = NAMED[known][1] if known else tuple(map(str, range(classes)))
    return _Source(name or file_name[: len(file_name) - len(suffix)], names, splits)


def _from_keras(name: str) -> _Source:
    import keras

    with contextlib.redirect_stdout(sys.stderr):  # its progress bar would end up in --json output
        try:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
        except Exception as error:  # Keras raises a bare Exception when the download fails
            raise UserError(
                f"{name}: not cached and the download failed ({archives.reason(error)}); "
                f"pass --data FILE, {archives.ACCEPTED}"
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
    order = _stratified_order(y, 0, _DIGITS_SPLIT)
    fifth = len(y) // 5
    parts = {"test": order[:fifth], "val": order[fifth : 2 * fifth], "train": order[2 * fifth :]}
    splits = {part: _Split(x[np.sort(parts[part])], y[np.sort(parts[part])]) for part in ("train", "val", "test")}
    return _Source("digits", NAMED["digits"][1], splits)


# --- is it a data set? -----------------------------------------------------------------------------------------------


def _checked(origin: str, arrays: archives.Arrays) -> tuple[dict[str, _Split], int]:
    """The arrays as two splits of one shape with labels 0 to classes - 1, and the number of classes."""
    splits = {}
    for part in ("train", "test"):
        x = _pixels(f"{origin}: x_{part}", getattr(arrays, f"x_{part}"))
        splits[part] = _Split(x, _labels(f"{origin}: y_{part}", getattr(arrays, f"y_{part}"), len(x)))
    shapes = [split.x.shape[1:] for split in splits.values()]
    if shapes[0] != shapes[1]:
        raise UserError(f"{origin}: training images are {_by(shapes[0])}, test images {_by(shapes[1])}; make them equal")
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


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


# --- splits ----------------------------------------------------------------------------------------------------------


def _stratified_order(labels: Labels, seed: int, stream: int) -> NDArray[np.int64]:
    """Indices of all images in a random order whose every prefix is stratified.

    The k-th image of a class of n comes at (k - 1/2) / n of the way. For equal classes a prefix is the largest-remainder
    share; that rule itself would not nest where classes differ in size (the Alabama paradox).
    """
    # RandomState and not default_rng: only its streams are promised to stay as they are in every version of numpy.
    shuffled = np.random.RandomState([seed, stream]).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    own = labels[by_class]
    rank = np.arange(len(labels)) - (np.cumsum(counts) - counts)[own]
    return by_class[np.lexsort((own, (rank + 0.5) / counts[own]))].astype(np.int64)


def _shortest(ordered: Labels, each: int) -> int:
    """Length of the shortest prefix that has `each` of every class; every class must have as many."""
    places = np.argsort(ordered, kind="stable")
    counts = np.bincount(ordered)
    starts = (np.cumsum(counts) - counts)[counts > 0]
    return int(places[starts + each - 1].max()) + 1


def _reduced(name: str, splits: dict[str, _Split], images: int, seed: int) -> dict[str, _Split]:
    n = len(splits["train"].y)
    orders = {part: _stratified_order(split.y, seed, _REDUCTION) for part, split in splits.items()}
    shortest = {part: _shortest(splits[part].y[order], 1) for part, order in orders.items()}

    def sizes(wanted: int) -> dict[str, int]:
        return {part: (2 * wanted * len(order) + n) // (2 * n) for part, order in orders.items()}  # rounded half up

    def fits(wanted: int) -> bool:
        return all(size >= shortest[part] for part, size in sizes(wanted).items())

    if not 1 <= images <= n or not fits(images):
        smallest = bisect_left(range(n), True, key=fits)
        raise UserError(
            f"images is {images}, {name} takes {smallest} to {n}: every split needs an image of each class, and there are "
            f"{n:,} training images; pass a number in between"
        )
    kept = {part: np.sort(orders[part][:size]) for part, size in sizes(images).items()}
    return {part: _Split(splits[part].x[indices], splits[part].y[indices]) for part, indices in kept.items()}


def _held_out(name: str, train: _Split, holdout: float, seed: int) -> tuple[_Split, _Split]:
    """Training and validation images."""
    if not 0 < holdout < 1:
        raise UserError(f"holdout is {holdout}, it must be between 0 and 1; pass 0.1 for a tenth")
    if (fewest := int(np.bincount(train.y).min())) <= HELD_OUT:
        raise UserError(
            f"holdout: a class of {name} has {fewest} training images, {HELD_OUT} are held out and one must be left; "
            "use more images, or protocol = 'course'"
        )
    n = len(train.y)
    order = _stratified_order(train.y, seed, _HOLDOUT)
    lowest, highest = _shortest(train.y[order], HELD_OUT), n - _shortest(train.y[order[::-1]], 1)
    n_held = round(holdout * n)
    if not lowest <= n_held <= highest:
        raise UserError(
            f"holdout is {holdout}, {n_held} of {name}'s {n:,} training images: at least {HELD_OUT} of each class are held "
            f"out and one is left; use {-(-lowest * 10_000 // n) / 10_000} to {highest * 10_000 // n / 10_000}"
        )
    held, left = np.sort(order[:n_held]), np.sort(order[n_held:])
    return _Split(train.x[left], train.y[left]), _Split(train.x[held], train.y[held])


def _frozen(source: _Source, splits: dict[str, _Split], protocol: Protocol) -> Dataset:
    digest = hashlib.sha256(protocol.encode())
    for part in ("train", "val", "test"):
        for array in splits.get(part, ()):
            array.setflags(write=False)
            digest.update(f"{part} {array.dtype.str} {array.shape} ".encode())
            digest.update(array.data)
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = splits["train"], splits["val"], splits.get("test", (None, None))
    fingerprint = digest.hexdigest()[:16]
    names = source.class_names
    return Dataset(source.name, x_train, y_train, x_val, y_val, x_test, y_test, names, protocol, fingerprint)
