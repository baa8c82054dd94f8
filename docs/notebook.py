"""Make docs/first_study.ipynb: the cells below, executed, with their outputs.

    python -m docs.notebook

It trains, in under two minutes on two cores. The test of the notebook compares its cells with these.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from report.submission.notebook import Cell, code, executed, markdown

PATH = Path(__file__).parent / "first_study.ipynb"
ROOT = Path(__file__).parents[1]

CELLS: tuple[Cell, ...] = (
    markdown("""
# A first study, in a notebook

Which network classifies handwritten digits best with fewer than 2,000 parameters? This notebook asks that of
images in arrays, as you would of your own, and takes under two minutes on two cores. Open it in Jupyter or VS
Code with the environment that `make venv` sets up (`.venv`). [python.md](python.md) has all that `Study` can
do.
"""),
    code("""
import sys
from pathlib import Path

here = Path.cwd()  # the checkout, or a folder inside it
sys.path.insert(0, str(next(folder for folder in (here, *here.parents) if (folder / "search" / "__main__.py").exists())))
"""),
    markdown("""
## The images

1,797 digits of 8x8 pixels come with scikit-learn. Images are `uint8` of shape (n, height, width, channels),
labels integers of shape (n,). The test images are held back: nothing reads them before `finals()`.
"""),
    code("""
import numpy as np
from sklearn.datasets import load_digits

from search import Study

digits = load_digits()
images = (digits.images * 255 / 16).astype("uint8")[..., None]
labels = digits.target
order = np.random.default_rng(0).permutation(len(labels))
train, test = order[:1400], order[1400:]
images.shape, labels.shape
"""),
    markdown("""
## The study

Tables are those of a study file ([study-file.md](study-file.md)) as dicts, so they are checked at once, and
what is left out has its default. `base` is what there is to beat: here an accuracy, otherwise a network that is
trained as well.
"""),
    code("""
study = Study(
    folder="digits-2k",
    base=0.9,
    data={
        "x_train": images[train],
        "y_train": labels[train],
        "x_test": images[test],
        "y_test": labels[test],
        "holdout": 0.2,  # of the training images, to rank the candidates by
    },
    budget=2_000,
    space={
        "kind": "pyramid",
        "blocks": {"low": 2, "high": 4},
        "width": {"low": 8, "high": 64, "step": 4},
        "kernel": [3],
        "dropout": 0.0,
        "order": ["conv-bn-act"],
        "pools": {"low": 0, "high": 2},
    },
    recipe={"epochs": 12, "batch_size": 32, "learning_rate": 0.01, "schedule": {"kind": "one-cycle"}},
    search={"trials": 5, "fit": "fill"},
)
study.plan()  # which share of the space fits the budget: nothing is trained
"""),
    markdown("""
`run` trains in processes of its own, shows its progress below the cell, and returns the leaderboard. Interrupt
it and run the cell again: it resumes.
"""),
    code("board = study.run()"),
    markdown("""
The same as data: a DataFrame where pandas is installed, else a list of dicts. `study.trials()` has everything that was
sampled.
"""),
    code("board"),
    markdown("""
## The winner

Its layers, with their output, receptive field and parameters; then the files for other programs. Each is read
back and compared with the trained network.
"""),
    code("study.layers()"),
    code("""
folder = study.export(formats=["keras", "int8"], to="winner")
sorted(path.name for path in folder.iterdir())
"""),
    markdown("""
The exported network at work. It takes pixels divided by 255, as its card says. These are test images, looked at
once: `study.finals()` reads them for the figures that you publish.
"""),
    code("""
import keras

model = keras.models.load_model("winner/best_model.keras")
probabilities = model.predict(images[test[:8]] / 255, verbose=0)
for answer, label in zip(probabilities, labels[test[:8]], strict=True):
    print(f"{answer.argmax()} with {answer.max():.0%}, is {label}")
"""),
)


def main() -> None:
    """Execute the cells in an empty folder and write the notebook."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".notebook-") as folder:  # the first cell looks for the checkout above
        text = executed(CELLS, Path(folder), {})
    PATH.write_text(text, encoding="utf-8")
    print(f"{PATH}: {len(text):,} bytes, executed in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
