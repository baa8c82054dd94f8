"""Simulated runs of the queue of trials under faults, until a time is over or an invariant is broken.

    python benchmarks/queue_simulation.py [--minutes 10] [--first 0]
    python benchmarks/queue_simulation.py --seed S

The second form replays one seed and prints its faults. A step is a transaction boundary: before a transaction, or at its
commit. `tests/simulation/simulator.py` says what is real and what is simulated. Exit status 1 if an invariant was broken.
Nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.simulation.scheduler import Fault
from tests.simulation.simulator import simulator

RUNS = 200  # on one database, before another is begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="replay this seed alone")
    options = parser.parse_args()
    if options.seed is not None:
        with simulator() as runs:
            result = runs.run(options.seed)
        print(result)
        return 1 if result.violations else 0
    return simulate(options.first, options.minutes)


def simulate(first: int, minutes: float) -> int:
    """Simulate seed after seed; 1 if one of them broke an invariant."""
    began, cpu = time.monotonic(), time.process_time()
    steps, runs_done, faults, broken = 0, 0, Counter[Fault](), list[int]()
    seeds = count(first)
    while time.monotonic() - began < 60 * minutes:
        with simulator() as runs:
            for _ in range(RUNS):
                result = runs.run(next(seeds))
                steps, runs_done = steps + result.steps, runs_done + 1
                faults += result.faults
                if result.violations:
                    broken.append(result.seed)
                    print(f"{result}\nreplay: python benchmarks/queue_simulation.py --seed {result.seed}", flush=True)
                if time.monotonic() - began > 60 * minutes:
                    break
    seconds = time.monotonic() - began
    print(f"{runs_done:,} runs, {steps:,} steps in {seconds:.0f} s ({time.process_time() - cpu:.0f} CPU-s)", end="; ")
    print(f"{3600 * steps / seconds:,.0f} steps an hour")
    for fault, times in faults.most_common():
        print(f"{times:7,}  {fault}")
    print(f"invariants broken by seeds: {', '.join(map(str, broken)) or 'none'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
