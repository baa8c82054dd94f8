"""Text of a proposed study file: every setting with its reason beside it, for the user to change."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.budget.cost import compute_cost
from search.data.copies import Copies
from search.data.group_names import ANY_NUMBER
from search.data.inspection import ImageFacts
from search.data.layout import WHOLE, shown
from search.data.near_copies import describe_near_copies
from search.errors import UserError
from search.study.config import ROOT
from search.study.dataset import DAMAGED
from search.study.proposal import Proposal, sizes_of, space_table
from search.training.measures import ACCURACY, MEASURES

FEW = 200  # validation images, of which one is half a point
_COMMENT = 32  # column in which comments begin
_WEIGHTS = '"balanced": a rare class counts as much as any in the loss, at the expense of overall accuracy'


@dataclass(frozen=True)
class ImageProblems:
    """Problems that showed when all images were read."""

    damaged: int = 0  # left out by the study
    copies: Copies | None = None  # left out by the study
    near_copies: Mapping[tuple[str, str], int] = field(default_factory=dict)  # see `search.data.near_copies`


def study_text(
    called: str, folder: Path, budget: int, facts: ImageFacts, proposal: Proposal, problems: ImageProblems
) -> str:
    """The study file: every setting with its reason."""
    why, space = proposal.why, space_table(proposal)
    lines = [
        *_heading(called, budget, facts, proposal),
        "",
        _line('protocol = "holdout"', "ranked on validation images; the test images are read once, by finals"),
        _line(
            'base = "base.json"',
            f"the net to beat: {_base_words(proposal)}; or {MEASURES[proposal.metric].with_article} such as 0.84",
        ),
        "",
        "[data]",
        *_data(folder, facts, proposal, problems),
        "",
        "[budget]",
        _line(f"params = {budget:_}", f"under, not at: {budget - 1:,} fits"),
        _line("separable_only = true", "false would admit plain convolutions too"),
        "",
        _line("[space]", "a list of values, { low, high, step }, or one fixed value"),
        f"# {why['space']}",
        *(f"{key} = {_toml(value)}" for key, value in space.items() if key not in ("stride", "pools")),
        *(
            [_line(f"stride = {_toml(space['stride'])}", "the first block halves the image; one entry a block")]
            if proposal.halves
            else []
        ),
        _line(f"pools = {_toml(space['pools'])}", "how many; where, is sampled"),
        "",
        "[recipe]",
        _line(f"epochs = {proposal.epochs}", f"{why['recipe']}; fewer for a first look (--epochs)"),
        f"batch_size = {proposal.batch_size}",
        'optimizer = "adam"',
        _line("learning_rate = 0.003", "or searched: { low = 1e-3, high = 1e-2, log = true }"),
        'schedule = { kind = "one-cycle" }',
        *([_line(f"class_weights = {_weights(proposal)}", _WEIGHTS)] if facts.imbalance else []),
        f"# {why['augment']}",
        _line(f"augment = {_toml({'flip': proposal.flip, 'crop': proposal.crop})}", "crop: moved by so many pixels"),
        "",
        "[search]",
        _line("trials = 20", "trained ones"),
        'sampler = "bayes"',
        _line('# prior = "cifar10-16px"', "shipped: begin with what 300 small trainings tell of networks"),
        *([_line(f'metric = "{proposal.metric}"', why["metric"])] if "metric" in why else []),
        _line('fit = "fill"', "widths are proportions: every candidate uses what the budget allows"),
        "seed = 0",
        "",
        "# [stop]",
        _line("# hours = 8", "of one run, by the clock; the same command resumes"),
    ]
    return "\n".join(lines) + "\n"


def _heading(called: str, budget: int, facts: ImageFacts, proposal: Proposal) -> list[str]:
    counts = facts.by_class
    parts = ", ".join(f"{sum(own):,} in {part}/" for part, own in facts.counts.items() if part != WHOLE)
    lines = [
        f"Nets under {budget:,} parameters for the images of {shown(facts.path.name)}.",
        "",
        f"  python -m search plan {shown(called)} --probe",
        f"  python -m search run {shown(called)}",
        "",
        "Written by `new` from what it saw, with its reasons; change what you know better. What it saw:",
        f"{facts.images:,} images{f' ({parts})' if parts else ''} in {len(facts.classes)} classes of {counts.min():,} to "
        f"{counts.max():,}; sizes {sizes_of(facts.sizes)}.",
    ]
    if imbalance := facts.imbalance:
        lines += [
            f"The classes are unbalanced: {imbalance}.",
            "Candidates are ranked by plain accuracy, so compare theirs with it; search.metric has other measures."
            if proposal.metric == ACCURACY
            else f"Candidates are ranked by {MEASURES[proposal.metric].label}, in which every class counts the same.",
        ]
    return [f"# {line}".rstrip() for line in lines]


def _weights(proposal: Proposal) -> str:
    """Weights of the classes: searched where the proposed measure rewards them."""
    return '"none"' if proposal.metric == ACCURACY else '["none", "balanced"]'


def _base_words(proposal: Proposal) -> str:
    return f"plain convolutions, {compute_cost(proposal.base).params:,} parameters"


def _data(folder: Path, facts: ImageFacts, proposal: Proposal, problems: ImageProblems) -> list[str]:
    inside = facts.path.resolve().is_relative_to(ROOT) and folder.resolve().is_relative_to(ROOT)
    path = os.path.relpath(facts.path.resolve(), folder.resolve()) if inside else str(facts.path.resolve())
    lines = [_line(f"path = {_text(path)}", "relative to this file" if inside else "")]
    if facts.too_few:
        lines += [
            "classes = [",
            *(f"  {_toml(name)},  # {count:,}" for name, count in zip(facts.classes, facts.by_class, strict=True)),
            f"  # left out, as they have fewer than {facts.least} images:",
            *(f"  # {_toml(name)},  # {count:,}" for name, count in facts.too_few.items()),
            "]",
        ]
    if proposal.size:
        height, width = proposal.size
        lines.append(_line(f"size = {height if height == width else [height, width]}", proposal.why["size"]))
    if proposal.grayscale:
        lines.append(_line("grayscale = true", proposal.why["grayscale"]))
    if facts.transparent:
        why = "behind transparent pixels" + ("; the opaque ones are bright" if facts.background == "black" else "")
        lines.append(_line(f'background = "{facts.background}"', why))
    if facts.bits:
        why = f"16-bit images with values up to {2**facts.bits - 1:,}; without it, {2**facts.bits // 256} grey levels"
        lines.append(_line(f"bits = {facts.bits}", why))
    if problems.damaged:
        lines.append(_line("skip_damaged = true", f"{problems.damaged:,} images cannot be decoded; listed in {DAMAGED}"))
    if problems.copies:
        lines += [
            f"# {problems.copies.describe()}",
            _line("drop_copies = true", "keeps one of each, none where they contradict"),
        ]
    lines += _group(facts, problems)
    lines += _folds(facts)
    if facts.holdout is None:
        own = "val/ validates" if facts.is_folder else "x_val validates"
        fixed = "a fifth of the images validates, a fifth tests" if WHOLE in facts.counts else own
        return [*lines, f"# the split is fixed: {fixed}"]
    why = "so that the rarest class has ten images there" if facts.holdout > 0.1 else "the rest is trained on"
    return [*lines, _line(f"holdout = {facts.holdout}", f"share of the training images to validate on; {why}")]


def _folds(facts: ImageFacts) -> list[str]:
    """Cross-validation as a comment, where the validation images are split off here and are few."""
    if WHOLE in facts.counts:
        training, validation = facts.images - facts.images // 5, facts.images // 5
    elif facts.holdout is not None:
        training = int(sum(facts.counts["train"]))
        validation = round(facts.holdout * training)
    else:
        return []
    if validation >= FEW:
        return []
    why = f"each of {training:,} images validates once; one of {validation:,} is {100 / max(validation, 1):.1f} points"
    return [_line("# folds = 5", f"{why}. Takes 5 times as long" + ("" if WHOLE in facts.counts else "; without holdout"))]


def _group(facts: ImageFacts, problems: ImageProblems) -> list[str]:
    """The pattern of groups, as a comment where the user has to judge it."""
    lines = [f"# {text}" for text in [describe_near_copies(problems.near_copies)] if text]
    why = "keeps a group on one side of every split" if facts.is_split else "counts the groups that lie in several parts"
    if facts.suggestion is not None:
        lines.append(f"# {facts.suggestion.describe()}")
        setting = f"group = '{facts.suggestion.pattern}'"
        if facts.suggestion.is_usable:
            return [*lines, _line(setting, why)]
        return [*lines, _line(f"# {setting}", f"if they belong together: {why}")]
    if not lines:
        return []
    if not facts.is_split:
        return [*lines, "# the parts are fixed: move what belongs together into one of them"]
    if facts.is_folder:
        return [*lines, _line(f"# group = '{ANY_NUMBER}'", f"if they belong together: {why}")]
    return [*lines, f"# an array groups_train in the file {why}"]


def _line(setting: str, comment: str) -> str:
    return f"{setting:<{_COMMENT - 1}} # {comment}" if comment else setting


def _toml(value: Any) -> str:
    """A value as an inline piece of TOML."""
    match value:
        case dict():
            return f"{{ {', '.join(f'{key} = {_toml(inner)}' for key, inner in value.items())} }}"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case str():
            return _text(value)
        case _:
            return json.dumps(value)


def _text(text: str) -> str:
    """A basic string of TOML: that of JSON, with characters beyond ASCII as they are and character 127 escaped."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{text!a}: is no text in UTF-8, as a study file must be; rename it") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
