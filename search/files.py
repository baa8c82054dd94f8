"""Files of a run folder, each written whole or not at all: a reader, or the next start, never sees half of one."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from search.errors import UserError

Weights = Sequence[npt.NDArray[Any]]


def write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file through `fill`: under another name first, synced, then renamed."""
    with replacing(path) as part, part.open("wb") as stream:
        fill(stream)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name to write to, with the same ending; it becomes `path` where the block succeeds and vanishes where it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{os.getpid()}{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    write(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or holds something else.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__})") from None


def write_weights(path: Path, weights: Weights) -> None:
    """Write the weights of a network, in the order of Keras' `get_weights()`, as an .npz."""
    arrays: dict[str, Any] = {f"w{index:04}": array for index, array in enumerate(weights)}
    write(path, lambda stream: np.savez(stream, **arrays))


def read_weights(path: Path) -> list[npt.NDArray[Any]]:
    """Read what `write_weights` wrote; nothing is unpickled.

    Raises:
        UserError: the file is missing or torn.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name] for name in sorted(archive.files)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: the weights cannot be read ({type(error).__name__}: {error})") from None
