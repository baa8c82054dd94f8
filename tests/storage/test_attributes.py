"""search.storage.attributes: on SQLite files, read back through Optuna."""

from __future__ import annotations

import sqlite3
import threading
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from search.storage.attributes import Attributes, rewrite
from search.storage.database import open_storage, storage_of
from search.storage.resilient import ResilientStorage
from search.storage.urls import sqlite_url


def open_study(folder: Path, name: str = "s") -> optuna.Study:
    storage = open_storage(sqlite_url(folder))
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return open_study(tmp_path)


def kept(study: optuna.Study) -> dict[str, Any]:
    return dict(study._storage.get_study_system_attrs(study._study_id))


def put(study: optuna.Study, attributes: Attributes) -> None:
    for key, value in attributes.items():
        study._storage.set_study_system_attr(study._study_id, key, value)


def test_only_attributes_with_the_prefix_are_replaced(study: optuna.Study, tmp_path: Path) -> None:
    put(study, {"note:0": "old", "note:1": "gone", "other": 1, "Note:2": "capital"})
    neighbour = open_study(tmp_path, "neighbour")
    put(neighbour, {"note:0": "theirs"})
    seen = []
    rewrite(study, ["note:"], lambda before: seen.append(dict(before)) or {"note:0": "new", "note:5": [1, {"a": None}]})
    assert seen == [{"note:0": "old", "note:1": "gone"}]
    assert kept(study) == {"note:0": "new", "note:5": [1, {"a": None}], "other": 1, "Note:2": "capital"}
    assert kept(neighbour) == {"note:0": "theirs"}


def test_an_underscore_or_a_percent_sign_stands_for_itself(study: optuna.Study) -> None:
    put(study, {"a_b": 1, "axb": 2, "c%d": 3, "cxxd": 4})
    rewrite(study, ["a_b", "c%d"], lambda before: {})
    assert kept(study) == {"axb": 2, "cxxd": 4}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    return open_study(tmp_path_factory.mktemp("shared"))


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from("abc"), st.text(max_size=5)), st.dictionaries(st.sampled_from("bcd"), st.text()))
def test_any_attributes_become_any_others(shared: optuna.Study, before: dict[str, str], after: dict[str, str]) -> None:
    rewrite(shared, "abcd", lambda _: before)
    assert kept(shared) == before
    rewrite(shared, "abcd", lambda found: after if found == before else {})
    assert kept(shared) == after


def test_an_unchanged_attribute_is_not_written(study: optuna.Study) -> None:
    put(study, {"a": 1, "b": 2})
    statements: list[str] = []
    event.listen(storage_of(study).engine, "before_cursor_execute", lambda *words: statements.append(words[2]))
    rewrite(study, ["a", "b"], lambda before: before)
    assert [one.split()[0] for one in statements] == ["BEGIN", "SELECT"]
    rewrite(study, ["a", "b"], lambda before: {**before, "b": 3})
    assert [one.split()[0] for one in statements[2:]] == ["BEGIN", "SELECT", "UPDATE"]


def test_a_change_that_fails_leaves_everything(study: optuna.Study) -> None:
    put(study, {"a": 1})
    with pytest.raises(TypeError):
        rewrite(study, ["a"], lambda before: {"a": 2, "a2": object()})
    assert kept(study) == {"a": 1}


def test_a_reader_sees_all_of_a_text_or_none(study: optuna.Study, tmp_path: Path) -> None:
    storage = open_storage(sqlite_url(tmp_path), only_reads=lambda: True)
    reader, seen = optuna.load_study(storage=storage, study_name="s"), list[set[int]]()
    over = threading.Event()

    def write() -> None:
        for turn in count():
            if over.is_set():
                break
            rewrite(study, ["part:"], lambda before, turn=turn: {f"part:{place}": turn for place in range(5 + turn % 3)})

    thread = threading.Thread(target=write)
    thread.start()
    while len({turn for turns in seen for turn in turns}) < 20:
        seen.append(set(kept(reader).values()))
    over.set()
    thread.join()
    assert max(map(len, seen)) == 1, "parts of two texts were seen together"


def test_a_replacement_is_repeated_if_another_process_was_faster(tmp_path: Path) -> None:
    """As on a server, where two may read before either writes; our own SQLite lets one transaction in at a time."""
    study = optuna.create_study(storage=ResilientStorage(optuna.storages.RDBStorage(sqlite_url(tmp_path))))
    rivals: list[str] = []

    @event.listens_for(storage_of(study).engine, "before_cursor_execute")
    def meanwhile(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("INSERT") and not rivals:
            rivals.append("a")
            with sqlite3.connect(tmp_path / "study.db") as rival:
                rival.execute(
                    "INSERT INTO study_system_attributes (study_id, key, value_json) VALUES (?, 'a', '7')", [study._study_id]
                )

    rewrite(study, ["a"], lambda before: {"a": before.get("a", 0) + 1})
    assert rivals == ["a"]
    assert kept(study) == {"a": 8}
