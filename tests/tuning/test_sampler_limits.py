"""The samplers where little fits, at the end of a space, and in a grid."""

from __future__ import annotations

from itertools import product

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.spaces.domains import Value
from search.storage.attributes import INDEX, KEY, REFUSED, REFUSED_PARAMS
from search.storage.claims import claims_of
from search.study.config import StudyConfig
from search.tuning.candidate import Candidate, Rejection, fits, judge, renew_claims
from search.tuning.sampler import KEPT, Exhausted, points
from tests.support.proposals import (
    FACTS,
    FITS,
    GRID,
    SAMPLERS,
    TIGHT,
    TINY,
    configured,
    judged,
    keys,
    propose,
    sampler_of,
    storage,
    study,
)
from tests.support.tiers import tiered

__all__ = ["storage", "study"]


def all_keys(config: StudyConfig) -> set[str]:
    """The key of every point that fits, counted out."""
    found = (judge(config, FACTS, values) for values in points(config.parameters))
    return {one.key for one in found if isinstance(one, Candidate)}


# --- where little fits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_budget_that_hardly_anything_fits_is_met_by_shrinking(sampler: str, fit: str, study: optuna.Study) -> None:
    config = configured(TIGHT, 700, search={"sampler": sampler, "fit": fit})
    trials = propose(study, config, 4)
    assert len(set(keys(config, trials))) == 4
    assert len(study.get_trials(deepcopy=False)) == 4  # refusals are no trials
    for trial in trials if fit == "reject" else []:
        tally, sizes = trial.user_attrs[REFUSED], trial.user_attrs[REFUSED_PARAMS]
        assert tally["over budget"] >= 330
        assert len(sizes) == KEPT
        assert min(sizes) >= 700


def test_hardly_anything_is_less_than_a_thousandth(study: optuna.Study) -> None:
    config = configured(TIGHT, 700)
    sampler = sampler_of(study, config, 0)
    assert sum(fits(config, FACTS, sampler._uniform()) for _ in range(4_000)) < 4


def test_networks_that_shrinking_passes_over_are_found_too(study: optuna.Study) -> None:
    """A space too large to be listed, of which a few dozen fit: none is left when it is said to be exhausted."""
    space = {"blocks": 3, "width": {"low": 8, "high": 512, "step": 8}, "pools": 0}
    config = configured(space, 1_150, search={"sampler": "random"})
    small = configured(space | {"width": {"low": 8, "high": 64, "step": 8}}, 1_150)
    expected = all_keys(small)
    assert 10 < len(expected) < 40
    with pytest.raises(Exhausted):
        propose(study, config, len(expected) + 1)
    assert set(keys(config, study.get_trials(states=(TrialState.COMPLETE,)))) == expected


def test_one_network_among_thousands_is_found_by_listing_them(study: optuna.Study) -> None:
    """All widths are the same, so that nothing shrinks: of 4,096 sets of kernels only the last listed one fits."""
    kernels = {"choices": [15, 13, 11, 9, 7, 5, 3, 1], "per": "block"}
    config = configured({"blocks": 4, "width": 8, "kernel": kernels, "pools": 0}, 480)
    (trial,) = propose(study, config)
    assert set(trial.params.values()) == {1}
    assert trial.user_attrs[REFUSED]["over budget"] > 4_095
    with pytest.raises(Exhausted):
        propose(study, config)


# --- to the end of a space -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", tiered(SAMPLERS, quick=("tpe",)))
def test_a_finite_space_is_proposed_whole_and_once(sampler: str, study: optuna.Study) -> None:
    config = configured(TINY, 10**6, search={"sampler": sampler})
    trials = propose(study, config, 16)
    assert sorted(keys(config, trials)) == sorted(all_keys(config))
    reason = "no new network was found under 1,000,000 parameters"
    with pytest.raises(Exhausted, match=rf"^{reason}, [\d,]+ proposals: same network$"):
        propose(study, config)
    last = study.get_trials()[-1]
    assert (last.state, last.params, last.user_attrs["outcome"]) == (TrialState.FAIL, {}, "interrupted")
    assert last.user_attrs["reason"] == reason
    assert len(claims_of(study).held()) == 16


def test_networks_trained_by_an_earlier_version_are_not_trained_again(study: optuna.Study) -> None:
    """Its keys were of the recipe as it is written, the momentum of adam included."""
    recipe = {"epochs": 1, "momentum": [0.8, 0.9], "optimizer": ["adam", "adamw"]}
    config = configured({"blocks": [1, 2], "width": 8, "pools": 0}, 10**6, recipe=recipe)
    claims = claims_of(study)
    for index, momentum in enumerate((0.8, 0.9)):  # the same training twice
        values = {"blocks": 1, "recipe.momentum": momentum, "recipe.optimizer": "adam"}
        distributions = {name: domain.distribution() for name, domain in config.parameters.items()}
        attributes = {INDEX: index, KEY: f"earlier {index}"}
        study.add_trial(create_trial(value=0.5, params=values, distributions=distributions, user_attrs=attributes))
        assert claims.claim(f"earlier {index}", index)
    renew_claims(study, claims, config, FACTS)
    (proposed,) = propose(study, config)
    assert proposed.params["blocks"] == 2
    with pytest.raises(Exhausted):
        propose(study, config)


def test_a_finite_space_that_fits_in_part_is_proposed_as_far_as_it_fits(study: optuna.Study) -> None:
    config = configured(TINY, 900)
    expected = all_keys(config)
    assert 4 < len(expected) < 12
    with pytest.raises(Exhausted, match=r"proposals: over budget"):
        propose(study, config, 17)
    assert sorted(keys(config, study.get_trials(states=(TrialState.COMPLETE,)))) == sorted(expected)


def test_under_fill_a_space_ends_with_the_networks_that_fill_the_budget(study: optuna.Study) -> None:
    config = configured(TINY, 900, search={"sampler": "random", "fit": "fill"})
    with pytest.raises(Exhausted):
        propose(study, config, 17)
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    found = {tuple(trial.params.values()) for trial in trials}
    assert len(found) == len(trials) == len(set(keys(config, trials)))
    assert found == filling(config)


def filling(config: StudyConfig) -> set[tuple[Value, ...]]:
    """Pairs of widths that some pair, scaled, comes to at the largest scale that fits; by trying scales."""
    found: set[tuple[Value, ...]] = set()
    for drawn in product(TINY["width"], repeat=2):
        for scale in range(1, 96 * 4 + 1):
            pair = tuple(max([one for one in TINY["width"] if one <= scale / 96 * own], default=8) for own in drawn)
            if fits(config, FACTS, dict(zip(config.parameters, pair, strict=True))):
                largest = pair
        found.add(largest)
    return found


def test_an_impossible_space_is_exhausted_at_once(study: optuna.Study) -> None:
    config = configured(TINY, 100, search={"sampler": "tpe"})
    with pytest.raises(Exhausted, match=r"under 100 parameters, [\d,]+ proposals: over budget$"):
        propose(study, config)


# --- the grid --------------------------------------------------------------------------------------------------------


CELLS = [*product((1, 2), (8, 64, 16), (8, 64, 16))]  # blocks, width_1, width_2: the last changes first


def test_a_grid_is_listed_cell_by_cell_and_repeats_are_outermost(study: optuna.Study) -> None:
    rates = [0.1, 0.01]
    config = configured(
        {"blocks": 1, "width": [8, 16], "pools": 0},
        10**6,
        search={"sampler": "grid", "repeats": 2},
        recipe={"epochs": 2, "learning_rate": rates},
    )
    trials = propose(study, config, 8)
    cells = [(trial.params["repeat"], trial.params["width_1"], trial.params["recipe.learning_rate"]) for trial in trials]
    assert cells == [*product((0, 1), (8, 16), rates)]
    assert [judged(config, trial).repeat for trial in trials] == [0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(Exhausted):
        propose(study, config)


def test_a_grid_passes_over_what_does_not_fit_and_what_is_the_same_and_tallies_it_once(study: optuna.Study) -> None:
    config = configured(GRID, 2_000, search={"sampler": "grid"})
    expected, seen, tally = [], set(), {"over budget": 0, "same network": 0}
    for cell in CELLS:
        found = judge(config, FACTS, dict(zip(config.parameters, cell, strict=True)))
        if isinstance(found, Rejection):
            tally["over budget"] += 1
        elif found.key in seen:
            tally["same network"] += 1
        else:
            seen.add(found.key)
            expected.append((cell, dict(tally)))
    trials = propose(study, config, len(expected))
    assert [tuple(trial.params.values()) for trial in trials] == [cell for cell, _ in expected]
    assert min(tally.values()) > 0
    told = {"over budget": 0, "same network": 0}
    for trial, (_, sofar) in zip(trials, expected, strict=True):
        told = {rule: count + trial.user_attrs.get(REFUSED, {}).get(rule, 0) for rule, count in told.items()}
        assert told == sofar
    with pytest.raises(Exhausted):
        propose(study, config)


def test_a_fixed_value_is_kept_in_a_grid(study: optuna.Study) -> None:
    config = configured(GRID, 10**6, search={"sampler": "grid"})
    for _ in range(2):
        study.enqueue_trial({"blocks": 2, "width_2": 16})
    trials = propose(study, config, 3)
    assert [tuple(trial.params.values()) for trial in trials] == [(2, 8, 16), (2, 64, 16), (1, 8, 8)]
    assert all(REFUSED not in trial.user_attrs for trial in trials)  # each cell with it is looked at once
