"""Everything that the reports show of a run, read and computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from report.tables import leaderboard
from search.finals.results import FinalsResult, load_results
from search.networks.architecture import Architecture
from search.study.records import Record, records
from search.study.run import DATA, Run, Studies, best, network_of


@dataclass(frozen=True)
class Findings:
    """Results of a run with at least one trained candidate."""

    run: Run
    studies: Studies
    candidates: list[Record]
    references: list[Record]
    board: Mapping[str, Any]  # as `top --json` prints it
    number: int  # of the winner
    network: Architecture  # the winner
    finals: FinalsResult | None
    data: Mapping[str, Any]  # summary, fingerprint, input, classes and class_names of the images


def gather(run: Run, studies: Studies) -> Findings:
    """Read and analyse a run.

    Raises:
        UserError: no candidate has been trained yet.
    """
    candidates, references = records(studies.candidates), records(studies.references)
    number = best(run, candidates).number
    return Findings(
        run,
        studies,
        candidates,
        references,
        leaderboard(run, candidates, references),
        number,
        network_of(run, number, studies),
        load_results(run),
        studies.candidates.user_attrs[DATA],
    )
