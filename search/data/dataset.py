"""Data sets as frozen arrays with fixed splits: cifar10, cifar100, digits, or a file or folder of images.

A split is the same for every study: it depends on the labels alone, not on the study's seed, nor on the form of the file.
Under protocol "course" validation is the test split; under "holdout" a stratified share of the training images is held out,
or they fall into folds that validate in turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.data import folders
from search.data.checks import CHUNK, content_remarks
from search.data.copies import PARTS, Copies, find_copies
from search.data.folds import FoldIds, check_fold_classes, check_foldable, copies_across, fold_ids, fold_parts, joined
from search.data.group_splits import held_out_groups, holdout_size
from search.data.groups import Groups, across_parts, split_remarks
from search.data.images import AS_THEY_ARE, DamagedImage, Options, Pixels, decode
from search.data.loading import ReadImages
from search.data.sources import NAMED, Decode, Reading, Source, class_counts, is_folder_of_images, open_source
from search.data.splits import Labels, Split, held_out, reduced, three_parts
from search.errors import UserError
from search.text import format_shape

Protocol = Literal["course", "holdout"]

UNBALANCED = 3.0  # times as many training images of the commonest class as of the rarest, from which on that is reported


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
    remark: str = field(default="", repr=False)  # on how it was read and what was left out, in words
    copies: Copies = field(default_factory=Copies, repr=False)
    damaged: tuple[str, ...] = field(default=(), repr=False)  # files that were left out, one line each
    folds: int = 0  # in which the training images fall; the splits are then those of the first, see `fold`; 0 without
    fold_ids: FoldIds | None = field(default=None, repr=False)  # fold of each image of `x_train`, from 1; None without folds

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        _, height, width, channels = self.x_train.shape
        return height, width, channels

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by part."""
        splits = {"train": Split(self.x_train, self.y_train), "val": Split(self.x_val, self.y_val)}
        if self.x_test is not None and self.y_test is not None:
            splits["test"] = Split(self.x_test, self.y_test)
        return splits

    @property
    def majority(self) -> tuple[str, float]:
        """The commonest class of the validation images, and its share: the accuracy of always guessing it."""
        labels = np.concatenate([self.y_val, self.y_train]) if self.folds else self.y_val
        counts = np.bincount(labels, minlength=self.classes)
        label = int(counts.argmax())
        return self.class_names[label], float(counts[label] / len(labels))

    @property
    def validated(self) -> int:
        """Number of images on which a candidate is validated: with folds all training images, each once."""
        return len(self.y_val) + (len(self.y_train) if self.folds else 0)

    def fold(self, index: int) -> Dataset:
        """The data set that trains on all folds but one, from 0, and validates on that."""
        if self.fold_ids is None:
            raise ValueError("the data set has no folds")
        fingerprint = f"{self.fingerprint}-{index + 1}"
        if index == 0:
            return replace(self, folds=0, fold_ids=None, fingerprint=fingerprint)
        own = self.fold_ids == index
        arrays = {
            "x_train": np.concatenate([self.x_val, self.x_train[~own]]),
            "y_train": np.concatenate([self.y_val, self.y_train[~own]]),
            "x_val": self.x_train[own],
            "y_val": self.y_train[own],
        }
        for array in arrays.values():
            array.setflags(write=False)
        return replace(self, **arrays, folds=0, fold_ids=None, fingerprint=fingerprint)

    def summary(self) -> str:
        """One line in words."""
        counts = f"{len(self.y_train):,} training, {len(self.y_val):,} validation"
        if self.folds:
            counts = f"{self.validated:,} training images in {self.folds} folds that validate in turn"
        counts += "" if self.y_test is None else f", {len(self.y_test):,} test"
        protocol = "course: validation is the test split" if self.protocol == "course" else self.protocol
        name = "digits (scikit-learn's 0 to 16 scaled to 0 to 255)" if self.name == "digits" else self.name
        remarks = "".join(f"; {text}" for text in (self.imbalance(), self.remark, self.copies.describe()) if text)
        return f"{name}: {counts} images of {format_shape(self.input_shape)}, {self.classes} classes ({protocol}){remarks}"

    def imbalance(self) -> str | None:
        """One line where some classes are much rarer than others: the accuracy of always guessing the commonest."""
        counts, valid = np.bincount(self.y_train), np.bincount(self.y_val)
        if counts.max() < UNBALANCED * counts.min():
            return None
        share = valid[counts.argmax()] / valid.sum() if counts.argmax() < len(valid) else 0.0
        return (
            f"unbalanced, {counts.min():,} to {counts.max():,} training images a class: always guessing "
            f"{self.class_names[int(counts.argmax())]} would be right for {share:.2%}"
        )


def load_dataset(
    name: str | None,
    path: Path | None,
    *,
    protocol: Protocol,
    holdout: float,
    images: int | None,
    seed: int = 0,
    options: Options = AS_THEY_ARE,
    reading: Reading = Reading(),  # noqa: B008 - immutable
    drop_copies: bool = False,
    group: str | None = None,
    folds: int | None = None,
) -> Dataset:
    """Read a data set and split it.

    Args:
        name: cifar10, cifar100 or digits; with a path, what the file must hold. Without a path, Keras' cached download.
        path: a file or folder in one of the forms of `archives.ACCEPTED`.
        protocol: "course", validation is the test split; "holdout", validation is held out of the training images.
        holdout: the share held out, between 0 and 1. Sets that have validation images of their own ignore it: digits, a
            folder without splits (60, 20 and 20 %, fixed), a folder with val/ and test/, an .npz with x_val; "course"
            trains on the first two parts and validates on the last.
        images: take this many training images, stratified, and as large a share of the other splits, before any
            holdout; None takes all. Fewer images are always among those of a larger number.
        seed: of the splits, not of the study; 0 gives the splits that all studies share.
        options: how each image of a path is read.
        reading: how the files of a folder are read.
        drop_copies: leave out copies (see `search.data.copies`), after the splits are made.
        group: the pattern of the groups of images of a folder, which stay on one side of every split that is made here
            (see `search.data.groups`).
        folds: number of stratified folds of the training images, in place of a holdout and of validation images that are
            split off here (digits, a folder without splits); None for none.

    Raises:
        UserError: the data does not exist, cannot be read, is no data set, or leaves a class without images.
    """
    if protocol not in ("course", "holdout"):
        raise UserError(f"protocol must be 'course' or 'holdout', not {protocol!r}")
    if name is not None and options != AS_THEY_ARE:
        raise UserError(f"data: {name} is taken as it is; size, grayscale, background and classes go with a path alone")
    if name is not None and group is not None:
        raise UserError(f"data.group: {name} is taken as it is; leave it out, or give a path without a name")
    source = open_source(name, path, options, reading, group)
    if folds is not None:
        check_foldable(source.name, protocol, has_own_validation="val" in source.splits and not source.is_split_here)
        parts = fold_parts(
            *(source.name, source.splits, folds),
            images=images,
            seed=seed,
            groups=source.groups,
            class_names=source.class_names,
        )
        return _in_folds(source, parts, str(path or name), seed=seed, drop_copies=drop_copies)
    splits = _split(source.name, source.splits, protocol, holdout, images, seed, source.groups)
    remarks = _group_remarks(source, splits, holdout) if source.groups else []
    damaged: tuple[str, ...] = ()
    if source.decode:  # only now, so that no image is opened that is not taken
        splits, damaged = _decoded(source.decode, splits)
        _check_classes(splits, source, "is sound; put sound copies in their place, or leave the class out")
    copies, keep = find_copies(splits)
    if drop_copies and copies:
        dropped = sum(int((~mask).sum()) for mask in keep.values())
        splits = {part: Split(split.x[keep[part]], split.y[keep[part]]) for part, split in splits.items()}
        copies = replace(copies, dropped=dropped)
        _check_classes(splits, source, "is left without copies; leave the class out, or leave [data] drop_copies out")
    remarks += [f"left out: {len(damaged):,} damaged images"] if damaged else []
    remarks += content_remarks(str(path or name), splits)
    return _frozen(source, splits, protocol, "; ".join(filter(None, (source.remark, *remarks))), copies, damaged)


def _in_folds(source: Source, parts: dict[str, Split], called: str, *, seed: int, drop_copies: bool) -> Dataset:
    """The data set of these folds and test images, once decoded and without what is left out."""
    remarks, damaged = [source.groups.describe()] if source.groups else [], tuple[str, ...]()
    if source.decode:
        parts, damaged = _decoded(source.decode, parts)
    splits, ids = joined(parts)
    _check_classes(splits, source, "is sound; put sound copies in their place, or leave the class out")
    copies, keep = find_copies(splits)
    if drop_copies and copies:
        dropped = sum(int((~mask).sum()) for mask in keep.values())
        splits = {part: Split(split.x[keep[part]], split.y[keep[part]]) for part, split in splits.items()}
        ids, copies = ids[keep["train"]], replace(copies, dropped=dropped)
        _check_classes(splits, source, "is left without copies; leave the class out, or leave [data] drop_copies out")
    elif copies and (across := copies_across(splits["train"], ids)):
        remarks.append(f"{across:,} images equal one of another fold, which flatters every candidate: see drop_copies")
    train, test = splits["train"], splits["test"]
    if source.groups is None and (damaged or copies.dropped):
        ids = fold_ids(train.y, int(ids.max()) + 1, seed=seed)  # anew, as what is left out comes from single folds
    check_fold_classes(source.name, train.y, ids, source.class_names)
    own = ids == 0
    splits = {"train": Split(train.x[~own], train.y[~own]), "val": Split(train.x[own], train.y[own]), "test": test}
    remarks += [f"left out: {len(damaged):,} damaged images"] if damaged else []
    remarks += content_remarks(called, splits)
    remark = "; ".join(filter(None, (source.remark, *remarks)))
    first = _frozen(source, splits, "holdout", remark, copies, damaged)
    digest = hashlib.sha256(f"{first.fingerprint} folds ".encode() + ids[~own].tobytes())
    return replace(first, folds=int(ids.max()) + 1, fold_ids=ids[~own], fingerprint=digest.hexdigest()[:16])


def _group_remarks(source: Source, splits: Mapping[str, Split], holdout: float) -> list[str]:
    """The groups of indices of images, in words: numbers, groups in several parts, and how far a split is from the asked."""
    assert source.groups is not None
    remarks = [source.groups.describe(), across_parts({part: source.groups.ids[split.x] for part, split in splits.items()})]
    if "test" in splits and "val" not in source.splits:
        n = len(splits["train"].y) + len(splits["val"].y)
        remarks += split_remarks(splits, {"val": holdout_size(n, holdout)}, source.groups)
    return [remark for remark in remarks if remark]


def _split(
    name: str,
    whole: Mapping[str, Split],
    protocol: Protocol,
    holdout: float,
    images: int | None,
    seed: int,
    groups: Groups | None = None,
) -> dict[str, Split]:
    """The splits of a protocol: "train" and "val", and "test" under "holdout"."""
    splits = dict(whole)
    if protocol == "course" and "val" in splits:
        first, middle = splits["train"], splits.pop("val")
        splits["train"] = Split(np.concatenate([first.x, middle.x]), np.concatenate([first.y, middle.y]))
    complete = splits
    if images is not None:
        splits = reduced(name, splits, images, seed)
    if protocol == "course":
        splits["val"] = splits.pop("test")
    elif "val" not in splits and groups is not None:
        splits["train"], splits["val"] = held_out_groups(splits["train"], holdout, seed, groups)
    elif "val" not in splits:
        splits["train"], splits["val"] = held_out(
            name, splits["train"], holdout, seed, whole=complete if images is not None else None
        )
    return splits


def check_splits(name: str, protocol: Protocol, holdout: float, images: int | None, folds: int | None = None) -> None:
    """Check that a named set can be split so, by the sizes of its classes, without reading it.

    Raises:
        UserError: a class of a split would be left without images.
    """
    labels = {part: np.repeat(np.arange(len(counts)), counts) for part, counts in class_counts(name).items()}
    splits = {part: Split(np.arange(len(y)), y) for part, y in labels.items()}
    splits = splits if "test" in splits else three_parts(*splits["all"])
    if folds is None:
        _split(name, splits, protocol, holdout, images, seed=0)
        return
    check_foldable(name, protocol, has_own_validation=False)
    fold_parts(name, splits, folds, images=images, seed=0, groups=None, class_names=NAMED[name][1])


def without_copies(data: Dataset) -> Dataset:
    """The data set as `drop_copies` makes it."""
    copies, keep = find_copies(data.splits)
    splits = {part: Split(split.x[keep[part]], split.y[keep[part]]) for part, split in data.splits.items()}
    dropped = sum(int((~mask).sum()) for mask in keep.values())
    source = Source(data.name, data.class_names, splits)
    _check_classes(splits, source, "is left without copies; leave the class out")
    return _frozen(source, splits, data.protocol, data.remark, replace(copies, dropped=dropped), data.damaged)


def shape_of(
    name: str | None,
    path: str | None,
    protocol: Protocol,
    holdout: float,
    options: Options = AS_THEY_ARE,
    folds: int | None = None,
) -> tuple[tuple[int, int, int], int]:
    """((height, width, channels), classes) of a data set; a named one is known without reading it, a folder by one image.

    Raises:
        UserError: the data does not exist or cannot be read.
    """
    if name is not None:
        (height, width, channels), names = NAMED[name]
        return (height, width, channels), len(names)
    where = Path(path or "")
    if is_folder_of_images(where):
        folder = folders.find(where, options.classes)
        height, width, channels = _first_sound(next(iter(folder.parts.values())).files, options).shape
        return (height, width, channels), len(folder.classes)
    data = load_dataset(None, where, protocol=protocol, holdout=holdout, images=None, options=options, folds=folds)
    return data.input_shape, data.classes


def _first_sound(files: tuple[str, ...], options: Options) -> Pixels:
    for file in files[:-1]:
        try:
            return decode(file, options)
        except DamagedImage:
            continue
    return decode(files[-1], options)


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


def _decoded(decode: Decode, splits: Mapping[str, Split]) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Splits of images, in one piece of memory, in place of splits of files; and a line for each damaged file."""
    images: ReadImages = decode(np.concatenate([split.x for split in splits.values()]))
    opened, first, begin = {}, 0, 0
    for part, split in splits.items():
        is_sound = images.is_sound[first : first + len(split.y)]
        end = begin + int(is_sound.sum())
        opened[part] = Split(images.pixels[begin:end], split.y[is_sound])
        first, begin = first + len(split.y), end
    return opened, images.damaged


def _check_classes(splits: Mapping[str, Split], source: Source, problem: str) -> None:
    """Reject a part that lost all images, and a class that lost all training images.

    Raises:
        UserError: names the first.
    """
    for part, split in splits.items():
        counts = np.bincount(split.y, minlength=len(source.class_names))
        if part == "train" and not counts.all():
            label = source.class_names[int(np.argmin(counts))]
            raise UserError(f"{source.name}: no training image of class {label!r} {problem}")
        if not counts.any():
            raise UserError(f"{source.name}: no {PARTS[part]} image {problem}")


def _frozen(
    source: Source, splits: Mapping[str, Split], protocol: Protocol, remark: str, copies: Copies, damaged: tuple[str, ...]
) -> Dataset:
    digest = hashlib.sha256(protocol.encode())
    for part in ("train", "val", "test"):
        for array in splits.get(part, ()):
            array.setflags(write=False)
            digest.update(f"{part} {array.dtype.str} {array.shape} ".encode())
            digest.update(array.data)
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = splits["train"], splits["val"], splits.get("test", (None, None))
    return Dataset(
        name=source.name,
        x_train=x_train,
        y_train=y_train,
        x_val=x_val,
        y_val=y_val,
        x_test=x_test,
        y_test=y_test,
        class_names=source.class_names,
        protocol=protocol,
        fingerprint=digest.hexdigest()[:16],
        remark=remark,
        copies=copies,
        damaged=damaged,
    )
