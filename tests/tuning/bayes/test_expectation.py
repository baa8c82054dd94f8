"""Accuracy expected of another training, in searches whose objective is a function of the network and noise."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from search.study.config import StudyConfig
from search.tuning.bayes.expectation import expect
from search.tuning.bayes.sampler import STARTUP
from search.tuning.candidate import Candidate
from tests.tuning.bayes.test_sampler import FACTS, Search, accuracy, configured

TRIALS, NOISE, SEARCHES = 30, 0.02, 8


def at_random() -> StudyConfig:
    return configured("fill", search={"sampler": "random"})


def noisy(seed: int) -> Search:
    generator = random.Random(seed)
    search = Search(at_random(), seed=seed, objective=lambda candidate: accuracy(candidate) + generator.gauss(0, NOISE))
    search.run(TRIALS)
    return search


def truth_of(search: Search, number: int) -> float:
    """The accuracy of a trial's network without noise."""
    return accuracy(judged(search, number))


def judged(search: Search, number: int) -> Candidate:
    from search.tuning.candidate import judge

    candidate = judge(search.config, FACTS, dict(search.study.trials[number].params))
    assert isinstance(candidate, Candidate)
    return candidate


def test_it_is_nearer_to_the_truth_than_the_best_score() -> None:
    """The best of thirty scores is high by chance; what is expected of it is not."""
    errors_of_score, errors, covered = [], [], []
    for seed in range(SEARCHES):
        search = noisy(seed)
        best = max(search.study.trials, key=lambda trial: trial.values[0])
        expected = expect(search.config, FACTS, search.study.trials, best.number)
        assert expected is not None
        assert expected.trainings == TRIALS
        truth = truth_of(search, best.number)
        errors_of_score.append(best.values[0] - truth)
        errors.append(expected.mean - truth)
        covered.append(expected.low < truth < expected.high)
    assert np.mean(errors_of_score) > NOISE / 2
    assert abs(np.mean(errors)) < np.mean(errors_of_score) / 2
    assert sum(covered) >= SEARCHES - 1


def test_it_does_not_depend_on_randomness() -> None:
    search = noisy(0)
    assert expect(search.config, FACTS, search.study.trials, 3) == expect(search.config, FACTS, search.study.trials, 3)


def test_few_trainings_tell_nothing() -> None:
    search = Search(at_random())
    search.run(STARTUP - 1)
    assert expect(search.config, FACTS, search.study.trials, 0) is None
    search.run(1)
    assert expect(search.config, FACTS, search.study.trials, 0) is not None


def test_noise_alone_tells_nothing() -> None:
    told = 0
    for seed in range(SEARCHES):
        generator = random.Random(seed)
        search = Search(at_random(), seed=seed, objective=lambda _: generator.random())  # noqa: B023 - used at once
        search.run(20)
        told += expect(search.config, FACTS, search.study.trials, 0) is not None
    assert told <= SEARCHES // 2


@pytest.mark.parametrize("number", [-1, TRIALS])
def test_a_trial_that_was_not_trained(number: int) -> None:
    search = noisy(0)
    assert expect(search.config, FACTS, search.study.trials, number) is None


def test_other_images_change_nothing() -> None:
    """A run that is read knows less of its images than one that trains; features do not depend on it."""
    search = noisy(1)
    less = replace(FACTS, train_images=None, is_balanced=False)
    assert expect(search.config, less, search.study.trials, 0) == expect(search.config, FACTS, search.study.trials, 0)
