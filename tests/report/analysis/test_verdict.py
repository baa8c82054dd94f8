"""report.analysis.verdict: every standing of a winner, its words, and the next command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from report.analysis.verdict import Standing, Verdict, judge
from report.tables import leaderboard
from search.finals.results import FinalsResult
from search.storage.urls import sqlite_url
from search.study import config as configs
from search.study import study_file
from search.study.records import Record
from search.study.run import Run
from search.text import format_percent, format_points, percent_decimals
from search.tuning.bayes.expectation import Expectation
from tests.support.synthetic import finals_of

BASE = [0.80, 0.81, 0.82]
IMAGES = 359


def run_of(base: str | float = "base.json") -> Run:
    config = study_file.load(configs.STUDIES / "quickstart" / "study.toml").model_copy(update={"base": base})
    return Run("mine", Path("nowhere"), config, sqlite_url(Path("nowhere")), "mine --out there")


def record(number: int, best: float, reference: str | None = None) -> Record:
    return Record(number, reference, "trained", None, 5_000, 1_000, best, 2, best, 3, 4.0, (best,), {}, (), None)  # type: ignore[arg-type]


def judged(
    best: float = 0.9,
    base: float | None = 0.8,
    finals: FinalsResult | None = None,
    images: int | None = IMAGES,
    run: Run | None = None,
    expected: Expectation | None = None,
) -> Verdict:
    """Verdict on trial 3, as `best` as this, and a base."""
    run, references = run or run_of(), [] if base is None else [record(0, base, "base")]
    return judge(run, leaderboard(run, [record(3, best)], references, images), finals, {"classes": 10}, expected)


@pytest.mark.parametrize(
    ("best", "base", "images", "standing", "words"),
    [
        (0.95, 0.85, IMAGES, Standing.AHEAD_ONCE, "Each figure is one training on 359 images, where chance makes up to 4.3"),
        (
            0.86,
            0.85,
            IMAGES,
            Standing.LEVEL_ONCE,
            "That is within the noise of one training: each figure is one training on",
        ),
        (0.85, 0.86, IMAGES, Standing.LEVEL_ONCE, "1.0 points below the base (86.0%, 5,000 parameters)"),
        (0.70, 0.85, IMAGES, Standing.BEHIND_ONCE, "15.0 points below the base"),
        (
            0.95,
            0.15,
            IMAGES,
            Standing.HARDLY_LEARNT,
            "The base hardly learnt (always guessing one class gives 10.0%), so to beat it says little.",
        ),
        (0.95, None, IMAGES, Standing.NO_BASE, "; the base has not been trained."),
        (
            0.8586,
            0.85,
            None,
            Standing.AHEAD_ONCE,
            "85.86% validation accuracy with 5,000 parameters, 0.86 points above",
        ),
        (0.85, 0.85, None, Standing.LEVEL_ONCE, "level with the base"),
    ],
)
def test_without_finals_the_verdict_is_of_one_training(
    best: float, base: float | None, images: int | None, standing: Standing, words: str
) -> None:
    verdict = judged(best, base, images=images)
    assert verdict.standing == standing and not standing.is_confirmed
    assert words in verdict.text
    assert ("Not confirmed on fresh seeds yet." in verdict.text) == (base is not None)
    assert verdict.winner == 3 and verdict.difference == (None if base is None else pytest.approx(best - base))


@pytest.mark.parametrize(
    ("scores", "standing", "words"),
    [
        (
            {"trial-3": [0.90, 0.91, 0.925]},
            Standing.BEATEN,
            "Confirmed on 3 fresh seeds: trial 3 with 5,000 parameters has a mean best validation accuracy of 91.17%",
        ),
        ({"trial-3": [0.80, 0.82, 0.82]}, Standing.TIED, "0.33 points above the base (95 % interval -1.10 to +1.77): a tie"),
        ({"trial-3": [0.70, 0.71, 0.725]}, Standing.BEHIND, "9.83 points below the base ("),
        ({"trial-3": [0.90, 0.91, 0.92]}, Standing.TIED, "a tie, as 3 fresh seeds cannot tell it from chance"),
        (
            {"trial-3": [0.90, 0.91, 0.925], "trial-4": [0.95, 0.961, 0.97]},
            Standing.BEATEN,
            "trial-4 has a mean 4.87 points higher, more than chance makes: it is really ahead of it.",
        ),
        ({"trial-3": [0.90, 0.91, 0.925], "trial-4": [0.90, 0.915, 0.93]}, Standing.BEATEN, "0.33 points higher, a tie."),
        ({"trial-4": [0.90, 0.91, 0.92]}, Standing.AHEAD_ONCE, "Trial 3 is in no finals"),
        ({"control-3": [0.90, 0.91, 0.92]}, Standing.AHEAD_ONCE, "Trial 3 is in no finals"),
    ],
)
def test_finals_decide_where_the_winner_took_part(
    scores: Mapping[str, Sequence[float]], standing: Standing, words: str
) -> None:
    scores = {"base": BASE, **scores}
    same = [name for name, values in scores.items() if name != "base" and values == [0.90, 0.91, 0.92]]
    finals = without_constants(finals_of(scores)) if same else finals_of(scores)
    verdict = judged(finals=finals)
    assert verdict.standing == standing
    assert words in verdict.text
    if standing.is_confirmed:
        assert "Not confirmed on fresh seeds yet" not in verdict.text and "one training" not in verdict.text


def without_constants(finals: FinalsResult) -> FinalsResult:
    """The finals as `search.finals.results` reads them: the same difference on all seeds has no interval."""
    unknown: dict[str, Any] = dict.fromkeys(("low", "high", "p", "adjusted_p", "adjusted_low", "adjusted_high"))
    finalists = (
        replace(one, against_base=one.against_base and replace(one.against_base, **unknown, is_tie=True))
        for one in finals.finalists
    )
    return replace(finals, finalists=tuple(finalists))


def test_a_base_that_hardly_learnt_on_fresh_seeds_is_not_beaten() -> None:
    verdict = judged(base=0.8, finals=finals_of({"base": [0.10, 0.12, 0.11], "trial-3": [0.90, 0.91, 0.925]}))
    assert verdict.standing == Standing.HARDLY_LEARNT
    learnt = judged(base=0.1, finals=finals_of({"base": BASE, "trial-3": [0.90, 0.91, 0.925]}))
    assert learnt.standing == Standing.BEATEN, "in the search it was unlucky"


def test_a_base_that_is_an_accuracy_is_compared_with_too() -> None:
    run, scores = run_of(0.84), {"trial-3": [0.90, 0.91, 0.925]}
    assert judged(base=None, finals=finals_of(scores, 0.84), run=run).standing == Standing.BEATEN
    once = judged(0.86, None, run=run)
    assert once.standing == Standing.LEVEL_ONCE
    assert once.noise == pytest.approx(1.96 * (0.86 * 0.14 / IMAGES) ** 0.5, rel=1e-3), "a given number does not vary"
    assert judged(finals=finals_of(scores, None)).standing == Standing.AHEAD_ONCE, "the base failed in the finals"


def test_one_seed_confirms_nothing() -> None:
    assert judged(finals=finals_of({"base": [0.5], "trial-3": [0.9]})).standing == Standing.TIED


def test_nothing_trained_is_no_verdict() -> None:
    run = run_of()
    verdict = judge(run, leaderboard(run, [], [], IMAGES), None, {"classes": 10})
    assert (verdict.standing, verdict.winner) == (Standing.UNTRAINED, None)


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"base": None}, "python -m search run mine --out there"),
        ({}, "python -m search finals mine --out there"),
        ({"base": 0.1}, "python -m search run mine --epochs 20 --out NEW_FOLDER"),
        ({"finals": finals_of({"base": BASE, "trial-3": [0.9, 0.91, 0.925]})}, "python -m search export mine --out there"),
        ({"finals": finals_of({"base": BASE, "trial-3": BASE})}, "python -m search run mine --out there --trials 24"),
    ],
)
def test_the_next_command_follows_from_the_verdict(changes: dict[str, Any], command: str) -> None:
    assert next(iter(judged(**changes).commands.values())) == command


def test_the_verdict_as_json_has_its_figures() -> None:
    verdict = judged(finals=finals_of({"base": BASE, "trial-3": [0.90, 0.91, 0.925]}))
    plain = json.loads(json.dumps(verdict.to_dict()))
    assert plain["standing"] == "beaten" and plain["title"] == "the base is beaten" and plain["text"] == verdict.text
    assert plain["score"]["accuracy"] == pytest.approx(0.9117, abs=1e-4) and plain["base"]["accuracy"] == pytest.approx(0.81)
    assert plain["difference"] == pytest.approx(plain["score"]["accuracy"] - plain["base"]["accuracy"])
    low, high = plain["difference_interval"]
    assert low < plain["difference"] < high


def test_an_accuracy_has_the_decimals_that_its_images_support() -> None:
    assert (percent_decimals(359), percent_decimals(1_000), percent_decimals(5_000), percent_decimals(None)) == (1, 1, 2, 2)
    assert format_percent(357 / 359, 359) == "99.4%" and format_percent(None, 359, "-") == "-"
    assert format_points(-0.0001, 359) == "+0.0" and format_points(-1 / 359, 359) == "-0.3"


class TestExpectation:
    EXPECTED = Expectation(0.886, 0.862, 0.91, 24)
    WORDS = "Trained again it is expected to reach 88.6% (95 % interval 86.2 to 91.0%), by a model of all 24 trainings."

    def test_it_stands_beside_a_single_training(self) -> None:
        verdict = judged(expected=self.EXPECTED)
        assert verdict.remarks[-1] == self.WORDS
        plain = verdict.to_dict()["expected"]
        assert plain == {"mean": 0.886, "low": 0.862, "high": 0.91, "trainings": 24}

    def test_finals_make_it_needless(self) -> None:
        results = finals_of({"base": [0.8, 0.81, 0.79], "trial-3": [0.9, 0.91, 0.89]})
        assert self.WORDS not in judged(finals=results, expected=self.EXPECTED).text
