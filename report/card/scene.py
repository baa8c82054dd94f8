"""Pictures of boxes, lines and text that are written as SVG or as PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'
PLAIN = str.maketrans({"\N{MULTIPLICATION SIGN}": "x", "\N{EN DASH}": "-", "\u00a0": " ", "\N{MINUS SIGN}": "-"})
SCALE = 2  # pixels of the PNG per unit


@dataclass(frozen=True)
class Box:
    """Filled rectangle with its upper left corner at (x, y)."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    radius: float = 2


@dataclass(frozen=True)
class Label:
    """One line of text; (x, y) is on its baseline, at its start, middle or end."""

    x: float
    y: float
    text: str
    size: float
    colour: str
    is_bold: bool = False
    anchor: Literal["start", "middle", "end"] = "start"


Shape = Box | Label


def svg_shapes(shapes: Iterable[Shape]) -> Iterator[str]:
    """Elements of an SVG, one for each shape."""
    for shape in shapes:
        if isinstance(shape, Box):
            width, radius = max(shape.width, 0.5), min(shape.radius, shape.width / 2, shape.height / 2)
            place = f'x="{shape.x:.1f}" y="{shape.y:.1f}" width="{width:.1f}" height="{shape.height:.1f}"'
            yield f'<rect {place} rx="{radius:.1f}" fill="{shape.colour}"/>'
        else:
            weight = ' font-weight="600"' if shape.is_bold else ""
            anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
            place, text = f'x="{shape.x:.1f}" y="{shape.y:.1f}"', escape(_printable(shape.text))
            yield f'<text {place} font-size="{shape.size:g}" fill="{shape.colour}"{weight}{anchor}>{text}</text>'


def to_svg(shapes: Iterable[Shape], width: int, height: int, label: str) -> str:
    """A file of its own; the first shape is its background."""
    title = escape(_printable(label))
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}" font-family=\'{FONT}\'>'
    return "\n".join([head, f"<title>{title}</title>", *svg_shapes(shapes), "</svg>"]) + "\n"


def to_png(shapes: Iterable[Shape], width: int, height: int) -> bytes:
    """The picture at twice its size, in DejaVu Sans where it is installed, otherwise in Pillow's own font."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SCALE * width, SCALE * height), "#ffffff")
    canvas = ImageDraw.Draw(image)
    for shape in shapes:
        if isinstance(shape, Box):
            left, top = SCALE * shape.x, SCALE * shape.y
            right, bottom = left + max(SCALE * shape.width, 1), top + max(SCALE * shape.height, 1)
            canvas.rounded_rectangle((left, top, right - 1, bottom - 1), SCALE * shape.radius, fill=shape.colour)
        else:
            font, text = _font(shape.size, shape.is_bold), _printable(shape.text)
            place, anchor = (SCALE * shape.x, SCALE * shape.y), {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
            canvas.text(place, _drawable(text, font), fill=shape.colour, font=font, anchor=anchor)
    image.save(stream := io.BytesIO(), "PNG", optimize=True)
    return stream.getvalue()


def wrapped(text: str, letters: int) -> list[str]:
    """Lines of at most so many letters, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= letters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _printable(text: str) -> str:
    """The text without characters that XML forbids."""
    return "".join(letter if letter.isprintable() or letter == "\u00a0" else " " for letter in text)


def _font(size: float, is_bold: bool) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(f"DejaVuSans{'-Bold' if is_bold else ''}.ttf", round(SCALE * size * 0.93))
    except OSError:
        return ImageFont.load_default(round(SCALE * size))


def _drawable(text: str, font: Any) -> str:
    """The text in letters that the font has: Pillow's own has those of ASCII and few others."""
    if font.getname()[0] == "DejaVu Sans":
        return text
    return text.translate(PLAIN).encode("ascii", "replace").decode()
