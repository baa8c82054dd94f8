"""One simulated study: a contender proposes, and the accuracy model with noise answers in place of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from accuracy_model import accuracy_model, long_model
from ground_spaces import EPOCHS, LONG_EPOCHS
from search_contenders import Contender, ContenderStudy

from search.seeds import generator

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Setting:
    """A kind of study.

    Attributes:
        noise: standard deviation of a training's accuracy; None: that of the table.
        is_long: trainings of LONG_EPOCHS with a rung after EPOCHS, results counted by epochs in place of trials.
    """

    name: str
    noise: float | None = None
    is_long: bool = False


SETTINGS = (Setting("table"), Setting("quiet", 0.0025), Setting("rungs", is_long=True))


def simulate(contender: Contender, space: str, budget: int, setting: Setting, seed: int, trials: int) -> dict[str, Any]:
    """A whole study: true accuracy of the best score after each trial, or after each LONG_EPOCHS epochs of a long study."""
    simulated = _Study(contender, space, budget, setting, seed)
    while simulated.spent < trials * simulated.full:
        simulated.step()
    return {
        "best": [round(simulated.best_after(count * simulated.full), 5) for count in range(1, trials + 1)],
        "mean": round(float(np.mean(simulated.truths)), 5),
        "trials": len(simulated.truths),
        "params": round(float(np.mean(simulated.params))),
        "macs": round(float(np.mean(simulated.macs))),
        "ms": round(1000 * simulated.study.seconds / len(simulated.truths), 1),
        "spent_macs": [round(macs / 1000) for macs in simulated.macs],
    }


class _Study:
    """The state of a simulated study."""

    def __init__(self, contender: Contender, space: str, budget: int, setting: Setting, seed: int) -> None:
        self.contender, self.space, self.setting, self.seed = contender, space, setting, seed
        self.study = ContenderStudy(contender, space, budget, seed, has_rungs=setting.is_long)
        self.model = accuracy_model(space)
        self.full = LONG_EPOCHS if setting.is_long else EPOCHS
        self.spent = 0
        self.truths, self.params, self.macs = list[float](), list[int](), list[int]()
        self.finished = list[tuple[int, float, float]]()  # epochs spent, score, true accuracy

    def step(self) -> None:
        """One trial."""
        trial, proposal, values = self.study.ask()
        short = self.model.accuracy(proposal, values)
        self.params.append(proposal.cost.params)
        self.macs.append(proposal.cost.macs)
        if self.setting.is_long:
            self._train_long(trial, proposal.key, short)
        else:
            noise = self.model.noise if self.setting.noise is None else self.setting.noise
            self._end(trial, EPOCHS, short + noise * self._luck("training", proposal.key), short)

    def best_after(self, epochs: int) -> float:
        """True accuracy of the best score among the trainings that have ended by then; 0 without any."""
        ended = [(score, truth) for spent, score, truth in self.finished if spent <= epochs]
        return max(ended)[1] if ended else 0.0

    def _train_long(self, trial: optuna.Trial, key: str, short: float) -> None:
        """A training with a rung, where a pruner may end it."""
        long = long_model(self.space)
        at_rung = short + self.model.noise * self._luck("training", key)
        trial.report(at_rung, EPOCHS)
        truth = long.offset + long.slope * short + long.own_deviation * self._luck("network", key)
        if self.contender.pruner and trial.should_prune():
            self.spent += EPOCHS
            self.truths.append(truth)
            self.study.tell(trial, None)
            return
        score = truth + long.noise * self._luck("end", key)
        trial.report(score, LONG_EPOCHS)
        self._end(trial, LONG_EPOCHS, score, truth)

    def _end(self, trial: optuna.Trial, epochs: int, score: float, truth: float) -> None:
        self.spent += epochs
        self.truths.append(truth)
        self.finished.append((self.spent, score, truth))
        self.study.tell(trial, score)

    def _luck(self, stream: str, key: str) -> float:
        seed = 0 if stream == "network" else self.seed  # what a network is does not depend on the study
        return float(generator(seed, stream, key).standard_normal())
