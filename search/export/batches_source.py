"""Training batches varied as a recipe asks for it, as source in NumPy: a `keras.utils.PyDataset` that a person can read.

Each line does what `search.engine` does in the compiled step; only shift, zoom and rotation are three Keras layers there.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent

from search.training.recipe import Augment

_BATCHES = '''\
class Batches(keras.utils.PyDataset):
    """Training batches in a new order each epoch, the partial last one included; each image is varied anew."""

    def __init__(self, images, labels, classes, prepare, seed):
        super().__init__()
        self.images, self.targets, self.prepare = images, np.eye(classes, dtype="float32")[labels], prepare
        self.random = np.random.default_rng(seed)
{begin}        self.shuffle()

    def __len__(self):
        return -(-len(self.order) // BATCH_SIZE)

    def __getitem__(self, index):
        place = slice(index * BATCH_SIZE, (index + 1) * BATCH_SIZE)
        chosen = self.order[place]
        images, targets = self.images[chosen], self.targets[chosen]
{vary}        return images, targets

    def on_epoch_end(self):
{end}        self.shuffle()

    def shuffle(self):
        {shuffle}
'''
_PREPARE = "images = self.prepare(images)"
_FLIP = """\
flipped = self.random.random(len(images)) < 0.5
images[flipped] = images[flipped, :, ::-1]  # left-right"""
_ALTERNATE = """\
number = self.epoch * {passes} + np.arange(len(self.order))[place] // len(self.images)  # of the pass
flipped = self.first[chosen] ^ (number % 2 == 1)  # every image in every other pass
images[flipped] = images[flipped, :, ::-1]"""
_CROP = """\
border, (height, width) = {crop}, images.shape[1:3]
images = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
corners = self.random.integers(0, 2 * border + 1, (len(images), 2))
images = np.stack([
    image[y : y + height, x : x + width] for image, (y, x) in zip(images, corners, strict=True)
])"""
_WARP = """\
images = np.array(self.warp(images, training=True))"""
_CUTOUT = """\
side, (height, width) = {cutout}, images.shape[1:3]
for image in images:  # a square of zeros, its centre anywhere
    y, x = self.random.integers(height) - side // 2, self.random.integers(width) - side // 2
    image[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = 0"""
_MIXUP = """\
share = self.random.beta({mixup!r}, {mixup!r})
share = np.float32(max(share, 1 - share))  # the batch itself has the larger part
images = share * images + (1 - share) * images[::-1]
targets = share * targets + (1 - share) * targets[::-1]"""


def batches_source(how: Augment) -> str:
    """Source of the class `Batches(images, labels, classes, prepare, seed)`; it takes BATCH_SIZE, and PASSES if several."""
    vary, begin, end = [], [], []
    if how.flip == "alternating":
        begin += ["self.epoch, self.first = 0, self.random.random(len(images)) < 0.5"]
        end += ["self.epoch += 1"]
        vary += [_ALTERNATE.format(passes="PASSES" if how.passes > 1 else "1").replace(" * 1 +", " +")]
    elif how.flip:
        vary += [_FLIP]
    vary += [_CROP.format(crop=how.crop)] if how.crop else []
    vary += [_PREPARE]
    if warps := list(_warps(how)):
        layers = "".join(f"\n    layers.{line}," for line in warps)
        begin += ["layers = keras.layers", f"self.warp = keras.Sequential([{layers}\n])  # the study warps in one step"]
        vary += [_WARP]
    vary += [_CUTOUT.format(cutout=how.cutout)] if how.cutout else []
    vary += [_MIXUP.format(mixup=how.mixup)] if how.mixup else []
    once = "self.random.permutation(len(self.images))"
    shuffle = f"self.order = {once}"
    if how.passes > 1:
        shuffle = f"self.order = np.concatenate([{once} for _ in range(PASSES)])"
    return _BATCHES.format(begin=_inner(begin), vary=_inner(vary), end=_inner(end), shuffle=shuffle)


def _warps(how: Augment) -> Iterator[str]:
    fill = 'fill_mode="nearest"'
    if how.zoom:
        yield f"RandomZoom({how.zoom!r}, {how.zoom!r}, {fill})"
    if how.rotation:
        yield f"RandomRotation({how.rotation!r} / 360, {fill})"
    if how.shift:
        yield f"RandomTranslation({how.shift!r}, {how.shift!r}, {fill})"


def _inner(lines: list[str]) -> str:
    return "".join(indent(f"{line}\n", " " * 8) for line in lines)
