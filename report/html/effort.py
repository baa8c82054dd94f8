"""Sections on effort: rejected proposals, pruning, time, configuration."""

from __future__ import annotations

from html import escape

from report.analysis.findings import Findings
from report.analysis.timing import Times, rungs_table, saved
from report.figures import curves as figures
from report.html import markup
from report.html.markup import Section
from report.markdown.summary import settings
from report.tables import Table, refusal_words
from search.export.card import versions
from search.text import format_duration, format_share

FAILURES = 20  # most failures listed


def refused(found: Findings) -> Section:
    """Section on proposals rejected before training and trials pruned during it."""
    words, drawn = refusal_words(found.candidates), figures.refusals(found.run, found.candidates)
    counts = found.board["counts"]
    parts = [markup.paragraph(f"Refused before training: {words}." if words else "Nothing was refused before training.")]
    if drawn is not None:
        told = "Proposals refused before the network of a trial was found, by the rule that they broke, and their sizes."
        parts.append(markup.figure(drawn, told, height=460))
    rungs, (trained, whole) = rungs_table(found.run.config, found.candidates), saved(found.run.config, found.candidates)
    parts.append("<h3>Pruning</h3>")
    if rungs.rows:
        less = f"{1 - trained / whole:.0%} less than" if trained < whole else "as many as"
        words = f"Candidates trained {trained:,} epochs, {less} the {whole:,} that all of them in full would have taken."
        parts += [markup.table(rungs, "Rungs"), markup.paragraph(words, "remark")]
    else:
        parts.append(markup.paragraph("The study has no rungs: every candidate was trained in full."))
    if counts["failed"]:
        parts.append(markup.table(_failures(found), "Trials that failed", left=(0, 1, 2)))
    return Section("refused", "Refusals and pruning", "".join(parts))


def _failures(found: Findings) -> Table:
    known = ("trained", "pruned_at_rung", "rejected", "interrupted", "running")
    rows = [
        (f"{one.number}", one.outcome.replace("_", " "), one.reason or "")
        for one in found.candidates
        if one.outcome not in known
    ]
    return Table(("trial", "failed", "why"), rows[:FAILURES])


def time(spent: Times) -> Section:
    """Section on training time."""
    whole = spent.seconds or 1.0
    columns = ("", "trainings", "epochs", "time", "", "share", "compiling", "an epoch")
    rows = [
        (
            escape(one.what),
            f"{one.trainings:,}",
            f"{one.epochs:,}",
            format_duration(one.seconds),
            markup.bar(one.seconds / whole),
            format_share(round(one.seconds), round(whole)),
            format_duration(one.compile_seconds),
            f"{max(one.seconds - one.compile_seconds, 0) / one.epochs:.1f} s" if one.epochs else "",
        )
        for one in spent.spent
    ]
    words = f"All trainings together took {format_duration(spent.seconds)}."
    if spent.begun and spent.ended:
        clock = format_duration((spent.ended - spent.begun).total_seconds())
        words += f" From the first start ({spent.begun:%Y-%m-%d %H:%M}) to the last end passed {clock} on the clock."
    return Section("time", "Time spent", markup.paragraph(words) + markup.table_of(columns, rows, "Time spent", left=(0, 4)))


def asked(found: Findings) -> Section:
    """Section on the configuration, the data set and the versions."""
    data = found.data
    facts = {
        "Data": f"{data['summary']}; fingerprint {data['fingerprint']}",
        "Classes": ", ".join(data["class_names"]),
        "Go on with": found.run.command,
        "Configuration": f"digest {found.run.config.digest}",
        "Versions where this page was written": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    folded = markup.details("All settings that were in force", markup.code(settings(found.run.config)))
    return Section("asked", "Configuration and versions", f"<dl>{listed}</dl>{folded}")
