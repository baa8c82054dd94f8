"""report.dashboard: its guard, its server, and its pages in a real browser.

The browser tests are skipped where no Chromium is installed; CI_REQUIRE_SERVERS=1 makes that a failure. With SHOTS=FOLDER
they leave screenshots there.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from report import dashboard
from report.notes import GRAPH
from report.tables import leaderboard
from search import config as configs
from search import study as studies
from search.errors import UserError
from search.storage import sqlite_url
from search.study import Run
from tests.runs import ROOT, copied, finished, study_file

__all__ = ["copied", "finished"]

slow = pytest.mark.slow

ENVIRON = {"REQUEST_METHOD": "GET", "HTTP_HOST": "localhost:8080"}


# --- the guard -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "localhost", "LOCALHOST:9", "127.0.0.1"])
def test_loopback_is_answered(host: str) -> None:
    assert dashboard.refusal(ENVIRON | {"HTTP_HOST": host}) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "localhost:8080.evil.example", "127.0.0.1.evil.example",
     "evil.example@localhost", "localhost@evil.example", "192.168.0.2:8080", "0.0.0.0:8080", "127.0.0.2", "[::2]",
     "localhost:", "[::1", "localhost:8080\n", ""],
)  # fmt: skip
def test_any_other_host_is_refused(host: str) -> None:
    assert dashboard.refusal(ENVIRON | {"HTTP_HOST": host})


def test_a_request_without_a_host_is_refused() -> None:
    assert dashboard.refusal({"REQUEST_METHOD": "GET"})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_only_its_own_pages_change_something(method: str) -> None:
    request = ENVIRON | {"REQUEST_METHOD": method}
    assert dashboard.refusal(request) is None, "a program on this machine sends no origin"
    assert dashboard.refusal(request | {"HTTP_ORIGIN": "http://localhost:8080"}) is None
    for origin in ("http://evil.example", "http://localhost:9000", "https://localhost:8080", "null"):
        assert dashboard.refusal(request | {"HTTP_ORIGIN": origin})


def test_reading_from_elsewhere_is_left_to_the_browser() -> None:
    assert dashboard.refusal(ENVIRON | {"HTTP_ORIGIN": "http://evil.example"}) is None


# --- the server ------------------------------------------------------------------------------------------------------


def test_a_run_that_has_not_started_has_no_dashboard(tmp_path: Path) -> None:
    run = Run("nothing", tmp_path, configs.load(configs.STUDIES / "quickstart" / "study.toml"), sqlite_url(tmp_path))
    with pytest.raises(UserError, match="there is no such file"):
        dashboard.serve(run, 0, on_ready=print)


@dataclass(frozen=True)
class Site:
    """A dashboard that is being served."""

    url: str  # of the page of the candidates
    port: int
    study_id: int

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
        """(status, body) of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def detail(self) -> dict[str, Any]:
        """The study as the dashboard's own pages get it."""
        status, body = self.ask("GET", f"/api/studies/{self.study_id}")
        assert status == 200
        found: dict[str, Any] = json.loads(body)
        return found


@contextmanager
def serving(run: Run) -> Iterator[Site]:
    """The dashboard as the command line serves it; Ctrl-C must end it without a word."""
    command = [sys.executable, "-m", "search", "dashboard", str(study_file(run)), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            first = process.stdout.readline()
            assert first, process.communicate()[1]
            url = first.split()[0]
            yield Site(url, int(url.split(":")[2].split("/")[0]), int(url.rsplit("/", 1)[1]))
            process.send_signal(signal.SIGINT)
            printed = process.communicate(timeout=30)[1]
            assert (process.returncode, printed) == (0, "")
        finally:
            process.kill()


@pytest.fixture(scope="module")
def site(finished: Run) -> Iterator[Site]:
    """The dashboard of the finished run."""
    with serving(finished) as site:
        yield site


@slow
def test_foreign_hosts_get_403_and_change_nothing(site: Site) -> None:
    path = f"/api/studies/{site.study_id}"
    for method in ("GET", "DELETE", "POST", "PUT"):
        assert site.ask(method, path, Host=f"evil.example:{site.port}")[0] == 403
    assert site.ask("DELETE", path, Host=f"localhost:{site.port}", Origin="http://evil.example")[0] == 403
    for host in (f"localhost:{site.port}", f"127.0.0.1:{site.port}", f"[::1]:{site.port}", "localhost:9000"):
        assert site.ask("GET", path, Host=host)[0] == 200
    assert site.ask("GET", "/dashboard", Host=f"localhost:{site.port}")[0] == 200


@slow
def test_only_loopback_is_bound(site: Site) -> None:
    """Every address of 127.0.0.0/8 is this machine, and the server is bound to one of them alone."""
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", site.port), timeout=5):
        pass


@slow
def test_a_port_in_use_is_the_users_to_change(site: Site, finished: Run) -> None:
    with pytest.raises(UserError, match=f"port {site.port} is in use; pass --port"):
        dashboard.serve(finished, site.port, on_ready=print)


@slow
def test_the_best_is_the_trained_best_and_the_rejected_have_no_value(site: Site, finished: Run) -> None:
    detail, board = site.detail(), leaderboard_of(finished)
    assert [trial["values"] for trial in detail["best_trials"]] == [[board["trials"][0]["best_val_accuracy"]]]
    states = {trial["number"]: trial["state"] for trial in detail["trials"]}
    assert states == {0: "Complete", 1: "Pruned", 2: "Complete"}
    assert "values" not in detail["trials"][1]


@slow
def test_the_columns_that_people_sort_by_are_numbers(site: Site) -> None:
    sortable = {column["key"]: column["sortable"] for column in site.detail()["union_user_attrs"]}
    for name in ("params", "macs", "best_val_accuracy", "best_epoch", "final_val_accuracy", "delta_vs_base", "seconds"):
        assert sortable[name], name


@slow
def test_a_note_can_be_written_in_the_dashboard(copied: Run) -> None:
    with serving(copied) as site:
        note = site.detail()["note"]
        body = json.dumps({"version": note["version"] + 1, "body": note["body"] + "\n\nmine"})
        headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{site.port}"}
        assert site.ask("PUT", f"/api/studies/{site.study_id}/note", body, **headers)[0] == 204
        assert site.detail()["note"]["body"].endswith("\n\nmine")


@slow
def test_a_study_at_work_is_not_disturbed(copied: Run) -> None:
    with serving(copied) as site:
        command = [sys.executable, "-m", "search", "run", str(study_file(copied)), "--trials", "3"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as worker:
            seen = []
            while worker.poll() is None:
                seen.append({trial["number"]: trial["state"] for trial in site.detail()["trials"]})
                time.sleep(0.05)
            assert worker.returncode == 0, worker.communicate()[0]
        assert any("Running" in states.values() for states in seen), "the trial was looked at while it was trained"
        time.sleep(2.5)  # what the dashboard has read counts for two seconds
        assert sum(trial["state"] == "Complete" for trial in site.detail()["trials"]) == 3


def leaderboard_of(run: Run) -> dict[str, Any]:
    loaded = studies.load(run)
    return leaderboard(run, studies.records(loaded.candidates), studies.records(loaded.references))


# --- the pages, in a browser -----------------------------------------------------------------------------------------

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1500,2600",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        assert os.environ.get("CI_REQUIRE_SERVERS") != "1", "Chromium and chromedriver must be installed here"
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


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
        time.sleep(0.2)
    time.sleep(1)
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    return text


def shoot(browser: Any, name: str) -> None:
    if folder := os.environ.get("SHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


@slow
def test_the_study_page_shows_the_best_and_the_curves(site: Site, finished: Run, browser: Any) -> None:
    winner = leaderboard_of(finished)["trials"][0]
    text = text_of(browser, site.url, "Best Trial", "Learning curves")
    shoot(browser, "study")
    best = text.split("Best Trial (number=")[1].split()
    assert (best[0], float(best[1])) == (f"{winner['number']})", winner["best_val_accuracy"])
    names = browser.find_elements("css selector", f"[id='user-defined-plot:{GRAPH}'] .legendtext")
    assert {name.get_attribute("textContent").split(" (")[0] for name in names} == {"base", "trial 0", "trial 2"}


@slow
def test_the_note_page_shows_the_note(site: Site, browser: Any) -> None:
    text = text_of(browser, f"{site.url}/note", "Best so far", "How to read the columns")
    shoot(browser, "note")
    assert "**" not in text, "Markdown is rendered"


@slow
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


@slow
def test_the_table_has_the_numbers(site: Site, finished: Run, browser: Any) -> None:
    names = ("params", "best_val_accuracy", "best_epoch", "delta_vs_base")
    text_of(browser, f"{site.url}/smartSelection", *(f"UserAttribute {name}" for name in names))
    shoot(browser, "table")
