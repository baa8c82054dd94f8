"""Everything that the reports show of a run, read and computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from report.analysis.completion import unfinished_words
from report.analysis.expectation import expectation_of
from report.analysis.verdict import Verdict, judge
from report.device import device_board
from report.tables import images_behind, leaderboard
from search.finals.results import FinalsResult, load_results
from search.finals.statistics import chance_gap
from search.networks.architecture import Architecture
from search.study.dataset import images_of
from search.study.records import Record, records
from search.study.run import DATA, Opened, Run, Studies, best, network_of
from search.tuning.bayes.expectation import Expectation


@dataclass(frozen=True)
class Findings:
    """Results of a run with at least one trained candidate."""

    run: Run
    studies: Studies
    candidates: list[Record]
    references: list[Record]
    board: Mapping[str, Any]  # the leaderboard, see `report.tables.leaderboard`
    number: int  # of the winner
    network: Architecture  # the winner
    finals: FinalsResult | None
    data: Mapping[str, Any]  # summary, fingerprint, input, classes and class_names of the images
    device: str | None = None  # a microcontroller to compare the best candidates with
    expected: Expectation | None = None  # of another training of the winner

    @property
    def verdict(self) -> Verdict:
        """Comparison of the winner with the base."""
        return judge(self.run, self.board, self.finals, self.data, self.expected)

    @property
    def unfinished(self) -> str | None:
        """A line on the trials that the study still lacks; None if it is complete."""
        return unfinished_words(self.run, self.candidates, self.references)

    @property
    def noise(self) -> float | None:
        """Difference that chance makes between two single trainings of the winner; None if the images are uncounted."""
        winner = self.board["trials"][0]
        images, best = images_behind(self.board, winner), winner["best_val_accuracy"]
        return None if images is None else chance_gap(best, best, images)

    @property
    def device_board(self) -> dict[str, Any] | None:
        """The best candidates on the microcontroller; None without one."""
        if self.device is None:
            return None
        return device_board(Opened(self.run, self.candidates, self.references), self.device, self.studies)

    @property
    def judged_board(self) -> dict[str, Any]:
        """The leaderboard with the verdict, as `top --json` prints it."""
        return {**self.board, "standing": self.verdict.to_dict()}


def gather(run: Run, studies: Studies, device: str | None = None) -> Findings:
    """Read and analyse a run.

    Args:
        device: a microcontroller, see `search.budget.devices`; None for that of the budget, if it names one.

    Raises:
        UserError: no candidate has been trained yet.
    """
    candidates, references = records(studies.candidates), records(studies.references)
    number = best(run, candidates).number
    data, finals = studies.candidates.user_attrs[DATA], load_results(run)
    board = leaderboard(run, candidates, references, images_of(data, "validation"))
    return Findings(
        run,
        studies,
        candidates,
        references,
        board,
        number,
        network_of(run, number, studies),
        finals,
        data,
        device or run.config.budget.device,
        expectation_of(run, studies, candidates, finals),
    )
