"""study.toml to a StudyConfig and back, what its digest holds, and how a fault in it is told."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.budget.limits import Budget
from search.errors import UserError
from search.files import safe_name
from search.networks.architecture import to_dict
from search.spaces.recipe import RecipeSpace
from search.study import references
from search.study.config import (
    FREE,
    OPTIONS,
    ROOT,
    STUDIES,
    TRIALS,
    DataConfig,
    Rungs,
    SearchConfig,
    StopConfig,
    StudyConfig,
    flat,
)
from search.study.study_file import differences, find, load, options_back, parse
from space import Pyramid
from tests.support.strategies import REFERENCES, space_tables

SHIPPED = ("cifar10_100k", "cifar10_100k_holdout", "quickstart")

STUDY = """
protocol = "holdout"
base = "base.json"

[data]
name = "digits"

[budget]
params = 2_000

[space]
blocks = { low = 1, high = 3 }
width = { low = 8, high = 48, step = 8 }
pools = 1

[recipe]
epochs = 2
batch_size = 64

[search]
trials = 2
"""


def written(folder: Path, text: str | bytes = STUDY) -> Path:
    path = folder / "study.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def plain(**changes: Any) -> dict[str, Any]:
    """A small study as plain values, some of its tables replaced."""
    return tomllib.loads(STUDY) | {"base": 0.5} | changes


def told(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_comes_back_from_what_it_dumps(name: str) -> None:
    config = load(find(name)[1])
    again = parse(json.loads(json.dumps(config.dump(), allow_nan=False)), "dump")
    assert (again, again.digest, again.dump()) == (config, config.digest, config.dump())


def _domains(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    ranges = st.lists(numbers, min_size=2, max_size=2, unique=True).map(lambda two: {"low": min(two), "high": max(two)})
    return numbers | st.lists(numbers, min_size=1, max_size=3, unique=True) | ranges


FRACTIONS = st.floats(0, 0.99)
FLIPS = st.sampled_from([True, False, "alternating"])
SCHEDULES = st.sampled_from(
    [
        {"kind": "constant"},
        {"kind": "cosine"},
        {"kind": "one-cycle", "warmup": 0.1},
        {"kind": "linear", "warmup": 0.1},
        {"kind": "plateau", "patience": 2},
        {"kind": "inverse-time", "rate": 0.3},
    ]
)
RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 100),
        "batch_size": _domains(st.integers(1, 512)),
        "learning_rate": _domains(st.floats(1e-6, 10)),
        "momentum": _domains(FRACTIONS),
        "weight_decay": _domains(FRACTIONS),
        "label_smoothing": _domains(FRACTIONS),
        "clip_norm": _domains(st.floats(0, 10)),
        "ema": FRACTIONS,
        "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
        "optimizer": st.sampled_from(["adam", ["adamw", "sgd"]]),
        "initializer": st.sampled_from(["he_normal", ["he_uniform", "glorot_normal"]]),
        "normalize": st.sampled_from([True, False, [True, False]]),
        "schedule": SCHEDULES,
        "augment": st.fixed_dictionaries({}, optional={"flip": FLIPS, "crop": st.integers(0, 8), "mixup": FRACTIONS}),
    },
)
POSITIVE = st.integers(1, 9) | st.floats(1e-6, 1e6)
TABLES = st.fixed_dictionaries(
    {
        "base": st.sampled_from(["base", "own.json", 0.84]),
        "data": st.fixed_dictionaries(
            {"name": st.sampled_from(["cifar10", "digits"])}, optional={"normalize": st.booleans()}
        ),
        "budget": st.fixed_dictionaries({"params": st.integers(1, 10**7)}, optional={"separable_only": st.booleans()}),
        "space": space_tables(),
    },
    optional={
        "protocol": st.sampled_from(["course", "holdout"]),
        "recipe": RECIPES,
        "search": st.fixed_dictionaries(
            {},
            optional={
                "trials": st.integers(1, 99),
                "seed": st.integers(0, 2**63 - 1),
                "sampler": st.sampled_from(["tpe", "random", "nsga2"]),
                "fit": st.sampled_from(["reject", "fill"]),
                "warm_start": st.lists(st.sampled_from(["eip-c", "own.json"]), max_size=2),
            },
        ),
        "stop": st.fixed_dictionaries(
            {},
            optional={
                "hours": POSITIVE,
                "device_hours": POSITIVE,
                "accuracy": st.floats(0.01, 0.99),
                "patience": st.integers(1, 99),
                "trial_minutes": POSITIVE,
            },
        ),
    },
)


@given(TABLES)
def test_any_study_comes_back_from_what_it_dumps(raw: dict[str, Any]) -> None:
    before = copy.deepcopy(raw)
    try:
        config = parse(raw, "random")
    except UserError as error:
        assume("nothing is searched" not in str(error))
        raise
    assert raw == before
    again = parse(json.loads(json.dumps(config.dump(), allow_nan=False)), "dump")
    assert (again.digest, again.dump()) == (config.digest, config.dump())
    assert differences(config, again) == []


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers() | st.text(max_size=2) | st.lists(st.integers(), max_size=2), max_size=3),
    st.dictionaries(
        st.sampled_from(["low", "high", "step", "log", "each", "choices", "per", "kind"]), st.floats() | st.integers()
    ),
)
PLACES = [
    *StudyConfig.model_fields,
    *(f"data.{key}" for key in DataConfig.model_fields),
    *(f"budget.{key}" for key in Budget.model_fields),
    *(f"space.{key}" for key in Pyramid.model_fields),
    *(f"recipe.{key}" for key in RecipeSpace.model_fields),
    *(f"search.{key}" for key in SearchConfig.model_fields),
    *(f"search.rungs.{key}" for key in Rungs.model_fields),
    *(f"stop.{key}" for key in StopConfig.model_fields),
]


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=30)
@given(junk=JUNK)
def test_whatever_stands_at_a_key_is_taken_as_it_is_or_refused_in_one_line(place: str, junk: object) -> None:
    raw = plain()
    if place.startswith("search.rungs"):
        raw["recipe"]["schedule"] = {"kind": "cosine"}
    _put(raw, place, junk)
    try:
        config = parse(raw, "file")
    except UserError as error:
        assert str(error).startswith("file: ")
        assert "\n" not in str(error)
        return
    assert parse(json.loads(json.dumps(config.dump())), "dump").dump() == config.dump()


def _put(raw: dict[str, Any], place: str, value: object) -> None:
    """Set what stands at a dotted key."""
    *tables, key = place.split(".")
    table = raw
    for name in tables:
        table = table.setdefault(name, {"first": 1} if name == "rungs" else {})
    table[key] = value


# --- the digest and what may differ on resume ------------------------------------------------------------------------

COSINE = {"kind": "cosine"}

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
    "search.flip_average": (False, True),
    "search.warm_start": (["eip-c"], ["eip-c", "eip-d"]),
    "search.directions": (None, {"accuracy": "maximize", "macs": "minimize"}, {}),
    "search.rungs": (None, {"first": 1}, {"recipe.schedule": COSINE}),
    "search.rungs.first": (1, 2, {"recipe.schedule": COSINE, "recipe.epochs": 9}),
    "search.rungs.factor": (2, 3, {"recipe.schedule": COSINE}),
    "search.seed": (0, 1),
    "search.recycle_after": (20, 21),
    "search.stall_minutes": (15.0, 16.0),
    "search.grace_minutes": (2.0, 3.0),
    "stop.hours": (None, 2.0),
    "stop.device_hours": (3.0, 4.0),
    "stop.accuracy": (0.9, 0.8),
    "stop.patience": (5, None),
    "stop.trial_minutes": (10.0, 11.0),
}
MAY_CHANGE = {
    *("data.path", "search.trials", "search.recycle_after", "search.stall_minutes", "search.grace_minutes"),
    *("stop.hours", "stop.device_hours", "stop.accuracy", "stop.patience"),
}


def _changed(key: str, which: int) -> StudyConfig:
    """The study of all first values, with one of the values of a key and what goes with it."""
    _, _, *rest = OTHERS[key]
    values = {place: value[0] for place, value in OTHERS.items() if len(value) == 2}
    values |= {key: OTHERS[key][which]} | (rest[0] if rest else {})
    raw: dict[str, Any] = {}
    for place, value in values.items():
        if value is not None or place == key:
            _put(raw, place, value)
    return parse(raw, "study")


def test_every_key_that_there_is_is_tried() -> None:
    assert set(OTHERS) == set(PLACES) - {"data", "budget", "space", "recipe", "search", "stop"}
    assert FREE == MAY_CHANGE


def test_keys_that_came_later_are_stored_only_where_they_say_something() -> None:
    """So that the digest of a study, and what is stored of it, is what earlier versions made of it."""
    later = {"bits", "skip_damaged", "drop_copies"}
    assert not later & parse(plain(), "study").dump()["data"].keys()
    own = {"path": "/srv/a", "bits": 12, "skip_damaged": True, "drop_copies": True}
    dumped = parse(plain(data=own), "study").dump()
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
    found = [parse(plain(space={"kind": "fixed"} | table, search={"trials": 1}), "file") for table in tables]
    assert len({one.digest for one in found}) == 4
    assert all(differences(found[0], one) for one in found[1:])


def test_the_digest_is_that_of_values_not_of_writing() -> None:
    short = parse(plain(space={"pools": 0, "kernel": 3}, recipe={"learning_rate": 1}), "short")
    long = parse(plain(space={"kernel": 3, "pools": 0}, recipe={"learning_rate": 1.0}, protocol="holdout"), "long")
    assert short.digest == long.digest
    assert len(short.digest) == 16


def test_a_difference_gives_the_key_and_both_values() -> None:
    found = differences(parse(plain(), "a"), parse(plain(budget={"params": 9}, recipe={"epochs": 3}), "b"))
    assert "budget.params is 2000 here, not 9" in found
    assert "recipe.epochs is 2 here, not 3" in found
    assert "recipe.batch_size is 64 here, not 128" in found
    assert len(found) == 3


def test_a_difference_that_options_made_is_undone_with_those_options() -> None:
    stored = parse(plain(recipe={"epochs": 5, "batch_size": 32}), "a")
    assert options_back(stored, parse(plain(recipe={"epochs": 2, "batch_size": 32}), "b")) == "--epochs 5"
    assert options_back(stored, parse(plain(), "b")) in ("--epochs 5 --batch-size 32", "--batch-size 32 --epochs 5")
    assert options_back(stored, parse(plain(budget={"params": 9}), "b")) is None


def test_a_folder_that_holds_a_study_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "my study").mkdir()
    path = tmp_path / "my study" / "study.toml"
    path.write_text("", encoding="utf-8")
    assert find(str(path.parent)) == find(str(path)) == ("my_study", path)


# --- faults ----------------------------------------------------------------------------------------------------------


def _edit(old: str, new: str) -> Callable[[], bytes]:
    assert old in STUDY
    return lambda: STUDY.replace(old, new).encode()


def _extra(table: str, line: str) -> Callable[[], bytes]:
    return _edit(f"[{table}]\n", f"[{table}]\n{line}\n")


def _rungs(table: str, line: str = "") -> Callable[[], bytes]:
    text = STUDY.replace("[recipe]\n", '[recipe]\nschedule = { kind = "linear" }\n')
    return lambda: text.replace("[search]\n", f"[search]\nrungs = {{ {table} }}\n{line}\n").encode()


def _stop(line: str) -> Callable[[], bytes]:
    return lambda: f"{STUDY}\n[stop]\n{line}\n".encode()


# Some forty more go through the command line in test_command_line.py.
BAD_STUDIES: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "UTF-16": (lambda: STUDY.encode("utf-16"), ("no valid TOML",)),
    "key twice": (_extra("budget", "params = 3"), ("no valid TOML",)),
    "unknown table": (_edit("[budget]", "[bugdet]"), ("budget",)),
    "unknown key of data": (_extra("data", "hold_out = 0.2"), ("data.hold_out: unknown key", "did you mean 'holdout'?")),
    "unknown key of budget": (_extra("budget", "separable = true"), ("did you mean 'separable_only'?",)),
    "unknown key of recipe": (_edit("epochs", "epoch"), ("recipe.epoch: unknown key", "did you mean 'epochs'?")),
    "unknown key of search": (_edit("trials", "trails"), ("search.trails: unknown key", "did you mean 'trials'?")),
    "fraction for a whole number": (_edit("epochs = 2", "epochs = 2.5"), ("recipe.epochs", "2.5")),
    "text for the budget": (_edit("2_000", '"2000"'), ("budget.params", "'2000'")),
    "truth for a number": (_edit("trials = 2", "trials = true"), ("search.trials", "True")),
    "date for a number": (_edit("epochs = 2", "epochs = 2024-01-01"), ("recipe.epochs",)),
    "text for a dimension": (_edit("pools = 1", 'pools = "one"'), ("space.pools", "'one'")),
    "list for a table": (lambda: STUDY.replace("[search]", "[[search]]").encode(), ("search",)),
    "base accuracy of 0": (_edit('"base.json"', "0"), ("base", "between 0 and 1")),
    "base true": (_edit('"base.json"', "true"), ("base", "True")),
    "value twice": (_edit("pools = 1", "kernel = [3, 3]"), ("space.kernel", "twice")),
    "low above high": (_edit("low = 1, high = 3", "low = 3, high = 1"), ("space.blocks", "low must be below high")),
    "kernel of 0": (_edit("pools = 1", "kernel = 0"), ("space.kernel", "not 0")),
    "unknown kind": (_extra("space", 'kind = "piramid"'), ("space.kind", "'pyramid'", "'fixed'", "'piramid'")),
    "no sampler": (_extra("search", 'sampler = "cmaes"'), ("search.sampler", "'tpe'", "'nsga2'", "'grid'", "'cmaes'")),
    "unknown fit": (_extra("search", 'fit = "full"'), ("search.fit", "'reject' or 'fill'", "'full'")),
    "one warm start": (_extra("search", 'warm_start = "eip-c"'), ("search.warm_start", "'eip-c'")),
    "rungs that are a number": (_extra("search", "rungs = 3"), ("search.rungs", "3")),
    "rungs from 0": (_rungs("first = 0"), ("search.rungs.first", "not 0")),
    "rungs by 1": (_rungs("first = 1, factor = 1"), ("search.rungs.factor", "not 1")),
    "rungs from nowhere": (_rungs("factor = 2"), ("search.rungs.first", "required")),
    "first rung after the last epoch": (
        _rungs("first = 2"),
        (
            "search.rungs: the first is after 2 epochs, and a training has 2 epochs",
            "; take more than 2 epochs, a lower first, or leave rungs out",
        ),
    ),
    "rungs where the rate stays": (
        _extra("search", "rungs = { first = 1 }"),
        ("toml: search.rungs: the constant schedule does not decay to zero by a rung", "take cosine, linear or one-cycle"),
    ),
    "rungs where one of the rates stays": (
        lambda: _rungs("first = 1")().replace(
            b'schedule = { kind = "linear" }', b'schedules = [{kind="linear"}, {kind="plateau"}]'
        ),
        ("search.rungs: the plateau schedule does not decay",),
    ),
    "rungs for nsga2": (
        _rungs("first = 1", 'sampler = "nsga2"'),
        ("rungs: the nsga2 sampler learns nothing from a pruned trial", "take tpe or random, or leave rungs out"),
    ),
    "rungs in a grid": (
        _rungs("first = 1", 'sampler = "grid"'),
        ("rungs: the grid sampler wants all of its cells in full",),
    ),
    "a grid that fills": (
        _extra("search", 'sampler = "grid"\nfit = "fill"'),
        ('fit: "fill" changes the widths that a grid lists; leave it out',),
    ),
    "repeats of no grid": (_extra("search", "repeats = 3"), ('repeats: cells are repeated by sampler = "grid"',)),
    "no repeats": (_extra("search", 'sampler = "grid"\nrepeats = 0'), ("search.repeats", "not 0")),
    "endless grid": (
        lambda: _extra("search", 'sampler = "grid"')().replace(
            b"batch_size = 64", b"learning_rate = { low = 0.1, high = 0.2 }\nmomentum = [0.8, 0.9]"
        ),
        ("toml: recipe.learning_rate: a grid cannot list a range without a step; give it one, or a list",),
    ),
    "no hours": (_stop("hours = 0"), ("stop.hours", "not 0")),
    "no device hours": (_stop("device_hours = -1.0"), ("stop.device_hours", "not -1.0")),
    "accuracy in percent": (_stop("accuracy = 95"), ("stop.accuracy", "not 95")),
    "accuracy of 1": (_stop("accuracy = 1.0"), ("stop.accuracy", "not 1.0")),
    "no patience": (_stop("patience = 0"), ("stop.patience", "not 0")),
    "patience of half a trial": (_stop("patience = 1.5"), ("stop.patience", "1.5")),
    "no minutes": (_stop("trial_minutes = 0"), ("stop.trial_minutes", "not 0")),
    "minutes in words": (_stop('trial_minutes = "five"'), ("stop.trial_minutes", "'five'")),
    "schedule and schedules": (
        _extra("recipe", 'schedule = { kind = "cosine" }\nschedules = [{ kind = "linear" }, { kind = "cosine" }]'),
        ("recipe: schedules: schedule is given too; leave one of them out",),
    ),
    "no such network": (
        lambda: STUDY.replace(
            STUDY[STUDY.index("blocks =") : STUDY.index("[recipe]")], 'kind = "fixed"\nnetwork = "eip_c"\n'
        ).encode(),
        ("space.network: 'eip_c' is no reference", "did you mean 'eip-c'?", "or give an architecture file"),
    ),
    "position past the depth": (_extra("space", "pool_position = 4"), ("pool_position", "no block past 3")),
    "infinite learning rate": (_extra("recipe", "learning_rate = inf"), ("recipe.learning_rate", "inf")),
    "learning rate that is no number": (_extra("recipe", "learning_rate = nan"), ("recipe.learning_rate", "nan")),
    "batch of 0": (_edit("batch_size = 64", "batch_size = 0"), ("recipe.batch_size", "not 0")),
    "smoothing of 1": (_extra("recipe", "label_smoothing = 1"), ("recipe.label_smoothing",)),
    "negative crop": (_extra("recipe", "augment = { crop = -1 }"), ("recipe.augment.crop", "-1")),
    "epochs of 0": (_edit("epochs = 2", "epochs = 0"), ("recipe.epochs", "not 0")),
    "data of no name": (_edit('name = "digits"', ""), ("data", "name or path is needed")),
    "size of a set that has its own": (
        _extra("data", "size = 16"),
        ("data: size: digits is taken as it is; leave it out, or give a path without a name",),
    ),
    "size of 0": (_edit('name = "digits"', 'path = "x"\nsize = 0'), ("data.size", "not 0")),
    "size of three sides": (_edit('name = "digits"', 'path = "x"\nsize = [8, 8, 3]'), ("data.size",)),
    "size beyond all use": (_edit('name = "digits"', 'path = "x"\nsize = 1025'), ("data.size", "1024", "not 1025")),
    "background of another colour": (_edit('name = "digits"', 'path = "x"\nbackground = "red"'), ("background", "'red'")),
    "one class": (_edit('name = "digits"', 'path = "x"\nclasses = ["a"]'), ("data: classes: at least two, each once",)),
    "a class twice": (_edit('name = "digits"', 'path = "x"\nclasses = ["a", "b", "a"]'), ("at least two, each once",)),
    "holdout of 1": (_extra("data", "holdout = 1.0"), ("data.holdout", "1.0")),
    "negative seed": (_extra("search", "seed = -1"), ("search.seed", "-1")),
    "number for truth": (_extra("recipe", "augment = { flip = 1 }"), ("recipe.augment.flip", "1")),
    "budget of 400 digits": (_edit("2_000", "9" * 400), ("budget.params",)),
    "number of 5,000 digits": (_edit("2_000", "9" * 5000), ("no valid TOML",)),
    "deep nesting": (lambda: STUDY.encode() + b"\nx = " + b"[" * 20_000, ("no valid TOML",)),
}


@pytest.mark.parametrize("fault", BAD_STUDIES)
def test_a_fault_is_told_with_its_file_its_key_and_the_rule(fault: str, tmp_path: Path) -> None:
    content, hints = BAD_STUDIES[fault]
    path = written(tmp_path, content())
    with pytest.raises(UserError) as caught:
        load(path)
    text = told(caught)
    assert text.startswith(f"{path}: ")
    assert [hint for hint in hints if hint not in text] == [], text


MISSPELT = [
    ("protocl", "protocol"),
    ("data.hold_out", "holdout"),
    ("budget.parms", "params"),
    ("space.pool_positions", "pool_position"),
    ("recipe.batchsize", "batch_size"),
    ("recipe.augment.rotate", "rotation"),
    ("recipe.schedule.warm_up", "warmup"),
    ("search.sede", "seed"),
    ("search.warmstart", "warm_start"),
    ("search.rungs.frist", "first"),
    ("search.rungs.factors", "factor"),
    ("stop.hour", "hours"),
    ("stop.acuracy", "accuracy"),
    ("stop.patients", "patience"),
    ("recipe.schedules.1.warm_up", "warmup"),
    ("recipe.augments.1.rotate", "rotation"),
]


@pytest.mark.parametrize(("place", "meant"), MISSPELT)
def test_an_unknown_key_is_told_with_the_nearest(place: str, meant: str) -> None:
    raw = plain()
    raw |= {"stop": {}}
    raw["search"]["rungs"] = {"first": 1}
    if place.startswith(("recipe.schedules", "recipe.augments")):
        raw["recipe"] |= {"augments": [{}, {"flip": True}], "schedules": [{"kind": "cosine"}, {"kind": "one-cycle"}]}
    else:
        raw["recipe"] |= {"augment": {"flip": True}, "schedule": {"kind": "one-cycle"}}
    *tables, key = place.split(".")
    table: Any = raw
    for name in tables:
        table = table[int(name) if name.isdigit() else name]
    table[key] = 1
    with pytest.raises(UserError) as caught:
        parse(raw, "file")
    assert f"{key}: unknown key, did you mean '{meant}'?" in told(caught)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UserError, match="cannot be read") as caught:
            load(path)
        assert told(caught).startswith(str(path))


# --- overrides -------------------------------------------------------------------------------------------------------

GOOD = {
    "data.path": "/srv/x.npz",
    "data.images": 7,
    "recipe.epochs": 9,
    "recipe.batch_size": 5,
    "search.trials": 3,
    "search.seed": 4,
}
BAD = {"data.images": 0, "recipe.epochs": 0, "recipe.batch_size": -3, "search.trials": 0, "search.seed": -1}


def test_overrides_take_the_place_of_the_file(tmp_path: Path) -> None:
    assert GOOD.keys() == OPTIONS.keys()
    path = written(tmp_path)
    config = load(path, GOOD)
    after = dict(flat(config.dump()))
    assert {key: after[key] for key in GOOD} == GOOD
    assert {key for key, value in flat(load(path).dump()) if after[key] != value} == GOOD.keys()
    assert path.read_text(encoding="utf-8") == STUDY


def test_overrides_reach_tables_that_the_file_leaves_out(tmp_path: Path) -> None:
    config = load(written(tmp_path, STUDY.split("[recipe]")[0]), {"recipe.epochs": 9, "search.trials": 3})
    assert (config.recipe.epochs, config.search.trials) == (9, 3)


@pytest.mark.parametrize("key", BAD)
def test_a_bad_override_is_laid_at_the_door_of_its_option(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(written(tmp_path), {key: BAD[key]})
    text = told(caught)
    assert text.startswith(f"{OPTIONS[key]}: {key}: ")
    assert str(BAD[key]) in text


def test_a_fault_of_the_file_is_not_laid_at_an_options_door(tmp_path: Path) -> None:
    path = written(tmp_path, STUDY.replace("epochs = 2", "epochs = 0"))
    with pytest.raises(UserError) as caught:
        load(path, {"search.trials": 3})
    assert told(caught).startswith(f"{path}: recipe.epochs")


@pytest.mark.parametrize("table", ["search = 3", "search = [1]"])
def test_an_override_of_what_is_no_table_is_the_files_fault(table: str, tmp_path: Path) -> None:
    path = written(tmp_path, table + STUDY.split("[search]")[0])
    with pytest.raises(UserError) as caught:
        load(path, {"search.trials": 3})
    assert told(caught).startswith(f"{path}: search")


# --- what is searched, and for how long ------------------------------------------------------------------------------

FINITE = {"blocks": [1, 2], "width": {"low": 8, "high": 16, "step": 8}, "pools": 0}  # 2 x 2 x 2 points
ONE = {"blocks": 1, "width": 8, "pools": 0}


def test_a_study_asks_for_its_number_of_trials_or_the_whole_grid_or_twenty() -> None:
    for search, trials in (
        ({}, TRIALS),
        ({"trials": 3}, 3),
        ({"sampler": "grid"}, 8),
        ({"sampler": "grid", "trials": 3}, 3),
    ):
        assert parse(plain(space=FINITE, search=search), "file").trials == trials
    assert TRIALS == 20
    assert parse(plain(space=FINITE, search={"sampler": "grid", "repeats": 3}), "file").trials == 24


def test_a_space_of_one_network_is_a_grid_of_one_cell() -> None:
    config = parse(plain(space=ONE, search={"sampler": "grid"}), "file")
    assert (config.parameters, config.size, config.trials) == ({}, 1, 1)


def test_the_size_of_a_search_is_that_of_all_that_is_searched() -> None:
    config = parse(plain(space=FINITE, recipe={"batch_size": [16, 32, 64]}), "file")
    assert config.size == 24
    assert list(config.parameters) == ["blocks", "width_1", "width_2", "recipe.batch_size"]
    endless = parse(plain(space=FINITE, recipe={"learning_rate": {"low": 0.1, "high": 0.2}}), "file")
    assert endless.size is None


def test_the_repeats_of_a_grid_are_a_parameter_of_their_own() -> None:
    search = {"sampler": "grid", "repeats": 3}
    config = parse(plain(space=ONE, search=search), "file")
    assert list(config.parameters) == ["repeat"]
    assert list(config.parameters["repeat"].declared()) == [0, 1, 2]
    assert config.recipe_of({"repeat": 2}) == config.recipe_of({})


def test_the_schedule_of_a_trial_begins_anew_at_each_rung() -> None:
    recipe = {"epochs": 10, "schedule": COSINE, "batch_size": [16, 32]}
    config = parse(plain(recipe=recipe, search={"rungs": {"first": 1, "factor": 3}}), "file")
    assert config.rungs == (1, 3, 9)
    assert config.recipe_of({"recipe.batch_size": 32}).restarts == (1, 3, 9)
    assert config.recipe_of({"recipe.batch_size": 32}).batch_size == 32
    without = parse(plain(recipe=recipe), "file")
    assert (without.rungs, without.recipe_of({}).restarts) == ((), ())


def test_with_rungs_the_base_takes_the_schedule_of_the_study_and_no_other_reference_does() -> None:
    """So that it can be laid beside the candidates at a rung; what else it was published with, it keeps."""
    study = {"recipe": {"epochs": 8, "schedule": COSINE, "ema": 0.9}, "search": {"rungs": {"first": 2}}}
    config, plainly = parse(plain(base="eip-c", **study), "file"), parse(plain(base="eip-c", recipe=study["recipe"]), "file")
    base, other = references.find("eip-c"), references.find("eip-d")
    own = base.recipe
    assert own is not None
    assert own.schedule.kind == "inverse-time"
    with_rungs = references.recipe_of(config, base)
    assert (with_rungs.epochs, with_rungs.schedule.kind, with_rungs.restarts, with_rungs.ema) == (8, "cosine", (2, 6), 0.9)
    assert with_rungs.learning_rate == own.learning_rate
    for found, reference in ((plainly, base), (config, other)):
        told = references.recipe_of(found, reference)
        assert reference.recipe is not None
        assert told == reference.recipe.model_copy(update={"epochs": 8})


def test_different_networks_of_one_name_are_refused(tmp_path: Path) -> None:
    """The name in a study is the file's, with a `_` for each character that no file name of the study may have."""
    base, other = ((STUDIES / name).read_bytes() for name in ("quickstart/base.json", "references/eip-b.json"))
    begin, end = STUDY.index("blocks ="), STUDY.index("[recipe]")
    text = f'{STUDY[:begin]}kind = "fixed"\nnetwork = ["a b.json", "a_b.json"]\n{STUDY[end:]}'
    (tmp_path / "a b.json").write_bytes(base)
    (tmp_path / "a_b.json").write_bytes(other)
    with pytest.raises(UserError, match="two networks are called 'a_b'; rename one of the files"):
        load(written(tmp_path, text), {"search.trials": 1})
    (tmp_path / "a_b.json").write_bytes(base)
    config = load(written(tmp_path, text), {"search.trials": 1})
    assert list(config.space.networks) == ["a_b"]  # type: ignore[union-attr]


def test_a_study_of_given_networks_holds_them(tmp_path: Path) -> None:
    """So that it goes on when a file of one has gone; by the name of the file, where it is one."""
    (tmp_path / "my net.json").write_bytes((STUDIES / "quickstart" / "base.json").read_bytes())
    begin, end = STUDY.index("blocks ="), STUDY.index("[recipe]")
    for network, names in (('"eip-c"', ["eip-c"]), ('["eip-c", "my net.json"]', ["eip-c", "my_net"])):
        text = f'{STUDY[:begin]}kind = "fixed"\nnetwork = {network}\n{STUDY[end:]}'
        config = load(written(tmp_path, text), {"search.trials": 1})
        assert list(config.space.networks) == names  # type: ignore[union-attr]
        assert config.space.architectures["eip-c"] == references.find("eip-c").architecture  # type: ignore[union-attr]
        assert parse(json.loads(json.dumps(config.dump())), "stored") == config
        assert list(config.parameters) == (["network"] if len(names) > 1 else [])


def test_the_number_of_trials_may_grow_on_resume_and_a_limit_change() -> None:
    """From none, and to none, too."""
    stored = parse(plain(search={"rungs": {"first": 1}}, recipe={"epochs": 2, "schedule": COSINE}), "a")
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


# --- paths and names -------------------------------------------------------------------------------------------------


def test_a_base_inside_the_checkout_is_told_from_its_root() -> None:
    assert load(STUDIES / "quickstart" / "study.toml").base == "studies/quickstart/base.json"
    assert (ROOT / "studies/quickstart/base.json").is_file()


def test_a_base_outside_the_checkout_and_data_are_found_from_the_study_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    text = STUDY.replace("base.json", "../base.json").replace('name = "digits"', 'path = "own/set.npz"')
    written(tmp_path / "sub", text)
    monkeypatch.chdir(tmp_path)
    config = load(Path("sub/study.toml"))
    assert config.base == str(tmp_path / "base.json")
    assert config.data.path == str(tmp_path / "sub" / "own" / "set.npz")


def test_known_networks_are_found_from_the_study_file_and_told_from_the_root_of_the_checkout(tmp_path: Path) -> None:
    names = f'["eip-c", "../own.json", "{STUDIES}/quickstart/base.json"]'
    (tmp_path / "sub").mkdir()
    config = load(written(tmp_path / "sub", STUDY.replace("[search]", f"[search]\nwarm_start = {names}")))
    assert config.search.warm_start == ("eip-c", str(tmp_path / "own.json"), "studies/quickstart/base.json")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_study_is_found_by_name_and_by_path(name: str) -> None:
    path = STUDIES / name / "study.toml"
    assert find(name) == (name, path)
    assert find(str(path)) == (name, path)


def test_a_study_file_of_another_name_gives_its_name(tmp_path: Path) -> None:
    path = tmp_path / "my net {x}.toml"
    path.write_text(STUDY, encoding="utf-8")
    assert find(str(path)) == ("my_net_x", path)


@pytest.mark.parametrize("study", ["../../x", "/etc/passwd", "", ".", "quickstart/", "quickstart/study", "references"])
def test_what_is_no_study_is_refused(study: str) -> None:
    with pytest.raises(UserError, match="no study of this name") as caught:
        find(study)
    assert repr(study) in told(caught)


@given(st.text(max_size=20) | st.text(st.sampled_from("./\\ab-_ \n"), max_size=9))
def test_a_safe_name_is_one_plain_file_name(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert Path(safe).name == safe
    assert not safe.startswith((".", "-", "_")) or safe[0] == "-"
    assert safe.isascii()
    assert safe_name(safe) == safe


@pytest.mark.parametrize("name", REFERENCES)
def test_a_shipped_reference_has_its_network_recipe_and_published_accuracy(name: str) -> None:
    found = references.find(name)
    assert (found.name, found.architecture.name) == (name, name)
    assert (found.architecture.input, found.architecture.classes) == ((32, 32, 3), 10)
    assert found.recipe is not None
    assert found.published is not None
    assert found.recipe.epochs == 50
    assert found.published.final_val_accuracy <= found.published.best_val_accuracy
    assert 1 <= found.published.best_epoch <= 50
    assert references.published_curves()[name] == found.published.val_accuracies
    assert len(found.published.val_accuracies) == 50


def test_all_references_that_ship_are_known() -> None:
    assert references.names() == sorted(REFERENCES)


def test_an_architecture_file_is_a_reference_without_a_recipe_or_with_the_one_beside_it(tmp_path: Path) -> None:
    source = STUDIES / "quickstart" / "base.json"
    own = tmp_path / "own net.json"
    own.write_bytes(source.read_bytes())
    found = references.find(str(own))
    assert (found.name, found.recipe, found.published) == ("own_net", None, None)
    own.with_suffix(".toml").write_text("[recipe]\nepochs = 3\n", encoding="utf-8")
    recipe = references.find(str(own)).recipe
    assert recipe is not None
    assert recipe.epochs == 3


@pytest.mark.parametrize("sheet", ["[recipe]\nepoch = 3\n", "[recipe]\nepochs = 0\n", "recipe", "[published]\n", "\xff"])
def test_a_bad_sheet_beside_a_reference_is_told(sheet: str, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes((STUDIES / "quickstart" / "base.json").read_bytes())
    (tmp_path / "own.toml").write_bytes(sheet.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        references.find(str(tmp_path / "own.json"))
    assert told(caught).startswith(str(tmp_path / "own.toml"))


def test_published_figures_that_their_own_log_contradicts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes((STUDIES / "quickstart" / "base.json").read_bytes())
    told_best = (
        "[published]\nbest_val_accuracy = {}\nbest_epoch = 2\nfinal_val_accuracy = 0.4\nval_accuracies = [0.3, 0.5, 0.4]\n"
    )
    sheet, recipe = tmp_path / "own.toml", "[recipe]\nepochs = 3\n"
    sheet.write_text(told_best.format(0.5) + recipe, encoding="utf-8")
    published = references.find(str(tmp_path / "own.json")).published
    assert published and published.val_accuracies == (0.3, 0.5, 0.4)
    sheet.write_text(told_best.format(0.6) + recipe, encoding="utf-8")
    with pytest.raises(
        UserError, match=r"val_accuracies: their best, its epoch and the last are \(0.5, 2, 0.4\), not \(0.6"
    ):
        references.find(str(tmp_path / "own.json"))


@pytest.mark.parametrize(("typo", "meant"), [("eip_b", "eip-b"), ("bse", "base"), ("../base", "base")])
def test_a_misspelt_reference_is_told_with_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"did you mean '{meant}'\?") as caught:
        references.find(typo)
    assert repr(typo) in told(caught)


def test_a_study_that_searches_nothing_is_refused() -> None:
    fixed = {"blocks": 1, "width": 16, "pools": 0}
    with pytest.raises(UserError, match="nothing is searched, as every value is fixed"):
        parse({"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 8_000}, "space": fixed}, "test")
