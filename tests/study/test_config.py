"""Round trips of a study file's tables, the size of a search and its number of trials."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.errors import UserError
from search.study.config import (
    TRIALS,
)
from search.study.study_file import differences, find, load, parse
from tests.support.strategies import space_tables
from tests.support.study_files import COSINE, KEYS, SHIPPED, plain_study, put_at_key

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
                "sampler": st.sampled_from(["tpe", "random", "bayes", "nsga2"]),
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


@pytest.mark.parametrize("place", KEYS)
@settings(max_examples=15)
@given(junk=JUNK)
def test_any_value_of_a_key_is_accepted_or_rejected_in_one_line(place: str, junk: object) -> None:
    raw = plain_study()
    if place.startswith("search.rungs"):
        raw["recipe"]["schedule"] = {"kind": "cosine"}
    put_at_key(raw, place, junk)
    try:
        config = parse(raw, "file")
    except UserError as error:
        assert str(error).startswith("file: ")
        assert "\n" not in str(error)
        return
    assert parse(json.loads(json.dumps(config.dump())), "dump").dump() == config.dump()


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
        assert parse(plain_study(space=FINITE, search=search), "file").trials == trials
    assert TRIALS == 20
    assert parse(plain_study(space=FINITE, search={"sampler": "grid", "repeats": 3}), "file").trials == 24


def test_a_space_of_one_network_is_a_grid_of_one_cell() -> None:
    config = parse(plain_study(space=ONE, search={"sampler": "grid"}), "file")
    assert (config.parameters, config.size, config.trials) == ({}, 1, 1)


def test_the_size_of_a_search_is_that_of_all_that_is_searched() -> None:
    config = parse(plain_study(space=FINITE, recipe={"batch_size": [16, 32, 64]}), "file")
    assert config.size == 24
    assert list(config.parameters) == ["blocks", "width_1", "width_2", "recipe.batch_size"]
    endless = parse(plain_study(space=FINITE, recipe={"learning_rate": {"low": 0.1, "high": 0.2}}), "file")
    assert endless.size is None


def test_the_repeats_of_a_grid_are_a_parameter_of_their_own() -> None:
    search = {"sampler": "grid", "repeats": 3}
    config = parse(plain_study(space=ONE, search=search), "file")
    assert list(config.parameters) == ["repeat"]
    assert list(config.parameters["repeat"].declared()) == [0, 1, 2]
    assert config.recipe_of({"repeat": 2}) == config.recipe_of({})


def test_the_schedule_of_a_trial_begins_anew_at_each_rung() -> None:
    recipe = {"epochs": 10, "schedule": COSINE, "batch_size": [16, 32]}
    config = parse(plain_study(recipe=recipe, search={"rungs": {"first": 1, "factor": 3}}), "file")
    assert config.rungs == (1, 3, 9)
    assert config.recipe_of({"recipe.batch_size": 32}).restarts == (1, 3, 9)
    assert config.recipe_of({"recipe.batch_size": 32}).batch_size == 32
    without = parse(plain_study(recipe=recipe), "file")
    assert (without.rungs, without.recipe_of({}).restarts) == ((), ())
