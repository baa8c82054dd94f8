"""Results of the finals of a study: means on fresh seeds, intervals, ties, and the optimism of the search.

Read from the storage alone. Under protocol "holdout" finalists are compared by their accuracy on the test images, under
"course" by their best validation accuracy, like the published logs; the other figures are listed beside it. Accuracies are
values of the study's measure, where that is another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.errors import UserError
from search.finals.statistics import Comparison, rank, winners_curse
from search.storage.attributes import (
    BASE,
    BEST_VAL_ACCURACY,
    CONTENDER,
    FINAL_VAL_ACCURACY,
    MEASURED,
    OUTCOME,
    REASON,
    REPEAT,
)
from search.study.run import Run, every
from search.text import format_percents
from search.training.measures import MEASURES, other_measures
from search.training.result import Outcome

TEST, BEST_VAL = "test_", "best_val_"  # before a measure: the images and the epoch that it is of
HELD = "held"  # study attribute of NAME.finals: every `FinalsRecord`, as plain values


@dataclass(frozen=True)
class FinalsRecord:
    """Finals whose trainings are complete, as stored with the study."""

    contenders: tuple[Mapping[str, Any], ...]  # name, number, params, search_score
    seeds: int
    test_read: str | None = None  # UTC, when the test images were first opened for it; None under "course"
    again: bool = False  # they had been read before, and were read again by request
    test: Mapping[str, list[float]] | None = None  # test accuracies by finalist; None until all are measured
    other_test: Mapping[str, list[dict[str, float]]] | None = None  # all measures, where another than accuracy ranks

    @property
    def is_complete(self) -> bool:
        """False for a reading of the test images that was interrupted, which counts as none."""
        return self.test_read is None or self.test is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values to be stored, without the measures of a study that ranks by accuracy."""
        plain = asdict(self)
        return plain if self.other_test is not None else {key: plain[key] for key in plain if key != "other_test"}


@dataclass(frozen=True)
class FinalistResult:
    """One finalist on its fresh seeds; accuracies are fractions, one for each seed."""

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
    winners_curse: float | None  # search score minus the mean of best validation accuracies
    against_base: Comparison | None
    against_leader: Comparison | None
    measures: Mapping[str, float] | None = None  # mean of every measure, where the study ranks by another than accuracy


@dataclass(frozen=True)
class FinalsResult:
    """The finals, the best mean first; without finalists and leader where only the base trained on every seed."""

    measure: str  # "test_accuracy" or "best_val_accuracy", "test_macro_f1" or "best_val_macro_f1", ...
    seeds: int
    finalists: tuple[FinalistResult, ...]
    leader: str | None
    test_read: tuple[str, ...]  # UTC, every time that the test images were read
    failed: Mapping[str, str]  # reason by finalist that did not train on every seed; excluded from all comparisons

    @property
    def is_test(self) -> bool:
        """True if finalists are compared on the test images."""
        return self.measure.startswith(TEST)

    @property
    def metric(self) -> str:
        """The measure that finalists are compared by."""
        return self.measure.removeprefix(TEST).removeprefix(BEST_VAL)

    @property
    def measure_label(self) -> str:
        """The figure that finalists are compared by, in words: `test accuracy`, `best validation macro F1`."""
        return f"{'test' if self.is_test else 'best validation'} {MEASURES[self.metric].label}"


def read_records(study: optuna.Study) -> list[FinalsRecord]:
    """The stored finals in order: under "holdout" one for every reading of the test images; the last may be incomplete."""
    return [
        FinalsRecord(**record | {"contenders": tuple(record["contenders"])}) for record in study.user_attrs.get(HELD, [])
    ]


def check_unread(run: Run, again: bool) -> None:
    """Check that the test images have not been read for finals of this run.

    Raises:
        UserError: they have, and `again` is false.
    """
    read = [record.test_read for record in _complete_records(run) if record.test]
    if read and not again:
        raise UserError(
            f"finals: the test images were read at {read[0]}, and the best of several readings is optimistic; see the "
            "results with --show, or pass --again, which is recorded too"
        )


def load_results(run: Run) -> FinalsResult | None:
    """The results of the last complete finals; None while there are none."""
    study, complete = _finals_study(run), _complete_records(run)
    if study is None or not complete:
        return None
    last, trials = complete[-1], trainings(study)
    names = [finalist["name"] for finalist in last.contenders]
    failed = {
        name: trials[name, seed].user_attrs.get(REASON, "no reason given")
        for seed in reversed(range(last.seeds))
        for name in names
        if trials[name, seed].state != TrialState.COMPLETE
    }
    scores = {
        name: [trials[name, seed].user_attrs[BEST_VAL_ACCURACY] for seed in range(last.seeds)]
        for name in names
        if name not in failed
    }
    measure = f"{BEST_VAL if last.test is None else TEST}{run.config.search.metric}"
    finalists, leader = _compare(run, last, scores, trials)
    read = tuple(record.test_read for record in complete if record.test_read)
    return FinalsResult(measure, last.seeds, finalists, leader, read, failed)


def trainings(study: optuna.Study) -> dict[tuple[str, int], FrozenTrial]:
    """Trials that have ended or are queued, by finalist and seed; those that a retry replaced are left out."""
    return trainings_of(study.get_trials(deepcopy=False))


def trainings_of(trials: Sequence[FrozenTrial]) -> dict[tuple[str, int], FrozenTrial]:
    """As `trainings`, of these trials."""
    return {
        (trial.user_attrs[CONTENDER], trial.user_attrs[REPEAT]): trial
        for trial in trials
        if trial.user_attrs.get(OUTCOME) != Outcome.INTERRUPTED
    }


def to_json(run: Run, result: FinalsResult) -> dict[str, Any]:
    """The result as `finals --json` prints it."""
    plain = asdict(result)
    for finalist in plain["finalists"]:
        if finalist["measures"] is None:
            del finalist["measures"]
    return {"study": run.name, "protocol": run.config.protocol} | plain | {"verdict": leader_sentence(result)}


def leader_sentence(result: FinalsResult) -> str:
    """The leader of the finals, its ties and its lead over the base, in a sentence or two."""
    seeds = f"{result.seeds} fresh seed{'s' if result.seeds > 1 else ''}"
    leader = next((finalist for finalist in result.finalists if finalist.name == result.leader), None)
    if leader is None:
        return f"no contender but the base trained on all of {seeds}, so nothing is confirmed."
    ties = [finalist.name for finalist in result.finalists if finalist.against_leader and finalist.against_leader.is_tie]
    text = f"{leader.name} leads with a mean {result.measure_label} of {leader.mean:.2%} on {seeds}"
    if leader.measures is not None:
        text += f" ({format_percents(other_measures(leader.measures, result.metric), None)})"
    if ties:
        text += f", a tie with {' and '.join(', '.join(ties).rsplit(', ', 1))}"
    if leader.against_base:
        text += f"; {_lead_over_base(leader.against_base, result.seeds)}"
    return text + "."


def _compare(
    run: Run, record: FinalsRecord, best: Mapping[str, list[float]], trials: Mapping[tuple[str, int], FrozenTrial]
) -> tuple[tuple[FinalistResult, ...], str | None]:
    """The finalists with their figures, and the leader's name; none where only the base is left."""
    if not best.keys() - {BASE}:
        return (), None
    base = run.config.base if isinstance(run.config.base, float) else (BASE if BASE in best else None)
    tests = record.test or {}
    ranking = rank({name: tests.get(name, best[name]) for name in best}, base)
    against_base = {comparison.name: _without_constant(comparison) for comparison in ranking.against_base}
    against_leader = {comparison.name: _without_constant(comparison) for comparison in ranking.against_leader}
    stored = {finalist["name"]: finalist for finalist in record.contenders}
    finalists = []
    for summary in ranking.summaries:
        name = summary.name
        has_interval = summary.low is not None and summary.high is not None and summary.spread
        # The score of a search in folds is a mean at one epoch, and each final has a best epoch of its own.
        search_score = None if run.config.data.folds else stored[name]["search_score"]
        finalists.append(
            FinalistResult(
                **stored[name],
                best_val=tuple(best[name]),
                final_val=tuple(trials[name, seed].user_attrs[FINAL_VAL_ACCURACY] for seed in range(record.seeds)),
                test=tuple(tests.get(name, ())),
                mean=summary.mean,
                spread=summary.spread,
                interval=(summary.low, summary.high) if has_interval else None,  # type: ignore[arg-type]
                winners_curse=None if search_score is None else winners_curse(search_score, best[name]),
                against_base=against_base.get(name),
                against_leader=against_leader.get(name),
                measures=_mean_measures(record, name, trials),
            )
        )
    return tuple(finalists), ranking.leader


def _mean_measures(
    record: FinalsRecord, name: str, trials: Mapping[tuple[str, int], FrozenTrial]
) -> dict[str, float] | None:
    """Mean of every measure over the seeds, on the images that finalists are compared on; None in a study of accuracy."""
    if record.test is None:
        measured = [trials[name, seed].user_attrs.get(MEASURED) for seed in range(record.seeds)]
    else:
        measured = list((record.other_test or {}).get(name, []))
    known = [values for values in measured if values]
    if not known or len(known) < len(measured):
        return None
    return {metric: fmean(values[metric] for values in known) for metric in known[0]}


def _without_constant(comparison: Comparison) -> Comparison:
    """The comparison as a tie without p and interval, if the difference is the same on every seed.

    Accuracies move in steps of one image, so a few of them agree by accident, and zero spread would count as certainty.
    To leave such a comparison out (p = 0) does not change the adjusted p of the others.
    """
    if comparison.low is None or comparison.low != comparison.high:
        return comparison
    return replace(
        comparison, low=None, high=None, p=None, adjusted_p=None, adjusted_low=None, adjusted_high=None, is_tie=True
    )


def _lead_over_base(comparison: Comparison, seeds: int) -> str:
    base = "the base" if isinstance(comparison.against, str) else f"the base's {comparison.against:.2%}"
    points = f"{100 * abs(comparison.difference):.2f} points {'above' if comparison.difference > 0 else 'below'}"
    text = f"{points if comparison.difference else 'level with'} {base}"
    if comparison.adjusted_low is not None and comparison.adjusted_high is not None:
        span = f" (95 % interval {100 * comparison.adjusted_low:+.2f} to {100 * comparison.adjusted_high:+.2f})"
        return text + span + (", which is a tie" if comparison.is_tie else "")
    same = "on one seed" if seeds == 1 else f"the same on all {seeds} seeds"
    return f"{text}, {same}: too few to tell it from chance, so it counts as a tie"


def _complete_records(run: Run) -> list[FinalsRecord]:
    study = _finals_study(run)
    return [record for record in read_records(study) if record.is_complete] if study else []


def _finals_study(run: Run) -> optuna.Study | None:
    return next((study for study in every(run) if study.study_name == f"{run.name}.finals"), None)
