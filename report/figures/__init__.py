"""Plotly figures, computed from plain rows."""
