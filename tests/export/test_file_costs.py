"""The real int8 file against the budget, after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import objective
from search.budget.cost import compute_cost
from search.budget.limits import Breach, Budget
from search.data.dataset import load_dataset
from search.data.preprocessing import Pixels
from search.export import tflite
from search.export.file_costs import find_breach, measure_costs, read_graph
from search.export.int8 import Int8Network, int8_confusion
from search.export.tflite import int8_tflite
from search.networks.architecture import Architecture
from search.networks.layers import Activation, BatchNorm, GlobalAveragePool, Residual, SeparableConv, Softmax
from search.runner.events import Done
from search.study.records import ranked
from search.training.model import build
from tests.support.runs import Bench, Pretence, pretence, small_run

__all__ = ["pretence"]

NETWORK = Architecture(
    (8, 8, 1),
    10,
    (
        SeparableConv(12), BatchNorm(), Activation("relu"),
        Residual((SeparableConv(12), BatchNorm())), Activation("relu"), BatchNorm(),
        SeparableConv(10, 1, use_bias=True), GlobalAveragePool(), Softmax(),
    ),
)  # fmt: skip


def test_the_real_file_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    conversions: list[Architecture] = []

    def convert(architecture: Architecture, *arguments: Any) -> bytes:
        conversions.append(architecture)
        return int8_tflite(architecture, *arguments)

    monkeypatch.setattr(tflite, "int8_tflite", convert)
    data, pixels = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None), Pixels()
    weights = [array + np.float32(0.1) for array in build(NETWORK, seed=1).get_weights()]
    network = Int8Network(NETWORK, weights, pixels, data)
    content = network.content
    predicted, costs = compute_cost(NETWORK), measure_costs(content)
    graph = read_graph(content)
    assert (graph.sizes, graph.operators) == (predicted.lowered.sizes, predicted.lowered.operators)
    assert costs == {"flash_bytes": len(content), "arena_bytes": predicted.arena_bytes}

    def breach(**limits: int) -> Breach | None:
        return find_breach(Budget.model_validate({"params": 10**6} | limits), network)

    assert breach() is None
    assert breach(flash_bytes=len(content) + 1, arena_bytes=predicted.arena_bytes + 1) is None
    found = breach(flash_bytes=len(content))
    assert found == Breach(
        "over flash",
        f"the trained network takes {len(content):,} bytes of flash in int8, the budget is under {len(content):,}",
    )
    too_small = breach(arena_bytes=predicted.arena_bytes)
    assert too_small is not None and too_small.rule == "over arena"
    int8_confusion(network, data.x_val[:8], data.y_val[:8])
    assert conversions == [NETWORK], "one conversion for budget and accuracy"


def test_a_candidate_whose_file_is_too_large_is_rejected_and_not_ranked(
    tmp_path: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "the trained network takes 66,368 bytes of flash in int8, the budget is at most 65,536"
    breaches: list[Breach | None] = [Breach("over flash", reason), None, None]
    monkeypatch.setattr(objective, "find_breach", lambda *arguments: breaches.pop(0))
    bench = Bench(small_run(tmp_path / "run", search={"trials": 2}), pretence)
    pretence.plays += [0.9, 0.6, 0.5]
    assert bench.train_candidates() == Done()
    oversized, *others = bench.records
    assert (oversized.outcome, oversized.reason) == ("rejected", reason)
    assert [record.outcome for record in others] == ["trained", "trained"], "it does not count towards the study's trials"
    assert [record.best_val_accuracy for record in ranked(bench.records)] == [0.6, 0.5]
    assert bench.study.best_value == 0.6
    assert (bench.run.folder / "trials" / str(oversized.number) / "history.json").is_file(), "its log is kept"
