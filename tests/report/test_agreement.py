"""One study told by page, Markdown, note, notebook, card, terminal and JSON: what two of them tell is the same."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from report.analysis.findings import Findings, gather
from report.analysis.mistakes import summarize
from report.card.picture import card
from report.card.scene import Label
from report.dashboard.notes import study_note
from report.html import insights, markup
from report.html import page as html
from report.markdown.report import Mark, checks, write_report
from report.submission.cells import HandIn, cells
from report.submission.code import Network
from search.cli.finals_table import print_finals
from search.cli.tables import print_leaderboard, print_verdict
from search.study.dataset import images_of
from search.training.recipe import Recipe
from tests.support.synthetic import fill, finals_of, noise_images, storages_in_memory, synthetic_run

TRIALS = 12
BASES = [0.831, 0.826, 0.834]
SCORES = {"tie": [0.832, 0.83, 0.829], "beaten": [0.871, 0.866, 0.879], "behind": [0.75, 0.76, 0.752], "none": []}
STANDINGS = {"tie": "tied", "beaten": "beaten", "behind": "behind", "none": None}
MARKS = {"tie": Mark.TIE, "beaten": Mark.MET, "behind": Mark.MISSED}


class Words(HTMLParser):
    """Text of a page without scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.is_hidden = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.is_hidden = tag in ("script", "style")
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += "" if self.is_hidden else data

    def handle_endtag(self, tag: str) -> None:
        self.is_hidden = False


@pytest.fixture(scope="module", params=list(SCORES))
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Findings, dict[str, str]]]:
    """(case, findings, each rendition as plain text) of one study."""
    with storages_in_memory(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("report.markdown.report.keras_summary", lambda network: (90_000, "as Keras sees it"))
        patch.setattr(insights, "importances", lambda found: markup.Section("importance", "Importance", ""))
        run = synthetic_run(tmp_path_factory.mktemp("run"), recipe__epochs=6, search__rungs={"first": 2})
        found = gather(run, fill(run, noise_images(), TRIALS, base=0.8))
        finals = None
        if scores := SCORES[request.param]:
            finals = finals_of({"base": BASES, f"trial-{found.number}": scores})
        found = Findings(**{**found.__dict__, "finals": finals})
        yield request.param, found, dict(renditions(found))


def renditions(found: Findings) -> Iterator[tuple[str, str]]:
    run, images = found.run, images_of(found.data, "validation")
    data = noise_images()
    scores = np.random.default_rng(0).dirichlet(np.ones(10), len(data.y_val)).astype(np.float32)
    page = html.page(found, summarize(scores, data))
    yield "page", plain(Words(page.split('id="curves"')[0]).text)  # the sections that follow tell of other things
    yield "markdown", plain(write_report(run, found.studies, found).read_text())
    yield "note", plain(study_note(run, found.candidates, found.references, found.data, found.finals, found.expected))
    network = Network("winner", "net", "best_model", "", Recipe(), "float32")
    checked = tuple(checks(run.config, found.network, 90_000, found.board, found.verdict))
    base = found.board["base"]["best_val_accuracy"]
    given = HandIn("title", found.verdict, "holdout", 100_000, None, base, network, checked, images, None)
    given = replace(given, unfinished=found.unfinished)
    yield "notebook", plain("\n".join(cell.text for cell in cells(given) if cell.kind == "markdown"))
    console = Console(file=io.StringIO(), width=160)
    print_leaderboard(console, dict(found.board), run.config)
    if found.finals:
        print_finals(console, run, found.finals, images)
    print_verdict(console, found.verdict)
    yield "card", plain(" ".join(shape.text for shape in card(found) if isinstance(shape, Label)))
    yield "terminal", plain(console.file.getvalue())  # type: ignore[attr-defined]


def plain(text: str) -> str:
    """The text without escapes, with single spaces."""
    return " ".join(re.sub(r"\\(?=[^\w\s])", "", text).replace("\u00a0", " ").replace("\u2003", " ").split())


def percentages(text: str) -> set[str]:
    return set(re.findall(r"(?<![\d.])(\d+\.\d+)%", text))


def test_every_rendition_tells_the_one_verdict(told: tuple[str, Findings, dict[str, str]]) -> None:
    case, found, texts = told
    verdict = found.verdict
    if STANDINGS[case] is None:
        assert not verdict.standing.is_confirmed
    else:
        assert verdict.standing == STANDINGS[case]
    for name, text in texts.items():
        parts = [verdict.text]
        if name == "page":
            parts = [verdict.sentence, " ".join(verdict.remarks)]  # a picture between them
        elif name == "card":
            parts = [verdict.sentence[:200]]  # as much as two lines hold
        assert [part for part in map(plain, parts) if part not in text] == [], name
    for name in ("page", "markdown", "note", "card"):
        assert f"{found.run.name}: {verdict.title}" in texts[name], name
    plain_json = json.loads(json.dumps(found.judged_board))["standing"]
    assert (plain_json["standing"], plain_json["text"]) == (verdict.standing.value, verdict.text)


def test_every_page_of_an_unfinished_study_says_so_before_the_verdict(told: tuple[str, Findings, dict[str, str]]) -> None:
    _, found, texts = told
    assert found.run.config.trials > TRIALS
    assert found.unfinished is not None
    assert f"{TRIALS} of {found.run.config.trials} trials are trained" in found.unfinished
    for name in ("page", "markdown", "note", "notebook"):
        text = texts[name]
        assert text.index(plain(found.unfinished)) < text.index(plain(found.verdict.sentence)), name


def test_no_rendition_contradicts_the_verdict(told: tuple[str, Findings, dict[str, str]]) -> None:
    case, found, texts = told
    others = {"the base is beaten", "the base is not beaten", "a tie with the base"} - {found.verdict.title}
    for name, text in texts.items():
        assert not [words for words in others if words in text], name
        assert ("✓ | beats the base" in text or "| ✗ | beats the base" in text or "| tie | beats the base" in text) == (
            name in ("markdown", "notebook")
        )
    if case in MARKS:
        for name in ("markdown", "notebook"):
            assert f"| {MARKS[case].value} | beats the base |" in texts[name]
    assert ("only finals read the test images" in texts["page"]) == (found.finals is None)


def test_every_percentage_that_one_tells_is_in_the_write_up(told: tuple[str, Findings, dict[str, str]]) -> None:
    """A figure rounded otherwise elsewhere would be another text."""
    _, _, texts = told
    for name, text in texts.items():
        strange = percentages(text) - set(re.findall(r"(?<![\d.])\d+\.\d+", texts["markdown"]))
        assert not strange, (name, strange)


def test_figures_are_those_of_the_json(told: tuple[str, Findings, dict[str, str]]) -> None:
    _, found, texts = told
    board = json.loads(json.dumps(found.judged_board))
    best, base = board["trials"][0], board["base"]
    accuracy, params = f"{best['best_val_accuracy']:.1%}", f"{best['params']:,}"
    for name, text in texts.items():
        assert params in text, name
        assert accuracy in text or (name == "card" and found.finals), name  # the card then has that of the finals
    for row in [trial for trial in board["trials"] if trial["rank"]][:5]:
        gap = f"{100 * (row['best_val_accuracy'] - base['best_val_accuracy']):+.1f}"
        for name in ("page", "markdown", "note", "terminal"):
            accuracy, params = f"{row['best_val_accuracy']:.1%}", f"{row['params']:,}"
            cells_ = rf"{row['number']} .{{0,4}}{params} .{{0,4}}{accuracy} .*?{re.escape(gap)}"
            if name == "page":  # has the accuracy and its interval first
                cells_ = rf"{row['number']} {accuracy} [\d.]+ to [\d.]+ {re.escape(gap)} {params} "
            assert re.search(cells_, texts[name]), (name, cells_)


def test_pruned_candidates_stand_in_a_group_of_their_own(told: tuple[str, Findings, dict[str, str]]) -> None:
    _, found, texts = told
    stopped = [row for row in found.board["trials"] if row["rank"] is None]
    assert stopped
    for name in ("page", "markdown", "terminal"):
        assert "Stopped early, not comparable" in texts[name]
        after = texts[name].split("Stopped early, not comparable")[1]
        for row in stopped:
            number, params, epochs = row["number"], f"{row['params']:,}", row["epochs"]
            if name == "page":  # one table, in which their rows say so
                cells_, after = (
                    rf"{number} [\d.]+% [\d.]+ to [\d.]+ {params} [^%]*% \d+ stopped after {epochs} epochs",
                    texts[name],
                )
            else:
                cells_ = rf"{number} .{{0,4}}{params} .{{0,4}}{epochs} "
            assert re.search(cells_, after), (name, cells_)


def test_no_rendition_but_the_terminal_names_a_path_of_the_machine(told: tuple[str, Findings, dict[str, str]]) -> None:
    _, found, texts = told
    for name, text in texts.items():
        assert str(found.run.folder) not in text and str(Path.cwd()) not in text, name
