"""report.analysis.importance, on studies in which one choice matters, and on one in which none does."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import create_trial

from report.analysis.importance import FEWEST, SHUFFLES, importances, shuffles

DOMAINS = {
    **{f"width_{n}": IntDistribution(8, 128, step=8) for n in range(1, 6)},
    "order": CategoricalDistribution(["a", "b", "c"]),
    "repeat": IntDistribution(0, 4),
}


def study(n: int, effect: float) -> optuna.Study:
    """Accuracies of noise, and so much more where the order is `a`."""
    draws, made = random.Random(1), optuna.create_study(direction="maximize")
    for _ in range(n):
        params = {name: draws.randrange(8, 129, 8) for name in DOMAINS if name.startswith("width")}
        params |= {"order": draws.choice("abc"), "repeat": draws.randrange(5)}
        value = 0.5 + draws.gauss(0, 0.01) + effect * (params["order"] == "a")
        made.add_trial(create_trial(value=value, params=params, distributions=DOMAINS))
    return made


def test_important_choices_stand_out_and_come_first() -> None:
    found = importances(study(100, effect=0.05))
    assert [one.name for one in found if one.stands_out] == ["order"]
    assert sum(one.share for one in found) == pytest.approx(1)
    assert {one.name for one in found} == DOMAINS.keys() - {"repeat"}, "a seed is no choice"


def test_of_noise_nothing_stands_out_though_shares_add_up_all_the_same() -> None:
    found = importances(study(60, effect=0.0))
    assert sum(one.share for one in found) == pytest.approx(1)
    assert not any(one.stands_out for one in found)
    assert found[0].share > 0.25, "and the first looks important"


def test_few_trials_tell_nothing() -> None:
    assert importances(study(FEWEST - 1, effect=0.05)) == []
    assert importances(study(FEWEST, effect=0.05)) != []
    assert importances(optuna.create_study()) == []


def test_many_trials_are_shuffled_less_often() -> None:
    assert (shuffles(50), shuffles(2_000), shuffles(10**6)) == (SHUFFLES, 10, 9)
