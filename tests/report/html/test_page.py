"""report.html: what stands on the page of a study of made-up trials, whatever it is called, and how Chromium shows it.

With SHOTS=FOLDER the browser tests leave screenshots there.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.support.ui import WebDriverWait

from report.analysis.findings import Findings, gather
from report.analysis.parts import nets
from report.html import insights, markup, results
from report.html import page as html
from report.markdown.report import write_report
from report.markdown.summary import leaderboard_table
from report.pareto import front_board, front_table
from report.tables import gap_text, interval_text
from search.data.sources import CIFAR10_CLASSES, CIFAR100_CLASSES
from search.study.config import STUDIES
from search.study.run import Opened
from search.text import format_percent
from tests.support.chromium import chromium, emulate
from tests.support.html_elements import Parsed, answers, found, text
from tests.support.synthetic import fill, finals_of, noise_images, storages_in_memory, synthetic_run

__all__ = ["chromium", "found", "text"]


RESIDUAL = STUDIES / "cifar10_100k_residual" / "study.toml"
ABLATION = STUDIES / "ablation_normalisation" / "study.toml"
HOSTILE = ("</script><script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "<b>&amp;", "a|b", "<!--", "{{7*7}}")


@pytest.fixture(scope="module")
def page(text: str) -> Parsed:
    return Parsed(text)


# --- what stands there -----------------------------------------------------------------------------------------------


def test_the_embedded_leaderboard_is_that_of_top(found: Findings, page: Parsed) -> None:
    assert page.leaderboard() == json.loads(json.dumps(found.judged_board))


def test_both_pages_show_the_same_rows(found: Findings, page: Parsed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("report.markdown.report.keras_summary", lambda network: (1, "as Keras sees it"))
    known, images = leaderboard_table(found.board), found.board["val_images"]
    shown = {row[1]: row for row in page.tables["Leaderboard"][1:]}
    assert [row[0] for row in page.tables["Leaderboard"][1:]] == [row[0] for row in known.rows]
    for scores in found.board["trials"]:
        row = shown[str(scores["number"])]
        assert row[0] == str(scores["rank"]) and row[4] == f"{scores['params']:,}"
        assert row[2].startswith(f"{format_percent(scores['best_val_accuracy'], images)} ")
        assert row[2].endswith(f" {interval_text(found.board, scores)}")
        assert row[3] == gap_text(found.board, scores)
    markdown = write_report(found.run, found.studies, found).read_text(encoding="utf-8")
    assert all(f"| {' | '.join(row)} |" in markdown for row in known.rows)
    for line in page.tables["Finals"][1:]:
        assert f"| {' | '.join(line)} |" in markdown


def test_every_entry_of_the_contents_leads_to_a_section(page: Parsed) -> None:
    ids = [section["id"] for section in page.named("section")]
    assert [link["href"] for link in page.named("a")] == [f"#{place}" for place in ids]
    assert ids == ["leaderboard", "finals", "curves", "progress", "costs", "winner", "mistakes", "choices", "importance",
                   "parameters", "refused", "time", "asked"]  # fmt: skip


def test_the_verdict_stands_at_the_top(found: Findings, page: Parsed) -> None:
    head = page.words.partition("Protocol ")[0].replace("\u00a0", " ")
    best = found.board["trials"][0]
    assert "synthetic: the base is beaten" in head
    assert found.verdict.sentence in head
    assert all(remark in page.words.replace("\u00a0", " ") for remark in found.verdict.remarks)
    for words in (
        f"trial {best['number']}",
        f"{best['best_val_accuracy']:.1%}",
        f"{best['params']:,}",
        "points above the base",
    ):
        assert words in head
    assert f"Confirmed on 3 fresh seeds: trial {best['number']} with" in head
    assert page.named("dl", **{"class": "tiles beaten"})
    assert f"python -m search export {found.run.name}" in page.words


def test_the_page_loads_nothing(text: str, page: Parsed) -> None:
    policy = page.named("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy and policy.startswith("default-src 'none'") and "http" not in policy
    for tag, attributes in page.elements:
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/png;base64,")), (tag, attributes)
    assert not page.named("link") and "@import" not in text
    assert len(text) < 2_600_000, "plotly is packed"


def test_figures_can_be_read_on_any_background(page: Parsed) -> None:
    assert len(page.figures()) == len(page.named("div", **{"class": "plot"})) == 11
    for figure in page.figures():
        assert figure["data"], "something is drawn"
        assert figure["layout"]["paper_bgcolor"] == figure["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert "title" not in figure["layout"], "the section has it"


def test_a_percent_sign_stays_with_its_number(page: Parsed) -> None:
    assert "the base (95\u00a0% interval" in page.words


def test_the_winner_and_its_mistakes_are_shown(found: Findings, page: Parsed) -> None:
    assert page.named("svg", **{"class": "network-drawing folded"})
    pictures, worst = page.named("img"), answers().worst
    assert len(pictures) == len(worst) == 24
    assert [one["alt"] for one in pictures] == [f"an image of class {CIFAR10_CLASSES[one.truth]}" for one in worst]
    matrix = page.tables["Confusion matrix: rows are true classes, columns predicted ones"]
    assert matrix[0][1:-1] == list(CIFAR10_CLASSES)
    assert [[int(cell or 0) for cell in row[1:-1]] for row in matrix[1:]] == answers().confusion.tolist()
    assert [row[-1] for row in matrix[1:]] == [
        f"{row[n] / sum(row):.0%}" for n, row in enumerate(answers().confusion.tolist())
    ]


@pytest.mark.usefixtures("quick")
def test_many_classes_are_a_figure_with_their_names(found: Findings) -> None:
    page = Parsed(html.page(found, answers(CIFAR100_CLASSES)))
    heat = next(figure for figure in page.figures() if figure["data"][0]["type"] == "heatmap")["data"][0]
    assert heat["x"] == list(CIFAR100_CLASSES) and np.shape(heat["z"]) == (100, 100)
    assert page.tables["Most frequent confusions"][1][2] == str(heat_max(heat))


def heat_max(heat: dict[str, Any]) -> int:
    counts = np.array(heat["customdata"])
    np.fill_diagonal(counts, 0)
    return int(counts.max())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the section that takes longest to work out."""
    monkeypatch.setattr(insights, "importances", lambda found: markup.Section("importance", "Importance", ""))


@pytest.mark.usefixtures("quick")
def test_a_section_without_its_data_says_why(found: Findings) -> None:
    page = Parsed(html.page(replace(found, finals=None), "weights.npz: cannot be read"))
    assert "What the winner gets wrong: weights.npz: cannot be read" in page.words
    assert "python -m search finals synthetic" in page.words
    assert not page.named("img")


def test_too_few_trials_are_said_to_be_too_few(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, recipe__epochs=2)
        few = gather(run, fill(run, noise_images(), 6))
        page = Parsed(html.page(few, answers()))
    assert [section["id"] for section in page.named("section")][-2:] == ["later", "asked"]
    assert "Good and bad candidates: needs 20 candidates, there are 6" in page.words
    assert "Importance of each choice: needs 20 trials trained in full, there are 6" in page.words
    assert (
        "trials trained in full, there are 6" in page.words
        and "Where the next thousand parameters pay: needs " in page.words
    )
    assert not {"choices", "importance", "parameters", "finals"} & {section["id"] for section in page.named("section")}


@pytest.mark.usefixtures("quick")
def test_only_the_course_protocol_is_warned_of(found: Findings, page: Parsed) -> None:
    course = replace(found.run, config=found.run.config.model_copy(update={"protocol": "course"}))
    warned = Parsed(html.page(replace(found, run=course), "gone"))
    assert warned.named("div", **{"class": "notice warning"}) and "measured on the test images" in warned.words
    assert not page.named("div", **{"class": "notice warning"})


@pytest.mark.usefixtures("quick")
def test_a_base_that_is_a_plain_accuracy_or_not_trained_is_reported(found: Findings) -> None:
    level = replace(found.run, config=found.run.config.model_copy(update={"base": 0.84}))
    board = {**found.board, "base": {**dict.fromkeys(found.board["base"]), "best_val_accuracy": 0.84}}
    told = Parsed(html.page(replace(found, run=level, board=board, finals=None), "gone")).words
    assert "a plain accuracy" in told and "84.0%" in told
    trials = [{**row, "delta_vs_base": None} for row in found.board["trials"]]
    untrained = replace(found, references=[], finals=None, board={**found.board, "base": None, "trials": trials})
    page = Parsed(html.page(untrained, "gone"))
    assert "the base has not been trained" in page.words


def test_an_ablation_has_its_effects_and_no_section_on_widths(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, ABLATION, recipe__epochs=2, search__repeats=2)
        ablation = gather(run, fill(run, noise_images(), run.config.size or 0))
        page = Parsed(html.page(ablation, "gone"))
    ids = [section["id"] for section in page.named("section")]
    assert "effects" in ids and not {"choices", "parameters"} & set(ids)
    assert "each trained on the same 2 seeds" in page.words
    assert "repeat" not in str(page.figures()), "a seed is no choice"


def test_a_residual_study_is_shown_stage_by_stage_and_a_budget_with_all_its_limits(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, RESIDUAL, recipe__epochs=7, search__rungs=None, budget__macs=100_000_000)
        residual = gather(run, fill(run, noise_images(), 40))
        best = replace(residual.candidates[residual.number], flip_val_accuracy=0.9234)
        known = [best if one.number == best.number else one for one in residual.candidates]
        page = Parsed(html.page(replace(residual, candidates=known), "gone"))
    assert "under 100,000 parameters and 100,000,000 multiply-adds" in page.words
    for words in ("Width of each stage", "Number of blocks of each stage", "never ranked, it reaches 92.3%"):
        assert words in page.words
    assert not {"width 1", "blocks 1"} & {row[0] for row in page.tables["Other choices"]}
    assert {"stages", "kernel 1", "block", "expansion"} <= {row[0] for row in page.tables["Other choices"]}


def test_every_cost_that_the_budget_limits_has_its_front(found: Findings, page: Parsed, tmp_path: Path) -> None:
    plain = front_board(Opened(found.run, found.candidates, found.references), ("params",), found.studies)
    assert plain["val_images"] == found.board["val_images"], "so that both tables have the same decimals"
    label = "The front of accuracy against parameters"
    assert [tuple(row) for row in page.tables[label][1:]] == list(front_table(plain).rows)
    assert f"{label}: {len(plain['trials'])} candidates that no other beats" in page.words
    with storages_in_memory():
        run = synthetic_run(tmp_path, STUDIES / "tinyml" / "study.toml", search__rungs=None)
        tiny = gather(run, fill(run, noise_images(), 12))
        costs = Parsed(results.costs(tiny).body)
    titles = ["Parameters", "Multiply-adds", "Bytes of flash", "Bytes of arena"]
    assert [title for title in titles if title in costs.words] == titles and "at once" not in costs.words
    assert [one["layout"]["shapes"][-1]["x0"] for one in costs.figures()] == [60_000, 8_000_000, 65_537, 65_537]
    for figure in costs.figures():
        assert sum(len(one["x"]) for one in figure["data"] if one["name"] == "trained (12)") == 12
    (rows,) = [rows for label, rows in costs.tables.items() if "flash" in label]
    assert rows[0][:4] == ["rank", "trial", "bytes of flash in int8", "parameters"]
    assert rows[1][1] == "base" and int(rows[1][2].replace(",", "")) > 65_536
    sizes = [int(row[2].replace(",", "")) for row in rows[2:]]
    assert sizes == sorted(sizes) and sizes[-1] <= 65_536


def test_the_script_data_can_hold_anything() -> None:
    for value in (*HOSTILE, {"a": [1, None, "]]>"]}):
        data = markup.script_data(value)
        assert json.loads(data) == value
        assert not re.search(r"[<>&]", data)


@pytest.mark.usefixtures("quick")
def test_names_of_users_are_text_and_nothing_else(found: Findings) -> None:
    classes = HOSTILE + CIFAR10_CLASSES[len(HOSTILE):]  # fmt: skip
    name = HOSTILE[0]
    run = replace(found.run, name=name, called=shlex.join([HOSTILE[1]]))
    data = {**found.data, "class_names": list(classes), "summary": HOSTILE[1]}
    failed = replace(found.candidates[-1], outcome="failed", reason=HOSTILE[0], best_val_accuracy=None)
    board = {**found.board, "study": name, "counts": {**found.board["counts"], "failed": 1}}
    board["references"] = [{**found.board["base"], "name": HOSTILE[2]}]
    finals = finals_of({"base": [0.8, 0.81], HOSTILE[0].replace("-", ""): [0.9, 0.91]})
    network = replace(found.network, name=HOSTILE[0])
    changed = replace(found, run=run, data=data, board=board, finals=finals, network=network)
    changed = replace(changed, candidates=[*found.candidates[:-1], failed])
    plain, page = Parsed(html.page(found, answers())), Parsed(html.page(changed, answers(classes)))
    assert len(page.named("script")) == len(plain.named("script"))
    assert len(page.named("img")) == len(answers(classes).worst)
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert not any("<!--" in text for _, text in page.scripts[:-2])
    for words in (*HOSTILE, f"class {HOSTILE[0]}"):
        assert words in page.words or any(words in str(one["alt"]) for one in page.named("img"))
    assert page.leaderboard()["study"] == name


def test_thousands_of_trials_are_drawn_as_bands_and_with_webgl(found: Findings) -> None:
    """A figure does not grow with the study where a person could not tell its lines apart."""
    many = [replace(one, number=number) for number, one in enumerate(found.candidates * 10)]
    big = replace(found, candidates=many)
    costs = Parsed(f"<div>{html.results.costs(big).body}</div>").figures()
    assert {trace["type"] for figure in costs for trace in figure["data"] if len(trace["x"]) > 1_000} == {"scattergl"}
    plots = Parsed(f"<div>{insights.choices(found, nets(found) * 10).body}</div>").figures()  # type: ignore[union-attr]
    assert all(len(trace["x"]) <= 2 * 10 for figure in plots for trace in figure["data"])


# --- in a browser ----------------------------------------------------------------------------------------------------


def open_page(browser: Any, path: Path) -> Any:
    """Open a page and wait until plotly is unpacked; returns the function that runs JavaScript."""
    browser.get(path.as_uri())
    WebDriverWait(browser, 30).until(lambda b: b.execute_script("return document.documentElement.dataset.ready"))
    return browser.execute_script


@pytest.mark.parametrize(
    ("width", "is_phone", "scheme"),
    [
        (1280, False, "light"),
        (390, True, "dark"),
        pytest.param(1280, False, "dark", marks=pytest.mark.long),
        pytest.param(390, True, "light", marks=pytest.mark.long),
    ],
)
def test_the_page_is_whole_on_every_screen(
    width: int, is_phone: bool, scheme: str, text: str, chromium: Any, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    emulate(chromium, width, scheme, is_phone=is_phone)
    script = open_page(chromium, tmp_path / "report.html")
    assert script("return document.querySelectorAll('.plot > .plot-container').length") < 11, "what is far below waits"
    script("dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))")
    assert script("return document.querySelectorAll('.plot > .plot-container').length") == 11
    assert script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    too_wide = """return [...document.querySelectorAll('main *')]
        .filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll'))
        .map(one => one.outerHTML.slice(0, 80))"""
    assert script(too_wide) == []
    loaded = "return performance.getEntriesByType('resource').map(one => one.name).filter(name => !name.startsWith('data:'))"
    assert script(loaded) == []
    colour = script("return getComputedStyle(document.querySelector('.plot .xtick text')).fill")
    assert colour == {"light": "rgb(87, 98, 109)", "dark": "rgb(158, 170, 182)"}[scheme]
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []
    if folder := os.environ.get("SHOTS"):
        height = script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = chromium.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        (Path(folder) / f"report_{width}_{scheme}.png").write_bytes(base64.b64decode(shot["data"]))


@pytest.mark.long
def test_figures_follow_the_readers_scheme(text: str, chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    emulate(chromium, 1280, "light")
    open_page(chromium, tmp_path / "report.html")
    chromium.execute_script("dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))")
    tick = "return getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    before = chromium.execute_script(tick)
    emulate(chromium, 1280, "dark")
    chromium.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 300))")
    assert chromium.execute_script(tick) != before
