"""Proposals judged: what fits is a candidate, known by what is trained and by nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.budget.cost import compute_cost
from search.networks.architecture import Architecture, canonical, to_dict
from search.networks.layers import ArchitectureError, Conv, Dropout, Layer
from search.spaces.domains import Value
from search.study.config import StudyConfig
from search.study.study_file import parse
from search.tuning.candidate import Candidate, DataFacts, Rejection, canonical_recipe, fits, judge
from space import Fixed, Space, build, parameters
from tests.support.pyramids import given_networks
from tests.support.strategies import draw_values, drawn_points, net, reference

FACTS = DataFacts((32, 32, 3), 10, "0" * 16)
NETWORK: dict[str, Any] = {"blocks": {"low": 1, "high": 3}, "width": {"low": 8, "high": 48, "step": 8}, "pools": 0}
STUDY: dict[str, Any] = {
    "base": 0.5,
    "data": {"name": "cifar10"},
    "budget": {"params": 10**6},
    "space": NETWORK,
    "recipe": {"epochs": 2, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}},
}
VALUES: dict[str, Value] = {"blocks": 2, "width_1": 8, "width_2": 16, "width_3": 24, "recipe.learning_rate": 0.01}


def configured(**changes: Any) -> StudyConfig:
    return parse(STUDY | {"search": {"trials": 1}} | changes, "test")  # one, as some of these search nothing


def over(space: Space, limit: int = 10**6, **recipe: Any) -> StudyConfig:
    """A study over this space, whatever its kind."""
    return configured(budget={"params": limit}, recipe={"epochs": 2, **recipe}, space=space)


def given_layers(*layers: Layer, name: str = "net", facts: DataFacts = FACTS) -> Architecture:
    return replace(net(*layers), input=facts.input_shape, name=name)


def one_network(network: Architecture) -> Fixed:
    return Fixed.model_validate({"kind": "fixed", "network": "it", "networks": {"it": to_dict(network)}})


def candidate(config: StudyConfig, values: Mapping[str, Value], facts: DataFacts = FACTS) -> Candidate:
    found = judge(config, facts, values)
    assert isinstance(found, Candidate), found
    return found


def refusal(config: StudyConfig, values: Mapping[str, Value], facts: DataFacts = FACTS) -> Rejection:
    found = judge(config, facts, values)
    assert isinstance(found, Rejection), found
    return found


# --- what fits, and what does not ------------------------------------------------------------------------------------


def test_a_candidate_is_its_network_cost_and_recipe() -> None:
    config = configured()
    found = candidate(config, VALUES)
    assert found.architecture == build(config.space, VALUES, (32, 32, 3), 10)
    assert found.cost == compute_cost(found.architecture)
    assert (found.recipe.epochs, found.recipe.learning_rate, found.repeat) == (2, 0.01, None)


@given(drawn_points())
@settings(max_examples=60)
def test_the_budget_is_strict_and_fits_says_the_same(drawn: tuple[Space, dict[str, Value]]) -> None:
    space, values = drawn
    try:
        params = compute_cost(build(space, values, FACTS.input_shape, FACTS.classes)).params
    except ArchitectureError:
        assert refusal(over(space), values).rule == "cannot exist"
        assert not fits(over(space), FACTS, values)
        return
    assert candidate(over(space, params + 1), values).cost.params == params
    assert fits(over(space, params + 1), FACTS, values)
    found = refusal(over(space, params), values)
    assert (found.rule, found.cost and found.cost.params) == ("over budget", params)
    assert found.reason == f"{params:,} parameters, the budget is under {params:,}"
    assert not fits(over(space, params), FACTS, values)


def test_a_network_that_cannot_exist_is_rejected_with_the_rule_it_breaks() -> None:
    config = configured(space=NETWORK | {"pools": 1, "kernel": [3, 40], "padding": "valid"})
    drawn = VALUES | {"pool_position_1": 1, "kernel": 40}
    found = refusal(config, drawn)
    assert (found.rule, found.architecture, found.cost) == ("cannot exist", None, None)
    assert found.reason.startswith("cannot exist: ")
    assert not fits(config, FACTS, drawn)


def test_a_given_network_for_other_images_is_rejected_and_no_error() -> None:
    config, other = over(given_networks("eip-c")), DataFacts((28, 28, 1), 10, "0" * 16)
    assert candidate(config, {}).architecture == reference("eip-c")
    assert "takes images of 32x32x3 in 10 classes, not 28x28x1" in refusal(config, {}, other).reason
    assert not fits(config, other, {})


def test_a_plain_convolution_is_rejected_where_the_budget_admits_none() -> None:
    config = over(one_network(given_layers(Conv(8, 3))))
    config = config.model_copy(update={"budget": config.budget.model_copy(update={"separable_only": True})})
    facts = replace(FACTS, classes=2)
    found = refusal(config, {}, facts)
    assert (found.rule, "plain convolution" in found.reason) == ("over budget", True)
    assert not fits(config, facts, {})
    free = config.model_copy(update={"budget": config.budget.model_copy(update={"separable_only": False})})
    assert candidate(free, {}, facts).key


# --- the key: what is trained ----------------------------------------------------------------------------------------


@given(drawn_points(), st.integers(0, 2**20))
@settings(max_examples=100)
def test_two_points_share_a_key_exactly_when_they_make_the_same_network(
    drawn: tuple[Any, dict[str, Value]], seed: int
) -> None:
    space, values = drawn
    one, other = (build(space, at, FACTS.input_shape, FACTS.classes) for at in (values, draw_values(space, seed)))
    for network in (one, other):
        try:
            compute_cost(network)
        except ArchitectureError:
            assume(False)
    keys = [candidate(over(space), at).key for at in (values, draw_values(space, seed))]
    assert (keys[0] == keys[1]) == (canonical(one) == canonical(other))


@given(drawn_points(), st.integers(0, 2**20))
@settings(max_examples=100)
def test_parameters_past_the_depth_do_not_matter(drawn: tuple[Any, dict[str, Value]], seed: int) -> None:
    space, values = drawn
    blocks = int(values.get("blocks", space.most_blocks))
    pools = int(values.get("pools", space.most_pools))
    last = {"pool_position": pools, "pool_kind": pools, "pool_dropout": pools}
    for name in parameters(space):
        dimension, _, number = name.rpartition("_")
        if number.isdigit() and int(number) > last.get(dimension, blocks):
            values = values | {name: draw_values(space, seed)[name]}
    before = judge(over(space), FACTS, drawn[1])
    after = judge(over(space), FACTS, values)
    if isinstance(before, Rejection):
        assert after == before
    else:
        assert isinstance(after, Candidate)
        assert after.key == before.key


def test_the_key_is_of_all_that_changes_the_training() -> None:
    config = configured()
    keys = [
        candidate(config, VALUES).key,
        candidate(config, VALUES | {"width_2": 24}).key,
        candidate(config, VALUES | {"blocks": 1}).key,
        candidate(config, VALUES | {"recipe.learning_rate": 0.010000000000000002}).key,
        candidate(config, VALUES, replace(FACTS, fingerprint="1" * 16)).key,
        candidate(config, VALUES, replace(FACTS, classes=9)).key,
        candidate(config, VALUES, replace(FACTS, input_shape=(32, 32, 1))).key,
        *(candidate(configured(recipe=STUDY["recipe"] | change), VALUES).key for change in RECIPES),
        candidate(configured(data={"name": "cifar10", "normalize": True}), VALUES).key,
        candidate(config, VALUES | {"repeat": 0}).key,
        candidate(config, VALUES | {"repeat": 1}).key,
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 16 for key in keys)


RECIPES: list[dict[str, Any]] = [
    {"epochs": 3},
    {"batch_size": 64},
    {"optimizer": "sgd"},
    {"weight_decay": 0.01},
    {"label_smoothing": 0.1},
    {"clip_norm": 1.0},
    {"ema": 0.99},
    {"initializer": "he_normal"},
    {"schedule": {"kind": "cosine"}},
    {"schedule": {"kind": "one-cycle"}},
    {"schedule": {"kind": "one-cycle", "warmup": 0.2}},
    {"augment": {"flip": True}},
    {"augment": {"flip": "alternating"}},
    {"augment": {"crop": 4}},
]


def test_the_key_is_of_nothing_else() -> None:
    """A recipe may be searched or fixed, in any study, under any budget: the training is the same."""
    key = candidate(configured(), VALUES).key
    drawn = {name: VALUES[name] for name in reversed(VALUES)}
    assert candidate(configured(), drawn).key == key
    assert candidate(configured(), VALUES | {"width_3": 48}).key == key
    assert candidate(configured(base=0.9, search={"seed": 7, "trials": 3, "sampler": "random"}), VALUES).key == key
    assert candidate(configured(budget={"params": 9_000}), VALUES).key == key
    assert candidate(configured(recipe={"epochs": 2, "learning_rate": 0.01}), VALUES).key == key
    searched = configured(space=NETWORK | {"order": ["conv-bn-act", "conv"]})
    assert candidate(searched, VALUES | {"order": "conv-bn-act"}).key == key


def test_the_key_is_of_no_name_and_of_nothing_that_canonical_form_drops() -> None:
    facts = replace(FACTS, classes=2)
    plain, named = given_layers(name="a"), given_layers(name="b")
    dropped = given_layers(Dropout(0.0))
    assert plain != named != dropped
    keys = {candidate(over(one_network(network)), {}, facts).key for network in (plain, named, dropped)}
    assert len(keys) == 1
    assert candidate(over(one_network(given_layers(Dropout(0.1)))), {}, facts).key not in keys


def test_a_searched_recipe_enters_the_key_as_a_fixed_one_does() -> None:
    searched = over(given_networks("eip-c"), batch_size=[64, 128], optimizer=["adam", "sgd"])
    fixed = over(given_networks("eip-c"), batch_size=64, optimizer="sgd")
    drawn: dict[str, Value] = {"recipe.batch_size": 64, "recipe.optimizer": "sgd"}
    assert candidate(searched, drawn).key == candidate(fixed, {}).key
    keys = {
        candidate(searched, {"recipe.batch_size": size, "recipe.optimizer": name}).key
        for size in (64, 128)
        for name in ("adam", "sgd")
    }
    assert len(keys) == 4


def test_a_repeat_is_the_candidates_seed_and_another_key() -> None:
    config = configured(
        recipe={"epochs": 2, "learning_rate": [0.1, 0.01]}, search={"sampler": "grid", "repeats": 3}, space={"pools": 0}
    )
    drawn = {name: domain.first for name, domain in config.parameters.items()}
    assert [candidate(config, drawn | {"repeat": repeat}).repeat for repeat in range(3)] == [0, 1, 2]
    assert len({candidate(config, drawn | {"repeat": repeat}).key for repeat in range(3)}) == 3


# --- one key for trainings that cannot differ (that they do not: test_training_keys.py) ------------------------------


def test_a_recipe_without_idle_values_keeps_the_key_that_earlier_versions_stored() -> None:
    found = candidate(configured(), VALUES)
    assert canonical_recipe(found.recipe, FACTS) == found.recipe


def test_values_that_the_training_ignores_are_no_part_of_the_key() -> None:
    optimizers = {"optimizer": ["adam", "adamw"], "momentum": [0.8, 0.9], "epochs": 2}
    config = configured(recipe=optimizers)
    values = {name: value for name, value in VALUES.items() if not name.startswith("recipe.")}
    found = [
        candidate(config, values | {"recipe.optimizer": optimizer, "recipe.momentum": momentum})
        for optimizer in ("adam", "adamw")
        for momentum in (0.8, 0.9)
    ]
    assert len({one.key for one in found}) == 1
    assert len({one.recipe for one in found}) == 4  # each is trained as it is written
