"""Sections on choices: good against bad candidates, importance, gain per parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from report.analysis import contrast, importance, marginal
from report.analysis.contrast import Contrast
from report.analysis.findings import Findings
from report.analysis.marginal import Gain, Marginal, TooFew
from report.analysis.parts import Net, part_of
from report.figures import choices as choice_charts
from report.html import markup
from report.html.markup import Lacking, Section
from report.markdown import effects as evidence
from report.tables import Table
from space import Fixed, widths

ENOUGH = 20  # candidates from which a quarter says anything
IMPORTANCE = "Importance of each choice"
BESIDE = 8  # most other choices for which their table is shown beside the figures


def choices(findings: Findings, nets: Sequence[Net]) -> Section | Lacking | None:
    """Section on widths, dropout and pools of good and bad candidates; None if no network is searched."""
    title = "Good and bad candidates"
    if isinstance(findings.run.config.space, Fixed):
        return None
    quarters = contrast.split_quarters(nets) if len(nets) >= ENOUGH else None
    if quarters is None:
        return Lacking(title, f"needs {ENOUGH} candidates, there are {len(nets)}")
    n, is_tested = len(quarters.best), importance.trained(findings.studies.candidates) >= importance.FEWEST
    text = (
        f"The best {n:,} of {len(nets):,} candidates against the worst {n:,}; pruned candidates rank below the others. "
        + ("So few show little more than chance. " if n < 10 else "")
        + (f'"{IMPORTANCE}" says which exceed chance.' if is_tested else "")
    )
    part = part_of(findings.run.config.space)
    plots = list(_plots(quarters, nets, part))
    table, rest = contrast.choices_table(quarters, part), ""
    if table.rows:
        others = markup.table(table, "Other choices", left=(0, 1, 2))
        if len(table.rows) <= BESIDE:
            plots.append(("Other choices", others))
        else:
            rest = f"<h3>Other choices</h3>{others}"
    grid = "".join(f"<div><h3>{name}</h3>{plot}</div>" for name, plot in plots)
    return Section("choices", title, f'{markup.paragraph(text)}<div class="pair">{grid}</div>{rest}')


def _plots(quarters: Contrast, nets: Sequence[Net], part: str) -> Iterator[tuple[str, str]]:
    """Return (title, figure) of each choice by part that differs between networks."""
    band = "Median of either group, with quartiles as a band or, of few networks, each as a thin line."
    for title, unit, value in (
        ("Width", "channels", lambda part_: part_.width),
        ("Number of blocks", "blocks", lambda part_: part_.blocks),
        ("Dropout", "dropout rate", lambda part_: part_.dropout),
    ):
        if contrast.varies(nets, value):
            figure = choice_charts.along(quarters, value, unit, part)
            yield f"{title} of each {part}", markup.figure(figure, band, height=360)
    if contrast.varies(nets, lambda part_: float(part_.is_pooled)):
        words = f"The share of either group that pools after each {part}."
        yield f"Pooling after each {part}", markup.figure(choice_charts.pools(quarters), words, height=360)


def importances(findings: Findings) -> Section | Lacking:
    """Section on the importance of choices for reaching the best tenth."""
    study, title = findings.studies.candidates, IMPORTANCE
    n = importance.trained(study)
    if not findings.run.config.parameters:
        return Lacking(title, "nothing was chosen: every value is fixed")
    rows = importance.importances(study, findings.run.config.search.seed)
    if not rows:
        return Lacking(title, f"needs {importance.FEWEST} trials trained in full, there are {n}")
    clear = [contrast.display_name(row.name) for row in rows if row.stands_out]
    text = (
        f"How much each choice matters for being among the best tenth of {n:,} trials trained in full (PED-ANOVA, Optuna's "
        "default). " + (f"These stand out from chance: {', '.join(clear)}." if clear else "None stands out from chance.")
    )
    few = f"{n} trials are few: values are stable from {importance.STEADY} on. " if n < importance.STEADY else ""
    k = importance.shuffles(n)
    caption = (
        f"Marks: the largest value of each choice when scores are shuffled among the trials, {k} times. "
        f"Of {len(rows)} choices without effect about {len(rows) / (k + 1):.1f} would exceed their marks."
    )
    more = f" The {choice_charts.MOST} most important of {len(rows)}." if len(rows) > choice_charts.MOST else ""
    figure = markup.figure(choice_charts.importance(rows), caption + more)
    return Section("importance", title, (markup.notice(few.strip()) if few else "") + markup.paragraph(text) + figure)


def parameters(findings: Findings, nets: Sequence[Net]) -> Section | Lacking | None:
    """Section on the gain per thousand parameters; None if no widths are searched."""
    title = "Where the next thousand parameters pay"
    if not widths(findings.run.config.space):
        return None
    part, estimate = part_of(findings.run.config.space), marginal.marginal(findings, nets)
    if isinstance(estimate, TooFew):
        few = f"needs {estimate.needed} trials trained in full, there are {estimate.n}"
        return Lacking(title, few if estimate.n < estimate.needed else "the widths of the candidates do not differ enough")
    return Section("parameters", title, _paying(estimate, part, findings.noise, findings.run.config.metric_label))


def _paying(estimate: Marginal, part: str, noise: float | None, measure: str) -> str:
    """The estimate as words, figure and table.

    Args:
        noise: difference that chance makes between two single trainings; None if it is unknown.
        measure: by which the study ranks, in words.
    """
    best, clear = max(estimate.gains, key=lambda gain: gain.gain), [gain for gain in estimate.gains if gain.is_clear]
    method = (
        f"taken from the widths of all other {part}s in proportion, as every candidate fills the budget"
        if estimate.kind == "moved"
        else "added to the network"
    )
    if not clear:
        text = f"No {part} stands out: each estimate may be due to chance."
    elif best.is_clear and best.gain > 0:
        text = f"They pay most in {best.named(part)}: {_points(best.gain)} points ({_span(best)})."
        if noise is not None and best.gain < noise:
            text += (
                f" That is less than chance makes between two trainings, {100 * noise:.2f} points: it shows over many "
                "networks, not in one."
            )
    else:
        text = f"No {part} clearly gains, and {', '.join(gain.named(part) for gain in clear)} clearly lose by it."
    rows = [
        (
            gain.named(part),
            f"{gain.width:,.0f}",
            f"{gain.cost:,.0f}",
            _points(gain.gain),
            _span(gain),
            ("more" if gain.gain > 0 else "less") if gain.is_clear else "not significant",
        )
        for gain in estimate.gains
    ]
    columns = ("", "channels now", "a channel costs", "points for 1,000 more", "95 % interval", "verdict")
    caption = f"Points of best validation {measure} for a thousand parameters spent on width, {method}; 95 % intervals."
    adjusted = f", adjusted for {', '.join(map(contrast.display_name, estimate.controls))}" if estimate.controls else ""
    about = (
        f"Linear regression over {estimate.n:,} trials trained in full: {measure} on the width of each {part}{adjusted}. A "
        f"channel costs parameters in its own {part} and in the next. Intervals and verdict are adjusted for the number of "
        f"{part}s (Holm). Returns diminish, so it is valid near the present widths."
    )
    return "".join(
        [
            markup.paragraph(text),
            markup.figure(choice_charts.marginal(estimate, part), caption),
            markup.table(Table(columns, rows), f"Gain of each {part}", left=(0, 5)),
            markup.paragraph(about, "remark"),
        ]
    )


def _points(gain: float) -> str:
    return f"{100 * gain:+.3f}"


def _span(gain: Gain) -> str:
    return f"{_points(gain.low)} to {_points(gain.high)}"


def effects(findings: Findings) -> Section | None:
    """Section on the effects of an ablation; None if the study is not one."""
    shown = evidence.effects_shown(findings.run, findings.studies.candidates)
    if not shown:
        return None
    body = "".join(
        f"<p>{escape(effect.words)}</p>{markup.table(effect.table, effect.words, left=(0, 3))}" for effect in shown
    )
    return Section("effects", "What each factor does", body)
