"""The worker loop while another run has a trial in progress."""

from __future__ import annotations

import pytest

from search.runner import loop
from search.runner.events import Waiting
from search.storage.attributes import REFERENCE
from tests.support.runs import Bench, Pretence, pretence, small_run

__all__ = ["pretence"]


def test_a_worker_reports_the_trials_that_it_waits_for(
    tmp_path_factory: pytest.TempPathFactory, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"trials": 1, "grace_minutes": 3.0, "sampler": "random"}
    bench = Bench(small_run(tmp_path_factory.mktemp("run") / "run", search=search), pretence)
    bench.study.ask()  # takes the only room
    bench.studies.references.ask().set_user_attr(REFERENCE, "base")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.train_candidates()
    assert bench.events[-1] == Waiting(("trial 0", "base"), 3.0)
