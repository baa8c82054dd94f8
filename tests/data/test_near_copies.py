"""Near copies: found where they were made, none among images that only resemble each other, and in bounded time."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from search.data.near_copies import count_near_copies, describe_near_copies
from search.data.splits import Split
from tests.data.test_folders import X, Y


def photographs(n: int, size: tuple[int, int] = (24, 24), seed: int = 0) -> np.ndarray:
    """Soft colours in a size (height, width)."""
    random = np.random.default_rng(seed)
    tiny = random.integers(0, 256, (n, 5, 5, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)) for image in tiny])


def split(x: np.ndarray) -> Split:
    return Split(x, np.zeros(len(x), np.int64))


@pytest.mark.parametrize("size", [(24, 24), (17, 30), (50, 41)])
def test_noise_and_brightness_make_near_copies(size: tuple[int, int]) -> None:
    train, others = photographs(300, size), photographs(100, size, 1)
    noise = np.random.default_rng(2).integers(-8, 9, train[:40].shape)
    changed = (train[:40] * 0.8 + 20 + noise).clip(0, 255).astype(np.uint8)
    parts = {"train": split(train), "val": split(others), "test": split(np.concatenate([changed, others[:7]]))}
    counts = count_near_copies(parts)
    assert counts == {("train", "test"): 40, ("val", "test"): 7}
    assert (
        describe_near_copies(counts)
        == "near copies: 40 test images of a training image, 7 test images of a validation image"
    )


def test_other_images_are_no_near_copies() -> None:
    """Photographs of a kind, blank images, and small digits of one class, which resemble each other."""
    blank = np.full((50, 24, 24, 3), 255, np.uint8)
    assert count_near_copies({"train": split(photographs(500)), "test": split(photographs(500, seed=1))}) == {}
    assert count_near_copies({"train": split(blank), "test": split(blank)}) == {}
    digits = X[Y == 1][..., None]
    assert count_near_copies({"train": split(digits[:100]), "test": split(digits[100:])}) == {}
    assert describe_near_copies({}) == ""


def test_images_that_are_all_alike_take_no_longer() -> None:
    """All pairs of 2,000 and 2,000 would be 4 million."""
    one = photographs(1, (16, 16))
    parts = {"train": split(one.repeat(2_000, axis=0)), "test": split(one.repeat(2_000, axis=0))}
    assert count_near_copies(parts) == {("train", "test"): 2_000}
