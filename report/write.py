"""Writes report.md, report.html and the card of a run from one analysis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from report.analysis.findings import gather
from report.analysis.mistakes import not_evaluated
from report.card.picture import write_card
from report.html.page import predictions_of, write_html
from report.markdown.report import write_report
from search.study.run import Run, Studies


def write_reports(
    run: Run,
    studies: Studies,
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda words: None,
    warn: Callable[[str], None] = lambda words: None,
    *,
    device: str | None = None,
) -> list[Path]:
    """Write both reports and the card into a folder, the run folder if None.

    Keras re-evaluates the winner on the validation images.

    Args:
        tell: receives progress messages.
        warn: receives the line on a winner that could not be evaluated again.
        device: microcontroller of the cards; None for that of the budget, if it names one.

    Raises:
        UserError: no candidate has been trained yet.
    """
    tell("reading the trials")
    found = gather(run, studies, device)
    tell("report.html: evaluating the winner again, importance of the choices, figures")
    predictions = predictions_of(found)
    if problem := not_evaluated(found, predictions):
        warn(problem)
    page = write_html(found, folder, predictions)
    tell("report.md: the winner as Keras sees it")
    return [page, write_report(run, studies, found, folder, predictions), *write_card(found, folder)]
