"""Runs the finals of a study: retrains the best few and the base from scratch, on fresh seeds that all of them share.

The best of many trainings owes part of its score to luck, so no score of the search is used again. Each training is a trial
of the study NAME.finals, queued, requeued and resumed like any other. Under protocol "holdout" the test images are read when
all are trained: once, and the time of reading is stored with the study. `search.finals.results` evaluates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from objective import Context, Objective, checkpoint_path
from search.budget.cost import compute_cost
from search.errors import UserError
from search.files import Weights
from search.finals.control import search_at_random, without_rungs
from search.finals.results import HELD, FinalsRecord, check_unread, read_records, trainings, trainings_of
from search.networks.architecture import Architecture, fingerprint
from search.runner.events import Done, PhaseStarted, Recycle, Waiting, finalist_name
from search.runner.job import FinalsOrder
from search.runner.loop import wait
from search.runner.reporter import Reporter
from search.runner.trial import run_trial
from search.storage.attributes import ATTEMPT, BASE, CONTENDER, FINGERPRINT, INDEX, REFERENCE, REPEAT
from search.storage.queue import Queued, Trials, begin, next_index, queue
from search.storage.recovery import drop_queued, recover
from search.study import references
from search.study.records import ranked, records
from search.study.run import Run, Studies, sibling
from search.study.tables import StopConfig
from search.study.trained import own_weights
from search.training import checkpoint
from search.training.measures import ACCURACY, measure_all
from search.training.recipe import Recipe
from search.tuning.candidate import DataFacts
from search.tuning.stopping import Limits

Pair = tuple[str, int]  # name of a finalist, and seed


@dataclass(frozen=True)
class Finalist:
    """A network of the finals and the recipe it is trained under."""

    name: str
    number: int | None  # of its trial in the search, or in the control
    search_score: float | None
    params: int
    architecture: Architecture
    recipe: Recipe


def run_finals(
    run: Run,
    studies: Studies,
    order: FinalsOrder,
    objective: Objective,
    reporter: Reporter,
    *,
    is_first: bool = True,
) -> Done | Recycle:
    """Run the missing trainings of the finals, then read the test images if the protocol has them.

    Of the study's limits only that of a single trial applies, to the control.

    Args:
        is_first: of several workers, the one that reads the test images when all is trained.

    Raises:
        UserError: the test images have been read, or the base is not the network that it was.
    """
    if is_first:
        check_unread(run, order.again)  # once more: another process may have held the run folder until now
    trials_left = run.config.search.recycle_after
    objective = replace(objective, limits=Limits(StopConfig(trial_minutes=run.config.stop.trial_minutes), None))
    control = sibling(run, "control", studies) if order.control else None
    if control:
        trials_left -= search_at_random(run, studies, control, objective, reporter, most=trials_left)
        if trials_left <= 0:
            return Recycle()
    study = sibling(run, "finals", studies)
    finalists = select_finalists(run, studies, control, order.top, objective.context.facts)
    objective = replace(objective, context=replace(objective.context, folder=run.folder / "finals"))
    pairs = [(finalist.name, seed) for seed in range(order.seeds) for finalist in finalists]
    _queue_trainings(study, pairs, objective.context)
    by_name = {finalist.name: finalist for finalist in finalists}

    def evaluate(trial: optuna.Trial) -> float:
        finalist = by_name[trial.user_attrs[CONTENDER]]
        return objective.finalist(trial, finalist.architecture, finalist.recipe)

    phase = f"finals: {len(finalists)} networks on {order.seeds} fresh seed{'s' if order.seeds > 1 else ''}"
    while True:
        recover(study, run.folder)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if waiting and trials_left <= 0:
            return Recycle()
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if waiting:
            reporter.send(PhaseStarted(phase, len(pairs) - len(waiting) - len(running), len(pairs)))
            trial = begin(study, objective.context.worker, new=lambda trials: None)
            if trial is not None:
                run_trial(study, trial, evaluate, objective)
                trials_left -= 1
        elif running:
            names = [finalist_name(trial.user_attrs[CONTENDER], trial.user_attrs[REPEAT]) for trial in running]
            wait(reporter, Waiting(tuple(names), run.config.search.grace_minutes))
        else:
            break
    if is_first:
        _conclude(study, finalists, order.seeds, objective.context, reporter)
    return Done()


def select_finalists(run: Run, studies: Studies, control: optuna.Study | None, top: int, data: DataFacts) -> list[Finalist]:
    """The base, the best candidates by their search score, and the best of the control.

    Raises:
        UserError: the base is not the network that the run has trained.
    """
    base = [_base(run, studies)] if isinstance(run.config.base, str) else []
    finalists = [*base, *_best(run, "trial", studies.candidates, top, data)]
    return [*finalists, *_best(run, "control", control, 1, data)] if control else finalists


def _base(run: Run, studies: Studies) -> Finalist:
    path = str(run.config.base)
    base = references.named(path)
    trials = studies.references.get_trials(deepcopy=False)
    own = [trial for trial in trials if trial.user_attrs.get(REFERENCE) == base.name]
    if any(trial.user_attrs[FINGERPRINT] != fingerprint(base.architecture) for trial in own):
        raise UserError(f"{path}: no longer the network that this run has trained; put that back, or pass another --out")
    trained = [record for record in ranked(records(studies.references)) if record.reference == base.name]
    score = trained[0].best_val_accuracy if trained else None
    recipe = references.recipe_of(without_rungs(run.config), base)
    return Finalist(BASE, None, score, compute_cost(base.architecture).params, base.architecture, recipe)


def _best(run: Run, kind: str, study: optuna.Study, top: int, data: DataFacts) -> list[Finalist]:
    """The best of a search; a network that a grid repeats on several seeds counts once."""
    trials, config, best = study.get_trials(deepcopy=False), without_rungs(run.config), list[Finalist]()
    for record in ranked(records(study)):
        values = config.declared(trials[record.number].params)
        network = config.space.build(values, data.input_shape, data.classes)
        recipe = config.recipe_of(values)
        if all((finalist.architecture, finalist.recipe) != (network, recipe) for finalist in best):
            name, params = f"{kind}-{record.number}", compute_cost(network).params
            best.append(Finalist(name, record.number, record.best_val_accuracy, params, network, recipe))
        if len(best) == top:
            break
    return best


def _queue_trainings(study: optuna.Study, pairs: Sequence[Pair], context: Context) -> None:
    """Queue the trainings that are missing, and remove from the queue those no longer wanted."""
    for pair, trial in trainings(study).items():
        if trial.state == TrialState.WAITING and pair not in pairs:
            _drop(study, trial, context)

    def missing(trials: Trials) -> list[Queued]:
        present = trainings_of(trials)
        absent = enumerate([pair for pair in pairs if pair not in present], next_index(trials))
        return [({}, {CONTENDER: name, REPEAT: seed, INDEX: index, ATTEMPT: 1}) for index, (name, seed) in absent]

    queue(study, missing)


def _drop(study: optuna.Study, trial: FrozenTrial, context: Context) -> None:
    drop_queued(study, trial)
    checkpoint.remove(checkpoint_path(context.folder, trial.user_attrs))


# --- the end ----------------------------------------------------------------------------------------------------------


def _conclude(study: optuna.Study, finalists: Sequence[Finalist], seeds: int, context: Context, reporter: Reporter) -> None:
    """Store that these finals are trained and, under "holdout", read the test images for them.

    The reading is stored before it begins. One that was interrupted has shown no result: the next completes it under its
    date, and does not count as another.
    """
    fields = ("name", "number", "search_score", "params")
    described = tuple({name: getattr(finalist, name) for name in fields} for finalist in finalists)
    trained = FinalsRecord(described, seeds)
    stored = read_records(study)
    complete = [record.to_dict() for record in stored if record.test]
    weights = _read_weights(study, finalists, seeds, context)  # before the test images, in case one cannot be read
    if context.data.x_test is None or not weights.keys() - {BASE}:
        study.set_user_attr(HELD, [*complete, trained.to_dict()])
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    test_read = next((record.test_read for record in stored if not record.is_complete), now)
    reading = replace(trained, test_read=test_read, again=bool(complete))
    study.set_user_attr(HELD, [*complete, reading.to_dict()])
    measured, metric = _test_measures(weights, finalists, context, reporter), context.config.search.metric
    test = {name: [values[metric] for values in by_seed] for name, by_seed in measured.items()}
    read = replace(reading, test=test, other_test=None if metric == ACCURACY else measured)
    study.set_user_attr(HELD, [*complete, read.to_dict()])


def _read_weights(
    study: optuna.Study, finalists: Sequence[Finalist], seeds: int, context: Context
) -> dict[str, list[Weights]]:
    """Trained weights by finalist and seed, of the finalists that were trained on every seed."""
    trials = trainings(study)
    return {
        finalist.name: [
            own_weights(context.folder / f"{finalist.name}-{seed}", trials[finalist.name, seed], finalist.architecture)
            for seed in range(seeds)
        ]
        for finalist in finalists
        if all(trials[finalist.name, seed].state == TrialState.COMPLETE for seed in range(seeds))
    }


def _test_measures(
    weights: dict[str, list[Weights]], finalists: Sequence[Finalist], context: Context, reporter: Reporter
) -> dict[str, list[dict[str, float]]]:
    """Every measure on the test images by finalist and seed."""
    from search.training.train import pixels_of

    data = context.data
    assert data.x_test is not None and data.y_test is not None
    measured: dict[str, list[dict[str, float]]] = {}
    done, goal = 0, sum(map(len, weights.values()))
    for finalist in finalists:
        for seed, trained in enumerate(weights.get(finalist.name, [])):
            fold = context.fold_of_seed(seed)
            pixels = pixels_of(data if fold is None else data.fold(fold), finalist.recipe)
            reporter.send(PhaseStarted("reading the test images", done, goal))  # also a sign of life
            confusion = context.confusion(finalist.architecture, trained, pixels, data.x_test, data.y_test)
            measured.setdefault(finalist.name, []).append(measure_all(confusion))
            done += 1
    return measured
