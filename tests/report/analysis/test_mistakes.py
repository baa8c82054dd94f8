"""report.analysis.mistakes: answers counted by hand, pictures read back.

A real winner is evaluated in tests/report/markdown/test_report.py.
"""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures

from report.analysis.findings import gather
from report.analysis.mistakes import SIDE, most_confused, picture, recall_title, summarize
from report.html import results
from report.markdown.report import _recall
from tests.support.synthetic import fill, noise_images, storages_in_memory, synthetic_run


def test_answers_are_counted_and_the_least_probable_truth_comes_first() -> None:
    data = noise_images(("a", "b", "c"))
    said = np.full((30, 3), 0.1, np.float32)
    said[np.arange(30), data.y_val] = 0.8
    said[0] = 0.2, 0.7, 0.1  # an a, said to be b
    said[1] = 0.3, 0.1, 0.6  # an a, said to be c
    said[10] = 0.05, 0.15, 0.8  # a b, said to be c
    said[11] = 0.0, 0.45, 0.55  # another
    found = summarize(said, data)
    assert found.confusion.tolist() == [[8, 1, 1], [0, 8, 2], [0, 0, 10]]
    assert found.measures["accuracy"] == pytest.approx(26 / 30) and found.images == 30
    assert [(one.truth, one.predicted, round(one.probability, 2)) for one in found.worst] == [
        (1, 2, 0.8), (0, 1, 0.7), (0, 2, 0.6), (1, 2, 0.55),
    ]  # fmt: skip
    assert (found.worst[0].image == data.x_val[10]).all()
    assert most_confused(found, 2) == [(1, 2, 2), (0, 1, 1)]
    assert most_confused(found, 9) == [(1, 2, 2), (0, 1, 1), (0, 2, 1)], "what does not occur is not listed"


@pytest.mark.parametrize("folds", [None, 5])
def test_with_folds_both_pages_say_that_one_of_their_networks_is_evaluated(tmp_path: Path, folds: int | None) -> None:
    images = noise_images()
    predictions = summarize(np.eye(10, dtype=np.float32)[images.y_val], images)
    with storages_in_memory():
        run = synthetic_run(tmp_path, recipe__epochs=3, search__trials=2)
        found = gather(run, fill(run, images, 2))
        data = run.config.data.model_copy(update={"folds": folds})
        found = replace(found, run=replace(run, config=run.config.model_copy(update={"data": data})))
        section = results.mistakes(found, predictions)
        texts = [section.body, _recall(predictions, found)]  # type: ignore[union-attr]
    kept = "It is the network of the first of 5 folds, on the images of that fold; those of the others are not kept."
    for text in texts:
        assert recall_title(folds) in text
        assert (kept in text) == ("first of 5 folds" in text) == bool(folds)


def seen(address: str) -> np.ndarray:
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    with Pictures.open(io.BytesIO(base64.b64decode(data))) as opened:
        return np.asarray(opened)


@pytest.mark.parametrize(("side", "channels", "shown"), [(8, 1, 96), (32, 3, 96), (28, 1, 84), (20, 4, 80), (50, 3, 50)])
def test_a_small_image_is_enlarged_pixel_by_pixel(side: int, channels: int, shown: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (side, side, channels), np.uint8)
    found = seen(picture(image))
    assert found.shape[:2] == (shown, shown)
    wanted = image if channels == 3 else image[..., 0]
    assert (found[:: shown // side, :: shown // side] == wanted).all()
    assert (found[shown // side - 1 :: shown // side, :: shown // side] == wanted).all()


def test_a_large_image_is_reduced() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    assert seen(picture(image)).shape == (SIDE, 64, 3)
