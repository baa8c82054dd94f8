"""The prior of a run: read from another run once, stored with the study, and the same when that run is gone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial
from scipy.stats import spearmanr

from search.api.study_toml import study_text
from search.errors import UserError
from search.networks.architecture import Architecture, to_dict
from search.networks.layers import Dense, Flatten, Softmax
from search.runner.events import Event, PriorFitted
from search.runner.job import make_order
from search.runner.preparation import Prepared, prepare
from search.runner.prior import PREFIX, prior_to_store, store_prior, stored_prior
from search.runner.reporter import Reporter
from search.storage.attributes import OUTCOME, PROPOSAL
from search.storage.database import storage_of
from search.storage.optuna_internals import study_id_of
from search.study.run import Run, create, load
from search.tuning.bayes.prior import MOST_TRIALS, Trend
from search.tuning.bayes.sampler import STARTUP_WITH_PRIOR
from search.tuning.sources import open_prior
from tests.runner.test_adoption_resume import Untrained
from tests.support import commands
from tests.support.runs import Bench, Pretence, digits, pretence, small_run

__all__ = ["pretence"]

TRIALS = 12
SHIPPED = "cifar10-16px"
DATA = {"name": "digits", "images": 100}


def trial(run: Run, width: int, **values: Any) -> Any:
    """A finished trial of one block of this width."""
    params = {"blocks": 1, "width_1": width, "width_2": 8, "width_3": 8, "pool_position_1": 1}
    known = {name: params.get(name, next(iter(domain.declared()))) for name, domain in run.config.parameters.items()}
    distributions = {name: domain.distribution() for name, domain in run.config.parameters.items()}
    return create_trial(params=known, distributions=distributions, **values)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a study whose accuracy grows with the width of its block; the last of its trials was pruned."""
    run = small_run(tmp_path_factory.mktemp("other") / "run", search={"sampler": "random"}, recipe={"epochs": 4})
    study = create(run, digits()).candidates
    trained = {OUTCOME: "trained"}
    for number in range(TRIALS):
        width = 8 + 8 * (number % 6)
        score = 0.3 + 0.01 * width + 0.001 * number
        study.add_trial(trial(run, width, value=score, user_attrs=trained, intermediate_values={1: score - 0.1, 4: score}))
    pruned = {"state": TrialState.PRUNED, "user_attrs": {OUTCOME: "pruned_at_rung"}, "intermediate_values": {1: 0.3}}
    study.add_trial(trial(run, 8, **pruned))
    study.add_trial(trial(run, 8, state=TrialState.FAIL))
    return run.folder


def run_with(folder: Path, other: Path, **changes: Any) -> Run:
    search = {"sampler": "bayes", "prior": str(other)} | changes.pop("search", {})
    return small_run(folder, search=search, data=DATA, **changes)


def prepared(run: Run) -> tuple[Prepared, list[Event]]:
    events: list[Event] = []
    return prepare(make_order(run), Reporter(events.append), Untrained()), events


def test_a_worker_stores_the_prior_and_another_takes_the_copy(tmp_path: Path, other: Path, pretence: Pretence) -> None:
    copy = shutil.copytree(other, tmp_path / "flowers" / "run")
    run = run_with(tmp_path / "run", copy)
    first, events = prepared(run)
    (said,) = [event for event in events if isinstance(event, PriorFitted)]
    assert said.text.startswith(f"Prior: flowers ({TRIALS + 1} trials, ")
    assert said.text.endswith(" of their variance explained).")
    shutil.rmtree(copy)
    again, _ = prepared(run)
    assert stored_prior(again.studies.candidates) == stored_prior(first.studies.candidates)
    assert again.objective.context.prior is not None and again.objective.context.prior.runs == ["flowers"]
    bench = Bench(run, pretence)
    context = replace(bench.objective.context, prior=again.objective.context.prior)
    bench.objective = replace(bench.objective, context=context)
    trials = [bench.one_trial() for _ in range(STARTUP_WITH_PRIOR + 1)]
    assert "flowers" in trials[-1].user_attrs[PROPOSAL]["prior"]
    assert PREFIX not in f"{bench.study.user_attrs}", "what dashboards list stays short"


def test_trained_and_pruned_trials_are_observed(tmp_path: Path, other: Path) -> None:
    (study,) = open_prior(run_with(tmp_path / "run", other).config)
    assert [entry.number for entry in study.observations] == list(range(TRIALS + 1))
    last = study.observations[-1]
    assert last.variance > 0 and last.accuracy == pytest.approx(0.4, abs=0.03), "forecast from its rung"


def test_runs_of_one_name_are_told_apart(tmp_path: Path, other: Path) -> None:
    twin = shutil.copytree(other, tmp_path / other.parent.name / "run")
    run = run_with(tmp_path / "run", other, search={"prior": [str(other), str(twin)]})
    assert [study.run for study in open_prior(run.config)] == [other.parent.name, f"{other.parent.name} #2"]


def test_of_two_workers_the_first_to_write_decides(tmp_path: Path, other: Path) -> None:
    run = run_with(tmp_path / "run", other)
    studies = prior_to_store(run)
    study = create(run, digits()).candidates
    assert store_prior(study, studies).text == store_prior(study, (replace(studies[0], run="late"),)).text
    assert [entry.run for entry in prior_to_store(run)] == [studies[0].run]
    attributes = storage_of(study).get_study_system_attrs(study_id_of(study))
    assert max(len(text) for key, text in attributes.items() if key.startswith(PREFIX)) <= 10_000


def test_references_are_trained_without_the_prior(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", tmp_path / "nowhere")
    with pytest.raises(UserError) as raised:  # the order of the checks: the network has another input
        prepare(make_order(run, references=("eip-c",)), Reporter(lambda event: None), Untrained())
    assert "prior" not in f"{raised.value}"


def test_a_run_that_cannot_serve_is_named_in_one_line(tmp_path: Path, other: Path) -> None:
    run = run_with(tmp_path / "run", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"search.prior: .*nowhere holds no run .*or leave it out of search.prior"):
        prepared(run)
    assert not run.folder.exists()
    with pytest.raises(UserError, match=f'name its run folder, "{other}"'):
        open_prior(run_with(tmp_path / "run", other.parent).config)
    with pytest.raises(UserError, match="is the study's own run folder"):
        open_prior(run_with(other, other).config, other)
    fixed = run_with(tmp_path / "run", other, space={"kind": "residual", "stages": 1, "blocks": 1, "width": [8, 16]})
    with pytest.raises(UserError, match="a space of kind pyramid, and this study searches one of kind residual; name a run"):
        open_prior(fixed.config)


def test_plan_names_the_prior_or_what_is_wrong_with_it(tmp_path: Path, other: Path) -> None:
    path = tmp_path / "wide.toml"
    table = {"base": 0.5, "data": DATA, "budget": {"params": 1500}, "recipe": {"epochs": 2}}
    space = {"blocks": {"low": 1, "high": 3}, "width": {"low": 8, "high": 64, "step": 4}, "pools": 1}
    search = {"sampler": "bayes", "prior": str(other)}
    path.write_text(study_text("wide", table | {"space": space, "search": search}))
    planned = commands.search("plan", path)
    assert planned.status == 0, planned.err
    assert f"Prior: {other.parent.name} ({TRIALS + 1} trials, " in planned.out
    path.write_text(study_text("wide", table | {"space": space, "search": search | {"prior": "nowhere"}}))
    commands.assert_refused(commands.search("plan", path), "search.prior", "holds no run")


def test_a_prior_is_kept_on_resume(tmp_path: Path, other: Path) -> None:
    prepared(run_with(tmp_path / "run", other))
    without = small_run(tmp_path / "run", search={"sampler": "bayes"}, data=DATA)
    with pytest.raises(UserError, match=r"search.prior is"):
        create(without, digits())
    assert stored_prior(load(without).candidates)


def test_a_shipped_prior_is_named_like_a_run(tmp_path: Path, pretence: Pretence) -> None:
    run = small_run(tmp_path / "run", search={"sampler": "bayes", "prior": SHIPPED}, data=DATA)
    first, events = prepared(run)
    (said,) = [event for event in events if isinstance(event, PriorFitted)]
    assert said.text.startswith(f"Prior: {SHIPPED} ({MOST_TRIALS} trials, ")
    assert first.objective.context.prior is not None and first.objective.context.prior.runs == [SHIPPED]


@pytest.mark.parametrize("kind", ["pyramid", "residual"])
def test_a_shipped_prior_tells_good_networks_from_bad_ones(tmp_path: Path, kind: str) -> None:
    """Half of its networks predict the other half."""
    space = {"kind": kind} | ({"stages": 2} if kind == "residual" else {})
    config = small_run(tmp_path / "run", search={"sampler": "bayes", "prior": SHIPPED}, space=space).config
    features, accuracies, _ = open_prior(config)[0].sample()
    trend = Trend.of("half", features[::2], accuracies[::2])
    assert trend.surrogate is not None
    predicted = trend.surrogate.standardised_mean(trend.surrogate.scaling(features[1::2]))
    assert spearmanr(predicted, accuracies[1::2]).statistic > 0.7


def test_a_shipped_prior_of_other_kinds_is_refused(tmp_path: Path) -> None:
    network = to_dict(Architecture((8, 8, 1), 10, (Flatten(), Dense(10), Softmax())))
    space = {"kind": "fixed", "network": "one", "networks": {"one": network}}
    recipe = {"epochs": 2, "learning_rate": [1e-3, 1e-2]}
    search = {"sampler": "bayes", "prior": SHIPPED}
    config = small_run(tmp_path / "run", search=search, space=space, recipe=recipe).config
    with pytest.raises(UserError, match=f"{SHIPPED} knows spaces of kind pyramid and residual, .* one of kind fixed"):
        open_prior(config)
    with pytest.raises(UserError, match=f"name the folder of a run, or {SHIPPED}, which is shipped"):
        open_prior(run_with(tmp_path / "run", tmp_path / "nowhere").config)
