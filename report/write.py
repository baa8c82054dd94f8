"""Writes report.md and report.html of a run from one analysis."""

from __future__ import annotations

from pathlib import Path

from report.analysis.findings import gather
from report.html.page import write_html
from report.markdown.report import write_report
from search.study.run import Run, Studies


def write_reports(run: Run, studies: Studies, folder: Path | None = None) -> list[Path]:
    """Write both reports into a folder, the run folder if None; Keras re-evaluates the winner on the validation images.

    Raises:
        UserError: no candidate has been trained yet.
    """
    found = gather(run, studies)
    return [write_html(found, folder), write_report(run, studies, found, folder)]
