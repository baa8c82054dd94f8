"""Values near that of always guessing the commonest class, of networks and of a base given as a number."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from report.analysis.verdict import Standing, judge
from report.tables import leaderboard
from search.cli.progress import RunView
from search.runner.events import BaseKnown, DeviceReady, Finishing, StudyLoaded
from search.study.dataset import guess_value, hardly_learnt
from tests.report.analysis.test_verdict import record, run_of


def facts(classes: int, share: float | None = None) -> dict[str, Any]:
    majority = {} if share is None else {"majority": {"class": "cat", "share": share}}
    return {"classes": classes, "images": {"validation": 100}, **majority}


@pytest.mark.parametrize(
    ("metric", "classes", "share", "guess"),
    [
        ("accuracy", 10, None, 0.1),
        ("accuracy", 4, 0.8, 0.8),
        ("balanced_accuracy", 4, 0.8, 0.25),
        ("macro_f1", 4, 0.8, 2 * 0.8 / 1.8 / 4),
        ("macro_f1", 10, None, 2 / 11 / 10),
    ],
)
def test_the_value_of_always_guessing_one_class(metric: str, classes: int, share: float | None, guess: float) -> None:
    assert guess_value(facts(classes, share), metric) == pytest.approx(guess)


def test_without_data_nothing_is_known_of_a_guess() -> None:
    assert guess_value({}, "macro_f1") is None and not hardly_learnt(0.0, {}, "accuracy")


@pytest.mark.parametrize(
    ("metric", "classes", "share", "limit"),
    [
        ("accuracy", 10, None, 0.2),
        ("accuracy", 100, None, 0.02),
        ("accuracy", 2, None, 0.5 + 0.5 / 9),  # it was 1.0: every base of two classes hardly learnt
        ("accuracy", 2, 0.9, 0.9 + 0.1 / 9),
        ("balanced_accuracy", 4, 0.8, 0.25 + 0.75 / 9),
        ("macro_f1", 10, 0.5, 2 / 3 / 10 + 0.1),
    ],
)
def test_a_value_hardly_above_that_of_a_guess_has_hardly_learnt(
    metric: str, classes: int, share: float | None, limit: float
) -> None:
    near = [hardly_learnt(value, facts(classes, share), metric) for value in (limit - 0.001, limit + 0.001)]
    assert near == [True, False]


def printed(event: BaseKnown, best: float | None = None) -> str:
    """Output of a run of 10 classes, ranked by macro F1, on a base or on its best candidate at the end."""
    console = Console(file=io.StringIO(), width=300)
    view = RunView(console)
    view.show(DeviceReady("the CPU", "digits", metric="macro_f1", classes=10, guess=0.067))
    view.show(event)
    if best is not None:
        view.show(StudyLoaded(trials=2, done=2, best=(best, 0)))
        view.show(Finishing())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_names_a_base_near_a_guess() -> None:
    assert "The base hardly learnt: 15.00% macro F1, and always guessing one class gives 6.7%" in printed(BaseKnown(0.15))
    assert "hardly learnt" not in printed(BaseKnown(0.17))
    assert "The best candidate hardly learnt: 15.00% macro F1" in printed(BaseKnown(0.5), best=0.15)


def test_a_base_that_is_a_number_has_not_learnt_anything() -> None:
    text = printed(BaseKnown(0.15, is_network=False))
    assert "The base is a low number: 15.00% macro F1, and always guessing one class gives 6.7%" in text
    assert "learnt" not in text and "--epochs" not in text
    assert "low number" not in printed(BaseKnown(0.17, is_network=False))


@pytest.mark.parametrize("number", [0.12, 0.5])
def test_the_verdict_names_a_low_number(number: float) -> None:
    run = run_of(number)
    verdict = judge(run, leaderboard(run, [record(3, 0.9)], [], 100), None, facts(10))
    note = "The base is a low number (always guessing one class gives 10.0%), so to beat it says little."
    assert (note in verdict.remarks) == (number < 0.2)
    assert verdict.standing == Standing.AHEAD_ONCE


@pytest.mark.parametrize(("base", "standing"), [(0.05, Standing.HARDLY_LEARNT), (0.15, Standing.AHEAD_ONCE)])
def test_the_verdict_judges_a_base_by_the_measure(base: float, standing: Standing) -> None:
    """A constant guess of ten balanced classes has a macro F1 of 1.8 %."""
    run = run_of("base.json")
    search = run.config.search.model_copy(update={"metric": "macro_f1"})
    object.__setattr__(run, "config", run.config.model_copy(update={"search": search}))
    verdict = judge(run, leaderboard(run, [record(3, 0.9)], [record(0, base, "base")], 100), None, facts(10))
    assert verdict.standing == standing
    assert ("always guessing one class gives 1.8%" in verdict.text) == (standing == Standing.HARDLY_LEARNT)
