"""Colours of figures and drawings: safe for colour-blind readers, at least 3 to 1 on light and on dark pages."""

from __future__ import annotations

# Okabe and Ito, "Color Universal Design", 2008, without its black and its yellow; purple, orange and sky blue are darkened
# until they reach 3 to 1 against white (WCAG 2.2, 1.4.11). The best candidate takes the first.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#C06598", "#B57C00", "#3590C8")
GREY = "#7A7A7A"  # 4.3 to 1 against white, 4.4 to 1 against the dashboard's dark background
