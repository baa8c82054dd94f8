"""The leaderboard as plain rows: the source of `top --json`, tables and figures.

In a study that ranks by another measure than accuracy, the `metric` of a board, its accuracies are values of that measure,
and `measures` of a row has all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from search.finals.statistics import chance_gap, wilson
from search.study.config import StudyConfig
from search.study.records import Record, base_accuracy, counts, ranked, refusals
from search.study.run import Run
from search.text import format_percent, format_percent_span, format_percents, format_points
from search.training.folds import half_interval
from search.training.measures import ACCURACY, MEASURES, Measure, other_measures

SAMPLE = 5  # sizes of rejected proposals that are shown


class Table(NamedTuple):
    """Cells of plain text with column names; each page escapes them for its format."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def leaderboard(
    run: Run, candidates: list[Record], references: list[Record], val_images: int | None = None
) -> dict[str, Any]:
    """Compare candidates with the base: accuracies as fractions, ranked candidates first.

    `base` is None until the base is trained; for a plain accuracy only its `best_val_accuracy` is set.

    Args:
        val_images: number of validation images; None if it is unknown.
    """
    base, is_int8 = base_accuracy(run.config, references), run.config.search.rank_by == "int8"
    name = run.config.base_name
    trained = {record.reference: record for record in reversed(ranked(references))}
    base_scores = _scores(trained[name], is_int8) if name in trained else {"params": None} | dict.fromkeys(_SCORES[1:])
    best_first = ranked(candidates)
    others = [record for record in candidates if record.outcome not in ("trained", *_HIDDEN)]
    # candidates pruned late come before those pruned early
    others.sort(key=lambda record: (-record.epochs, -(record.best_val_accuracy or 0), record.number))
    return (
        {
            "study": run.name,
            "budget": {"params": run.config.budget.params},
            "base": None if base is None else base_scores | {"best_val_accuracy": base},
            "references": [{"name": key} | _scores(record, is_int8) for key, record in trained.items() if key != name],
            "trials": [
                *(_trial(record, base, rank, is_int8) for rank, record in enumerate(best_first, 1)),
                *(_trial(record, base, None, is_int8) for record in others),
            ],
            "counts": counts(candidates),
            "refusals": dict(refusals(candidates)),
            "val_images": val_images,
        }
        | ranking(run.config)
        | ({"folds": run.config.data.folds} if run.config.data.folds else {})
    )


def ranking(config: StudyConfig) -> dict[str, str]:
    """Keys of a board that say what its accuracies are, where they are not accuracies of float networks."""
    search = config.search
    network = {"ranked_by": "int8"} if search.rank_by == "int8" else {}
    return network | ({} if search.metric == ACCURACY else {"metric": search.metric})


def measure_of(board: Mapping[str, Any]) -> Measure:
    """The measure that the accuracies of a board are values of."""
    return MEASURES[board.get("metric", ACCURACY)]


def images_behind(board: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """Number of images by which the noise of a row's best accuracy is estimated, see `effective_images`; None if unknown."""
    images: float | None = row.get("effective_images") or board.get("val_images")
    return images


def chance_difference(board: Mapping[str, Any], row: Mapping[str, Any], other: Mapping[str, Any] | None) -> float | None:
    """Largest difference of two rows that chance makes in 95 % of cases; None if the number of images is unknown.

    Rows of the same folds are compared fold by fold.

    Args:
        other: None for a given accuracy in its place, which does not vary.
    """
    images, accuracy = images_behind(board, row), row["best_val_accuracy"]
    if images is None:
        return None
    if other is None:
        return chance_gap(accuracy, None, images)
    pairs = zip(row.get("folds", ()), other.get("folds", ()), strict=False)
    paired = half_interval([one - second for one, second in pairs])
    return paired or chance_gap(accuracy, other["best_val_accuracy"], images, images_behind(board, other))


def trainings(board: Mapping[str, Any]) -> str:
    """The trainings that an accuracy of a board is of, in words: `one training`, `5 folds`."""
    return f"{board['folds']} folds" if board.get("folds") else "one training"


def other_measures_text(board: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The measures beside the ranked one: `accuracy 97.2%, macro F1 88.0%`; empty where they were not measured."""
    beside = other_measures(row.get("measures", {}), board.get("metric", ACCURACY))
    return format_percents(beside, board.get("val_images"))


def trial_name(row: Mapping[str, Any]) -> str:
    """Number of a row's trial, with a mark where it was adopted from another run."""
    return f"{row['number']} (adopted)" if row.get("adopted") else str(row["number"])


def adopted_words(board: Mapping[str, Any]) -> str | None:
    """A sentence on the trials of a board that were adopted; None if there are none."""
    runs = list(dict.fromkeys(row["adopted"]["run"] for row in board["trials"] if row.get("adopted")))
    if not runs:
        return None
    return f"Adopted: trained by the run {' and the run '.join(runs)}, on the same data."


def accuracy_columns(board: Mapping[str, Any], last: str = "last") -> tuple[str, ...]:
    """Names of the columns of `accuracy_cells`; each says which measure and which network it is of, unless that is plain."""
    best = "best" if "metric" not in board else f"best {measure_of(board).label}"
    if board.get("ranked_by") == "int8":
        return f"{best} in int8", "best in float", "epoch", f"{last} in float"
    return best, "epoch", last


def accuracy_cells(board: Mapping[str, Any], row: Mapping[str, Any], missing: str = "") -> tuple[str, ...]:
    """Best accuracy, its epoch and the last epoch's accuracy of a row of a board.

    In a study ranked by int8 accuracy the best epoch's float accuracy stands beside it, as the last epoch's is float too.
    """
    images = board.get("val_images")
    best, last = (format_percent(row[key], images, missing) for key in ("best_val_accuracy", "final_val_accuracy"))
    epoch = str(row["best_epoch"] or missing)
    if board.get("ranked_by") == "int8":
        return best, format_percent(row.get("float_val_accuracy"), images, missing), epoch, last
    return best, epoch, last


def interval_text(board: Mapping[str, Any], row: Mapping[str, Any], missing: str = "") -> str:
    """95 % interval of a row's best accuracy; empty if the number of images is unknown."""
    best, images, behind = row["best_val_accuracy"], board.get("val_images"), images_behind(board, row)
    if best is None or behind is None or row["params"] is None:  # a base may be a plain accuracy
        return missing
    return format_percent_span(*wilson(best, behind), images).removesuffix("%")


def gap_text(board: Mapping[str, Any], row: Mapping[str, Any], missing: str = "") -> str:
    """Points of a row's best accuracy above the base's."""
    base, best = board["base"], row["best_val_accuracy"]
    if base is None or best is None:
        return missing
    return format_points(best - base["best_val_accuracy"], board.get("val_images"))


def rule_words(rule: str) -> str:
    """The rule that a rejected proposal broke, to be read after a number."""
    return {"same network": "of a network tried before", "cannot exist": "of a network that cannot exist"}.get(rule, rule)


def refusal_words(candidates: list[Record]) -> str | None:
    """Text of the proposals rejected inside the sampler, by rule with a sample of sizes; None if there are none."""
    rules = [f"{count:,} {rule_words(rule)}" for rule, count in refusals(candidates).most_common()]
    sizes = sorted({size for record in candidates for size in record.refused_params})
    shown = (
        [f"{sizes[round(index * (len(sizes) - 1) / (SAMPLE - 1))]:,}" for index in range(SAMPLE)]
        if len(sizes) > SAMPLE
        else [f"{size:,}" for size in sizes]
    )
    sample = f" (parameters of some: {', '.join(shown)})" if shown else ""
    return f"{', '.join(rules)}{sample}" if rules else None


_SCORES = ("params", "best_val_accuracy", "best_epoch", "final_val_accuracy")
_HIDDEN = ("rejected", "interrupted", "running")  # never built, or counted under the number of its retry


def _scores(record: Record, is_int8: bool) -> dict[str, Any]:
    scores: dict[str, Any] = {key: getattr(record, key) for key in _SCORES}
    if record.measures:
        scores |= {"measures": dict(record.measures), "effective_images": record.effective_images}
    if record.folds:
        scores |= {"folds": list(record.folds), "effective_images": record.effective_images}
    if not is_int8:
        return scores
    if record.float_val_accuracy is None and record.outcome != "trained":
        # a pruned candidate: int8 accuracy was not measured, and the stored accuracy is the float one
        return scores | {"best_val_accuracy": None, "float_val_accuracy": record.best_val_accuracy}
    return scores | {"float_val_accuracy": record.float_val_accuracy}


def _trial(record: Record, base: float | None, rank: int | None, is_int8: bool) -> dict[str, Any]:
    scores = _scores(record, is_int8)
    best = scores["best_val_accuracy"]
    return (
        {"rank": rank, "number": record.number}
        | scores
        | {
            "delta_vs_base": None if best is None or base is None else best - base,
            "epochs": record.epochs,
            "seconds": record.seconds,
            "outcome": record.outcome,
        }
        | ({"adopted": dict(record.adopted)} if record.adopted else {})
    )


T = TypeVar("T")


def thinned(rows: Sequence[T], most: int) -> list[T]:
    """At most `most` rows, evenly spaced, the first and the last included."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (most - 1))] for index in range(most)]
