"""Main loop of a worker process: read the order, train, report how it ended.

A worker is started and watched by `search.runner.supervisor`. Its order comes as a JSON line on standard input, its events
go out as JSON lines, and it ends with its supervisor.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import cached_property, partial
from typing import TYPE_CHECKING, NoReturn

import optuna

from objective import DiskFull
from search.cli.export import write
from search.errors import StudyStopped, UserError
from search.finals.run import run_finals
from search.networks.architecture import Architecture
from search.runner.events import Done, EventWriter, Finishing, Recycle, Stopped, UserFault
from search.runner.job import Order, decode_order
from search.runner.loop import SearchLoop
from search.runner.preparation import RETRY_SECONDS, prepare
from search.runner.reporter import Publisher, Reporter
from search.storage.failures import StorageUnavailable
from search.study import trained
from search.study.config import StudyConfig
from search.study.dataset import images_of
from search.study.records import records
from search.study.run import DATA, Run, Studies, best, load
from search.training.trainer import KerasTrainer, Trainer

if TYPE_CHECKING:
    from report.dashboard.publish import Redraw


class ReportPublisher:
    """Publishes through `report`, which is imported at its first use."""

    def __init__(self) -> None:
        self._images: int | None = None  # of validation

    def annotate(self, trial: optuna.Trial, architecture: Architecture | None, config: StudyConfig) -> None:
        from report.dashboard.notes import trial_note
        from report.dashboard.publish import publish_trial_note

        if self._images is None:
            self._images = images_of(trial.study.user_attrs.get(DATA, {}), "validation")
        note = trial_note(architecture, trial.user_attrs, config.budget, self._images, config.search.metric)
        publish_trial_note(trial, note)

    @cached_property
    def _draw(self) -> Redraw:
        from report.dashboard.publish import Redraw

        return Redraw()

    def redraw(self, run: Run, studies: Studies) -> None:
        self._draw(run, studies)

    def finish(self, run: Run, studies: Studies) -> None:
        from search.export.exporter import QUICK

        exported = None
        if trained.is_here(run, best(run, records(studies.candidates)).number):
            exported = write(trained.candidate(run, studies=studies), run.folder, formats=QUICK)
        self.write_pages(run, studies)
        if exported is not None:
            exported.require_all()  # last, so that a format that fails does not cost the reports

    def write_pages(self, run: Run, studies: Studies) -> None:
        from report.dashboard.publish import publish_drawings, publish_files
        from report.write import write_reports

        self._draw.now(run, studies)
        write_reports(run, studies)
        publish_files(studies.candidates, run.folder)
        publish_drawings(run, studies)


def main(publisher: Publisher, trainer: Trainer | None = None) -> NoReturn:
    """Carry out one order and exit."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to the log, not to the supervisor
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    order = decode_order(sys.stdin.readline())
    threading.Thread(target=_exit_with_supervisor, daemon=True).start()
    carry_out(order, EventWriter(events), publisher, trainer or KerasTrainer())
    events.flush()
    os._exit(0)  # without TensorFlow's own clean-up, which takes seconds


def carry_out(order: Order, send: EventWriter, publisher: Publisher, trainer: Trainer) -> None:
    """Train what an order says and publish it; the last event says how it ended."""
    try:
        run = order.run
        reporter = Reporter(send, partial(publisher.annotate, config=run.config))
        end = work(order, reporter, publisher, trainer)
        if isinstance(end, Done) and order.is_first and not order.references:
            send(Finishing())
            studies = load(run, patience=RETRY_SECONDS)
            if order.finals:
                publisher.write_pages(run, studies)
            else:
                publisher.finish(run, studies)
        send(end)
    except UserError as error:
        send(UserFault(str(error)))
    except (StorageUnavailable, DiskFull) as error:
        send(Stopped(f"{error}; the same command resumes"))
    except StudyStopped as error:
        send(Stopped(str(error)))


def work(order: Order, reporter: Reporter, publisher: Publisher, trainer: Trainer) -> Done | Recycle:
    """Carry out the trainings of an order.

    Raises:
        UserError: the data or the storage cannot be used.
        StudyStopped: nothing more can be trained.
    """
    prepared = prepare(order, reporter, trainer)
    run, studies, objective = prepared.run, prepared.studies, prepared.objective
    if order.finals:
        return run_finals(run, studies, order.finals, objective, reporter, is_first=order.is_first)
    loop = SearchLoop(run, studies, objective, reporter, publisher, prepared.references)
    return loop.train_references() if order.references else loop.train_candidates()


def _exit_with_supervisor() -> None:
    sys.stdin.read()
    os._exit(1)
