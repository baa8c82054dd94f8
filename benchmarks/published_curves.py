"""Do the known nets learn here as in their authors' own logs? The first epochs at full CIFAR-10 size, laid over those.

    python benchmarks/published_curves.py --logs LOGS.json --data CIFAR.npz --epochs 3 --out benchmarks/published_curves

writes OUT.json and OUT.html. Each net trains under its published recipe, with the learning rates of the first of its 50
epochs; a net that is finished in OUT.json is not trained again.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from search.files import read_json, write_json, write_text

NETS = ("eip-b", "eip-d", "eip-c-late", "eip-c", "eip-a", "base")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--logs", type=Path, required=True, help="published logs, JSON: net -> loss, accuracy, val_accuracy..."
    )
    options.add_argument("--data", type=Path, help="CIFAR-10 as .npz; without it Keras downloads it")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--nets", default=",".join(NETS))
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, required=True)
    asked = options.parse_args()
    published, path = read_json(asked.logs), asked.out.with_suffix(".json")
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    for net in asked.nets.split(","):
        if len(found.get(net, {}).get("val_accuracy", [])) < asked.epochs:
            found[net] = train(net, asked)
            write_json(path, found)
        compare(net, found[net], log_of(net, published))
    write_text(asked.out.with_suffix(".html"), page(found, published, asked.epochs))


def log_of(net: str, published: dict[str, Any]) -> dict[str, Any]:
    return dict(published["base-001" if net == "base" else net])


def train(net: str, asked: argparse.Namespace) -> dict[str, Any]:
    from search.training.device import prepare_device

    prepare_device()
    from search.data.dataset import load_dataset
    from search.seeds import derive
    from search.study.references import find
    from search.training.train import Epoch, fit

    class Enough(Exception): ...

    rows: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        rows.append(epoch)
        print(f"{net} {epoch}", flush=True)
        if len(rows) == asked.epochs:
            raise Enough

    reference = find(net)
    assert reference.recipe
    data = load_dataset("cifar10", asked.data, protocol="course", holdout=0.1, images=None)
    with contextlib.suppress(Enough):
        fit(reference.architecture, data, reference.recipe, seed=derive(asked.seed, net), on_epoch=on_epoch)
    return {key: [getattr(row, key) for row in rows] for key in ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")}


def compare(net: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for epoch, (loss, accuracy) in enumerate(zip(ours["loss"], ours["val_accuracy"], strict=True)):
        print(
            f"{net:11} epoch {epoch + 1}: loss {loss:.3f} (published {theirs['loss'][epoch]:.3f}), "
            f"validation {accuracy:.2%} ({theirs['val_accuracy'][epoch]:.2%}), {ours['seconds'][epoch]:.0f} s"
        )


def page(found: dict[str, Any], published: dict[str, Any], epochs: int) -> str:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, subplot_titles=("training loss", "validation accuracy"))
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")  # Okabe and Ito's, told apart by all
    for net, colour in zip(found, colours, strict=False):
        theirs = log_of(net, published)
        for column, key in enumerate(("loss", "val_accuracy"), 1):
            for values, dash, whose in ((found[net][key], "solid", "here"), (theirs[key][:epochs], "dot", "published")):
                line = {"color": colour, "dash": dash}
                numbers = list(range(1, len(values) + 1))
                figure.add_trace(
                    go.Scatter(x=numbers, y=values, name=f"{net}, {whose}", line=line, showlegend=column == 1), 1, column
                )
    figure.update_xaxes(title="epoch", dtick=1)
    figure.update_layout(title="The known nets here (solid) and as published (dotted), full CIFAR-10")
    return str(figure.to_html(include_plotlyjs="cdn"))


if __name__ == "__main__":
    main()
