"""Facts of a folder of images or an array file that a study has to fit: counts, sizes, colours, balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.data import folders
from search.data.dataset import UNBALANCED
from search.data.folders import Folder
from search.data.group_names import Suggestion, suggest_groups
from search.data.images import AS_THEY_ARE, FORMATS, DamagedImage, decode, quiet, sound
from search.data.layout import WHOLE
from search.data.loading import Watch, not_watched
from search.data.sources import Reading, is_folder_of_images, open_source
from search.data.splits import HELD_OUT, LEAST_IN_A_PART
from search.errors import UserError

LOOKED_AT = 500  # images that are decoded for their colours, spread evenly over all
GREY = 6  # by so much the channels of a grey image may differ, out of 255: what JPEG makes of it
BRIGHT = 200  # mean of what is not transparent, out of 255, from which on white is no background for it
LARGEST_HOLDOUT = 0.5
DEPTHS = (8, 10, 12, 14)  # bits that cameras and scanners store in 16-bit files

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageFacts:
    """Facts of the images; sizes are (height, width) in pixels."""

    path: Path
    classes: tuple[str, ...]  # those that can be searched on
    counts: dict[str, tuple[int, ...]]  # images of each of them, by part: "all", or "train" with "test" or "val"
    too_few: dict[str, int]  # classes with too few images, and how many
    least: int  # images of a class that would be enough
    sizes: Counter[tuple[int, int]]
    is_grey: bool
    is_folder: bool
    channels: int
    background: Literal["white", "black"]  # the one from which the opaque pixels stand out
    transparent: int  # images with an alpha channel
    doubles: int  # links that are second names of images
    bits: int | None = None  # of the values in 16-bit images, where these are fewer than 16
    suggestion: Suggestion | None = None  # groups that the names of the images suggest

    @property
    def images(self) -> int:
        """Number of images in the classes that can be searched on."""
        return sum(map(sum, self.counts.values()))

    @property
    def by_class(self) -> NDArray[np.int64]:
        """Images of each class in all parts."""
        return np.asarray(np.sum(list(self.counts.values()), axis=0), np.int64)

    @property
    def training_images(self) -> int:
        """Number of images that are trained on, once a validation share is held out."""
        if WHOLE in self.counts:
            return self.images - 2 * (self.images // 5)
        n = sum(self.counts["train"])
        return n - round(n * (self.holdout or 0))

    @property
    def imbalance(self) -> str | None:
        """The accuracy of always guessing the commonest class, in words, where some are much rarer; else None."""
        counts = self.by_class
        if counts.max() < UNBALANCED * counts.min():
            return None
        share = counts.max() / counts.sum()
        return f"always guessing {self.classes[int(counts.argmax())]} would be right for {share:.1%}"

    @property
    def is_split(self) -> bool:
        """True if the study makes a split, false if training, validation and test images are given."""
        return WHOLE in self.counts or self.holdout is not None

    @property
    def holdout(self) -> float | None:
        """The share to hold out for validation, None where the parts are fixed."""
        if WHOLE in self.counts or {"test", "val"} <= self.counts.keys():
            return None
        return holdout_for(min(self.counts["train"]))


def holdout_for(fewest: int) -> float:
    """A tenth, or the share by which enough of a class of `fewest` training images are held out."""
    return max(0.1, -(-105 * HELD_OUT // fewest) / 100)


def look(path: Path, watch: Watch = not_watched) -> ImageFacts:
    """Collect the facts; damaged images of a folder are counted in their classes and otherwise passed over.

    Args:
        watch: called with the number of images that have been looked at, and of all.

    Raises:
        UserError: they cannot be read, or too few classes have enough images.
    """
    if not is_folder_of_images(path):
        return _look_at_arrays(path)
    folder = folders.find(path)
    least = _least(folder)
    main = folder.parts.get("train", folder.parts.get(WHOLE))
    assert main is not None  # one of them is there, by `folders.find`
    counts = np.bincount(main.labels)
    large_enough = np.flatnonzero(counts >= least)
    if len(large_enough) < 2:
        raise UserError(
            f"{path}: {len(large_enough)} of {len(counts)} classes have the {least} images that are needed, the largest has "
            f"{counts.max():,}; add images"
        )
    by_part = {
        part: np.bincount(images.labels, minlength=len(counts))[large_enough] for part, images in folder.parts.items()
    }
    files = [
        file
        for images in folder.parts.values()
        for file, label in zip(images.files, images.labels, strict=True)
        if counts[label] >= least
    ]
    with quiet():
        sizes, transparent = _headers(files, watch)
        is_grey, is_bright, bits = _colours(files, transparent)
    facts = ImageFacts(
        path=path,
        classes=tuple(folder.classes[label] for label in large_enough),
        counts={part: tuple(images.tolist()) for part, images in by_part.items()},
        too_few={folder.classes[label]: int(count) for label, count in enumerate(counts) if count < least},
        least=least,
        sizes=sizes,
        is_grey=is_grey,
        is_folder=True,
        channels=3,
        background="black" if is_bright else "white",
        transparent=len(transparent),
        doubles=folder.doubles,
        bits=bits,
    )
    return replace(facts, suggestion=suggest_groups(folder, facts.classes, facts.holdout))


def _least(folder: Folder) -> int:
    """The fewest images of a class with which the splits can be made; in train/, where the folder is split."""
    if WHOLE in folder.parts:
        return 5 * LEAST_IN_A_PART
    return 1 if {"test", "val"} <= folder.parts.keys() else -(-105 * HELD_OUT // int(100 * LARGEST_HOLDOUT))


def _look_at_arrays(path: Path) -> ImageFacts:
    source = open_source(None, path, AS_THEY_ARE, Reading())
    parts = source.splits
    classes = len(source.class_names)
    x_train = parts["train"].x if source.decode is None else source.decode(parts["train"].x).pixels
    _, height, width, channels = x_train.shape
    counts = {part: tuple(np.bincount(split.y, minlength=classes).tolist()) for part, split in parts.items()}
    least = 1 if {"test", "val"} <= parts.keys() else -(-105 * HELD_OUT // int(100 * LARGEST_HOLDOUT))
    if (fewest := min(counts["train"])) < least:
        rare = source.class_names[counts["train"].index(fewest)]
        raise UserError(f"{path}: class {rare} has {fewest} training images, {least} are needed; add some, or leave it out")
    sample = x_train[:: -(-len(x_train) // LOOKED_AT)]
    return ImageFacts(
        path=path,
        classes=source.class_names,
        counts=counts,
        too_few={},
        least=least,
        sizes=Counter({(height, width): sum(len(split.y) for split in parts.values())}),
        is_grey=channels == 1 or (channels == 3 and all(map(_is_grey, sample))),
        is_folder=False,
        channels=channels,
        background="white",
        transparent=0,
        doubles=0,
    )


def _headers(files: Sequence[str], watch: Watch) -> tuple[Counter[tuple[int, int]], set[str]]:
    """The number of images of each size, and those with transparent pixels; damaged images are in neither.

    Raises:
        UserError: all are damaged.
    """
    sizes, transparent = Counter[tuple[int, int]](), set()
    problem: DamagedImage | None = None
    for done, file in enumerate(files):
        if done % 500 == 0:
            watch(done, len(files))
        try:
            with sound(file), Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                turned = image.format == "JPEG" and _orientation(image) in _TURNED
                sizes[(width, height) if turned else (height, width)] += 1
                if image.has_transparency_data:
                    transparent.add(file)
        except DamagedImage as error:
            problem = problem or error
    if problem and not sizes:
        raise UserError(f"{problem} (so are all of the {len(files):,} images)")
    return sizes, transparent


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # EXIF that cannot be read turns nothing
        return None


def _colours(files: Sequence[str], transparent: set[str]) -> tuple[bool, bool, int | None]:
    """Of a sample: True if all images are grey, True if opaque pixels are too bright for a white background, and `bits`."""
    sample = [files[index] for index in range(0, len(files), -(-len(files) // LOOKED_AT))]
    is_grey, bright, brightest = True, [], 0
    for file in sample:
        try:
            is_grey = _is_grey(decode(file)) and is_grey
        except DamagedImage:
            continue
        with sound(file), Image.open(file, formats=FORMATS) as image:
            if image.mode.startswith("I"):
                brightest = max(brightest, int(np.asarray(image).max()))
            if file in transparent:
                pixels = np.asarray(image.convert("LA"), np.float64)
                if (weight := pixels[..., 1].sum()) > 0:
                    bright.append((pixels[..., 0] * pixels[..., 1]).sum() / weight)
    bits = next((depth for depth in DEPTHS if 0 < brightest < 2**depth), None)
    return is_grey, bool(bright) and float(np.mean(bright)) > BRIGHT, bits


def _is_grey(image: NDArray[np.uint8]) -> bool:
    return int(np.ptp(image, axis=-1).max()) <= GREY
