"""Text of shapes, receptive fields, shares and durations, the same in every table and page."""

from __future__ import annotations

from collections.abc import Iterable

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
