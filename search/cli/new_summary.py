"""Tables that `new` prints: the images, and the proposed study with its reasons."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.budget.cost import compute_cost
from search.cli.tables import print_survey
from search.data.near_copies import describe_near_copies
from search.study.dataset import DAMAGED
from search.study.new import New
from search.study.proposal import sizes_of
from search.text import format_shape
from search.training.measures import MEASURES

MOST_ROWS = 40  # classes in the table; of more, the commonest and the rarest


def print_new(console: Console, new: New) -> None:
    """Print the images by class and part, the proposal with its reasons, the survey, and the next commands."""
    console.print(_classes(new))
    for line in _facts(new):
        console.print(Text(line))
    console.print(_proposal(new))
    print_survey(console, new.name, new.config.budget.params, new.survey)
    console.print(
        f"\nWritten: {new.file} and base.json in the same folder. Review and edit the study file, then:\n"
        f"  python -m search plan {new.called} --probe\n  python -m search run {new.called}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _classes(new: New) -> Table:
    data = new.data
    table = Table(title=Text(f"{new.seen.path}: {new.seen.images:,} images"), title_justify="left")
    table.add_column("class")
    parts = {"training": data.y_train, "validation": data.y_val, "test": data.y_test}
    counts = {part: np.bincount(y, minlength=data.classes) for part, y in parts.items() if y is not None}
    for part in counts:
        table.add_column(part, justify="right")
    table.add_column("share", justify="right")
    everything = np.sum(list(counts.values()), axis=0)
    order = np.argsort(-everything, kind="stable")
    shown = order if len(order) <= MOST_ROWS else np.concatenate([order[: MOST_ROWS - 10], order[-10:]])
    for row, label in enumerate(shown):
        if len(shown) < len(order) and row == MOST_ROWS - 10:
            table.add_row(Text(f"... {len(order) - len(shown):,} more", style="dim"))
        share = f"{everything[label] / everything.sum():.1%}"
        table.add_row(Text(data.class_names[label]), *(f"{count[label]:,}" for count in counts.values()), share)
    return table


def _facts(new: New) -> list[str]:
    facts = new.seen
    colours = "grey" if facts.is_grey else {3: "colour"}.get(facts.channels, f"{facts.channels} channels")
    transparent = f", {facts.transparent:,} with transparent pixels" if facts.transparent else ""
    lines = [f"Sizes {sizes_of(facts.sizes)}; {colours}{transparent}."]
    if facts.too_few:
        few = [f"{name} ({count})" for name, count in list(facts.too_few.items())[:12]]
        more = ", ..." if len(facts.too_few) > len(few) else ""
        lines.append(f"Classes with fewer than {facts.least} images are left out: {', '.join(few)}{more}.")
    if facts.imbalance:
        label = MEASURES[new.proposal.metric].label
        lines.append(f"Unbalanced: {facts.imbalance}. Candidates are ranked by {label}; see metric and class_weights.")
    if text := new.data.copies.describe():
        kept = "" if new.data.copies.dropped else "; none is dropped, as a class would lose all of its images"
        lines.append(f"{_sentence(text)}{kept}.")
    lines += _groups(new)
    if new.data.damaged:
        lines.append(
            f"{len(new.data.damaged):,} damaged images are left out; they are listed in {new.file.parent / DAMAGED}."
        )
    if facts.doubles:
        lines.append(f"{facts.doubles:,} links to images in the same folder are left out.")
    if new.data.remark:
        lines.append(f"{_sentence(new.data.remark)}.")
    return lines


def _groups(new: New) -> list[str]:
    """Groups that the names suggest, and near copies, each in a line."""
    lines = []
    if suggestion := new.seen.suggestion:
        if suggestion.is_usable:
            lines.append(f"{_sentence(suggestion.reason)}; group = '{suggestion.pattern}' keeps them together.")
        else:
            lines.append(f"{_sentence(suggestion.describe())}; the study file has the line as a comment.")
    if text := describe_near_copies(new.problems.near_copies):
        lines.append(f"{_sentence(text)}; see the comment in the study file, and the splits in docs/own-data.md.")
    return lines


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _proposal(new: New) -> Table:
    proposal, why = new.proposal, new.proposal.why
    table = Table(title="Proposed study", title_justify="left")
    for column in ("setting", "value", "reason"):
        table.add_column(column)
    stride = ", the first halves the image" if proposal.halves else ""
    rows = [
        ("images", format_shape(proposal.input), "; ".join(why[key] for key in ("size", "grayscale") if key in why)),
        (
            "space",
            f"{_range(proposal.blocks)} blocks{stride}, {_range(proposal.pools)} pools, {_range(proposal.width)} channels",
            why["space"],
        ),
        (
            "base",
            f"{compute_cost(proposal.base).params:,} parameters",
            "plain convolutions, ten times the budget: the net to beat",
        ),
        ("training", f"{proposal.epochs} epochs in batches of {proposal.batch_size}", why["recipe"]),
        *([("ranking", MEASURES[proposal.metric].label, why["metric"])] if "metric" in why else []),
        ("variation", f"flip {'on' if proposal.flip else 'off'}, crop {proposal.crop}", why["augment"]),
    ]
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _range(ends: tuple[int, int]) -> str:
    return f"{ends[0]} to {ends[1]}" if ends[0] < ends[1] else str(ends[0])
