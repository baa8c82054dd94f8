"""Images of a folder by class: listed, checked and ordered, without decoding an image (see `search.data.images`).

The two layouts are those of `search.data.layout`. Images may lie deeper inside their class. Names are sorted, so that the
order is the same on every machine; nothing outside the folder is read, whatever links there are. An image is known by its
suffix, or by its first bytes where it has none of these suffixes.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.data.layout import LAYOUT, WHOLE, entries, find_parts, folders_in, is_folder, same_class, shown
from search.errors import UserError, nearest

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
KINDS = "PNG, JPEG, BMP, GIF, WebP, TIFF or PPM"

_FIRST_BYTES = 12
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")  # PNG, JPEG, GIF; WebP has two parts


class Part(NamedTuple):
    """Files in the order of their classes and then of their names, and the class of each, int64 (n,)."""

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    names: tuple[str, ...]  # paths from the folder of the class on, with slashes and the class's name in the training part


@dataclass(frozen=True, eq=False)
class Folder:
    """The images of a folder, by part and class."""

    root: Path
    classes: tuple[str, ...]  # their names as shown; a label is an index into them
    parts: dict[str, Part]  # "train" with "test" or "val" or both, or WHOLE alone
    doubles: int  # links that were left out, as they are second names of images that are there
    astray: int  # links that were left out, as they lead out of the folder, or nowhere
    others: Counter[str]  # files that were left out, as they are no images, by suffix

    @property
    def remark(self) -> str:
        """Files that were left out though they might have been meant, in words; empty where there are none."""
        parts = [f"{self.astray:,} links that lead out of the folder or nowhere"] if self.astray else []
        if self.others:
            commonest = sorted(self.others, key=lambda suffix: (-self.others[suffix], suffix))[:4]
            kinds = ", ".join(shown(suffix) or "no suffix" for suffix in commonest)
            parts.append(f"{self.others.total():,} files that are no {KINDS} ({kinds})")
        return f"left out: {'; '.join(parts)}" if parts else ""


class _File(NamedTuple):
    parts: tuple[str, ...]  # of its path below its class, by which it is sorted
    path: str
    target: str  # the file itself, where the path is a link
    is_link: bool


def find(root: Path, classes: tuple[str, ...] = ()) -> Folder:
    """The images of a folder.

    Args:
        classes: take these sub-folders alone; all of them if none.

    Raises:
        UserError: the layout is neither of the two, or a class has no images.
    """
    others: Counter[str] = Counter()
    try:
        tops = find_parts(root, classes)
        for folder in {root, *(top if part == WHOLE else top.parent for part, top in tops.items())}:
            _refuse_loose_images(folder)
        taken = _united({part: _classes(folder) for part, folder in tops.items()})
        names = _names(root, taken, classes)
        images = {
            part: {name: _images(root, by_name[name], others) for name in names if name in by_name}
            for part, by_name in taken.items()
        }
    except OSError as error:
        raise UserError(
            f"{shown(error.filename or str(root))}: cannot be read ({error.strerror}); make it readable"
        ) from None
    everything = [file for by_class in images.values() for files in by_class.values() for file in files]
    known = {file.target for file in everything if not file.is_link}
    parts, doubles = {}, 0
    for part, by_class in images.items():
        paths: list[str] = []
        labels: list[int] = []
        below: list[str] = []
        for label, name in enumerate(names):
            for file in by_class.get(name, ()):
                if file.is_link and (not file.target or file.target in known):
                    doubles += bool(file.target)
                    continue
                known.add(file.target)
                paths.append(file.path)
                labels.append(label)
                below.append("/".join((name, *file.parts)))
        parts[part] = Part(tuple(paths), np.array(labels, np.int64), tuple(below))
        _check_filled(tops[part], names, parts[part], part in (WHOLE, "train"), others)
    astray = sum(not file.target for file in everything)
    return Folder(root, tuple(map(shown, names)), parts, doubles, astray, others)


def is_folder_of_images(path: Path) -> bool:
    """True if a folder holds folders or images; its layout may still be rejected."""
    try:
        return any(is_folder(entry) or _is_image(entry) for entry in entries(path))
    except OSError:
        return False


def _refuse_loose_images(root: Path) -> None:
    loose = [entry.name for entry in entries(root) if not is_folder(entry) and _is_image(entry)]
    if loose:
        lies = f"{shown(min(loose))} lies beside the folders of the classes{_more(len(loose))}"
        raise UserError(f"{root}: {lies}; move it into one of them")


def _check_filled(folder: Path, names: list[str], part: Part, is_trained_on: bool, others: Counter[str]) -> None:
    counts = np.bincount(part.labels, minlength=len(names))
    read = f"; {KINDS} files are read" if others else ""
    if is_trained_on and not counts.all():
        first = shown(names[int(np.argmin(counts))])
        raise UserError(f"{folder}: class {first!r} has no image of its own{read}; put some in, or remove its folder")
    if not counts.any():
        raise UserError(f"{folder}: holds no images{read}; put some in, or remove it")


def _classes(folder: Path) -> dict[str, Path]:
    folders = folders_in(folder)
    if not folders:
        raise UserError(f"{folder}: holds no folders of images; pass {LAYOUT}")
    return folders


def _united(taken: dict[str, dict[str, Path]]) -> dict[str, dict[str, Path]]:
    """The folders of the classes by part, under the names that the classes have in the training part.

    Names that are equal but for upper and lower case are one class, unless the training part has both.
    """
    main = taken.get("train", taken.get(WHOLE, {}))
    spellings: dict[str, list[str]] = {}
    for name in main:
        spellings.setdefault(same_class(name), []).append(name)
    united = {}
    for part, by_name in taken.items():
        names = {name: name for name in by_name}
        for name in by_name:
            like = spellings.get(same_class(name), [])
            if name not in main and len(like) == 1 and like[0] not in by_name:
                names[name] = like[0]
        united[part] = {names[name]: path for name, path in by_name.items()}
    return united


def _names(root: Path, taken: dict[str, dict[str, Path]], wanted: tuple[str, ...]) -> list[str]:
    """The classes in order: by number where all are numbers, else as text."""
    taken_names = {name for by_name in taken.values() for name in by_name}
    names = {name for name in taken_names if not wanted or shown(name) in wanted}
    if missing := [name for name in wanted if name not in set(map(shown, names))]:
        raise UserError(f"{root}: holds no class {missing[0]!r}; {nearest(missing[0], set(map(shown, taken_names)))}")
    if len(names) < 2:
        only = ", ".join(map(shown, names)) or "none"
        raise UserError(f"{root}: one class ({only}), at least 2 are needed; pass {LAYOUT}")
    numbers = all(name.isdecimal() and name.isascii() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


def _images(root: Path, folder: Path, others: Counter[str]) -> list[_File]:
    """All images below a folder, in the order of their names; counts other files in `others`, by suffix."""
    inside = os.path.realpath(root)
    real = Path(inside, folder.relative_to(root))  # no folder below the root is a link
    images: list[_File] = []
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        below = waiting.pop()
        for entry in entries(folder.joinpath(*below)):
            parts = (*below, entry.name)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(parts)
            elif entry.is_symlink():
                target = os.path.realpath(entry.path)
                is_inside = Path(target).is_relative_to(inside) and Path(target).is_file()
                if not is_inside or _is_image(entry):
                    images.append(_File(parts, entry.path, target if is_inside else "", True))
            elif entry.is_file() and _is_image(entry):
                images.append(_File(parts, entry.path, str(real.joinpath(*parts)), False))
            else:
                others[Path(entry.name).suffix.lower()] += 1
    return sorted(images)


def _is_image(entry: os.DirEntry[str]) -> bool:
    """True for a regular file with the suffix or the first bytes of an image; a link is judged by its suffix alone."""
    if entry.name.lower().endswith(SUFFIXES):
        return True
    if entry.is_symlink() or not entry.is_file():
        return False
    try:
        with Path(entry.path).open("rb") as file:
            start = file.read(_FIRST_BYTES)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def _more(count: int) -> str:
    return f" (and {count - 1:,} more)" if count > 1 else ""
