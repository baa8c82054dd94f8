"""The end of a worker's order: exports, reports, and what the supervisor is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from search.cli import worker
from search.cli.worker import ReportPublisher
from search.errors import StudyStopped
from search.export.exporter import Exported


def test_a_format_that_fails_stops_the_run_after_the_reports_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception instead made the supervisor start the worker five times and blame the recipe of the study."""
    calls = list[str]()
    failed = Exported({}, {}, {}, {"keras": "cannot be written (Rescaling is not listed)"}, ())

    def noting(name: str, result: Any = None) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return result

        return call

    monkeypatch.setattr(worker, "records", noting("records", []))
    monkeypatch.setattr(worker, "best", noting("best", SimpleNamespace(number=3)))
    monkeypatch.setattr(worker.trained, "is_here", noting("is_here", True))
    monkeypatch.setattr(worker.trained, "candidate", noting("candidate"))
    monkeypatch.setattr(worker, "write", noting("export", failed))
    monkeypatch.setattr("report.write.write_reports", noting("reports"))
    monkeypatch.setattr("report.dashboard.publish.publish_files", noting("publish"))
    monkeypatch.setattr("report.dashboard.publish.publish_drawings", noting("drawings"))
    publisher = ReportPublisher()
    monkeypatch.setitem(publisher.__dict__, "_draw", SimpleNamespace(now=noting("draw")))
    run = SimpleNamespace(folder=None)
    with pytest.raises(StudyStopped, match=r"^export: keras: cannot be written \(Rescaling is not listed\); all trials are"):
        publisher.finish(cast(Any, run), cast(Any, SimpleNamespace(candidates=None)))
    assert calls[-5:] == ["export", "draw", "reports", "publish", "drawings"]
