"""Any other file ends in one line."""

from __future__ import annotations

import copy
import io
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import __main__ as command_line
from search.errors import UserError
from search.keras_import.graph import read_graph
from tests.support.keras_archives import written
from tests.support.keras_files import call3, chain2, functional, layer, residual2, residual3, sequential, zipped

# --- anything else ---------------------------------------------------------------------------------------------------


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


_STRANGE = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1,
        3,
        10**9,
        10**400,
        1e308,
        float("nan"),
        "",
        "relu",
        "__slice__",
        [],
        {},
        [None],
        [1, 2],
        [3, 3, 3],
    ]
)


MODELS = [residual2(), residual3(), chain2(), sequential(*chain2()["config"]["layers"], chain2(), residual3())]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw: Any) -> Any:
    """A description in which some values are others, have gone, or are those of another place."""
    description = copy.deepcopy(draw(st.sampled_from(MODELS)))
    for _ in range(draw(st.integers(1, 4))):
        found = [path for path in places(description) if path]
        path = draw(st.sampled_from(found))
        parent = description
        for key in path[:-1]:
            parent = parent[key]
        way = draw(st.sampled_from(("strange", "value", "gone", "copied")))
        if way == "gone":
            del parent[path[-1]]
        elif way == "copied":
            source = description
            for key in draw(st.sampled_from(found)):
                source = source[key]
            parent[path[-1]] = copy.deepcopy(source)
        else:
            parent[path[-1]] = copy.deepcopy(draw(_STRANGE if way == "strange" else _VALUES))
        if not description:
            break
    return description


def import_quietly(path: Path) -> int:
    """The exit status of the verb on the file, of which a traceback would be an error here."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        sys.argv = ["search", "import", str(path), "--to", str(path.with_suffix(".out.json")), "--replace", "--nearest"]
        command_line.main()
    assert ended.value.code in (0, 2)
    assert err.getvalue().count("\n") == (1 if ended.value.code else 0) and len(err.getvalue()) < 1000
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = sys.argv
    yield tmp_path_factory.mktemp("hostile")
    sys.argv = before


@settings(max_examples=75)
@given(description=mutated())
def test_mutated_descriptions_end_in_a_network_or_in_one_line(description: Any, folder: Path) -> None:
    import_quietly(written(folder / "mutated.json", description))


@settings(max_examples=20)
@given(kind=st.sampled_from(["Sequential", "Functional"]), config=_VALUES, layers=st.lists(_VALUES, max_size=3))
def test_any_json_ends_in_one_line(kind: str, config: Any, layers: list[Any], folder: Path) -> None:
    for description in (config, {"class_name": kind, "config": config}, {"class_name": kind, "config": {"layers": layers}}):
        assert import_quietly(written(folder / "any.json", description)) == 2


@settings(max_examples=30)
@given(data=st.data())
def test_damaged_zips_end_in_a_network_or_in_one_line(data: st.DataObject, folder: Path) -> None:
    path = zipped(folder / "damaged.keras", residual3())
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)) if content else ():
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    import_quietly(path)


def test_a_model_that_asks_for_much_work_ends_soon(folder: Path) -> None:
    """A thousand sums of sixteen: what is walked for them grows with their square."""
    calls = [call3("InputLayer", "c0", batch_shape=[None, 4, 4, 2])]
    calls += [
        call3("Add", f"c{number}", *[f"c{max(number - back, 0)}" for back in range(1, 17)]) for number in range(1, 999)
    ]
    begun = time.monotonic()
    assert import_quietly(written(folder / "large.json", functional(*calls))) == 2
    assert time.monotonic() - begun < 10
    with pytest.raises(UserError, match="sum joins 1,000 branches, at most 16 are read"):
        read_graph(functional(calls[0], call3("Add", "sum", *["c0"] * 1000)))
    with pytest.raises(UserError, match="more than 1,000 layers"):
        read_graph(sequential(*(layer("ReLU", batch_shape=[None, 4, 4, 2]) for _ in range(2000))))


def test_calls_in_a_circle_are_rejected() -> None:
    circle = call3("ReLU", "one", "two"), call3("ReLU", "two", "one")
    with pytest.raises(UserError, match="is called on its own output"):
        read_graph(functional(call3("InputLayer", "image", batch_shape=[None, 4, 4, 2]), *circle))
