"""A study's trials as records: ranked, counted, summarized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.budget.metrics import METRICS
from search.storage.attributes import (
    ADOPTED,
    BEST_EPOCH,
    BEST_VAL_ACCURACY,
    EFFECTIVE_IMAGES,
    FINAL_VAL_ACCURACY,
    FLIP_VAL_ACCURACY,
    FLOAT_VAL_ACCURACY,
    FOLD_VALUES,
    MEASURED,
    NETWORK_VALUE,
    OUTCOME,
    PARAMS,
    PROPOSAL,
    REASON,
    REFERENCE,
    REFUSED,
    REFUSED_PARAMS,
    SECONDS,
    WARM_START,
)
from search.storage.database import storage_of
from search.storage.optuna_internals import study_id_of
from search.study.config import StudyConfig
from search.training.result import Outcome

COUNTED = (Outcome.TRAINED, Outcome.PRUNED_AT_RUNG)  # towards the number of trials that a study asks for


FAILED = (Outcome.FAILED, Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT)


@dataclass(frozen=True)
class Record:
    """Stored facts of one trial; accuracies are fractions, or values of the measure that the study ranks by."""

    number: int
    reference: str | None
    outcome: Outcome
    reason: str | None
    params: int | None
    macs: int | None
    best_val_accuracy: float | None
    best_epoch: int | None
    final_val_accuracy: float | None
    epochs: int  # of all folds
    seconds: float | None
    curve: tuple[float, ...]  # validation accuracy, or the study's other measure, of each epoch; the mean of the folds
    refused: Mapping[str, int]  # proposals that broke a rule before this trial's was found, by rule
    refused_params: tuple[int, ...]  # parameters of a sample of them
    warm_start: str | None  # the known network that was queued
    float_val_accuracy: float | None = None  # of the best epoch, where best_val_accuracy is that of int8
    measures: Mapping[str, float] = field(default_factory=dict)  # all of the best epoch, where another than accuracy ranks
    effective_images: float | None = None  # that an accuracy would vary on as the ranked measure does
    flip_val_accuracy: float | None = None  # of the best epoch's weights, averaged over each image and its mirror image
    costs: Mapping[str, int] = field(default_factory=dict)  # other metrics than params and macs, as far as stored
    proposal: Mapping[str, Any] = field(default_factory=dict)  # reason of the sampler's choice, see `proposal_words`
    adopted: Mapping[str, Any] | None = None  # run and number of the trial whose training another run has done
    folds: tuple[float, ...] = ()  # value of each fold that was trained, of which the best is the mean
    network_value: float | None = None  # of the network that is kept of several, on the images of the first fold

    @property
    def epochs_of_one(self) -> int:
        """Number of epochs of one training, where each fold has one."""
        return self.epochs // max(len(self.folds), 1)

    @property
    def is_counted(self) -> bool:
        """True if it counts towards the number of trials that a study asks for."""
        return self.outcome in COUNTED and self.adopted is None

    @property
    def origin(self) -> str | None:
        """Trial of another run that was adopted, such as "trial 7 of flowers"; None for a trial of this study."""
        return origin_words(self.adopted) if self.adopted else None

    def cost(self, metric: str) -> int | None:
        """Value of a metric of `search.budget.metrics.METRICS`; None where it is not known."""
        known: int | None = getattr(self, metric, None)
        return self.costs.get(metric, known)


def origin_words(adopted: Mapping[str, Any]) -> str:
    """The trial of another run from which a trial was adopted, in words."""
    return f"trial {adopted['trial']} of {adopted['run']}"


def proposal_words(proposal: Mapping[str, Any]) -> str | None:
    """Reason why a Bayesian sampler chose a network, in one line; None where no reason is stored.

    Args:
        proposal: as `search.tuning.bayes.sampler.Proposal` writes it.
    """
    match proposal.get("reason"):
        case "random":
            return f"sampled at random: {proposal.get('note', 'no reason given')}"
        case "win" | "learn" as reason:
            aim = "expected to beat the best" if reason == "win" else "may beat the best, and shows more of the space"
            interval = f"{proposal['mean']:.2%} predicted ({proposal['low']:.2%} to {proposal['high']:.2%})"
            gain = 100 * proposal["expected_gain"]
            weights = ", ".join(f"{run} with weight {weight:.2f}" for run, weight in proposal.get("prior", {}).items())
            prior = f"; prior: {weights}" if weights else ""
            return f"sampled to {reason}: {interval}, {aim}; expected gain {gain:.2f} points{prior}"
        case _:
            return None


def records(study: optuna.Study) -> list[Record]:
    """Every trial that has been started, by number."""
    return records_of(study.get_trials(deepcopy=False))


def outline(study: optuna.Study) -> list[Record]:
    """Same as `records` with empty curves, in a fraction of the time for thousands of trials that are not cached yet."""
    outlines = storage_of(study).get_outlines(study_id_of(study))
    return [replace(_record(trial), epochs=epochs) for trial, epochs in outlines if trial.state != TrialState.WAITING]


def records_of(trials: Sequence[FrozenTrial]) -> list[Record]:
    """Records of those of these trials that have been started."""
    return [_record(trial) for trial in trials if trial.state != TrialState.WAITING]


def ranked(trials: list[Record]) -> list[Record]:
    """Trained trials, the best first: by best validation accuracy, then fewest parameters, then number."""
    trained = [record for record in trials if record.outcome == Outcome.TRAINED]
    return sorted(trained, key=lambda record: (-(record.best_val_accuracy or 0), record.params or 0, record.number))


def counts(trials: list[Record]) -> dict[str, int]:
    """Number of trials trained, pruned at a rung, rejected (within the sampler too) and failed; of adopted ones, if any."""
    own = [record for record in trials if record.adopted is None]
    totals = Counter[str](Outcome.FAILED if record.outcome in FAILED else record.outcome for record in own)
    totals[Outcome.REJECTED] += refusals(own).total()
    adopted = {"adopted": len(trials) - len(own)} if len(own) < len(trials) else {}
    return {outcome: totals[outcome] for outcome in ("trained", "pruned_at_rung", "rejected", "failed")} | adopted


def trained_count(tally: Mapping[str, int]) -> int:
    """Number of candidates trained in full among the `counts` of a study, adopted ones included."""
    return tally["trained"] + tally.get("adopted", 0)


def progress(trials: list[Record]) -> int:
    """Number of trials that count towards the number that the study asks for."""
    return sum(record.is_counted for record in trials)


def refusals(trials: list[Record]) -> Counter[str]:
    """Number of proposals that the sampler rejected, by the rule that they broke."""
    rules = Counter[str]()
    for record in trials:
        if record.outcome != Outcome.INTERRUPTED:  # its retry inherits them
            rules.update(record.refused)
    return rules


def base_accuracy(config: StudyConfig, references: list[Record]) -> float | None:
    """Accuracy to beat: the base's best validation accuracy, None while it has not been trained."""
    if isinstance(config.base, float):
        return config.base
    name = config.base_name
    return next((record.best_val_accuracy for record in ranked(references) if record.reference == name), None)


def _record(trial: FrozenTrial) -> Record:
    attributes = trial.user_attrs
    values, folds = scores_of(trial), tuple(attributes.get(FOLD_VALUES, ()))
    return Record(
        number=trial.number,
        reference=attributes.get(REFERENCE),
        outcome=_outcome(trial),
        reason=attributes.get(REASON),
        params=attributes.get(PARAMS),
        macs=attributes.get("macs"),
        best_val_accuracy=attributes.get(BEST_VAL_ACCURACY),
        best_epoch=attributes.get(BEST_EPOCH),
        final_val_accuracy=attributes.get(FINAL_VAL_ACCURACY),
        epochs=len(values),
        seconds=attributes.get(SECONDS),
        curve=last_curve(values, len(folds)),
        refused=attributes.get(REFUSED, {}),
        refused_params=tuple(attributes.get(REFUSED_PARAMS, ())),
        warm_start=attributes.get(WARM_START),
        float_val_accuracy=attributes.get(FLOAT_VAL_ACCURACY),
        measures=attributes.get(MEASURED, {}),
        effective_images=attributes.get(EFFECTIVE_IMAGES),
        flip_val_accuracy=attributes.get(FLIP_VAL_ACCURACY),
        costs={name: attributes[name] for name in METRICS if name in attributes},
        proposal=attributes.get(PROPOSAL, {}),
        adopted=attributes.get(ADOPTED),
        folds=folds,
        network_value=attributes.get(NETWORK_VALUE),
    )


def scores_of(trial: FrozenTrial) -> tuple[float, ...]:
    """The values that a trial has reported, in order."""
    return tuple(map(trial.intermediate_values.__getitem__, sorted(trial.intermediate_values)))


def last_curve(values: tuple[float, ...], folds: int) -> tuple[float, ...]:
    """The mean curve over all folds, which is the last that a trial has reported; all values without folds."""
    return values[len(values) - len(values) // folds :] if folds else values


def _outcome(trial: FrozenTrial) -> Outcome:
    if trial.state == TrialState.RUNNING:
        return Outcome.RUNNING
    outcome = Outcome(trial.user_attrs.get(OUTCOME, Outcome.FAILED))
    late = (
        trial.state == TrialState.FAIL and outcome in COUNTED
    )  # stored by a worker that was considered dead at that moment
    return Outcome.INTERRUPTED if late else outcome
