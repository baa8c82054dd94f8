"""Base and winner compared: costs, accuracies and the three figures that matter most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from report.analysis.findings import Findings
from report.analysis.verdict import Score
from search.budget.cost import compute_cost
from search.budget.metrics import METRICS
from search.networks.architecture import Architecture
from search.study.pareto import reference_network
from search.text import format_percent, format_percent_span, format_points, format_points_span

COSTS = {
    "params": "Parameters",
    "macs": "Multiply-adds",
    "flash_bytes": "Flash, int8 bytes",
    "arena_bytes": "Arena, int8 bytes",
}
SAME = 1.05  # factor below which two costs are told to be about the same
TIMES = "\N{MULTIPLICATION SIGN}"


class Fact(NamedTuple):
    """A figure of base and winner; shares (0 to 1) are of the larger of both, and None where a bar has no meaning."""

    label: str
    base: str
    winner: str
    ratio: str
    base_share: float | None = None
    winner_share: float | None = None


class Headline(NamedTuple):
    """A figure in large type with its explanation."""

    figure: str
    label: str
    words: str


def base_network(findings: Findings) -> Architecture | None:
    """The base as it was trained; None if it is a plain accuracy, was not trained, or its file is gone."""
    name = findings.run.config.base_name
    trials = findings.studies.references.get_trials(deepcopy=False)
    trained = [record.number for record in findings.references if record.reference == name and record.outcome == "trained"]
    return reference_network(findings.run, trials[trained[-1]]) if name and trained else None


def facts(findings: Findings, base: Architecture | None) -> list[Fact]:
    """Costs of both networks with their ratio, then both accuracies with their intervals."""
    rows, own = [], compute_cost(findings.network)
    other = None if base is None else compute_cost(base)
    for name, label in COSTS.items():
        value = METRICS[name].compute(own)
        if other is None:
            rows.append(Fact(label, "", f"{value:,}", ""))
            continue
        reference = METRICS[name].compute(other)
        most = max(value, reference, 1)
        rows.append(
            Fact(label, f"{reference:,}", f"{value:,}", ratio(reference, value, name), reference / most, value / most),
        )
    verdict = findings.verdict
    images = _images(findings)
    if verdict.score is not None:
        gap = "" if verdict.difference is None else f"{format_points(verdict.difference, images)} points"
        label = f"{verdict.measure[0].upper()}{verdict.measure[1:]}"
        rows.append(Fact(label, _score_words(verdict.base, images), _score_words(verdict.score, images), gap))
    return rows


def ratio(base: int, value: int, metric: str = "params") -> str:
    """Value against the base's as a factor, such as `11.7x fewer`."""
    if value == base or not value or not base:
        return "the same" if value == base else ""
    less = "less" if METRICS[metric].is_int8 else "fewer"
    factor, word = (base / value, less) if value < base else (value / base, "more")
    if factor < SAME:
        return "about the same"
    return f"{factor:.2g}{TIMES} {word}" if factor < 10 else f"{factor:,.0f}{TIMES} {word}"


def headlines(findings: Findings, base: Architecture | None) -> Iterator[Headline]:
    """Three figures: accuracy of the winner, its size, and its distance to the base."""
    verdict, images, config = findings.verdict, _images(findings), findings.run.config
    own, limit = compute_cost(findings.network).params, config.budget.params
    score = verdict.score
    span = "" if score is None or score.interval is None else f"95 % interval {format_percent_span(*score.interval, images)}"
    trainings = verdict.trainings if verdict.seeds == 1 else f"{verdict.seeds} fresh seeds"
    seen = "" if verdict.images is None else f" on {verdict.images:,} images"
    if score is not None:
        words = "; ".join(filter(None, [f"{trainings}{seen}", span]))
        yield Headline(format_percent(score.accuracy, images), f"{verdict.measure}, trial {findings.number}", words)
    if base is None:
        yield Headline(f"{own:,}", "parameters", f"the budget is under {limit:,}")
    else:
        other = compute_cost(base).params
        words = f"{own:,}; the base has {other:,}, the budget is under {limit:,}"
        yield Headline(ratio(other, own), "parameters", words)
    if verdict.difference is None:
        yield Headline("no base", "to compare with", "the base has not been trained")
    else:
        yield Headline(
            f"{format_points(verdict.difference, images)} points", "against the base", _gap_words(findings, images)
        )


def _gap_words(findings: Findings, images: int | None) -> str:
    verdict = findings.verdict
    if verdict.difference_interval is not None:
        return f"95 % interval {format_points_span(*verdict.difference_interval, images)}; {verdict.title}"
    if verdict.noise is not None:
        return (
            f"{verdict.trainings} each, where chance makes up to {format_points(verdict.noise, images, sign=False)} points"
        )
    return verdict.title


def _score_words(score: Score | None, images: int | None) -> str:
    if score is None:
        return ""
    span = "" if score.interval is None else f" ({format_percent_span(*score.interval, images).removesuffix('%')})"
    return f"{format_percent(score.accuracy, images)}{span}"


def _images(findings: Findings) -> int | None:
    """Number of predictions behind the accuracies, which decides their decimals."""
    verdict = findings.verdict
    return None if verdict.images is None else verdict.images * verdict.seeds
