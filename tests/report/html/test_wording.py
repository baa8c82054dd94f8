"""Wording of the page that a study decides: numbers, dates and hints must fit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report.analysis.contrast import Contrast
from report.analysis.parts import Net, Part
from report.figures import choices
from report.figures.curves import accuracy_by_cost, learning_curves
from report.figures.progress import progress
from search.study.config import STUDIES
from search.text import format_time
from tests.report.figures.test_curves import FOUND, OPPONENTS, cifar
from tests.support.figures import plain
from tests.support.reports import hand_made
from tests.support.synthetic import synthetic_run


def names(figure: Any) -> str:
    return " ".join(trace.get("name", "") for trace in plain(figure)["data"])


def test_figures_have_the_decimals_that_the_images_support() -> None:
    """An accuracy of 359 images has one decimal on the whole page, of unknown images two."""
    known = hand_made(), FOUND, OPPONENTS
    for figure in (learning_curves(*known, images=359), accuracy_by_cost(*known, images=359), progress(*known, images=359)):
        text = json.dumps(plain(figure))
        assert ".2%" not in text and ".1%" in text
    assert "(90.0%)" in names(accuracy_by_cost(*known, images=359))
    assert "(90.00%)" in names(accuracy_by_cost(*known))


def test_the_budget_is_reported_as_it_was_asked_for(tmp_path: Path) -> None:
    """The memory of a device may be used to its last byte: the limit of 65,537 is none that a user has set."""
    run = synthetic_run(tmp_path, STUDIES / "tinyml" / "study.toml")
    texts = {
        metric: names(accuracy_by_cost(run, FOUND, [], metric)).partition("budget: ")[2]
        for metric in ("params", "flash_bytes")
    }
    assert texts == {"params": "under 60,000", "flash_bytes": "at most 65,536"}


def test_axes_of_a_study_ranked_by_int8_say_which_accuracy_they_show(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, STUDIES / "tinyml" / "study.toml")
    titles = [plain(figure(run, [], []))["layout"]["yaxis"]["title"]["text"] for figure in (learning_curves, progress)]
    assert titles == ["validation accuracy in float", "best validation accuracy in int8"]
    assert "in" not in plain(learning_curves(cifar(), [], []))["layout"]["yaxis"]["title"]["text"].split()


def test_an_axis_of_counts_has_no_fractions() -> None:
    nets = [Net(n, True, 2, 0.5, (Part(8, blocks=1 + n % 2),), {}) for n in range(12)]
    halves = Contrast(tuple(nets[:6]), tuple(nets[6:]))
    assert plain(choices.along(halves, lambda part: part.blocks, "blocks", "stage"))["layout"]["yaxis"]["dtick"] == 1
    assert "dtick" not in plain(choices.along(halves, lambda part: part.width * 4, "channels", "stage"))["layout"]["yaxis"]


def test_times_are_reported_to_the_minute() -> None:
    assert format_time("2026-11-30T10:53:37+00:00") == "2026-11-30 10:53 UTC"
    assert format_time("today") == "today"
