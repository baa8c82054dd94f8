"""Pruning at rungs: which trials continue, and what becomes of those that do not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.storage.recovery import requeue
from search.storage.resilient import ResilientStorage
from search.study.tables import Rungs
from search.tuning.pruner import RungPruner


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


# --- where they lie --------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(2, 5), st.integers(1, 200))
def test_rungs_lie_at_first_times_powers_of_the_factor_before_the_last_epoch(first: int, factor: int, epochs: int) -> None:
    expected = [epoch for epoch in range(1, epochs) if any(epoch == first * factor**power for power in range(8))]
    assert list(Rungs(first=first, factor=factor).before(epochs)) == expected


# --- who passes ------------------------------------------------------------------------------------------------------


def new_study(pruner: optuna.pruners.BasePruner, storage: optuna.storages.BaseStorage | None = None) -> optuna.Study:
    """Create a study in memory, or in a storage."""
    return optuna.create_study(direction="maximize", pruner=pruner, storage=storage)


@cache
def database() -> ResilientStorage:
    """A database in memory, for studies in which trials are requeued."""
    return ResilientStorage(optuna.storages.RDBStorage("sqlite:///:memory:"))


def train(trial: optuna.Trial, curve: Sequence[float], rungs: Sequence[int], *, until: int | None = None) -> int:
    """Report a curve as `objective` does, asking at rungs alone; the epochs trained, `until` at most."""
    for epoch, value in enumerate(curve[:until], 1):
        trial.report(value, epoch)
        if epoch in rungs and trial.should_prune():
            return epoch
    return len(curve[:until])


def pruner_at(first: int, factor: int, epochs: int) -> RungPruner:
    """The pruner of trainings of so many epochs."""
    return RungPruner(Rungs(first=first, factor=factor).before(epochs))


def end_trial(study: optuna.Study, trial: optuna.Trial, curve: Sequence[float], length: int) -> None:
    """Store a trial as trained in full, with its last accuracy, or as pruned."""
    if length == len(curve):
        study.tell(trial, curve[-1])
    else:
        study.tell(trial, state=TrialState.PRUNED)


def undisturbed(pruner: optuna.pruners.BasePruner, curves: Sequence[Sequence[float]], rungs: Sequence[int]) -> list[int]:
    """Epochs for which each of the curves is trained, one after the other."""
    study, lengths = new_study(pruner), []
    for curve in curves:
        trial = study.ask()
        lengths.append(train(trial, curve, rungs))
        end_trial(study, trial, curve, lengths[-1])
    return lengths


EPOCHS = 9
CURVES = st.lists(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=EPOCHS, max_size=EPOCHS), min_size=1, max_size=12
)


def test_it_weighs_the_gain_expected_of_a_training_against_that_of_the_candidates_so_far() -> None:
    """By hand, rungs after 2 and 6 of 18 epochs.

    With a single trained trial, a final accuracy is that at the rung plus its gain of 0.1, with a deviation of 0.03, so that
    the improvement expected over the best of 0.5 is 0.03 (z Phi(z) + phi(z)) for z = (accuracy - 0.4) / 0.03: 0.0120 for
    0.40, 0.0136 for 0.403 and 0.0059 for 0.38.
    """
    first, rest = [0.4] * 17 + [0.5], [0.0] * 12

    def lengths(*accuracies: tuple[float, float]) -> list[int]:
        curves = [first, *([early] * 5 + [late] * 2 + rest for early, late in accuracies)]
        return undisturbed(pruner_at(2, 3, 18), curves, [2, 6])[1:]

    assert lengths((0.397, 0.4), (0.3, 0.4)) == [2, 2]
    assert lengths((0.403, 0.397)) == [6], "0.0108 at the second rung, where the first network had 0.0120 at the first"
    assert lengths((0.403, 0.403)) == [19]
    # below the first network, and above the mean of it and the second, 0.0060
    assert lengths((0.3, 0.3), (0.39, 0.39)) == [2, 19]
    assert lengths((0.3, 0.3), (0.38, 0.38)) == [2, 2]


@given(CURVES)
@settings(max_examples=40)
def test_all_continue_until_one_is_trained_in_full(curves: list[list[float]]) -> None:
    study, rungs = new_study(pruner_at(1, 3, EPOCHS)), (1, 3)
    for curve in curves:
        assert train(study.ask(), curve, rungs) == EPOCHS, "the others are still in training"


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_few_of_many_networks_continue_and_the_best_among_them(factor: int) -> None:
    """300 by chance, which end where they are at a rung; the best is trained in full in any order."""
    generator = random.Random(factor)
    scores = [generator.gauss(0.5, 0.05) for _ in range(300)]
    lengths = undisturbed(pruner_at(1, factor, factor**2), [[score] * factor**2 for score in scores], [1, factor])
    assert lengths[scores.index(max(scores))] == factor**2
    in_full = [score for score, length in zip(scores, lengths, strict=True) if length == factor**2]
    assert 3 <= len(in_full) < 300 / factor
    assert sum(in_full) / len(in_full) > 0.55, "the mean of all is 0.5"


def test_a_network_at_the_level_of_the_best_is_not_pruned_for_being_second() -> None:
    """As in successive halving, which keeps one in three: 0.49 and 0.51 beside 0.5 are within the noise."""
    curves = [[0.3] * 4, [0.29] * 4, [0.28] * 4, [0.5] * 4, [0.49] * 4, [0.51] * 4, [0.35] * 4]
    assert undisturbed(pruner_at(1, 3, 4), curves, [1, 3]) == [4, 1, 1, 4, 4, 4, 1]


@given(CURVES, st.lists(st.tuples(st.integers(0, 11), st.integers(0, EPOCHS)), max_size=5), st.integers(2, 3))
@settings(max_examples=15)
def test_interrupted_trials_and_their_retries_count_once(
    curves: list[list[float]], interruptions: list[tuple[int, int]], factor: int
) -> None:
    """A trial that is lost after some epoch, at a rung or past it, is there again: all is decided as if it had not been."""
    rungs, lengths = Rungs(first=1, factor=factor).before(EPOCHS), []
    study = new_study(pruner_at(1, factor, EPOCHS), database())
    for index, curve in enumerate(curves):
        for _, epoch in (one for one in interruptions if one[0] == index):
            lost = study.ask()
            train(lost, curve, rungs, until=epoch)
            requeue(study)
            assert study.trials[lost.number].user_attrs["outcome"] == "interrupted"
        trial = study.ask()
        trial.set_user_attr("index", index)
        lengths.append(train(trial, curve, rungs))
        end_trial(study, trial, curve, lengths[-1])
    assert lengths == undisturbed(pruner_at(1, factor, EPOCHS), curves, rungs)


def test_an_interrupted_trial_that_counted_would_change_what_is_decided() -> None:
    """So that the property above can fail."""
    verdicts = []
    for is_interrupted in (True, False):
        study = new_study(pruner_at(1, 2, 4), database())
        trial = study.ask()
        end_trial(study, trial, [0.5] * 4, train(trial, [0.5] * 4, (1, 2)))
        for _ in range(5):
            trial = study.ask()
            trial.set_user_attr("index", 1)
            assert train(trial, [0.1], (1, 2)) == 1
            if is_interrupted:
                requeue(study)
            else:
                study.tell(trial, state=TrialState.PRUNED)
        trial = study.ask()
        trial.report(0.49, 1)
        verdicts.append(trial.should_prune())
    assert verdicts == [True, False]
