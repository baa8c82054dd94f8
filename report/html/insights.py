"""Sections on choices: good against bad candidates, importance, gain per parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from report.analysis import contrast as positions
from report.analysis import importance, marginal
from report.analysis.contrast import Contrast
from report.analysis.findings import Findings
from report.analysis.marginal import Few, Gain, Marginal
from report.analysis.parts import Net, part_of
from report.figures import choices as choice_charts
from report.html import markup
from report.html.markup import Section
from report.markdown import effects as evidence
from report.tables import Table
from space import Fixed, widths

BESIDE = 8  # most other choices for which their table is shown beside the figures


def choices(found: Findings, nets: Sequence[Net]) -> Section | None:
    """Section on widths, dropout and pools of good and bad candidates; None if no network is searched."""
    title = "Good and bad candidates"
    if isinstance(found.run.config.space, Fixed):
        return None
    one = positions.contrast(nets)
    if one is None:
        few = f"{len(nets)} candidates are too few to hold good against bad; it takes {positions.FEWEST}."
        return Section("choices", title, markup.paragraph(few))
    n = len(one.best)
    words = (
        f"The best {n:,} of {len(nets):,} candidates against the worst {n:,}; who was pruned ranks below who was not. "
        + ("So few show little more than chance. " if n < 10 else "")
        + "What stands out from chance is told under importance."
    )
    part = part_of(found.run.config.space)
    plots = list(_plots(one, nets, part))
    table, rest = positions.choices_table(one, part), ""
    if table.rows:
        others = markup.table(table, "Other choices", left=(0, 1, 2))
        if len(table.rows) <= BESIDE:
            plots.append(("Other choices", others))
        else:
            rest = f"<h3>Other choices</h3>{others}"
    grid = "".join(f"<div><h3>{name}</h3>{plot}</div>" for name, plot in plots)
    return Section("choices", title, f'{markup.paragraph(words)}<div class="pair">{grid}</div>{rest}')


def _plots(one: Contrast, nets: Sequence[Net], part: str) -> Iterator[tuple[str, str]]:
    """Return (title, figure) of each choice by part that differs between networks."""
    band = "Middle value of either group, with quartiles as a band or, of few networks, each as a thin line."
    for what, told, value in (
        ("Width", "channels", lambda one_part: one_part.width),
        ("Number of blocks", "blocks", lambda one_part: one_part.blocks),
        ("Dropout", "dropout rate", lambda one_part: one_part.dropout),
    ):
        if positions.varies(nets, value):
            drawn = choice_charts.along(one, value, told, part)
            yield f"{what} of each {part}", markup.figure(drawn, band, height=360)
    if positions.varies(nets, lambda one_part: float(one_part.is_pooled)):
        words = f"The share of either group that pools after each {part}."
        yield f"Pooling after each {part}", markup.figure(choice_charts.pools(one), words, height=360)


def importances(found: Findings) -> Section:
    """Section on the importance of choices for reaching the best tenth."""
    study, title = found.studies.candidates, "Importance of each choice"
    n = importance.trained(study)
    if not found.run.config.parameters:
        return Section("importance", title, markup.paragraph("Nothing was chosen: every value is fixed."))
    rows = importance.importances(study, found.run.config.search.seed)
    if not rows:
        few = f"{n} trials trained in full are too few to tell: it takes {importance.FEWEST}, better {importance.STEADY}."
        return Section("importance", title, markup.paragraph(few))
    clear = [positions.spelt(one.name) for one in rows if one.stands_out]
    words = (
        f"How much each choice matters for being among the best tenth of {n:,} trials trained in full (PED-ANOVA, Optuna's "
        "default). " + (f"These stand out from chance: {', '.join(clear)}." if clear else "None stands out from chance.")
    )
    few = f"{n} trials are few: from {importance.STEADY} on the figures become steady. " if n < importance.STEADY else ""
    k = importance.shuffles(n)
    caption = (
        f"Marks: the most that chance gave each choice, with the accuracies shuffled among the trials {k} times. "
        f"Of {len(rows)} choices that do nothing about {len(rows) / (k + 1):.1f} would go beyond their marks."
    )
    more = f" The {choice_charts.MOST} most important of {len(rows)}." if len(rows) > choice_charts.MOST else ""
    drawn = markup.figure(choice_charts.importance(rows), caption + more)
    return Section("importance", title, (markup.notice(few.strip()) if few else "") + markup.paragraph(words) + drawn)


def parameters(found: Findings, nets: Sequence[Net]) -> Section | None:
    """Section on the gain per thousand parameters; None if no widths are searched."""
    title = "Where the next thousand parameters pay"
    if not widths(found.run.config.space):
        return None
    part, told = part_of(found.run.config.space), marginal.marginal(found, nets)
    if isinstance(told, Few):
        few = f"{told.n} trials trained in full are too few, it takes {told.needed}"
        why = few if told.n < told.needed else "their widths do not differ enough"
        return Section("parameters", title, markup.paragraph(f"Not to be told of these candidates: {why}."))
    return Section("parameters", title, _paying(told, part))


def _paying(told: Marginal, part: str) -> str:
    best, clear = max(told.gains, key=lambda one: one.gain), [one for one in told.gains if one.is_clear]
    how = (
        f"taken from the widths of all other {part}s in proportion, as every candidate fills the budget"
        if told.kind == "moved"
        else "added to the network"
    )
    if not clear:
        words = f"No {part} stands out: what these trials say of each may be nothing."
    elif best.is_clear and best.gain > 0:
        words = f"They pay most in {best.named(part)}: {_points(best.gain)} points ({_span(best)})."
    else:
        words = f"No {part} clearly gains, and {', '.join(one.named(part) for one in clear)} clearly lose by it."
    rows = [
        (
            one.named(part),
            f"{one.width:,.0f}",
            f"{one.cost:,.0f}",
            _points(one.gain),
            _span(one),
            ("more" if one.gain > 0 else "less") if one.is_clear else "may be nothing",
        )
        for one in told.gains
    ]
    columns = ("", "channels now", "a channel costs", "points for 1,000 more", "95 % interval", "verdict")
    caption = f"Points of best validation accuracy for a thousand parameters spent on width, {how}; 95 % intervals."
    held = f", with {', '.join(map(positions.spelt, told.held))} held equal" if told.held else ""
    about = (
        f"A straight line through {told.n:,} trials trained in full: accuracy on the width of each {part}{held}. A channel "
        f"costs parameters in its own {part} and in the next. The verdict allows for the number of {part}s (Holm). Returns "
        f"diminish, so it holds near what the {part}s have now."
    )
    return "".join(
        [
            markup.paragraph(words),
            markup.figure(choice_charts.marginal(told, part), caption),
            markup.table(Table(columns, rows), f"Gain of each {part}", left=(0, 5)),
            markup.paragraph(about, "remark"),
        ]
    )


def _points(gain: float) -> str:
    return f"{100 * gain:+.3f}"


def _span(one: Gain) -> str:
    return f"{_points(one.low)} to {_points(one.high)}"


def effects(found: Findings) -> Section | None:
    """Section on the effects of an ablation; None if the study is not one."""
    shown = evidence.effects_shown(found.run, found.studies.candidates)
    if not shown:
        return None
    body = "".join(f"<p>{escape(one.words)}</p>{markup.table(one.table, one.words, left=(0, 3))}" for one in shown)
    return Section("effects", "What each factor does", body)
