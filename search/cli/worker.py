"""One process that trains trials: the base and other references, then candidates until the study has its N; or its finals.

It is started and watched by `search.runner.supervisor`: an order comes in as one JSON line on standard input, events go
out as JSON lines, and it ends with its supervisor, whatever ends that.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import optuna

from objective import Annotate, DiskFull, Emit, Task, with_keras
from search.data.dataset import Dataset
from search.errors import UserError
from search.export import int8 as integers
from search.finals.run import hold_finals
from search.runner.job import Order, StudyStopped, decode_order
from search.runner.loop import Search
from search.storage.claims import claims_of
from search.storage.database import storage_of
from search.storage.failures import StorageUnavailable
from search.storage.queue import Queued, Trials, queue
from search.study.dataset import load_study_data
from search.study.records import counts, progress, ranked, records
from search.study.run import Run, Studies, create, load
from search.training.result import Training
from search.tuning.candidate import DataFacts
from search.tuning.checks import check_before_loading, check_networks
from search.tuning.stopping import Limits

STEP_SECONDS = 0.25  # between two events about the steps of an epoch
PATIENCE_SECONDS = 180.0  # that a worker waits for a database that is away

Redraw = Callable[[Run, Studies], None]


@dataclass(frozen=True)
class Trainer:
    """What trains: how a process is set up for it, described in a line, and the training itself."""

    prepare: Callable[[], str]
    fit: Callable[..., Training]


def _prepare_keras() -> str:
    from search.training.device import prepare_device  # the first import of Keras: after all that can be refused without it

    return prepare_device().description


KERAS = Trainer(_prepare_keras, with_keras)


def work(order: Order, emit: Emit, annotate: Annotate, redraw: Redraw, trainer: Trainer = KERAS) -> str:
    """Carry out an order; "done", or "recycle" where a fresh process shall go on.

    Args:
        annotate: writes a note on a trial that is about to end.
        redraw: called after each trained trial, to bring the study's own notes and figures up to date.

    Raises:
        UserError: the data or the storage cannot be used.
        StudyStopped: nothing more can be trained.
    """
    run = order.run
    networks = check_before_loading(run.config, order.references)
    data = _data(run, emit)
    facts = DataFacts(data.input_shape, data.classes, data.fingerprint)
    known = check_networks(run.config, networks, data.name, facts)
    if run.config.search.rank_by == "int8":
        integers.require_converter()  # the last of the refusals: it imports Keras

    studies = create(run, data, patience=PATIENCE_SECONDS, grace_seconds=60 * run.config.search.grace_minutes)
    storage_of(studies.candidates).on_wait = lambda reason: emit({"event": "away", "reason": reason})

    emit({"event": "device", "text": trainer.prepare(), "data": data.summary()})
    claims, limits = claims_of(studies.candidates), Limits(run.config.stop, order.seconds_left, run.config.cost_metrics)
    task = Task(
        run.config, data, run.folder, None, emit, annotate, claims.claim, limits, worker=order.worker, fit=trainer.fit
    )
    if order.finals:
        how = hold_finals(run, studies, order.finals, task, is_first=order.is_first)
        redraw(run, studies)
        return how
    _queue(studies.candidates, known)
    found = records(studies.candidates)
    first = next(iter(ranked(found)), None)
    best = [first.best_val_accuracy, first.number] if first else None
    emit({"event": "found", "trials": run.config.trials, "done": progress(found), "best": best} | counts(found))
    gc.freeze()  # libraries and trials of the past: a collection after each trial looks through all that is not frozen
    search = Search(run, studies, task, claims, limits, redraw, list(networks.references))
    return search.references() if order.references else search.candidates()


def _data(run: Run, emit: Emit) -> Dataset:
    def watch(done: int, total: int) -> None:
        emit({"event": "reading", "done": done, "total": total})

    return load_study_data(run.config, run.folder, watch)


def _queue(study: optuna.Study, known: list[tuple[str, dict[str, Any]]]) -> None:
    """Queue the known networks before anything else is proposed, once."""

    def wanted(trials: Trials) -> list[Queued]:
        there = {trial.user_attrs.get("warm_start") for trial in trials}
        if any("warm_start" not in trial.user_attrs for trial in trials):
            return []
        lacking = [(index, name, values) for index, (name, values) in enumerate(known) if name not in there]
        return [(values, {"index": index, "attempt": 1, "warm_start": name}) for index, name, values in lacking]

    queue(study, wanted)


# --- the process -----------------------------------------------------------------------------------------------------


def main(annotate: Annotate, redraw: Redraw, finish: Redraw, trainer: Trainer = KERAS) -> NoReturn:
    """The worker process: read the order, work, say how it ended.

    Args:
        finish: called when the study has its trials, to leave the winner and the report in the run folder.
    """
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is for the log, not for the supervisor
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    order = decode_order(sys.stdin.readline())
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    emit = _emitter(events)
    try:
        how = work(order, emit, annotate, redraw, trainer)
        if how == "done" and order.is_first and not order.references and not order.finals:
            run = order.run
            emit({"event": "finishing"})
            finish(run, load(run, patience=PATIENCE_SECONDS))
        emit({"event": how})
    except UserError as error:
        emit({"event": "user_error", "text": str(error)})
    except StudyStopped as error:
        emit({"event": "stopped", "text": str(error)})
    except (StorageUnavailable, DiskFull) as error:
        emit({"event": "stopped", "text": f"{error}; the same command resumes"})
    events.flush()
    os._exit(0)  # without the seconds that TensorFlow's own clean-up takes


def _end_with_supervisor() -> None:
    sys.stdin.read()
    os._exit(1)


def _emitter(stream: Any) -> Emit:
    last_step = 0.0

    def emit(event: Mapping[str, Any]) -> None:
        nonlocal last_step
        if event["event"] == "step":
            if time.monotonic() - last_step < STEP_SECONDS:
                return
            last_step = time.monotonic()
        stream.write(json.dumps(event) + "\n")
        stream.flush()

    return emit
