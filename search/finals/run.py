"""The finals of a study: the best few and the base trained again from scratch, on fresh seeds that all of them share.

The best of many trainings owes part of its score to luck, so no score of the search is used again. Each training is a trial
of the study NAME.finals, kept and taken up like any other. Under protocol "holdout" the test images are read when all are
done: once, and when is kept with the study. What came of it is told by `search.finals.results`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import optuna
from optuna.trial import TrialState

import space
from objective import Task, again, checkpoint_path
from search.budget.cost import compute_cost
from search.errors import UserError
from search.files import Weights, read_weights
from search.finals.control import in_full, search_at_random
from search.finals.results import HELD, Held, held_in, refuse_second_reading, trainings, trainings_of
from search.networks.architecture import Architecture, fingerprint
from search.runner.job import Finals
from search.runner.loop import wait
from search.runner.trial import run_trial
from search.storage.queue import Queued, Trials, begin, next_index, queue
from search.storage.recovery import drop_queued, recover
from search.study import references
from search.study.config import StopConfig
from search.study.records import ranked, records
from search.study.run import Run, Studies, sibling
from search.training import checkpoint
from search.training.recipe import Recipe
from search.tuning.candidate import DataFacts
from search.tuning.stopping import Limits


@dataclass(frozen=True)
class Contender:
    """A network of the finals and how it is trained."""

    name: str
    number: int | None  # of its trial in the search, or in the control
    search_score: float | None
    params: int
    architecture: Architecture
    recipe: Recipe


def hold_finals(run: Run, studies: Studies, asked: Finals, task: Task, *, is_first: bool = True) -> str:
    """Train what the finals still lack, then read the test images where the protocol has some; "done" or "recycle".

    Of the study's limits only that of a single candidate holds, for the control.

    Args:
        is_first: of several workers, the one that reads the test images when all is trained.

    Raises:
        UserError: the test images have been read, or the base is not the network that it was.
    """
    if is_first:
        refuse_second_reading(run, asked.again)  # here too: the run folder is ours now, and was another's a moment ago
    left = run.config.search.recycle_after
    task = replace(task, clock=Limits(StopConfig(trial_minutes=run.config.stop.trial_minutes), None))
    control = sibling(run, "control", studies) if asked.control else None
    if control:
        left -= search_at_random(run, studies, control, task, most=left)
        if left <= 0:
            return "recycle"
    study, chosen = sibling(run, "finals", studies), contenders(run, studies, control, asked.top, task.facts)
    task = replace(task, folder=run.folder / "finals")
    wanted = [(one.name, seed) for seed in range(asked.seeds) for one in chosen]
    _queue(study, wanted, task)
    known = {one.name: one for one in chosen}

    def train(trial: optuna.Trial) -> float:
        one = known[trial.user_attrs["contender"]]
        return again(trial, task, one.architecture, one.recipe)

    what = f"finals: {len(chosen)} networks on {asked.seeds} fresh seed{'s' if asked.seeds > 1 else ''}"
    while True:
        recover(study, run.folder)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if waiting and left <= 0:
            return "recycle"
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if waiting:
            done = len(wanted) - len(waiting) - len(running)
            task.emit({"event": "phase", "text": what, "done": done, "goal": len(wanted)})
            if begun := begin(study, task.worker, new=lambda trials: None):
                run_trial(study, begun, train, task)
                left -= 1
        elif running:
            wait(task.emit)
        else:
            break
    if not is_first:
        return "done"
    _hold(study, chosen, asked.seeds, task)
    return "done"


def contenders(run: Run, studies: Studies, control: optuna.Study | None, top: int, data: DataFacts) -> list[Contender]:
    """The base, the best few by their search score, and the best of the control.

    Raises:
        UserError: the base is not the network that the run has trained.
    """
    base = [_base(run, studies)] if isinstance(run.config.base, str) else []
    found = [*base, *_best(run, "trial", studies.candidates, top, data)]
    return [*found, *_best(run, "control", control, 1, data)] if control else found


def _base(run: Run, studies: Studies) -> Contender:
    named = str(run.config.base)
    base = references.named(named)
    trained = [one for one in studies.references.get_trials(deepcopy=False) if one.user_attrs.get("reference") == base.name]
    if any(one.user_attrs["fingerprint"] != fingerprint(base.architecture) for one in trained):
        raise UserError(f"{named}: no longer the network that this run has trained; put that back, or pass another --out")
    score = next((one.best_val_accuracy for one in ranked(records(studies.references)) if one.reference == base.name), None)
    recipe = references.recipe_of(in_full(run.config), base)
    return Contender("base", None, score, compute_cost(base.architecture).params, base.architecture, recipe)


def _best(run: Run, kind: str, study: optuna.Study, top: int, data: DataFacts) -> list[Contender]:
    """The best of a search; a network that a grid repeats is one."""
    trials, config, found = study.get_trials(deepcopy=False), in_full(run.config), list[Contender]()
    for record in ranked(records(study)):
        drawn = config.declared(trials[record.number].params)
        network = space.build(config.space, drawn, data.input_shape, data.classes)
        recipe = config.recipe_of(drawn)
        if all((one.architecture, one.recipe) != (network, recipe) for one in found):
            name, score = f"{kind}-{record.number}", record.best_val_accuracy
            found.append(Contender(name, record.number, score, compute_cost(network).params, network, recipe))
        if len(found) == top:
            break
    return found


def _queue(study: optuna.Study, wanted: Sequence[tuple[str, int]], task: Task) -> None:
    """Queue every wanted training that is neither there nor queued, and take from the queue what is wanted no more."""
    for pair, trial in trainings(study).items():
        if trial.state == TrialState.WAITING and pair not in wanted:
            drop_queued(study, trial)
            checkpoint.remove(checkpoint_path(task.folder, trial.user_attrs))

    def lacking(trials: Trials) -> list[Queued]:
        there = trainings_of(trials)
        found = enumerate([pair for pair in wanted if pair not in there], next_index(trials))
        return [({}, {"contender": name, "repeat": seed, "index": index, "attempt": 1}) for index, (name, seed) in found]

    queue(study, lacking)


# --- the end ----------------------------------------------------------------------------------------------------------


def _hold(study: optuna.Study, chosen: Sequence[Contender], seeds: int, task: Task) -> None:
    """Write down that these finals are trained, and under "holdout" read the test images for them.

    That the images are read is written down before they are. A reading that was cut short has shown nobody anything: it is
    completed, under its date, and the next is not another.
    """
    keys = ("name", "number", "search_score", "params")
    trained = Held(tuple({key: getattr(one, key) for key in keys} for one in chosen), seeds)
    before = [asdict(one) for one in held_in(study) if one.test]
    weights = _weights(study, chosen, seeds, task)  # all of them first: nothing is read that cannot be read to its end
    if task.data.x_test is None or not weights.keys() - {"base"}:
        study.set_user_attr(HELD, [*before, asdict(trained)])
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    at = next((one.test_read for one in held_in(study) if not one.is_complete), now)
    reading = replace(trained, test_read=at, again=bool(before))
    study.set_user_attr(HELD, [*before, asdict(reading)])
    test = _read_test_images(weights, chosen, task)
    study.set_user_attr(HELD, [*before, asdict(replace(reading, test=test))])


def _weights(study: optuna.Study, chosen: Sequence[Contender], seeds: int, task: Task) -> dict[str, list[Weights]]:
    """What the trainings left, by contender, seed after seed; of those that trained on every seed."""
    there = trainings(study)
    return {
        one.name: [read_weights(task.folder / f"{one.name}-{seed}" / "weights.npz") for seed in range(seeds)]
        for one in chosen
        if all(there[one.name, seed].state == TrialState.COMPLETE for seed in range(seeds))
    }


def _read_test_images(weights: dict[str, list[Weights]], chosen: Sequence[Contender], task: Task) -> dict[str, list[float]]:
    """The accuracy of each on the test images."""
    from search.training.train import pixels_of

    assert task.data.x_test is not None and task.data.y_test is not None
    found: dict[str, list[float]] = {}
    goal = sum(map(len, weights.values()))
    for one in chosen:
        pixels = pixels_of(task.data, one.recipe)
        for trained in weights.get(one.name, []):
            done = sum(map(len, found.values()))
            task.emit({"event": "phase", "text": "reading the test images", "done": done, "goal": goal})  # a sign of life
            score = task.measure(one.architecture, trained, pixels, task.data.x_test, task.data.y_test)
            found.setdefault(one.name, []).append(score)
    return found
