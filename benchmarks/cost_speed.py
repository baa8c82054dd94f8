"""Candidates sampled, built as an architecture and costed per second, without building a model.

python benchmarks/cost_speed.py        # a few seconds
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from search.budget.cost import compute_cost
from search.study.config import STUDIES
from search.study.study_file import load
from space import build, parameters

N = 5_000
ROUNDS = 5


def main() -> None:
    config = load(STUDIES / "cifar10_100k" / "study.toml")
    generator = random.Random(0)
    sampled = [{name: domain.draw(generator) for name, domain in parameters(config.space).items()} for _ in range(N)]
    rates, fitting = [], 0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        fitting = sum(
            compute_cost(build(config.space, values, (32, 32, 3), 10)).params < config.budget.params for values in sampled
        )
        rates.append(N / (time.perf_counter() - started))
    print(
        f"{statistics.median(rates):,.0f} architectures a second from parameters to cost (median of {ROUNDS} rounds of "
        f"{N:,}; {min(rates):,.0f} to {max(rates):,.0f}); {fitting / N:.1%} of cifar10_100k's draws fit its budget; "
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
