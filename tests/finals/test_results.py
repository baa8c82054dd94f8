"""Results of finals, read from their study: figures against SciPy's, words, JSON and the table."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from rich.console import Console
from scipy import stats

from search.cli.finals_table import print_finals
from search.errors import UserError
from search.finals.results import HELD, FinalsRecord, FinalsResult, check_unread, leader_sentence, load_results, to_json
from search.study import run as studies
from search.study.run import Run, sibling
from search.study.study_file import parse

STUDY: dict[str, Any] = {
    "base": "eip-a",
    "data": {"name": "digits", "images": 100},
    "budget": {"params": 2000},
    "space": {"blocks": 1, "width": {"low": 8, "high": 48, "step": 8}, "pools": 0},
}
Scores = Mapping[str, Sequence[float]]
# of each contender, on three seeds
TESTS = {"base": [0.90, 0.92, 0.91], "trial-3": [0.95, 0.94, 0.96], "trial-12": [0.93, 0.95, 0.96]}
BESTS = {"base": [0.91, 0.92, 0.90], "trial-3": [0.96, 0.97, 0.95], "trial-12": [0.97, 0.97, 0.98]}
SEARCHED = {"base": 0.93, "trial-3": 0.98, "trial-12": 0.99, "control-0": 0.5}


class Kept:
    """A run whose finals are written down by hand."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.run = Run("tiny", folder, parse(STUDY | changes, "test"), str(folder))
        self.study = sibling(self.run, "finals")
        self.held: list[FinalsRecord] = []

    def train(self, scores: Scores, reason: str | None = None) -> None:
        """A trial for each score; the last epoch is a point below. With a reason, each has failed for it."""
        for name, values in scores.items():
            for seed, score in enumerate(values):
                told = {"contender": name, "repeat": seed, "index": 0}
                told |= {"outcome": "failed", "reason": f"{reason}, seed {seed}"} if reason else {"outcome": "trained"}
                told |= {"best_val_accuracy": score, "final_val_accuracy": score - 0.01}
                self.study.enqueue_trial({}, user_attrs=told)
                trial = self.study.ask()
                self.study.tell(trial, *((None, optuna.trial.TrialState.FAIL) if reason else (score,)))

    def hold(self, names: Sequence[str], seeds: int, **reading: Any) -> None:
        contenders = tuple(
            {"name": name, "number": None, "params": 1000, "search_score": SEARCHED.get(name)} for name in names
        )
        self.held.append(FinalsRecord(contenders, seeds, **reading))
        self.study.set_user_attr(HELD, [asdict(one) for one in self.held])

    @property
    def found(self) -> FinalsResult:
        found = load_results(self.run)
        assert found is not None
        return found


@pytest.fixture(autouse=True)
def storages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storages in memory, one for each run: SQLite's are tried where finals are held."""
    opened: dict[str, optuna.storages.InMemoryStorage] = {}
    monkeypatch.setattr(
        studies, "open_storage", lambda url, **rest: opened.setdefault(url, optuna.storages.InMemoryStorage())
    )


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "run")


def course(folder: Path, scores: Scores, **changes: Any) -> FinalsResult:
    """Finals under "course" with these best validation accuracies."""
    kept = Kept(folder, protocol="course", **changes)
    kept.train(scores)
    kept.hold(list(scores), len(next(iter(scores.values()))))
    return kept.found


def paired(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """p and the 95 % interval of the mean of the differences."""
    found = stats.ttest_rel(one, other)
    interval = found.confidence_interval(0.95)
    return float(found.pvalue), float(interval.low), float(interval.high)


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["holdout", "course"])
def test_figures_are_those_of_the_protocols_own_measure(protocol: str, tmp_path: Path) -> None:
    kept = Kept(tmp_path, protocol=protocol)
    kept.train(BESTS)
    kept.hold(list(BESTS), 3, **({"test_read": "today", "test": TESTS} if protocol == "holdout" else {}))
    scores = TESTS if protocol == "holdout" else BESTS
    found = kept.found
    assert found.measure == ("test_accuracy" if protocol == "holdout" else "best_val_accuracy")
    assert [one.mean for one in found.finalists] == sorted((np.mean(scores[name]) for name in scores), reverse=True)
    assert found.leader == ("trial-3" if protocol == "holdout" else "trial-12")
    for one in found.finalists:
        assert one.mean == pytest.approx(np.mean(scores[one.name]))
        assert one.spread == pytest.approx(np.std(scores[one.name], ddof=1))
        interval = stats.t.interval(0.95, 2, np.mean(scores[one.name]), stats.sem(scores[one.name]))
        assert one.interval == pytest.approx(interval)
        assert one.winners_curse == pytest.approx(SEARCHED[one.name] - np.mean(BESTS[one.name]))
        assert list(one.best_val) == BESTS[one.name]
        assert list(one.final_val) == pytest.approx([score - 0.01 for score in BESTS[one.name]])
        assert list(one.test) == (TESTS[one.name] if protocol == "holdout" else [])


def test_comparisons_are_paired_by_seed_and_corrected_by_holm(kept: Kept) -> None:
    kept.train(BESTS)
    kept.hold(list(BESTS), 3, test_read="today", test=TESTS)
    by_name = {one.name: one for one in kept.found.finalists}
    assert by_name["base"].against_base is by_name["base"].against_leader is by_name["trial-3"].against_leader is None
    p_values = {}
    for name in ("trial-3", "trial-12"):
        one = by_name[name].against_base
        assert one is not None
        p_values[name], *interval = paired(TESTS[name], TESTS["base"])
        assert (one.p, one.low, one.high) == pytest.approx((p_values[name], *interval))
    first, second = sorted(p_values, key=lambda name: p_values[name])
    holm = {first: min(1, 2 * p_values[first]), second: max(2 * p_values[first], p_values[second])}
    for name, adjusted in holm.items():
        one = by_name[name].against_base
        assert one is not None and one.adjusted_p == pytest.approx(adjusted)
        assert one.is_tie == (adjusted >= 0.05)


def test_a_clear_lead_is_no_tie(tmp_path: Path) -> None:
    scores = {"base": [0.50, 0.51, 0.52, 0.53, 0.50], "trial-0": [0.90, 0.92, 0.91, 0.94, 0.90]}
    found = course(tmp_path, scores)
    one = found.finalists[0].against_base
    assert one is not None and not one.is_tie
    assert "tie" not in leader_sentence(found)
    assert leader_sentence(found).startswith(
        "trial-0 leads with a mean best validation accuracy of 91.40% on 5 fresh seeds; 40.20 p"
    )


def test_ties_are_named(tmp_path: Path) -> None:
    scores = {"trial-3": [0.95, 0.94, 0.96], "trial-12": [0.94, 0.96, 0.94], "control-0": [0.96, 0.93, 0.94]}
    found = course(tmp_path, scores, base=0.5)
    assert "a tie with trial-12 and control-0;" in leader_sentence(found)
    assert "above the base's 50.00%" in leader_sentence(found)
    assert "control: the best of a random search" in printed(found)


def test_a_plain_accuracy_is_a_base_without_trainings(tmp_path: Path) -> None:
    found = course(tmp_path, {"trial-3": [0.95, 0.94, 0.96]}, base=0.9)
    (one,) = found.finalists
    assert one.against_base is not None
    test = stats.ttest_1samp([0.95, 0.94, 0.96], 0.9)
    assert (one.against_base.against, one.against_base.p) == (0.9, pytest.approx(test.pvalue))


# --- too little to tell ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0.02, -0.02, 0.0])
def test_the_same_difference_on_every_seed_is_no_certainty(gap: float, tmp_path: Path) -> None:
    """Coarse accuracies agree by accident: two trainings of two nets on 359 images do so in about one case in ten."""
    found = course(tmp_path, {"base": [0.90, 0.92], "trial-3": [0.90 + gap, 0.92 + gap]})
    one = next(one for one in found.finalists if one.name == "trial-3").against_base
    assert one is not None
    assert one.difference == pytest.approx(gap)
    assert (one.low, one.high, one.p, one.adjusted_p, one.is_tie) == (None, None, None, None, True)
    assert "the same on all 2 seeds: too few to tell it from chance, so it counts as a tie" in leader_sentence(found)
    assert ("level with the base" in leader_sentence(found)) == (gap == 0)
    assert "±?" in printed(found) and "±0.00" not in printed(found)


def test_the_same_score_on_every_seed_has_no_interval(tmp_path: Path) -> None:
    found = course(tmp_path, {"base": [0.9, 0.9], "trial-3": [0.95, 0.96]})
    base = next(one for one in found.finalists if one.name == "base")
    assert (base.spread, base.interval) == (0, None)


def test_one_that_cannot_be_judged_leaves_the_verdict_on_the_others_as_it_is(tmp_path: Path) -> None:
    scores = {"base": [0.90, 0.92, 0.91], "trial-3": [0.95, 0.96, 0.97], "trial-12": [0.92, 0.92, 0.92]}
    alone = course(tmp_path / "alone", scores)
    beside = course(tmp_path / "beside", scores | {"control-0": [0.95, 0.97, 0.96]})
    for name in ("trial-3", "trial-12"):
        one, other = (next(two for two in found.finalists if two.name == name) for found in (alone, beside))
        assert one.against_base == other.against_base


def test_one_seed_says_nothing_of_chance(tmp_path: Path) -> None:
    found = course(tmp_path, {"base": [0.9], "trial-3": [0.99]})
    leader = found.finalists[0]
    assert leader.against_base is not None
    assert (leader.spread, leader.interval, leader.against_base.low, leader.against_base.is_tie) == (None, None, None, True)
    assert "1 fresh seed;" in leader_sentence(found)
    assert "on one seed: too few" in leader_sentence(found)
    assert "1 seed is few: take at least 5 (--seeds 5)" in printed(found)


@pytest.mark.parametrize(("seeds", "few"), [(4, True), (5, False)])
def test_five_seeds_are_recommended_where_fewer_were_asked_for(seeds: int, few: bool, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0.9, 0.01, (2, seeds)).tolist()
    assert ("are few" in printed(course(tmp_path, {"base": noise[0], "trial-3": noise[1]}))) == few


def test_a_finalist_without_every_seed_is_named_and_not_compared(kept: Kept) -> None:
    kept.train({"base": BESTS["base"], "trial-3": BESTS["trial-3"], "trial-12": BESTS["trial-12"][:1]})
    kept.study.enqueue_trial({}, user_attrs={"contender": "trial-12", "repeat": 1, "outcome": "diverged", "reason": "nan."})
    kept.study.tell(kept.study.ask(), None, optuna.trial.TrialState.PRUNED)
    kept.study.enqueue_trial({}, user_attrs={"contender": "trial-12", "repeat": 2, "outcome": "failed", "reason": "later"})
    kept.study.tell(kept.study.ask(), None, optuna.trial.TrialState.FAIL)
    kept.hold(list(BESTS), 3, test_read="today", test={name: TESTS[name] for name in ("base", "trial-3")})
    found = kept.found
    assert found.failed == {"trial-12": "nan."}
    assert [one.name for one in found.finalists] == ["trial-3", "base"]
    assert "trial-12 did not train on every seed and is compared with none: nan.\n" in printed(found)


def test_a_base_that_failed_leaves_the_others_compared(kept: Kept) -> None:
    kept.train({"base": [0.0, 0.0, 0.0]}, reason="out of memory")
    kept.train({name: BESTS[name] for name in ("trial-3", "trial-12")})
    kept.hold(list(BESTS), 3, test_read="today", test={name: TESTS[name] for name in ("trial-3", "trial-12")})
    found = kept.found
    assert (found.leader, found.failed) == ("trial-3", {"base": "out of memory, seed 0"})
    assert {one.against_base for one in found.finalists} == {None}
    assert "against" in printed(found) and "base  " not in printed(found)


@pytest.mark.parametrize("base", ["trained", "failed"])
def test_finals_in_which_every_finalist_failed_say_so(base: str, kept: Kept) -> None:
    kept.train({"base": BESTS["base"]}, reason=None if base == "trained" else "nan")
    kept.train({"trial-3": [0.0, 0.0, 0.0]}, reason="nan")
    kept.hold(["base", "trial-3"], 3)
    found = kept.found
    assert (found.finalists, found.leader) == ((), None)
    assert "No contender but the base trained on all of 3 fresh seeds, so nothing is confirmed.\n" in printed(found)
    assert "trial-3 did not train on every seed and is compared with none: nan, seed 0.\n" in printed(found)
    assert json.loads(json.dumps(to_json(kept.run, found)))["leader"] is None


# --- what there is to show -------------------------------------------------------------------------------------------


def test_there_is_nothing_to_show_before_finals_were_held_to_their_end(kept: Kept) -> None:
    assert load_results(kept.run) is None
    kept.train(BESTS)
    assert load_results(kept.run) is None
    kept.hold(list(BESTS), 3, test_read="today")  # and the process died
    assert load_results(kept.run) is None


def test_earlier_results_are_shown_while_more_is_trained_or_read(kept: Kept) -> None:
    kept.train(BESTS)
    kept.hold(["base", "trial-3"], 2, test_read="today", test={name: TESTS[name][:2] for name in ("base", "trial-3")})
    before = kept.found
    kept.study.enqueue_trial({}, user_attrs={"contender": "trial-7", "repeat": 0, "index": 9})
    assert kept.found == before
    kept.hold(list(BESTS), 3, test_read="tomorrow", again=True)
    assert kept.found == before
    assert (before.seeds, before.test_read) == (2, ("today",))


def test_the_last_reading_is_shown_with_the_dates_of_all(kept: Kept) -> None:
    kept.train(BESTS)
    kept.hold(["base", "trial-3"], 2, test_read="today", test={name: TESTS[name][:2] for name in ("base", "trial-3")})
    kept.hold(list(BESTS), 3, test_read="tomorrow", again=True, test=TESTS)
    assert (kept.found.seeds, kept.found.test_read) == (3, ("today", "tomorrow"))
    assert "read at today, and by --again at tomorrow." in printed(kept.found)
    assert "--seeds 5 --again" in printed(kept.found)


def test_a_second_reading_is_rejected_unless_it_is_asked_for(kept: Kept) -> None:
    check_unread(kept.run, again=False)
    kept.train(BESTS)
    kept.hold(list(BESTS), 3, test_read="today")
    check_unread(kept.run, again=False)  # cut short: nobody has seen a thing
    kept.held.clear()
    kept.hold(list(BESTS), 3, test_read="today", test=TESTS)
    check_unread(kept.run, again=True)
    with pytest.raises(UserError, match=r"read at today.*--show.*--again"):
        check_unread(kept.run, again=False)
    kept.hold(list(BESTS), 3, test_read="tomorrow", again=True)
    with pytest.raises(UserError, match="read at today"):
        check_unread(kept.run, again=False)


# --- printed ---------------------------------------------------------------------------------------------------------


def printed(found: FinalsResult, width: int = 120, protocol: str = "holdout") -> str:
    stream = io.StringIO()
    run = Run("tiny", Path(), parse(STUDY | {"protocol": protocol}, "test"), "")
    print_finals(Console(file=stream, width=width), run, found)
    return stream.getvalue()


@pytest.mark.parametrize("width", [120, 100, 80, 60, 40])
@pytest.mark.parametrize("protocol", ["holdout", "course"])
def test_the_table_fits_and_says_what_it_leaves_out(protocol: str, width: int, tmp_path: Path) -> None:
    kept = Kept(tmp_path, protocol=protocol)
    kept.train(BESTS)
    kept.hold(list(BESTS), 3, **({"test_read": "today", "test": TESTS} if protocol == "holdout" else {}))
    text = printed(kept.found, width, protocol)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    names = ["params", "mean", "spread", "search", "gap", "again" if protocol == "holdout" else "last"]
    header = re.findall(r"\w+", " ".join(lines[1:4]))
    left_out = re.findall(r"\w+", " ".join(re.findall(r"Columns left out for lack of room: ([^;]*);", " ".join(lines))))
    for name in names:
        assert (name in header) != (name in left_out), name
    if width >= 60:
        for name in BESTS:  # each has one line of its own
            assert len([line for line in lines if re.match(rf"(│ )?{name} ", line)]) == 1
    assert set(left_out) <= {120: set(), 100: set(), 80: {"params"}}.get(width, set(left_out))


@pytest.mark.parametrize("protocol", ["holdout", "course"])
def test_the_table_and_the_json_tell_the_same(protocol: str, tmp_path: Path) -> None:
    kept = Kept(tmp_path, protocol=protocol)
    kept.train(BESTS)
    kept.hold(list(BESTS), 3, **({"test_read": "today", "test": TESTS} if protocol == "holdout" else {}))
    text = printed(kept.found, 100, protocol)
    told = json.loads(json.dumps(to_json(kept.run, kept.found)))
    assert (told["study"], told["protocol"], told["seeds"]) == ("tiny", protocol, 3)
    assert told["verdict"][1:] in " ".join(text.split())
    for one in told["finalists"]:
        row = next(line for line in text.splitlines() if line.replace("│", "").strip().startswith(one["name"]))
        row = " ".join(row.replace("│", " ").split())
        best, last = np.mean(one["best_val"]), np.mean(one["final_val"])
        cells = [one["name"], f"{one['params']:,}", f"{one['mean']:.2%}", f"{100 * one['spread']:.2f}"]
        cells += [f"{last:.2%}", f"{one['search_score']:.2%}"] if protocol == "course" else []
        cells += [f"{one['search_score']:.2%}", f"{best:.2%}"] if protocol == "holdout" else []
        cells += [f"{100 * (one['search_score'] - best):+.2f}"]
        for versus in (one["against_base"], one["against_leader"]):
            if versus:
                half = "?" if versus["low"] is None else f"{100 * (versus['adjusted_high'] - versus['difference']):.2f}"
                cells.append(f"{100 * versus['difference']:+.2f} ±{half}{' tie' if versus['is_tie'] else ''}")
        assert row == " ".join(cells)


def test_the_course_protocol_names_the_images_of_its_accuracies(tmp_path: Path) -> None:
    found = course(tmp_path, BESTS)
    assert "on the test images (course protocol)" in printed(found, protocol="course")
    assert "were read" not in printed(found, protocol="course")
