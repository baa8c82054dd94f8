"""Writes the shipped prior `studies/priors/cifar10-16px.json` from the table of real trainings.

    python benchmarks/shipped_prior.py

Of each space at most as many networks as a prior is fitted to, evenly over its budgets; of networks that were trained on
several seeds the mean accuracy.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from accuracy_model import rows_of_space
from ground_spaces import FACTS, IMAGES, SPACES, study

from search.files import write_text
from search.study.study_file import PRIORS
from search.tuning.bayes.observations import Observation
from search.tuning.bayes.prior import MOST_TRIALS, PriorStudy

NAME = "cifar10-16px"
ABOUT = "Trainings of 4 epochs on 1,500 images of CIFAR-10, averaged to 16 x 16 pixels; accuracies on 2,000 others."


def prior_study(space: str) -> PriorStudy:
    """The networks of one space as the observations of a study without a budget."""
    rows = sorted(rows_of_space(space), key=lambda row: row["budget"])
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_TRIALS)).round().astype(int)
    observations = tuple(
        Observation(number, rows[index]["values"], round(statistics.mean(rows[index]["accuracy"].values()), 5))
        for number, index in enumerate(chosen)
    )
    data = {
        "input": list(FACTS.input_shape),
        "classes": FACTS.classes,
        "fingerprint": FACTS.fingerprint,
        "images": {"training": IMAGES},
    }
    return PriorStudy(NAME, study(space, 10**9).dump(), data, observations)


def shipped() -> dict[str, Any]:
    """Content of the file."""
    return {"about": ABOUT, "studies": [prior_study(space).to_dict() for space in SPACES]}


if __name__ == "__main__":
    PRIORS.mkdir(exist_ok=True)
    write_text(PRIORS / f"{NAME}.json", json.dumps(shipped(), separators=(",", ":")) + "\n")
