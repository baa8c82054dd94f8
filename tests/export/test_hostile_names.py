"""Names of studies and classes are free text: no format is broken by one, or lets it out of its string or comment."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search.data.preprocessing import Pixels
from search.export.c_array import Source, Vectors, check, header_text, source_text, vectors_text
from search.export.exporter import export
from search.export.keras_source import add_source, keras_source
from search.export.litert import Facts, Tensor
from search.export.training_source import training_source
from search.networks.architecture import Architecture, fingerprint, load
from search.networks.layers import Dense, Flatten, Softmax
from search.training.recipe import Recipe

HOSTILE = (
    '"', '"""', "'''", "\\", '\\"', "*/", "/*", "`", "```", "{{", "}}", "{n}", "%s", "??/", "??'", "\n", "\r\n", "\x00",
    "\x1b",
    "\u2028", "\u202e", "</script>", "猫", "#include <x>", "import os", "}; int x;", "$(x)", "<b>", "|", " ",
    "a", "-", "_", "0",
)  # fmt: skip
names = st.lists(st.sampled_from(HOSTILE) | st.characters(exclude_categories=("Cs",)), max_size=12).map("".join)
VECTORS = Vectors((7,), np.full((1, 2, 2, 1), 9, np.uint8), np.array([[-128, 0, 127]], np.int8))
FACTS = Facts(Tensor((1, 2, 2, 1), "int8", 1 / 255, -128), Tensor((1, 3), "int8", 1 / 256, -128), ("SOFTMAX",), frozenset())


def network(name: str) -> Architecture:
    return Architecture((2, 2, 1), 3, (Flatten(), Dense(3), Softmax()), name)


def plain(text: str) -> str:
    """The program without its docstrings: what must not depend on any name."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body.pop(0)
    return re.sub(r"name='\w+'", "name='net'", ast.unparse(tree))


@given(names, st.lists(names, max_size=3))
@example('"""\\', ["\\", '\\"""', '""""'])
@settings(max_examples=150)
def test_python_sources_are_the_same_program_whatever_the_names(name: str, heading: list[str]) -> None:
    for source in (keras_source, add_source):
        text = source(network(name), heading=heading)
        assert plain(text) == plain(source(network("net")))
        assert all(line.isprintable() for line in text.splitlines())
    assert plain(training_source(Recipe(), subject=name)) == plain(training_source(Recipe()))


def literal(text: str) -> str:
    """The value of a C string literal of plain characters and octal escapes."""
    assert re.fullmatch(r'"(?:[ !#->@-\[\]-~]|\\[0-7]{3})*"', text), text
    parts = re.findall(r"\\([0-7]{3})|(.)", text[1:-1])
    return bytes(int(octal, 8) if octal else ord(letter) for octal, letter in parts).decode()


@given(names, st.lists(names, min_size=3, max_size=3), st.lists(names, max_size=3))
@settings(max_examples=150)
def test_c_sources_keep_names_in_literals_and_comments(name: str, classes: list[str], heading: list[str]) -> None:
    source = Source("net_int8", bytes(20), FACTS, Pixels(), classes, 1_024, VECTORS)
    text, header = source_text(source), header_text(source, [f"{name}: a network", *heading])
    check(source, header, text, vectors_text(source))
    stored = text.partition("_class_names[3] = {\n")[2].partition("\n};")[0]
    assert [literal(line.strip().removesuffix(",")) for line in stored.split("\n")] == classes
    comments, _, code = header.partition("\n#ifndef")
    for line in comments.rstrip("\n").split("\n"):
        assert line.startswith("//") and line.isprintable() and not line.endswith(("\\", "??/"))
    assert code == header_text(source, ["net"]).partition("\n#ifndef")[2]


@given(names, st.lists(names, max_size=2), st.lists(names, min_size=3, max_size=3))
@settings(max_examples=40)
def test_cards_are_read_back_with_their_names(name: str, heading: list[str], classes: list[str]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        facts = {"data": {"class_names": classes}, "study": name}
        exported = export(
            network(name), Path(folder), weights=None, facts=facts, pixels=Pixels(), recipe=None, heading=heading
        )
        assert not exported.failed
        card = json.loads((Path(folder) / "best_model.json").read_text(encoding="utf-8"))
        assert (card["name"], card["study"], card["data"]["class_names"]) == (name, name, classes)
        assert fingerprint(load(Path(folder) / "best_model.json")) == fingerprint(network("net"))


def test_a_name_that_is_no_text_is_exported(tmp_path: Path) -> None:
    """File names need not be UTF-8: Python gives such bytes as lone surrogates."""
    exported = export(
        network("a\udcff"), tmp_path, weights=None, facts={}, pixels=Pixels(), recipe=None, heading=["\udcff is odd"]
    )
    assert not exported.failed and len(list(tmp_path.iterdir())) == 3
