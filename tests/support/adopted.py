"""Shared by the tests of adoption and adoption_resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.runner.adoption import adopt_trials, sources_to_adopt
from search.runner.events import Done
from search.study.run import Run
from search.tuning.adoption import Assessment, assess
from search.tuning.candidate import DataFacts
from search.tuning.sources import open_sources
from tests.support.runs import Bench, digits, pretend, small_run

RECIPE = {"epochs": 2, "learning_rate": [0.001, 0.01]}
WIDE: dict[str, Any] = {
    "budget": {"params": 20_000},
    "space": {"blocks": {"low": 1, "high": 4}, "width": {"low": 8, "high": 64, "step": 4}, "pools": 1},
    "recipe": RECIPE | {"learning_rate": {"low": 0.0005, "high": 0.05, "log": True}},
}


TRIALS = 5


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a study of five trained trials."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretence = pretend(monkeypatch)
        pretence.plays += [0.5, 0.7, 0.9, 0.6, 0.8]
        search = {"trials": TRIALS, "sampler": "random"}
        bench = Bench(small_run(tmp_path_factory.mktemp("old") / "old", search=search, recipe=RECIPE), pretence)
        assert bench.train_candidates() == Done()
        return bench.run.folder


def wide_run(folder: Path, old: Path, *, search: dict[str, Any] | None = None, **changes: Any) -> Run:
    """A run of a wider study that adopts the old one."""
    chosen = {"adopt": str(old), "trials": 2, "sampler": "random"} | (search or {})
    return small_run(folder, search=chosen, **(WIDE | changes))


def adopted(bench: Bench) -> list[Assessment]:
    """Adopt as a worker does."""
    return adopt_trials(bench.run, bench.studies, sources_to_adopt(bench.run), digits(), "float32")


def assessed(run: Run, policy: str | None = None) -> Assessment:
    (assessment,) = assess(run.config, DataFacts.of(digits()), open_sources(run.config, run.folder), policy)
    return assessment
