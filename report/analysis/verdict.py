"""Verdict of a study: how its winner compares with the base. The only source of it for every page and command.

Finals decide where the winner took part in them. Before that each accuracy is of one training, and a difference that two
trainings of equal networks can show on so many images is no lead.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from report.tables import chance_difference, images_behind, measure_of, other_measures_text, trainings
from search.finals.results import FinalistResult, FinalsResult
from search.finals.statistics import wilson
from search.study.dataset import guess_value, hardly_learnt, majority_note
from search.study.records import trained_count
from search.study.run import Run
from search.text import (
    format_count,
    format_percent,
    format_percent_span,
    format_percents,
    format_points,
    format_points_span,
)
from search.training.measures import other_measures
from search.tuning.bayes.expectation import Expectation

Board = Mapping[str, Any]
Interval = tuple[float, float]


class Standing(StrEnum):
    """Comparison of the winner with the base; the first six are decided without finals."""

    UNTRAINED = "untrained"  # no candidate has been trained
    NO_BASE = "no base"  # the base has not been trained
    HARDLY_LEARNT = "base hardly learnt"
    AHEAD_ONCE = "ahead in one training"
    LEVEL_ONCE = "level in one training"  # within the noise of one training
    BEHIND_ONCE = "behind in one training"
    BEATEN = "beaten"
    TIED = "tied"
    BEHIND = "behind"

    @property
    def is_confirmed(self) -> bool:
        """True if finals have decided."""
        return self in (Standing.BEATEN, Standing.TIED, Standing.BEHIND)

    @property
    def words(self) -> str:
        """The verdict in a few words."""
        return _WORDS[self]


_WORDS = {
    Standing.UNTRAINED: "no candidate has been trained yet",
    Standing.NO_BASE: "the base has not been trained",
    Standing.HARDLY_LEARNT: "the base hardly learnt",
    Standing.AHEAD_ONCE: "ahead of the base in one training, not confirmed",
    Standing.LEVEL_ONCE: "level with the base within the noise of one training",
    Standing.BEHIND_ONCE: "behind the base in one training",
    Standing.BEATEN: "the base is beaten",
    Standing.TIED: "a tie with the base",
    Standing.BEHIND: "the base is not beaten",
}


@dataclass(frozen=True)
class Score:
    """Accuracy of a network, one training or the mean of several, with its 95 % interval."""

    accuracy: float
    interval: Interval | None = None
    params: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict with the figures that it rests on; accuracies and differences are fractions."""

    standing: Standing
    sentence: str
    remarks: tuple[str, ...] = ()
    winner: int | None = None  # number of its trial
    score: Score | None = None  # of the winner
    base: Score | None = None
    difference: float | None = None  # score less base
    difference_interval: Interval | None = None  # 95 %, adjusted for the number of comparisons; only from finals
    noise: float | None = None  # difference that chance makes between single trainings; None if finals decided
    measure: str = "best validation accuracy"
    expected: Expectation | None = None  # of another training of the winner; None if it is not known, or finals decided
    images: int | None = None  # that single trainings are measured on
    seeds: int = 1
    trainings: str = "one training"  # that each figure is of, in words, where finals did not decide
    commands: Mapping[str, str] = field(default_factory=dict)  # next commands by purpose, the most useful first

    @property
    def title(self) -> str:
        """The verdict in a few words."""
        return self.standing.words.replace("one training", self.trainings)

    @property
    def text(self) -> str:
        """The sentence with its remarks."""
        return " ".join([self.sentence, *self.remarks])

    def to_dict(self) -> dict[str, Any]:
        """Plain values without commands, which name paths, as `top --json` and `finals --json` print them as `standing`."""
        plain = asdict(self)
        return {"standing": self.standing.value, "title": self.title, "text": self.text} | {
            name: plain[name] for name in plain if name not in ("standing", "sentence", "remarks", "trainings", "commands")
        }


def judge(
    run: Run,
    board: Board,
    finals: FinalsResult | None,
    data: Mapping[str, Any],
    expected: Expectation | None = None,
) -> Verdict:
    """Compare the best candidate of the search with the base.

    Args:
        board: the leaderboard of the run.
        finals: their results; None if there are none.
        data: facts of the images, see `search.study.dataset.data_facts`: a base near always guessing the commonest class
            is none, and a winner that is no better has no lead. Empty before they were read.
        expected: of another training of the winner, see `report.analysis.expectation`.
    """
    verdict = _judge(run, board, finals, data)
    if expected is not None and not verdict.standing.is_confirmed:
        remarks = (*verdict.remarks, _expectation_remark(expected, board.get("val_images")))
        verdict = replace(verdict, remarks=remarks, expected=expected)
    if verdict.score is None:
        return verdict
    winner = board["trials"][0]
    beside = other_measures_text(board, winner)
    notes = [f"Other measures of trial {winner['number']} in that epoch: {beside}."] if beside else []
    metric, number = run.config.search.metric, run.config.base
    note = majority_note(data, winner["best_val_accuracy"], metric)
    notes += [] if note is None else [note]
    if isinstance(number, float) and hardly_learnt(number, data, metric):
        notes.append(f"The base is a low number ({_guess_words(data, metric)}), so to beat it says little.")
    return replace(verdict, remarks=(*verdict.remarks, *notes))


def _judge(run: Run, board: Board, finals: FinalsResult | None, data: Mapping[str, Any]) -> Verdict:
    if not board["trials"] or board["trials"][0]["rank"] is None:
        return Verdict(Standing.UNTRAINED, "No candidate has been trained yet.", commands={"continue": run.command})
    winner = board["trials"][0]
    finalist = _finalist(finals, winner["number"])
    if finals is not None and finalist is not None and finalist.against_base is not None:
        return _of_finals(run, board, finals, finalist, data)
    return _of_search(run, board, finals, finalist, data)


# --- before finals ---------------------------------------------------------------------------------------------------


def _of_search(
    run: Run, board: Board, finals: FinalsResult | None, finalist: FinalistResult | None, data: Mapping[str, Any]
) -> Verdict:
    winner, base, images = board["trials"][0], board["base"], board.get("val_images")
    score, other = _score(board, winner), None if base is None else _score(board, base)
    subject = f"Trial {winner['number']}, the best of {format_count(trained_count(board['counts']), 'trained candidate')},"
    reached = f"{subject} reaches {_accuracy(score, images)} {_measure(board)} with {winner['params']:,} parameters"
    finals_command = run.command_of("finals")
    if other is None:
        return Verdict(
            standing=Standing.NO_BASE,
            sentence=f"{reached}; the base has not been trained.",
            winner=winner["number"],
            score=score,
            images=images,
            commands={"train the base": run.command},
        )
    difference = score.accuracy - other.accuracy
    is_network, metric = other.params is not None, run.config.search.metric
    noise = chance_difference(board, winner, base if is_network else None)
    remarks = [_noise_remark(difference, noise, images, trainings(board))]
    commands = {"confirm on fresh seeds": finals_command}
    if is_network and hardly_learnt(other.accuracy, data, metric):
        standing = Standing.HARDLY_LEARNT
        remarks = [f"The base hardly learnt ({_guess_words(data, metric)}), so to beat it says little."]
        commands = _train_longer(run)
    elif abs(difference) <= (noise or 0.0):
        standing = Standing.LEVEL_ONCE
    else:
        standing = Standing.AHEAD_ONCE if difference > 0 else Standing.BEHIND_ONCE
    return Verdict(
        standing=standing,
        sentence=f"{reached}, {against_base(difference, images)} ({_base_words(other, images)}).",
        remarks=(*remarks, *_finals_remarks(finals, finalist, winner["number"])),
        winner=winner["number"],
        score=score,
        base=other,
        difference=difference,
        noise=noise,
        measure=_measure(board, "best "),
        images=images,
        trainings=trainings(board),
        commands=commands,
    )


def _score(board: Board, row: Mapping[str, Any]) -> Score:
    accuracy, images = row["best_val_accuracy"], images_behind(board, row)
    is_measured = images is not None and row["params"] is not None  # a base may be a plain accuracy
    return Score(accuracy, wilson(accuracy, images) if is_measured and images else None, row["params"])


def _noise_remark(difference: float, noise: float | None, images: int | None, of: str) -> str:
    """Remark on the difference that chance makes; `of`: the trainings that each figure is of, in words."""
    if noise is None or images is None:
        return f"Each figure is {of}, so a small difference may be chance."
    most = format_points(noise, images, sign=False)
    mean = of if of == "one training" else f"the mean of {of}"
    limit = f"each figure is {mean} on {images:,} images, where chance makes up to {most} points"
    if abs(difference) <= noise:
        return f"That is within the noise of {of}: {limit}."
    return f"{limit[0].upper()}{limit[1:]}."


def _expectation_remark(expected: Expectation, images: int | None) -> str:
    """Remark on what another training of the winner would reach: the best of many scores is high by chance too."""
    mean, span = format_percent(expected.mean, images), format_percent_span(expected.low, expected.high, images)
    source = f"by a model of all {format_count(expected.trainings, 'training')}"
    return f"Trained again it is expected to reach {mean} (95 % interval {span}), {source}."


def _finals_remarks(finals: FinalsResult | None, finalist: FinalistResult | None, number: int) -> list[str]:
    if finals is None:
        return ["Not confirmed on fresh seeds yet."]
    if finalist is None:
        return [f"Trial {number} is in no finals: they were run before it, or it did not train on every seed."]
    mean, seeds = format_percent(finalist.mean, None), format_count(finals.seeds, "fresh seed")
    return [
        f"In the finals its mean is {mean} on {seeds}; the base did not train on every seed, so there is nothing to compare "
        "with."
    ]


# --- by finals -------------------------------------------------------------------------------------------------------


def _of_finals(run: Run, board: Board, finals: FinalsResult, finalist: FinalistResult, data: Mapping[str, Any]) -> Verdict:
    """The verdict of the finals; means of several trainings are shown with two decimals."""
    comparison, winner = finalist.against_base, board["trials"][0]
    assert comparison is not None
    measure = finals.measure_label if finals.is_test else _measure(board, "best ")
    trained_base = next((other for other in finals.finalists if other.name == "base"), None)
    if trained_base is not None:
        base = Score(trained_base.mean, trained_base.interval, trained_base.params)
    else:
        base = Score(finalist.mean - comparison.difference)
    span = None
    if comparison.adjusted_low is not None and comparison.adjusted_high is not None:
        span = comparison.adjusted_low, comparison.adjusted_high
    if trained_base is not None and hardly_learnt(base.accuracy, data, run.config.search.metric):
        standing = Standing.HARDLY_LEARNT
    elif comparison.is_tie:
        standing = Standing.TIED
    else:
        standing = Standing.BEATEN if comparison.difference > 0 else Standing.BEHIND
    score = Score(finalist.mean, finalist.interval, finalist.params)
    seeds = format_count(finals.seeds, "fresh seed")
    interval = "" if span is None else f" (95 % interval {format_points_span(*span, None)})"
    gap = f"{against_base(comparison.difference, None)}{interval}"
    found = f"trial {winner['number']} with {winner['params']:,} parameters has a mean {measure} of {_accuracy(score, None)}"
    reason = f"{seeds} cannot tell it from chance" if span is None else "chance can make that much"
    endings = {
        Standing.BEATEN: f"Confirmed on {seeds}: {found}, {gap}.",
        Standing.TIED: f"On {seeds} {found}, {gap}: a tie, as {reason}.",
        Standing.BEHIND: f"Not confirmed on {seeds}: {found}, {gap}.",
        Standing.HARDLY_LEARNT: f"On {seeds} {found}, {gap}; the base hardly learnt, so to beat it says little.",
    }
    searched = format_percent(winner["best_val_accuracy"], board.get("val_images"))
    trained = format_count(trained_count(board["counts"]), "trained candidate")
    remarks = [
        *([f"The base: {_base_words(base, None)}."] if trained_base is not None else []),
        *_other_measures_remarks(finals, finalist),
        *_leader_remarks(finals, finalist),
        f"In the search trial {winner['number']} reached {searched} {_measure(board)}, the best of {trained}.",
    ]
    return Verdict(
        standing=standing,
        sentence=endings[standing],
        remarks=tuple(remarks),
        winner=winner["number"],
        score=score,
        base=base,
        difference=comparison.difference,
        difference_interval=span,
        measure=f"mean {measure}",
        seeds=finals.seeds,
        commands=_after_finals(run, standing),
    )


def _other_measures_remarks(finals: FinalsResult, finalist: FinalistResult) -> list[str]:
    """Remark on the means of the other measures."""
    if finalist.measures is None:
        return []
    return [f"Means of its other measures: {format_percents(other_measures(finalist.measures, finals.metric), None)}."]


def _leader_remarks(finals: FinalsResult, finalist: FinalistResult) -> list[str]:
    """Remark on another finalist with a higher mean."""
    comparison = finalist.against_leader
    if comparison is None:
        return []
    lead = f"{finals.leader} has a mean {format_points(-comparison.difference, None, sign=False)} points higher"
    return [f"{lead}, a tie." if comparison.is_tie else f"{lead}, more than chance makes: it is really ahead of it."]


def _after_finals(run: Run, standing: Standing) -> dict[str, str]:
    if standing == Standing.HARDLY_LEARNT:
        return _train_longer(run)
    is_grid = run.config.search.sampler == "grid"  # has all of its trials
    more = {} if is_grid else {"continue the search": f"{run.command} --trials {2 * run.config.trials}"}
    export = {"export the winner": run.command_of("export")}
    return {**export, **more} if standing == Standing.BEATEN else {**more, **export}


def _train_longer(run: Run) -> dict[str, str]:
    study = shlex.join(shlex.split(run.called)[:1]) or run.name
    return {"train longer": f"python -m search run {study} --epochs {2 * run.config.recipe.epochs} --out NEW_FOLDER"}


# --- shared ----------------------------------------------------------------------------------------------------------


def _finalist(finals: FinalsResult | None, number: int) -> FinalistResult | None:
    finalists = () if finals is None else finals.finalists
    return next((one for one in finalists if one.number == number and one.name == f"trial-{number}"), None)


def _measure(board: Board, best: str = "") -> str:
    return f"{best}validation {measure_of(board).label}" + (" in int8" if board.get("ranked_by") == "int8" else "")


def _accuracy(score: Score, images: int | None) -> str:
    span = "" if score.interval is None else f" (95 % interval {format_percent_span(*score.interval, images)})"
    return f"{format_percent(score.accuracy, images)}{span}"


def _guess_words(data: Mapping[str, Any], metric: str) -> str:
    return f"always guessing one class gives {guess_value(data, metric):.1%}"


def _base_words(base: Score, images: int | None) -> str:
    size = "" if base.params is None else f", {base.params:,} parameters"
    return f"{format_percent(base.accuracy, images)}{size}"


def against_base(difference: float, images: int | None) -> str:
    """Difference to the base as text: `0.6 points above the base`."""
    gap = format_points(abs(difference), images, sign=False)
    if float(gap) == 0:
        return "level with the base"
    return f"{gap} points {'above' if difference > 0 else 'below'} the base"
