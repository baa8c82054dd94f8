"""One image file as an array: decoded, turned upright, put on a background, resized, converted to grey on request.

The files are not trusted. Only seven formats are tried, whatever a name says, and a file that declares more pixels than
Pillow's limit for decompression bombs is rejected before it is decoded. `search.data.loading` reads many files as one array.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from search.data.folders import KINDS
from search.data.layout import shown
from search.errors import UserError

Pixels = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
LARGEST_FILE = 256 << 20  # bytes


class DamagedImage(UserError):
    """A file that cannot be decoded on any machine: no image, a damaged one, or one that is unsafe to decode."""


@dataclass(frozen=True)
class Options:
    """Options of reading images: with three channels, or one with `grayscale`.

    `background`, `classes` and `bits` are for folders of images, not for array files.
    """

    size: tuple[int, int] | None = None  # (height, width) to resize to, whatever the sides' ratio; None: as they are
    grayscale: bool = False
    background: Literal["white", "black"] = "white"  # of what is transparent
    classes: tuple[str, ...] = ()  # the sub-folders of a folder to take; all of them if none
    bits: int | None = None  # of the values in 16-bit grey images, such as 12; None: all 16

    def describe(self) -> str:
        """The reading of an image, in words, for use of the network elsewhere."""
        parts = [
            "read in grey (ITU-R 601)" if self.grayscale else "read in colour",
            f"transparent pixels on {self.background}",
        ]
        if self.size:
            parts.append(f"squashed to {self.size[0]}x{self.size[1]} (bilinear, antialiased)")
        if self.bits:
            parts.append(f"16-bit grey scaled from 0 to {2**self.bits - 1:,}")
        return ", ".join(parts)


AS_THEY_ARE = Options()


def decode(file: str, options: Options = AS_THEY_ARE) -> Pixels:
    """One image uint8 (height, width, channels), the first frame of several.

    Raises:
        DamagedImage: it is no image, or damaged, or unsafe to decode.
        UserError: the system does not let it be read.
    """
    with sound(file), Image.open(file, formats=FORMATS) as image:
        if options.size:  # a JPEG may be decoded at a fraction of its size, still twice what is asked for
            image.draft(None, (2 * max(options.size),) * 2)
        image.load()
        return _prepared(shown(file), image, options)


@contextlib.contextmanager
def sound(file: str) -> Iterator[None]:
    """Convert the exceptions of opening and decoding a file into one line that names it.

    Raises:
        DamagedImage: it is no image, or damaged, or unsafe to decode.
        UserError: the system does not let it be read.
    """
    name = shown(file)
    try:
        if (size := Path(file).stat().st_size) > LARGEST_FILE:
            raise DamagedImage(f"{name}: {size:,} bytes, at most {LARGEST_FILE:,} are read; make it smaller, or move it out")
        yield
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DamagedImage(f"{name}: no {KINDS} image, whatever its name says; convert it, or move it out") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DamagedImage(
            f"{name}: declares more than {Image.MAX_IMAGE_PIXELS:,} pixels, which looks like a bomb; make it smaller, or "
            "move it out"
        ) from None
    except Exception as error:  # decoders raise almost anything on hostile bytes
        is_refused = isinstance(error, OSError) and error.errno is not None  # by the system, not by a decoder
        problem = shown(" ".join(str(error).split()) or type(error).__name__)[:120]
        if is_refused:
            raise UserError(
                f"{name}: cannot be read ({problem}); replace it with an undamaged copy, or move it out"
            ) from None
        raise DamagedImage(
            f"{name}: a damaged image ({problem}); replace it with an undamaged copy, or move it out"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings on oddities of a file, and turn that of a decompression bomb into an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _prepared(name: str, image: Image.Image, options: Options) -> Pixels:
    with contextlib.suppress(Exception):  # EXIF that cannot be read turns nothing
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise DamagedImage(f"{name}: holds fractions and no pixels of 8 or 16 bits; save it as 8-bit, or move it out")
    if image.mode.startswith("I"):  # 16 bits of grey
        image = Image.fromarray(_eight_bits(np.asarray(image), options.bits or 16))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, options.background)
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    image = image.convert("RGB")
    if options.grayscale:
        image = image.convert("L")
    if options.size:
        image = resized(image, options.size)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _eight_bits(values: NDArray[np.integer[Any]], bits: int) -> Pixels:
    """Values 0 to 2 ** bits - 1 scaled to 0 to 255 and rounded; larger ones are clipped."""
    most = 2**bits - 1
    scaled: Pixels = ((values.astype(np.int64).clip(0, most) * 255 + most // 2) // most).astype(np.uint8)
    return scaled


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image brought to (height, width), whatever the ratio of its sides."""
    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
