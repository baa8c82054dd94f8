"""Optuna's database for many workers; the only package that touches Optuna's internals."""
