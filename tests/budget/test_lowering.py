"""Operators, tensors and bytes of the int8 form, against TensorFlow's own converter; memory against orders and arenas."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from tensorflow.lite.python import schema_py_generated as schema

from search.budget.cost import compute_cost
from search.budget.footprint import arena_bytes, arena_to_allocate, head_bytes, peak_activation_bytes
from search.budget.limits import Budget
from search.budget.lowering import Lowered, lower, registration
from search.budget.summary import summarize
from search.data.preprocessing import Pixels
from search.export.tflite import int8_tflite
from search.networks.architecture import Architecture
from search.networks.geometry import resolve
from search.networks.layers import (
    Activation,
    BatchNorm,
    Dense,
    Dropout,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.spaces.domains import Value
from search.study.study_file import load
from search.training.model import build as build_model
from search.tuning.scaling import largest_that_fits
from space import build, parameters
from tests.support.strategies import architectures, net, reference
from tests.support.tiers import tiered

ROOT = Path(__file__).parents[2]
TOLERANCE = 0.05  # of the size of a file, by which its prediction may be larger


@lru_cache
def converted(name: str) -> bytes:
    """The int8 file of one of the networks below."""
    return convert(NETWORKS[name])


def convert(architecture: Architecture) -> bytes:
    """Convert a network with random weights and moving averages as `export` does, for batches of one image."""
    model = build_model(architecture)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if "variance" in variable.path:
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        else:
            variable.assign(variable.numpy() + generator.normal(0, 0.05, variable.shape))
    images = generator.integers(0, 256, (2, *architecture.input), dtype=np.uint8)
    return int8_tflite(architecture, model.get_weights(), images, Pixels())


def drawn(study: str, seed: int) -> Architecture:
    config = load(ROOT / "studies" / study / "study.toml")
    generator = random.Random(seed)
    values = {name: domain.draw(generator) for name, domain in parameters(config.space).items()}
    return build(config.space, values, (32, 32, 3), 10)


BN, RELU, SILU = BatchNorm(), Activation("relu"), Activation("silu")
SHARED = Residual((SeparableConv(16, weights="a"), BN, Gate("silu"), SeparableConv(8, 5, weights="b"), BN))
NETWORKS: dict[str, Architecture] = {
    "eip-b": reference("eip-b"),
    "eip-c-late": reference("eip-c-late"),
    "eip-d": reference("eip-d"),
    "every form": net(
        SeparableConv(8, 3, 2, depth_multiplier=3), BN, RELU, SHARED, SHARED, MaxPool(), BN,
        SpatialSeparableConv(12, 5), RELU, BN,
        Residual((BN, SILU, SeparableConv(12, 3, dilation=2)), (SeparableConv(12, 1), BN)),
        Activation("relu6"), side=32, channels=3,
    ),
    "norms behind ReLU": net(
        SeparableConv(8, use_bias=True), Dropout(0.1), RELU, Dropout(0.1), BN, RELU,
        SeparableConv(8, weights="a"), RELU, BN, SeparableConv(8, weights="a"), Activation("relu6"), BN,
        SeparableConv(8), Activation("relu6"), BN,
        SpatialSeparableConv(9), RELU, BN, Residual((RELU, BN)), Residual((SeparableConv(9), RELU, BN)),
        tail=(GlobalAveragePool(), Dense(6), RELU, BN, SILU, Dense(2), Softmax()),
    ),
    "residual 0": drawn("cifar10_100k_residual", 2),
    "residual 1": drawn("cifar10_25k_residual", 1),
    "pyramid": drawn("cifar10_100k", 4),
    "small": drawn("quickstart", 0),
}  # fmt: skip


# --- against the converter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiered(NETWORKS, quick=("eip-b", "every form", "norms behind ReLU", "residual 0", "small")))
def test_operators_and_tensors_are_those_of_the_file(name: str) -> None:
    lowered, file = (
        lower(resolve(NETWORKS[name])),
        schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(converted(name), 0)),
    )
    codes = {code: word for word, code in vars(schema.BuiltinOperator).items() if not word.startswith("_")}
    kinds = [codes[max(one.builtinCode, one.deprecatedBuiltinCode)] for one in file.operatorCodes]
    graph = file.subgraphs[0]
    assert [one.code for one in lowered.operators] == [kinds[one.opcodeIndex] for one in graph.operators]
    computed = [graph.inputs[0], *(int(one.outputs[0]) for one in graph.operators)]
    assert lowered.sizes == [int(np.prod(graph.tensors[tensor].shape)) for tensor in computed]
    numbers = {int(tensor): number for number, tensor in enumerate(computed)}
    reads = [tuple(numbers[int(one)] for one in operator.inputs if int(one) in numbers) for operator in graph.operators]
    assert [one.inputs for one in lowered.operators] == reads
    assert len(lowered.sizes) + len(lowered.constants) == len(graph.tensors)
    scales = [tensor.quantization.scale for tensor in graph.tensors if tensor.quantization is not None]
    kept = sum(len(one) for one in scales if one is not None)
    assert sum(one.scales for one in lowered.constants) + len(lowered.sizes) == kept


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_is_as_large_as_predicted(name: str) -> None:
    size = len(converted(name))
    assert size <= compute_cost(NETWORKS[name]).flash_bytes <= (1 + TOLERANCE) * size


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_a_filled_network_fits_its_flash_under_any_study_name(seed: int) -> None:
    """Networks as large as 64 KB of flash admit: no file exceeds the prediction, nor the limit."""
    config = load(ROOT / "studies" / "tinyml" / "study.toml")
    limit = Budget.model_validate({"params": 10**6, "flash_bytes": 65_537})

    def build_at(values: Mapping[str, Value]) -> Architecture:
        return build(config.space, values, (32, 32, 3), 10)

    def is_within(values: Mapping[str, Value]) -> bool:
        architecture = build_at(values)
        return limit.breach(architecture, compute_cost(architecture)) is None

    generator = random.Random(seed)
    proposal = {name: domain.draw(generator) for name, domain in parameters(config.space).items()}
    filled = largest_that_fits(config.space, proposal, is_within)
    assert filled is not None
    architecture = build_at(filled)
    predicted = compute_cost(architecture).flash_bytes
    sizes = {len(convert(replace(architecture, name=name))) for name in ("t-1", "a_study_with_a_long_name-12345")}
    assert len(sizes) == 1, "the name of the study is not in the file"
    assert 0.98 * predicted <= max(sizes) <= predicted <= 65_536


# --- against arenas --------------------------------------------------------------------------------------------------

ARENAS = {  # (head, total) that tflite-micro 0.dev20261023182759 allocated for the files of these networks, on x86-64
    "eip-a": (262_144, 278_912),
    "eip-b": (98_304, 114_880),
    "eip-c": (147_456, 162_912),
    "eip-c-late": (114_688, 133_824),
    "eip-d": (393_216, 420_304),
    "base": (92_352, 107_728),
}


@pytest.mark.parametrize("name", ARENAS)
def test_the_arena_is_what_the_runtime_allocated(name: str) -> None:
    head, total = ARENAS[name]
    lowered = compute_cost(reference(name)).lowered
    assert head_bytes(lowered) == head
    assert arena_bytes(lowered) == pytest.approx(total, abs=32)


PLANNED = {  # arena that the same runtime needed at least for networks of 2 x 2 pixels, by separable layers and branches
    (SeparableConv(2), BatchNorm(), Activation("relu")): 2_856,
    (SeparableConv(2), BatchNorm(), Activation("relu")) * 4: 5_328,
    (SeparableConv(2), *[Residual((SeparableConv(2), BatchNorm()))] * 2): 4_968,
    (SeparableConv(2), Activation("silu")) * 2: 4_456,
}


@pytest.mark.parametrize("layers", PLANNED)
def test_small_maps_leave_too_little_room_to_plan_the_arena(layers: tuple[Layer, ...]) -> None:
    whole = (*layers, GlobalAveragePool(), Dense(2), Softmax())
    lowered = compute_cost(Architecture((2, 2, 1), 2, whole)).lowered
    assert 0 <= arena_to_allocate(lowered) - PLANNED[layers] <= 16


@pytest.mark.parametrize("name", ["eip-b", "base"])
def test_larger_maps_leave_room(name: str) -> None:
    lowered = compute_cost(reference(name)).lowered
    assert arena_to_allocate(lowered) == arena_bytes(lowered)


@pytest.mark.parametrize(
    ("code", "method"),
    [("CONV_2D", "AddConv2D"), ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"), ("MEAN", "AddMean"), ("RELU6", "AddRelu6")],
)
def test_operators_are_named_as_tensorflow_lite_micro_registers_them(code: str, method: str) -> None:
    assert registration(code) == method


def test_the_halves_of_a_separable_convolution_have_a_tensor_between_them() -> None:
    """A wide input map read by the pointwise half counts with its output, the input of the depthwise half does not."""
    lowered = compute_cost(net(SeparableConv(4, depth_multiplier=30), side=8)).lowered
    assert peak_activation_bytes(lowered) == 64 * (90 + 4)
    assert compute_cost(net(SeparableConv(40), side=8)).peak_activation_bytes == 64 * (3 + 40)


def test_a_gate_runs_in_a_better_order_than_that_of_the_file() -> None:
    cost = compute_cost(net(SeparableConv(32, 1), Gate("silu"), SeparableConv(2), side=8))
    half = 64 * 16
    assert peak_activation_bytes(cost.lowered) == 4 * half
    assert head_bytes(cost.lowered) == 5 * half


# --- against all orders ----------------------------------------------------------------------------------------------


def orders(lowered: Lowered) -> Iterator[list[int]]:
    """Every order in which the operators can run."""
    written = {operator.output: number for number, operator in enumerate(lowered.operators)}
    needs = [{written[one] for one in operator.inputs if one in written} for operator in lowered.operators]

    def further(done: list[int]) -> Iterator[list[int]]:
        if len(done) == len(needs):
            yield done
        for number, needed in enumerate(needs):
            if number not in done and needed <= set(done):
                yield from further([*done, number])

    return further([])


def worst(lowered: Lowered, order: list[int]) -> int:
    """Bytes at the worst moment by definition: computed tensors that are still to be read, and the one being written."""
    found = 0
    for place, number in enumerate(order):
        computed = {0, *(lowered.operators[one].output for one in order[: place + 1])}
        later = {tensor for one in order[place:] for tensor in lowered.operators[one].inputs}
        live = computed & (later | {lowered.operators[number].output})
        found = max(found, sum(lowered.sizes[one] for one in live))
    return found


@given(architectures(most_layers=4))
@settings(max_examples=60)
def test_the_peak_is_the_least_of_all_orders(architecture: Architecture) -> None:
    lowered = compute_cost(architecture).lowered
    some = list(itertools.islice(orders(lowered), 3_000))
    if len(some) < 3_000:
        assert peak_activation_bytes(lowered) == min(worst(lowered, order) for order in some)
    in_file = worst(lowered, list(range(len(lowered.operators))))
    assert peak_activation_bytes(lowered) <= in_file <= head_bytes(lowered)


def test_branches_run_in_the_better_order() -> None:
    """The thin side first, which frees the input of both, whichever side it stands on."""
    wide, thin = (SeparableConv(64, 1), SeparableConv(3, 1)), (SeparableConv(3, 1),)
    first, last = (
        compute_cost(net(SeparableConv(24, 1), Residual(*sides), side=8)) for sides in ((thin, wide), (wide, thin))
    )
    assert first.peak_activation_bytes == last.peak_activation_bytes == 64 * (3 + 64 + 64)
    assert head_bytes(first.lowered) == 64 * (3 + 64 + 64)
    assert head_bytes(last.lowered) == 64 * (24 + 64 + 64)


def test_the_summary_has_the_int8_costs() -> None:
    shown = summarize(reference("eip-d"))["int8"]
    assert list(shown) == ["flash_bytes", "peak_activation_bytes", "arena_bytes", "unfolded", "without_kernel"]
    assert shown["unfolded"] == [f"batch_norm_{number}" for number in range(1, 12)]
    assert summarize(net(SeparableConv(3), Activation("gelu")))["int8"]["without_kernel"] == ["GELU"]
