"""A study from Python: what is written, refused, trained and read."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from search import Study
from search.api.study_toml import study_text
from search.errors import UserError
from search.study.config import ROOT
from tests.support.cells import Cells

CELLS = ROOT / "tests" / "support" / "cells.py"
SMALL: dict[str, Any] = {
    "base": 0.5,
    "budget": 2_000,
    "space": {"kind": f"{CELLS}:Cells"},
    "recipe": {"epochs": 1, "batch_size": 32, "learning_rate": 0.01},
    "search": {"trials": 1, "sampler": "random"},
}


def images(count: int = 300) -> dict[str, Any]:
    """Images of two classes, dark and bright, as arrays."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pixels = generator.integers(0, 100, (count, 8, 8, 1)) + 150 * labels[:, None, None, None]
    split = count * 2 // 3
    pixels = pixels.astype(np.uint8)
    return {"x_train": pixels[:split], "y_train": labels[:split], "x_test": pixels[split:], "y_test": labels[split:]}


def test_keyword_arguments_become_a_study_file(tmp_path: Path) -> None:
    study = Study(folder=tmp_path / "mine", data="digits", **SMALL)
    assert study.path == tmp_path / "mine" / "study.toml"
    written = tomllib.loads(study.path.read_text(encoding="utf-8"))
    assert written["budget"] == {"params": 2_000} and written["data"] == {"name": "digits"}
    assert study.config.trials == 1
    assert study.config.space.parameters.keys() == {"width_0", "width_1"}
    assert Study(tmp_path / "mine").config == Study(folder=tmp_path / "mine", data="digits", **SMALL).config


def test_own_images_and_an_own_space_train_by_the_same_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = Study(folder=tmp_path / "mine", data=images(), **SMALL | {"space": Cells(lowest=6)})
    study.plan()
    assert "fit under 2,000 parameters" in capfd.readouterr().out
    board = study.run()
    assert [row["name"] for row in board] == ["accuracy to beat", "trial 0"] and board[1]["outcome"] == "trained"
    assert "trial 0" in capfd.readouterr().out
    network = study.network()
    assert [layer.filters for layer in network.layers if layer.kind == "separable_conv"] == [
        study.trials()[0][name] for name in ("width_0", "width_1")
    ]
    assert study.layers()[0]["kind"] == "separable_conv"
    assert study.opened.run.config.space.model_dump() == {"lowest": 6, "highest": 16}
    folder = study.export(to=tmp_path / "out", formats=["json"])
    assert (folder / "best_model.json").is_file()
    with pytest.raises(UserError, match="the study began with other images"):
        Study(folder=tmp_path / "mine", data=images(330), **SMALL | {"space": Cells(lowest=6)}).run()


def test_an_own_space_that_has_changed_is_rejected(tmp_path: Path) -> None:
    source = tmp_path / "cells.py"
    source.write_text(CELLS.read_text(encoding="utf-8"), encoding="utf-8")
    study = Study(folder=tmp_path / "mine", data="digits", **SMALL | {"space": {"kind": "../cells.py:Cells"}})
    stored = study.config.dump()
    assert stored["space"]["kind"].startswith(f"{source}:Cells@") and stored["space"]["lowest"] == 4
    assert type(study.config).model_validate(stored) == study.config
    source.write_text(source.read_text(encoding="utf-8") + "\n# another\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has changed since the study began; restore it"):
        type(study.config).model_validate(stored)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (None, "cells.py:Cells", r"study.toml: space.kind: .*cells.py cannot be read \(No such file"),
        ("1 / 0", "cells.py:Cells", r"cells.py fails when it is loaded \(ZeroDivisionError: division by zero\)"),
        ("Cells = 3", "cells.py:Cells", "cells.py holds no pydantic model 'Cells'"),
        (
            "from pydantic import BaseModel\nclass Cells(BaseModel): pass",
            "cells.py:Cells",
            "Cells in .* has no 'parameters'",
        ),
        ("", "cells:Cells", "space.kind: Input should be 'pyramid', .* or 'FILE.py:CLASS', not 'cells:Cells'"),
    ],
)
def test_an_own_space_that_cannot_be_used_is_rejected_in_one_line(
    tmp_path: Path, text: str | None, kind: str, message: str
) -> None:
    if text is not None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "cells.py").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as refused:
        Study(folder=tmp_path / "mine", data="digits", **SMALL | {"space": {"kind": kind}})
    assert "\n" not in str(refused.value)


def test_an_unknown_key_of_an_own_space_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"space.lowest: .*whole|space.lowest: Input should be a valid integer"):
        Study(folder=tmp_path, data="digits", **SMALL | {"space": SMALL["space"] | {"lowest": "x"}})


def test_a_class_without_a_file_is_rejected(tmp_path: Path) -> None:
    space: dict[str, Any] = {}
    exec(CELLS.read_text(encoding="utf-8"), space)
    space["Cells"].__module__ = "a_notebook"
    with pytest.raises(UserError, match="Cells is defined in no Python file"):
        Study(folder=tmp_path, data="digits", **SMALL | {"space": space["Cells"]()})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "pass a study by its name or file, or a folder"),
        ({"study": "quickstart", "folder": "x"}, "pass a study by its name or file, or a folder"),
        ({"study": "quickstart", "budget": 3}, "Study: budget belongs to a new study"),
        ({"study": "quickstrt"}, "did you mean 'quickstart'"),
        ({"folder": "x", "bugdet": 3}, "Study: bugdet is no table of a study file, did you mean 'budget'"),
        (
            {"folder": "x", "base": 0.5, "data": "digits", "budget": {"params": object()}},
            "budget.params: a study file holds",
        ),
    ],
)
def test_wrong_arguments_are_rejected_in_one_line(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        Study(arguments.pop("study", None), **arguments)


def test_a_study_file_of_the_user_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("base = 0.5\n", encoding="utf-8")
    with pytest.raises(UserError, match="was not written by Study"):
        Study(folder=tmp_path, data="digits", **SMALL)
    assert (tmp_path / "study.toml").read_text(encoding="utf-8") == "base = 0.5\n"


def test_tables_at_fault_leave_the_study_as_it_was(tmp_path: Path) -> None:
    study = Study(folder=tmp_path / "mine", data=images(), **SMALL)
    before = {path: path.read_bytes() for path in study.path.parent.iterdir()}
    with pytest.raises(UserError, match=r"budget\.params"):
        Study(folder=tmp_path / "mine", data=images(30), **SMALL | {"budget": -3})
    assert {path: path.read_bytes() for path in study.path.parent.iterdir()} == before
    with pytest.raises(UserError, match=r"data\.name"):
        Study(folder=tmp_path / "other", data="digitz", **SMALL)
    assert not (tmp_path / "other").exists()


def test_images_are_written_once(tmp_path: Path) -> None:
    def written() -> int:
        Study(folder=tmp_path, data=images() | {"normalize": True}, **SMALL)
        return (tmp_path / "images.npz").stat().st_mtime_ns

    first = written()
    assert written() == first and Study(tmp_path).config.data.normalize
    Study(folder=tmp_path, data=images(30), **SMALL)
    with np.load(tmp_path / "images.npz") as stored:
        assert len(stored["x_train"]) == 20
    patients = np.array(["a", "b"] * 10, object)  # as a column of a table holds texts
    Study(folder=tmp_path, data=images(30) | {"groups_train": patients}, **SMALL)
    with np.load(tmp_path / "images.npz") as stored:
        assert stored["groups_train"].tolist() == patients.tolist()


def test_a_table_is_a_data_frame_where_pandas_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from search.api import study

    rows = [{"name": "a"}]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert study._table(rows) == rows
    table = study._table([{"name": "a<b", "share": 0.123456, "rank": None}])._repr_html_()
    assert "<th>share</th>" in table and "<td>a&lt;b</td><td>0.1235</td><td></td>" in table
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=tuple))
    assert study._table(rows) == ({"name": "a"},)


def test_every_kind_of_value_is_read_back() -> None:
    tables = {
        "base": 0.5,
        "data": {"name": 'a "quoted" \\ name\n\x7fé', "sizes": (8, 8), "on": True, "off": None, "odd key": {"a": 1e-5}},
        "empty": {},
    }
    read = tomllib.loads(study_text("heading", tables))
    assert read == {
        "base": 0.5,
        "data": {"name": 'a "quoted" \\ name\n\x7fé', "sizes": [8, 8], "on": True, "odd key": {"a": 1e-5}},
        "empty": {},
    }
