"""Proposals through real Optuna studies on real SQLite; the objective counts what the network costs, and trains nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.spaces.domains import Value
from search.storage.attributes import REFUSED, REFUSED_PARAMS
from search.storage.claims import claims_of
from search.storage.queue import begin
from search.storage.resilient import ResilientStorage
from search.study.config import StudyConfig
from search.tuning.candidate import fits, judge
from search.tuning.sampler import KEPT, BudgetedSampler, points
from space import widths
from tests.support.proposals import (
    BUDGET,
    FACTS,
    FITS,
    GRID,
    SAMPLERS,
    TIGHT,
    TINY,
    configured,
    index_of_next,
    judged,
    keys,
    open_study,
    opened,
    propose,
    sampler_of,
    storage,
    study,
    values_of,
)
from tests.support.runs import Bench, Pretence, pretence, small_run
from tests.support.snippet import snippet
from tests.support.tiers import tiered

__all__ = ["pretence", "storage", "study"]
ROOT = Path(__file__).parents[2]
SEARCHED_RATE = {"epochs": 2, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
PROPOSALS = {"reject": 60, "fill": 30}
BLIND = 10  # proposals before a sampler learns


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


@pytest.fixture(
    scope="module",
    params=tiered(product(SAMPLERS, FITS), quick=(("tpe", "reject"), ("tpe", "fill"), ("random", "reject"))),
    ids="-".join,
)
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


def test_learning_samplers_are_asked(proposed: Proposed) -> None:
    """Later proposals score better than those before a sampler learns; random ones do not know of a score."""
    scores = [trial.values[0] for trial in proposed.trials]
    gain = mean(scores[-BLIND:]) - mean(scores[:BLIND])
    if len(scores) > 3 * BLIND:  # three generations of NSGA-II
        assert (gain > 1.0) == (proposed.config.search.sampler != "random")


def test_rejections_are_counted_on_the_trial_and_passed_to_its_objective(proposed: Proposed) -> None:
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


# --- what is queued --------------------------------------------------------------------------------------------------


def test_partly_fixed_trials_are_completed_around_their_values(proposed: Proposed) -> None:
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
def test_incompletable_trials_are_left_to_the_objective_and_the_study_continues(
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


def test_networks_in_training_are_not_proposed_again(study: optuna.Study) -> None:
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
from search.tuning.sampler import Exhausted
from tests.support.proposals import TINY, configured, open_study, opened, sampler_of
from tests.tuning.test_sampler import RACED
folder, sampler = sys.argv[1:]
config = configured(TINY | {"width": RACED}, 10**6, search={"sampler": sampler})
study = open_study(opened(Path(folder)))
print("ready", flush=True)
sys.stdin.readline()
proposed = []
while True:
    study.sampler = sampler_of(study, config, 0)  # the same draws in every process, as long as none has learnt
    trial = study.ask()
    try:
        values = {name: domain.suggest(trial, name) for name, domain in config.parameters.items()}
    except Exhausted:
        break
    proposed.append(list(values.values()))
    study.tell(trial, 0.5)
print(json.dumps(proposed))
"""


@pytest.mark.long
def test_four_processes_propose_each_network_of_a_space_once(tmp_path: Path) -> None:
    study = open_study(opened(tmp_path))
    words = snippet(PROPOSE, tmp_path)
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


def test_a_network_queued_by_the_user_is_proposed_to_no_other_trial_before_it_is_claimed(
    tmp_path: Path, pretence: Pretence
) -> None:
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
