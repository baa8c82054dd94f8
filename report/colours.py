"""Colours of figures and drawings: safe for colour-blind readers, readable on light and dark pages."""

from __future__ import annotations

# Okabe and Ito, "Color Universal Design", 2008, without its black and its yellow; the best candidate takes the first.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#7A7A7A"  # 4.3 to 1 against white, 4.4 to 1 against the dashboard's dark background
