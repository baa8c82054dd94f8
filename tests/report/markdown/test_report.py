"""Notes, figures and report.md of a real small run and of records made by hand."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.analysis.findings import gather
from report.analysis.mistakes import evaluate_winner
from report.analysis.verdict import Standing, judge
from report.dashboard import notes
from report.markdown import formatting
from report.markdown import report as page
from report.markdown.formatting import BEYOND
from report.tables import leaderboard, refusal_words
from search.budget.cost import compute_cost, compute_layer_cost
from search.budget.limits import Budget
from search.budget.summary import layer_rows
from search.data.dataset import load_dataset
from search.errors import UserError
from search.finals.statistics import wilson
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
from search.storage.urls import sqlite_url
from search.study import config as configs
from search.study import records as study_records
from search.study import run as studies
from search.study import study_file as study_files
from search.study.dataset import load_study_data
from search.study.records import Record
from search.study.run import Run
from tests.support.runs import copied, finished, search, study_file
from tests.support.strategies import architectures
from tests.support.synthetic import finals_of

__all__ = ["copied", "finished"]

slow = pytest.mark.slow

IMAGES = 359  # of validation in the digits
FACTS = {"classes": 10}
QUICKSTART = configs.STUDIES / "quickstart" / "study.toml"


def known(run: Run) -> tuple[list[Record], list[Record]]:
    loaded = studies.load(run)
    return study_records.records(loaded.candidates), study_records.records(loaded.references)


def judged(run: Run) -> dict[str, Any]:
    """The leaderboard with its verdict, as JSON."""
    board: dict[str, Any] = json.loads(json.dumps(gather(run, studies.load(run)).judged_board))
    return board


def report(run: Run) -> str:
    return page.write_report(run, studies.load(run)).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """The text under a heading that begins so."""
    found = re.search(rf"^## {re.escape(title)}[^\n]*\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no section {title!r}"
    return found[1].strip()


def table(text: str) -> list[list[str]]:
    """The rows of the first Markdown table, its header first; every row has as many cells as the header."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(len(row) == len(rows[0]) for row in rows)
    return [rows[0], *rows[2:]]


def record(number: int, best: float, params: int = 5_000, reference: str | None = None, **changes: Any) -> Record:
    curve = (best / 2, best, best - 0.01)
    plain = Record(number, reference, "trained", None, params, 1_000, best, 2, best - 0.01, 3, 4.0, curve, {}, (), None)
    return replace(plain, **changes)


def rejected(number: int) -> Record:
    reason = "9,000 parameters, the budget is under 8,000"
    blank = dict.fromkeys(("best_val_accuracy", "best_epoch", "final_val_accuracy", "seconds"))
    return record(number, 0.5, 9_000, outcome="rejected", reason=reason, epochs=0, curve=(), **blank)


def hand_made(folder: Path = Path("nowhere"), **changes: Any) -> Run:
    """A run of the quickstart's configuration that has trained nothing."""
    config = study_files.load(QUICKSTART).model_copy(update=changes)
    return Run("hand_made", folder, config, sqlite_url(folder))


# --- the leaderboard -------------------------------------------------------------------------------------------------


def test_what_was_not_ranked_stands_below_the_longest_trained_first() -> None:
    """And what was never built, or is there again under another number, nowhere."""
    pruned = {"outcome": "pruned_at_rung", "reason": "behind others"}
    found = [
        record(0, 0.5),
        record(1, 0.7, epochs=1, **pruned),
        record(2, 0.6, epochs=2, **pruned),
        record(3, 0.9, epochs=1, **pruned),
        record(4, 0.8),
        record(5, 0.99, outcome="interrupted"),
        record(6, 0.99, outcome="running"),
        rejected(7),
    ]
    board = leaderboard(hand_made(base=0.5), found, [])
    assert [(row["rank"], row["number"]) for row in board["trials"]] == [(1, 4), (2, 0), (None, 2), (None, 3), (None, 1)]
    assert board["trials"][2]["outcome"] == "pruned_at_rung"
    assert board["trials"][2]["delta_vs_base"] == pytest.approx(0.1)
    assert board["counts"] == {"trained": 2, "pruned_at_rung": 3, "rejected": 1, "failed": 0}


def test_what_the_sampler_refused_is_told_by_rule_with_some_sizes() -> None:
    assert refusal_words([record(0, 0.5)]) is None
    many = record(0, 0.5, refused={"over budget": 1200, "same network": 3}, refused_params=(9_000, 12_345, 8_000))
    assert (
        refusal_words([many]) == "1,200 over budget, 3 of a network tried before (parameters of some: 8,000, 9,000, 12,345)"
    )
    spread = replace(many, refused_params=tuple(range(1_000, 10_000, 1_000)))
    assert refusal_words([spread]).endswith("(parameters of some: 1,000, 3,000, 5,000, 7,000, 9,000)")
    board = leaderboard(hand_made(), [many, replace(many, number=1)], [])
    assert board["refusals"] == {"over budget": 2400, "same network": 6}
    assert board["counts"]["rejected"] == 2406


# --- report.md -------------------------------------------------------------------------------------------------------


@slow
def test_the_report_agrees_with_the_leaderboard(copied: Run) -> None:
    text, board = report(copied), leaderboard(copied, *known(copied), IMAGES)
    rows = table(section(text, "Leaderboard"))[1:]
    base, winner = board["base"], board["trials"][0]
    assert rows[0][1:6] == ["base", f"{base['params']:,}", f"{base['best_val_accuracy']:.1%}", str(base["best_epoch"]),
                            f"{base['final_val_accuracy']:.1%}"]  # fmt: skip
    assert [[row[0], row[1]] for row in rows[1:]] == [
        [str(trial["rank"]), str(trial["number"])] for trial in board["trials"]
    ]
    for row, trial in zip(rows[1:], board["trials"], strict=True):
        assert row[2:4] == [f"{trial['params']:,}", f"{trial['best_val_accuracy']:.1%}"]
        low, high = wilson(trial["best_val_accuracy"], IMAGES)
        assert row[6] == f"{100 * low:.1f} to {100 * high:.1f}"
        assert row[7] == f"{100 * (trial['best_val_accuracy'] - base['best_val_accuracy']):+.1f}"
    for number in (f"{winner['best_val_accuracy']:.1%}", f"{winner['params']:,}", f"{base['best_val_accuracy']:.1%}"):
        assert number in text.split("\n## ")[0], "the verdict"
    refused = 1 + sum(board["refusals"].values())  # the one that was queued, and what the sampler refused
    assert f"\n\n2 trained, 0 pruned at rung, {refused} rejected, 0 failed" in section(text, "Leaderboard")
    assert ("Rejected before training" in text) == bool(board["refusals"])


@slow
def test_the_report_shows_the_winner_layer_by_layer_and_as_keras_does(copied: Run) -> None:
    text, network = report(copied), studies.network_of(copied)
    assert [tuple(row) for row in table(section(text, "The winner: trial"))[1:]] == [
        formatting.layer_cells(row) for row in layer_rows(network)
    ]
    cost, summary = compute_cost(network), section(text, "The winner as Keras sees it")
    assert f"Total params: {cost.params:,} " in summary
    assert f"Trainable params: {cost.trainable_params:,} " in summary
    assert f"Non-trainable params: {cost.params - cost.trainable_params:,} " in summary
    widths = {len(line) for line in summary.splitlines() if line[0] in "┏┡│├└"}
    assert widths == {page.SUMMARY_WIDTH}, "no column is cut off"


@slow
def test_the_report_holds_the_logs_as_they_were_written(copied: Run) -> None:
    text, number = report(copied), studies.best(copied, known(copied)[0]).number
    for title, name in (
        ("Training log of the base", "references/base"),
        (f"Training log of trial {number}", f"trials/{number}"),
    ):
        log = json.loads((copied.folder / name / "history.json").read_text())
        rows = table(section(text, title))[1:]
        assert [int(row[0]) for row in rows] == [1, 2, 3, 4]
        assert [row[4] for row in rows] == [f"{epoch['val_accuracy']:.2%}" for epoch in log]
        assert [float(row[3]) for row in rows] == pytest.approx([epoch["val_loss"] for epoch in log], abs=5e-5)


@slow
def test_the_checklist_of_a_run_is_about_its_winner(copied: Run) -> None:
    found, network = gather(copied, studies.load(copied)), studies.network_of(copied)
    rows = {asked: (mark, evidence) for mark, asked, evidence in table(section(report(copied), "Checklist"))[1:]}
    n_convs = sum(isinstance(layer, SeparableConv) for layer in network.layers)
    assert rows["separable convolutions only"] == ("✓", f"{n_convs} separable, 0 plain")
    assert rows["under the budget"] == (
        "✓",
        f"Keras counts {compute_cost(network).params:,} parameters, the budget is under 8,000",
    )
    assert rows["output sizes given"] == ("✓", f"for {len(network.layers)} of {len(network.layers)} layers")
    assert rows["at most 50 epochs"][0] == "✓" and rows["at most 50 epochs"][1].startswith("4 trained")
    marks = {Standing.AHEAD_ONCE: "✓", Standing.LEVEL_ONCE: "tie", Standing.BEHIND_ONCE: "✗"}
    assert rows["beats the base"] == (marks[found.verdict.standing], formatting.escaped(found.verdict.sentence))


@slow
def test_what_is_missing_is_said(copied: Run) -> None:
    shutil.rmtree(copied.folder / "references")
    number = studies.best(copied, known(copied)[0]).number
    (copied.folder / "trials" / str(number) / "history.json").write_text('[{"epoch": 1}]')
    text = report(copied)
    assert section(text, "Training log of the base").startswith("The log was not found in the run folder (references/base/")
    assert section(text, f"Training log of trial {number}").startswith("The log was not found in the run folder (trials/")


@slow
def test_a_base_that_is_a_plain_accuracy_has_no_log(copied: Run) -> None:
    run = replace(copied, config=copied.config.model_copy(update={"base": 0.999}))
    text = report(run)
    assert "99.9%: no network" in section(text, "The base")
    assert "there is no log" in section(text, "Training log of the base")
    assert text.startswith("# tiny: behind the base in one training")
    assert "| ✗ | beats the base |" in text


@slow
def test_a_shipped_base_is_shown_with_its_published_figures(copied: Run) -> None:
    text = report(replace(copied, config=copied.config.model_copy(update={"base": "base", "protocol": "course"})))
    assert ["published", "", "82.87%", "47", "82.02%"] in table(section(text, "The base"))
    assert "measured on the test images" in section(text, "Protocol course")


@slow
@pytest.mark.parametrize("columns", [None, "40"])
def test_keras_summary_does_not_depend_on_the_terminal(columns: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    network = Architecture((8, 8, 1), 10, (SeparableConv(10), GlobalAveragePool(), Softmax()))
    params, text = page.keras_summary(network)
    assert params == compute_cost(network).params
    assert f"{params} │" in text
    assert os.environ.get("COLUMNS") == columns


def test_nothing_trained_is_the_users_to_know(tmp_path: Path) -> None:
    run = hand_made(tmp_path)
    created = studies.create(run, load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None))
    with pytest.raises(UserError, match=r"no candidate has been trained yet .* python -m search run hand_made"):
        page.write_report(run, created)
    assert not (tmp_path / "report.md").exists()


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
    assert note.startswith("# hand_made: ahead of the base in one training, not confirmed\n\nTrial 2, the best of 2 trained")
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


def test_what_was_refused_before_a_trial_is_in_its_note() -> None:
    told = ATTRIBUTES | {"refused": {"over budget": 1_200, "same network": 1}}
    note = notes.trial_note(None, told, BUDGET)
    assert "\n\nRejected before this network was proposed: 1,200 over budget, 1 of a network tried before.\n" in note
    assert "Refused" not in notes.trial_note(None, ATTRIBUTES, BUDGET)


# --- what the winner gets wrong -------------------------------------------------------------------------------------


@slow
def test_the_winner_asked_again_is_as_right_as_it_was(copied: Run) -> None:
    found = gather(copied, studies.load(copied))
    answers = evaluate_winner(found)
    best = found.board["trials"][0]["best_val_accuracy"]
    tie = 1.5 / 359  # which other kernels may decide otherwise
    assert answers.measures["accuracy"] == pytest.approx(best, abs=tie)
    assert answers.confusion.sum(axis=1).tolist() == np.bincount(load_study_data(copied.config).y_val).tolist()
    assert answers.class_names == tuple("0123456789")


@slow
def test_a_winner_that_cannot_be_asked_again_says_why(copied: Run) -> None:
    found = gather(copied, studies.load(copied))
    with pytest.raises(UserError, match=r"the images differ from the study's: fingerprint [0-9a-f]+, not 0{16}"):
        evaluate_winner(replace(found, data={**found.data, "fingerprint": "0" * 16}))
    (copied.folder / "trials" / str(found.number) / "weights.npz").unlink()
    with pytest.raises(UserError, match="weights cannot be read"):
        evaluate_winner(found)


# --- the command line ------------------------------------------------------------------------------------------------


@slow
def test_run_leaves_a_page_that_agrees_with_top(finished: Run) -> None:
    page, board = (finished.folder / "report.html").read_text(encoding="utf-8"), judged(finished)
    told = re.search(r'<script type="application/json" id="leaderboard">(.*?)</script>', page)
    assert told and json.loads(told[1]) == json.loads(search("top", str(study_file(finished)), "--json")) == board
    winner = board["trials"][0]
    assert f"<strong>{winner['best_val_accuracy']:.1%}</strong>" in page and f">{winner['params']:,}<" in page
    right = re.search(r"evaluated again: ([\d.]+)% of 359 validation images", page)
    assert right
    wrong = IMAGES - round(IMAGES * float(right[1]) / 100)
    assert page.count('<img src="data:image/png;base64,') == min(wrong, 24) > 0


@slow
def test_report_writes_both_pages_anew(copied: Run) -> None:
    for name in ("report.html", "report.md"):
        (copied.folder / name).unlink()
    printed = search("report", str(study_file(copied))).split()
    assert [Path(path).name for path in printed] == ["report.html", "report.md", "card.svg", "card.png"]
    assert all(Path(path).is_file() for path in printed)


@slow
def test_run_leaves_the_report_and_the_notes(finished: Run) -> None:
    from optuna_dashboard import get_note
    from optuna_dashboard._note import get_note_from_system_attrs

    title = judged(finished)["standing"]["title"]
    assert (finished.folder / "report.md").read_text(encoding="utf-8").startswith(f"# tiny: {title}\n")
    study = studies.load(finished).candidates
    refused = 1 + sum(leaderboard(finished, *known(finished))["refusals"].values())
    assert f"2 trained, 0 pruned at rung, {refused} rejected" in get_note(study)
    attributes = study._storage.get_study_system_attrs(study._study_id)
    for trial in study.get_trials(deepcopy=False):
        note = get_note_from_system_attrs(attributes, trial._trial_id)["body"]
        assert note == notes.trial_note(
            studies.network_of(finished, trial.number), trial.user_attrs, finished.config.budget, IMAGES
        )
