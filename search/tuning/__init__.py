"""Proposes candidates: sampler, pruner, stopping, forecast."""

from search.tuning.sampler import make_sampler

__all__ = ["make_sampler"]
