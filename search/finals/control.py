"""Control of a study: a random search of equal cost, the study NAME.control.

The gain of an informed search is its lead over this one (Li and Talwalkar, "Random Search and Reproducibility for Neural
Architecture Search", UAI 2019). Cost is counted in epochs, and every candidate is trained in full.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna

from objective import Objective
from search.runner.events import PhaseStarted, Waiting
from search.runner.loop import wait
from search.runner.reporter import Reporter
from search.runner.trial import run_candidate
from search.seeds import derive
from search.storage.claims import claims_of
from search.storage.queue import Trials
from search.storage.recovery import recover
from search.study.config import StudyConfig
from search.study.records import Record, progress, records, records_of
from search.study.run import Run, Studies
from search.study.study_file import parse
from search.training.result import Outcome
from search.tuning.candidate import renew_claims
from search.tuning.sampler import Exhausted


def search_at_random(
    run: Run, studies: Studies, control: optuna.Study, objective: Objective, reporter: Reporter, *, most: int
) -> int:
    """Train random candidates for as many epochs as the study's search used; the number of trials, `most` at most.

    Adopted candidates count with their epochs: the search has had their results.
    """
    config = control_config(run.config)
    epochs = config.planned_epochs
    cost = sum(record.epochs for record in _uninterrupted(records(studies.candidates)))
    context = replace(objective.context, config=config, folder=run.folder / "control")
    claims = claims_of(control)
    renew_claims(control, claims, config, context.facts)
    objective = replace(objective, context=context, claims=claims)
    phase = f"control: a random search of at most {cost} epochs, as many as the study's"

    def has_room(trials: Trials, others: int) -> bool:
        known = _uninterrupted(records_of(trials))
        spent = sum(epochs if record.outcome == Outcome.RUNNING else record.epochs for record in known)
        return spent + epochs * (others + 1) <= cost

    trained, is_exhausted = 0, False
    while trained < most:
        recover(control, run.folder)
        known = _uninterrupted(records(control))
        if has_room(control.get_trials(deepcopy=False), 0) and not is_exhausted:
            reporter.send(PhaseStarted(phase, progress(known), cost // epochs))
        try:
            if run_candidate(control, objective, has_room_for_one=has_room, may_propose=not is_exhausted):
                trained += 1
                continue
        except Exhausted:
            is_exhausted = True
        running = [f"trial {record.number}" for record in records(control) if record.outcome == Outcome.RUNNING]
        if not running:
            return trained
        wait(reporter, Waiting(tuple(running), config.search.grace_minutes))
    return most


def control_config(config: StudyConfig) -> StudyConfig:
    """The same space, budget and recipe under the random sampler, with other seeds and no warm starts."""
    seed = derive(config.search.seed, "control")
    return _with_search(
        config, sampler="random", rungs=None, directions=None, warm_start=[], adopt=[], prior=[], repeats=1, seed=seed
    )


def without_rungs(config: StudyConfig) -> StudyConfig:
    """The study without rungs: every schedule runs over all epochs, and the base keeps its own."""
    return _with_search(config, rungs=None)


def _with_search(config: StudyConfig, **changes: Any) -> StudyConfig:
    """The study with another [search] table; parsed anew, since a copy would keep cached properties."""
    plain = config.dump()
    return parse(plain | {"search": plain["search"] | changes}, "configuration")


def _uninterrupted(trials: list[Record]) -> list[Record]:
    """The trials that no retry has replaced."""
    return [record for record in trials if record.outcome != Outcome.INTERRUPTED]
