"""Replacements for functions of optuna-dashboard, in the process that serves it.

For each trial the original scans all attributes of the study, including the notes of all other trials, for its note and
files: ten million steps a page with 2,000 trials. It keeps graphs in a set, so that their order differs between starts. It
answers "internal server error" where the database takes no writes. Functions that an installed version lacks are not
replaced.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import json
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from optuna.trial import FrozenTrial

from report.dashboard.publish import ARTIFACT, GRAPH, GRAPHS, drawing_key
from search.storage.failures import cause_of, is_disk_full
from search.storage.optuna_internals import trial_id_of

Attributes = Mapping[str, Any]


def apply() -> None:
    """Replace the dashboard's functions by those below."""
    for module, name, better in PATCHES:
        with contextlib.suppress(ImportError):
            found = importlib.import_module(f"optuna_dashboard.{module}")
            if hasattr(found, name):
                setattr(found, name, better)


def note(attributes: Attributes, trial_id: int | None) -> dict[str, Any]:
    """Version and body of the note of a trial, or of the study."""
    prefix = "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
    parts = list[str]()
    for place in count():
        if (part := attributes.get(f"{prefix}note_str:{place}")) is None:
            break
        parts.append(part)
    version = attributes.get(f"{prefix}note_ver")
    return {"version": 0, "body": ""} if version is None else {"version": int(version), "body": "".join(parts)}


def trial_artifacts(attributes: Attributes, own: Attributes, trial: FrozenTrial) -> list[dict[str, Any]]:
    """Files of a trial: the drawing of its network, which the study has, then those of its own attributes.

    Supported versions of Optuna keep no others with the study.
    """
    drawing = attributes.get(drawing_key(trial_id_of(trial), trial.number), "null")
    found = [json.loads(drawing), *(json.loads(value) for key, value in own.items() if key.startswith(ARTIFACT))]
    return [meta for meta in found if meta is not None]


def graph_names(attributes: Attributes) -> list[str]:
    """Names of the graphs of a study: ours first in their order, then others by name."""
    graphs = {key.removeprefix(GRAPH).rsplit(":", 1)[0] for key in attributes if key.startswith(GRAPH)}
    return [*(name for name in GRAPHS if name in graphs), *sorted(graphs.difference(GRAPHS))]


def api_view(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view of the API that answers with the reason and the remedy where nothing can be stored."""
    from bottle import HTTPError  # type: ignore[import-untyped]
    from optuna_dashboard._bottle_util import json_api_view

    @functools.wraps(view)
    def answer(*arguments: Any, **named: Any) -> Any:
        try:
            return view(*arguments, **named)
        except Exception as error:
            if refusal := write_failure(error):
                raise HTTPError(*refusal) from None
            raise

    wrapped: Callable[..., Any] = json_api_view(answer)  # turns the error into JSON, any other into status 500
    return wrapped


def write_failure(error: Exception) -> tuple[int, str] | None:
    """HTTP status and text for an error of a disk that is full or of a database that may only be read, else None."""
    cause = cause_of(error)
    if is_disk_full(error) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return 507, f"the disk is full ({cause}); make space and try again"
    if "readonly database" in cause:
        remedy = "make space, or the file writable, and start the dashboard again"
        return 403, f"the database may only be read here ({cause}); {remedy}"
    return None


PATCHES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("_note", "get_note_from_system_attrs", note),
    ("_serializer", "list_trial_artifacts", trial_artifacts),
    ("_custom_plot_data", "list_graph_object_ids", graph_names),
    ("_app", "json_api_view", api_view),
    ("artifact._backend", "json_api_view", api_view),
)
