"""The digest of a study and the differences between two studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.networks.architecture import to_dict
from search.study import references
from search.study.config import (
    FREE,
    StudyConfig,
)
from search.study.study_file import differences, find, load, options_back, parse, relocated
from tests.support.study_files import COSINE, KEYS, STUDY, plain_study, put_at_key, write_study

# Another value for every key that there is, two ways to write some: the first makes the study that is changed. Some go only
# with others, which then stand third; None there: left out.
OTHERS: dict[str, tuple[Any, Any] | tuple[Any, Any, dict[str, Any]]] = {
    "protocol": ("holdout", "course"),
    "base": (0.5, 0.6),
    "data.name": ("digits", "cifar10"),
    "data.path": ("/srv/a.npz", "/srv/b.npz"),
    "data.holdout": (0.1, 0.2),
    "data.images": (500, 600),
    "data.normalize": (False, True),
    "data.size": (16, [16, 8], {"data.name": None}),
    "data.grayscale": (False, True, {"data.name": None}),
    "data.background": ("white", "black", {"data.name": None}),
    "data.classes": (["a", "b"], ["a", "b", "c"], {"data.name": None}),
    "data.bits": (None, 12, {"data.name": None}),
    "data.skip_damaged": (False, True, {"data.name": None}),
    "data.drop_copies": (False, True),
    "data.folds": (None, 5),
    "data.group": (None, r"patient(\d+)", {"data.name": None}),
    "budget.params": (2000, 1999),
    "budget.separable_only": (True, False),
    "budget.macs": (10**9, 10**8),
    "budget.flash_bytes": (10**6, None),
    "budget.peak_activation_bytes": (10**6, 10**5),
    "budget.arena_bytes": (None, 10**6),
    "budget.receptive_field": ({"at_least": 1}, {"at_least": 1, "at_most": 64}),
    "budget.device": ("64KB/1MB", "nrf52840"),
    "space.kind": ("pyramid", "fixed"),  # with other keys, see below
    "space.blocks": ({"low": 2, "high": 3}, {"low": 2, "high": 4}),
    "space.width": ({"low": 8, "high": 48, "step": 8}, {"low": 8, "high": 48, "step": 4}),
    "space.kernel": (3, [3, 5]),
    "space.stride": (1, 2),
    "space.padding": ("same", "valid"),
    "space.dropout": (0.1, 0.2),
    "space.order": (["conv-bn-act", "conv-dropout-bn-act"], ["conv-act-bn", "conv-dropout-bn-act"]),
    "space.convolution": ("separable", "spatial_separable"),
    "space.activation": ("relu", "silu"),
    "space.pools": (1, 2),
    "space.pool_position": ([1, 2], [1]),
    "space.pool_kind": ("max", "average"),
    "space.pool_dropout": (0.0, 0.1),
    "space.head": ("conv", "dense"),
    "space.head_kernel": (1, 3),
    "space.head_padding": ("same", "valid"),
    "space.head_order": ("conv-dropout-bn-act", ["conv", "conv-dropout-bn-act"]),
    "space.head_dropout": (0.1, 0.2),
    "space.head_bias": (True, False),
    "space.momentum": (0.9, 0.99),
    "space.epsilon": (0.001, 0.01),
    "recipe.epochs": (2, 3),
    "recipe.batch_size": (64, 32),
    "recipe.optimizer": ("adam", "sgd"),
    "recipe.learning_rate": (0.001, 0.002),
    "recipe.momentum": (0.9, 0.8),
    "recipe.weight_decay": (0.0, 0.1),
    "recipe.label_smoothing": (0.0, 0.1),
    "recipe.class_weights": ("none", "balanced"),
    "recipe.clip_norm": (0.0, 1.0),
    "recipe.ema": (0.0, 0.99),
    "recipe.precision": ("auto", "float32"),
    "recipe.initializer": ("glorot_uniform", "he_normal"),
    "recipe.normalize": (True, False),
    "recipe.deterministic": (False, True),
    "recipe.schedule": ({"kind": "plateau", "factor": 0.5}, {"kind": "plateau", "factor": 0.4}),
    "recipe.schedules": ([COSINE, {"kind": "linear"}], [COSINE, {"kind": "constant"}], {"recipe.schedule": None}),
    "recipe.augment": ({"flip": True, "crop": 2}, {"flip": True, "crop": 3}),
    "recipe.warmup": ([0.1, 0.2], [0.1, 0.3], {"recipe.schedule": {"kind": "linear"}}),
    "recipe.augment_strength": (1.0, [0.5, 1.0]),
    "recipe.learning_rates": ({"adam": 0.1}, {"adam": 0.2}, {"recipe.learning_rate": None}),
    "recipe.augments": ([{}, {"crop": 2}], [{}, {"crop": 3}], {"recipe.augment": None}),
    "search.trials": (2, 3),
    "search.sampler": ("tpe", "random"),
    "search.fit": ("reject", "fill"),
    "search.repeats": (2, 3, {"search.sampler": "grid"}),
    "search.rank_by": ("float", "int8"),
    "search.metric": ("accuracy", "macro_f1"),
    "search.flip_average": (False, True),
    "search.warm_start": (["eip-c"], ["eip-c", "eip-d"]),
    "search.adopt": ((), ("/runs/old",)),
    "search.prior": ((), ("/runs/other",), {"search.sampler": "bayes"}),
    "search.directions": (None, {"accuracy": "maximize", "macs": "minimize"}, {}),
    "search.rungs": (None, {"first": 1}, {"recipe.schedule": COSINE}),
    "search.rungs.first": (1, 2, {"recipe.schedule": COSINE, "recipe.epochs": 9}),
    "search.rungs.factor": (2, 3, {"recipe.schedule": COSINE}),
    "search.seed": (0, 1),
    "search.recycle_after": (20, 21),
    "search.stall_minutes": (15.0, 16.0),
    "search.grace_minutes": (2.0, 3.0),
    "log.to": ((), ("tensorboard",)),
    "stop.hours": (None, 2.0),
    "stop.device_hours": (3.0, 4.0),
    "stop.accuracy": (0.9, 0.8),
    "stop.patience": (5, None),
    "stop.expected_gain": (None, 0.001, {"search.sampler": "bayes"}),
    "stop.trial_minutes": (10.0, 11.0),
}
MAY_CHANGE = {
    *("data.path", "search.trials", "search.recycle_after", "search.stall_minutes", "search.grace_minutes"),
    *("stop.hours", "stop.device_hours", "stop.accuracy", "stop.patience", "stop.expected_gain"),
    "log.to",
}


def _changed(key: str, which: int) -> StudyConfig:
    """The study of all first values, with one of the values of a key and what goes with it."""
    _, _, *rest = OTHERS[key]
    values = {place: value[0] for place, value in OTHERS.items() if len(value) == 2}
    values |= {key: OTHERS[key][which]} | (rest[0] if rest else {})
    raw: dict[str, Any] = {}
    for place, value in values.items():
        if value is not None or place == key:
            put_at_key(raw, place, value)
    return parse(raw, "study")


def test_every_key_that_there_is_is_tried() -> None:
    assert set(OTHERS) == set(KEYS) - {"data", "budget", "space", "recipe", "search", "stop", "log"}
    assert FREE == MAY_CHANGE


def test_keys_that_came_later_are_stored_only_where_they_say_something() -> None:
    """So that the digest of a study, and what is stored of it, is what earlier versions made of it."""
    later = {"bits", "skip_damaged", "drop_copies", "folds", "group"}
    assert not later & parse(plain_study(), "study").dump()["data"].keys()
    assert "log" not in parse(plain_study(), "study").dump()
    assert not {"adopt", "prior"} & parse(plain_study(), "study").dump()["search"].keys()
    own = {"path": "/srv/a", "bits": 12, "skip_damaged": True, "drop_copies": True, "folds": 5, "group": "p[0-9]+"}
    dumped = parse(plain_study(data=own), "study").dump()
    assert later <= dumped["data"].keys()
    assert parse(dumped, "dump").data.options.bits == 12


@pytest.mark.parametrize("key", sorted(OTHERS.keys() - {"space.kind"}))
def test_the_digest_holds_all_that_can_change_a_result_and_nothing_else(key: str) -> None:
    stored, asked = _changed(key, 0), _changed(key, 1)
    assert stored != asked
    assert (stored.digest == asked.digest) == (key in MAY_CHANGE)
    found = differences(stored, asked)
    assert (found == []) == (key in MAY_CHANGE)
    assert all(text.startswith(key) and " here, not " in text for text in found)


def test_another_network_that_is_given_is_another_study() -> None:
    """By another name, and by the same name with another network."""
    networks = {name: to_dict(references.find(name).architecture) for name in ("eip-c", "eip-d")}
    tables = [
        {"network": "eip-c", "networks": networks},
        {"network": "eip-d", "networks": networks},
        {"network": ["eip-c", "eip-d"], "networks": networks},
        {"network": "eip-c", "networks": {"eip-c": networks["eip-d"]}},
    ]
    found = [parse(plain_study(space={"kind": "fixed"} | table, search={"trials": 1}), "file") for table in tables]
    assert len({one.digest for one in found}) == 4
    assert all(differences(found[0], one) for one in found[1:])


def test_the_digest_is_that_of_values_not_of_writing() -> None:
    short = parse(plain_study(space={"pools": 0, "kernel": 3}, recipe={"learning_rate": 1}), "short")
    long = parse(plain_study(space={"kernel": 3, "pools": 0}, recipe={"learning_rate": 1.0}, protocol="holdout"), "long")
    assert short.digest == long.digest
    assert len(short.digest) == 16


def test_a_difference_gives_the_key_and_both_values() -> None:
    found = differences(parse(plain_study(), "a"), parse(plain_study(budget={"params": 9}, recipe={"epochs": 3}), "b"))
    assert "budget.params is 2000 here, not 9" in found
    assert "recipe.epochs is 2 here, not 3" in found
    assert "recipe.batch_size is 64 here, not 128" in found
    assert len(found) == 3


def test_files_of_networks_may_move_with_their_study_file() -> None:
    studies = [
        plain_study(
            base=f"{folder}/base.json", search={"warm_start": ["eip-c", f"{folder}/own.json"], "adopt": [f"{folder}/a/run"]}
        )
        for folder in ("/old", "/new")
    ]
    first, moved = (parse(raw, "test") for raw in studies)
    assert differences(first, moved) == []
    others = ("base", "/old/other.json"), ("base", "base"), ("warm_start", ["eip-c", "/old/another.json"])
    for key, value in (*others, ("adopt", ["/old/b/run"])):
        changed = first.dump()
        (changed if key == "base" else changed["search"])[key] = value
        assert len(differences(first, parse(changed, "test"))) == 1


def test_files_that_moved_with_their_study_file_are_found(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    for name in ("base.json", "set.npz"):
        (old / name).touch()
    path = write_study(old, STUDY.replace('name = "digits"', 'path = "set.npz"'))
    stored = load(path)
    assert relocated(stored, path) is stored
    old.rename(new)
    found = relocated(stored, new / "study.toml")
    assert (found.base, found.data.path) == (str(new / "base.json"), str(new / "set.npz"))
    write_study(new, "no study file")
    assert relocated(stored, new / "study.toml") is stored


def test_a_difference_that_options_made_is_undone_with_those_options() -> None:
    stored = parse(plain_study(recipe={"epochs": 5, "batch_size": 32}), "a")
    assert options_back(stored, parse(plain_study(recipe={"epochs": 2, "batch_size": 32}), "b")) == "--epochs 5"
    assert options_back(stored, parse(plain_study(), "b")) in ("--epochs 5 --batch-size 32", "--batch-size 32 --epochs 5")
    assert options_back(stored, parse(plain_study(budget={"params": 9}), "b")) is None


def test_a_folder_that_holds_a_study_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "my study").mkdir()
    path = tmp_path / "my study" / "study.toml"
    path.write_text("", encoding="utf-8")
    assert find(str(path.parent)) == find(str(path)) == ("my_study", path)


def test_the_number_of_trials_may_grow_on_resume_and_a_limit_change() -> None:
    """From none, and to none, too."""
    stored = parse(plain_study(search={"rungs": {"first": 1}}, recipe={"epochs": 2, "schedule": COSINE}), "a")
    changed = stored.dump() | {"stop": {"hours": 1.0, "accuracy": 0.9, "patience": 3, "device_hours": 9.0}}
    changed["search"]["trials"] = 99
    asked = parse(changed, "b")
    assert differences(stored, asked) == differences(asked, stored) == []
    assert stored.digest == asked.digest
    slower = parse(changed | {"stop": {"trial_minutes": 5}}, "c")
    assert differences(stored, slower) == ["stop.trial_minutes is null here, not 5.0"]
    without = stored.dump()
    without["search"]["rungs"] = None
    assert differences(stored, parse(without, "d")) == [
        "search.rungs.first is 1 here, not null",
        "search.rungs.factor is 3 here, not null",
    ]
