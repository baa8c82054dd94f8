"""One trial through Optuna: begun for this worker alone, its sampler seeded by its logical index, its pruner, its end."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from objective import Task, candidate, checkpoint_path
from search.seeds import derive
from search.storage.attributes import INDEX, OUTCOME
from search.storage.claims import Claims
from search.storage.heartbeat import heartbeat
from search.storage.optuna_internals import trial_id_of
from search.storage.queue import HasRoom, Trials, begin
from search.storage.recovery import requeue, verdict_of
from search.study.records import COUNTED
from search.training import checkpoint
from search.training.result import TrialOver
from search.tuning.pruner import RungPruner
from search.tuning.sampler import BudgetedSampler
from search.tuning.stopping import Enough

Values = float | Sequence[float]  # of one objective, or of several

STARTUP = 10  # trials drawn at random before a sampler learns from what came of them


def has_room(trials: Trials, most: int) -> bool:
    """Whether one more candidate may run beside these: those that count and those that run are never more than `most`."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    taken = (
        trial.state == TrialState.RUNNING or (trial.state in ended and trial.user_attrs.get(OUTCOME) in COUNTED)
        for trial in trials
    )
    return sum(taken) < most


def run_candidate(study: optuna.Study, task: Task, claims: Claims, *, room: HasRoom | None = None, new: bool = True) -> bool:
    """Let the task's sampler propose a candidate, or take the one that is queued, and train it; False without room for one.

    Args:
        room: as in `search.storage.queue.begin`; that of the study's number of trials if None.
        new: whether one may be proposed where none is queued.

    Raises:
        Exhausted: the space holds nothing new that fits.
        Enough: a limit of the study was reached; the trial is queued to be gone on with.
    """
    config = task.config
    trial = begin(
        study,
        task.worker,
        has_room=room or (lambda trials, others: has_room(trials, config.trials - others)),
        new=lambda trials: {} if new else None,
    )
    if trial is None:
        return False
    seed = derive(config.search.seed, "sampler", trial.user_attrs[INDEX])
    study.sampler = BudgetedSampler(inner_sampler(config.search.sampler, seed), config, task.facts, claims, seed=seed)
    study.pruner = RungPruner(config.search.rungs) if config.search.rungs else optuna.pruners.NopPruner()
    run_trial(study, trial, lambda trial: candidate(trial, task), task)
    return True


def run_trial(study: optuna.Study, trial: optuna.Trial, objective: Callable[[optuna.Trial], Values], task: Task) -> None:
    """Run a trial that was begun, with Optuna's heartbeat, and tell what came of it; its checkpoint then goes.

    Where somebody has taken the trial up meanwhile, as nothing was heard of this worker, what comes of it is refused.

    Raises:
        Enough: the trial is queued to be gone on with.
    """
    value: Values | None = None
    state = TrialState.FAIL
    try:
        with heartbeat(trial):
            try:
                value, state = objective(trial), TrialState.COMPLETE
            except optuna.TrialPruned:
                state = TrialState.PRUNED
            except TrialOver:
                pass
            except Enough as ended:
                requeue(study, worker=task.worker, reason=f"{ended}")
                raise
            except UpdateFinishedTrialError:
                raise
            except Exception:
                # it may have come to a verdict: what came after is at fault, such as a note
                state, value = verdict_of(study, trial.user_attrs)
                _tell(study, trial, value, state)
                raise
        _tell(study, trial, value, state)
    except UpdateFinishedTrialError:
        task.emit({"event": "refused", "number": trial.number})
    else:
        checkpoint.remove(checkpoint_path(task.folder, trial.user_attrs))
    gc.collect()  # a network and its compiled functions hold each other


def tidy(task: Task, studies: Iterable[optuna.Study]) -> None:
    """Remove the checkpoints that no trial will go on from: of one that was told of by another than its worker."""
    unfinished = (TrialState.RUNNING, TrialState.WAITING)
    kept = {
        checkpoint_path(task.folder, trial.user_attrs)
        for study in studies
        for trial in study.get_trials(deepcopy=False, states=unfinished)
        if INDEX in trial.user_attrs
    }
    for path in (task.folder / "checkpoints").glob("[!.]*.npz"):
        if path not in kept:
            checkpoint.remove(path)


def _tell(study: optuna.Study, trial: optuna.Trial, value: Values | None, state: TrialState) -> None:
    """As `Study.tell`, which takes a trial that was ended by somebody else for a wrong argument."""
    try:
        study.tell(trial, value, state)
    except ValueError as error:
        if trial.storage.get_trial(trial_id_of(trial)).state.is_finished():
            raise UpdateFinishedTrialError from error
        raise


def inner_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's own sampler of this name; a grid is listed by `BudgetedSampler` itself, and asks none."""
    match name:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=False, n_startup_trials=STARTUP)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=2 * STARTUP)
        case _:
            return optuna.samplers.RandomSampler(seed=seed)
