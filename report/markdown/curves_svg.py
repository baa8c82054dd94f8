"""Learning curves as SVG, for pages without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from report.colours import COLOURS, GREY
from search.text import format_percent

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 40, 56
MOST_TICKS = 6  # of accuracy
EPOCHS_TOLD = 10  # at most, about


def curves_svg(
    curves: Mapping[str, Sequence[float]], base: str, images: int | None = None, measure: str = "accuracy"
) -> str:
    """Draw validation accuracy, or another measure, (fractions) by epoch, the base dashed, for light and dark backgrounds.

    Args:
        images: number of validation images, which decides the decimals; None if it is unknown.
        measure: its name in words.
    """
    epochs = max((len(accuracies) for accuracies in curves.values()), default=1)
    values = [value for accuracies in curves.values() for value in accuracies] or [0.0, 1.0]
    step = _step(max(max(values) - min(values), 0.01))
    ticks = range(int(min(values) / step), max(int(min(values) / step) + 1, -int(-max(values) // step)) + 1)

    def x(epoch: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / max(1, epochs - 1)

    def y(value: float) -> float:
        share = (value - ticks[0] * step) / ((ticks[-1] - ticks[0]) * step)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def parts() -> Iterator[str]:
        for tick in ticks:
            height = y(tick * step)
            yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}" stroke-opacity="0.3"/>'
            yield _text(LEFT - 8, height + 4, f"{tick * step:.{0 if step >= 0.01 else 1}%}", "end")
        every = -(-epochs // EPOCHS_TOLD)
        for epoch in sorted({1, *range(every, epochs + 1, every)}):
            yield _text(x(epoch), HEIGHT - BOTTOM + 20, str(epoch), "middle")
        yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "epoch", "middle")
        for index, (name, accuracies) in enumerate(curves.items()):
            look = f'stroke="{GREY}" stroke-dasharray="6 4"' if name == base else f'stroke="{COLOURS[0]}"'
            look += ' stroke-width="2.5" fill="none"'
            points = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in enumerate(accuracies, 1))
            start = LEFT + index * (WIDTH - LEFT) // len(curves)
            yield f'<polyline points="{points}" {look}/>'
            yield f'<line x1="{start}" x2="{start + 24}" y1="16" y2="16" {look}/>'
            yield _text(start + 32, 20, f"{name} ({format_percent(max(accuracies, default=0), images)})", "start")

    look = f'font-family="sans-serif" font-size="13" fill="{GREY}" stroke="{GREY}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {look}>'
    return "\n".join([head, f"<title>Validation {measure} by epoch</title>", *parts(), "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" stroke="none">{escape(words)}</text>'


def _step(span: float) -> float:
    """Smallest tick step of 1, 2 or 5 times a power of ten that gives few enough ticks."""
    steps = (digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5))
    return next(step for step in steps if span / step < MOST_TICKS)
