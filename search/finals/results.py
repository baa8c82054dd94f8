"""What the finals of a study came to: means on fresh seeds, intervals, ties, and by how much the search flattered.

Read from the storage alone. Under protocol "holdout" contenders are compared by their accuracy on the test images, under
"course" by their best validation accuracy, as the published logs have it; the other figures stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.errors import UserError
from search.finals.statistics import Comparison, confirm, winners_curse
from search.storage.attributes import OUTCOME
from search.study.run import Run, every
from search.training.result import Outcome

HELD = "held"  # study attribute of NAME.finals: every `Held`, as plain values


@dataclass(frozen=True)
class Held:
    """Finals that were trained to their end: who, and on how many fresh seeds."""

    contenders: tuple[Mapping[str, Any], ...]  # name, number, params, search_score
    seeds: int
    test_read: str | None = None  # UTC, when the test images were first opened for it; None under "course"
    again: bool = False  # although they had been read, and so by request
    test: Mapping[str, list[float]] | None = None  # what they gave, of each contender; None: not to the end

    @property
    def is_complete(self) -> bool:
        """Whether it can be shown: a reading of the test images that was cut short cannot, and counts for none."""
        return self.test_read is None or self.test is not None


@dataclass(frozen=True)
class Finalist:
    """One contender on its fresh seeds; accuracies are fractions, one for each seed."""

    name: str
    number: int | None
    params: int
    search_score: float | None
    best_val: tuple[float, ...]
    final_val: tuple[float, ...]
    test: tuple[float, ...]
    mean: float
    spread: float | None  # sample standard deviation
    interval: tuple[float, float] | None  # 95 %, of the mean
    winners_curse: float | None  # search score less the mean of best validation accuracies
    against_base: Comparison | None
    against_leader: Comparison | None


@dataclass(frozen=True)
class Confirmation:
    """The finals, the best mean first; no finalist and no leader where no contender trained on every seed."""

    measure: str  # "test_accuracy" or "best_val_accuracy"
    seeds: int
    finalists: tuple[Finalist, ...]
    leader: str | None
    test_read: tuple[str, ...]  # UTC, every time that the test images were read
    failed: Mapping[str, str]  # contenders that did not train on every seed, and why: they are compared with none


def held_in(study: optuna.Study) -> list[Held]:
    """What was held, in order: under "holdout" every reading of the test images, of which the last may be cut short."""
    return [Held(**one | {"contenders": tuple(one["contenders"])}) for one in study.user_attrs.get(HELD, [])]


def refuse_second_reading(run: Run, again: bool) -> None:
    """Refuse finals whose test images have been read.

    Raises:
        UserError: they have, and nobody said `--again`.
    """
    read = [one.test_read for one in _held(run) if one.test]
    if read and not again:
        raise UserError(
            f"finals: the test images were read at {read[0]}, and to read them until they please flatters; see what "
            "they gave with --show, or pass --again, which is written down too"
        )


def confirmed(run: Run) -> Confirmation | None:
    """What the last finals came to that were held to their end; None while there are none."""
    study, held = _finals(run), _held(run)
    if study is None or not held:
        return None
    last, trials = held[-1], trainings(study)
    names = [one["name"] for one in last.contenders]
    failed = {
        name: trials[name, seed].user_attrs.get("reason", "no reason given")
        for seed in reversed(range(last.seeds))
        for name in names
        if trials[name, seed].state != TrialState.COMPLETE
    }
    scores = {
        name: [trials[name, seed].user_attrs["best_val_accuracy"] for seed in range(last.seeds)]
        for name in names
        if name not in failed
    }
    measure = "best_val_accuracy" if last.test is None else "test_accuracy"
    finalists, leader = _compared(run, last, scores, trials)
    read = tuple(one.test_read for one in held if one.test_read)
    return Confirmation(measure, last.seeds, finalists, leader, read, failed)


def trainings(study: optuna.Study) -> dict[tuple[str, int], FrozenTrial]:
    """What was trained to its end, well or ill, or is queued: by contender and seed."""
    return trainings_of(study.get_trials(deepcopy=False))


def trainings_of(trials: Sequence[FrozenTrial]) -> dict[tuple[str, int], FrozenTrial]:
    """Those among these trials."""
    return {
        (trial.user_attrs["contender"], trial.user_attrs["repeat"]): trial
        for trial in trials
        if trial.user_attrs.get(OUTCOME) != Outcome.INTERRUPTED
    }


def to_json(run: Run, found: Confirmation) -> dict[str, Any]:
    """As `finals --json` prints it."""
    return {"study": run.name, "protocol": run.config.protocol} | asdict(found) | {"verdict": verdict(found)}


def verdict(found: Confirmation) -> str:
    """The finals in a sentence or two."""
    seeds = f"{found.seeds} fresh seed{'s' if found.seeds > 1 else ''}"
    leader = next((one for one in found.finalists if one.name == found.leader), None)
    if leader is None:
        return f"no contender but the base trained on all of {seeds}, so nothing is confirmed."
    kind = "test accuracy" if found.measure == "test_accuracy" else "best validation accuracy"
    ties = [one.name for one in found.finalists if one.against_leader and one.against_leader.is_tie]
    words = f"{leader.name} leads with a mean {kind} of {leader.mean:.2%} on {seeds}"
    words += f", a tie with {' and '.join(', '.join(ties).rsplit(', ', 1))}" if ties else ""
    if leader.against_base:
        words += f"; {_against(leader.against_base, found.seeds)}"
    return words + "."


def _compared(
    run: Run, held: Held, best: Mapping[str, list[float]], trials: Mapping[tuple[str, int], FrozenTrial]
) -> tuple[tuple[Finalist, ...], str | None]:
    """The finalists with their figures, and who leads; none where only the base is left."""
    if not best.keys() - {"base"}:
        return (), None
    given = run.config.base if isinstance(run.config.base, float) else ("base" if "base" in best else None)
    tests = held.test or {}
    found = confirm({name: tests.get(name, best[name]) for name in best}, given)
    against_base = {one.name: _candid(one) for one in found.against_base}
    against_leader = {one.name: _candid(one) for one in found.against_leader}
    told = {one["name"]: one for one in held.contenders}
    finalists = tuple(
        Finalist(
            **told[one.name],
            best_val=tuple(best[one.name]),
            final_val=tuple(trials[one.name, seed].user_attrs["final_val_accuracy"] for seed in range(held.seeds)),
            test=tuple(tests.get(one.name, ())),
            mean=one.mean,
            spread=one.spread,
            interval=None if one.low is None or one.high is None or not one.spread else (one.low, one.high),
            winners_curse=_curse(told[one.name]["search_score"], best[one.name]),
            against_base=against_base.get(one.name),
            against_leader=against_leader.get(one.name),
        )
        for one in found.summaries
    )
    return finalists, found.leader


def _candid(one: Comparison) -> Comparison:
    """The comparison, with nothing said of chance where the difference is the same on every seed.

    Accuracies move in steps of one image, so a few of them agree by accident; taken at its word, no spread is certainty.
    To leave such a one out (p = 0) is to leave the adjusted p of the others as it is.
    """
    is_the_same = one.low is not None and one.low == one.high
    return replace(one, low=None, high=None, p=None, adjusted_p=None, is_tie=True) if is_the_same else one


def _against(one: Comparison, seeds: int) -> str:
    base = "the base" if isinstance(one.against, str) else f"the base's {one.against:.2%}"
    points = f"{100 * abs(one.difference):.2f} points {'above' if one.difference > 0 else 'below'}"
    words = f"{points if one.difference else 'level with'} {base}"
    if one.low is not None and one.high is not None:
        span = f" (95 % interval {100 * one.low:+.2f} to {100 * one.high:+.2f})"
        return words + span + (", which is a tie" if one.is_tie else "")
    same = "on one seed" if seeds == 1 else f"the same on all {seeds} seeds"
    return f"{words}, {same}: too few to tell it from chance, so it counts as a tie"


def _curse(score: float | None, best: list[float]) -> float | None:
    return None if score is None else winners_curse(score, best)


def _held(run: Run) -> list[Held]:
    study = _finals(run)
    return [one for one in held_in(study) if one.is_complete] if study else []


def _finals(run: Run) -> optuna.Study | None:
    return next((study for study in every(run) if study.study_name == f"{run.name}.finals"), None)
