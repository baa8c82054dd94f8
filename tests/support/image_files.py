"""Shared by the tests of images and image_files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.data import images
from search.data.images import Options, decode
from search.data.loading import read_images
from search.errors import UserError

RANDOM = np.random.default_rng(0)


# soft, so that JPEG changes little, and nowhere symmetric
SOFT = np.asarray(
    Image.fromarray(RANDOM.integers(0, 256, (4, 5, 3), np.uint8)).resize((30, 24), Image.Resampling.BICUBIC), np.uint8
)


def read(files: list[str], how: Options, cache: Path | None = None, **options: Any) -> np.ndarray:
    return read_images(files, how, cache=cache, **options).pixels


def saved(folder: Path, picture: Image.Image | np.ndarray, name: str = "a.png", **options: Any) -> str:
    path = folder / name
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return str(path)


def refused(file: str, how: Options = Options()) -> str:  # noqa: B008
    """The one line in which it is refused, with its name."""
    with images.quiet(), pytest.raises(UserError) as caught:
        decode(file, how)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400 and file in message
    return message


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded from here on."""
    found: list[str] = []

    def told(file: str, how: Options) -> Any:
        found.append(file)
        return decode(file, how)

    monkeypatch.setattr("search.data.loading.decode", told)
    return found


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading is taken to be worth keeping at once."""
    monkeypatch.setattr("search.data.loading.WORTH_KEEPING", -1.0)
