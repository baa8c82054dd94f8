"""Proposals through real Optuna studies on real SQLite; the objective counts what the network costs, and trains nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event

from search.seeds import derive
from search.spaces.domains import Value
from search.storage.attributes import INDEX, KEY, REFUSED, REFUSED_PARAMS
from search.storage.claims import Claims, claims_of
from search.storage.database import open_storage
from search.storage.queue import begin, next_index
from search.storage.resilient import ResilientStorage
from search.storage.urls import sqlite_url
from search.study.config import StudyConfig
from search.study.study_file import parse
from search.tuning.candidate import Candidate, DataFacts, Rejection, fits, judge, renew_claims
from search.tuning.sampler import KEPT, BudgetedSampler, Exhausted, inner_sampler, points
from space import widths
from tests.support.runs import Bench, Pretence, pretence, small_run

__all__ = ["pretence"]

ROOT = Path(__file__).parents[2]
FACTS = DataFacts((32, 32, 3), 10, "0" * 16)
SAMPLERS = ("tpe", "random", "nsga2")
FITS = ("reject", "fill")
BUDGET = 2_000
SPACE: dict[str, Any] = {  # half of it fits
    "blocks": {"low": 1, "high": 3},
    "width": {"low": 4, "high": 64, "step": 4},
    "dropout": {"low": 0.0, "high": 0.3, "step": 0.05, "per": "net"},
    "order": "conv-dropout-bn-act",
    "pools": 0,
}
TINY: dict[str, Any] = {"blocks": 2, "width": [8, 16, 24, 32], "pools": 0}  # 16 networks
SEARCHED_RATE = {"epochs": 2, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
PROPOSALS = {"reject": 60, "fill": 30}
BLIND = 10  # proposals before a sampler learns


def configured(space: Mapping[str, Any] = SPACE, params: int = BUDGET, **tables: Any) -> StudyConfig:
    search = tables.pop("search", {})
    plain = {"base": 0.5, "data": {"name": "cifar10"}, "budget": {"params": params}, "space": dict(space), "search": search}
    return parse({"recipe": {"epochs": 2}} | plain | tables, "test")


def opened(folder: Path) -> ResilientStorage:
    """A storage whose disk is not waited for: nothing here cuts the power."""
    storage = open_storage(sqlite_url(folder))
    event.listen(storage.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    storage.engine.dispose()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return storage


def open_study(storage: ResilientStorage, name: str = "s") -> optuna.Study:
    return optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> ResilientStorage:
    return opened(tmp_path_factory.mktemp("studies"))


@pytest.fixture
def study(storage: ResilientStorage, request: pytest.FixtureRequest) -> optuna.Study:
    return open_study(storage, request.node.name)


def sampler_of(study: optuna.Study, config: StudyConfig, index: int, claims: Claims | None = None) -> BudgetedSampler:
    """As `search.runner.trial` makes it."""
    seed = derive(config.search.seed, "sampler", index)
    return BudgetedSampler(inner_sampler(config.search.sampler, seed), config, FACTS, claims or claims_of(study), seed=seed)


def index_of_next(study: optuna.Study) -> int:
    """That of the trial which is queued first, else a new one."""
    trials = study.get_trials(deepcopy=False)
    first = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
    return first.user_attrs["index"] if first and "index" in first.user_attrs else next_index(trials)


def propose(study: optuna.Study, config: StudyConfig, count: int = 1) -> list[FrozenTrial]:
    """So many trials, queued ones first, each scored by a number that its network tells."""
    numbers: list[int] = []
    claims = claims_of(study)

    def objective(trial: optuna.Trial) -> float:
        if "index" not in trial.user_attrs:
            trial.set_user_attr("index", index)
        found = judge(config, FACTS, {name: domain.suggest(trial, name) for name, domain in config.parameters.items()})
        trial.set_user_attr("seen", trial.user_attrs)  # what the live trial shows to its objective
        if isinstance(found, Rejection):
            raise optuna.TrialPruned(found.reason)
        return score(found)

    for _ in range(count):
        index = index_of_next(study)
        study.sampler = sampler_of(study, config, index, claims)
        study.optimize(objective, n_trials=1, callbacks=[lambda _, trial: numbers.append(trial.number)])
    trials = study.get_trials(deepcopy=False)
    return [trials[number] for number in numbers]


def score(found: Candidate) -> float:
    """The score to maximise: narrow first blocks, a high learning rate."""
    first = found.architecture.layers[0]
    return 100 * found.recipe.learning_rate - getattr(first, "filters", 0) / 64


def values_of(config: StudyConfig, trial: FrozenTrial) -> dict[str, Value]:
    """The parameters as the study file declares them."""
    found = {name: domain.find(trial.params[name]) for name, domain in config.parameters.items()}
    assert None not in found.values(), trial.params
    return {name: value for name, value in found.items() if value is not None}


def judged(config: StudyConfig, trial: FrozenTrial) -> Candidate:
    found = judge(config, FACTS, values_of(config, trial))
    assert isinstance(found, Candidate), found
    return found


def keys(config: StudyConfig, trials: list[FrozenTrial]) -> list[str]:
    return [judged(config, trial).key for trial in trials]


def all_keys(config: StudyConfig) -> set[str]:
    """The key of every point that fits, counted out."""
    found = (judge(config, FACTS, values) for values in points(config.parameters))
    return {one.key for one in found if isinstance(one, Candidate)}


def raised(config: StudyConfig, values: Mapping[str, Value]) -> dict[str, Value]:
    """Every width one step wider."""
    steps = {name: sorted(config.parameters[name].declared()) for name in widths(config.space)}
    return {**values, **{name: own[min(own.index(values[name]) + 1, len(own) - 1)] for name, own in steps.items()}}


# --- many proposals of each sampler ----------------------------------------------------------------------------------


class Proposed(NamedTuple):
    study: optuna.Study  # to go on with
    config: StudyConfig
    trials: list[FrozenTrial]
    claimed: dict[str, int]


@pytest.fixture(scope="module", params=[*product(SAMPLERS, FITS)], ids="-".join)
def proposed(request: pytest.FixtureRequest, storage: ResilientStorage) -> Proposed:
    sampler, fit = request.param
    config = configured(search={"sampler": sampler, "fit": fit}, recipe=SEARCHED_RATE)
    study = open_study(storage, f"{sampler}-{fit}")
    return Proposed(study, config, propose(study, config, PROPOSALS[fit]), claims_of(study).held())


def test_every_proposal_fits_and_is_another_from_the_first_trial_on(proposed: Proposed) -> None:
    _, config, trials, claimed = proposed
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * len(trials)
    assert all(judged(config, trial).cost.params < BUDGET for trial in trials)
    assert {key: index for index, key in enumerate(keys(config, trials))} == claimed
    assert len(claimed) == len(trials) == PROPOSALS[config.search.fit]


def test_every_proposal_is_complete_and_in_its_domains(proposed: Proposed) -> None:
    for trial in proposed.trials:
        assert list(trial.params) == list(proposed.config.parameters)
        values_of(proposed.config, trial)


def test_the_whole_joint_space_is_proposed_from(proposed: Proposed) -> None:
    """Every depth, and both halves of every width and rate, and not only what the first trials happened to hold."""
    first = proposed.trials[: 2 * BLIND]
    assert {trial.params["blocks"] for trial in first} == {1, 2, 3}
    for name, middle in {"width_1": 32, "width_2": 32, "width_3": 32, "dropout": 0.15, "recipe.learning_rate": 0.01}.items():
        assert {trial.params[name] > middle for trial in first} == {True, False}, name


def test_what_learns_is_asked(proposed: Proposed) -> None:
    """Later proposals score better than those before a sampler learns; random ones do not know of a score."""
    scores = [trial.values[0] for trial in proposed.trials]
    gain = mean(scores[-BLIND:]) - mean(scores[:BLIND])
    if len(scores) > 3 * BLIND:  # three generations of NSGA-II
        assert (gain > 1.0) == (proposed.config.search.sampler != "random")


def test_refusals_are_tallied_on_the_trial_and_told_to_its_objective(proposed: Proposed) -> None:
    tallies = [trial.user_attrs.get(REFUSED, {}) for trial in proposed.trials]
    assert all(set(tally) <= {"over budget", "same network"} for tally in tallies)
    if proposed.config.search.fit == "reject":
        assert sum(tally.get("over budget", 0) for tally in tallies) > BLIND / 2
    assert {} in tallies
    assert all(
        trial.user_attrs.get(REFUSED) != {} for trial in proposed.trials
    )  # nothing is written where nothing was refused
    for trial, tally in zip(proposed.trials, tallies, strict=True):
        assert trial.user_attrs["seen"].get(REFUSED, {}) == tally
        sizes = trial.user_attrs.get(REFUSED_PARAMS, [])
        assert trial.user_attrs["seen"].get(REFUSED_PARAMS, []) == sizes
        assert len(sizes) == min(tally.get("over budget", 0), KEPT)
        assert all(size >= BUDGET for size in sizes)


def test_widths_under_fill_are_the_largest_that_fit(proposed: Proposed) -> None:
    shares = [judged(proposed.config, trial).cost.params / BUDGET for trial in proposed.trials]
    if proposed.config.search.fit == "reject":
        assert min(shares) < 0.3
        return
    assert median(shares) > 0.85
    for trial in proposed.trials:
        values = values_of(proposed.config, trial)
        wider = raised(proposed.config, values)
        assert wider == values or not fits(proposed.config, FACTS, wider)


def test_the_same_seed_proposes_the_same(proposed: Proposed, study: optuna.Study) -> None:
    """Each trial's draws depend on its index and on what came before: here past the point where samplers learn."""
    again = propose(study, proposed.config, BLIND + 4)
    assert [trial.params for trial in again] == [trial.params for trial in proposed.trials[: BLIND + 4]]
    assert [trial.user_attrs for trial in again] == [trial.user_attrs for trial in proposed.trials[: BLIND + 4]]


def test_a_sampler_that_is_reseeded_draws_others(study: optuna.Study) -> None:
    """Optuna does so where one sampler serves several threads or processes."""
    one, other = (sampler_of(study, configured(recipe=SEARCHED_RATE), 0) for _ in range(2))
    assert one._uniform() == other._uniform()
    other.reseed_rng()
    assert one._uniform() != other._uniform()


def test_another_seed_proposes_others(proposed: Proposed, study: optuna.Study) -> None:
    search = proposed.config.search.model_copy(update={"seed": 1})
    other = propose(study, proposed.config.model_copy(update={"search": search}), 3)
    assert not {str(trial.params) for trial in other} & {str(trial.params) for trial in proposed.trials}


# --- where little fits -----------------------------------------------------------------------------------------------

TIGHT: dict[str, Any] = {"blocks": {"low": 2, "high": 6}, "width": {"low": 8, "high": 512, "step": 8}, "pools": 0}


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


def test_what_shrinking_passes_over_is_found_too(study: optuna.Study) -> None:
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


@pytest.mark.parametrize("sampler", SAMPLERS)
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


def test_what_an_earlier_version_has_trained_is_not_trained_again(study: optuna.Study) -> None:
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

GRID: dict[str, Any] = {"blocks": {"low": 1, "high": 2}, "width": [8, 64, 16], "pools": 0}
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


# --- what is queued --------------------------------------------------------------------------------------------------


def test_what_is_fixed_in_part_is_completed_around_it(proposed: Proposed) -> None:
    study, config, fixed = proposed.study, proposed.config, {"blocks": 3, "width_2": 40, "dropout": 0.15000000000000002}
    indices = [index_of_next(study) + ahead for ahead in (0, 1)]
    for index in indices:
        study.enqueue_trial(fixed, user_attrs={"index": index})
    trials = propose(study, config, 2)
    assert [trial.user_attrs["index"] for trial in trials] == indices
    held = claims_of(study).held()
    assert [held[key] for key in keys(config, trials)] == indices
    for trial in trials:
        assert trial.params.items() >= fixed.items()  # as they were queued
        values = values_of(config, trial)
        wider = raised(config, values) | {"width_2": 40}
        assert config.search.fit == "reject" or wider == values or not fits(config, FACTS, wider)


def test_a_fixed_width_that_takes_most_of_the_budget_is_met_by_shrinking_the_others(study: optuna.Study) -> None:
    """It keeps its width: to shrink it with the others and put it back would be over the budget each time."""
    config = configured(TIGHT, 7_000, search={"sampler": "random"})
    study.enqueue_trial({"blocks": 6, "width_3": 200})
    (trial,) = propose(study, config)
    assert (trial.params["blocks"], trial.params["width_3"]) == (6, 200)
    assert judged(config, trial).cost.params < 7_000


@pytest.mark.parametrize("fixed", [{"blocks": 3, "width_1": 32, "width_2": 32}, {"width_1": 8, "width_2": 8}])
def test_what_cannot_be_completed_is_left_to_the_objective_and_the_study_goes_on(
    fixed: dict[str, int], study: optuna.Study
) -> None:
    """All of it is over the budget; or all of it trained already."""
    config, claims = configured(TINY | {"blocks": {"low": 1, "high": 3}}, 1_200), claims_of(study)
    for index, values in enumerate(points(config.parameters), 100):
        if values.items() >= {"width_1": 8, "width_2": 8}.items():
            claims.claim(judge(config, FACTS, values).key, index)  # type: ignore[union-attr]
    held = claims.held()
    study.enqueue_trial(fixed)
    (trial,) = propose(study, config)
    assert trial.params.items() >= fixed.items()
    assert list(trial.params) == list(config.parameters)
    assert set(trial.user_attrs) == {"index", "seen"}
    assert claims.held() == held
    (after,) = propose(study, config)
    assert keys(config, [after])[0] not in held


@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_a_queued_trial_that_has_all_its_parameters_is_not_the_samplers(sampler: str, study: optuna.Study) -> None:
    config = configured(TINY, 900, search={"sampler": sampler})
    fixed = {"width_1": 32, "width_2": 32}
    assert not fits(config, FACTS, fixed)
    study.enqueue_trial(fixed)
    (trial,) = propose(study, config)
    assert (trial.state, trial.params) == (TrialState.PRUNED, fixed)
    assert set(trial.user_attrs) == {"index", "seen"}
    assert claims_of(study).held() == {}
    assert judged(config, propose(study, config)[0]).cost.params < 900


# --- retries and other workers ---------------------------------------------------------------------------------------


def check_retry(study: optuna.Study, config: StudyConfig) -> None:
    """A trial is lost between its proposal and its verdict, and drawn again; the next one is another."""
    index = index_of_next(study)
    study.sampler = sampler_of(study, config, index)
    lost = study.ask()
    lost.set_user_attr("index", index)
    first, domain = next(iter(config.parameters.items()))
    domain.suggest(lost, first)
    drawn, told = lost.relative_params, lost.user_attrs
    study.tell(lost, state=TrialState.FAIL)
    held = claims_of(study).held()
    study.enqueue_trial({}, user_attrs={"index": index})
    again, after = propose(study, config, 2)
    assert again.params == drawn
    assert again.user_attrs["seen"] == told
    assert after.user_attrs["index"] == index + 1
    (new,) = keys(config, [after])
    assert claims_of(study).held() == held | {new: index + 1}
    assert new not in held


def test_a_trial_that_was_lost_before_its_verdict_is_drawn_again_the_same(proposed: Proposed) -> None:
    check_retry(proposed.study, proposed.config)


def test_a_cell_that_was_lost_before_its_verdict_is_trained_in_its_turn(study: optuna.Study) -> None:
    config = configured(GRID, search={"sampler": "grid"})
    propose(study, config, 4)
    check_retry(study, config)


def test_what_is_in_flight_is_not_proposed_again(study: optuna.Study) -> None:
    """Trials that run, of which samplers know nothing."""
    config = configured(TINY, 10**6, search={"sampler": "tpe"})
    flying = []
    for index in range(16):
        study.sampler = sampler_of(study, config, index)
        trial = study.ask()
        flying.append(tuple(domain.suggest(trial, name) for name, domain in config.parameters.items()))
    assert sorted(flying) == [*product(TINY["width"], repeat=2)]


RACED = [8, 16, 24, 32, 40, 48]
PROPOSE = """
import json, sys
from pathlib import Path
from tests.tuning import test_sampler as test
folder, sampler = sys.argv[1:]
config = test.configured(test.TINY | {"width": test.RACED}, 10**6, search={"sampler": sampler})
study = test.open_study(test.opened(Path(folder)))
print("ready", flush=True)
sys.stdin.readline()
proposed = []
while True:
    study.sampler = test.sampler_of(study, config, 0)  # the same draws in every process, as long as none has learnt
    trial = study.ask()
    try:
        values = {name: domain.suggest(trial, name) for name, domain in config.parameters.items()}
    except test.Exhausted:
        break
    proposed.append(list(values.values()))
    study.tell(trial, 0.5)
print(json.dumps(proposed))
"""


@pytest.mark.slow
def test_four_processes_propose_each_network_of_a_space_once(tmp_path: Path) -> None:
    study = open_study(opened(tmp_path))
    words = [sys.executable, "-c", PROPOSE, str(tmp_path)]
    workers = [
        subprocess.Popen([*words, sampler], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for sampler in (*SAMPLERS, "grid")
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:  # all at once
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    proposed = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    assert sorted(tuple(one) for some in proposed for one in some) == [*product(RACED, repeat=2)]
    assert sum(bool(some) for some in proposed) > 1  # or nothing was at stake
    assert len(claims_of(study).held()) == len(RACED) ** 2


def test_what_a_person_queued_is_proposed_to_no_other_trial_before_it_is_claimed(tmp_path: Path, pretence: Pretence) -> None:
    """Two of three networks are another worker's, which has begun one and not come to claim either."""
    space = {"blocks": 1, "width": [8, 16, 24], "pools": 0}
    for seed in range(5):
        run = small_run(tmp_path / f"{seed}", space=space, search={"trials": 3, "seed": seed, "sampler": "random"})
        bench = Bench(run, pretence)
        for width in (8, 16):
            bench.study.enqueue_trial({"width_1": width})
        begin(bench.study, "another")
        trial = begin(bench.study, "this", choose=lambda queued: False)
        assert trial is not None
        sampler = BudgetedSampler(
            optuna.samplers.RandomSampler(seed=seed),
            run.config,
            bench.objective.context.facts,
            bench.objective.claims,
            seed=seed,
        )
        frozen = bench.study._storage.get_trial(trial._trial_id)
        assert sampler.sample_relative(bench.study, frozen, {}) == {"width_1": 24}
