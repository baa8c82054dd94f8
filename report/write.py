"""Both pages of a run, report.md and report.html, from what is read and worked out once."""

from __future__ import annotations

from pathlib import Path

from report.analysis.findings import gather
from report.html.page import write_html
from report.markdown.report import write_report
from search.study.run import Run, Studies


def write_reports(run: Run, studies: Studies) -> list[Path]:
    """Write them into the run folder; Keras counts the winner's parameters and asks it its validation images again.

    Raises:
        UserError: no candidate has been trained yet.
    """
    found = gather(run, studies)
    return [write_html(found), write_report(run, studies, found)]
