"""Loads the data set that a study's configuration names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from search.data.dataset import Dataset, load_dataset
from search.data.loading import Watch, not_watched
from search.data.sources import Reading
from search.study.config import StudyConfig
from search.text import format_percent
from search.training.measures import ACCURACY, MEASURES, constant_guess, is_near_guess

PIXELS = "images.npz"  # in a run folder: the pixels of a folder of images, where they took long to read
DAMAGED = "damaged.txt"  # in a run folder, or beside a study file: the images that cannot be used, one a line


def data_facts(data: Dataset) -> dict[str, Any]:
    """The facts of the data that are stored with a study, as plain JSON values."""
    label, share = data.majority
    return {
        "fingerprint": data.fingerprint,
        "summary": data.summary(),
        "input": list(data.input_shape),
        "classes": data.classes,
        "class_names": list(data.class_names),
        "majority": {"class": label, "share": share},
        "images": {
            "training": data.validated if data.folds else len(data.y_train),
            "validation": data.validated,
            "test": None if data.y_test is None else len(data.y_test),
        },
    } | ({"folds": data.folds} if data.folds else {})


def images_of(facts: Mapping[str, Any], part: Literal["training", "validation", "test"]) -> int | None:
    """Number of images of a part of the data; None if there is no such part. With folds all training images validate.

    Args:
        facts: of `data_facts`. Studies of earlier versions have the numbers in their summary alone.
    """
    if "images" in facts:
        count: int | None = facts["images"][part]
        return count
    match = re.search(rf"([\d,]+) {part}\b", facts.get("summary", ""))
    return int(match[1].replace(",", "")) if match else None


def guess_value(facts: Mapping[str, Any], metric: str = ACCURACY) -> float | None:
    """Value of a measure for always guessing the commonest class of the validation images; None before they were read.

    Args:
        facts: of `data_facts`. Studies of earlier versions lack the share of that class, and count as balanced.
    """
    majority, classes = facts.get("majority"), facts.get("classes")
    if metric == ACCURACY and majority is not None:
        share: float = majority["share"]
        return share
    if classes is None:
        return None
    return constant_guess(metric, 1 / classes if majority is None else majority["share"], classes)


def hardly_learnt(value: float, facts: Mapping[str, Any], metric: str) -> bool:
    """True for a value of a measure so near that of always guessing the commonest class that beating it is no evidence."""
    guess, classes = guess_value(facts, metric), facts.get("classes")
    return guess is not None and classes is not None and is_near_guess(value, guess, classes)


def majority_note(facts: Mapping[str, Any], best: float | None, metric: str = ACCURACY) -> str | None:
    """A line where the best candidate is no better than always guessing the commonest class of the validation images.

    None where it is better, nothing has been trained, or the study was stored before that share was recorded.

    Args:
        best: value of the measure `metric`.
    """
    majority = facts.get("majority")
    if majority is None or best is None:
        return None
    images, guess = images_of(facts, "validation"), guess_value(facts, metric)
    if guess is None or best > guess:
        return None
    text = f"The best candidate is no better than always guessing {majority['class']!r}"
    if metric != ACCURACY:
        return f"{text}, with a {MEASURES[metric].label} of {format_percent(guess, images)}."
    return f"{text}, which is right for {format_percent(guess, images)} of the validation images."


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
        group=wish.group,
        folds=wish.folds,
    )
