"""Rules of a task that a network meets or breaks, with the smallest edits that mend it and their cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from search.budget.cost import compute_cost, compute_layer_cost
from search.budget.limits import Budget
from search.data.dataset import shape_of
from search.keras_import.convert import Imported
from search.keras_import.edits import head_of, rebuilt, scaled_to_fit, separated, widened
from search.keras_import.names import KNOWN
from search.networks.architecture import Architecture
from search.networks.geometry import Resolved, flatten, resolve
from search.networks.layers import (
    ArchitectureError,
    BatchNorm,
    Conv,
    ConvLayer,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    walk,
)
from search.study import study_file
from search.text import format_shape


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that a task sets for its networks."""

    budget: Budget
    input: tuple[int, int, int]
    classes: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule with its result, the evidence, and edits that would mend the network."""

    rule: str
    holds: bool
    words: str
    edits: tuple[str, ...] = ()


def rules_of(study: str, budget: int | None) -> Rules:
    """Read the rules of a study, with another budget if one is given.

    Raises:
        UserError: there is no such study, or its images cannot be read.
    """
    config = study_file.load(study_file.find(study)[1], {})
    wish = config.data
    shape, classes = shape_of(wish.name, wish.path, config.protocol, wish.holdout, wish.options, wish.folds)
    return Rules(config.budget if budget is None else config.budget.model_copy(update={"params": budget}), shape, classes)


def judge(imported: Imported, rules: Rules) -> list[Finding]:
    """Check all rules; with unknown layers the other rules are checked on the nearest network, if there is one."""
    problems, alike = imported.problems, dict[tuple[str, str], list[str]]()
    for problem in problems:
        alike.setdefault((problem.rule, problem.edit), []).append(problem.where)
    edits = tuple(f"{_listed(places)}: {rule}; instead: {edit}" for (rule, edit), places in alike.items())
    words = f"{_count(len(problems), 'place')} to mend; known: {KNOWN}" if problems else "all of them"
    results = [Finding("known layers", not problems, words, edits)]
    network = imported.architecture
    if network is None or not all(problem.mended for problem in problems):
        return results
    rows = [row for _, row in flatten(resolve(network))]
    names = dict(zip((row.name for row in rows), imported.origins, strict=True))
    return [
        *results,
        _input(network, rules),
        *([_separable(rows, names)] if rules.budget.separable_only else []),
        _batch_norm(network),
        _dropout(network, rows, names),
        _softmax(imported),
        _budget(network, rules.budget, rows, names),
    ]


# --- rules -----------------------------------------------------------------------------------------------------------


def _input(network: Architecture, rules: Rules) -> Finding:
    text = f"{format_shape(network.input)}, {network.classes} classes"
    if (network.input, network.classes) == (rules.input, rules.classes):
        return Finding("input", True, text)
    edit = f"keras.Input({rules.input}) and {rules.classes} classes"
    head = head_of(network)
    try:
        changed = replace(network, input=rules.input, classes=rules.classes)
        resized = rebuilt(changed, lambda layer: (widened(layer, rules.classes) if layer is head else layer,))
        edit += f", which makes it {compute_cost(resized).params:,} parameters"
    except ArchitectureError as error:
        edit += f", which its layers do not fit ({error})"
    return Finding("input", False, f"{text}; the images are {format_shape(rules.input)} in {rules.classes} classes", (edit,))


def _separable(rows: list[Resolved], names: dict[str, str]) -> Finding:
    alike: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if isinstance(row.layer, Conv):
            size = f"{row.layer.kernel}x{row.layer.kernel}, {row.input[-1]} -> {row.layer.filters}"
            saved = compute_layer_cost(row).params - compute_layer_cost(row._replace(layer=separated(row.layer))).params
            words = f"saves {saved:,} parameters" if saved >= 0 else f"takes {-saved:,} parameters more"
            alike.setdefault((size, words), []).append(names[row.name])
    edits = tuple(
        f"{_listed(places)} ({size}): a SeparableConv2D of the same size {saves}{' each' if len(places) > 1 else ''}"
        for (size, saves), places in alike.items()
    )
    count = sum(map(len, alike.values()))
    return Finding("separable only", not count, _count(count, "plain convolution"), edits)


def _batch_norm(network: Architecture) -> Finding:
    count = sum(isinstance(layer, BatchNorm) for layer in walk(network.layers))
    if count:
        return Finding("batch norm", True, _count(count, "layer"))
    head, added = head_of(network), 0

    def change(layer: Layer) -> tuple[Layer, ...]:
        nonlocal added
        takes = isinstance(layer, ConvLayer) and layer is not head
        added += takes
        return (layer, BatchNorm()) if takes else (layer,)

    more = compute_cost(rebuilt(network, change)).params - compute_cost(network).params
    edit = f"BatchNormalization after each of the {added} convolutions before the last: {more:,} parameters more"
    return Finding("batch norm", False, "none", (edit if added else "BatchNormalization after a convolution",))


def _dropout(network: Architecture, rows: list[Resolved], names: dict[str, str]) -> Finding:
    count = sum(isinstance(layer, Dropout) and layer.rate > 0 for layer in walk(network.layers))
    if count:
        return Finding("dropout", True, _count(count, "layer"))
    head = head_of(network)
    before = next((names[row.name] for row in rows if row.layer is head), "the last layer")
    return Finding("dropout", False, "none of a rate above 0", (f"Dropout(0.2) before {before}: no parameters",))


def _softmax(imported: Imported) -> Finding:
    if not imported.softmax_added:
        return Finding("softmax", True, "at the end")
    edit = "activation='softmax' in the last layer; the architecture file has one, which changes no weights"
    return Finding("softmax", False, "gives scores and no probabilities", (edit,))


def _budget(network: Architecture, budget: Budget, rows: list[Resolved], names: dict[str, str]) -> Finding:
    params = compute_cost(network).params
    if params < budget.params:
        return Finding("budget", True, f"{params:,} parameters, {budget.params - params:,} below {budget.params:,}")
    text = f"{params:,} parameters, {params - budget.params + 1:,} too many for a budget under {budget.params:,}"
    edits, smaller = [], network
    for edit, candidate in _reductions(network, rows, names):
        count = compute_cost(candidate).params
        edits.append(f"{edit}: {count:,} parameters, which {'fits' if count < budget.params else 'is still too many'}")
        smaller = candidate
        if count < budget.params:
            return Finding("budget", False, text, tuple(edits))
    return Finding("budget", False, text, (*edits, _scaling(smaller, budget, after=len(edits))))


def _reductions(network: Architecture, rows: list[Resolved], names: dict[str, str]) -> Iterator[tuple[str, Architecture]]:
    """Yield edits that keep all widths, each applied after those before it."""
    plain = [layer for layer in walk(network.layers) if isinstance(layer, Conv)]
    if plain:
        smaller = rebuilt(network, lambda layer: (separated(layer) if isinstance(layer, Conv) else layer,))
        if compute_cost(smaller).params < compute_cost(network).params:  # 1x1 convolutions alone would grow
            network = smaller
            yield "SeparableConv2D for the plain convolutions", network
    wide = [row for row in rows if isinstance(row.layer, Flatten) and len(row.input) == 3 and row.input[:2] != (1, 1)]
    if wide:
        network = rebuilt(network, lambda layer: (GlobalAveragePool() if isinstance(layer, Flatten) else layer,))
        try:
            compute_cost(network)
        except ArchitectureError:  # a second Flatten, on a vector
            return
        yield f"GlobalAveragePooling2D for {names[wide[0].name]}", network


def _scaling(network: Architecture, budget: Budget, *, after: int) -> str:
    """Text of the edit that scales all widths but the head's by the largest factor that fits."""
    begin = "then widths" if after else "widths"
    scaled = scaled_to_fit(network, budget)
    if scaled is None:
        return f"{begin} in proportion: no network of this form fits; take fewer layers"
    smaller, widths = scaled
    changes = ", ".join(f"{old} -> {new}" for old, new in widths.items())
    return f"{begin} in proportion, {changes}: {compute_cost(smaller).params:,} parameters, which fits"


# --- words -------------------------------------------------------------------------------------------------------------


def _listed(names: list[str]) -> str:
    """Names of layers in one list: `Conv2D conv2d_1, conv2d_2` for layers of one class."""
    kinds = {place.split(" ")[0] for place in names}
    rest = names[1:] if len(kinds) > 1 else [place.split(" ", 1)[-1] for place in names[1:]]
    return ", ".join((*names[:1], *rest))


def _count(number: int, thing: str) -> str:
    return f"{number or 'no'} {thing}{'' if number == 1 else 's'}"
