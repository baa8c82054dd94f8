"""Plotly figures, computed from plain rows."""

from report.figures.curves import accuracy_by_cost, learning_curves

__all__ = ["accuracy_by_cost", "learning_curves"]
