"""The worker loop: trains the next candidates of a run while other workers train others.

One worker trains the base. The others do not wait for it: they train candidates, whose lead over the base is shown when the
base is done. A worker without room for another trial waits, since one of those in progress may fail and leave its room; it
ends when the study has its trials, or when no more can be begun and none is in progress.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import TrialState

from objective import Objective
from search.errors import StudyStopped
from search.runner.events import BaseKnown, Done, LimitHit, Recycle, Waiting
from search.runner.references import train_reference
from search.runner.reporter import Publisher, Reporter
from search.runner.trial import remove_stale_checkpoints, run_candidate
from search.storage.attributes import REFERENCE
from search.storage.recovery import recover
from search.study import survey
from search.study.records import Record, base_accuracy, progress, ranked, records
from search.study.references import Reference
from search.study.run import Run, Studies
from search.text import format_count
from search.training.result import Outcome
from search.tuning.sampler import Exhausted
from search.tuning.stopping import LimitReached

WAIT_SECONDS = 1.0  # between two looks at what other workers do


class SearchLoop:
    """One worker's part in a search.

    Args:
        publisher: updates notes and figures after each trained trial.
        references: to train, the base first.
    """

    def __init__(
        self,
        run: Run,
        studies: Studies,
        objective: Objective,
        reporter: Reporter,
        publisher: Publisher,
        references: Sequence[Reference] = (),
    ) -> None:
        self.run, self.studies, self.objective = run, studies, objective
        self.reporter, self.publisher, self.references = reporter, publisher, references
        self.trials_left = run.config.search.recycle_after  # until a fresh process continues
        self.exhausted: Exhausted | None = None

    def train_references(self) -> Done:
        """Train the references alone."""
        try:
            while not self._train_references():
                self._wait()
        except LimitReached as reached:
            return self._end_by_limit(f"{reached}")
        self.publisher.redraw(self.run, self.studies)
        return Done()

    def train_candidates(self) -> Done | Recycle:
        """Train the base, then candidates until the study has its trials.

        Raises:
            StudyStopped: nothing more can be trained.
        """
        try:
            is_settled = self._train_references()
            self.publisher.redraw(self.run, self.studies)
            end = self._train_next(is_settled)
            while end is None:
                is_settled = is_settled or self._train_references()
                end = self._train_next(is_settled)
            remove_stale_checkpoints(self.run.folder, (self.studies.references, self.studies.candidates))
            return end
        except LimitReached as reached:
            return self._end_by_limit(f"{reached}")

    def _train_next(self, is_settled: bool) -> Done | Recycle | None:
        """Train a candidate, or wait for other workers; the end of the search, if it ends.

        Args:
            is_settled: True if no reference is left to train.
        """
        recover(self.studies.candidates, self.run.folder)
        self._update_base()
        candidates = records(self.studies.candidates)
        is_complete = progress(candidates) >= self.run.config.trials
        limit = None if is_complete else self.objective.limits.reached(candidates, _all_records(self.studies))
        if not is_complete and not limit:
            if self.trials_left <= 0:
                return Recycle()
            if self._train_candidate():
                return None
            candidates = records(self.studies.candidates)
        if is_settled and (is_complete or not any(record.outcome == Outcome.RUNNING for record in candidates)):
            if is_complete:
                return Done()
            if limit:
                return self._end_by_limit(limit)
            if self.exhausted:
                return self._end_exhausted(self.exhausted)
        self._wait()
        return None

    def _wait(self) -> None:
        """Wait for a moment for the trials in progress."""
        studies, states = self.studies, (TrialState.RUNNING,)
        names = [f"trial {trial.number}" for trial in studies.candidates.get_trials(deepcopy=False, states=states)]
        for trial in studies.references.get_trials(deepcopy=False, states=states):
            names.append(trial.user_attrs.get(REFERENCE, "a reference"))
        wait(self.reporter, Waiting(tuple(names), self.run.config.search.grace_minutes))

    def _train_candidate(self) -> bool:
        """Train a candidate, if there is room for one and a network to train."""
        try:
            has_trained = run_candidate(self.studies.candidates, self.objective, may_propose=self.exhausted is None)
        except Exhausted as exhausted:  # others may still fail at what they train, and leave it
            self.exhausted = exhausted
            return False
        if has_trained:
            self.trials_left -= 1
            self.publisher.redraw(self.run, self.studies)
        return has_trained

    def _train_references(self) -> bool:
        """Train the references that no worker trains; True if all of them are settled."""
        is_settled = True
        for reference in self.references:
            self.objective.limits.update(_all_records(self.studies))
            is_settled = train_reference(self.run, self.studies, reference, self.objective) and is_settled
        return is_settled

    def _update_base(self) -> None:
        context = self.objective.context
        accuracy = base_accuracy(self.run.config, records(self.studies.references))
        if accuracy is not None and accuracy != context.base_accuracy:
            self.objective = replace(self.objective, context=replace(context, base_accuracy=accuracy))
            self.reporter.send(BaseKnown(accuracy, is_network=self.run.config.base_name is not None))

    def _end_by_limit(self, reason: str) -> Done:
        return end_by_limit(self.studies, self.reporter, reason)

    def _end_exhausted(self, exhausted: Exhausted) -> Done:
        """End where nothing is left of the space and no trial is in progress."""
        if self.run.config.search.sampler == "grid":
            return self._end_by_limit("every cell of the grid was tried")
        config, data = self.run.config, self.objective.context.data
        sampled = survey.survey_space(config.space, config.budget, data.input_shape, data.classes, draws=survey.DRAWS)
        done = progress(records(self.studies.candidates))
        fewer = f", or ask for {format_count(done, 'trial')}" if done else ""
        if sampled.is_limited_by_budget:
            remedy = f"the smallest network of the space has {sampled.smallest_params:,}: raise the budget, widen the space"
        else:
            remedy = "all networks of the space are within the budget: widen the space"
        raise StudyStopped(f"{exhausted}; {remedy}{fewer}")


def end_by_limit(studies: Studies, reporter: Reporter, reason: str) -> Done:
    """End the study because one of its stopping rules was reached.

    Raises:
        StudyStopped: no candidate has been trained.
    """
    if not ranked(records(studies.candidates)):
        raise StudyStopped(
            f"{reason} before a candidate was trained; raise that limit in [stop] and run the same command again"
        )
    reporter.send(LimitHit(reason))
    return Done()


def wait(reporter: Reporter, event: Waiting | None = None) -> None:
    """Report that this worker waits, as a sign of life, and let others continue for a moment."""
    reporter.send(event or Waiting())
    time.sleep(WAIT_SECONDS)


def _all_records(studies: Studies) -> list[Record]:
    return [*records(studies.candidates), *records(studies.references)]
