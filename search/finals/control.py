"""A random search of equal cost, to hold the search of a study against: it is the study NAME.control.

What an informed search gains is what it has over this one (Li and Talwalkar, "Random Search and Reproducibility for Neural
Architecture Search", UAI 2019). Cost is counted in epochs, and every candidate is trained in full.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna

from objective import Task
from search.runner.loop import wait
from search.runner.trial import run_candidate
from search.seeds import derive
from search.storage.claims import claims_of
from search.storage.queue import Trials
from search.storage.recovery import recover
from search.study.config import StudyConfig
from search.study.records import progress, records, records_of
from search.study.run import Run, Studies
from search.study.study_file import parse
from search.training.result import Outcome
from search.tuning.sampler import Exhausted


def search_at_random(run: Run, studies: Studies, control: optuna.Study, task: Task, *, most: int) -> int:
    """Train random candidates for as many epochs as the study's search took; how many trials that were, `most` at most."""
    config, claims = control_of(run.config), claims_of(control)
    cost = sum(record.epochs for record in records(studies.candidates) if record.outcome != Outcome.INTERRUPTED)
    task = replace(task, config=config, folder=run.folder / "control", claim=claims.claim)
    what = f"control: a random search of at most {cost} epochs, as many as the study's"

    def room(trials: Trials, others: int) -> bool:
        known = [record for record in records_of(trials) if record.outcome != Outcome.INTERRUPTED]
        spent = sum(config.recipe.epochs if record.outcome == Outcome.RUNNING else record.epochs for record in known)
        return spent + config.recipe.epochs * (others + 1) <= cost

    trained, is_exhausted = 0, False
    while trained < most:
        recover(control, run.folder)
        known = [record for record in records(control) if record.outcome != Outcome.INTERRUPTED]
        if room(control.get_trials(deepcopy=False), 0) and not is_exhausted:
            goal = cost // config.recipe.epochs
            task.emit({"event": "phase", "text": what, "done": progress(known), "goal": goal})
        try:
            if run_candidate(control, task, claims, room=room, new=not is_exhausted):
                trained += 1
                continue
        except Exhausted:
            is_exhausted = True
        if not any(record.outcome == Outcome.RUNNING for record in records(control)):
            return trained
        wait(task.emit)
    return most


def control_of(config: StudyConfig) -> StudyConfig:
    """The same space, budget and recipe under the random sampler, other seeds, and nothing known beforehand."""
    seed = derive(config.search.seed, "control")
    return _searched(config, sampler="random", rungs=None, directions=None, warm_start=[], repeats=1, seed=seed)


def in_full(config: StudyConfig) -> StudyConfig:
    """The study without rungs: every schedule runs over all epochs, and the base's is its own."""
    return _searched(config, rungs=None)


def _searched(config: StudyConfig, **changes: Any) -> StudyConfig:
    """The study, searched otherwise; read anew, as a copy would keep what was computed from the old one."""
    plain = config.dump()
    return parse(plain | {"search": plain["search"] | changes}, "configuration")
