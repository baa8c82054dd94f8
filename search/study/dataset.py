"""Loads the data set that a study's configuration names."""

from __future__ import annotations

from pathlib import Path

from search.data.dataset import Dataset, load_dataset
from search.data.loading import Watch, not_watched
from search.data.sources import Reading
from search.study.config import StudyConfig

PIXELS = "images.npz"  # in a run folder: the pixels of a folder of images, where they took long to read
DAMAGED = "damaged.txt"  # in a run folder, or beside a study file: the images that cannot be used, one a line


def load_study_data(
    config: StudyConfig, run_folder: Path | None = None, watch: Watch = not_watched, listing: Path | None = None
) -> Dataset:
    """The data of a study, as a run reads it.

    Args:
        run_folder: where `PIXELS` are kept, and `DAMAGED` images are listed; None keeps nothing.
        watch: called with the number of images of a folder that have been read, and of all.
        listing: the file that lists damaged images, instead of that in the run folder.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    wish = config.data
    reading = Reading(
        skip_damaged=wish.skip_damaged,
        listing=listing or (run_folder / DAMAGED if run_folder else None),
        cache=run_folder / PIXELS if run_folder else None,
        watch=watch,
    )
    return load_dataset(
        wish.name,
        Path(wish.path) if wish.path else None,
        protocol=config.protocol,
        holdout=wish.holdout,
        images=wish.images,
        options=wish.options,
        reading=reading,
        drop_copies=wish.drop_copies,
    )
