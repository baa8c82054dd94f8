"""One process that trains trials: the base and other references, then candidates until the study has its N; or its finals.

It is started and watched by `search.supervisor`: an order comes in as one JSON line on standard input, events go out as
JSON lines, and it ends with its supervisor, whatever ends that.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import optuna
from optuna.trial import TrialState

from objective import Annotate, Emit, Task, reference
from search import plan, references
from search.architecture import fingerprint
from search.candidate import DataFacts, Refusal, judge
from search.claims import Claims, claims_of
from search.data import Dataset, load_dataset
from search.encode import NotInSpace, encode
from search.errors import UserError
from search.finals import hold_finals
from search.limits import Enough, Limits
from search.order import Order, StudyStopped, decode_order
from search.references import Reference
from search.sampler import Exhausted
from search.study import (
    Record,
    Run,
    Studies,
    base_accuracy,
    counts,
    create,
    drop_queued,
    load,
    progress,
    ranked,
    records,
    take_up,
)
from search.trial import run_candidate, run_trial

STEP_SECONDS = 0.25  # between two events about the steps of an epoch

Redraw = Callable[[Run, Studies], None]


def work(order: Order, emit: Emit, annotate: Annotate, redraw: Redraw) -> str:
    """Carry out an order; "done", or "recycle" where a fresh process shall go on.

    Args:
        annotate: writes a note on a trial that is about to end.
        redraw: called after each trained trial, to bring the study's own notes and figures up to date.

    Raises:
        UserError: the data or the storage cannot be used.
        StudyStopped: nothing more can be trained.
    """
    run = order.run
    data = _data(run)
    facts = DataFacts(data.input_shape, data.classes, data.fingerprint)
    plan.check(run.config.space, run.config.budget, data.input_shape, data.classes)
    opponents = _references(run, order.references, data)
    known = [_warm_start(run, name, facts) for name in run.config.search.warm_start]

    studies = create(run, data)

    from search.device import prepare_device  # the first import of Keras: after all that can be refused without it

    device = prepare_device()
    emit({"event": "device", "text": device.description, "data": data.summary()})
    claims, limits = claims_of(studies.candidates), Limits(run.config.stop, order.seconds_left)
    task = Task(run.config, data, run.folder, None, emit, annotate, claims.claim, limits)
    if order.finals:
        how = hold_finals(run, studies, order.finals, task)
        redraw(run, studies)
        return how
    _queue(studies.candidates, known)
    found = records(studies.candidates)
    first = next(iter(ranked(found)), None)
    best = [first.best_val_accuracy, first.number] if first else None
    emit({"event": "found", "trials": run.config.trials, "done": progress(found), "best": best} | counts(found))
    try:
        for opponent in opponents:
            limits.count(_spent(studies))
            _train_reference(run, studies, opponent, task)
        redraw(run, studies)
        if order.references:
            return "done"
        task = replace(task, base_accuracy=_base(run, studies))
        emit({"event": "base", "accuracy": task.base_accuracy, "classes": data.classes})
        return _train_candidates(run, studies, task, claims, limits, redraw)
    except Enough as reached:
        for study in (studies.references, studies.candidates):
            take_up(study, reason=f"{reached}")
        return _enough(run, studies, emit, f"{reached}")


def _enough(run: Run, studies: Studies, emit: Emit, reason: str) -> str:
    """The study ends here; without a trained candidate there is nothing to show for it."""
    if not ranked(records(studies.candidates)):
        raise StudyStopped(
            f"{reason} before a candidate was trained; raise that limit in [stop], and the same command goes on"
        )
    emit({"event": "enough", "text": reason})
    return "done"


def _spent(studies: Studies) -> list[Record]:
    return [*records(studies.candidates), *records(studies.references)]


def _data(run: Run) -> Dataset:
    config = run.config.data
    path = Path(config.path) if config.path else None
    return load_dataset(config.name, path, protocol=run.config.protocol, holdout=config.holdout, images=config.images)


def _references(run: Run, wanted: tuple[str, ...], data: Dataset) -> list[Reference]:
    """The networks to train beside the candidates, checked against the data."""
    names = wanted or ([run.config.base] if isinstance(run.config.base, str) else [])
    found = [references.named(name) if not wanted else references.find(name) for name in names]
    for opponent in found:
        references.check(opponent, data)
    return found


def _warm_start(run: Run, name: str, facts: DataFacts) -> tuple[str, dict[str, Any]]:
    """The parameters with which the space expresses a known network, which is then queued first.

    Raises:
        UserError: the space cannot express it, or it does not fit.
    """
    known = references.named(name)
    out = "leave it out of search.warm_start"
    try:
        values = encode(run.config.space, known.architecture)
    except NotInSpace as error:
        why = f"{known.name} is no network of this space ({error}); widen the space, or {out}"
        raise UserError(f"search.warm_start: {why}") from None
    first = {name: domain.first for name, domain in run.config.parameters.items()}
    if isinstance(found := judge(run.config, facts, first | values), Refusal):
        remedy = f"raise the budget, or {out}" if found.rule == "over budget" else out
        raise UserError(f"search.warm_start: {known.name}: {found.reason}; {remedy}")
    return known.name, values


def _queue(study: optuna.Study, known: list[tuple[str, dict[str, Any]]]) -> None:
    """Queue the known networks before anything else is proposed, once."""
    trials = study.get_trials(deepcopy=False)
    there = {trial.user_attrs.get("warm_start") for trial in trials}
    if any("warm_start" not in trial.user_attrs for trial in trials):
        return
    for index, (name, values) in enumerate(known):
        if name not in there:
            study.enqueue_trial(values, user_attrs={"index": index, "attempt": 1, "warm_start": name})


def _train_reference(run: Run, studies: Studies, opponent: Reference, task: Task) -> None:
    study = studies.references
    recipe = references.recipe_of(run.config, opponent)
    while True:
        seen = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("reference") == opponent.name]
        if any(trial.user_attrs["fingerprint"] != fingerprint(opponent.architecture) for trial in seen):
            raise UserError(f"{opponent.name}: this run knows another network by this name; pass --out with a new folder")
        if any(trial.state == TrialState.COMPLETE for trial in seen):
            return
        _drop_other_queued(study, opponent.name)
        if not any(trial.state == TrialState.WAITING for trial in seen):
            over = [trial for trial in seen if trial.user_attrs.get("outcome") != "interrupted"]
            if over and opponent.name != run.config.base_name:
                return
            if over:
                raise StudyStopped(f"the base could not be trained: {over[-1].user_attrs.get('reason', 'no reason given')}")
            known = {"reference": opponent.name, "fingerprint": fingerprint(opponent.architecture)}
            study.enqueue_trial({}, user_attrs=known | {"index": 0, "attempt": 1})
        run_trial(study, lambda trial: reference(trial, task, opponent.architecture, recipe), task, 0)


def _drop_other_queued(study: optuna.Study, name: str) -> None:
    """Optuna starts whatever was queued first; another reference is queued again when its own turn comes."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if trial.user_attrs.get("reference") != name:
            drop_queued(study, trial)


def _base(run: Run, studies: Studies) -> float:
    accuracy = base_accuracy(run.config, records(studies.references))
    assert accuracy is not None  # _train_reference returned, and the base is among the references
    return accuracy


def _train_candidates(run: Run, studies: Studies, task: Task, claims: Claims, limits: Limits, redraw: Redraw) -> str:
    study, settings = studies.candidates, run.config.search
    trained_here = 0
    while progress(found := records(study)) < run.config.trials:
        if reason := limits.reached(found, _spent(studies)):
            return _enough(run, studies, task.emit, reason)
        if trained_here >= settings.recycle_after:
            return "recycle"
        try:
            run_candidate(study, task, claims)
        except Exhausted as exhausted:
            if settings.sampler == "grid":
                return _enough(run, studies, task.emit, "every cell of the grid was tried")
            least = plan.smallest(run.config.space, task.data.input_shape, task.data.classes)
            fewer = f", or ask for {done} trials" if (done := progress(found)) else ""
            raise StudyStopped(
                f"{exhausted}; the smallest network of the space has {least:,}: raise the budget, widen the space{fewer}"
            ) from None
        trained_here += 1
        redraw(run, studies)
    return "done"


# --- the process -----------------------------------------------------------------------------------------------------


def main(annotate: Annotate, redraw: Redraw, finish: Redraw) -> NoReturn:
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
        how = work(order, emit, annotate, redraw)
        if how == "done" and not order.references and not order.finals:
            run = order.run
            emit({"event": "finishing"})
            finish(run, load(run))
        emit({"event": how})
    except UserError as error:
        emit({"event": "user_error", "text": str(error)})
    except StudyStopped as error:
        emit({"event": "stopped", "text": str(error)})
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
