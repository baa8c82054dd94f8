"""A folder of images by class: found, checked and put in order, with no image opened yet (that is for `search.data.images`).

Two layouts: a sub-folder for each class, or train/ beside test/ or val/ (or both), each with a sub-folder for each class.
Images may lie deeper inside their class. Names are sorted, so that the order is the same on every machine; hidden files and
what file managers leave behind are passed over, and nothing outside the folder is read, whatever links there are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.errors import UserError, nearest

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
KINDS = "PNG, JPEG, BMP, GIF or WebP"
LAYOUT = "a folder with a sub-folder of images for each class, or with train/ and test/ (or val/) that hold such sub-folders"
PARTS = {"train": "train", "training": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
WHOLE = "all"  # the one part of a folder that is not split

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "icon\r"})


class Part(NamedTuple):
    """Files in the order of their classes and then of their names, and the class of each, int64 (n,)."""

    files: tuple[str, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Folder:
    """What a folder holds."""

    root: Path
    classes: tuple[str, ...]  # their names as shown; their numbers are their places
    parts: dict[str, Part]  # "train" with "test" or "val" or both, or WHOLE alone
    doubles: int  # links that were left out, as they are second names of images that are there
    astray: int  # links that were left out, as they lead out of the folder, or nowhere
    others: Counter[str]  # files that were left out, as their names are no image's, by suffix

    @property
    def remark(self) -> str:
        """What was left out though it might have been meant, for people; empty where there is nothing."""
        words = [f"{self.astray:,} links that lead out of the folder or nowhere"] if self.astray else []
        if self.others:
            kinds = ", ".join(shown(suffix) or "no suffix" for suffix, _ in self.others.most_common(4))
            words.append(f"{self.others.total():,} files that are no {KINDS} by their names ({kinds})")
        return f"left out: {'; '.join(words)}" if words else ""


class _Found(NamedTuple):
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
        tops = _parts(root)
        taken = {part: _classes(folder, classes) for part, folder in tops.items()}
        names = _names(root, taken, classes)
        found = {part: {name: _images(root, path, others) for name, path in taken[part].items()} for part in taken}
    except OSError as error:
        raise UserError(
            f"{shown(error.filename or str(root))}: cannot be read ({error.strerror}); make it readable"
        ) from None
    everything = [one for by_class in found.values() for images in by_class.values() for one in images]
    known = {one.target for one in everything if not one.is_link}
    parts, doubles = {}, 0
    for part, by_class in found.items():
        files: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(names):
            for one in by_class.get(name, ()):
                if one.is_link and (not one.target or one.target in known):
                    doubles += bool(one.target)
                    continue
                known.add(one.target)
                files.append(one.path)
                labels.append(label)
        parts[part] = Part(tuple(files), np.array(labels, np.int64))
        _check_filled(tops[part], names, parts[part], part in (WHOLE, "train"), others)
    astray = sum(not one.target for one in everything)
    return Folder(root, tuple(map(shown, names)), parts, doubles, astray, others)


def is_folder_of_images(path: Path) -> bool:
    """Whether a folder holds folders or images: its layout may still be refused."""
    try:
        return any(_is_folder(entry) or entry.name.lower().endswith(SUFFIXES) for entry in _entries(path))
    except OSError:
        return False


def shown(name: str) -> str:
    """A file's name as it can be printed and stored: what is no text, or no printable character, replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def _parts(root: Path) -> dict[str, Path]:
    """The folders that hold the classes, by part."""
    loose = [entry.name for entry in _entries(root) if entry.name.lower().endswith(SUFFIXES) and not _is_folder(entry)]
    if loose:
        lies = f"{shown(min(loose))} lies beside the folders of the classes{_more(len(loose))}"
        raise UserError(f"{root}: {lies}; move it into one of them")
    folders = _folders(root)
    parts = {PARTS[name.lower()]: folder for name, folder in folders.items() if name.lower() in PARTS}
    if "train" not in parts or not (parts.keys() & {"test", "val"} or len(folders) == 1):
        return {WHOLE: root}
    if len(parts) < len(folders):
        others = sorted(name for name, folder in folders.items() if folder not in parts.values())
        raise UserError(f"{root}: {shown(others[0])!r} stands beside train/ and is no split that is known; move it out")
    if len(parts) == 1:
        raise UserError(f"{root}: holds train/ alone; add test/ or val/, or pass {parts['train']} to have it split")
    return parts


def _check_filled(folder: Path, names: list[str], part: Part, is_trained_on: bool, others: Counter[str]) -> None:
    counts = np.bincount(part.labels, minlength=len(names))
    read = f"; {KINDS} files are read" if others else ""
    if is_trained_on and not counts.all():
        first = shown(names[int(np.argmin(counts))])
        raise UserError(f"{folder}: class {first!r} has no image of its own{read}; put some in, or remove its folder")
    if not counts.any():
        raise UserError(f"{folder}: holds no images{read}; put some in, or remove it")


def _classes(folder: Path, wanted: tuple[str, ...]) -> dict[str, Path]:
    found = _folders(folder)
    if not found:
        raise UserError(f"{folder}: holds no folders of images; pass {LAYOUT}")
    return {name: path for name, path in found.items() if not wanted or shown(name) in wanted}


def _folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder, by name; none of them a link, so that all that lies below is inside."""
    found = {}
    for entry in _entries(folder):
        if _is_folder(entry):
            if entry.is_symlink():
                raise UserError(
                    f"{shown(entry.path)}: a link to a folder, which is not followed; put the folder itself here"
                )
            found[entry.name] = Path(entry.path)
    return found


def _names(root: Path, taken: dict[str, dict[str, Path]], wanted: tuple[str, ...]) -> list[str]:
    """The classes in order: by number where all are numbers, else as text."""
    names = {name for by_name in taken.values() for name in by_name}
    if missing := [name for name in wanted if name not in set(map(shown, names))]:
        there = {shown(name) for folder in _parts(root).values() for name in _folders(folder)}
        raise UserError(f"{root}: holds no class {missing[0]!r}; {nearest(missing[0], there)}")
    if len(names) < 2:
        only = ", ".join(map(shown, names)) or "none"
        raise UserError(f"{root}: one class ({only}), at least 2 are needed; pass {LAYOUT}")
    numbers = all(name.isdecimal() and name.isascii() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


def _images(root: Path, folder: Path, others: Counter[str]) -> list[_Found]:
    """All images below a folder, in the order of their names; counts what is none by its name in `others`."""
    inside = os.path.realpath(root)
    real = Path(inside, folder.relative_to(root))  # no folder below the root is a link
    found: list[_Found] = []
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        below = waiting.pop()
        for entry in _entries(folder.joinpath(*below)):
            parts = (*below, entry.name)
            is_image = entry.name.lower().endswith(SUFFIXES)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(parts)
            elif entry.is_symlink():
                target = os.path.realpath(entry.path)
                is_inside = Path(target).is_relative_to(inside) and Path(target).is_file()
                if is_image or not is_inside:
                    found.append(_Found(parts, entry.path, target if is_inside else "", True))
            elif is_image and entry.is_file():
                found.append(_Found(parts, entry.path, str(real.joinpath(*parts)), False))
            else:
                others[Path(entry.name).suffix.lower()] += 1
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()  # a link may lead round in a circle


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.lower() not in _LITTER:
                yield entry


def _more(count: int) -> str:
    return f" (and {count - 1:,} more)" if count > 1 else ""
