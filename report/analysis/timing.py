"""Training time of a study by purpose and outcome, and the epochs that rungs saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial

from report.tables import Table
from search.storage.attributes import ADOPTED
from search.study.config import StudyConfig
from search.study.records import Record
from search.study.run import Run, every

_WHAT = {
    "references": "base and other references",
    "control": "random control",
    "finals": "finals",
    "trained": "candidates trained in full",
    "pruned_at_rung": "candidates pruned at a rung",
}
_ORDER = ("references", "trained", "pruned_at_rung", "unfinished", "control", "finals")


@dataclass(frozen=True)
class TrainingTime:
    """Time of all trainings of one kind; unknown for those whose process died."""

    what: str
    trainings: int
    epochs: int
    seconds: float
    compile_seconds: float  # of them


@dataclass(frozen=True)
class TrainingTimes:
    """Training time by kind, and wall-clock time from the first start to the last end."""

    spent: tuple[TrainingTime, ...]
    begun: datetime | None
    ended: datetime | None

    @property
    def seconds(self) -> float:
        """Seconds of all trainings together."""
        return sum(kind.seconds for kind in self.spent)


def training_times(run: Run, candidates: optuna.Study) -> TrainingTimes:
    """Sum up the times of all studies of a run; `candidates` is its study of candidates, already open.

    An interrupted training resumes as another trial; both count with their own time.
    """
    kinds: dict[str, list[FrozenTrial]] = {kind: [] for kind in _ORDER}
    for study in (candidates, *(sibling for sibling in every(run) if sibling.study_name != run.name)):
        suffix = "" if study is candidates else study.study_name.removeprefix(f"{run.name}.")
        for trial in study.get_trials(deepcopy=False):
            outcome = trial.user_attrs.get("outcome", "failed")
            if ADOPTED in trial.user_attrs:  # another run has trained it
                continue
            if trial.state.is_finished() and outcome not in ("rejected", "interrupted"):
                kinds[suffix or (outcome if outcome in kinds else "unfinished")].append(trial)
    rows = tuple(_spent(_WHAT.get(kind, "candidates that failed"), kinds[kind]) for kind in kinds if kinds[kind])
    trials = [trial for group in kinds.values() for trial in group]
    begun = min((trial.datetime_start for trial in trials if trial.datetime_start), default=None)
    ended = max((trial.datetime_complete for trial in trials if trial.datetime_complete), default=None)
    return TrainingTimes(rows, begun, ended)


def rungs_table(config: StudyConfig, candidates: Iterable[Record]) -> Table:
    """Candidates that reached each rung and that were pruned there; no rows without rungs."""
    trained = [record for record in candidates if record.outcome in ("trained", "pruned_at_rung")]
    rows = []
    for rung in config.rungs:
        reached = sum(record.epochs >= rung for record in trained)
        pruned = sum(record.outcome == "pruned_at_rung" and record.epochs == rung for record in trained)
        rows.append((f"{rung}", f"{reached:,}", f"{pruned:,}", f"{reached - pruned:,}"))
    return Table(("after epoch", "reached", "pruned there", "continued"), rows)


def count_epochs(config: StudyConfig, candidates: Sequence[Record]) -> tuple[int, int]:
    """Return (epochs trained, epochs that would have been trained without pruning); adopted candidates took none."""
    trained = [record for record in candidates if record.is_counted]
    return sum(record.epochs for record in trained), config.planned_epochs * len(trained)


def _spent(subject: str, trials: Sequence[FrozenTrial]) -> TrainingTime:
    seconds, compiling = (
        sum(trial.user_attrs.get(name, 0.0) for trial in trials) for name in ("seconds", "compile_seconds")
    )
    return TrainingTime(subject, len(trials), sum(len(trial.intermediate_values) for trial in trials), seconds, compiling)
