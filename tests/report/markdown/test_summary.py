"""report.markdown.summary: what finals make of the winner of a search.

The other words are read in report.md and report.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from report.markdown.summary import confirmation
from tests.support.synthetic import finals_of

COMMAND = "python -m search finals mine"
BASE = [0.80, 0.81, 0.82]


@pytest.mark.parametrize(
    ("scores", "status", "words"),
    [
        (
            {"trial-3": [0.90, 0.91, 0.925]},
            "confirmed",
            "its mean is 91.17% on 3 fresh seeds, 10.17 points above the base (",
        ),
        ({"trial-3": [0.80, 0.82, 0.82]}, "tie", "0.33 points above the base (95 % interval -1.10 to +1.77): a tie"),
        ({"trial-3": [0.70, 0.71, 0.725]}, "worse", "9.83 points below the base ("),
        ({"trial-3": [0.90, 0.91, 0.92], "trial-4": [0.95, 0.961, 0.97]}, "not ahead", "trial-4 is really ahead of it"),
        ({"trial-3": [0.90, 0.91, 0.925], "trial-4": [0.90, 0.915, 0.93]}, "confirmed", "10.17 points above the base"),
        ({"trial-4": [0.90, 0.91, 0.92]}, "unknown", "Trial 3 is in no finals"),
        ({"control-3": [0.90, 0.91, 0.92]}, "unknown", "Trial 3 is in no finals"),
    ],
)
def test_fresh_seeds_bear_the_winner_out_or_do_not(scores: Mapping[str, Sequence[float]], status: str, words: str) -> None:
    found = confirmation(finals_of({"base": BASE, **scores}), 3, COMMAND)
    assert found.status == status
    assert words in found.words


def test_without_finals_there_is_the_command_that_holds_them() -> None:
    found = confirmation(None, 3, COMMAND)
    assert found.status == "not held" and found.words.endswith(f": {COMMAND}")


def test_a_base_that_is_an_accuracy_is_held_against_too() -> None:
    assert confirmation(finals_of({"trial-3": [0.90, 0.91, 0.92]}, 0.84), 3, COMMAND).status == "confirmed"
    assert confirmation(finals_of({"trial-3": [0.90, 0.91, 0.92]}, None), 3, COMMAND).status == "unknown"


def test_one_seed_confirms_nothing() -> None:
    assert confirmation(finals_of({"base": [0.5], "trial-3": [0.9]}), 3, COMMAND).status == "tie"
