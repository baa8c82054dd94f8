"""Text of shapes, receptive fields, shares and durations."""

from __future__ import annotations

import pytest

from search.text import (
    format_clock,
    format_duration,
    format_estimate,
    format_field,
    format_number,
    format_shape,
    format_share,
)

HOUR, DAY = 3_600, 86_400


def test_shapes_and_receptive_fields() -> None:
    assert [format_shape(shape) for shape in ((32, 32, 3), (10,), ())] == ["32x32x3", "10", ""]
    assert [format_field(9), format_field(9, "*"), format_field(None, "*")] == ["9x9", "9x9*", ""]


def test_a_share_above_zero_is_never_shown_as_zero() -> None:
    pairs = ((1, 1000), (0, 5), (31, 100), (5, 5), (0, 0))
    assert [format_share(*pair) for pair in pairs] == ["<1 %", "0 %", "31 %", "100 %", "0 %"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (3_599.7, "1 h 0 min"),
        (86_369, "23 h 59 min"),
        (86_399, "1 d 0 h"),
        (3 * DAY + 4 * HOUR, "3 d 4 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "clock", "estimate"),
    [
        (0.2, "0:00", "1 s"),
        (59.6, "1:00", "60 s"),
        (130, "2:10", "2 min"),
        (3_599, "59:59", "60 min"),
        (HOUR + 300, "1 h 05 min", "65 min"),
        (5 * HOUR + 720, "5 h 12 min", "5 h 12 min"),
        (3 * DAY + 4 * HOUR, "76 h 00 min", "3 days 4 h"),
    ],
)
def test_clocks_and_estimates(seconds: float, clock: str, estimate: str) -> None:
    assert (format_clock(seconds), format_estimate(seconds)) == (clock, estimate)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_024, "1,024"),
        (93_056.4, "93,056"),
        (0.995, "0.995"),
        (0.0031622776, "0.0032"),
        (112.5, "112"),
        (0.15, "0.15"),
        (0, "0"),
    ],
)
def test_a_number_has_the_digits_that_matter(value: float, text: str) -> None:
    assert format_number(value) == text
