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

from report.analysis.findings import gather
from report.analysis.mistakes import evaluate_winner
from report.analysis.verdict import Standing
from report.dashboard import notes
from report.markdown import formatting
from report.markdown import report as page
from report.tables import leaderboard, refusal_words
from search.budget.cost import compute_cost
from search.budget.summary import layer_rows
from search.data.dataset import load_dataset
from search.errors import UserError
from search.finals.statistics import wilson
from search.networks.architecture import Architecture
from search.networks.layers import (
    GlobalAveragePool,
    SeparableConv,
    Softmax,
)
from search.study import records as study_records
from search.study import run as studies
from search.study.dataset import load_study_data
from search.study.records import Record
from search.study.run import Run
from tests.support.reports import IMAGES, hand_made, record, rejected, table
from tests.support.runs import copied, finished, search, study_file

__all__ = ["copied", "finished"]


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


# --- the leaderboard -------------------------------------------------------------------------------------------------


def test_unranked_trials_stand_below_the_longest_trained_first() -> None:
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


def test_rejected_proposals_are_counted_by_rule_with_some_sizes() -> None:
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


def test_missing_parts_are_reported(copied: Run) -> None:
    shutil.rmtree(copied.folder / "references")
    number = studies.best(copied, known(copied)[0]).number
    (copied.folder / "trials" / str(number) / "history.json").write_text('[{"epoch": 1}]')
    text = report(copied)
    assert section(text, "Training log of the base").startswith("The log was not found in the run folder (references/base/")
    assert section(text, f"Training log of trial {number}").startswith("The log was not found in the run folder (trials/")


def test_a_base_that_is_a_plain_accuracy_has_no_log(copied: Run) -> None:
    run = replace(copied, config=copied.config.model_copy(update={"base": 0.999}))
    text = report(run)
    assert "99.9%: no network" in section(text, "The base")
    assert "there is no log" in section(text, "Training log of the base")
    assert text.startswith("# tiny: behind the base in one training")
    assert "| ✗ | beats the base |" in text


def test_a_shipped_base_is_shown_with_its_published_figures(copied: Run) -> None:
    text = report(replace(copied, config=copied.config.model_copy(update={"base": "base", "protocol": "course"})))
    assert ["published", "", "82.87%", "47", "82.02%"] in table(section(text, "The base"))
    assert "measured on the test images" in section(text, "Protocol course")


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


# --- what the winner gets wrong -------------------------------------------------------------------------------------


def test_the_winner_asked_again_is_as_right_as_it_was(copied: Run) -> None:
    found = gather(copied, studies.load(copied))
    answers = evaluate_winner(found)
    best = found.board["trials"][0]["best_val_accuracy"]
    tie = 1.5 / 359  # which other kernels may decide otherwise
    assert answers.measures["accuracy"] == pytest.approx(best, abs=tie)
    assert answers.confusion.sum(axis=1).tolist() == np.bincount(load_study_data(copied.config).y_val).tolist()
    assert answers.class_names == tuple("0123456789")


def test_a_winner_that_cannot_be_asked_again_says_why(copied: Run) -> None:
    found = gather(copied, studies.load(copied))
    with pytest.raises(UserError, match=r"the images differ from the study's: fingerprint [0-9a-f]+, not 0{16}"):
        evaluate_winner(replace(found, data={**found.data, "fingerprint": "0" * 16}))
    (copied.folder / "trials" / str(found.number) / "weights.npz").unlink()
    with pytest.raises(UserError, match="weights cannot be read"):
        evaluate_winner(found)


# --- the command line ------------------------------------------------------------------------------------------------


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


def test_report_writes_both_pages_anew(copied: Run) -> None:
    for name in ("report.html", "report.md"):
        (copied.folder / name).unlink()
    printed = search("report", str(study_file(copied))).split()
    assert [Path(path).name for path in printed] == ["report.html", "report.md", "card.svg", "card.png"]
    assert all(Path(path).is_file() for path in printed)


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
