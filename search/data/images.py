"""One image file as an array: decoded, set upright, flattened on a background, resized, made grey where asked.

Nobody vouches for the files. Only five formats are tried, whatever a name says, and what declares more pixels than Pillow's
limit for decompression bombs is refused before it is decoded. Many files, as one array, are for `search.data.loading`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from search.data.folders import KINDS, shown
from search.errors import UserError

Pixels = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
LARGEST_FILE = 256 << 20  # bytes


@dataclass(frozen=True)
class Options:
    """How images are read: with three channels, or one with `grayscale`. Array files take no background and no classes."""

    size: tuple[int, int] | None = None  # (height, width) to resize to, whatever the sides' ratio; None: as they are
    grayscale: bool = False
    background: Literal["white", "black"] = "white"  # of what is transparent
    classes: tuple[str, ...] = ()  # the sub-folders of a folder to take; all of them if none

    def describe(self) -> str:
        """How an image is to be read where the network is used, for people."""
        words = [
            "read in grey (ITU-R 601)" if self.grayscale else "read in colour",
            f"transparent pixels on {self.background}",
        ]
        if self.size:
            words.append(f"squashed to {self.size[0]}x{self.size[1]} (bilinear, antialiased)")
        return ", ".join(words)


AS_THEY_ARE = Options()


def decode(file: str, how: Options = AS_THEY_ARE) -> Pixels:
    """One image uint8 (height, width, channels), the first frame of several.

    Raises:
        UserError: it is no image, or damaged, or unsafe to read.
    """
    with sound(file), Image.open(file, formats=FORMATS) as image:
        if how.size:  # a JPEG may be decoded at a fraction of its size, still twice what is asked for
            image.draft(None, (2 * max(how.size),) * 2)
        image.load()
        return _prepared(image, how)


@contextlib.contextmanager
def sound(file: str) -> Iterator[None]:
    """What opening and decoding a file may raise, as one line that names it.

    Raises:
        UserError: it is no image, or damaged, or unsafe to read.
    """
    name = shown(file)
    try:
        if (size := Path(file).stat().st_size) > LARGEST_FILE:
            raise UserError(f"{name}: {size:,} bytes, at most {LARGEST_FILE:,} are read; make it smaller, or move it out")
        yield
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UserError(f"{name}: no {KINDS} image, whatever its name says; convert it, or move it out") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"{name}: declares more than {Image.MAX_IMAGE_PIXELS:,} pixels, which looks like a bomb; make it smaller, or "
            "move it out"
        ) from None
    except Exception as error:  # decoders raise almost anything on hostile bytes
        is_refused = isinstance(error, OSError) and error.errno is not None  # by the system, not by a decoder
        rule = "cannot be read" if is_refused else "a damaged image"
        words = shown(" ".join(str(error).split()) or type(error).__name__)[:120]
        raise UserError(f"{name}: {rule} ({words}); put a sound copy in its place, or move it out") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings on this or that oddity of a file are passed over, and that of a bomb is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _prepared(image: Image.Image, how: Options) -> Pixels:
    with contextlib.suppress(Exception):  # EXIF that cannot be read turns nothing
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits of grey
        image = Image.fromarray(((np.asarray(image).astype(np.int64).clip(0, 65_535) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, how.background)
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    image = image.convert("RGB")
    if how.grayscale:
        image = image.convert("L")
    if how.size:
        image = resized(image, how.size)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image brought to (height, width), whatever the ratio of its sides."""
    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
