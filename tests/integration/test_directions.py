"""Studies of several objectives, accuracy and little of some prices: what is asked, told, learnt from, kept and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from report.analysis.findings import gather
from report.dashboard import publish
from report.dashboard.notes import study_note
from report.html import page as html
from report.html import results
from report.markdown.report import write_report
from report.pareto import front_board
from search.budget.cost import compute_cost
from search.budget.metrics import METRICS
from search.errors import UserError
from search.finals.control import control_config, search_at_random
from search.runner.events import Done
from search.storage.attributes import objectives
from search.storage.database import open_storage
from search.storage.recovery import requeue
from search.study import run as studies
from search.study.config import StudyConfig
from search.study.dataset import data_facts
from search.study.pareto import select_front
from search.study.run import Opened, Run, network_of, sibling
from search.study.study_file import parse
from search.training.result import TrialOver
from tests.report.dashboard.test_server import Wsgi
from tests.support.directions import RAW
from tests.support.reports import record
from tests.support.runs import Bench, Pretence, digits, pretence, pretend, search, small_run
from tests.support.storms import Storm, outcomes

__all__ = ["pretence"]


BOTH = {"accuracy": "maximize", "params": "minimize", "arena_bytes": "minimize"}
SPACE = {"blocks": {"low": 1, "high": 3}, "width": {"low": 8, "high": 48, "step": 8}, "pools": 1}


def asked(directions: Any = BOTH, **others: Any) -> StudyConfig:
    return parse(RAW | {"space": SPACE, "search": {"directions": directions} | others}, "tiny.toml")


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_objectives_are_named_in_one_order_however_they_are_written() -> None:
    assert asked().cost_metrics == ("params", "arena_bytes")
    assert asked(dict(reversed(BOTH.items()))).cost_metrics == ("params", "arena_bytes")
    assert asked(dict(reversed(BOTH.items()))).digest == asked().digest
    every = asked({"accuracy": "maximize"} | dict.fromkeys(METRICS, "minimize"))
    assert every.cost_metrics == tuple(METRICS)
    assert parse(every.dump(), "stored") == every
    assert parse(RAW | {"space": SPACE}, "tiny.toml").cost_metrics == ()


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ({"params": "minimize"}, {}, 'search.directions: accuracy must be among them: accuracy = "maximize"'),
    ({"accuracy": "minimize", "macs": "minimize"}, {}, "directions.accuracy: Input should be 'maximize', not 'minimize'"),
    ({"accuracy": "maximize", "macs": "maximize"}, {}, "directions.macs: Input should be 'minimize', not 'maximize'"),
    ({"accuracy": "maximize", "flash": "minimize"}, {}, "directions.flash: unknown key, did you mean 'flash_bytes'?"),
    ({"accuracy": "maximize"}, {}, "accuracy alone is what every study maximises; add one of params, macs, flash_bytes"),
    ({}, {}, "accuracy must be among them"),
    ("macs", {}, "search.directions: "),
    (
        BOTH,
        {"rungs": {"first": 1}},
        "rungs prune by accuracy alone, and would end the small networks of a front; leave rungs out",
    ),
    (BOTH, {"fit": "fill"}, 'fit = "fill" makes every network as large as the budget allows'),
]


@pytest.mark.parametrize(("directions", "others", "told"), REFUSED)
def test_other_objectives_are_rejected_in_a_line(directions: Any, others: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        asked(directions, **others)
    line = str(caught.value)
    assert line.startswith("tiny.toml: ") and told in line and "\n" not in line


# --- a run -----------------------------------------------------------------------------------------------------------


class Diverging(list[float]):
    """The accuracies of a training that diverges in its second epoch."""

    def __getitem__(self, place: Any) -> Any:
        if place == 1:
            raise TrialOver("diverged", "the loss became nan in epoch 2, by step 3")
        return super().__getitem__(place)


def run_of(folder: Path, **others: Any) -> Run:
    return small_run(folder, search={"directions": BOTH, "trials": 14} | others)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A run, to be read, in which larger networks are more accurate in steps; its third training diverged."""
    with pytest.MonkeyPatch.context() as patch:
        found = Bench(run_of(tmp_path_factory.mktemp("several") / "run"), pretend(patch))

        def accuracies() -> Sequence[float]:
            best = 0.3 + found.events[-1].params // 250 / 10
            return [best - 0.1, best]

        found.plays += [accuracies, accuracies, lambda: Diverging([0.2]), *[accuracies] * 12]
        assert found.train_candidates() == Done()
    return found


def trained(bench: Bench) -> list[FrozenTrial]:
    return [one for one in bench.study.get_trials(deepcopy=False) if one.user_attrs["outcome"] == "trained"]


def test_every_trial_reports_its_accuracy_and_its_costs(bench: Bench) -> None:
    assert bench.study.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE]
    assert objectives(bench.study) == ("accuracy", "params", "arena_bytes")
    assert objectives(bench.studies.references) == ("accuracy",)
    assert len(trained(bench)) == 14
    for one in trained(bench):
        cost = compute_cost(network_of(bench.run, one.number, bench.studies))
        assert one.values == [one.user_attrs["best_val_accuracy"], cost.params, cost.arena_bytes]
        assert (one.user_attrs["params"], one.user_attrs["arena_bytes"]) == (cost.params, cost.arena_bytes)


def test_learning_curves_are_kept_though_optuna_reports_none(bench: Bench) -> None:
    for one in trained(bench):
        best = one.user_attrs["best_val_accuracy"]
        assert one.intermediate_values == {1: best - 0.1, 2: best}
        log = json.loads((bench.run.folder / "trials" / str(one.number) / "history.json").read_text())
        assert [epoch["val_accuracy"] for epoch in log] == [best - 0.1, best]


def test_the_sampler_learns_beside_diverged_trials(bench: Bench) -> None:
    """TPE ranks a pruned trial with a curve by the direction of the study, and raises where it has several."""
    (lost,) = [one for one in bench.study.get_trials(deepcopy=False) if one.user_attrs["outcome"] == "diverged"]
    assert (lost.state, lost.values, list(lost.intermediate_values)) == (TrialState.PRUNED, None, [1])
    later = [one for one in trained(bench) if one.number >= 11]
    assert len(later) >= 3, "which TPE proposed, after as many at random as it asks for"


def test_the_front_is_optunas_own(bench: Bench) -> None:
    found = [one.number for one in select_front(bench.records, bench.run.config.cost_metrics)]
    points = {tuple(one.values) for one in bench.study.best_trials}
    assert {tuple(bench.study.trials[number].values) for number in found} == points
    assert 1 < len(found) < 14


def test_a_single_ranking_is_by_accuracy(bench: Bench) -> None:
    first = studies.best(bench.run, bench.records)
    assert first.best_val_accuracy == max(one.values[0] for one in trained(bench))
    assert first.number in [one.number for one in select_front(bench.records, bench.run.config.cost_metrics)]


def test_a_run_continues_with_its_own_objectives_alone(bench: Bench, tmp_path: Path) -> None:
    folder = bench.run.folder
    others = small_run(folder, search={"directions": BOTH | {"macs": "minimize"}, "trials": 14})
    with pytest.raises(UserError, match=r"search\.directions\.macs is null here, not \"minimize\".* --out"):
        studies.create(others, digits())
    with pytest.raises(UserError, match=r"search\.directions\.accuracy is \"maximize\" here, not null"):
        studies.create(small_run(folder, search={"trials": 14}), digits())
    assert studies.create(run_of(folder, trials=15), digits()).candidates.directions == bench.study.directions
    begun = run_of(tmp_path / "begun")  # and died before its configuration was stored
    storage = open_storage(begun.storage_url)
    optuna.create_study(storage=storage, study_name=begun.name, direction="maximize")
    with pytest.raises(UserError, match=r"has other directions \(maximize, not maximize, minimize.*pass --out"):
        studies.create(begun, digits())


def test_a_finished_trial_is_reported_with_all_its_values(tmp_path: Path, pretence: Pretence) -> None:
    """Its process died between the two; whoever takes it up tells what it had come to."""
    bench = Bench(run_of(tmp_path / "run"), pretence)
    with pytest.MonkeyPatch.context() as patch:

        def dies(*words: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("search.runner.trial._tell", dies)
        with pytest.raises(KeyboardInterrupt):
            bench.one_trial()
    (lost,) = bench.study.trials
    assert (lost.state, lost.values) == (TrialState.RUNNING, None)
    requeue(bench.study)
    (told,) = bench.study.trials
    assert told.state == TrialState.COMPLETE
    assert told.values == [0.5, told.user_attrs["params"], told.user_attrs["arena_bytes"]]


def test_the_control_is_ranked_by_accuracy_alone(tmp_path: Path, pretence: Pretence) -> None:
    bench = Bench(run_of(tmp_path / "run"), pretence)
    assert control_config(bench.run.config).cost_metrics == ()
    bench.one_trial()
    control = sibling(bench.run, "control", bench.studies)
    assert search_at_random(bench.run, bench.studies, control, bench.objective, bench.reporter, most=3) == 1
    (trial,) = control.trials
    assert trial.values == [0.5]


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_note_and_reports_tell_the_front(bench: Bench, tmp_path: Path) -> None:
    run = replace(bench.run, called="tiny.toml")
    known = Opened(run, bench.records, [])
    rows = front_board(known, run.config.cost_metrics)["trials"]
    lines = [f"{row['params']:,} | {row['arena_bytes']:,} | {row['best_val_accuracy']:.1%}" for row in rows]
    words = f"{len(rows)} of 14 trained candidates: no other is as accurate and takes no more parameters and bytes of arena."
    note = study_note(run, bench.records, [], data_facts(digits())).replace("\u2003", "")
    assert "value 1 is params, value 2 is arena\\_bytes" in note or "value 1 is params, value 2 is arena_bytes" in note
    report = write_report(replace(run, folder=tmp_path), bench.studies).read_text()
    for text in (note, report):
        front = text.split("## The front")[1].split("\n## ")[0].replace("  ", " ")
        assert words in front
        assert all(line in front for line in lines)
        assert front.count("\n|") == 3 + len(rows), "head, rule, the accuracy to beat, and no other"
    costs = results.costs(gather(run, bench.studies)).body
    assert "The front of all objectives" in costs and "Bytes of arena" in costs and "Bytes of flash" not in costs
    page = html.page(gather(run, bench.studies), "gone")
    assert words in page
    plain = small_run(tmp_path / "plain")
    assert "## The front" not in study_note(plain, bench.records, [], {})


def test_a_long_front_is_cut_in_the_note() -> None:
    found = [record(number, 0.5 + number / 100, 1_000 + number, costs={"arena_bytes": 1}) for number in range(25)]
    note = study_note(replace(run_of(Path("nowhere")), called="it"), found, [], {})
    assert "And 5 more: `python -m search top it`." in note
    assert note.split("## The front")[1].split("\n## ")[0].count("\n|") == 3 + 20


@pytest.mark.usefixtures("patched")
def test_the_dashboard_names_the_objectives_and_shows_the_front(bench: Bench) -> None:
    publish.Redraw().now(bench.run, bench.studies)
    site = Wsgi(bench.run)
    status, body = site.ask(f"/api/studies/{bench.study._study_id}")
    detail = json.loads(body)
    assert status.startswith("200") and detail["directions"] == ["maximize", "minimize", "minimize"]
    assert detail["objective_names"] == ["accuracy", "params", "arena_bytes"]
    assert {tuple(one["values"]) for one in detail["best_trials"]} == {tuple(one.values) for one in bench.study.best_trials}
    assert [graph["id"] for graph in detail["plotly_graph_objects"]] == list(publish.GRAPHS)
    assert site.ask(f"/api/studies/{bench.study._study_id}/param_importances")[0].startswith("200")


# --- in processes of their own ---------------------------------------------------------------------------------------


def test_a_study_that_is_killed_ends_with_all_values_of_every_trial(tmp_path: Path) -> None:
    """Its worker in an epoch, the whole run between a verdict and its telling; and one training diverges."""
    faults = (
        {"at": "epoch", "do": "kill", "index": 0, "epoch": 3},
        {"at": "tell", "do": "crash", "index": 1},
        {"at": "epoch", "do": "nan", "index": 2, "epoch": 3},
    )
    storm = Storm(tmp_path / "storm", *faults, search={"sampler": "tpe", "trials": 3, "directions": BOTH})
    storm.start(status=-9)
    shown, _ = storm.start()
    storm.check(trained=3)
    assert sorted(outcomes(storm.trials)) == ["diverged", "interrupted", "trained", "trained", "trained"]
    for one in storm.trials:
        if one.user_attrs["outcome"] == "trained":
            prices = [one.user_attrs["params"], one.user_attrs["arena_bytes"]]
            assert one.values == [max(one.intermediate_values.values()), *prices]
            assert list(one.intermediate_values) == [1, 2, 3, 4]
    assert "tiny: the front of accuracy against params, arena_bytes" in shown


@pytest.mark.long
def test_the_whole_way_with_keras(tmp_path: Path) -> None:
    study = """
        base = 0.5
        data = { name = "digits", images = 300 }
        budget = { params = 4_000, flash_bytes = 20_000 }
        space = { kind = "pyramid", blocks = 2, width = { low = 8, high = 40, step = 8 }, pools = 1 }
        recipe = { epochs = 2, batch_size = 32 }
        [search]
        trials = 3
        directions = { accuracy = "maximize", flash_bytes = "minimize" }
    """
    (tmp_path / "mine.toml").write_text("\n".join(line.strip() for line in study.splitlines()))
    name = str(tmp_path / "mine.toml")
    shown = search("run", name)
    assert "mine: the front of accuracy against flash_bytes" in shown
    told = json.loads(search("top", name, "--json"))
    front = told["front"]
    assert front["prices"] == ["flash_bytes"] and 1 <= len(front["trials"]) <= 2
    assert max(row["best_val_accuracy"] for row in front["trials"]) == told["trials"][0]["best_val_accuracy"]
    folder = tmp_path / "mine-run"
    assert json.loads((folder / "best_model.json").read_text())["trial"] == told["trials"][0]["number"]
    assert "## The front" in (folder / "report.md").read_text()
    assert "The front of all objectives" in (folder / "report.html").read_text()
