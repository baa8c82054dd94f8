"""Image files as arrays: every mode and format, upright, flattened, resized; and no file can do harm.

What a picture should become is computed here with NumPy, from the pixels that it was made of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data.images import Options, decode
from search.data.loading import check_memory, fit_arrays, read_images
from search.errors import UserError
from tests.support.image_files import SOFT, opened, read, refused, saved, slow

__all__ = ["opened", "slow"]
ALPHA = np.linspace(0, 255, 24 * 30).reshape(24, 30).round().astype(np.uint8)


# --- modes and formats -----------------------------------------------------------------------------------------------


def luma(pixels: np.ndarray) -> np.ndarray:
    """ITU-R 601."""
    return pixels.astype(float) @ [0.299, 0.587, 0.114]


def over(pixels: np.ndarray, alpha: np.ndarray, ground: int) -> np.ndarray:
    share = alpha[..., None] / 255
    return pixels * share + ground * (1 - share)


def palette(picture: np.ndarray, transparent: int | None = None) -> tuple[Image.Image, np.ndarray]:
    """A picture of 16 colours, and the places of one of them."""
    made = Image.fromarray(picture).quantize(16)
    if transparent is not None:
        made.info["transparency"] = transparent
    return made, np.asarray(made)


GREY = SOFT[..., 0]
DEEP = (GREY.astype(int) * 257 + 3).clip(0, 65_535).astype(np.uint16)  # sixteen bits


PALETTE, PLACES = palette(SOFT)


COLOURS = np.asarray(PALETTE.convert("RGB"))
BITS = GREY > 128


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


PICTURES: dict[str, tuple[Callable[[Path], str], np.ndarray, int]] = {  # a file, what it holds, how far off it may be
    "RGB": (lambda tmp: saved(tmp, SOFT), SOFT, 0),
    "grey": (lambda tmp: saved(tmp, GREY), three(GREY), 0),
    "one bit": (lambda tmp: saved(tmp, Image.fromarray(BITS)), three(BITS * 255), 0),
    "sixteen bits": (lambda tmp: saved(tmp, DEEP), three(GREY), 0),
    "palette": (lambda tmp: saved(tmp, PALETTE), COLOURS, 0),
    "alpha": (lambda tmp: saved(tmp, np.dstack([SOFT, ALPHA])), over(SOFT, ALPHA, 255), 1),
    "grey and alpha": (lambda tmp: saved(tmp, np.dstack([GREY, ALPHA])), over(three(GREY), ALPHA, 255), 1),
    "a transparent colour of the palette": (
        lambda tmp: saved(tmp, PALETTE, transparency=int(PLACES[3, 3])),
        np.where((PLACES[3, 3] == PLACES)[..., None], 255, COLOURS),
        0,
    ),
    "a transparent colour": (
        lambda tmp: saved(tmp, SOFT, transparency=tuple(SOFT[5, 5].tolist())),
        np.where((SOFT[5, 5] == SOFT).all(axis=-1, keepdims=True), 255, SOFT),
        0,
    ),
    "JPEG": (lambda tmp: saved(tmp, SOFT, "a.jpg", quality=98, subsampling=0), SOFT, 8),
    "grey JPEG": (lambda tmp: saved(tmp, GREY, "a.JPEG", quality=98), three(GREY), 8),
    "CMYK JPEG": (lambda tmp: saved(tmp, Image.fromarray(SOFT).convert("CMYK"), "a.jpg", quality=98), SOFT, 12),
    "BMP": (lambda tmp: saved(tmp, SOFT, "a.bmp"), SOFT, 0),
    "GIF": (lambda tmp: saved(tmp, PALETTE, "a.gif"), COLOURS, 0),
    "the first frame of a GIF": (
        lambda tmp: saved(tmp, PALETTE, "a.gif", save_all=True, append_images=[Image.new("RGB", (30, 24))] * 3),
        COLOURS,
        0,
    ),
    "WebP": (lambda tmp: saved(tmp, SOFT, "a.webp", lossless=True), SOFT, 0),
    "WebP and alpha": (
        lambda tmp: saved(tmp, np.dstack([SOFT, ALPHA | 128]), "a.webp", lossless=True),
        over(SOFT, ALPHA | 128, 255),
        1,
    ),
    "a JPEG that is called a PNG": (
        lambda tmp: saved(tmp, SOFT, "a.png", format="JPEG", quality=98, subsampling=0),
        SOFT,
        8,
    ),
}


@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_of_any_kind_becomes_its_pixels(kind: str, grayscale: bool, tmp_path: Path) -> None:
    make, expected, off = PICTURES[kind]
    found = decode(make(tmp_path), Options(grayscale=grayscale))
    assert found.dtype == np.uint8 and found.shape == (24, 30, 1 if grayscale else 3)
    wanted = luma(expected)[..., None] if grayscale else expected
    assert np.abs(found.astype(float) - wanted).max() <= off + 0.51


def test_the_background_may_be_black(tmp_path: Path) -> None:
    found = decode(saved(tmp_path, np.dstack([SOFT, ALPHA])), Options(background="black"))
    assert np.abs(found - over(SOFT, ALPHA, 0)).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_a_camera_held_otherwise_gives_an_upright_image(orientation: int, format: str, tmp_path: Path) -> None:
    """As EXIF 2.3 has it; 9 does not exist."""
    turned = [SOFT, SOFT[:, ::-1], SOFT[::-1, ::-1], SOFT[::-1], SOFT.swapaxes(0, 1), np.rot90(SOFT, -1)]
    turned += [SOFT.swapaxes(0, 1)[::-1, ::-1], np.rot90(SOFT), SOFT]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if format == "JPEG" else {"lossless": True}
    found = decode(saved(tmp_path, SOFT, exif=exif, format=format, **options))
    assert found.shape == turned[orientation - 1].shape
    assert np.abs(found.astype(float) - turned[orientation - 1]).max() <= 8


def test_exif_that_is_damaged_turns_nothing(tmp_path: Path) -> None:
    found = decode(saved(tmp_path, SOFT, exif=b"Exif\0\0XX*\0\xff\xff\xff\xff\x01\0"))
    np.testing.assert_array_equal(found, SOFT)


# --- size ------------------------------------------------------------------------------------------------------------


def test_images_are_shrunk_with_antialiasing(tmp_path: Path) -> None:
    """A fine chequered board is grey from afar; taking every eighth pixel would leave it black or white."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = decode(saved(tmp_path, board), Options((8, 8)))
    assert found.shape == (8, 8, 3) and np.abs(found.astype(int) - 127).max() <= 2


def test_any_image_is_squashed_to_the_size_whatever_its_shape(tmp_path: Path) -> None:
    halves = np.zeros((10, 40), np.uint8)
    halves[:, 20:] = 200
    found = decode(saved(tmp_path, halves), Options((16, 12), grayscale=True))[..., 0]
    assert found.shape == (16, 12)
    assert (found[:, :5] <= 2).all() and (found[:, 7:] >= 198).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_large_image_is_the_same_from_afar_in_any_format(name: str, tmp_path: Path) -> None:
    """A JPEG is decoded at an eighth of its size: the result is that of the whole to a few grey levels."""
    large = Image.fromarray(SOFT).resize((1200, 960), Image.Resampling.BICUBIC)
    found = decode(saved(tmp_path, large, name), Options((12, 15)))
    assert np.abs(found.astype(int) - np.asarray(large.resize((15, 12), Image.Resampling.BOX))).max() <= 12


def test_a_jpeg_is_not_decoded_smaller_than_it_is_asked_for(tmp_path: Path) -> None:
    board = np.kron(np.indices((24, 24)).sum(axis=0) % 2, np.ones((8, 8))).astype(np.uint8) * 255
    found = decode(saved(tmp_path, board, "a.jpg", quality=95), Options((96, 96), grayscale=True))[..., 0]
    whole = np.asarray(Image.fromarray(board).resize((96, 96), Image.Resampling.BILINEAR))
    assert np.abs(found.astype(int) - whole).max() < 20


def test_without_a_size_all_must_have_the_same(tmp_path: Path) -> None:
    files = [saved(tmp_path, SOFT, f"{place}.png") for place in range(3)] + [saved(tmp_path, SOFT[:20], "x.png")] * 2
    assert read(files[:3], Options()).shape == (3, 24, 30, 3)
    with pytest.raises(UserError) as caught:
        read(files, Options())
    told = "x.png: 20x30 pixels, where the first image has 24x30; give [data] a size, such as size = 32 (and 1 more)"
    assert str(caught.value).endswith(told)
    assert read(files, Options((8, 8))).shape == (5, 8, 8, 3)


def test_arrays_are_made_grey_and_resized_as_files_are(tmp_path: Path) -> None:
    pictures = np.stack([SOFT, SOFT[::-1], 255 - SOFT])
    files = [saved(tmp_path, picture, f"{place}.png") for place, picture in enumerate(pictures)]
    for how in (Options(), Options((12, 9)), Options(grayscale=True), Options((40, 50), grayscale=True)):
        np.testing.assert_array_equal(fit_arrays(pictures, how), read(files, how))
    assert fit_arrays(pictures[..., :1], Options(grayscale=True)).shape == (3, 24, 30, 1)
    assert fit_arrays(np.repeat(pictures, 2, axis=-1)[..., :5], Options((8, 8))).shape == (3, 8, 8, 5)
    with pytest.raises(UserError, match="goes with 1 or 3 channels, and these images have 2"):
        fit_arrays(pictures[..., :2], Options(grayscale=True))


# --- many ------------------------------------------------------------------------------------------------------------


def test_images_come_in_the_order_of_their_files_with_word_of_how_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [saved(tmp_path, np.full((4, 4), place, np.uint8), f"{place:03}.png") for place in range(200)]
    clock = iter(range(10**6))
    monkeypatch.setattr("search.data.loading.time", type("Clock", (), {"monotonic": staticmethod(lambda: next(clock))}))
    told: list[tuple[int, int]] = []
    found = read(files[::-1], Options(grayscale=True), watch=lambda done, total: told.append((done, total)))
    assert found[:, 0, 0, 0].tolist() == list(range(199, -1, -1))
    assert told == sorted(told) and told[-1] == (200, 200) and len(told) >= 3


@pytest.mark.parametrize("first", [0, 40])
def test_all_that_is_wrong_is_counted_and_listed_and_the_first_named(first: int, tmp_path: Path) -> None:
    files = [saved(tmp_path, SOFT, f"{place:03}.png") for place in range(100)]
    for place in (99, first, 70):
        Path(files[place]).write_text("no image")
    with pytest.raises(UserError) as caught:
        read(files, Options())
    message, what = str(caught.value), "no PNG, JPEG, BMP, GIF, WebP, TIFF or PPM image, whatever its name says"
    assert message.startswith(f"{files[first]}: {what}")
    assert message.endswith("(and 2 more); [data] skip_damaged = true leaves damaged images out")
    listing = tmp_path / "run" / "damaged.txt"
    with pytest.raises(UserError, match=rf"\(and 2 more\); all are listed in {listing}; \[data\] skip_damaged = true"):
        read(files, Options(), listing=listing)
    assert [line.split(":")[0] for line in listing.read_text().splitlines()] == [files[place] for place in (first, 70, 99)]


def test_damaged_images_are_skipped_where_that_is_asked_for(slow: None, opened: list[str], tmp_path: Path) -> None:
    pictures = [SOFT + place for place in range(9)]
    files = [saved(tmp_path, picture, f"{place}.png") for place, picture in enumerate(pictures)]
    for place in (0, 5):
        Path(files[place]).write_bytes(Path(files[place]).read_bytes()[:-60])
    cache, listing = tmp_path / "run/images.npz", tmp_path / "run/damaged.txt"
    for is_cached in (False, True):
        opened.clear()
        images = read_images(files, Options(), skip_damaged=True, cache=cache, listing=listing)
        assert bool(opened) != is_cached
        np.testing.assert_array_equal(images.pixels, [pictures[place] for place in (1, 2, 3, 4, 6, 7, 8)])
        assert np.flatnonzero(~images.is_sound).tolist() == [0, 5]
        assert [line.split(": a damaged image")[0] for line in images.damaged] == [files[0], files[5]]
        assert listing.read_text().splitlines() == list(images.damaged)
    with pytest.raises(UserError, match=r"0\.png: a damaged image"):  # the kept pixels are no way round
        read(files, Options(), cache)


def test_only_damage_is_skipped(tmp_path: Path) -> None:
    """Not an image of another size, nor one that the system does not let be read: that may be another time."""
    files = [saved(tmp_path, SOFT, f"{place}.png") for place in range(3)] + [saved(tmp_path, SOFT[:20], "x.png")]
    with pytest.raises(UserError, match=r"x\.png: 20x30 pixels, where the first image has 24x30"):
        read(files, Options(), skip_damaged=True)
    with pytest.raises(UserError, match=r"gone\.png: cannot be read \(.*No such file"):
        read([*files[:3], str(tmp_path / "gone.png")], Options(), skip_damaged=True)
    for file in files[:3]:
        Path(file).write_bytes(b"")
    with pytest.raises(UserError, match=r"0\.png: no PNG.*\(and 2 more\)"):
        read(files[:3], Options(), skip_damaged=True)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_from_as_many_bits_as_are_used(bits: int, suffix: str, tmp_path: Path) -> None:
    values = np.linspace(0, 2**bits - 1, 24 * 30).round().astype(np.uint16).reshape(24, 30)
    file = saved(tmp_path, values, f"a.{suffix}")
    pixels = decode(file, Options(grayscale=True, bits=bits))[..., 0]
    np.testing.assert_array_equal(pixels, np.rint(values.astype(float) * 255 / (2**bits - 1)))
    assert decode(file, Options(grayscale=True)).max() == round(255 * (2**bits - 1) / 65_535)


def test_fractions_are_no_pixels(tmp_path: Path) -> None:
    file = saved(tmp_path, Image.fromarray(SOFT[..., 0].astype(np.float32) / 255), "a.tiff")
    assert "holds fractions and no pixels of 8 or 16 bits" in refused(file)


@pytest.mark.parametrize("memory", [3 * 100 * 24 * 30 * 3 - 1, 200_000, 100])
def test_images_beyond_the_memory_are_rejected_with_the_number_that_fits(
    memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path, SOFT)
    monkeypatch.setattr("search.data.loading._memory", lambda: memory)
    with pytest.raises(UserError) as caught:
        read([file] * 100, Options())
    message = str(caught.value)
    assert message.startswith("100 images of 24x30x3 are 0.0 GiB, which a training holds 3 times, and this machine has")
    size, share = int(message.split("such as ")[1].split(",")[0]), int(message.split("or take ")[1].split("%")[0])
    if memory > 3 * 100 * 3:
        check_memory(100, (size, size, 3))
    assert size < 24 and share == round(100 * memory / (3 * 100 * 24 * 30 * 3))
    monkeypatch.setattr("search.data.loading._memory", lambda: 3 * 100 * 24 * 30 * 3)
    assert len(read([file] * 100, Options())) == 100
