"""Sections on effort: rejected proposals, pruning, time, configuration."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from report.analysis.findings import Findings
from report.analysis.timing import TrainingTimes, count_epochs, rungs_table
from report.figures import curves as figures
from report.html import markup
from report.html.markup import Lacking, Section
from report.markdown.summary import settings
from report.tables import Table, refusal_words
from search.export.card import versions
from search.study.records import refusals
from search.text import format_duration, format_share

FAILURES = 20  # most failures listed
DRAWN = 10  # rejected proposals from which they are drawn


def rejections(findings: Findings) -> Section:
    """Section on proposals rejected before training and trials pruned during it."""
    text, figure = refusal_words(findings.candidates), figures.refusals(findings.run, findings.candidates)
    counts = findings.board["counts"]
    parts = [markup.paragraph(f"Rejected before training: {text}." if text else "Nothing was rejected before training.")]
    if figure is not None and sum(refusals(findings.candidates).values()) >= DRAWN:
        sizes = ", and their sizes" if "yaxis2" in figure.layout else ""
        caption = f"Proposals rejected before each trial, by the rule that they broke{sizes}."
        parts.append(markup.figure(figure, caption, height=460))
    rungs, (trained, whole) = (
        rungs_table(findings.run.config, findings.candidates),
        count_epochs(findings.run.config, findings.candidates),
    )
    parts.append("<h3>Pruning</h3>")
    if rungs.rows:
        less = f"{1 - trained / whole:.0%} less than" if trained < whole else "as many as"
        text = f"Candidates trained {trained:,} epochs, {less} the {whole:,} that all of them in full would have taken."
        parts += [markup.table(rungs, "Rungs"), markup.paragraph(text, "remark")]
    else:
        parts.append(markup.paragraph("The study has no rungs: every candidate was trained in full."))
    if counts["failed"]:
        parts.append(markup.table(_failures(findings), "Trials that failed", left=(0, 1, 2)))
    return Section("refused", "Rejections and pruning", "".join(parts))


def _failures(findings: Findings) -> Table:
    known = ("trained", "pruned_at_rung", "rejected", "interrupted", "running")
    rows = [
        (f"{row.number}", row.outcome.replace("_", " "), row.reason or "")
        for row in findings.candidates
        if row.outcome not in known
    ]
    return Table(("trial", "failed", "why"), rows[:FAILURES])


def time_spent(times: TrainingTimes) -> Section:
    """Section on training time."""
    whole = times.seconds or 1.0
    columns = ("", "trainings", "epochs", "time", "", "share", "compiling", "an epoch")
    rows = [
        (
            escape(row.what),
            f"{row.trainings:,}",
            f"{row.epochs:,}",
            format_duration(row.seconds),
            markup.bar(row.seconds / whole),
            format_share(round(row.seconds), round(whole)),
            format_duration(row.compile_seconds),
            f"{max(row.seconds - row.compile_seconds, 0) / row.epochs:.1f} s" if row.epochs else "",
        )
        for row in times.spent
    ]
    text = f"All trainings together took {format_duration(times.seconds)}."
    if times.begun and times.ended:
        clock = format_duration((times.ended - times.begun).total_seconds())
        text += f" Wall-clock time from the first start ({times.begun:%Y-%m-%d %H:%M}) to the last end: {clock}."
    return Section("time", "Time spent", markup.paragraph(text) + markup.table_of(columns, rows, "Time spent", left=(0, 4)))


def not_shown(lacking: Sequence[Lacking]) -> Section:
    """Section that names what this study cannot show yet, in one line each."""
    items = ""
    for section in lacking:
        command = f": <code>{escape(section.command)}</code>" if section.command else ""
        items += f"<li>{escape(section.title)}: {escape(section.reason)}{command}</li>"
    return Section("later", "Not shown yet", f"<ul>{items}</ul>")


def configuration(findings: Findings) -> Section:
    """Section on the configuration, the data set and the versions."""
    data = findings.data
    facts = {
        "Data": f"{data['summary']}; fingerprint {data['fingerprint']}",
        "Classes": ", ".join(data["class_names"]),
        "Configuration": f"digest {findings.run.config.digest}",
        "Versions where this page was written": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    listed += f"<dt>Resume with</dt><dd><code>{escape(findings.run.command)}</code></dd>"
    folded = markup.details("All effective settings", markup.code(settings(findings.run.config)))
    return Section("asked", "Configuration and versions", f"<dl>{listed}</dl>{folded}")
