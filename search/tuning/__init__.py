"""Proposes candidates: sampler, pruner, stopping, forecast."""
