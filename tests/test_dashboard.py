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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from report import dashboard
from report.notes import GRAPH
from report.tables import leaderboard
from search import study as studies
from search.errors import UserError
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
     "evil.example@localhost", "localhost@evil.example", "192.168.0.2:8080", "0.0.0.0:8080", "127.0.0.2", "[::2]", "localhost:",
     "[::1", "localhost:8080\n", ""],
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


def test_a_run_that_has_not_started_has_no_dashboard(tmp_path: Path, finished_config: Run) -> None:
    with pytest.raises(UserError, match="holds no study"):
        dashboard.serve(finished_config, 0, on_ready=print)


@pytest.fixture
def finished_config(tmp_path: Path) -> Run:
    """A run whose storage is empty."""
    from search import config as configs
    from search.storage import sqlite_url

    return Run("nothing", tmp_path, configs.load(configs.STUDIES / "quickstart" / "study.toml"), sqlite_url(tmp_path))


@dataclass(frozen=True)
class Site:
    """A dashboard that is being served."""

    process: subprocess.Popen[str]
    url: str  # of the page of the candidates
    port: int
    study_id: int

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, bytes]:
        """(status, body) of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, headers={name.capitalize(): value for name, value in headers.items()})
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()

    def detail(self) -> dict[str, Any]:
        """The study as the dashboard's own pages get it."""
        status, body = self.ask("GET", f"/api/studies/{self.study_id}")
        assert status == 200
        found: dict[str, Any] = json.loads(body)
        return found


def opened(run: Run, file: Path) -> Site:
    process = subprocess.Popen(
        [sys.executable, "-m", "search", "dashboard", str(file), "--out", str(run.folder), "--port", "0"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    url = line.split()[0]
    return Site(process, url, int(url.split(":")[2].split("/")[0]), int(url.rsplit("/", 1)[1]))


def closed(site: Site) -> tuple[int, str]:
    """(exit status, what it printed on stderr) after Ctrl-C."""
    site.process.send_signal(signal.SIGINT)
    _, printed = site.process.communicate(timeout=30)
    return site.process.returncode, printed


@pytest.fixture(scope="module")
def site(finished: Run) -> Iterator[Site]:
    """The dashboard of the finished run."""
    site = opened(finished, study_file(finished))
    yield site
    assert closed(site) == (0, "")


@slow
def test_foreign_hosts_get_403_and_change_nothing(site: Site) -> None:
    path = f"/api/studies/{site.study_id}"
    for method in ("GET", "DELETE", "POST", "PUT"):
        assert site.ask(method, path, host=f"evil.example:{site.port}")[0] == 403
    assert site.ask("DELETE", path, host=f"localhost:{site.port}", origin="http://evil.example")[0] == 403
    for host in (f"localhost:{site.port}", f"127.0.0.1:{site.port}", f"[::1]:{site.port}", "localhost:9000"):
        assert site.ask("GET", path, host=host)[0] == 200
    assert site.ask("GET", "/dashboard", host=f"localhost:{site.port}")[0] == 200


@slow
def test_only_loopback_is_bound(site: Site) -> None:
    with socket.socket() as one:
        one.bind(("0.0.0.0", 0))
    addresses = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1"}:
        if not str(address).startswith("127."):
            with pytest.raises(OSError), socket.create_connection((str(address), site.port), timeout=5):
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
def test_a_note_written_in_the_dashboard_is_kept(copied: Run) -> None:
    site = opened(copied, study_file(copied))
    try:
        note = site.detail()["note"]
        body = json.dumps({"version": note["version"] + 1, "body": note["body"] + "\n\nmine"})
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
        headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{site.port}"}
        connection.request("PUT", f"/api/studies/{site.study_id}/note", body, headers)
        assert connection.getresponse().status == 204
        connection.close()
        assert site.detail()["note"]["body"].endswith("\n\nmine")
    finally:
        assert closed(site) == (0, "")


@slow
def test_a_study_at_work_is_not_disturbed(copied: Run) -> None:
    file = study_file(copied)
    worker = subprocess.Popen(
        [sys.executable, "-m", "search", "run", str(file), "--out", str(copied.folder), "--trials", "3"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    site = opened(copied, file)
    try:
        seen = []
        while worker.poll() is None:
            seen.append(len(site.detail()["trials"]))
            time.sleep(0.05)
        assert worker.returncode == 0, worker.communicate()[0]
        assert len(seen) > 10
        time.sleep(2.5)  # the dashboard keeps what it has read for two seconds
        assert sum(trial["state"] == "Complete" for trial in site.detail()["trials"]) == 3
    finally:
        worker.kill()
        worker.communicate()
        assert closed(site) == (0, "")


def leaderboard_of(run: Run) -> dict[str, Any]:
    loaded = studies.load(run)
    return leaderboard(run, studies.records(loaded.candidates), studies.records(loaded.references))


# --- the pages, in a browser -----------------------------------------------------------------------------------------

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1500,1300",
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
    assert f"Trial {winner['number']}" in text.split("Best Trial")[1][:200]
    names = browser.find_elements("css selector", f"[id='user-defined-plot:{GRAPH}'] .legendtext")
    assert {name.get_attribute("textContent").split(" (")[0] for name in names} == {"base: base", "trial 0", "trial 2"}


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
def test_the_table_page_has_the_numbers(site: Site, browser: Any) -> None:
    text_of(browser, f"{site.url}/trialTable", "params", "best_val_accuracy", "delta_vs_base")
    shoot(browser, "table")
