"""Atomic writes of files: a reader, or the next start, sees a whole file or none; arrays and JSON among them."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import re
import secrets
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from search.errors import UserError

ABANDONED_SECONDS = 86_400.0  # after which another machine's draft is no longer being written

Weights = Sequence[npt.NDArray[Any]]


def write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file through `fill`: under a temporary name, synced, then renamed."""
    with replacing(path) as part, part.open("wb") as stream:
        fill(stream)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name with the same suffix, renamed to `path` if the block succeeds and removed if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = draft_of(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """A hidden name beside a file, with the same ending, that no other process or machine uses."""
    return path.with_name(f".{path.stem}.part-{_host()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


def remove_abandoned_drafts(path: Path) -> None:
    """Remove the drafts of a file that killed processes have left: of this machine, or of any after ABANDONED_SECONDS."""
    for draft in path.parent.glob(f".{glob.escape(path.stem)}.part-*-*-*{glob.escape(path.suffix)}"):
        host, process = draft.name.removeprefix(f".{path.stem}.part-").split("-")[:2]
        try:
            if host == _host() and process.isdigit():
                is_abandoned = not _is_running(int(process))
            else:
                is_abandoned = time.time() - draft.stat().st_mtime > ABANDONED_SECONDS
            if is_abandoned:
                draft.unlink(missing_ok=True)
        except OSError:
            continue  # its own process has just replaced it, or the folder is read-only


def _host() -> str:
    """A short name of this machine: process ids repeat among machines that share a folder."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def is_file(path: Path) -> bool:
    """True for a regular file; false for an impossible name, on which `Path.is_file` raises before Python 3.14."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_full(error: BaseException) -> bool:
    """True for an error of a full disk, or of a reached quota or size limit."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as an .npz."""
    named: dict[str, Any] = dict(arrays)
    write(path, lambda stream: np.savez(stream, allow_pickle=False, **named))


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read a file of `write_arrays`; nothing is unpickled.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file):  # stricter than NumPy, and it closes
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise UserError(f"{path}: weights cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, EOFError, MemoryError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        why = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: damaged, or no weights of a study ({why}); train again or take another file") from None


def write_weights(path: Path, weights: Weights) -> None:
    """Write the weights of a network, in the order of Keras' `get_weights()`, as an .npz."""
    write_arrays(path, {_key(index): array for index, array in enumerate(weights)})


def read_weights(path: Path) -> list[npt.NDArray[Any]]:
    """Read a file of `write_weights`.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    arrays = read_arrays(path)
    try:
        return [arrays[_key(index)] for index in range(len(arrays))]
    except KeyError as error:
        why = f"no {error}"
        raise UserError(f"{path}: damaged, or no weights of a study ({why}); train again or take another file") from None


def _key(index: int) -> str:
    return f"w{index:04}"


def safe_name(name: str) -> str:
    """A name that is safe as a file's and as a study's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "study"
