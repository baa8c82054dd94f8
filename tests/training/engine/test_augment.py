"""Flips, crops, warps, cutout and mixup as tensors, against what can be said of them without their own arithmetic."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from search.data.preprocessing import Pixels
from search.training.engine.augment import DRAWS, augment, crop, cutout, flip, mixup, normalize, warp
from search.training.recipe import Augment
from tests.support.augmentation import BELOW_ONE, Array, draws, noise, values

Vary = Callable[[Array, Array, Array], Array]
EVERYTHING = Augment(flip=True, crop=3, shift=0.2, zoom=0.2, rotation=20.0, cutout=3)
COLOURS = Pixels((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
SHAPES = [(40, 8, 8, 1), (9, 6, 11, 3), (1, 5, 4, 2), (3, 1, 1, 1), (4, 1, 7, 1)]


# name: images uint8, flipped, uniform (n, DRAWS) to images
MOVES: dict[str, Vary] = {
    "flip": lambda images, flipped, uniform: values(flip(images, flipped)),
    "crop": lambda images, flipped, uniform: values(crop(images, 2, uniform[:, :2])),
    "crop wider than the image": lambda images, flipped, uniform: values(crop(images, 64, uniform[:, :2])),
}


WARPS: dict[str, Vary] = {
    "shift": lambda images, flipped, uniform: values(warp(images.astype(np.float32), 0.3, 0.0, 0.0, uniform[:, 2:7])),
    "zoom": lambda images, flipped, uniform: values(warp(images.astype(np.float32), 0.0, 0.9, 0.0, uniform[:, 2:7])),
    "rotation": lambda images, flipped, uniform: values(warp(images.astype(np.float32), 0.0, 0.0, 180.0, uniform[:, 2:7])),
}


OTHERS: dict[str, Vary] = {
    "cutout": lambda images, flipped, uniform: values(cutout(images.astype(np.float32), 3, uniform[:, 7:])),
    "all": lambda images, flipped, uniform: values(augment(images, flipped, uniform, EVERYTHING, Pixels())),
}


WAYS = MOVES | WARPS | OTHERS


each_way = pytest.mark.parametrize("way", WAYS)


def half(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(count) < 0.5


def colours(image: Array) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in image.reshape(-1, image.shape[-1]).tolist()}


# --- every way -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", MOVES)
@pytest.mark.parametrize("shape", SHAPES)
def test_moved_pixels_come_whole_from_their_own_image(way: str, shape: tuple[int, ...]) -> None:
    images = noise(shape)
    varied = MOVES[way](images, half(len(images)), draws(len(images)))
    assert (varied.shape, varied.dtype) == (images.shape, np.uint8)
    for one, source in zip(varied, images, strict=True):
        assert colours(one) <= colours(source)


@pytest.mark.parametrize("way", WARPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_interpolated_values_lie_within_their_own_image_and_channel(way: str, shape: tuple[int, ...]) -> None:
    count, channels = shape[0], shape[-1]
    level = (np.arange(count * channels) * 200 // (count * channels)).reshape(count, 1, 1, channels)
    images = (level + noise(shape) % 2).astype(np.uint8)
    varied = WARPS[way](images, half(count), draws(count))
    assert (varied.shape, varied.dtype) == (images.shape, np.float32)
    assert (varied >= images.min(axis=(1, 2), keepdims=True) - 1e-3).all()
    assert (varied <= images.max(axis=(1, 2), keepdims=True) + 1e-3).all()


@each_way
@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_are_left_as_they_were(way: str, shape: tuple[int, ...]) -> None:
    inputs = noise(shape), half(shape[0]), draws(shape[0])
    before = [one.copy() for one in inputs]
    for one in inputs:
        one.setflags(write=False)
    assert WAYS[way](*inputs).shape == shape
    for one, was in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(one, was)


@each_way
def test_images_are_varied_each_on_its_own(way: str) -> None:
    """A batch of copies of one image does not stay one of copies, and an image's neighbours do not matter to it."""
    batch, flipped, uniform = np.repeat(noise((1, 8, 8, 3)), 64, axis=0), half(64), draws(64)
    varied = WAYS[way](batch, flipped, uniform)
    assert len({one.tobytes() for one in varied}) > 1
    np.testing.assert_allclose(WAYS[way](batch[9:10], flipped[9:10], uniform[9:10])[0], varied[9], rtol=1e-6)


def test_no_strength_is_identity() -> None:
    images = noise((7, 9, 8, 3))
    uniform, floats = draws(7), images.astype(np.float32)
    np.testing.assert_array_equal(values(flip(images, np.zeros(7, bool))), images)
    np.testing.assert_array_equal(values(crop(images, 0, uniform[:, :2])), images)
    np.testing.assert_array_equal(values(warp(floats, 0.0, 0.0, 0.0, uniform[:, 2:7])), floats)
    np.testing.assert_array_equal(values(cutout(floats, 0, uniform[:, 7:])), floats)
    np.testing.assert_array_equal(values(augment(images, ~half(7), uniform, Augment(), Pixels())), Pixels().apply(images))


# --- normalize, flip -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [Pixels(), COLOURS, Pixels((0.1,), (3.0,))])
def test_normalized_as_pixels_says(pixels: Pixels) -> None:
    images = np.repeat(np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1), len(pixels.mean) or 3, axis=-1)
    normalized = values(normalize(images, pixels))
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, pixels.apply(images), rtol=1e-6)


def test_the_chosen_images_are_mirrored_left_for_right() -> None:
    images, chosen = noise((50, 3, 4, 2)), half(50)
    flipped = values(flip(images, chosen))
    np.testing.assert_array_equal(flipped[chosen], images[chosen][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~chosen], images[~chosen])


# --- crop ------------------------------------------------------------------------------------------------------------


def test_crop_offsets_are_equally_likely() -> None:
    """Evenly spaced draws give each offset as often; the first pixel of a window whose values are places tells which."""
    border, height, width = 2, 8, 9
    even = (np.arange(50, dtype=np.float32) + 0.5) / 50
    uniform = np.array(list(itertools.product(even, even)), np.float32)
    place = np.arange(height * width, dtype=np.uint8).reshape(1, height, width, 1)
    cut = values(crop(np.repeat(place, len(uniform), axis=0), border, uniform))[:, border, border, 0].astype(int)
    # A window whose offset is (top, left) has the original's pixel (top, left) at (border, border).
    seen = Counter((int(at // width), int(at % width)) for at in cut)
    assert seen == dict.fromkeys(itertools.product(range(2 * border + 1), repeat=2), 100)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40), st.data())
def test_a_crop_is_a_window_of_the_reflected_image(height: int, width: int, border: int, data: st.DataObject) -> None:
    """Every offset down, beside one across: top from the first column, left from the second."""
    tops = np.arange(2 * border + 1)
    left = data.draw(st.sampled_from(tops.tolist()))
    image = noise((1, height, width, 2), border)
    padded = np.pad(image[0], ((border, border), (border, border), (0, 0)), mode="reflect")
    uniform = (np.stack([tops, np.full_like(tops, left)], axis=1) + 0.5) / len(tops)
    cut = values(crop(np.repeat(image, len(tops), axis=0), border, uniform.astype(np.float32)))
    for one, top in zip(cut, tops, strict=True):
        np.testing.assert_array_equal(one, padded[top : top + height, left : left + width])


@pytest.mark.parametrize("border", [1, 4, 32, 63, 64])
def test_the_ends_of_the_draw_are_the_first_and_the_last_offset(border: int) -> None:
    image = noise((1, 70, 66, 1))
    padded = np.pad(image[0], ((border, border), (border, border), (0, 0)), mode="reflect")
    first, last = values(crop(np.repeat(image, 2, axis=0), border, np.float32([[0, 0], [BELOW_ONE, BELOW_ONE]])))
    np.testing.assert_array_equal(first, padded[:70, :66])
    np.testing.assert_array_equal(last, padded[-70:, -66:])


# --- all of it -------------------------------------------------------------------------------------------------------


USES: dict[str, tuple[Augment, set[int]]] = {
    "flip": (Augment(flip=True), set()),
    "crop": (Augment(crop=4), {0, 1}),
    "rotation": (Augment(rotation=30.0), {2}),
    "zoom": (Augment(zoom=0.3), {3, 4}),
    "shift": (Augment(shift=0.3), {5, 6}),
    "cutout": (Augment(cutout=3), {7, 8}),
    "mixup": (Augment(mixup=0.2), set()),
    "all": (EVERYTHING, set(range(DRAWS))),
}


@pytest.mark.parametrize("use", USES)
def test_each_use_has_its_columns_whatever_else_is_on(use: str) -> None:
    how, columns = USES[use]
    images, flipped, uniform = noise((6, 9, 8, 3)), half(6), np.full((6, DRAWS), 0.2, np.float32)
    varied = values(augment(images, flipped, uniform, how, COLOURS))
    for column in range(DRAWS):
        other = uniform.copy()
        other[:, column] = 0.9
        same = np.array_equal(values(augment(images, flipped, other, how, COLOURS)), varied)
        assert same == (column not in columns), f"column {column}"


@pytest.mark.parametrize("turn", [True, "alternating", False])
def test_all_is_each_in_its_turn(turn: Any) -> None:
    images, flipped, uniform = noise((20, 8, 9, 3)), half(20), draws(20)
    how = Augment(flip=turn, crop=3, shift=0.2, zoom=0.1, rotation=20.0, cutout=4, mixup=0.2)
    mirrored = np.where(flipped[:, None, None, None], images[:, :, ::-1], images) if turn else images
    floats = COLOURS.apply(values(crop(mirrored, 3, uniform[:, :2])))
    expected = values(cutout(values(warp(floats, 0.2, 0.1, 20.0, uniform[:, 2:7])), 4, uniform[:, 7:]))
    varied = values(augment(images, flipped, uniform, how, COLOURS))
    assert varied.dtype == np.float32
    np.testing.assert_allclose(varied, expected, atol=2e-5)


def test_only_what_is_asked_for_is_done() -> None:
    images, flipped, uniform = noise((20, 8, 9, 3)), half(20), draws(20)
    for how in (Augment(), Augment(passes=3), Augment(mixup=0.2)):
        np.testing.assert_allclose(values(augment(images, flipped, uniform, how, COLOURS)), COLOURS.apply(images), rtol=1e-6)
    mirrored = values(augment(images, flipped, uniform, Augment(flip="alternating"), COLOURS))
    np.testing.assert_allclose(mirrored, COLOURS.apply(values(flip(images, flipped))), rtol=1e-6)


# --- compiled --------------------------------------------------------------------------------------------------------


def everything(images: Any, flipped: Any, uniform: Any, share: Any) -> dict[str, Any]:
    """Each function of the module on the same batch, by name."""
    floats = normalize(images, Pixels())
    targets = ops.one_hot(ops.arange(ops.shape(images)[0]) % 5, 5)
    mixed, mixed_targets = mixup(floats, targets, share)
    return {
        "normalize": normalize(images, COLOURS),
        "flip": flip(images, flipped),
        "crop": crop(images, 2, uniform[:, :2]),
        "wide crop": crop(images, 40, uniform[:, :2]),
        "warp": warp(floats, 0.2, 0.1, 20.0, uniform[:, 2:7]),
        "cutout": cutout(floats, 3, uniform[:, 7:]),
        "mixup": mixed,
        "mixup targets": mixed_targets,
        "augment": augment(images, flipped, uniform, EVERYTHING, Pixels()),
    }


def test_a_compiled_step_takes_batches_of_any_size() -> None:
    import tensorflow as tf

    inputs = ((None, 8, 9, 3), "uint8"), ((None,), "bool"), ((None, DRAWS), "float32"), ((), "float32")
    signature = [tf.TensorSpec(*one) for one in inputs]
    compiled = tf.function(everything, input_signature=signature, autograph=False).get_concrete_function()
    for count in (1, 5, 8):
        batch = noise((count, 8, 9, 3)), half(count), draws(count), np.float32(0.7)
        results = compiled(*(tf.constant(one) for one in batch))
        for name, expected in everything(*batch).items():
            assert results[name].shape[1:] == expected.shape[1:], name
            np.testing.assert_allclose(values(results[name]), values(expected), atol=1e-5, err_msg=name)


@pytest.mark.long
def test_jax_computes_the_same(tmp_path: Path) -> None:
    """The same functions under jax.jit in a process of their own, which never loads TensorFlow."""
    root = Path(__file__).parents[3]
    inputs = {"images": noise((12, 8, 9, 3)), "flipped": half(12), "uniform": draws(12), "share": np.float32(0.7)}
    np.savez(tmp_path / "inputs.npz", **inputs)
    script = """
import sys
import jax, numpy as np
from tests.training.engine.test_augment import everything
with np.load("inputs.npz") as inputs:
    results = jax.jit(everything)(**inputs)
np.savez("results.npz", **{name: np.asarray(value) for name, value in results.items()})
assert all(isinstance(value, jax.Array) for value in results.values())
assert "tensorflow" not in sys.modules, "TensorFlow was loaded"
"""
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(root),
    }
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results.npz") as results:
        for name, expected in everything(**inputs).items():
            assert results[name].dtype == values(expected).dtype, name
            np.testing.assert_allclose(results[name], values(expected), rtol=0, atol=1e-5, err_msg=name)
