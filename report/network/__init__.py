"""Drawings and pages of one network."""
