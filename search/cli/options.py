"""Arguments and options that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search.budget.metrics import METRICS

Study = Annotated[str, typer.Argument(help="a name under studies/, or the path of a TOML file")]
Out = Annotated[Path | None, typer.Option(help="the run folder, instead of studies/NAME/run", file_okay=False)]
Storage = Annotated[
    str | None,
    typer.Option(help="a database URL, instead of study.db in the run folder", envvar="SEARCH_STORAGE", show_envvar=True),
]
Workers = Annotated[int | None, typer.Option(help="processes that train at once on this machine", min=1, max=1024)]
PerGpu = Annotated[int | None, typer.Option(help="workers on each GPU, which alone fills them", min=1, max=64)]
RayAddress = Annotated[str | None, typer.Option(help="train on this Ray cluster; auto: the one that this machine is in")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Pareto = Annotated[
    list[str] | None,
    typer.Option(help=f"front of accuracy against a cost metric: {', '.join(METRICS)}; may be given several times"),
]
# what overrides the study file, see `search.study.config.OPTIONS`
Data = Annotated[str | None, typer.Option(help="folder of images by class, .npz, or CIFAR's official folder or .tar.gz")]
Epochs = Annotated[int | None, typer.Option(help="of each training")]
Trials = Annotated[int | None, typer.Option(help="trained candidates, in total")]
Images = Annotated[int | None, typer.Option(help="training images to take, the other splits in proportion")]
Seed = Annotated[int | None, typer.Option(help="the root of all randomness")]
BatchSize = Annotated[int | None, typer.Option(help="images a step")]


def overrides(
    data: str | None, epochs: int | None, trials: int | None, images: int | None, seed: int | None, batch_size: int | None
) -> dict[str, Any]:
    """What the command line overrides, by the key of the study file."""
    from search.study.config import OPTIONS

    given = {"data": str(Path(data).resolve()) if data else None, "images": images, "epochs": epochs}
    given |= {"batch-size": batch_size, "trials": trials, "seed": seed}
    return {key: given[option[2:]] for key, option in OPTIONS.items() if given[option[2:]] is not None}
