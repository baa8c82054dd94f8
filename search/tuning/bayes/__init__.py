"""Bayesian optimisation on networks: a surrogate of accuracy over features of the resolved network and its recipe."""

from search.tuning.bayes.prior import Prior
from search.tuning.bayes.sampler import BayesSampler

__all__ = ["BayesSampler", "Prior"]
