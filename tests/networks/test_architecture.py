"""Records, their JSON, and the canonical form that fingerprints name."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.budget.cost import compute_cost
from search.errors import UserError
from search.networks import architecture as module
from search.networks.architecture import Architecture, canonical, fingerprint, from_json, load, to_dict, to_json
from search.networks.geometry import receptive_field, resolve
from search.networks.layers import (
    LARGEST,
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Function,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Padding,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
    describe,
    walk,
)
from tests.support.strategies import REFERENCES, TAIL, architectures, net, reference

RECORDS: tuple[type[Any], ...] = get_args(get_args(Layer)[0])
EXAMPLES: dict[type[Any], Any] = {
    SeparableConv: SeparableConv(4),
    SpatialSeparableConv: SpatialSeparableConv(4),
    Conv: Conv(4),
    BatchNorm: BatchNorm(),
    Activation: Activation("relu"),
    Dropout: Dropout(0.1),
    MaxPool: MaxPool(),
    AveragePool: AveragePool(),
    GlobalAveragePool: GlobalAveragePool(),
    Flatten: Flatten(),
    Dense: Dense(4),
    Softmax: Softmax(),
    Gate: Gate(),
    Residual: Residual((SeparableConv(3),)),
}


# --- JSON ------------------------------------------------------------------------------------------------------------


@given(architectures())
@settings(max_examples=300)
def test_json_gives_back_what_it_was_written_from(architecture: Architecture) -> None:
    assert from_json(to_json(architecture)) == architecture
    assert from_json(to_json(architecture).encode()) == architecture
    assert from_json(json.dumps(to_dict(architecture))) == architecture


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_stored_as_it_would_be_written(name: str) -> None:
    path = Path(__file__).parents[2] / "studies" / "references" / f"{name}.json"
    assert to_json(load(path)) == path.read_text()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_defaults_are_left_out(record: type[Any]) -> None:
    plain = to_dict(Architecture((8, 8, 3), 2, (EXAMPLES[record], Softmax())))["layers"][0]
    required = {entry.name for entry in fields(record) if entry.default is MISSING and entry.default_factory is MISSING}
    assert plain.keys() == required | {"kind"}


@given(architectures())
@settings(max_examples=50)
def test_no_default_is_written_anywhere(architecture: Architecture) -> None:
    def check(plain: list[dict[str, Any]]) -> None:
        for entry in plain:
            record = next(one for one in RECORDS if entry["kind"] == EXAMPLES[one].kind)
            defaults = {field.name: field.default for field in fields(record) if field.name != "kind"}
            assert all(value != defaults[key] for key, value in entry.items() if key != "kind")
            check(entry.get("branch", []))
            check(entry.get("shortcut", []))

    check(to_dict(architecture)["layers"])


def test_the_example_of_the_design_loads() -> None:
    text = """
{"name": "tiny", "input": [32, 32, 3], "classes": 10, "layers": [
  {"kind": "separable_conv", "filters": 32, "kernel": 3}, {"kind": "batch_norm"}, {"kind": "activation", "function": "relu"},
  {"kind": "residual", "branch": [{"kind": "separable_conv", "filters": 64, "kernel": 5},
                                  {"kind": "gate", "function": "silu"}], "shortcut": []},
  {"kind": "max_pool", "size": 2}, {"kind": "dropout", "rate": 0.1},
  {"kind": "separable_conv", "filters": 10, "kernel": 1, "use_bias": true}, {"kind": "global_average_pool"},
  {"kind": "softmax"}]}"""
    layers = (
        SeparableConv(32),
        BatchNorm(),
        Activation("relu"),
        Residual((SeparableConv(64, 5), Gate("silu"))),
        MaxPool(),
        Dropout(0.1),
        SeparableConv(10, 1, use_bias=True),
        GlobalAveragePool(),
        Softmax(),
    )
    assert from_json(text) == Architecture((32, 32, 3), 10, layers, "tiny")


def test_a_file_lends_its_name_to_a_network_without_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(to_json(net()))
    assert load(path) == net(name="mine")
    path.write_text(to_json(net(name="theirs")))
    assert load(path).name == "theirs"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"input": [8')
    for path in (tmp_path / "absent.json", tmp_path, tmp_path / "broken.json"):
        with pytest.raises(UserError) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# --- canonical form and fingerprint ----------------------------------------------------------------------------------


def _same(left: Architecture, right: Architecture) -> bool:
    return fingerprint(left) == fingerprint(right)


@given(architectures())
@settings(max_examples=300)
def test_the_canonical_form_is_its_own_and_the_same_network(architecture: Architecture) -> None:
    plain = canonical(architecture)
    assert canonical(plain) == plain
    assert plain.name == ""
    assert _same(plain, architecture)
    before, after = compute_cost(architecture), compute_cost(plain)
    assert replace(after, largest_activation=0) == replace(before, largest_activation=0)
    assert resolve(plain)[-1].output == resolve(architecture)[-1].output
    assert receptive_field(resolve(plain)) == receptive_field(resolve(architecture))


def test_the_largest_activation_of_the_canonical_form_is_the_same() -> None:
    for nothing in (Dropout(0.0), MaxPool(1), AveragePool(1, 1)):
        architecture = net(nothing, SeparableConv(1, stride=4))
        assert compute_cost(canonical(architecture)) == compute_cost(architecture)


@given(architectures())
@settings(max_examples=100)
def test_the_fingerprint_survives_the_file(architecture: Architecture) -> None:
    assert _same(from_json(to_json(architecture)), architecture)
    assert re.fullmatch(r"[0-9a-f]{16}", fingerprint(architecture))


def test_the_fingerprint_stays_what_it_was() -> None:
    """Studies on disk know their networks by it: a change here orphans them."""
    assert fingerprint(reference("eip-c")) == "c2a335a2bc17ac31"


POOL, VECTOR = (MaxPool(2, 2), MaxPool()), GlobalAveragePool()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (net(Conv(2), name="a"), net(Conv(2), name="b")),
        (net(Dropout(0.0), Conv(2)), net(Conv(2))),
        (net(Conv(2), Dropout(0)), net(Conv(2))),
        (net(MaxPool(1), Conv(2)), net(Conv(2))),
        (net(AveragePool(1, 1, "same")), net()),
        (net(MaxPool(2, 2)), net(MaxPool())),
        (net(AveragePool(3, 3)), net(AveragePool(3))),
        (net(Conv(2, 1, dilation=3)), net(Conv(2, 1))),
        (net(SeparableConv(2, 1, padding="valid")), net(SeparableConv(2, 1))),
        (net(SpatialSeparableConv(2, 1, 2, "valid")), net(SpatialSeparableConv(2, 1, 2))),
        (net(VECTOR, Flatten(), tail=TAIL[1:]), net()),
        (net(VECTOR, Flatten(), Flatten(), BatchNorm(), Flatten(), tail=TAIL[1:]), net(VECTOR, BatchNorm(), tail=TAIL[1:])),
        (net(Flatten(), Flatten(), tail=TAIL[1:]), net(Flatten(), tail=TAIL[1:])),
        (net(Residual((MaxPool(1), Dropout(0), Conv(3)))), net(Residual((Conv(3),)))),
        (net(Residual((Residual((Conv(3),), (Dropout(0),)),))), net(Residual((Residual((Conv(3),)),)))),
        (net(VECTOR, Residual((Flatten(), Dense(3))), tail=TAIL[1:]), net(VECTOR, Residual((Dense(3),)), tail=TAIL[1:])),
        (
            net(Residual((VECTOR,), (VECTOR,)), Flatten(), tail=TAIL[1:]),
            net(Residual((VECTOR,), (VECTOR,)), tail=TAIL[1:]),
        ),
        (net(BatchNorm(0, 1)), net(BatchNorm(0.0, 1.0))),
    ],
    ids=lambda architecture: "-".join(layer.kind for layer in architecture.layers[:-2]),
)
def test_fingerprint_ignores_names_and_defaults(left: Architecture, right: Architecture) -> None:
    assert canonical(left) == canonical(right)
    assert _same(left, right)


def _other(record: Any, name: str) -> Any:
    """Another value for a field that matters."""
    value = getattr(record, name)
    if name in ("branch", "shortcut"):
        return (*value, SeparableConv(5, 5))
    if name == "function":
        return next(one for one in get_args(Function) if one != value)
    if name == "padding":
        return next(one for one in get_args(Padding) if one != value)
    if value is None:
        return 1
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value / 2


def _shared(weights: str, *others: str, conv: type[Any] = SeparableConv) -> tuple[Any, ...]:
    """Convolutions of 3 channels that bear these names for their weights, the last two inside a residual."""
    layers = [conv(3, 5, weights=name) for name in (weights, *others)]
    return (*layers[:-2], Residual((*layers[-2:], BatchNorm())))


@pytest.mark.parametrize("conv", [SeparableConv, SpatialSeparableConv, Conv])
def test_fingerprint_ignores_names_of_shared_weights_but_not_their_sharing(conv: type[Any]) -> None:
    def named(names: str) -> Architecture:
        return net(*_shared(*names.split(), conv=conv))

    assert canonical(named("a b a")) == canonical(named("x y x")) == canonical(named("1 2 1"))
    assert canonical(named("a b b")).layers == net(*_shared("", "1", "1", conv=conv)).layers  # alone is as good as unnamed
    assert _same(named("a b c"), net(*_shared("", "", "", conv=conv)))
    alike = ["a b a", "a b b", "a a b", "a a a", "a b c"]
    assert len({fingerprint(named(names)) for names in alike}) == len(alike)
    assert fingerprint(named("b a b")) == fingerprint(named("a b a"))
    two_sets = net(*_shared("b", "b", conv=conv), *_shared("a", "a", conv=conv))
    assert [layer.weights for layer in walk(canonical(two_sets).layers) if isinstance(layer, conv)] == ["1", "1", "2", "2"]
    assert from_json(to_json(named("a b a"))) == named("a b a")


@pytest.mark.parametrize(
    ("record", "name"),
    [(record, entry.name) for record in RECORDS for entry in fields(record) if entry.name not in ("kind", "weights")],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_each_field_of_each_layer_changes_the_fingerprint(record: type[Any], name: str) -> None:
    example = EXAMPLES[record]
    changed = replace(example, **{name: _other(example, name)})
    assert not _same(net(example), net(changed))
    assert not _same(net(Residual((example,))), net(Residual((changed,))))
    assert not _same(net(Residual((), (example,))), net(Residual((), (changed,))))
    assert fingerprint(from_json(to_json(net(changed)))) == fingerprint(net(changed))


def test_kind_order_input_and_classes_change_the_fingerprint() -> None:
    distinct = [net(layer) for layer in EXAMPLES.values()]
    distinct += [net(Conv(2), Flatten()), net(Flatten(), Conv(2)), net(side=13), net(channels=4), net()]
    distinct += [replace(net(), classes=3), replace(net(), input=(12, 13, 3)), replace(net(), input=(13, 12, 3))]
    distinct += [net(Residual((Conv(3),), (Conv(3, 5),))), net(Residual((Conv(3, 5),), (Conv(3),))), net(MaxPool(1, 2))]
    assert len({fingerprint(one) for one in distinct}) == len(distinct)


@given(st.lists(architectures(), min_size=2, max_size=6))
@settings(max_examples=50)
def test_networks_share_a_fingerprint_exactly_when_their_canonical_forms_are_equal(some: list[Architecture]) -> None:
    for left in some:
        for right in some:
            assert _same(left, right) == (canonical(left) == canonical(right))


def test_every_layer_has_words_in_a_table() -> None:
    told = {record.__name__: describe(example) for record, example in EXAMPLES.items()}
    assert told["SeparableConv"] == "4 filters, 3x3"
    assert told["Dropout"] == "rate 0.1"
    full = SeparableConv(8, 5, 1, "valid", 2, 3, True)
    assert describe(full) == "8 filters, 5x5, valid, dilation 2, depth multiplier 3, bias"
    assert describe(replace(full, weights="a")) == "8 filters, 5x5, valid, dilation 2, depth multiplier 3, bias, weights a"
    assert describe(SpatialSeparableConv(8, 3, 2)) == "8 filters, 3x3, stride 2"
    assert describe(MaxPool(3, 2)) == "3x3, stride 2"
    assert describe(MaxPool()) == "2x2"
    assert describe(MaxPool(3, 2, "same")) == "3x3, stride 2, same"
    assert describe(BatchNorm()) == "momentum 0.99"
    assert describe(BatchNorm(0.9, 1e-5)) == "momentum 0.9, epsilon 1e-05"
    assert describe(Dense(4, False)) == "4 units, no bias"
    assert set(told) == {record.__name__ for record in RECORDS}
    assert module.LARGEST == LARGEST
