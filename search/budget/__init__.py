"""Costs of a network, computed without building it, and the limits that they must meet."""
