"""What a folder of images or an array file holds, as far as a study has to fit it: counts, sizes, colours, balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.data import archives, folders
from search.data.dataset import UNBALANCED, load_dataset
from search.data.folders import Folder
from search.data.images import FORMATS, decode, quiet, sound
from search.data.loading import Watch
from search.data.splits import HELD_OUT, LEAST_IN_A_PART
from search.errors import UserError

LOOKED_AT = 500  # images that are decoded for their colours, spread evenly over all
GREY = 6  # by so much the channels of a grey image may differ, out of 255: what JPEG makes of it
BRIGHT = 200  # mean of what is not transparent, out of 255, from which on white is no background for it
LARGEST_HOLDOUT = 0.5

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Seen:
    """What is there; sizes are (height, width) in pixels."""

    path: Path
    classes: tuple[str, ...]  # those that can be searched on
    counts: dict[str, tuple[int, ...]]  # images of each of them, by part: "all", or "train" with "test" or "val"
    too_few: dict[str, int]  # classes with too few images, and how many
    least: int  # images of a class that would be enough
    sizes: Counter[tuple[int, int]]
    is_grey: bool
    is_folder: bool
    channels: int
    background: Literal["white", "black"]  # that what is not transparent stands out from
    transparent: int  # images with an alpha channel
    doubles: int  # links that are second names of images
    remark: str  # on what was left out

    @property
    def images(self) -> int:
        """How many there are in the classes that can be searched on."""
        return sum(map(sum, self.counts.values()))

    @property
    def by_class(self) -> NDArray[np.int64]:
        """Images of each class in all parts."""
        return np.asarray(np.sum(list(self.counts.values()), axis=0), np.int64)

    @property
    def training_images(self) -> int:
        """How many images a training has, once a validation share is held out."""
        if folders.WHOLE in self.counts:
            return self.images - 2 * (self.images // 5)
        n = sum(self.counts["train"])
        return n - round(n * (self.holdout or 0))

    @property
    def imbalance(self) -> str | None:
        """For people, where some classes are much rarer than others: what always guessing one would give."""
        counts = self.by_class
        if counts.max() < UNBALANCED * counts.min():
            return None
        share = counts.max() / counts.sum()
        return f"always guessing {self.classes[int(counts.argmax())]} would be right for {share:.1%}"

    @property
    def holdout(self) -> float | None:
        """The share to hold out for validation, None where the parts are fixed."""
        if folders.WHOLE in self.counts or {"test", "val"} <= self.counts.keys():
            return None
        return holdout_for(min(self.counts["train"]))


def holdout_for(fewest: int) -> float:
    """A tenth, or the share by which enough of a class of `fewest` training images are held out."""
    return max(0.1, -(-105 * HELD_OUT // fewest) / 100)


def look(path: Path, watch: Watch = lambda done, total: None) -> Seen:
    """Look at the images.

    Args:
        watch: told how many images it has come to, and of how many.

    Raises:
        UserError: they cannot be read, or too few classes have enough images.
    """
    if archives.is_official(path) or not folders.is_folder_of_images(path):
        return _at_arrays(path)
    found = folders.find(path)
    least = _least(found)
    main = found.parts.get("train", found.parts.get(folders.WHOLE))
    assert main is not None  # one of them is there, by `folders.find`
    counts = np.bincount(main.labels)
    kept = np.flatnonzero(counts >= least)
    if len(kept) < 2:
        raise UserError(
            f"{path}: {len(kept)} of {len(counts)} classes have the {least} images that are needed, the largest has "
            f"{counts.max():,}; add images"
        )
    by_part = {part: np.bincount(own.labels, minlength=len(counts))[kept] for part, own in found.parts.items()}
    files = [
        file
        for own in found.parts.values()
        for file, label in zip(own.files, own.labels, strict=True)
        if counts[label] >= least
    ]
    with quiet():
        sizes, transparent = _headers(files, watch)
        is_grey, is_bright = _colours(files, transparent)
    return Seen(
        path=path,
        classes=tuple(found.classes[label] for label in kept),
        counts={part: tuple(own.tolist()) for part, own in by_part.items()},
        too_few={found.classes[label]: int(count) for label, count in enumerate(counts) if count < least},
        least=least,
        sizes=sizes,
        is_grey=is_grey,
        is_folder=True,
        channels=3,
        background="black" if is_bright else "white",
        transparent=len(transparent),
        doubles=found.doubles,
        remark=found.remark,
    )


def _least(found: Folder) -> int:
    """The fewest images of a class with which the splits can be made; in train/, where the folder is split."""
    if folders.WHOLE in found.parts:
        return 5 * LEAST_IN_A_PART
    return 1 if {"test", "val"} <= found.parts.keys() else -(-105 * HELD_OUT // int(100 * LARGEST_HOLDOUT))


def _at_arrays(path: Path) -> Seen:
    data = load_dataset(None, path, protocol="course", holdout=0.1, images=None)
    height, width, channels = data.input_shape
    parts = {"train": (data.x_train, data.y_train), "test": (data.x_val, data.y_val)}
    counts = {part: tuple(np.bincount(y, minlength=data.classes).tolist()) for part, (_, y) in parts.items()}
    least = -(-105 * HELD_OUT // int(100 * LARGEST_HOLDOUT))
    if (fewest := min(counts["train"])) < least:
        rare = data.class_names[counts["train"].index(fewest)]
        raise UserError(f"{path}: class {rare} has {fewest} training images, {least} are needed; add some, or leave it out")
    some = data.x_train[:: -(-len(data.x_train) // LOOKED_AT)]
    return Seen(
        path=path,
        classes=data.class_names,
        counts=counts,
        too_few={},
        least=least,
        sizes=Counter({(height, width): sum(len(y) for _, y in parts.values())}),
        is_grey=channels == 1 or (channels == 3 and all(map(_is_grey, some))),
        is_folder=False,
        channels=channels,
        background="white",
        transparent=0,
        doubles=0,
        remark="",
    )


def _headers(files: Sequence[str], watch: Watch) -> tuple[Counter[tuple[int, int]], set[str]]:
    """How many images there are of each size, and which have transparent pixels; what cannot be read is told by decoding."""
    sizes, transparent = Counter[tuple[int, int]](), set()
    for done, file in enumerate(files):
        if done % 500 == 0:
            watch(done, len(files))
        with sound(file), Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            turned = image.format == "JPEG" and _orientation(image) in _TURNED
            sizes[(width, height) if turned else (height, width)] += 1
            if image.has_transparency_data:
                transparent.add(file)
    return sizes, transparent


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # EXIF that cannot be read turns nothing
        return None


def _colours(files: Sequence[str], transparent: set[str]) -> tuple[bool, bool]:
    """Whether all images are grey, and whether what is not transparent in them is too bright for a white background."""
    some = [files[place] for place in range(0, len(files), -(-len(files) // LOOKED_AT))]
    is_grey, bright = True, []
    for file in some:
        is_grey = is_grey and _is_grey(decode(file))
        if file in transparent:
            with sound(file), Image.open(file, formats=FORMATS) as image:
                pixels = np.asarray(image.convert("LA"), np.float64)
            if (weight := pixels[..., 1].sum()) > 0:
                bright.append((pixels[..., 0] * pixels[..., 1]).sum() / weight)
    return is_grey, bool(bright) and float(np.mean(bright)) > BRIGHT


def _is_grey(image: NDArray[np.uint8]) -> bool:
    return int(np.ptp(image, axis=-1).max()) <= GREY


def copies(x: NDArray[np.uint8]) -> int:
    """How many of the images (n, height, width, channels) are exact copies of another."""
    flat = x.reshape(len(x), -1)
    rows = np.ascontiguousarray(flat).view(np.dtype((np.void, flat.shape[1])))
    return len(x) - len(np.unique(rows))
