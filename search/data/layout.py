"""Layout of a folder of images: classes alone, or a training, validation and test part that each hold the classes.

The parts are known by their usual names, in any case and with the usual additions (`Training`, `test_set`, `val2017`). A
folder whose classes look like parts, without a layout that can be read, is rejected: a network would learn to classify
training against test images.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from search.errors import UserError

LAYOUT = "a folder with a sub-folder of images for each class, or with train/ and test/ (or val/) that hold such sub-folders"
WHOLE = "all"  # the one part of a folder that is not split

_NAMES = {
    "train": ("train", "training", "trn", "tr", "learn", "learning"),
    "test": ("test", "testing", "tests", "tst"),
    "val": ("val", "valid", "validation", "validate", "validating", "valida", "dev", "devel", "development"),
    "eval": ("eval", "evaluation", "evaluate"),  # the one of validation and test that has no other name
}
_PART_OF = {name: part for part, names in _NAMES.items() for name in names}
_ADDITIONS = {
    "set",
    "sets",
    "image",
    "images",
    "img",
    "imgs",
    "data",
    "dataset",
    "split",
    "part",
    "folder",
    "files",
    "pictures",
}
_ALSO_CLASSES = {"train", "valid", "dev", "tr", "learn", "eval"}  # words that name a class as well, such as a train
_SYSTEM = frozenset(
    {
        *(
            "thumbs.db",
            "ehthumbs.db",
            "ehthumbs_vista.db",
            "desktop.ini",
            "icon\r",
            "__macosx",
            "@eadir",
            "#recycle",
            "@recycle",
        ),
        *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found", "network trash folder"),
        *("temporary items", "__pycache__"),
    }
)


def part_of(name: str) -> str | None:
    """The part that a folder of this name is by custom: "train", "val", "test" or "eval"; None for any other name."""
    words = [word for word in re.split(r"[\W_\d]+", name.lower()) if word]
    words = [word for word in words if word not in _ADDITIONS] or words[:1]
    if len(words) != 1:
        return None
    return _PART_OF.get(words[0]) or _PART_OF.get(re.sub(r"(data)?(sets?|images|data)$", "", words[0]))


def same_class(name: str) -> str:
    """The form in which the names of one class are equal in all parts: `train/Cat` and `test/cat`."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder, without hidden files and files of operating systems and file managers."""
    with os.scandir(folder) as found:
        for entry in found:
            if not entry.name.startswith(".") and entry.name.lower() not in _SYSTEM:
                yield entry


def is_folder(entry: os.DirEntry[str]) -> bool:
    """True for a folder and for a link to one; a link may lead round in a circle."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def shown(name: str) -> str:
    """A file's name that can be printed and stored: bytes that are no text and unprintable characters are replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def folders_in(folder: Path) -> dict[str, Path]:
    """The folders in a folder, by name; links are left out, so that all files below are inside.

    Raises:
        UserError: one of them is a link.
    """
    linked = sorted(entry.path for entry in entries(folder) if entry.is_symlink() and is_folder(entry))
    if linked:
        raise UserError(f"{shown(linked[0])}: a link to a folder, which is not followed; put the folder itself here")
    return _real_folders(folder)


def _real_folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder that are no links, by name, in the order of their names."""
    names = sorted(entry.name for entry in entries(folder) if entry.is_dir(follow_symlinks=False))
    return {name: folder / name for name in names}


def find_parts(root: Path, classes: tuple[str, ...] = ()) -> dict[str, Path]:
    """The folders that hold the classes, by part: "train" with "test" or "val" or both, or `WHOLE` alone.

    Args:
        classes: names of classes that the user asked for; a folder whose own sub-folders are all of them is not split.

    Raises:
        UserError: the names look like parts, and no layout follows from them.
    """
    if classes and {*classes} <= {shown(name) for name in _real_folders(root)}:
        return {WHOLE: root}
    outer = _unwrapped(root)
    folders = folders_in(outer)
    named = {name: part for name in folders if (part := part_of(name)) is not None}
    parts = _assigned(outer, named)
    is_only_folder = len(folders) == 1
    if "train" not in parts or not (parts.keys() & {"test", "val"} or is_only_folder):
        _refuse_parts_as_classes(outer, folders, named)
        return {WHOLE: outer}
    if len(named) < len(folders):
        other = min(name for name in folders if name not in named)
        raise UserError(f"{outer}: {shown(other)!r} stands beside train/ and is no split that is known; move it out")
    if len(parts) == 1:
        (only,) = folders.values()
        raise UserError(f"{outer}: holds {shown(only.name)}/ alone; add test/ or val/, or pass {only} to have it split")
    return {part: _inner(folders[name]) for part, name in parts.items()}


def _assigned(root: Path, named: dict[str, str]) -> dict[str, str]:
    """The name of the folder of each part; "eval" becomes the test part, or the validation part beside a test part.

    Raises:
        UserError: two folders are the same part.
    """
    parts: dict[str, str] = {}
    for name, part in sorted(named.items()):
        meant = part if part != "eval" else "val" if "test" in named.values() else "test"
        if meant in parts:
            both = f"{shown(parts[meant])!r} and {shown(name)!r}"
            raise UserError(f"{root}: {both} are both the {meant} part by name; unite them")
        parts[meant] = name
    return parts


def _refuse_parts_as_classes(root: Path, folders: dict[str, Path], named: dict[str, str]) -> None:
    """Reject folders that would become classes though their names are those of parts.

    One word that names a class as well, such as a train among ships, is a class.

    Raises:
        UserError: names the folders.
    """
    doubtful = {name for name in named if len(named) > 1 or same_class(name) not in _ALSO_CLASSES}
    if doubtful and len(folders) > 1:
        shown_names = ", ".join(repr(shown(name)) for name in sorted(doubtful)[:3])
        raise UserError(
            f"{root}: {shown_names} would be a class by the layout and is a part by its name; put train/ and test/ (or "
            "val/) side by side with nothing else, or rename it, or list the classes in [data] classes"
        )
    for name, folder in folders.items():
        inner = {part for below in _real_folders(folder) if (part := part_of(below)) is not None}
        if "train" in inner and len(inner) > 1:
            raise UserError(
                f"{root}: {shown(name)}/ holds a training and another part of its own; put the parts above the classes, as "
                f"in train/{shown(name)} and test/{shown(name)}"
            )


def _unwrapped(root: Path) -> Path:
    """The folder itself, or the only folder in it where that holds the classes or parts, as archives unpack."""
    inner = _real_folders(root)
    if len(inner) != 1:
        return root
    (name, folder), *_ = inner.items()
    return folder if part_of(name) is None and len(_real_folders(folder)) > 1 else root


def _inner(folder: Path) -> Path:
    """The folder of a part, or the only folder in it where that has the part's name again, or none of its own."""
    inner = _real_folders(folder)
    if len(inner) != 1:
        return folder
    (name, below), *_ = inner.items()
    again = part_of(name) == part_of(folder.name) or name.lower() in _ADDITIONS
    return below if again and _real_folders(below) else folder
