"""Text of shapes, receptive fields, shares, accuracies and durations, the same in every table and page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400  # seconds


def format_shape(shape: Iterable[int]) -> str:
    """A shape without the batch axis: `32x32x3`."""
    return "x".join(map(str, shape))


def format_field(pixels: int | None, mark: str = "") -> str:
    """A receptive field: `9x9`, empty for None.

    Args:
        mark: appended where the field exceeds the image.
    """
    return "" if pixels is None else f"{pixels}x{pixels}{mark}"


def format_share(value: int, whole: int) -> str:
    """A share in percent, `31 %`; `<1 %` for a value above 0 that rounds to 0."""
    share = round(100 * value / whole) if whole else 0
    return f"{share} %" if share or not value else "<1 %"


def format_clock(seconds: float) -> str:
    """A duration that is still running, of fixed width: `2:10`, from an hour on `1 h 05 min`."""
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes}:{rest:02}"


def format_duration(seconds: float) -> str:
    """A measured duration in its two largest units: `42 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    minutes = round(seconds / _MINUTE)
    if minutes < _DAY // _MINUTE:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / _HOUR)
    return f"{hours // 24} d {hours % 24} h"


def format_estimate(seconds: float) -> str:
    """A forecast duration, rounded to a forecast's precision: `80 s`, `42 min`, `5 h 12 min`, `3 days 4 h`."""
    minutes, hours = round(seconds / _MINUTE), round(seconds / _HOUR)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if minutes < 90:
        return f"{minutes} min"
    parts = ((hours // 24, "days"), (hours % 24, "h")) if hours >= 48 else ((minutes // 60, "h"), (minutes % 60, "min"))
    return " ".join(f"{count:,} {unit}" for count, unit in parts if count)


def format_time(moment: str) -> str:
    """An ISO time as text: `2026-11-30 10:53 UTC`; any other text as it is."""
    try:
        time = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return f"{time:%Y-%m-%d %H:%M}" + (f" {time.tzname()}" if time.tzinfo else "")


def percent_decimals(images: int | None) -> int:
    """Decimals of an accuracy in percent that tell one image from the next: 1 up to 1,000 images, 2 beyond or if unknown."""
    return 2 if images is None or images > 1_000 else 1


def format_percent(accuracy: float | None, images: int | None, missing: str = "") -> str:
    """An accuracy as text: `97.2%`, with the decimals that the number of images supports."""
    return missing if accuracy is None else f"{accuracy:.{percent_decimals(images)}%}"


def format_percents(values: Mapping[str, float], images: int | None) -> str:
    """Named accuracies as text: `accuracy 97.2%, macro F1 88.0%`."""
    return ", ".join(f"{name} {format_percent(value, images)}" for name, value in values.items())


def format_percent_span(low: float, high: float, images: int | None) -> str:
    """An interval of accuracies: `95.0 to 98.5%`."""
    return f"{100 * low:.{percent_decimals(images)}f} to {format_percent(high, images)}"


def format_points(difference: float | None, images: int | None, missing: str = "", *, sign: bool = True) -> str:
    """A difference of accuracies in points: `+0.3`."""
    if difference is None:
        return missing
    text = f"{100 * difference:{'+' if sign else ''}.{percent_decimals(images)}f}"
    return text.replace("-", "+") if sign and float(text) == 0 else text


def format_points_span(low: float, high: float, images: int | None) -> str:
    """An interval of differences: `-1.1 to +1.8`."""
    return f"{format_points(low, images)} to {format_points(high, images)}"


def format_number(value: float) -> str:
    """A value of a choice as text: `1,024`, `0.995`, `0.0032`; below 0.1 with two significant digits, else with three."""
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3g}"


def format_count(count: int, noun: str) -> str:
    """A number with its noun: `1 trial`, `1,200 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
