"""The prices of trained networks: those that were stored with a trial, and the others found from its network.

All are analytic and exact to a network; those of int8 take about a millisecond. A run need not have limited a price, nor an
older one have stored it, to be asked for it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial

import space
from search.budget.cost import price
from search.budget.limits import WORDS
from search.errors import UserError, nearest
from search.files import read_json
from search.networks.architecture import Architecture, fingerprint, from_json
from search.study import references
from search.study.run import COUNTED, DATA, Opened, Record, Run, Studies, load

PRICES = tuple(WORDS)  # what can be limited can be traded for accuracy


def asked(names: Iterable[str]) -> tuple[str, ...]:
    """Prices as a person names them, each once.

    Raises:
        UserError: one is no price.
    """
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in PRICES:
            raise UserError(f"--pareto {name}: no such price, {nearest(name, PRICES)}")
    return found


def priced(study: Opened, names: Sequence[str], studies: Studies | None = None) -> Opened:
    """The run with these prices known of every network that was trained, where there is a way to know them.

    Args:
        studies: those of the run, where they are open: what has been read of them is not read again.
    """
    run, lacking = study.run, [record for record in [*study.candidates, *study.references] if _lacks(record, names)]
    if not lacking:
        return study
    studies = studies or load(run)
    data = studies.candidates.user_attrs[DATA]

    def drawn(trial: FrozenTrial) -> Architecture:
        return space.build(run.config.space, run.config.declared(trial.params), tuple(data["input"]), data["classes"])

    def known(trial: FrozenTrial) -> Architecture | None:
        return _opponent(run, trial)

    candidates = _priced(study.candidates, names, studies.candidates.get_trials(deepcopy=False), drawn)
    opponents = _priced(study.references, names, studies.references.get_trials(deepcopy=False), known)
    return Opened(run, candidates, opponents)


def _priced(
    records: Sequence[Record],
    names: Sequence[str],
    trials: Sequence[FrozenTrial],
    network_of: Callable[[FrozenTrial], Architecture | None],
) -> list[Record]:
    return [
        replace(record, prices={**record.prices, **_prices(network_of(trials[record.number]), names)})
        if _lacks(record, names)
        else record
        for record in records
    ]


def _opponent(run: Run, trial: FrozenTrial) -> Architecture | None:
    """The network of a reference as it was trained; None where its files have gone since, or changed."""
    name, found = trial.user_attrs["reference"], list[Architecture]()
    with contextlib.suppress(UserError):
        found.append(references.named(str(run.config.base) if name == run.config.base_name else name).architecture)
    with contextlib.suppress(UserError, LookupError, TypeError):
        kept = read_json(run.folder / "references" / name / "training.json")
        found.append(from_json(json.dumps(kept["architecture"])))
    return next((one for one in found if fingerprint(one) == trial.user_attrs.get("fingerprint")), None)


def _lacks(record: Record, names: Sequence[str]) -> bool:
    return record.outcome in COUNTED and any(record.price(name) is None for name in names)


def _prices(network: Architecture | None, names: Sequence[str]) -> Mapping[str, int]:
    if network is None:
        return {}
    cost = price(network)
    return {name: getattr(cost, name) for name in names}
