"""Plain rows behind the figures: curves, points, rejected proposals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import quantiles
from typing import Literal

from search.study import references as known
from search.study.config import StudyConfig
from search.study.records import Record, base_accuracy, ranked
from search.study.run import Run
from search.training.measures import ACCURACY

DECIMALS = 6  # decimals of an accuracy: figures round it once more, and must not round up what tables round down
FEWEST = 5  # curves at an epoch for which their spread is shown
PRUNED = "pruned_at_rung"
REJECTED = "rejected as a trial"  # rule of a rejected trial, which is no draw of the sampler


@dataclass(frozen=True)
class Curve:
    """Validation accuracies (fractions) of epochs 1, 2, ... of one training."""

    name: str
    role: Literal["base", "reference", "candidate", "published"]
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Spread:
    """Median and middle 80 % of the accuracies (fractions) of several trainings at one epoch."""

    epoch: int
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Point:
    """Cost and best validation accuracy (a fraction) of one network."""

    name: str
    role: Literal["base", "reference", "candidate", "pruned"]
    cost: int | None  # None for a base that is a plain accuracy, and where it is not known
    accuracy: float


@dataclass(frozen=True)
class Refusals:
    """Number of rejected proposals by rule, while trials `first` to `last` were proposed."""

    first: int
    last: int
    by_rule: dict[str, int]


@dataclass(frozen=True)
class Size:
    """Parameters of one proposal, by trial."""

    trial: int
    params: int


# --- accuracy over epochs --------------------------------------------------------------------------------------------


def curves(run: Run, candidates: list[Record], references: list[Record], top: int = 5) -> list[Curve]:
    """Curves of the base, the best candidates by rank, other references, and published logs.

    A base that is a plain accuracy becomes a level over the epochs of the recipe. Published logs are of all of CIFAR-10:
    they are included for that data set alone and where accuracy ranks, cut to the epochs of the study.
    """
    networks = {record.reference or "": rounded(record.curve) for record in reversed(ranked(references))}
    base, level = run.config.base_name, base_accuracy(run.config, references)
    curves_shown = []
    if base in networks:
        curves_shown.append(Curve(base if base == "base" else f"base {base}", "base", networks.pop(base)))
    elif level is not None:
        curves_shown.append(
            Curve(f"{run.config.metric_label} to beat", "base", rounded([level] * max(run.config.recipe.epochs, 2)))
        )
    best = ranked(candidates)[:top]
    curves_shown += [Curve(f"trial {record.number}", "candidate", rounded(record.curve)) for record in best]
    curves_shown += [Curve(name, "reference", accuracies) for name, accuracies in networks.items()]
    return curves_shown + _published(run.config)


def other_curves(candidates: list[Record], top: int = 5) -> list[Curve]:
    """Curves of the candidates that are not among the best, trained or pruned, by number."""
    best = {record.number for record in ranked(candidates)[:top]}
    return [
        Curve(f"trial {record.number}", "candidate", rounded(record.curve))
        for record in candidates
        if record.number not in best and record.outcome in ("trained", PRUNED) and record.curve
    ]


def middle_band(curves: Sequence[Curve]) -> list[Spread]:
    """Spread of the curves by epoch, over those that reached it; epochs that fewer than five reached are left out."""
    spreads = []
    for epoch in range(1, max(len(row.accuracies) for row in curves) + 1):
        values = [row.accuracies[epoch - 1] for row in curves if len(row.accuracies) >= epoch]
        if len(values) >= FEWEST:
            tenths = quantiles(values, n=10, method="inclusive")
            spreads.append(Spread(epoch, *rounded((tenths[0], tenths[4], tenths[-1]))))
    return spreads


def _published(config: StudyConfig) -> list[Curve]:
    if config.data.name != "cifar10" or config.data.images is not None or config.search.metric != ACCURACY:
        return []
    logs = sorted(known.published_curves().items(), key=lambda log: log[0] != config.base_name)  # the base's first
    return [Curve(f"{name}, published", "published", log[: config.recipe.epochs]) for name, log in logs]


# --- accuracy against cost -------------------------------------------------------------------------------------------


def points(run: Run, candidates: list[Record], references: list[Record], metric: str) -> list[Point]:
    """Points of trained and pruned candidates by number, then the base, then other references.

    What a network costs in int8 is known of records that come from `search.study.pareto.add_costs`.
    """
    points_shown = []
    for record in candidates:
        accuracy, role = record.best_val_accuracy, "pruned" if record.outcome == PRUNED else "candidate"
        if record.outcome in ("trained", PRUNED) and accuracy is not None:
            points_shown.append(_point(f"trial {record.number}", role, record, metric))
    trained = {record.reference: record for record in reversed(ranked(references))}
    base = run.config.base_name
    if isinstance(run.config.base, float):
        points_shown.append(Point(f"{run.config.metric_label} to beat", "base", None, *rounded([run.config.base])))
    elif base in trained:
        points_shown.append(_point(base if base == "base" else f"base {base}", "base", trained.pop(base), metric))
    return points_shown + [_point(name or "", "reference", record, metric) for name, record in trained.items()]


def _point(name: str, role: str, record: Record, metric: str) -> Point:
    (accuracy,) = rounded([record.best_val_accuracy or 0.0])
    return Point(name, role, record.cost(metric), accuracy)  # type: ignore[arg-type]


# --- refusals --------------------------------------------------------------------------------------------------------


def refusals(candidates: Iterable[Record], most: int = 50) -> list[Refusals]:
    """Count rejected proposals by rule, in at most `most` groups of equally many trials.

    Rejections inside the sampler keep their rule; a trial that was rejected itself (queued by a user) counts as `REJECTED`.
    """
    rejected = [(record.number, _refused(record)) for record in candidates if record.outcome != "interrupted"]
    width = max(1, -(-(1 + max((number for number, _ in rejected), default=0)) // most))
    groups = groupby(rejected, key=lambda one: one[0] // width)
    return [
        Refusals(place * width, (place + 1) * width - 1, dict(sum((rules for _, rules in group), Counter[str]())))
        for place, group in groups
    ]


def _refused(record: Record) -> Counter[str]:
    return Counter(record.refused) + Counter([REJECTED] if record.outcome == "rejected" else [])


def refused_sizes(candidates: Iterable[Record]) -> list[Size]:
    """Sizes of rejected proposals (a sample for each trial) and of rejected trials."""
    return [
        Size(record.number, params)
        for record in candidates
        if record.outcome != "interrupted"  # its retry carries them as well
        for params in (*record.refused_params, *([record.params] if record.outcome == "rejected" and record.params else []))
    ]


def sizes(candidates: Iterable[Record]) -> list[Size]:
    """Sizes of trained candidates."""
    return [Size(one.number, one.params) for one in candidates if one.outcome in ("trained", PRUNED) and one.params]


def rounded(accuracies: Iterable[float]) -> tuple[float, ...]:
    """Round accuracies for storage in figures."""
    return tuple(round(accuracy, DECIMALS) for accuracy in accuracies)
