"""The checklist and the notes of trials and studies."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.analysis.verdict import Standing, judge
from report.dashboard import notes
from report.markdown import formatting
from report.markdown import report as page
from report.markdown.formatting import BEYOND
from report.tables import leaderboard
from search.budget.cost import compute_layer_cost
from search.budget.limits import Budget
from search.budget.summary import layer_rows
from search.networks.architecture import Architecture
from search.networks.geometry import flatten, resolve
from search.networks.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    GlobalAveragePool,
    Layer,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.study.run import Run
from tests.support.reports import IMAGES, hand_made, record, rejected, table
from tests.support.strategies import architectures
from tests.support.synthetic import finals_of

FACTS = {"classes": 10}


# --- the checklist ---------------------------------------------------------------------------------------------------


GOOD: tuple[Layer, ...] = (
    SeparableConv(16), BatchNorm(), Activation("relu"), Dropout(0.1), SpatialSeparableConv(10),
    GlobalAveragePool(), Softmax(),
)  # fmt: skip


def judged_checks(run: Run, network: Architecture, params: int, board: dict[str, Any]) -> list[page.Check]:
    return page.checks(run.config, network, params, board, judge(run, board, None, {"classes": 10}))


def failed_checks(
    layers: tuple[Layer, ...], *, params: int = 500, best: float = 0.9, base: Any = 0.8, **changes: Any
) -> set[str]:
    run = hand_made(base=base)
    board = leaderboard(run, [record(0, best, **changes)], [])
    network = Architecture((8, 8, 1), 10, layers)
    return {check.asked for check in judged_checks(run, network, params, board) if not check.holds}


def test_a_good_winner_keeps_every_point() -> None:
    assert failed_checks(GOOD) == set()


@pytest.mark.parametrize(
    ("asked", "layers", "changes"),
    [
        ("separable convolutions only", (Conv(4), *GOOD), {}),
        ("batch normalisation used", tuple(layer for layer in GOOD if not isinstance(layer, BatchNorm)), {}),
        ("dropout used", tuple(layer for layer in GOOD if not isinstance(layer, Dropout)), {}),
        ("dropout used", tuple(Dropout(0.0) if isinstance(layer, Dropout) else layer for layer in GOOD), {}),
        ("under the budget", GOOD, {"params": 8_000}),
        ("at most 50 epochs", GOOD, {"epochs": 51}),
        ("beats the base", GOOD, {"best": 0.8}),
        ("beats the base", GOOD, {"best": 0.7999}),
        ("beats the base", GOOD, {"base": "base.json"}),  # not trained
    ],
)
def test_each_point_can_fail_alone(asked: str, layers: tuple[Layer, ...], changes: dict[str, Any]) -> None:
    assert failed_checks(layers, **changes) == {asked}


def test_to_beat_a_base_that_hardly_learnt_is_no_point_kept() -> None:
    run, network = hand_made(base="base.json"), Architecture((8, 8, 1), 10, GOOD)
    for accuracy, mark in ((0.19, page.Mark.MISSED), (0.21, page.Mark.MET)):
        board = leaderboard(run, [record(0, 0.9)], [record(0, accuracy, reference="base")])
        check = judged_checks(run, network, 500, board)[-1]
        assert (check.asked, check.mark) == ("beats the base", mark)
        assert judge(run, board, None, {"classes": 10}).standing == (
            Standing.AHEAD_ONCE if mark == page.Mark.MET else Standing.HARDLY_LEARNT
        )


def test_a_lead_within_the_noise_of_one_training_is_a_tie() -> None:
    run = hand_made(base="base.json")
    board = leaderboard(run, [record(0, 0.91)], [record(0, 0.9, reference="base")], IMAGES)
    check = judged_checks(run, Architecture((8, 8, 1), 10, GOOD), 500, board)[-1]
    assert check.mark == page.Mark.TIE
    assert page.checklist([check]).splitlines()[-1].startswith("| tie | beats the base | Trial 0")


def test_the_last_that_fits_is_under_the_budget() -> None:
    assert failed_checks(GOOD, params=7_999) == set()


# --- notes -----------------------------------------------------------------------------------------------------------


ATTRIBUTES = {"outcome": "trained", "params": 7_410, "best_val_accuracy": 0.98333, "best_epoch": 9, "epochs": 10,
              "final_val_accuracy": 0.98056}  # fmt: skip


BUDGET = Budget(params=8_000)


@given(architectures())
def test_the_layer_table_is_the_resolved_network(architecture: Architecture) -> None:
    rows, side = [formatting.layer_cells(row) for row in layer_rows(architecture)], max(architecture.input[:2])
    for cells, (_, row) in zip(rows, flatten(resolve(architecture)), strict=True):
        field, params = row.receptive_field, compute_layer_cost(row).params
        assert row.name in cells[0]
        assert cells[2] == "x".join(map(str, row.output))
        assert cells[3] == ("" if field is None else f"{field}x{field}" + BEYOND * (field > side))
        assert cells[4].replace(",", "") == (str(params) if params else "")
    text = formatting.layer_table(architecture)
    assert [tuple(row) for row in table(text)[1:]] == rows
    assert ("exceeds the image" in text) == any(BEYOND in cells[3] for cells in rows)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {},
            "**98.33%** validation accuracy in epoch 9 of 10, 98.06% in the last; 7,410 parameters, the budget is under",
        ),
        ({"delta_vs_base": 0.0056}, "98.06% in the last, 0.56 points above the base; 7,410"),
        ({"delta_vs_base": -0.0056}, "98.06% in the last, 0.56 points below the base; 7,410"),
        ({"delta_vs_base": 0.0}, "98.06% in the last, level with the base; 7,410"),
        ({"reference": "base"}, "98.06% in the last; 7,410 parameters."),
    ],
)
def test_the_note_of_a_trained_trial_begins_with_its_score(more: dict[str, Any], words: str) -> None:
    network = Architecture((8, 8, 1), 10, GOOD)
    first, rest = notes.trial_note(network, ATTRIBUTES | more, BUDGET).split("\n\n", 1)
    assert words in first
    assert table(rest)[0] == ["layer", "options", "output", "receptive field", "params"]


@pytest.mark.parametrize("outcome", ["pruned_at_rung", "rejected", "diverged", "out_of_memory", "timed_out", "failed"])
def test_the_note_of_any_other_trial_begins_with_the_reason(outcome: str) -> None:
    network = Architecture((8, 8, 1), 10, GOOD)
    reason = "132,410 parameters, the budget is under 100,000"
    note = notes.trial_note(network, {"outcome": outcome, "reason": reason}, BUDGET)
    assert note.startswith(f"**{outcome.capitalize().replace('_', ' ')}:** {reason}\n\n| layer |")
    assert notes.trial_note(None, {"outcome": outcome, "reason": reason}, BUDGET).splitlines() == [note.splitlines()[0]]


@given(st.text())
def test_escaped_text_stays_in_its_cell(text: str) -> None:
    shown = formatting.escaped(text)
    assert len(shown.splitlines()) <= 1
    assert table(f"| a | b |\n|---|---|\n| {shown} | end |")[1][1] == "end"
    assert re.sub(r"\\([^\w\s])", r"\1", shown.replace("\\_", "_")) == " ".join(text.split())


def test_escaped_text_is_no_markup() -> None:
    assert formatting.escaped("a*b_c|<i>[x](y)\n# _z_") == r"a\*b_c\|\<i\>\[x\](y) \# \_z\_"


def test_the_study_note_tells_how_far_it_has_come() -> None:
    run = hand_made()
    base = record(0, 0.9, 82_090, "base")
    assert notes.study_note(run, [], [], FACTS).startswith("# hand_made: no candidate has been trained yet")
    assert "base, not trained yet" in notes.study_note(run, [], [], FACTS)
    note = notes.study_note(run, [record(0, 0.91), rejected(1), record(2, 0.92, 7_000)], [base], FACTS)
    title, unfinished, verdict, _ = note.split("\n\n", 3)
    assert title == "# hand_made: ahead of the base in one training, not confirmed"
    resume = "resume the study with: python -m search run hand_made"
    assert unfinished == f"**Not finished: 2 of 12 trials are trained; {resume}**"
    assert verdict.startswith("Trial 2, the best of 2 trained")
    assert "reaches 92.00% validation accuracy with 7,000 parameters, 2.00 points above the base" in note
    assert "base, 82,090 parameters, 90.00% in epoch 2, 89.00% in the last" in note
    assert "2 trained, 0 pruned at rung, 1 rejected, 0 failed; the study ends with 12 trained" in note
    assert "strictly under 8,000 parameters" in note
    assert "an accuracy to beat, 84.00%" in notes.study_note(hand_made(base=0.84), [], [], FACTS)
    counted = FACTS | {"images": {"validation": IMAGES}}
    assert "an accuracy to beat, 84.0%" in notes.study_note(hand_made(base=0.84), [], [], counted)
    assert "With 0 trials trained in full it means nothing: 20 are needed" in notes.study_note(run, [], [], FACTS)
    assert "it means nothing" not in notes.study_note(run, [record(n, 0.5) for n in range(20)], [], FACTS)


def test_only_the_course_protocol_speaks_of_the_test_images_as_measured_on() -> None:
    assert "measured on the test images" in notes.study_note(hand_made(protocol="course"), [], [], FACTS)
    assert "It flatters" in notes.study_note(hand_made(protocol="course"), [], [], FACTS)
    assert "only finals read the test images, and there are none yet" in notes.study_note(hand_made(), [], [], FACTS)


def test_a_page_that_tells_when_the_test_images_were_read_does_not_deny_it() -> None:
    finals = replace(finals_of({"base": [0.8, 0.81], "trial-2": [0.9, 0.92]}), test_read=("2030-01-01",))
    note = notes.study_note(hand_made(), [record(2, 0.91)], [record(0, 0.8, reference="base")], FACTS, finals)
    assert "the finals read the test images at 2030-01-01" in note and "only finals read" not in note
    assert "## On fresh seeds\n\nTrial-2 leads with a mean" in note


def test_the_head_of_the_leaderboard_is_in_the_note() -> None:
    base = record(0, 0.9, 82_090, reference="base")
    note = notes.study_note(hand_made(), [record(number, 0.91 + number / 100) for number in range(8)], [base], FACTS)
    rows = table(note.split("## The first 5")[1].split("\n## ")[0])
    assert [row[:4] for row in rows[1:3]] == [["", "base", "82,090", "90.00%"], ["1", "7", "5,000", "98.00%"]]
    assert [row[1] for row in rows[1:]] == ["base", "7", "6", "5", "4", "3"]
    assert rows[2][-1] == "+8.00"
    assert "## The first" not in notes.study_note(hand_made(), [], [base], FACTS)


def test_columns_stand_apart_in_the_dashboard() -> None:
    """Its Markdown sets them side by side; a line that is no table, or separates a head from its rows, stays as it is."""
    text = "a | b\n\n| a | b \\| c |  |\n| :-- | --: | --: |\n| 1 | 2 |  |\n|:--|--:|"
    assert notes._roomy(text) == "a | b\n\n| a | \u2003b \\| c |  |\n| :-- | --: | --: |\n| 1 | \u20032 |  |\n|:--|--:|"


def test_proposals_rejected_before_a_trial_are_in_its_note() -> None:
    told = ATTRIBUTES | {"refused": {"over budget": 1_200, "same network": 1}}
    note = notes.trial_note(None, told, BUDGET)
    assert "\n\nRejected before this network was proposed: 1,200 over budget, 1 of a network tried before.\n" in note
    assert "Refused" not in notes.trial_note(None, ATTRIBUTES, BUDGET)
