"""Reports the progress of a worker's trials as events, and has notes and figures of the study updated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import optuna

from objective import Observer
from search.networks.architecture import Architecture
from search.runner.events import EpochDone, Event, StepDone, TrialEnded, TrialReassigned, TrialStarted
from search.storage import attributes as names
from search.study.config import StudyConfig
from search.study.run import Run, Studies
from search.training.result import Epoch, Outcome


class Publisher(Protocol):
    """Keeps notes, figures and files of a study up to date; the command line has one, tests need none."""

    def annotate(self, trial: optuna.Trial, architecture: Architecture | None, config: StudyConfig) -> None:
        """Write the note of a trial that is about to end."""

    def redraw(self, run: Run, studies: Studies) -> None:
        """Update the note and the figures of the study, after each trained trial."""

    def finish(self, run: Run, studies: Studies) -> None:
        """Write the winner and the pages, when the study has its trials."""

    def write_pages(self, run: Run, studies: Studies) -> None:
        """Write the pages anew, when the finals are complete."""


class NullPublisher(Publisher):
    """Writes nothing."""


class Reporter(Observer):
    """Turns the progress of trials into events, and has notes written.

    Args:
        send: delivers an event to the supervisor.
        annotate: writes the note of a trial that is about to end.
    """

    def __init__(
        self,
        send: Callable[[Event], None],
        annotate: Callable[[optuna.Trial, Architecture | None], None] = lambda trial, architecture: None,
    ) -> None:
        self.send, self.annotate = send, annotate

    def trial_started(self, trial: optuna.Trial) -> None:
        attributes = trial.user_attrs
        copied = ("params", "macs", names.RECEPTIVE_FIELD, names.SEED, names.REFERENCE, names.CONTENDER, names.REPEAT)
        known = {name: attributes[name] for name in copied if name in attributes}
        self.send(TrialStarted(trial.number, refused=sum(attributes.get(names.REFUSED, {}).values()), **known))

    def step_done(self, trial: optuna.Trial, step: int, steps: int) -> None:
        self.send(StepDone(trial.number, step, steps))

    def epoch_done(self, trial: optuna.Trial, epoch: Epoch, epochs: int) -> None:
        self.send(EpochDone(number=trial.number, epochs=epochs, **epoch.to_dict()))

    def trial_ended(self, trial: optuna.Trial, architecture: Architecture | None) -> None:
        self.annotate(trial, architecture)
        attributes = trial.user_attrs
        copied = (names.REASON, names.SECONDS, names.COMPILE_SECONDS, names.BEST_VAL_ACCURACY, names.FLOAT_VAL_ACCURACY)
        known = {name: attributes[name] for name in copied if name in attributes}
        self.send(TrialEnded(trial.number, Outcome(attributes[names.OUTCOME]), **known))

    def trial_reassigned(self, trial: optuna.Trial) -> None:
        self.send(TrialReassigned(trial.number))
