"""Flips, crops and warps of image batches, against what can be said of them without their own arithmetic."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.augment import augment, crop, flip, warp
from search.recipe import Augment
from search.seeds import generator

Images = npt.NDArray[np.uint8]
Vary = Callable[[Images, np.random.Generator], Images]

WAYS: dict[str, Vary] = {
    "flip": flip,
    "crop": lambda images, random: crop(images, 2, random),
    "crop wider than the image": lambda images, random: crop(images, 64, random),
    "shift": lambda images, random: warp(images, 0.3, 0.0, 0.0, random),
    "zoom": lambda images, random: warp(images, 0.0, 0.9, 0.0, random),
    "rotation": lambda images, random: warp(images, 0.0, 0.0, 180.0, random),
    "all": lambda images, random: augment(images, Augment(flip=True, crop=3, shift=0.2, zoom=0.2, rotation=20.0), random),
}
SHAPES = [(40, 8, 8, 1), (9, 6, 11, 3), (1, 5, 4, 2), (3, 1, 1, 1), (4, 1, 7, 1)]

each_way = pytest.mark.parametrize("way", WAYS)


def noise(shape: tuple[int, ...], seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pixels(image: Images) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in image.reshape(-1, image.shape[-1]).tolist()}


@each_way
@pytest.mark.parametrize("shape", SHAPES)
def test_every_value_comes_from_its_own_image(way: str, shape: tuple[int, ...]) -> None:
    images = noise(shape)
    before = images.copy()
    varied = WAYS[way](images, generator(0, "augment"))
    assert (varied.shape, varied.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(images, before)
    for one, source in zip(varied, images, strict=True):
        assert pixels(one) <= pixels(source)  # whole pixels: channels stay together


@each_way
def test_the_generator_decides(way: str) -> None:
    images = noise((40, 8, 8, 1))
    first, again, other = (WAYS[way](images, generator(seed, "augment")) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@each_way
def test_images_are_varied_each_on_its_own(way: str) -> None:
    """A batch of copies of one image does not stay one of copies."""
    batch = np.repeat(noise((1, 8, 8, 3)), 64, axis=0)
    assert len({one.tobytes() for one in WAYS[way](batch, generator(0, "augment"))}) > 1


@each_way
def test_read_only_images_will_do(way: str) -> None:
    images = noise((4, 8, 8, 1))
    images.setflags(write=False)
    WAYS[way](images, generator(0, "augment"))


def test_no_strength_is_identity() -> None:
    images, random = noise((7, 9, 8, 3)), generator(0, "augment")
    np.testing.assert_array_equal(augment(images, Augment(), random), images)
    np.testing.assert_array_equal(crop(images, 0, random), images)
    np.testing.assert_array_equal(warp(images, 0.0, 0.0, 0.0, random), images)
    assert random.integers(2**62) != generator(0, "augment").integers(2**62)  # crop and warp were really called


def test_no_strength_takes_no_random_numbers() -> None:
    random = generator(0, "augment")
    augment(noise((7, 9, 8, 3)), Augment(), random)
    assert random.integers(2**62) == generator(0, "augment").integers(2**62)


def test_half_of_the_images_are_mirrored_and_nothing_else_happens_to_them() -> None:
    images = noise((2000, 3, 4, 1))
    flipped = flip(images, generator(0, "augment"))
    mirrored = [np.array_equal(one, source[:, ::-1]) for one, source in zip(flipped, images, strict=True)]
    kept = [np.array_equal(one, source) for one, source in zip(flipped, images, strict=True)]
    assert all(was or is_same for was, is_same in zip(mirrored, kept, strict=True))
    assert abs(sum(mirrored) - 1000) < 4 * np.sqrt(500)  # four standard deviations of a binomial


def test_crop_offsets_are_uniform_over_the_whole_range() -> None:
    """The first pixel of an image whose values are its places tells the offset."""
    border, height, width, count = 2, 8, 9, 10_000
    place = np.arange(height * width, dtype=np.uint8).reshape(1, height, width, 1)
    cut = crop(np.repeat(place, count, axis=0), border, generator(0, "augment"))[:, border, border, 0].astype(int)
    seen = Counter((int(at // width) - border, int(at % width) - border) for at in cut)
    # A window whose offset is (top, left) has the original's pixel (top, left) at (border, border).
    offsets = list(itertools.product(range(-border, border + 1), repeat=2))
    assert set(seen) == set(offsets)
    expected = count / len(offsets)
    assert sum((seen[one] - expected) ** 2 / expected for one in offsets) < 51.2  # chi-square, 24 degrees, p = 0.001


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.integers(0, 999))
def test_a_crop_is_a_window_of_the_reflected_image(height: int, width: int, border: int, seed: int) -> None:
    image = noise((1, height, width, 2), seed)
    cut = crop(image, border, generator(seed, "augment"))[0]
    windows = itertools.product(range(-border, border + 1), repeat=2)

    def mirror(at: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.intp]:
        if size == 1:
            return np.zeros_like(at)
        wave = np.abs(at) % (2 * (size - 1))
        return np.minimum(wave, 2 * (size - 1) - wave)

    assert any(
        np.array_equal(cut, image[0][mirror(np.arange(height) + top, height)][:, mirror(np.arange(width) + left, width)])
        for top, left in windows
    )


def test_a_shift_moves_whole_rows_and_columns_and_no_further_than_asked() -> None:
    rows, columns = np.mgrid[0:20, 0:10].astype(np.uint8)
    image = np.stack([rows, columns], axis=-1)[None]
    moved = warp(np.repeat(image, 500, axis=0), 0.2, 0.0, 0.0, generator(0, "augment"))[:, 10, 5].astype(int) - (10, 5)
    assert (np.abs(moved) <= (4, 2)).all()  # a fifth of 20 rows and of 10 columns
    assert (moved.min(axis=0) < 0).all()
    assert (moved.max(axis=0) > 0).all()
    assert np.abs(moved[:, 0]).max() >= 3


def test_beyond_the_edge_comes_the_edge() -> None:
    image = np.repeat(noise((1, 1, 10, 1)), 10, axis=1)  # columns
    for one in warp(np.repeat(image, 50, axis=0), 0.5, 0.0, 0.0, generator(0, "augment")):
        columns = one[0, :, 0].tolist()
        source = image[0, 0, :, 0].tolist()
        padded = [source[0]] * 5 + source + [source[-1]] * 5
        assert any(columns == padded[start : start + 10] for start in range(11))


def test_a_zoom_keeps_the_middle_and_scales_the_way_to_it() -> None:
    rows = np.arange(101, dtype=np.uint8)[None, :, None, None] * np.ones((1, 1, 3, 1), np.uint8)
    scales = []
    for one in warp(np.repeat(rows, 200, axis=0), 0.0, 0.3, 0.0, generator(0, "augment")).astype(int):
        away = one[:, 1, 0] - 50
        assert away[50] == 0
        scales.append((away[70] - away[30]) / 40)
    assert 0.69 < min(scales) < 0.75 < 1.25 < max(scales) < 1.31


@pytest.mark.parametrize("quarters", [1, 2])
def test_a_rotation_turns_about_the_middle(quarters: int) -> None:
    """With angles forced to an exact quarter turn or two, numpy's own rotation must come out, one way round or the other."""

    class Always(np.random.Generator):
        def uniform(self, low: object, high: object, size: object = None) -> npt.NDArray[np.float64]:  # type: ignore[override]
            return np.full(size, high)  # type: ignore[call-overload,no-any-return]

    images = noise((2, 9, 9, 3))
    turned = warp(images, 0.0, 0.0, 90.0 * quarters, Always(np.random.PCG64(0)))
    expected = [np.rot90(images, turn * quarters, axes=(1, 2)) for turn in (1, -1)]
    assert any(np.array_equal(turned, one) for one in expected)
