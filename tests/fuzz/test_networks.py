"""Architecture files of any content, through `show` in all of its forms: a network, or one line that says what is wrong.

python -m pytest tests/fuzz/test_networks.py --hypothesis-profile=long
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search.errors import UserError
from search.networks.architecture import from_json, to_dict, to_json
from search.study.config import REFERENCES
from tests.support.hostile import Ended
from tests.support.hostile import search as run
from tests.support.odd import damaged, mutated, nested, values
from tests.support.strategies import architectures

MANY = settings.default.max_examples // 3  # of the profile
FIELDS = ["kind", "filters", "kernel", "stride", "padding", "dilation", "depth_multiplier", "use_bias", "weights", "units"]
FIELDS += ["momentum", "epsilon", "function", "rate", "size", "branch", "shortcut", "name", "input", "classes", "layers"]
ORIGINALS = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(REFERENCES.glob("*.json"))]
WAYS = ((), ("--json",), ("--svg", "net.svg"), ("--html", "net.html"), ("--json", "--svg", "net.svg"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


def shown(folder: Path, content: bytes | str, *options: str) -> Ended:
    """Show the architecture file of this content, and read it back from what it is written as."""
    file = folder / "net.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    for name in ("net.svg", "net.html"):
        (folder / name).unlink(missing_ok=True)
    ended = run("show", "net.json", *options, within=folder)
    if "--json" in options and not ended.status:
        json.loads(ended.out)
    try:
        architecture = from_json(file.read_bytes())
    except UserError:
        return ended
    assert from_json(to_json(architecture)) == architecture
    return ended


@settings(max_examples=MANY)
@given(network=mutated(ORIGINALS, keys=FIELDS), way=st.sampled_from(WAYS))
def test_a_reference_with_odd_values_is_shown_or_rejected_in_one_line(
    network: Any, way: tuple[str, ...], folder: Path
) -> None:
    shown(folder, json.dumps(network), *way)


@settings(max_examples=MANY)
@given(data=st.data(), way=st.sampled_from(WAYS))
def test_random_networks_with_odd_values_likewise(data: st.DataObject, way: tuple[str, ...], folder: Path) -> None:
    network = to_dict(data.draw(architectures()))
    shown(folder, json.dumps(data.draw(mutated([network], keys=FIELDS))), *way)


def test_long_branches_and_many_layers_end_soon(folder: Path) -> None:
    """The order of two long branches that takes the least memory was looked for among all of them."""
    layer = {"kind": "activation", "function": "gelu"}
    for layers in ([{"kind": "residual", "branch": [layer] * 150, "shortcut": [layer] * 150}], [layer] * 20_000):
        network = {
            "input": [8, 8, 2],
            "classes": 2,
            "layers": [*layers, {"kind": "global_average_pool"}, {"kind": "softmax"}],
        }
        assert shown(folder, json.dumps(network), "--json").status == (0 if len(layers) == 1 else 2)


@settings(max_examples=MANY // 2)
@given(data=st.data())
def test_damaged_text_likewise(data: st.DataObject, folder: Path) -> None:
    shown(folder, data.draw(damaged(json.dumps(data.draw(st.sampled_from(ORIGINALS))).encode())))


@settings(max_examples=MANY // 2)
@given(content=values.map(json.dumps) | st.binary(max_size=200) | st.text(max_size=200))
@example(content="[" * 100_000)
@example(content='{"a":' * 100_000)
@example(content='{"architecture": ' + "[" * 100_000)
@example(content=json.dumps(nested({}, 900)))
@example(content=json.dumps({"architecture": nested({}, 900)}))
@example(content='{"input": ' + "9" * 5_000 + "}")
def test_anything_at_all_likewise(content: bytes | str, folder: Path) -> None:
    assert shown(folder, content).status == 2
