"""Cost of many stored trials in SQL statements, which may not grow with their number."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, create_trial
from sqlalchemy import event

from search.runner.trial import run_candidate
from search.storage.database import storage_of
from search.study import run as studies
from search.study.config import StudyConfig
from search.study.records import outline, records
from tests.support.runs import Bench, Pretence, pretence, small_run
from tests.support.stored import store

__all__ = ["pretence"]

SPACE = {"blocks": {"low": 1, "high": 3}, "width": {"low": 8, "high": 256, "step": 4}, "pools": 1}


def made(config: StudyConfig, number: int) -> FrozenTrial:
    """A trained trial, of no network in particular."""
    chance = random.Random(number)
    values = {name: domain.draw(chance) for name, domain in config.parameters.items()}
    told = {
        "index": number,
        "key": f"{number:016x}",
        "outcome": "trained",
        "params": 900,
        "best_val_accuracy": chance.random(),
    }
    ranges = {name: domain.distribution() for name, domain in config.parameters.items()}
    curve = {epoch: chance.random() for epoch in (1, 2)}
    return create_trial(
        value=told["best_val_accuracy"], params=values, distributions=ranges, user_attrs=told, intermediate_values=curve
    )


def statements(study: optuna.Study, call: Callable[[], Any]) -> list[str]:
    """All that a call asks of the study's database."""
    found, engine = list[str](), storage_of(study).engine

    def on_execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement.split("(")[0])

    event.listen(engine, "before_cursor_execute", on_execute)
    call()
    event.remove(engine, "before_cursor_execute", on_execute)
    return found


@pytest.fixture
def filled(tmp_path: Path, pretence: Pretence) -> Callable[[int], Bench]:
    """A study that asks for more than its many trials."""

    def fill(trials: int) -> Bench:
        search = {"trials": trials + 10, "sampler": "tpe"}
        bench = Bench(small_run(tmp_path / f"{trials}", space=SPACE, budget={"params": 90_000}, search=search), pretence)
        store(bench.study, [made(bench.run.config, number) for number in range(trials)])
        return bench

    return fill


def test_a_trial_asks_the_database_no_more_where_there_are_many(filled: Callable[[int], Bench]) -> None:
    found = []
    for trials in (20, 700):
        bench = filled(trials)
        bench.one_trial()
        found.append(statements(bench.study, lambda: run_candidate(bench.study, bench.objective)))  # noqa: B023
        assert len(bench.study.trials) == trials + 2
    assert found[0] == found[1]
    writes = found[0].count("BEGIN IMMEDIATE")
    assert writes <= 14, found[
        0
    ]  # begun, claimed twice, proposed, its key and facts, two epochs, three of its end, told, ...


def test_reading_many_trials_takes_no_more_queries(filled: Callable[[int], Bench]) -> None:
    found = []
    for trials in (20, 700):
        fresh = studies.load(filled(trials).run).candidates
        found.append([len(statements(fresh, lambda: outline(fresh))), len(statements(fresh, lambda: records(fresh)))])  # noqa: B023
    assert found[0] == found[1]
    assert found[0][0] < found[0][1] < 10
