"""A dashboard that serves a study."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from report.dashboard.access import Access
from report.tables import leaderboard
from search.study import records as study_records
from search.study import run as studies
from search.study.run import Run
from tests.support.runs import ROOT, study_file


@dataclass(frozen=True)
class Site:
    """A dashboard that is being served."""

    url: str  # of the page of the candidates, without the token
    port: int
    study_id: int
    access: Access

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
        """(status, body) of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            cookie = {"Cookie": f"{self.access.cookie}={self.access.token}"}
            connection.request(method, path, body, cookie | headers)
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
            url, _, token = first.split()[0].partition("?token=")
            yield Site(url, int(url.split(":")[2].split("/")[0]), int(url.rsplit("/", 1)[1]), Access(token=token))
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


def leaderboard_of(run: Run) -> dict[str, Any]:
    loaded = studies.load(run)
    return leaderboard(run, study_records.records(loaded.candidates), study_records.records(loaded.references))
