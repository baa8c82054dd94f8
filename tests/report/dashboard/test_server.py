"""The dashboard as it is served: requests, stored files, and its pages in a real browser.

The browser tests are skipped where no Chromium is installed; CI_REQUIRE_SERVERS=1 makes that a failure. With SHOTS=FOLDER
they leave screenshots there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from report.dashboard import server as dashboard
from report.dashboard.publish import GRAPHS, Redraw, publish_trial_note
from report.figures.data import REJECTED
from search.errors import UserError
from search.storage.resilient import ResilientStorage
from search.storage.urls import sqlite_url
from search.study import config as configs
from search.study import run as studies
from search.study import study_file as study_files
from search.study.run import Run
from tests.fault_table import Results, record
from tests.support.chromium import chromium
from tests.support.dashboards import Site, leaderboard_of, serving, site
from tests.support.processes import NUMPY
from tests.support.runs import ROOT, copied, finished, study_file

__all__ = ["chromium", "copied", "finished", "site"]


pytestmark = pytest.mark.usefixtures("patched")  # what is served in this process patches optuna-dashboard in it


# --- the server ------------------------------------------------------------------------------------------------------


def test_a_run_that_has_not_started_has_no_dashboard(tmp_path: Path) -> None:
    run = Run("nothing", tmp_path, study_files.load(configs.STUDIES / "quickstart" / "study.toml"), sqlite_url(tmp_path))
    with pytest.raises(UserError, match="there is no such file"):
        dashboard.serve(run, 0, on_ready=print)


class Wsgi:
    """The dashboard of a run in this process."""

    def __init__(self, run: Run) -> None:
        self._application = dashboard._marking_reads(dashboard._application(run))

    def ask(self, path: str, method: str = "GET") -> tuple[str, bytes]:
        """(status, body) of a request."""
        told: list[str] = []
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path}
        setup_testing_defaults(environ)
        body = b"".join(self._application(environ, lambda status, *_: told.append(status) or (lambda text: None)))
        return told[0], body


@pytest.fixture(scope="module")
def changing(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Run]]:
    """The dashboard of a copy, to be changed, whose write-ups were written anew since its study ended."""
    folder = tmp_path_factory.mktemp("changing") / "copy"
    shutil.copytree(finished.folder.parent, folder)
    run = studies.find(str(folder / "tiny.toml"), None, None)
    (run.folder / "report.html").write_text("<p>later</p>")
    (run.folder / "report.md").write_text("later too")
    with serving(run) as site:
        yield site, run


def test_row_27_foreign_hosts_get_403_and_change_nothing(site: Site) -> None:
    path = f"/api/studies/{site.study_id}"
    tries = 0
    for method in ("GET", "DELETE", "POST", "PUT"):
        assert site.ask(method, path, Host=f"evil.example:{site.port}")[0] == 403
        tries += 1
    for method in ("DELETE", "GET"):
        assert site.ask(method, path, Host=f"localhost:{site.port}", Origin="http://evil.example")[0] == 403
        tries += 1
    for host in (f"localhost:{site.port}", f"127.0.0.1:{site.port}", f"[::1]:{site.port}", "localhost:9000"):
        assert site.ask("GET", path, Host=host)[0] == 200
    assert site.ask("GET", "/dashboard", Host=f"localhost:{site.port}")[0] == 200
    assert site.detail()["name"] == "tiny"
    record({27: tries}, Results(0, 0))


def test_row_27_without_the_token_nothing_is_read_or_deleted(site: Site) -> None:
    path = f"/api/studies/{site.study_id}"
    for cookie in ("", f"{site.access.cookie}=guess"):
        assert site.ask("GET", path, Cookie=cookie)[0] == 403
        assert site.ask("DELETE", path, Cookie=cookie)[0] == 403
    assert site.detail()["name"] == "tiny"
    record({27: 4}, Results(0, 0))


def test_only_loopback_is_bound(site: Site) -> None:
    """Every address of 127.0.0.0/8 is this machine, and the server is bound to one of them alone."""
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", site.port), timeout=5):
        pass


def test_a_port_in_use_is_the_users_to_change(site: Site, finished: Run) -> None:
    with pytest.raises(UserError, match=f"port {site.port} is in use; pass --port"):
        dashboard.serve(finished, site.port, on_ready=print)


def test_the_best_is_the_trained_best_and_the_rejected_have_no_value(site: Site, finished: Run) -> None:
    detail, board = site.detail(), leaderboard_of(finished)
    assert [trial["values"] for trial in detail["best_trials"]] == [[board["trials"][0]["best_val_accuracy"]]]
    states = {trial["number"]: trial["state"] for trial in detail["trials"]}
    assert states == {0: "Complete", 1: "Pruned", 2: "Complete"}
    assert "values" not in detail["trials"][1]


def test_sortable_columns_are_numbers(site: Site) -> None:
    sortable = {column["key"]: column["sortable"] for column in site.detail()["union_user_attrs"]}
    for name in ("params", "macs", "best_val_accuracy", "best_epoch", "final_val_accuracy", "delta_vs_base", "seconds"):
        assert sortable[name], name


def test_the_graphs_stand_in_their_order(site: Site) -> None:
    graphs = {graph["id"]: json.loads(graph["graph_object"]) for graph in site.detail()["plotly_graph_objects"]}
    assert list(graphs) == list(GRAPHS)
    names = {name: {trace["name"].split(" (")[0] for trace in graph["data"]} for name, graph in graphs.items()}
    assert names["learning-curves"] == {"base", "trial 0", "trial 2", "next best"}
    assert names["accuracy-by-macs"] == {"trained", "Pareto front", "base", "winner: trial 2"}
    assert names["accuracy-by-params"] == names["accuracy-by-macs"] | {"budget: under 8,000"}
    assert REJECTED in names["refusals"]


def test_the_exported_files_can_be_downloaded(site: Site, finished: Run) -> None:
    found = {meta["filename"]: meta["artifact_id"] for meta in site.detail()["artifacts"]}
    assert set(found) >= {"best_model.py", "best_model.json", "best_model.keras", "report.md"}
    for name, number in found.items():
        assert site.ask("GET", f"/artifacts/{site.study_id}/{number}") == (200, (finished.folder / name).read_bytes())


def test_files_written_since_the_study_ended_are_offered(changing: tuple[Site, Run]) -> None:
    site, run = changing
    found = {meta["filename"]: meta["artifact_id"] for meta in site.detail()["artifacts"]}
    for name in ("report.html", "report.md"):
        assert site.ask("GET", f"/artifacts/{site.study_id}/{found[name]}")[1] == (run.folder / name).read_bytes()


def test_a_note_can_be_written_in_the_dashboard(changing: tuple[Site, Run]) -> None:
    site, run = changing
    note = site.detail()["note"]
    body = json.dumps({"version": note["version"] + 1, "body": note["body"] + "\n\nmine"})
    headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{site.port}"}
    assert site.ask("PUT", f"/api/studies/{site.study_id}/note", body, **headers)[0] == 204
    Redraw()(run, studies.load(run))
    assert site.detail()["note"]["body"].endswith("\n\nmine")


@pytest.mark.parametrize(
    ("cause", "status", "reason"),
    [
        ("database or disk is full", "507", "the disk is full (database or disk is full); make space and try again"),
        ("attempt to write a readonly database", "403", "the database may only be read here (attempt to write a readonly"),
        ("no such table: studies", "500", "internal server error"),
    ],
)
def test_a_failed_deletion_is_answered_with_the_remedy(
    cause: str, status: str, reason: str, copied: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise StorageInternalError("a query failed") from OperationalError("DELETE", None, sqlite3.OperationalError(cause))

    monkeypatch.setattr(ResilientStorage, "delete_study", fail)
    answered, body = Wsgi(copied).ask("/api/studies/1", "DELETE")
    assert answered.startswith(status) and json.loads(body)["reason"].startswith(reason)


@pytest.mark.long
def test_a_study_at_work_is_not_disturbed(copied: Run) -> None:
    with serving(copied) as site:
        command = [sys.executable, "-m", "search", "run", str(study_file(copied)), "--trials", "5"]
        environment = os.environ | NUMPY | {"EPOCH_SECONDS": "0.5"}
        options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, cwd=ROOT, env=environment, **options) as worker:
            seen = []
            while worker.poll() is None:
                seen.append({trial["number"]: trial["state"] for trial in site.detail()["trials"]})
                time.sleep(0.05)
            assert worker.returncode == 0, worker.communicate()[0]
        assert any("Running" in states.values() for states in seen), "the trial was looked at while it was trained"
        time.sleep(2.5)  # what the dashboard has read counts for two seconds
        assert sum(trial["state"] == "Complete" for trial in site.detail()["trials"]) == 5


def test_while_it_reads_no_lock_is_held(copied: Run) -> None:
    """At every statement of a page another process can write; a page is answered while another process writes."""
    served, taken = Wsgi(copied), list[str]()
    other = sqlite3.connect(copied.folder / "study.db", timeout=0, isolation_level=None, check_same_thread=False)

    def write(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
            taken.append(statement)

    event.listen(Engine, "after_cursor_execute", write)
    try:
        for page in ("/api/studies", "/api/studies/1", "/api/studies/1/param_importances"):
            assert served.ask(page)[0] == "200 OK"
    finally:
        event.remove(Engine, "after_cursor_execute", write)
    assert len(taken) > 10
    other.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    assert served.ask("/api/studies/1")[0] == "200 OK"
    assert time.monotonic() - started < 5
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.long
def test_trials_that_end_during_requests_are_all_there(changing: tuple[Site, Run]) -> None:
    site, run = changing
    loaded, over, answers = studies.load(run), threading.Event(), list[int]()
    before = len(loaded.candidates.trials)

    def look() -> None:
        while not over.is_set():
            status, body = site.ask("GET", f"/api/studies/{site.study_id}")
            answers.append(status)
            for graph in json.loads(body)["plotly_graph_objects"]:
                json.loads(graph["graph_object"])  # never half of one

    with ThreadPoolExecutor(2) as pool:
        watchers = [pool.submit(look) for _ in range(2)]
        for place in range(10):
            trial = loaded.candidates.ask()
            trial.report(place / 40, 1)
            for key, value in {"outcome": "trained", "params": 1_000 + place, "best_val_accuracy": place / 40}.items():
                trial.set_user_attr(key, value)
            publish_trial_note(trial, f"note {place}")
            loaded.candidates.tell(trial, place / 40)
            Redraw()(run, loaded)
        over.set()
        for watcher in watchers:
            watcher.result()
    time.sleep(2.5)  # what the dashboard has read counts for two seconds
    trials = site.detail()["trials"][before:]
    assert len(answers) > 4 and set(answers) == {200}
    assert [trial["note"]["body"] for trial in trials] == [f"note {place}" for place in range(10)]
    assert [trial["values"] for trial in trials] == [[place / 40] for place in range(10)]
    assert [len(trial["user_attrs"]) for trial in trials] == [3] * 10


# --- the pages, in a browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(chromium: Any, site: Site) -> Any:
    """A window that shows a page of the dashboard whole."""
    chromium.set_window_size(1500, 2600)
    chromium.get(site.access.address(site.url))  # the token of the printed address becomes a cookie
    assert chromium.current_url == site.url
    return chromium


def text_of(browser: Any, url: str, *awaited: str) -> str:
    """The text of a page once all that is awaited is there; the console must hold no error."""
    browser.get(url)
    deadline = time.monotonic() + 60
    while True:
        text: str = browser.find_element("tag name", "body").text
        missing = [words for words in awaited if words not in text]
        if not missing:
            break
        assert time.monotonic() < deadline, f"{url}: {missing} not in:\n{text}"
        time.sleep(0.1)
    time.sleep(0.3)  # for what the page has still to draw and to complain of
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    return text


def shoot(browser: Any, name: str) -> None:
    if folder := os.environ.get("SHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


TITLES = ("Learning curves", "Accuracy against parameters", "Accuracy against multiply-adds", "Rejected before training")


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_the_study_page_shows_the_best_the_graphs_and_the_files(theme: str, site: Site, finished: Run, browser: Any) -> None:
    winner = leaderboard_of(finished)["trials"][0]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]})
    text = text_of(browser, site.url, "Best Trial", "Study Artifacts", *TITLES)
    shoot(browser, f"study_{theme}")
    best = text.split("Best Trial (number=")[1].split()
    assert (best[0], float(best[1])) == (f"{winner['number']})", winner["best_val_accuracy"])
    for name, title in zip(GRAPHS, TITLES, strict=True):
        plot = browser.find_element("css selector", f"[id='user-defined-plot:{name}']")
        assert plot.find_element("css selector", ".gtitle").text == title
        assert plot.find_elements("css selector", ".trace path, .point path, .js-line"), f"nothing is drawn in {name}"
    legend = browser.find_elements("css selector", f"[id='user-defined-plot:{GRAPHS[0]}'] .legendtext")
    assert {entry.get_attribute("textContent").split(" (")[0] for entry in legend} == {"base", "next best", "trial 2"}
    for file in ("best_model.py", "best_model.json", "best_model.keras", "report.md"):
        link = browser.find_element("css selector", f"a[download='{file}']")
        assert f":{site.port}/artifacts/{site.study_id}/" in link.get_attribute("href")


def test_the_note_page_shows_the_note(site: Site, browser: Any) -> None:
    text = text_of(
        browser, f"{site.url}/note", "Trial 2, the best of 2 trained candidates", "The first 5", "How to read this"
    )
    shoot(browser, "note")
    assert "**" not in text and "|" not in text, "Markdown is rendered"


@pytest.mark.long
def test_the_page_of_a_trial_shows_its_network(site: Site, finished: Run, browser: Any) -> None:
    for number, words in (
        (1, "Rejected:"),
        (leaderboard_of(finished)["trials"][0]["number"], "validation accuracy in epoch"),
    ):
        text = text_of(browser, f"{site.url}/trials?numbers={number}", words, "separable_conv_1")
        shoot(browser, f"trial_{number}")
        cells = [cell.text for cell in browser.find_elements("css selector", "table td")]
        assert {"separable_conv_1", "global_average_pool_1"} <= set(cells), "the layers are rows of a table"
        assert "|" not in text


@pytest.mark.long
def test_the_table_has_the_numbers(site: Site, finished: Run, browser: Any) -> None:
    names = ("params", "best_val_accuracy", "best_epoch", "delta_vs_base")
    text_of(browser, f"{site.url}/smartSelection", *(f"UserAttribute {name}" for name in names))
    shoot(browser, "table")
