"""Kinds of search space: each has the members of the protocol, and a new one is a class and an entry in KINDS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

import space
from search.errors import first_problem
from search.networks.architecture import Architecture
from search.networks.layers import Conv, Dense, GlobalAveragePool, Layer, Softmax
from search.spaces.base import NotInSpace, SearchSpace
from search.spaces.domains import Choices, Domain, Range, Value
from search.study.config import StudyConfig
from search.study.study_file import parse
from search.tuning.scaling import largest_that_fits
from space import KINDS, record_of
from tests.support.runs import Bench, Pretence, pretence, small_run  # noqa: F401 a fixture


class Plain(BaseModel):
    """One to three plain convolutions of one width."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["plain"] = "plain"
    widest: int = 16

    @property
    def parameters(self) -> dict[str, Domain]:
        return {"depth": Choices((1, 2, 3)), "width": Range(4, self.widest, 4)}

    @property
    def widths(self) -> tuple[str, ...]:
        return ("width",)

    @property
    def depths(self) -> tuple[str, ...]:
        return ("depth",)

    def build(self, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
        body: tuple[Layer, ...] = (Conv(int(values["width"])),) * int(values["depth"])
        return Architecture(input_shape, classes, (*body, GlobalAveragePool(), Dense(classes), Softmax()))

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        convolutions = [layer for layer in architecture.layers if isinstance(layer, Conv)]
        if not convolutions:
            raise NotInSpace("width: there is no convolution")
        return {"depth": len(convolutions), "width": convolutions[0].filters}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(space.KINDS, "plain", Plain)


def test_every_kind_has_the_members_of_the_protocol() -> None:
    table = {"kind": "fixed", "network": "it", "networks": {"it": SMALL}}
    examples = [KINDS["pyramid"](), KINDS["residual"](), KINDS["fixed"].model_validate(table)]
    assert all(isinstance(example, SearchSpace) for example in examples)
    assert len(examples) == len(KINDS)


SMALL = {
    "input": [8, 8, 1],
    "classes": 10,
    "layers": [{"kind": "flatten"}, {"kind": "dense", "units": 10}, {"kind": "softmax"}],
}


def test_a_new_kind_is_read_stored_and_searched(plain: None, tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    run = small_run(
        tmp_path / "run",
        space={"kind": "plain", "widest": 12},
        budget={"params": 10_000, "separable_only": False},
        search={"trials": 3},
    )
    assert isinstance(run.config.space, Plain)
    assert run.config.dump()["space"] == {"kind": "plain", "widest": 12}
    assert parse(run.config.dump(), "stored") == run.config
    bench = Bench(run, pretence)
    bench.train_candidates()
    assert [record.outcome for record in bench.records] == ["trained"] * 3


def test_a_new_kind_is_scaled_and_encoded(plain: None) -> None:
    values: dict[str, Value] = {"depth": 2, "width": 4}
    scaled = largest_that_fits(Plain(), values, lambda point: int(point["width"]) <= 12)
    assert scaled == {"depth": 2, "width": 12}
    network = space.build(Plain(), scaled, (8, 8, 1), 10)
    assert space.encode(Plain(), network) == scaled


def test_unknown_kinds_are_rejected_with_those_that_there_are(plain: None) -> None:
    table = {"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 9}}
    for kind in ("plane", 3, ["pyramid"]):
        with pytest.raises(ValidationError) as caught:
            StudyConfig.model_validate(table | {"space": {"kind": kind}})
        assert "space.kind: Input should be 'pyramid', 'residual', 'fixed', 'plain' or 'FILE.py:CLASS'" in first_problem(
            caught.value
        )


def test_a_table_without_a_known_kind_is_read_as_a_pyramid() -> None:
    assert record_of({}) is record_of({"kind": "unknown"}) is record_of(3) is KINDS["pyramid"]
