"""Time of a proposal of each sampler, after 10 to 1,000 trials.

    python benchmarks/proposal_speed.py [--trials 10 100 1000] [--repeats 5]      # prints a table

The spaces of `ground_spaces` under 15,000 parameters; the trials are random networks with the accuracy of
`accuracy_model.py` and its noise. A proposal is all from asking to a judged network: reading the trials, the surrogate,
candidates, claims. Medians and extremes of wall-clock milliseconds, one process, one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from accuracy_model import accuracy_model
from ground_spaces import SPACES
from search_contenders import CONTENDERS, Contender, ContenderStudy

from search.seeds import generator

BUDGET = 15_000
TIMED = ("random, fill", "TPE, fill", "bayes")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trials", type=int, nargs="*", default=[10, 100, 1_000])
    options.add_argument("--repeats", type=int, default=5)
    asked = options.parse_args()
    random = CONTENDERS[0]
    for space in SPACES:
        study = ContenderStudy(random, space, BUDGET, seed=0)
        for count in asked.trials:
            while study.asked < count:
                answered(study, space)
            for contender in CONTENDERS:
                if contender.name in TIMED:
                    times = [milliseconds(study, contender) for _ in range(asked.repeats)]
                    print(
                        f"{space:9} {count:>5} trials  {contender.name:12} {statistics.median(times):7.0f} ms "
                        f"({min(times):.0f} to {max(times):.0f}, n = {len(times)})",
                        flush=True,
                    )


def answered(study: ContenderStudy, space: str) -> None:
    """One random trial, with the accuracy of the model and noise."""
    trial, proposal, values = study.ask()
    model = accuracy_model(space)
    noise = float(generator(0, "noise", proposal.key).standard_normal())
    study.tell(trial, model.accuracy(proposal, values) + model.noise * noise)


def milliseconds(study: ContenderStudy, contender: Contender) -> float:
    """Time of one proposal, which is told as pruned without an accuracy, so that no sampler learns from it."""
    with study.by(contender):
        started = time.perf_counter()
        trial, _, _ = study.ask()
        spent = time.perf_counter() - started
    study.tell(trial, None)
    return 1000 * spent


if __name__ == "__main__":
    main()
