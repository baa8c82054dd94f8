"""Image files as one array: read in several threads, within the memory of this machine, and cached where that took long.

Every process of a study reads the folder, which may take minutes: so the pixels are kept in a file of the run folder and
used again as long as no file has changed.
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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, __version__

from search.data.images import DamagedImage, Options, Pixels, decode, quiet, resized
from search.data.layout import shown
from search.errors import UserError
from search.files import read_arrays, write_arrays, write_text
from search.system import cores
from search.text import format_shape

Watch = Callable[[int, int], None]  # (images read, in all)

COPIES = 3  # of all pixels that a training holds at its peak: as read, for the engine, on the device
BLOCK = 32  # files that a thread reads at a time
WORTH_KEEPING = 1.0  # seconds of reading, from which on the pixels are kept in a file
MOST_THREADS = 8

_FORM = 1  # of what a file was made into; another number makes kept pixels stale


def not_watched(done: int, total: int) -> None:
    """A watch that shows nothing."""


class ReadImages(NamedTuple):
    """Images of many files, without those that could not be decoded."""

    pixels: Pixels  # uint8 (n, height, width, channels), of the sound files in their order
    is_sound: NDArray[np.bool_]  # of every file
    damaged: tuple[str, ...]  # one line for each of the others


class _Problem(NamedTuple):
    number: int  # of the file, from 0
    text: str
    is_damaged: bool  # no image, or a damaged one; else one of another size, or one that the system does not let be read


def read_images(
    files: Sequence[str],
    options: Options,
    *,
    skip_damaged: bool = False,
    listing: Path | None = None,
    cache: Path | None = None,
    watch: Watch = not_watched,
) -> ReadImages:
    """Read images in the order of their files.

    Args:
        skip_damaged: leave out files that cannot be decoded, instead of raising an error.
        listing: a text file that names the files that cannot be used, one a line with the reason: those that are left out,
            or several that raise an error.
        cache: where the pixels are kept, if they took long to read, and read again while no file has changed.
        watch: called with the progress, a few times a second.

    Raises:
        UserError: a file is no image, is damaged or unsafe to read, the sizes differ, or the memory does not suffice.
    """
    key = _key(files, options)
    if cache is not None and (kept := _kept(cache, key)) is not None and (skip_damaged or not kept.damaged):
        return kept
    started = time.monotonic()
    with quiet():
        pixels, problems = _decoded(files, options, watch)
    fatal = [problem for problem in problems if not (skip_damaged and problem.is_damaged)]
    if listing is not None and len(problems) > (1 if fatal else 0):  # the message names a single one
        _list(listing, problems)
    if fatal or pixels is None:
        raise UserError(_summary(fatal or problems, listing))
    is_sound = np.ones(len(files), np.bool_)
    is_sound[[problem.number for problem in problems]] = False
    images = ReadImages(
        pixels if is_sound.all() else pixels[is_sound], is_sound, tuple(problem.text for problem in problems)
    )
    if cache is not None and time.monotonic() - started > WORTH_KEEPING:
        _keep(cache, key, images)
    return images


def fit_arrays(x: Pixels, options: Options) -> Pixels:
    """Images that are arrays already, uint8 (n, height, width, channels), made grey and resized as files would be.

    Raises:
        UserError: grey images were asked for, and there are neither three channels nor one.
    """
    if options.grayscale and x.shape[-1] not in (1, 3):
        raise UserError(f"data.grayscale: goes with 1 or 3 channels, and these images have {x.shape[-1]}; leave it out")
    if options.grayscale and x.shape[-1] == 3:
        x = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in x])[..., None]
    if options.size is None or options.size == x.shape[1:3]:
        return x
    check_memory(len(x), (*options.size, x.shape[-1]))
    fitted = np.empty((len(x), *options.size, x.shape[-1]), np.uint8)
    for image, into in zip(x, fitted, strict=True):
        for channel in range(x.shape[-1]):
            into[..., channel] = np.asarray(resized(Image.fromarray(image[..., channel]), options.size))
    return fitted


def check_memory(n: int, shape: tuple[int, int, int]) -> None:
    """Reject images that do not fit in this machine's memory.

    Raises:
        UserError: gives the size that would be needed, and one that fits.
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


# --- decoding --------------------------------------------------------------------------------------------------------


def _decoded(files: Sequence[str], options: Options, watch: Watch) -> tuple[Pixels | None, list[_Problem]]:
    """The pixels of all files, undefined where there is a problem, and the problems in order; None if all are damaged."""
    problems: list[_Problem] = []
    begin = 0
    shape = None
    while shape is None and begin < len(files):  # the first sound image gives the size of all
        try:
            shape = decode(files[begin], options).shape
        except UserError as error:
            problems.append(_Problem(begin, str(error), isinstance(error, DamagedImage)))
            begin += 1
    if shape is None:
        return None, problems
    check_memory(len(files), shape)
    pixels = np.empty((len(files), *shape), np.uint8)

    def read_block(start: int) -> list[_Problem]:
        wrong = []
        for index in range(start, min(start + BLOCK, len(files))):
            try:
                image = decode(files[index], options)
            except UserError as error:
                wrong.append(_Problem(index, str(error), isinstance(error, DamagedImage)))
                continue
            if image.shape == shape:
                pixels[index] = image
            else:
                wrong.append(_Problem(index, _another_size(files[index], image.shape, shape), False))
        return wrong

    pool = ThreadPoolExecutor(min(cores(), MOST_THREADS))  # the decoders release Python's lock
    try:
        waiting = [pool.submit(read_block, start) for start in range(begin, len(files), BLOCK)]
        shown_at = time.monotonic()
        for done, future in enumerate(as_completed(waiting), start=1):
            problems += future.result()
            if time.monotonic() - shown_at > 0.25:
                shown_at = time.monotonic()
                watch(min(begin + done * BLOCK, len(files)), len(files))
    finally:
        pool.shutdown(cancel_futures=True)
    return pixels, sorted(problems)


def _another_size(file: str, shape: tuple[int, ...], first: tuple[int, ...]) -> str:
    here, there = (format_shape(sides[:2]) for sides in (shape, first))
    return f"{shown(file)}: {here} pixels, where the first image has {there}; give [data] a size, such as size = 32"


def _summary(problems: Sequence[_Problem], listing: Path | None) -> str:
    """The first problem, the number of the others, and where all are listed."""
    more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
    listed = f"; all are listed in {shown(str(listing))}" if more and listing is not None and listing.is_file() else ""
    skip = "; [data] skip_damaged = true leaves damaged images out" if problems[0].is_damaged else ""
    return f"{problems[0].text}{more}{listed}{skip}"


def _list(listing: Path, problems: Sequence[_Problem]) -> None:
    with contextlib.suppress(OSError):  # a full disk, or a folder that may only be read: the message still counts them
        write_text(listing, "".join(f"{problem.text}\n" for problem in problems))


def _memory() -> int | None:
    """Bytes of memory that this machine has, None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


# --- kept pixels -----------------------------------------------------------------------------------------------------


def _key(files: Sequence[str], options: Options) -> str:
    """Digest of everything that the pixels depend on: files, their sizes and times, and options."""
    plain = {name: value for name, value in asdict(options).items() if name != "bits" or value is not None}
    digest = hashlib.sha256(json.dumps([_FORM, __version__, plain]).encode())
    for file in files:
        try:
            status = Path(file).stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
        except OSError:
            pass  # decoding reports it
        digest.update(os.fsencode(file) + b"\n")
    return digest.hexdigest()


def _keep(cache: Path, key: str, images: ReadImages) -> None:
    arrays: dict[str, NDArray[Any]] = {"key": np.frombuffer(key.encode(), np.uint8), "pixels": images.pixels}
    if images.damaged:
        texts = json.dumps(images.damaged).encode()
        arrays |= {"is_sound": images.is_sound, "damaged": np.frombuffer(texts, np.uint8)}
    with contextlib.suppress(OSError):  # a full disk, or no such folder: the files are read again then
        if shutil.disk_usage(cache.parent).free > 4 * images.pixels.nbytes:
            write_arrays(cache, arrays)


def _kept(cache: Path, key: str) -> ReadImages | None:
    if not cache.is_file():
        return None
    try:
        arrays: dict[str, NDArray[Any]] = read_arrays(cache)
        if arrays["key"].tobytes() != key.encode():
            return None
        pixels = arrays["pixels"]
        is_sound = arrays.get("is_sound", np.ones(len(pixels), np.bool_))
        damaged = json.loads(arrays["damaged"].tobytes()) if "damaged" in arrays else []
    except (UserError, KeyError, ValueError):
        return None
    return ReadImages(pixels, is_sound, tuple(damaged)) if is_sound.sum() == len(pixels) else None
