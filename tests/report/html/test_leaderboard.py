"""The leaderboard of the report: its values, and how it sorts, filters, opens and saves in Chromium."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from report.analysis.findings import Findings, gather
from report.html import insights, markup
from report.html import page as html
from report.html.leaderboard import DRAWN, SHOWN, columns, leaderboard_rows, section
from search.budget.cost import compute_cost
from search.finals.statistics import wilson
from search.study.run import network_of
from tests.support.axe import violations
from tests.support.chromium import chromium, emulate
from tests.support.synthetic import fill, noise_images, storages_in_memory, synthetic_run

__all__ = ["chromium"]

TRIALS = 30


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Findings]:
    with storages_in_memory():
        run = synthetic_run(
            tmp_path_factory.mktemp("run"), recipe__epochs=6, search__trials=TRIALS, search__rungs={"first": 2, "factor": 3}
        )
        yield gather(run, fill(run, noise_images(), TRIALS))


@pytest.fixture(scope="module")
def address(found: Findings, tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(insights, "importances", lambda found: markup.Section("importance", "Importance", ""))
        path = tmp_path_factory.mktemp("page") / "report.html"
        path.write_text(html.page(found, "not asked here"), encoding="utf-8")
    return path.as_uri()


def unpacked(body: str) -> dict[str, Any]:
    packed = re.search(r'id="trials">([^<]*)<', body)
    assert packed
    values: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return values


# --- values ----------------------------------------------------------------------------------------------------------


def test_every_row_has_its_costs_and_its_interval(found: Findings) -> None:
    rows = {row["name"]: row for row in leaderboard_rows(found)}
    for number in (0, 7, found.number):
        cost, row = compute_cost(network_of(found.run, number, found.studies)), rows[str(number)]
        assert [row[key] for key in ("params", "macs", "flash_bytes", "arena_bytes")] == [
            cost.params, cost.macs, cost.flash_bytes, cost.arena_bytes,
        ]  # fmt: skip
        assert (row["low"], row["high"]) == wilson(row["best_val_accuracy"], found.board["val_images"])
    assert rows["base"]["params"] == 1_172_410 and rows["base"]["flash_bytes"] > 1_000_000


def test_candidates_tied_with_the_winner_are_marked(found: Findings) -> None:
    ranked = [row for row in leaderboard_rows(found) if row["rank"] is not None]
    ties = [row["rank"] for row in ranked if row["tie"]]
    assert ties == list(range(1, len(ties) + 1)), "the first ranks, without a gap"
    assert not any(row["tie"] for row in leaderboard_rows(found) if row["rank"] is None)


def test_trials_stopped_early_stand_below_the_ranked_ones(found: Findings) -> None:
    body = section(found).body
    kinds = re.findall(r'<tr class="([^"]*)" data-row', body)
    stopped = ["stopped" in kind for kind in kinds]
    assert any(stopped) and stopped == sorted(stopped)
    assert re.search(r"stopped after \d epochs?<", body)
    assert sum("more" in kind for kind in kinds) == max(len(kinds) - 1 - SHOWN, 0)


def test_a_study_ranked_by_int8_says_which_accuracy_is_which() -> None:
    titles = [column.title for column in columns({"ranked_by": "int8"})]
    assert titles[2:4] == ["best in int8", "best in float"] and "last in float" in titles
    assert [column.title for column in columns({})][2] == "best"


def test_a_row_without_a_float_accuracy_leaves_its_cell_empty(found: Findings) -> None:
    rows = leaderboard_rows(replace(found, board={**found.board, "ranked_by": "int8"}))
    assert {row["float_val_accuracy"] for row in rows} == {None}


def test_details_of_rows_are_packed_in_the_page(found: Findings) -> None:
    trials = unpacked(section(found).body)
    assert len(trials["rows"]) == TRIALS + 1
    ranked = [str(row["number"]) for row in trials["rows"] if row["rank"] is not None]
    assert list(trials["drawings"]) == list(trials["curves"]) == ranked[:DRAWN]
    assert trials["curves"][ranked[0]][-1] == round(10_000 * found.candidates[int(ranked[0])].curve[-1])
    assert set(trials["chosen"]) == {str(number) for number in range(TRIALS)}
    assert all(len(values) == len(trials["choices"]) for values in trials["chosen"].values())


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def page(address: str, chromium: Any) -> Any:
    emulate(chromium, 1280, "light")
    chromium.get(address)
    ready = "return document.getElementById('ranking').dataset.ready && document.documentElement.dataset.ready"
    WebDriverWait(chromium, 60).until(lambda browser: browser.execute_script(ready))
    return chromium


def shown(page: Any, column: int) -> list[str]:
    rows = "[...document.querySelectorAll('#ranking tbody tr[data-row]')].filter((row) => !row.hidden)"
    cells: list[str] = page.execute_script(f"return {rows}.map((row) => row.cells[{column}].innerText)")
    return cells


def focus(page: Any, selector: str) -> Any:
    page.execute_script(f"document.querySelector('{selector}').focus()")
    return page.switch_to.active_element


@pytest.mark.long
def test_the_leaderboard_works_by_keyboard(page: Any, found: Findings) -> None:
    assert len(shown(page, 0)) == 1 + SHOWN
    focus(page, ".whole").send_keys(Keys.ENTER)
    assert len(shown(page, 0)) == 1 + TRIALS
    focus(page, "th[data-key=params] button").send_keys(Keys.ENTER)
    params = [int(text.replace(",", "")) for text in shown(page, 4)]
    assert params[1:] == sorted(params[1:]) and params[0] == 1_172_410, "the base stays on top"
    focus(page, "th[data-key=params] button").send_keys(Keys.SPACE)
    assert [int(text.replace(",", "")) for text in shown(page, 4)][1:] == params[:0:-1]
    assert page.execute_script("return document.querySelector('th[data-key=params]').ariaSort") == "descending"
    focus(page, "th[data-key=rank] button").send_keys(Keys.ENTER)
    assert shown(page, 0)[1] == "1"
    focus(page, "#ranking .open").send_keys(Keys.ENTER)
    opened = page.execute_script("return document.querySelector('tr.opened').innerText")
    assert f"python -m search show synthetic {found.number}" in opened and "Multiply-adds" in opened
    assert page.execute_script("return document.querySelectorAll('tr.opened svg').length") == 2
    assert page.switch_to.active_element.get_attribute("aria-expanded") == "true"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert not page.execute_script("return document.querySelector('tr.opened')")
    focus(page, "#filter").send_keys(f"trial {found.number};")
    assert len(shown(page, 0)) == 1
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_leaderboard_is_saved_as_csv_and_json(page: Any, found: Findings) -> None:
    rows = list(csv.DictReader(page.execute_script("return leaderboardText('csv')").splitlines()))
    assert [row["name"] for row in rows] == [row["name"] for row in leaderboard_rows(found)]
    best = found.board["trials"][0]
    assert float(rows[1]["best_val_accuracy"]) == pytest.approx(best["best_val_accuracy"], abs=1e-6)
    assert int(rows[1]["params"]) == best["params"]
    values = json.loads(page.execute_script("return leaderboardText('json')"))
    assert len(values) == TRIALS + 1 and values[1]["number"] == found.number
    assert set(values[1]["choices"]) == {name.replace("_", " ") for name in found.run.config.parameters}


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1280, "light"), *(pytest.param(*case, marks=pytest.mark.long) for case in ((1280, "dark"), (390, "light")))],
)
def test_the_page_breaks_no_rule_of_accessibility(page: Any, width: int, scheme: str) -> None:
    emulate(page, width, scheme, is_phone=width < 600)
    page.refresh()
    ready = "return document.getElementById('ranking').dataset.ready && document.documentElement.dataset.ready"
    WebDriverWait(page, 60).until(lambda browser: browser.execute_script(ready))
    page.execute_script(
        "document.querySelector('#ranking .open').click();"
        "dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'));"
        "for (const folded of document.querySelectorAll('details')) folded.open = true;"
    )
    assert violations(page) == []
