"""The line on a study that is not finished, from records made by hand."""

from __future__ import annotations

from report.analysis.completion import unfinished_words
from search.study.tables import StopConfig
from search.tuning.sampler import NOTHING_NEW
from tests.support.reports import hand_made, record

RUN = hand_made()
ASKED = RUN.config.trials


def test_a_complete_study_has_no_line() -> None:
    records = [record(number, 0.5) for number in range(ASKED)]
    assert unfinished_words(RUN, records) is None
    assert unfinished_words(RUN, [*records, record(ASKED, 0.5, outcome="interrupted", reason="stopped")]) is None


def test_an_interrupted_study_names_the_command_that_resumes_it() -> None:
    pruned = record(1, 0.4, outcome="pruned_at_rung")
    text = f"Not finished: 2 of {ASKED} trials are trained; resume the study with: {RUN.command}"
    assert unfinished_words(RUN, [record(0, 0.5), pruned, record(2, 0.5, outcome="failed")]) == text
    assert unfinished_words(RUN, []) == text.replace("2 of", "0 of")


def test_trials_in_training_are_counted() -> None:
    ran = [record(0, 0.5), record(1, 0.5, outcome="running")]
    one = f"Not finished: 1 of {ASKED} trials are trained, and trial 1 was in training or interrupted when this was written."
    assert unfinished_words(RUN, ran) == one
    assert "and 2 more were in training" in (unfinished_words(RUN, [*ran, record(2, 0.5, outcome="running")]) or "")


def test_a_study_that_reached_a_limit_says_which() -> None:
    limited = hand_made(stop=StopConfig(accuracy=0.5))
    assert (
        unfinished_words(limited, [record(0, 0.51)])
        == f"Ended early: 1 of {ASKED} trials are trained, as 50.00% was reached."
    )
    reason = f"{NOTHING_NEW} under 8,000 parameters"
    ended = unfinished_words(RUN, [record(0, 0.5), record(1, 0.5, outcome="interrupted", reason=reason)])
    assert ended == f"Ended early: 1 of {ASKED} trials are trained, as {reason}."
