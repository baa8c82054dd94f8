"""One process that trains trials: first the base and other references, then candidates until the study has its N.

It is started and watched by `search.supervisor`: an order comes in as one JSON line on standard input, events go out as
JSON lines, and it ends with its supervisor, whatever ends that.
"""

from __future__ import annotations

import gc
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

from objective import Annotate, Emit, Task, candidate, checkpoint_path, reference
from search import config as configs
from search import plan, references
from search import recipe as recipes
from search.architecture import fingerprint
from search.cost import price
from search.data import Dataset, load_dataset
from search.errors import UserError
from search.layers import ArchitectureError
from search.order import Order, StudyStopped
from search.references import Reference
from search.seeds import derive
from search.study import Run, Studies, base_accuracy, base_name, counts, create, load, next_index, ranked, records

MOST_REJECTIONS = 1000  # in a row, before the space is taken to hold nothing (more)
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
    plan.check(run.config.space, run.config.budget, data.input_shape, data.classes)
    opponents = _references(run, order.references, data)

    studies = create(run, data)

    from search.device import prepare_device  # the first import of Keras: after all that can be refused without it

    device = prepare_device()
    emit({"event": "device", "text": device.description, "data": data.summary()})
    found = records(studies.candidates)
    first = next(iter(ranked(found)), None)
    best = [first.best_val_accuracy, first.number] if first else None
    emit({"event": "found", "trials": run.config.search.trials, "best": best} | counts(found))
    task = Task(run.config, data, run.folder, None, emit, annotate)
    for opponent in opponents:
        _train_reference(run, studies, opponent, task)
    redraw(run, studies)
    if order.references:
        return "done"
    task = replace(task, base_accuracy=_base(run, studies))
    emit({"event": "base", "accuracy": task.base_accuracy, "classes": data.classes})
    return _train_candidates(run, studies, task, redraw)


def _data(run: Run) -> Dataset:
    config = run.config.data
    path = Path(config.path) if config.path else None
    return load_dataset(config.name, path, protocol=run.config.protocol, holdout=config.holdout, images=config.images)


def _references(run: Run, wanted: tuple[str, ...], data: Dataset) -> list[Reference]:
    """The networks to train beside the candidates, checked against the data."""
    names = list(wanted)
    if not wanted and isinstance(base := run.config.base, str):
        names = [str(configs.ROOT / base) if base.endswith(".json") else base]
    found = [references.find(name) for name in names]
    for opponent in found:
        try:
            price(opponent.architecture)
        except ArchitectureError as error:
            raise UserError(f"{opponent.name}: this network cannot exist: {error}") from None
        needs, classes = opponent.architecture.input, opponent.architecture.classes
        if (needs, classes) != (data.input_shape, data.classes):
            raise UserError(
                f"{opponent.name}: takes images of {_shape(needs)} in {classes} classes, and {data.name} has "
                f"{_shape(data.input_shape)} in {data.classes}; name another base, or an accuracy to beat such as 0.84"
            )
    return found


def _shape(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _train_reference(run: Run, studies: Studies, opponent: Reference, task: Task) -> None:
    study = studies.references
    recipe = opponent.recipe or recipes.complete(run.config.recipe, {}, run.config.data.normalize)
    recipe = recipe.model_copy(update={"epochs": run.config.recipe.epochs})
    while True:
        seen = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("reference") == opponent.name]
        if any(trial.user_attrs["fingerprint"] != fingerprint(opponent.architecture) for trial in seen):
            raise UserError(f"{opponent.name}: this run knows another network by this name; pass --out with a new folder")
        if any(trial.state == TrialState.COMPLETE for trial in seen):
            return
        _drop_other_queued(study, opponent.name)
        if not any(trial.state == TrialState.WAITING for trial in seen):
            over = [trial for trial in seen if trial.user_attrs.get("outcome") != "interrupted"]
            if over and opponent.name != base_name(run.config):
                return
            if over:
                raise StudyStopped(f"the base could not be trained: {over[-1].user_attrs.get('reason', 'no reason given')}")
            known = {"reference": opponent.name, "fingerprint": fingerprint(opponent.architecture)}
            study.enqueue_trial({}, user_attrs=known | {"index": 0, "attempt": 1})
        _one_trial(study, lambda trial: reference(trial, task, opponent.architecture, recipe), 0, run)


def _drop_other_queued(study: optuna.Study, name: str) -> None:
    """Optuna starts whatever was queued first; another reference is queued again when its own turn comes."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if trial.user_attrs.get("reference") != name:
            study._storage.set_trial_user_attr(trial._trial_id, "outcome", "interrupted")
            study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def _base(run: Run, studies: Studies) -> float:
    accuracy = base_accuracy(run.config, records(studies.references))
    assert accuracy is not None  # _train_reference returned, and the base is among the references
    return accuracy


def _train_candidates(run: Run, studies: Studies, task: Task, redraw: Redraw) -> str:
    study, settings = studies.candidates, run.config.search
    trained_here = rejected_in_a_row = 0
    while True:
        found = records(study)
        if counts(found)["trained"] >= settings.trials:
            return "done"
        if trained_here >= settings.recycle_after:
            return "recycle"
        _one_trial(study, lambda trial: candidate(trial, task), next_index(study), run)
        last = study.get_trials(deepcopy=False)[-1].user_attrs
        rejected = last.get("outcome") == "rejected"
        rejected_in_a_row = rejected_in_a_row + 1 if rejected else 0
        if rejected_in_a_row >= MOST_REJECTIONS:
            raise StudyStopped(
                f"{MOST_REJECTIONS:,} proposals in a row were rejected, the last for: {last['reason']}; "
                "raise the budget, lower the widths of the space, or ask for fewer trials"
            )
        if not rejected:
            trained_here += 1
            redraw(run, studies)


def _one_trial(study: optuna.Study, objective: Callable[[optuna.Trial], float], index: int, run: Run) -> None:
    """One trial through Optuna, its sampler seeded by the trial's logical index."""
    from search.train import TrialOver

    def indexed(trial: optuna.Trial) -> float:
        if "index" not in trial.user_attrs:
            trial.set_user_attr("index", index)
            trial.set_user_attr("attempt", 1)
        return objective(trial)

    study.sampler = _sampler(run.config.search.sampler, derive(run.config.search.seed, "sampler", index))
    study.optimize(indexed, n_trials=1, catch=(TrialOver,))
    ended = study.get_trials(deepcopy=False)[-1].user_attrs  # and told: until then its checkpoint may be needed
    checkpoint = checkpoint_path(run.folder, ended)
    for left in (checkpoint, *checkpoint.parent.glob(f".{checkpoint.stem}.part*")):  # parts: of a process that was killed
        left.unlink(missing_ok=True)
    gc.collect()  # a network and its compiled functions hold each other


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=False, n_startup_trials=10)


# --- the process -----------------------------------------------------------------------------------------------------


def main(annotate: Annotate, redraw: Redraw, finish: Redraw) -> NoReturn:
    """The worker process: read the order, work, say how it ended.

    Args:
        finish: called when the study has its trials, to leave the winner and the report in the run folder.
    """
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is for the log, not for the supervisor
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    order = Order(**json.loads(sys.stdin.readline()))
    order = replace(order, references=tuple(order.references))
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    emit = _emitter(events)
    try:
        how = work(order, emit, annotate, redraw)
        if how == "done" and not order.references:
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
