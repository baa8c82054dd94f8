"""card.svg and card.png: one picture of a study's result, for a README, a slide or a message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from report.analysis.findings import Findings
from report.card.comparison import Fact, base_network, facts, headlines
from report.card.scene import Box, Label, Shape, to_png, to_svg, wrapped
from report.card.silhouette import common_scale, silhouette
from report.colours import COLOURS, GREY
from search.files import write, write_text
from search.networks.architecture import Architecture

WIDTH, HEIGHT = 1200, 675  # 16 to 9
PAGE, TEXT, QUIET, PANEL, BAR = "#ffffff", "#1b2127", "#57626d", "#f4f6f8", "#dde2e8"
MARGIN, MIDDLE = 48, 616
PICTURE = 118  # height of a silhouette


def write_card(findings: Findings, folder: Path | None = None) -> list[Path]:
    """Write card.svg and card.png into a folder, the run folder if None."""
    shapes = list(card(findings))
    folder = folder or findings.run.folder
    label = f"{findings.run.name}: {findings.verdict.title}"
    write_text(svg := folder / "card.svg", to_svg(shapes, WIDTH, HEIGHT, label))
    content = to_png(shapes, WIDTH, HEIGHT)
    write(png := folder / "card.png", lambda stream: stream.write(content))
    return [svg, png]


def card(findings: Findings) -> Iterator[Shape]:
    """Shapes of the card: verdict, both networks on one scale, their figures, and the three that matter most."""
    verdict, base = findings.verdict, base_network(findings)
    yield Box(0, 0, WIDTH, HEIGHT, PAGE, 0)
    heading = wrapped(f"{findings.run.name}: {verdict.title}", 62)[:2]
    for index, line in enumerate(heading):
        yield Label(MARGIN, 62 + 36 * index, line, 30, TEXT, is_bold=True)
    y = 62 + 36 * (len(heading) - 1) + 30
    for index, line in enumerate(wrapped(verdict.sentence, 132)[:2]):
        yield Label(MARGIN, y + 23 * index, line, 16, QUIET)
    yield from _networks(findings, base)
    yield from _figures(facts(findings, base), 372)
    width = (WIDTH - 2 * MARGIN) / 3
    for index, headline in enumerate(headlines(findings, base)):
        left = MARGIN + index * width
        yield Label(left, 586, headline.figure, 34, COLOURS[1], is_bold=True)
        yield Label(left, 610, headline.label, 15, TEXT)
        for place, line in enumerate(wrapped(headline.words, 50)[:2]):
            yield Label(left, 630 + 17 * place, line, 13, QUIET)


def _networks(findings: Findings, base: Architecture | None) -> Iterator[Shape]:
    """Base on the left, winner on the right, both to one scale."""
    top, width = 176, MIDDLE - MARGIN - 48
    winner = findings.network
    scale = common_scale([network for network in (base, winner) if network], width)
    names = (f"base{_named(findings)}", f"winner, trial {findings.number}")
    for left, name, network in ((MARGIN, names[0], base), (MIDDLE, names[1], winner)):
        yield Label(left, top, name, 16, TEXT, is_bold=True)
        if network is None:
            yield Label(
                left,
                top + 40,
                f"a plain {findings.run.config.metric_label}" if findings.verdict.base else "not trained",
                15,
                QUIET,
            )
        else:
            yield from silhouette(network, scale, PICTURE, left, top + 14)
    words = (
        "Each box is a layer with weights: as wide as its channels, as high as its map, to one scale. Blue: separable "
        "convolutions; orange: ordinary ones and dense layers."
    )
    yield Label(MARGIN, top + PICTURE + 36, words, 13, QUIET)


def _named(findings: Findings) -> str:
    name = findings.run.config.base_name
    return "" if name in (None, "base") else f" {name}"


def _figures(rows: list[Fact], y: float) -> Iterator[Shape]:
    """A line for each figure, with bars to scale."""
    longest = 190
    for index, row in enumerate(rows):
        line = y + 32 * index
        yield Label(MARGIN, line, row.label, 15, QUIET)
        for left, text, share, colour in (
            (MARGIN + 205, row.base, row.base_share, GREY),
            (MIDDLE + 60, row.winner, row.winner_share, COLOURS[1]),
        ):
            if share is None:
                yield Label(left, line, text, 15, TEXT, is_bold=True)
            else:
                yield Box(left, line - 12, longest, 14, PANEL)
                yield Box(left, line - 12, max(longest * share, 1.5), 14, colour)
                yield Label(left + longest + 10, line, text, 15, TEXT, is_bold=True)
        yield Label(WIDTH - MARGIN, line, row.ratio, 17, TEXT, is_bold=True, anchor="end")
