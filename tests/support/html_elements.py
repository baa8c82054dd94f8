"""HTML read as its elements."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from report.analysis.findings import Findings, gather
from report.analysis.mistakes import Predictions, summarize
from report.html import page as html
from search.data.sources import CIFAR10_CLASSES
from tests.support.synthetic import fill, finals_of, noise_images, storages_in_memory, synthetic_run

TRIALS = 120
VOID = ("meta", "img", "br", "link", "hr", "input")


class Parsed(HTMLParser):
    """The page as a browser reads it: elements with their attributes, the text in each, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words = ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "div" and dict(attrs).get("class") == "scroll":
            self.rows = self.tables.setdefault(str(dict(attrs)["aria-label"]), [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        elif "style" not in self.open:
            self.words += data
            if {"td", "th"} & set(self.open[-2:]):
                self.rows[-1][-1] += data

    def named(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]

    def figures(self) -> list[dict[str, Any]]:
        return [json.loads(text) for attributes, text in self.scripts if attributes == {"type": "application/json"}]

    def leaderboard(self) -> Any:
        return next(json.loads(text) for attributes, text in self.scripts if attributes.get("id") == "leaderboard")


def answers(class_names: tuple[str, ...] = CIFAR10_CLASSES) -> Predictions:
    """Those of a network that knows little."""
    data = noise_images(class_names)
    said = np.random.default_rng(0).dirichlet(np.ones(len(class_names)), len(data.y_val)).astype(np.float32)
    said[np.arange(len(data.y_val)), data.y_val] += 1.5 / len(class_names)
    return summarize(said, data)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Findings]:
    """A study of 120 candidates with its finals."""
    with storages_in_memory():
        run = synthetic_run(tmp_path_factory.mktemp("run"), recipe__epochs=6, search__trials=TRIALS)
        known = gather(run, fill(run, noise_images(), TRIALS))
        best = f"trial-{known.number}"
        yield replace(
            known, finals=finals_of({"base": [0.8, 0.81, 0.82], best: [0.87, 0.86, 0.88], "trial-0": [0.8, 0.85, 0.86]})
        )


@pytest.fixture(scope="module")
def text(found: Findings) -> str:
    return html.page(found, answers())
