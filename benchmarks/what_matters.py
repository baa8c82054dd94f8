"""Effects of the choices in the table of real trainings on accuracy, with intervals: what makes a small network good.

    python benchmarks/what_matters.py        # reads benchmarks/table.json; writes benchmarks/what_matters.json,
                                             # docs/what_matters.svg and the tables of docs/small-networks.md; 20 seconds

A linear model of accuracy for each space, on all choices at once, so that each effect is that of one choice with the others
held equal: multiply-adds, parameters and depth as well. Intervals are percentiles of 2,000 resamplings of the networks; a
choice counts as beyond chance where Holm's adjustment over all choices of its space leaves p < 0.05.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import NormalDist
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from ground_spaces import candidate

from search.budget.cost import compute_cost
from search.files import read_json, write_json, write_text
from search.networks.geometry import flatten
from search.networks.layers import Dropout

HERE = Path(__file__).resolve().parent
TABLE, OUT = HERE / "table.json", HERE / "what_matters.json"
PAGE, FIGURE = HERE.parent / "docs" / "small-networks.md", HERE.parent / "docs" / "what_matters.svg"
RESAMPLES, SEED, LEVEL = 2_000, 0, 0.05
FEWEST = 12  # networks of a level for which its effect is told

LABELS = {  # parameters of the spaces that are choices of a few values
    "kernel": "kernel",
    "order": "order in a block",
    "activation": "activation",
    "pool_kind": "pooling",
    "head": "classifier",
    "block": "block",
    "expansion": "expansion",
    "second_kernel": "second kernel of a block",
    "norm": "batch norm",
    "downsample": "downsampling",
    "stem_multiplier": "depth multiplier of the stem",
    "recipe.optimizer": "optimizer",
    "recipe.batch_size": "batch size",
    "recipe.label_smoothing": "label smoothing",
    "recipe.augment_strength": "strength of augmentation",
    "recipe.warmup": "warm-up, share of the steps",
}
MEASURES = {  # numbers whose effect is told from their lower to their upper quartile
    "macs": "multiply-adds",
    "params": "parameters",
    "depth": "convolutions",
    "halvings": "halvings of the resolution after the stem",
    "first width": "width of the first block",
    "dropout": "mean dropout rate",
}
LOGARITHMIC = frozenset({"macs", "params", "first width"})


@dataclass(frozen=True)
class Effect:
    """Difference in accuracy that one choice makes, in points, the others held equal."""

    space: str
    choice: str
    change: str  # "from -> to"
    points: float
    low: float
    high: float
    networks: int  # with the choice that it is changed to; all of them for a number
    is_beyond_chance: bool


@dataclass(frozen=True)
class Column:
    """A column of the model and how its coefficient is told."""

    choice: str
    change: str
    values: np.ndarray[Any, Any]
    step: float  # by which the coefficient is multiplied
    networks: int


def main() -> None:
    networks = read_json(TABLE)["networks"]
    effects: list[Effect] = []
    facts: dict[str, dict[str, float]] = {}
    for space in ("pyramid", "residual"):
        rows = [row for row in networks if row["space"] == space]
        found, fit = effects_of(space, rows)
        effects += found
        facts[space] = fit
    write_json(OUT, {"fit": facts, "effects": [asdict(effect) for effect in effects]})
    write_text(FIGURE, figure(effects))
    write_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8"), effects, facts))
    print(f"{OUT}\n{FIGURE}\n{PAGE}")


# --- the model -------------------------------------------------------------------------------------------------------


def effects_of(space: str, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Effect], dict[str, float]]:
    """The effects of a space and how well the model explains its networks."""
    accuracy = 100 * np.array([np.mean(list(row["accuracy"].values())) for row in rows])
    columns = list(columns_of(rows))
    selected = np.array([row["origin"] == "neighbour" for row in rows], float)  # of the best so far: chosen for its accuracy
    design = np.column_stack([np.ones(len(rows)), selected, *(column.values for column in columns)])
    generator = np.random.default_rng(SEED)
    estimate = fitted(design, accuracy)
    samples = np.array(
        [fitted(design[chosen], accuracy[chosen]) for chosen in generator.integers(0, len(rows), (RESAMPLES, len(rows)))]
    )
    low, high = np.quantile(samples, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    scores = np.abs(estimate) / np.maximum(samples.std(axis=0), 1e-9)
    beyond = holm([2 * (1 - NormalDist().cdf(float(score))) for score in scores[2:]])
    found = []
    for index, (column, is_beyond) in enumerate(zip(columns, beyond, strict=True), start=2):
        ends = sorted((column.step * low[index], column.step * high[index]))
        points = column.step * estimate[index]
        found.append(
            Effect(
                *(space, column.choice, column.change),
                *(round(float(value), 2) for value in (points, *ends)),
                column.networks,
                is_beyond,
            )
        )
    residuals = accuracy - design @ estimate
    left = residuals @ residuals / (len(rows) - design.shape[1])
    return found, {
        "networks": len(rows),
        "explained": round(1 - float(left / accuracy.var(ddof=1)), 3),
        "residual_points": round(math.sqrt(float(left)), 2),
        "spread_points": round(float(accuracy.std(ddof=1)), 2),
    }


def columns_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[Column]:
    """The columns of the model: numbers, levels of choices against the commonest, thirds of the learning rate."""
    described = [describe(row) for row in rows]
    for name, label in MEASURES.items():
        values = np.array([numbers[name] for numbers, _ in described])
        scaled = np.log2(np.maximum(values, 1)) if name in LOGARITHMIC else values
        lower, upper = np.quantile(scaled, [0.25, 0.75])
        if upper > lower:
            ends = [f"{2**end:,.0f}" if name in LOGARITHMIC else f"{end:.2g}" for end in (lower, upper)]
            yield Column(label, " → ".join(ends), scaled - scaled.mean(), upper - lower, len(rows))
    for name, label in LABELS.items():
        yield from _levels(label, [settings.get(name) for _, settings in described])
    rates = np.array([math.log(settings["rate"]) for _, settings in described])
    thirds = np.quantile(rates, [1 / 3, 2 / 3])
    names = ["low", "middle", "high"]
    yield from _levels(
        "learning rate, third of the range", [names[int(np.searchsorted(thirds, rate))] for rate in rates], "middle"
    )


def describe(row: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """(numbers, settings) of a network; settings that it does not use are absent."""
    values = row["values"]
    proposal = candidate(row["space"], values)
    resolved = [each for _, each in flatten(compute_cost(proposal.architecture).resolved)]
    convolutions = [each for each in resolved if hasattr(each.layer, "filters")]
    sides = [each.output[0] for each in resolved if len(each.output) == 3]
    rates = [each.layer.rate for each in resolved if isinstance(each.layer, Dropout)]
    numbers = {
        "macs": row["macs"],
        "params": row["params"],
        "depth": len(convolutions),
        "halvings": math.log2(sides[0] / min(sides)) if sides else 0.0,
        "first width": convolutions[0].output[-1],
        "dropout": float(np.mean(rates)) if rates else 0.0,
    }
    settings = {name: values[name] for name in LABELS if name in values}
    if not values.get("pools", 1):
        settings.pop("pool_kind", None)
    usual = 0.1 if proposal.recipe.optimizer == "sgd" else 0.002
    return numbers, settings | {"rate": proposal.recipe.learning_rate / usual}


def _levels(label: str, values: Sequence[Any], usual: Any = None) -> Iterator[Column]:
    counts = {value: values.count(value) for value in dict.fromkeys(values) if value is not None}
    told = [value for value, count in counts.items() if count >= FEWEST]
    if len(told) < 2:
        return
    reference = usual if usual is not None else max(told, key=lambda value: (counts[value], str(value)))
    for value in sorted((each for each in counts if each != reference), key=str):
        indicator = np.array([float(each == value) for each in values])
        yield Column(label, f"{reference} → {value}", indicator, 1.0, counts[value])


def fitted(design: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Least squares with a ridge of a thousandth, for resamples in which a level is missing."""
    penalty = 1e-3 * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    return np.linalg.solve(design.T @ design + penalty, design.T @ target)


def holm(probabilities: Sequence[float]) -> list[bool]:
    """True for each hypothesis that Holm's step-down rejects at LEVEL."""
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    rejected = [False] * len(probabilities)
    for rank, index in enumerate(order):
        if probabilities[index] > LEVEL / (len(probabilities) - rank):
            break
        rejected[index] = True
    return rejected


# --- page and figure -------------------------------------------------------------------------------------------------


def with_tables(page: str, effects: Sequence[Effect], facts: Mapping[str, Mapping[str, float]]) -> str:
    """The page with the tables between its marks written anew."""
    for space, fit in facts.items():
        begin, end = f"<!-- effects: {space} -->", "<!-- end of effects -->"
        before, rest = page.split(begin)
        _, after = rest.split(end, 1)
        lines = [
            f"{fit['networks']:.0f} networks, whose accuracies have a standard deviation of {fit['spread_points']} points; "
            f"the model explains {100 * fit['explained']:.0f} % of their variance.",
            "",
            "| choice | changed | points | 95 % interval | networks | beyond chance |",
            "|---|---|---:|---:|---:|---|",
        ]
        for effect in sorted((each for each in effects if each.space == space), key=lambda each: -abs(each.points)):
            mark = "yes" if effect.is_beyond_chance else ""
            lines.append(
                f"| {effect.choice} | {effect.change} | {effect.points:+.1f} | {effect.low:+.1f} to {effect.high:+.1f} | "
                f"{effect.networks} | {mark} |"
            )
        page = before + begin + "\n" + "\n".join(lines) + "\n" + end + after
    return page


def figure(effects: Sequence[Effect]) -> str:
    """Effects as points with their intervals, the largest first, for light and dark backgrounds."""
    shown = sorted(effects, key=lambda each: (each.space, -abs(each.points)))
    left, width, row, top = 360, 860, 18, 34
    reach = max(max(abs(each.low), abs(each.high)) for each in shown)

    def x(points: float) -> float:
        return left + (width - left - 20) * (points + reach) / (2 * reach)

    height = top + row * (len(shown) + 2) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        "<style>text{fill:#222}line{stroke:#777}.no{stroke:#888;fill:#888}.yes{stroke:#0b6bcb;fill:#0b6bcb}"
        "@media(prefers-color-scheme:dark){text{fill:#eee}line{stroke:#999}.yes{stroke:#6bb2ff;fill:#6bb2ff}}</style>",
        f'<line x1="{x(0):.1f}" y1="{top - 8}" x2="{x(0):.1f}" y2="{height - 26}"/>',
    ]
    y, space = float(top), ""
    for effect in shown:
        if effect.space != space:
            space = effect.space
            parts.append(f'<text x="8" y="{y + 4:.0f}" font-weight="bold">{space} space</text>')
            y += row
        kind = "yes" if effect.is_beyond_chance else "no"
        parts += [
            f'<text x="{left - 10}" y="{y + 4:.0f}" text-anchor="end">{escape(f"{effect.choice}: {effect.change}")}</text>',
            f'<line class="{kind}" x1="{x(effect.low):.1f}" y1="{y:.0f}" x2="{x(effect.high):.1f}" y2="{y:.0f}" '
            'stroke-width="2"/>',
            f'<circle class="{kind}" cx="{x(effect.points):.1f}" cy="{y:.0f}" r="3.5"/>',
        ]
        y += row
    for tick in range(-int(reach), int(reach) + 1, 2 if reach > 5 else 1):
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 12}" text-anchor="middle">{tick:+d}</text>')
    parts.append(f'<text x="{left}" y="{height - 1}">points of accuracy; blue: beyond chance</text></svg>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
