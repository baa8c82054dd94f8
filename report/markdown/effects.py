"""Finals and ablation effects as tables and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna

from report.markdown.formatting import escaped, markdown
from report.tables import Table
from search.finals.results import FinalsResult, verdict
from search.finals.statistics import Comparison, Effect, effects, within
from search.study.records import records
from search.study.run import Run

SCORE = "best_val_accuracy"
BLOCK = "repeat"


# --- finals ----------------------------------------------------------------------------------------------------------


def finals_section(found: FinalsResult) -> str:
    """The finalists as Markdown."""
    told = f"\n\n{markdown(finals_table(found))}\n\n{FINALS}" if found.finalists else ""
    return finals_verdict(found) + told + "".join(f"\n\n{escaped(line)}" for line in finals_notes(found))


def finals_verdict(found: FinalsResult) -> str:
    """Verdict of the finals in one or two sentences."""
    words = verdict(found)
    return words[0].upper() + words[1:]


def finals_table(found: FinalsResult) -> Table:
    """Table of finalists, best mean first, each compared with the base and with the leader."""
    rows = [
        (
            one.name,
            f"{one.params:,}",
            f"{one.mean:.2%}",
            "" if one.interval is None else f"{one.interval[0]:.2%} to {one.interval[1]:.2%}",
            "" if one.spread is None else f"{100 * one.spread:.2f}",
            "" if one.search_score is None else f"{one.search_score:.2%}",
            "" if one.winners_curse is None else f"{100 * one.winners_curse:+.2f}",
            _versus(one.against_base),
            _versus(one.against_leader),
        )
        for one in found.finalists
    ]
    measured = f"mean {measure(found)}"
    columns = ("", "params", measured, "95 % interval", "spread", "in the search", "flattered by", "base", "leader")
    return Table(columns, rows)


def finals_notes(found: FinalsResult) -> list[str]:
    """Notes on the reading of the test images and on excluded finalists."""
    read = [f"The test images were read at {', '.join(found.test_read)}."] if found.test_read else []
    return read + [f"{name} is compared with none: {why}." for name, why in found.failed.items()]


def measure(found: FinalsResult) -> str:
    """Name of the accuracy that finalists are compared by."""
    return "test accuracy" if found.measure == "test_accuracy" else "best validation accuracy"


FINALS = (
    "Every network was trained from scratch on the same fresh seeds. Differences are in points, paired by seed, with 95 % "
    'intervals; a tie is a difference that chance can make (Holm\'s correction for several comparisons). "Flattered by" is '
    "the score of the search less the mean of the best validation accuracies here: the winner's curse."
)


def _versus(one: Comparison | None) -> str:
    if one is None:
        return ""
    span = _span(one) or " (the same on too few seeds to say)"
    return f"{100 * one.difference:+.2f}{span}{', tie' if one.is_tie else ''}"


def _span(one: Comparison | Effect) -> str:
    return "" if one.low is None or one.high is None else f" ({100 * one.low:+.2f} to {100 * one.high:+.2f})"


# --- ablation --------------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """Displayed effects: introductory text and tables."""

    words: str
    table: Table


def effects_section(run: Run, study: optuna.Study) -> str | None:
    """Effects of a grid study as Markdown; None until one seed has all cells."""
    return "\n\n".join(f"{escaped(one.words)}\n\n{markdown(one.table)}" for one in effects_shown(run, study)) or None


def effects_shown(run: Run, study: optuna.Study) -> list[Shown]:
    """Effect of each factor of a grid study on the best validation accuracy; empty until one seed has all cells."""
    factors = [name for name in run.config.parameters if name != BLOCK]
    rows = grid_rows(run, study) if run.config.search.sampler == "grid" and factors else []
    if not rows:
        return []
    found, seeds = effects(rows, factors, SCORE, BLOCK), len({row[BLOCK] for row in rows})
    words = _ABLATION.format(cells=len(rows) // seeds, seeds=seeds)
    shown = [Shown(words, _effects_table("factor", [one for one in found if len(one.factors) == 1]))]
    if together := [one for one in found if len(one.factors) == 2]:
        words = "Two factors together: by how much the first one's effect grows with the second."
        shown.append(Shown(words, _effects_table("factors", together)))
    for factor in factors if len(factors) > 1 else []:
        words = f"{_short(factor)} by the value of each other factor:"
        shown.append(Shown(words, _within(rows, factor, factors)))
    return shown


def grid_rows(run: Run, study: optuna.Study) -> list[dict[str, Any]]:
    """Factor values, seed and score of every trained cell, for the seeds that all cells have."""
    trials = study.get_trials(deepcopy=False)
    trained = [one for one in records(study) if one.outcome == "trained"]
    rows = [{BLOCK: 0} | trials[one.number].params | {SCORE: one.best_val_accuracy} for one in trained]
    cells, seeds = (run.config.size or 0) // run.config.search.repeats, Counter(row[BLOCK] for row in rows)
    return [row for row in rows if seeds[row[BLOCK]] == cells]


_ABLATION = (
    "{cells} cells, each trained on the same {seeds} seeds. An effect is the mean best validation accuracy at the one value "
    "less that at the other, over all cells, in points, with its 95 % interval from what cells and seeds leave "
    "unexplained. One that may be chance among so many is named so, whatever its own interval says (Holm's correction)."
)


def _effects_table(what: str, found: Sequence[Effect]) -> Table:
    rows = [(_named(one), f"{100 * one.difference:+.2f}", _span(one).strip(" ()"), _judged(one)) for one in found]
    return Table((what, "effect", "95 % interval", "verdict"), rows)


def _within(rows: Sequence[Mapping[str, Any]], factor: str, factors: Sequence[str]) -> Table:
    """Simple effects: of one factor at each value of every other."""
    lines = []
    for other in factors:
        if other != factor:
            for one in within(rows, factor, other, factors, SCORE, BLOCK):
                assert one.at
                at = f"{_short(one.at[0])} = {_word(one.at[1])}"
                lines.append((at, f"{100 * one.difference:+.2f}", _span(one).strip(" ()"), _judged(one)))
    return Table(("where", "effect", "95 % interval", "verdict"), lines)


def _named(one: Effect) -> str:
    if len(one.factors) == 1:
        return f"{_short(one.factors[0])}: {_word(one.level)} against {_word(one.against)}"
    return " and ".join(f"{_short(name)} ({_word(level)})" for name, level in zip(one.factors, one.level, strict=True))


def _judged(one: Effect) -> str:
    if one.adjusted_p is None:
        return "unknown: one seed"
    return "may be chance" if one.is_tie else "more" if one.difference > 0 else "less"


def _short(name: str) -> str:
    return name.removeprefix("recipe.")


def _word(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
