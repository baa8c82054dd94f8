"""Accuracy to expect of another training of the winner, which no chance of the search has favoured."""

from __future__ import annotations

from search.finals.results import FinalsResult
from search.study.records import Record, ranked
from search.study.run import DATA, Run, Studies
from search.tuning.bayes.expectation import Expectation, expect
from search.tuning.candidate import DataFacts

MOST = 500  # candidates, pruned ones included, up to which a model of all of them is fitted in about a second


def expectation_of(run: Run, studies: Studies, candidates: list[Record], finals: FinalsResult | None) -> Expectation | None:
    """Expectation for the winner; None where finals have measured it, or trainings are too few, too many or unrelated."""
    best_first, data = ranked(candidates), studies.candidates.user_attrs.get(DATA)
    if not best_first or len(candidates) > MOST or data is None:
        return None
    number = best_first[0].number
    if finals is not None and any(finalist.number == number for finalist in finals.finalists):
        return None
    facts = DataFacts(tuple(data["input"]), data["classes"], data["fingerprint"])
    return expect(run.config, facts, studies.candidates.get_trials(deepcopy=False), number)
