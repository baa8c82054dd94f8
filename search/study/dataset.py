"""Loads the data set that a study's configuration names."""

from __future__ import annotations

from pathlib import Path

from search.data.dataset import Dataset, load_dataset
from search.data.loading import Watch
from search.study.config import StudyConfig

PIXELS = "images.npz"  # in a run folder: what was read of a folder of images, where that took long


def read(config: StudyConfig, cache: Path | None = None, watch: Watch = lambda done, total: None) -> Dataset:
    """The data of a study, as a run reads it.

    Args:
        cache: where the pixels of a folder are kept that took long to read; see `search.data.loading.read`.
        watch: told how many images of a folder have been read, and of how many.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    wish = config.data
    path = Path(wish.path) if wish.path else None
    return load_dataset(
        wish.name, path, protocol=config.protocol, holdout=wish.holdout, images=wish.images, options=wish.options,
        cache=cache, watch=watch,
    )  # fmt: skip
