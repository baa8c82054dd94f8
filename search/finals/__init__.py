"""Retrains the best candidates on fresh seeds: intervals and verdicts."""
