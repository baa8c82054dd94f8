"""Progress of a quiet test run in whole lines: `[ 35%] 1,480 of 4,230 tests, 2 min 50 s`, readable in a log of CI as well.

Takes the place of pytest's row of dots where the tests are many; a failure is named at once.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

STEP = 5  # percent between two lines
SECONDS = 30.0  # at most between two lines, as long as tests end
FEW = 200  # tests, whose dots are shown as ever


class ProgressLines:
    """Prints a line for every few percent of the tests that have ended."""

    def __init__(self, reporter: TerminalReporter) -> None:
        self._reporter = reporter
        self._begun = self._printed_at = time.monotonic()
        self._ended = 0
        self._printed = 0  # percent

    @property
    def _total(self) -> int:
        return self._reporter._session.testscollected if self._reporter._session else 0

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Generator[None, Any, Any]:
        """Leave out the letter of each test, whatever became of it."""
        status = yield
        if self._total <= FEW:
            return status
        category, _, word = status
        return category, "", word

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Name a failure; count a test when its teardown is over."""
        if self._total <= FEW:
            return
        if report.failed:
            self._reporter.ensure_newline()
            self._reporter.write_line(f"FAILED {report.nodeid} ({report.when})", red=True)
        if report.when == "teardown":
            self._ended += 1
            self._print_if_due()

    def _print_if_due(self) -> None:
        percent, now = 100 * self._ended // self._total, time.monotonic()
        if percent < self._printed + STEP and now < self._printed_at + SECONDS and self._ended < self._total:
            return
        self._printed, self._printed_at = percent - percent % STEP, now
        minutes, seconds = divmod(round(now - self._begun), 60)
        self._reporter.ensure_newline()
        self._reporter.write_line(f"[{percent:3}%] {self._ended:,} of {self._total:,} tests, {minutes} min {seconds} s")
        self._reporter._tw.flush()


def show_progress(config: pytest.Config) -> None:
    """Print progress in lines, in the process that prints and where the run is a quiet one."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput") and config.get_verbosity() < 0:
        config.pluginmanager.register(ProgressLines(reporter))
