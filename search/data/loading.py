"""Many images as one array: files read in several threads, within the memory of this machine, and kept where that took long.

A study reads its folder in every fresh process, which may take minutes: so the pixels are kept in a file of the run folder,
and found again while no file has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, __version__

from search.data.folders import shown
from search.data.images import Options, Pixels, decode, quiet, resized
from search.errors import UserError
from search.files import read_arrays, write_arrays
from search.text import format_shape

Watch = Callable[[int, int], None]  # (images read, in all)

COPIES = 3  # of all pixels that a training holds at its peak: as read, for the engine, on the device
BLOCK = 32  # files that a thread reads at a time
WORTH_KEEPING = 1.0  # seconds of reading, from which on the pixels are kept in a file

_FORM = 1  # of what a file was made into; another number makes kept pixels stale


def read(files: Sequence[str], how: Options, cache: Path | None = None, watch: Watch = lambda done, total: None) -> Pixels:
    """Images uint8 (n, height, width, channels) in the order of their files.

    Args:
        cache: where the pixels are kept, if they took long to read, and found again while no file has changed.
        watch: told how far it has come, a few times a second.

    Raises:
        UserError: a file is no image, is damaged or unsafe to read, the sizes differ, or the memory would not do.
    """
    key = _key(files, how)
    if cache is not None and (kept := _kept(cache, key)) is not None:
        return kept
    started = time.monotonic()
    with quiet():
        pixels = _decoded(files, how, watch)
    if cache is not None and time.monotonic() - started > WORTH_KEEPING:
        with contextlib.suppress(OSError):  # a full disk: they are read again then
            cache.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(cache.parent).free > 4 * pixels.nbytes:
                write_arrays(cache, {"key": np.frombuffer(key.encode(), np.uint8), "pixels": pixels})
    return pixels


def fitted(x: Pixels, how: Options) -> Pixels:
    """Images that are arrays already, uint8 (n, height, width, channels), made grey and resized as files would be.

    Raises:
        UserError: colours were asked to be made grey, and there are neither three channels nor one.
    """
    if how.grayscale and x.shape[-1] not in (1, 3):
        raise UserError(f"data.grayscale: goes with 1 or 3 channels, and these images have {x.shape[-1]}; leave it out")
    if how.grayscale and x.shape[-1] == 3:
        x = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in x])[..., None]
    if how.size is None or how.size == x.shape[1:3]:
        return x
    check_memory(len(x), (*how.size, x.shape[-1]))
    found = np.empty((len(x), *how.size, x.shape[-1]), np.uint8)
    for image, into in zip(x, found, strict=True):
        for channel in range(x.shape[-1]):
            into[..., channel] = np.asarray(resized(Image.fromarray(image[..., channel]), how.size))
    return found


def check_memory(n: int, shape: tuple[int, int, int]) -> None:
    """Refuse what this machine cannot hold.

    Raises:
        UserError: tells how much it would be, and what would do.
    """
    total, each = _memory(), int(np.prod(shape))
    if total is None or COPIES * n * each <= total:
        return
    share = total / (COPIES * n * each)
    by = format_shape(shape)
    raise UserError(
        f"{n:,} images of {by} are {n * each / 2**30:.1f} GiB, which a training holds {COPIES} times, and this machine has "
        f"{total / 2**30:.1f} GiB; give [data] a smaller size, such as {max(1, int(min(shape[:2]) * share**0.5))}, or take "
        f"{share:.0%} of the images (--images)"
    )


# --- many ------------------------------------------------------------------------------------------------------------


def _decoded(files: Sequence[str], how: Options, watch: Watch) -> Pixels:
    first = decode(files[0], how)
    check_memory(len(files), first.shape)
    pixels = np.empty((len(files), *first.shape), np.uint8)

    def block(start: int) -> list[tuple[int, str]]:
        """Read some files; what is wrong with which."""
        wrong = []
        for place in range(start, min(start + BLOCK, len(files))):
            try:
                image = decode(files[place], how)
            except UserError as error:
                wrong.append((place, str(error)))
                continue
            if image.shape == first.shape:
                pixels[place] = image
            else:
                wrong.append((place, _another_size(files[place], image.shape, first.shape)))
        return wrong

    wrong: list[tuple[int, str]] = []
    pool = ThreadPoolExecutor(_threads())  # the decoders let go of Python's lock
    try:
        waiting = [pool.submit(block, start) for start in range(0, len(files), BLOCK)]
        told = time.monotonic()
        for done, future in enumerate(as_completed(waiting), start=1):
            wrong += future.result()
            if time.monotonic() - told > 0.25:
                told = time.monotonic()
                watch(min(done * BLOCK, len(files)), len(files))
    finally:
        pool.shutdown(cancel_futures=True)
    if wrong:
        more = f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
        raise UserError(f"{min(wrong)[1]}{more}")
    return pixels


def _another_size(file: str, shape: tuple[int, ...], first: tuple[int, ...]) -> str:
    sizes = [format_shape(one[:2]) for one in (shape, first)]
    return f"{shown(file)}: {sizes[0]} pixels, where the first image has {sizes[1]}; give [data] a size, such as size = 32"


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def _memory() -> int | None:
    """Bytes of memory that this machine has, None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


# --- kept pixels -----------------------------------------------------------------------------------------------------


def _key(files: Sequence[str], how: Options) -> str:
    """Of what the pixels depend on: which files, their sizes and times, and the options."""
    digest = hashlib.sha256(json.dumps([_FORM, __version__, asdict(how)]).encode())
    for file in files:
        try:
            found = Path(file).stat()
            digest.update(f"{found.st_size} {found.st_mtime_ns} ".encode())
        except OSError:
            pass  # decoding tells of it
        digest.update(os.fsencode(file) + b"\n")
    return digest.hexdigest()


def _kept(cache: Path, key: str) -> Pixels | None:
    if not cache.is_file():
        return None
    try:
        arrays: dict[str, NDArray[Any]] = read_arrays(cache)
        return arrays["pixels"] if arrays["key"].tobytes() == key.encode() else None
    except (UserError, KeyError):
        return None
