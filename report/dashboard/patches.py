"""optuna-dashboard made quick for thousands of trials, within the process that serves it.

For each trial it goes through every attribute of the study, the notes of all others among them, in search of that trial's
note and files: ten million steps a page with 2,000 trials, where both can be looked up. It also keeps its graphs in a set,
so that each start shows them in another order. A version that has none of these functions is served as it is.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from report.dashboard.publish import ARTIFACT, GRAPH, GRAPHS

Attributes = Mapping[str, Any]


def apply() -> None:
    """Put the functions below in the place of the dashboard's own."""
    for module, name, better in PATCHES:
        with contextlib.suppress(ImportError):
            found = importlib.import_module(f"optuna_dashboard.{module}")
            if hasattr(found, name):
                setattr(found, name, better)


def note(attributes: Attributes, trial_id: int | None) -> dict[str, Any]:
    """The note of a trial, or of the study: its version and its body."""
    prefix = "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
    parts = list[str]()
    for place in count():
        if (part := attributes.get(f"{prefix}note_str:{place}")) is None:
            break
        parts.append(part)
    version = attributes.get(f"{prefix}note_ver")
    return {"version": 0, "body": ""} if version is None else {"version": int(version), "body": "".join(parts)}


def trial_artifacts(_attributes: Attributes, own: Attributes, _trial: object) -> list[dict[str, Any]]:
    """What the files of a trial are: no version of Optuna that runs here keeps them with the study."""
    found = [json.loads(value) for key, value in own.items() if key.startswith(ARTIFACT)]
    return [meta for meta in found if meta is not None]


def graph_names(attributes: Attributes) -> list[str]:
    """The names of the graphs of a study: ours first, in our order, then others by name."""
    graphs = {key.removeprefix(GRAPH).rsplit(":", 1)[0] for key in attributes if key.startswith(GRAPH)}
    return [*(name for name in GRAPHS if name in graphs), *sorted(graphs.difference(GRAPHS))]


PATCHES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("_note", "get_note_from_system_attrs", note),
    ("_serializer", "list_trial_artifacts", trial_artifacts),
    ("_custom_plot_data", "list_graph_object_ids", graph_names),
)
