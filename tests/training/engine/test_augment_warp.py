"""Augmentation by warps, cutout and mixup."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.training.engine.augment import cutout, mixup, warp
from tests.support.augmentation import BELOW_ONE, Array, draws, noise, values

# --- warp ------------------------------------------------------------------------------------------------------------


def bilinear(image: Array, angle: float, zoom: tuple[float, float], move: tuple[float, float]) -> Array:
    """One image (h, w, c) by matrices and tents: angle in radians, zooms as factors, moves in pixels, each of y and x."""
    height, width, _ = image.shape
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    warped = np.empty(image.shape)
    for at in np.ndindex(height, width):
        source = np.clip(np.diag(zoom) @ turn @ (at - middle) + middle + move, 0, (height - 1, width - 1))
        rows, columns = (np.maximum(0, 1 - np.abs(source[i] - np.arange(image.shape[i]))) for i in range(2))
        warped[at] = np.einsum("y,x,yxc->c", rows, columns, image)
    return warped


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0, 180), st.integers(0, 999))
def test_a_warp_is_the_bilinear_one(height: int, width: int, shift: float, zoom: float, rotation: float, seed: int) -> None:
    images, uniform = noise((2, height, width, 2), seed) / np.float32(255), draws(2, 5, seed)
    warped = values(warp(images, shift, zoom, rotation, uniform))
    for one, image, draw in zip(warped, images, uniform, strict=True):
        angle, zoom_y, zoom_x, move_y, move_x = (2 * draw.astype(float) - 1).tolist()
        expected = bilinear(
            image,
            np.deg2rad(rotation) * angle,
            (1 + zoom * zoom_y, 1 + zoom * zoom_x),
            (shift * height * move_y, shift * width * move_x),
        )
        np.testing.assert_allclose(one, expected, atol=2e-5)


@pytest.mark.parametrize(("down", "right"), [(3, 2), (-3, 1), (0, -2), (-4, 4), (4, 0)])
def test_a_shift_by_whole_pixels_is_exact_and_beyond_the_edge_comes_the_edge(down: int, right: int) -> None:
    images = noise((3, 8, 16, 3)).astype(np.float32)
    share = np.float32([0.5, 0.5, 0.5, 0.5 + down / 8, 0.5 + right / 16])  # of a shift by up to half
    moved = values(warp(images, 0.5, 0.0, 0.0, np.tile(share, (3, 1))))
    padded = np.pad(images, ((0, 0), (8, 8), (16, 16), (0, 0)), mode="edge")
    np.testing.assert_array_equal(moved, padded[:, 8 + down : 16 + down, 16 + right : 32 + right])


def test_a_shift_goes_as_far_as_asked_either_way() -> None:
    rows, columns = np.mgrid[0:20, 0:10].astype(np.float32)
    image = np.stack([rows, columns], axis=-1)[None]
    uniform = np.float32([[0.5, 0.5, 0.5, 0, BELOW_ONE], [0.5, 0.5, 0.5, BELOW_ONE, 0]])
    moved = values(warp(np.repeat(image, 2, axis=0), 0.2, 0.0, 0.0, uniform))[:, 10, 5] - (10, 5)
    np.testing.assert_allclose(moved, [(-4, 2), (4, -2)], atol=1e-4)  # a fifth of 20 rows and of 10 columns


def test_a_zoom_keeps_the_middle_and_scales_the_way_to_it() -> None:
    rows, columns = np.mgrid[0:101, 0:51].astype(np.float32)
    image = np.stack([rows, columns], axis=-1)[None]
    uniform = np.float32([[0.5, 0, BELOW_ONE, 0.5, 0.5], [0.5, BELOW_ONE, 0, 0.5, 0.5]])
    away = values(warp(np.repeat(image, 2, axis=0), 0.0, 0.3, 0.0, uniform)) - (50, 25)
    np.testing.assert_allclose(away[:, 50, 25], 0, atol=1e-4)
    np.testing.assert_allclose(away[:, 60, 35], [(7, 13), (13, 7)], atol=1e-4)


@pytest.mark.parametrize("quarters", [1, 2])
def test_a_rotation_turns_about_the_middle(quarters: int) -> None:
    images, uniform = noise((2, 9, 9, 3)).astype(np.float32), np.full((2, 5), 0.5, np.float32)
    uniform[:, 0] = 0, BELOW_ONE
    turned = values(warp(images, 0.0, 0.0, 90.0 * quarters, uniform))
    for one, image, turn in zip(turned, images, (quarters, -quarters), strict=True):
        np.testing.assert_allclose(one, np.rot90(image, turn), atol=1e-2)


# --- cutout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8, 11, 40])
def test_a_square_around_each_pixel_is_set_to_zero(side: int) -> None:
    """Centres in every pixel of the image; the square is counted out by hand, clipped where it overlaps the border."""
    height, width = 7, 9
    centres = list(itertools.product(range(height), range(width)))
    uniform = np.float32([((y + 0.5) / height, (x + 0.5) / width) for y, x in centres])
    images = np.full((len(centres), height, width, 2), 3, np.float32)
    left_over = values(cutout(images, side, uniform))
    assert set(np.unique(left_over)) <= {0, 3}
    for one, (y, x) in zip(left_over, centres, strict=True):
        before, after = side // 2, side - side // 2
        hole = {(row, column) for row in range(y - before, y + after) for column in range(x - before, x + after)}
        assert len(hole) == side**2
        expected = [at for at in np.ndindex(height, width) if at in hole]
        for channel in range(2):
            assert [tuple(at) for at in np.argwhere(one[..., channel] == 0).tolist()] == expected


def test_cutout_centres_reach_all_corners() -> None:
    ends = np.float32(list(itertools.product((0, BELOW_ONE), repeat=2)))
    for height, width in ((1, 1), (5, 6), (32, 33)):
        hit = values(cutout(np.ones((4, height, width, 1), np.float32), 1, ends))
        corners = [tuple(np.argwhere(one[..., 0] == 0)[0]) for one in hit]
        assert corners == list(itertools.product((0, height - 1), (0, width - 1)))


# --- mixup -----------------------------------------------------------------------------------------------------------


def test_images_and_targets_are_mixed_in_the_same_share_with_the_reversed_batch() -> None:
    images = np.float32([[1, 2], [10, 20], [100, 200]]).reshape(3, 1, 2, 1)
    mixed, targets = mixup(images, np.eye(3, dtype=np.float32), np.float32(0.75))
    np.testing.assert_allclose(values(mixed).reshape(3, 2), [(25.75, 51.5), (10, 20), (75.25, 150.5)], rtol=1e-6)
    np.testing.assert_allclose(values(targets), [(0.75, 0, 0.25), (0, 1, 0), (0.25, 0, 0.75)], rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mixed_target_tells_what_its_image_is_made_of(share: float) -> None:
    """Images that are all of one colour each: target times colours is the image."""
    shades = np.random.default_rng(0).random((6, 3), dtype=np.float32)
    images = np.broadcast_to(shades[:, None, None], (6, 4, 5, 3))
    mixed, targets = (values(one) for one in mixup(images, np.eye(6, dtype=np.float32), np.float32(share)))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed, np.broadcast_to((targets @ shades)[:, None, None], mixed.shape), rtol=1e-5)
