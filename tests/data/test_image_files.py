"""Damaged and hostile image files, and cached pixels."""

from __future__ import annotations

import io
import os
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from search.data import images
from search.data.images import Options, decode
from search.errors import UserError
from tests.support.image_files import SOFT, opened, read, refused, saved, slow

__all__ = ["opened", "slow"]


# --- pixels that are kept --------------------------------------------------------------------------------------------


def test_pixels_are_kept_and_found_again(slow: None, opened: list[str], tmp_path: Path) -> None:
    files = [saved(tmp_path, SOFT + place, f"{place}.png") for place in range(3)]
    cache = tmp_path / "run" / "images.npz"
    read(files, Options(), cache)
    assert opened and not cache.parent.exists(), "a run folder that was renamed is not created anew"
    cache.parent.mkdir()
    first = read(files, Options(), cache)
    assert opened and cache.is_file()
    opened.clear()
    np.testing.assert_array_equal(read(files, Options(), cache), first)
    assert opened == []


def test_kept_pixels_are_in_the_order_of_the_files(slow: None, tmp_path: Path) -> None:
    """Files of one length and time."""
    files = [saved(tmp_path, SOFT + place, f"{place}.bmp") for place in range(2)]
    for file in files:
        os.utime(file, ns=(1, 1))
    for order in (files, files[::-1]):
        np.testing.assert_array_equal(read(order, Options(), tmp_path / "images.npz"), read(order, Options()))


CHANGES: dict[str, Callable[[list[str]], tuple[list[str], Options]]] = {
    "another file": lambda files: ([*files[:2], saved(Path(files[0]).parent, SOFT, "new.png")], Options()),
    "another order": lambda files: (files[::-1], Options()),
    "fewer": lambda files: (files[:2], Options()),
    "another size": lambda files: (files, Options((8, 8))),
    "grey": lambda files: (files, Options(grayscale=True)),
    "another background": lambda files: (files, Options(background="black")),
    "changed": lambda files: ([saved(Path(files[0]).parent, 255 - SOFT, "0.png"), *files[1:]], Options()),
    "touched": lambda files: (os.utime(files[1], ns=(1, 1)), (files, Options()))[1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_kept_pixels_are_those_of_the_very_files(change: str, slow: None, opened: list[str], tmp_path: Path) -> None:
    files = [saved(tmp_path, SOFT + place, f"{place}.png") for place in range(3)]
    cache = tmp_path / "images.npz"
    read(files, Options(), cache)
    files, how = CHANGES[change](files)
    opened.clear()
    found = read(files, how, cache)
    assert opened
    np.testing.assert_array_equal(found, read(files, how))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_of_pixels_is_read_anew(content: bytes | None, slow: None, tmp_path: Path) -> None:
    file, cache = saved(tmp_path, SOFT), tmp_path / "images.npz"
    read([file], Options(), cache)
    cache.write_bytes(cache.read_bytes()[:-50] if content is None else content)
    np.testing.assert_array_equal(read([file], Options(), cache), SOFT[None])
    np.testing.assert_array_equal(read([file], Options(), cache), SOFT[None])


def test_pixels_that_cannot_be_kept_are_read_all_the_same(slow: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    np.testing.assert_array_equal(read([saved(tmp_path, SOFT)], Options(), tmp_path / "file" / "images.npz"), SOFT[None])


def test_images_that_are_read_quickly_are_not_cached(tmp_path: Path) -> None:
    read([saved(tmp_path, SOFT)], Options(), tmp_path / "images.npz")
    assert not (tmp_path / "images.npz").exists()


# --- hostile files ---------------------------------------------------------------------------------------------------


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A grey PNG that declares a size, and has these compressed pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    return struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )


@pytest.mark.parametrize(
    "content", [png(10_000, 10_000), png(60_000, 60_000), png(2**31 - 1, 2**31 - 1), bmp(10_000, 9_000)]
)
def test_a_decompression_bomb_is_rejected_by_its_header(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    started = time.monotonic()
    tracemalloc.start()
    message = refused(str(tmp_path / "a.png"), Options((8, 8)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "declares more than 89,478,485 pixels, which looks like a bomb; make it smaller, or move it out" in message
    assert time.monotonic() - started < 5 and peak < 10**7
    with pytest.raises(UserError, match="bomb"):
        read([str(tmp_path / "a.png")], Options())


def test_more_compressed_pixels_than_were_declared_are_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(4, 4, zlib.compress(bytes(10**8), 9)))
    started = time.monotonic()
    try:
        assert decode(str(tmp_path / "a.png")).shape == (4, 4, 3)
    except UserError as error:
        assert "a damaged image" in str(error)
    assert time.monotonic() - started < 5


def test_text_that_unpacks_to_more_than_pillow_allows_is_rejected(tmp_path: Path) -> None:
    """For which Pillow raises a ValueError."""
    text = b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**8), 9)
    chunk = struct.pack(">I", len(text[1])) + b"".join(text) + struct.pack(">I", zlib.crc32(b"".join(text)))
    whole = png(4, 4, zlib.compress(bytes(20)))
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk + whole[33:])
    started = time.monotonic()
    assert "a damaged image (Decompressed data too large" in refused(str(tmp_path / "a.png"))
    assert time.monotonic() - started < 5


def test_a_file_beyond_all_measure_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.write(png(4, 4))
        file.truncate(images.LARGEST_FILE + 1)
    assert "268,435,457 bytes, at most 268,435,456 are read" in refused(str(tmp_path / "a.png"))


def _of(format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(SOFT).save(stream, format)
    return stream.getvalue()


NO_IMAGES: dict[str, bytes] = {
    "nothing": b"",
    "text": b"not an image",
    "a page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "ICO": _of("ICO"),
    "PostScript, which would be run": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "PDF": b"%PDF-1.4\n",
    "a pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "XPM": b"/* XPM */\nstatic char * a[] = {};\n",
}


@pytest.mark.parametrize("what", NO_IMAGES)
def test_other_files_are_rejected_whatever_their_name(what: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(NO_IMAGES[what])
    told = "cat.png: no PNG, JPEG, BMP, GIF, WebP, TIFF or PPM image, whatever its name says; convert it, or move it out"
    assert told in refused(str(tmp_path / "cat.png"))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert "cannot be read ([Errno 2] No such file" in refused(str(tmp_path / "gone.png"))


WHOLE = {format: _of(format) for format in ("PNG", "JPEG", "BMP", "GIF", "WEBP")}


@pytest.mark.parametrize("format", WHOLE)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_half_an_image_is_rejected(format: str, share: float, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(WHOLE[format][: int(share * len(WHOLE[format]))])
    message = refused(str(file))
    assert "a damaged image" in message or "no PNG" in message
    assert "replace it with an undamaged copy, or move it out" in message or "convert it" in message


@pytest.mark.parametrize("format", WHOLE)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.data())
def test_any_damage_is_an_image_or_one_line(format: str, damage: st.DataObject, tmp_path: Path) -> None:
    """No other error, and no warning either."""
    content = bytearray(WHOLE[format])
    for _ in range(damage.draw(st.integers(1, 4))):
        content[damage.draw(st.integers(0, len(content) - 1))] = damage.draw(st.integers(0, 255))
    file = tmp_path / "a.png"
    file.write_bytes(content[: damage.draw(st.integers(0, len(content)))] if damage.draw(st.booleans()) else content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert read([str(file)], Options((8, 8))).shape == (1, 8, 8, 3)
        except UserError as error:
            assert str(file) in str(error) and "\n" not in str(error) and len(str(error)) < 400
