"""Budgets of several limits: each is strict, all apply, and a rejected network comes with the limit that it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from search.budget.cost import compute_cost
from search.budget.devices import CHIPS, KB, RESERVED, memory_of
from search.budget.limits import Budget
from search.budget.metrics import METRICS
from search.errors import UserError, first_problem
from search.networks.layers import Activation, BatchNorm, SeparableConv
from search.storage.attributes import REFUSED
from search.study import survey as plan
from search.tuning.candidate import Candidate, Rejection, fits, judge
from search.tuning.scaling import largest_that_fits
from space import Pyramid, ResidualStages, build, parameters
from tests.support.proposals import FACTS, SPACE, configured, open_study, opened, propose
from tests.support.strategies import draw_values, net, reference

LOOSE = 10**9
MOBILE = ResidualStages.model_validate(
    {
        "stages": [2, 3],
        "width": {"low": 8, "high": 64, "step": 4},
        "block": ["gated", "inverted"],
        "activation": ["relu", "silu"],
        "stem_stride": [1, 2],
    }
)


def budget(**limits: Any) -> Budget:
    return Budget.model_validate({"params": LOOSE} | limits)


# --- each limit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eip-b", "eip-d"])
@pytest.mark.parametrize("limit", METRICS)
def test_a_limit_is_strict_and_named(limit: str, name: str) -> None:
    architecture = reference(name)
    cost = compute_cost(architecture)
    value = getattr(cost, limit)
    assert budget(**{limit: value + 1}).breach(architecture, cost) is None
    breach = budget(**{limit: value}).breach(architecture, cost)
    assert breach is not None
    assert breach.reason == f"{value:,} {METRICS[limit].full_label}, the budget is under {value:,}"
    assert breach.rule == {
        "params": "over budget",
        "macs": "over macs",
        "flash_bytes": "over flash",
        "peak_activation_bytes": "over peak activation",
        "arena_bytes": "over arena",
    }[limit]  # fmt: skip


def test_all_limits_apply_and_the_first_broken_one_is_named() -> None:
    architecture = reference("eip-b")
    cost = compute_cost(architecture)
    exact: dict[str, Any] = {name: getattr(cost, name) + 1 for name in METRICS}
    assert Budget.model_validate(exact).breach(architecture, cost) is None
    for broken in METRICS:
        found = Budget.model_validate(exact | {broken: exact[broken] - 1}).breach(architecture, cost)
        assert found is not None and METRICS[broken].full_label in found.reason
    both = Budget.model_validate(exact | {"arena_bytes": 1, "macs": 1}).breach(architecture, cost)
    assert both is not None and both.rule == "over macs"


def test_bounds_of_the_receptive_field_are_included() -> None:
    architecture = reference("eip-b")  # 52
    cost = compute_cost(architecture)

    def rule(**bounds: int) -> str | None:
        found = budget(receptive_field=bounds).breach(architecture, cost)
        return found.reason if found else None

    assert rule(at_least=52) is rule(at_most=52) is rule(at_least=52, at_most=52) is rule(at_least=1) is None
    assert rule(at_least=53) == "a receptive field of 52 pixels, the budget asks for at least 53"
    assert rule(at_most=51) == "a receptive field of 52 pixels, the budget asks for at most 51"


def test_a_device_takes_what_fits_to_the_last_byte() -> None:
    architecture = reference("eip-b")
    cost = compute_cost(architecture)
    fit = f"{cost.arena_bytes}B/{cost.flash_bytes}B"
    assert budget(device=fit).breach(architecture, cost) is None
    for device, rule in {
        f"{cost.arena_bytes - 1}B/{cost.flash_bytes}B": "over arena",
        f"{cost.arena_bytes}B/{cost.flash_bytes - 1}B": "over flash",
        "64KB/64KB": "over flash",
    }.items():
        found = budget(device=device).breach(architecture, cost)
        assert found is not None and found.rule == rule
    tighter = budget(device=fit, flash_bytes=cost.flash_bytes).breach(architecture, cost)
    assert tighter is not None and tighter.rule == "over flash"


def test_a_chip_leaves_room_for_its_program() -> None:
    assert memory_of("64KB/64KB") == (65_536, 65_536)
    assert memory_of("1 MB/2MB") == (1 << 20, 2 << 20)
    for chip, (ram, flash) in CHIPS.items():
        assert memory_of(chip) == (ram * KB - RESERVED[0], flash * KB - RESERVED[1])
        assert min(memory_of(chip)) > 0


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"macs": 0}, "macs"),
        ({"flash_bytes": 64.5}, "flash_bytes"),
        ({"flash": 64}, "flash: unknown key, did you mean 'flash_bytes'?"),
        ({"device": "nrf52"}, "device: 'nrf52' is no known chip, did you mean 'nrf52840'?"),
        ({"device": "64KB"}, "device: '64KB' is no known chip"),
        ({"device": "64/64"}, 'or give RAM and flash, such as "64KB/64KB"'),
        ({"receptive_field": {}}, "receptive_field: needs at_least or at_most"),
        ({"receptive_field": {"at_least": 9, "at_most": 8}}, "receptive_field: at_least must be up to at_most"),
        ({"receptive_field": 9}, "receptive_field"),
    ],
)
def test_a_bad_budget_is_reported_in_one_line(table: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        budget(**table)
    line = first_problem(caught.value, Budget.model_fields)
    assert expected in line
    assert len(line.splitlines()) == 1


def test_the_limits_in_words() -> None:
    assert budget().words == f"{LOOSE:,} parameters"
    assert budget(macs=5, receptive_field={"at_least": 3}).words == (
        f"{LOOSE:,} parameters, 5 multiply-adds and a receptive field of at least 3"
    )
    assert budget().is_plain
    assert not budget(macs=5).is_plain
    assert not budget(receptive_field={"at_most": 3}).is_plain


# --- in a search -----------------------------------------------------------------------------------------------------

LIMITS: dict[str, Any] = {"params": 20_000, "macs": 3_000_000, "flash_bytes": 40_000, "arena_bytes": 90_000}


def test_a_proposal_is_rejected_with_the_limit_that_it_breaks() -> None:
    config = configured({"kind": "residual"} | MOBILE.model_dump(mode="json"), budget=LIMITS)
    seen = set()
    for seed in range(300):
        found = judge(config, FACTS, draw_values(config.space, seed))
        assert found.cost is not None
        within = {name: getattr(found.cost, name) < limit for name, limit in LIMITS.items()}
        assert isinstance(found, Candidate) == all(within.values()) == fits(config, FACTS, draw_values(config.space, seed))
        if isinstance(found, Rejection):
            seen.add(found.rule)
            first = next(name for name in METRICS if not within.get(name, True))
            assert METRICS[first].full_label in found.reason
    assert seen == {"over budget", "over macs", "over flash", "over arena"}


def test_the_sampler_counts_rejections_by_rule_and_proposes_networks_that_fit(tmp_path: Path) -> None:
    config = configured(
        SPACE, budget={"params": 2_000, "macs": 700_000, "flash_bytes": 12_000}, search={"sampler": "random"}
    )
    trials = propose(open_study(opened(tmp_path)), config, 25)
    rules = [rule for trial in trials for rule in trial.user_attrs.get(REFUSED, {})]
    assert {"over budget", "over macs"} <= set(rules) <= {"over budget", "over macs", "over flash", "same network"}
    for trial in trials:
        values = {name: config.parameters[name].find(value) for name, value in trial.params.items()}
        assert fits(config, FACTS, {name: value for name, value in values.items() if value is not None})


@pytest.mark.parametrize("seed", range(12))
def test_fill_stays_within_every_limit_and_the_next_step_does_not(seed: int) -> None:
    config = configured({"kind": "residual"} | MOBILE.model_dump(mode="json"), budget=LIMITS)
    values = draw_values(config.space, seed)
    found = largest_that_fits(config.space, values, lambda at: fits(config, FACTS, at))
    if found is None:
        lowest = values | {name: 8 for name in values if name.startswith("width")}
        assert not fits(config, FACTS, lowest)
        return
    assert fits(config, FACTS, found)
    wider = {name: min(64, int(value) + 4) for name, value in found.items() if name.startswith("width")}
    assert not fits(config, FACTS, found | wider) or set(wider.values()) == {64}


# --- plan ------------------------------------------------------------------------------------------------------------


def test_plan_counts_rejections_by_rule() -> None:
    within = Budget.model_validate(LIMITS)
    found = plan.survey_space(MOBILE, within, FACTS.input_shape, FACTS.classes, draws=300)
    assert set(found.broken) == {"over budget", "over macs", "over flash", "over arena"}
    assert sum(found.broken.values()) == 300 - round(found.share_that_fits * 300)


def test_a_limit_out_of_reach_is_rejected_with_the_least_cost_found() -> None:
    space = Pyramid.model_validate({"blocks": 2, "width": [8, 16], "pools": 0})
    least = compute_cost(build(space, dict.fromkeys(parameters(space), 8), (32, 32, 3), 10))
    for name in ("macs", "flash_bytes", "arena_bytes", "peak_activation_bytes"):
        value = getattr(least, name)
        with pytest.raises(
            UserError, match=f"{value:,} {METRICS[name].full_label} is out of reach, the least found .* is {value:,}"
        ):
            plan.check(space, budget(**{name: value}), (32, 32, 3), 10)
        plan.check(space, budget(**{name: value + 1}), (32, 32, 3), 10)  # in reach
    with pytest.raises(UserError, match=r"no network of the space was found under .* at least 99"):
        plan.check(space, budget(receptive_field={"at_least": 99}), (32, 32, 3), 10)


def test_batch_norms_that_do_not_fold_are_named() -> None:
    conv, bn, relu = SeparableConv(8), BatchNorm(), Activation("relu")
    assert compute_cost(net(conv, bn, relu)).lowered.unfolded == []
    assert compute_cost(net(conv, relu, bn, conv, relu, bn)).lowered.unfolded == ["batch_norm_1", "batch_norm_2"]


def test_the_memory_of_a_device_is_shown_exactly() -> None:
    """65,536 bytes and not the strict limit above them; a limit of the study's own is strict."""
    fit = budget(params=9_000, device="64KB/64KB")
    both = "at most 65,536 bytes of flash in int8 and at most 65,536 bytes of arena in int8"
    assert fit.words == f"9,000 parameters, {both}"
    own = budget(params=9_000, device="64KB/64KB", flash_bytes=60_000)
    assert own.words == "9,000 parameters, 60,000 bytes of flash in int8 and at most 65,536 bytes of arena in int8"
    breach = budget(device="64KB/1KB").breach(reference("eip-b"), compute_cost(reference("eip-b")))
    assert breach is not None and breach.reason.endswith("bytes of flash in int8, the budget is at most 1,024")
