"""Near copies: images of two parts that look alike, such as frames of one video or a photograph that was saved twice.

Candidates are pairs with nearly equal difference hashes (N. Krawetz, "Kind of like that", 2013): one bit for each of 8x8
means of the image, set where the mean is larger than that to its right. Those of which the pixels correlate closely are near
copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data.copies import PARTS
from search.data.images import Pixels
from search.data.splits import Split

GRID = 8  # means in each row and column
SMALLEST_SIDE = 16  # pixels, below which images of one class often look alike without being copies
CORRELATION = 0.97  # of the grey pixels of two near copies, at least
MOST_BITS = 10  # in which the hashes of a candidate pair differ

_ROTATION = 16  # bits by which the hashes are rotated between two sortings
_NEIGHBOURS = 8  # on either side of a hash in each sorting that are candidates
_COARSE = 0.94  # correlation of the 8x8 means, at least; a quick test before that of all pixels
_CHUNK = 1_024  # images at a time
_DETAIL = 8  # bits of a hash that are set, at least: fewer in an image that is nearly of one colour

_Indices = NDArray[np.int64]


def count_near_copies(splits: Mapping[str, Split]) -> dict[tuple[str, str], int]:
    """Number of images of a later part that nearly equal an image of an earlier one, by pair of parts; empty if none do.

    It is a lower bound: mirrored, turned and cropped copies are not found. Images below SMALLEST_SIDE are not compared.
    """
    if min(splits["train"].x.shape[1:3]) < SMALLEST_SIDE:
        return {}
    means = {part: _means(split.x) for part, split in splits.items()}
    hashes = {part: _hashes(own) for part, own in means.items()}
    counts = {}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        if first in splits and second in splits:
            left, right = _candidates(hashes[first], hashes[second])
            is_close = _correlations(means[first], means[second], left, right) >= _COARSE
            left, right = left[is_close], right[is_close]
            is_near = _correlations(splits[first].x, splits[second].x, left, right) >= CORRELATION
            if count := len(np.unique(right[is_near])):
                counts[first, second] = count
    return counts


def describe_near_copies(counts: Mapping[tuple[str, str], int]) -> str:
    """The counts in words; empty where there are none."""
    texts = [
        f"{count:,} {PARTS[second]} image{'' if count == 1 else 's'} of a {PARTS[first]} image"
        for (first, second), count in counts.items()
    ]
    return f"near copies: {', '.join(texts)}" if texts else ""


def _means(x: Pixels) -> NDArray[np.uint32]:
    """Sums over 8x8 blocks of all images (n, height, width, channels): (n, 8, 8).

    Sides that are no multiple of 8 are first enlarged to the next one by repeating pixels.
    """
    (rows, tall), (columns, wide) = map(_blocks, x.shape[1:3])
    means = np.empty((len(x), GRID, GRID), np.uint32)
    for start in range(0, len(x), _CHUNK):
        chunk = x[start : start + _CHUNK].reshape(-1, x.shape[1], x.shape[2] * x.shape[3])
        by_row = _sums(chunk, rows, tall).reshape(-1, x.shape[2], x.shape[3])
        means[start : start + _CHUNK] = _sums(by_row, columns, wide).sum(axis=2).reshape(-1, GRID, GRID)
    return means


def _blocks(side: int) -> tuple[NDArray[np.int64] | None, int]:
    """(Indices that enlarge a side to a multiple of 8, None if it is one; the length of one of 8 blocks)."""
    length = -(-side // GRID)
    return None if side == GRID * length else np.arange(GRID * length) * side // (GRID * length), length


def _sums(values: NDArray[np.unsignedinteger[Any]], indices: NDArray[np.int64] | None, length: int) -> NDArray[np.uint32]:
    """Sums over 8 blocks of the middle axis."""
    if indices is not None:
        values = np.take(values, indices, axis=1)
    blocks = values.reshape(len(values), GRID, length, -1)
    sums: NDArray[np.uint32] = blocks[:, :, 0].astype(np.uint32)
    for offset in range(1, length):
        sums += blocks[:, :, offset]
    return sums


def _hashes(means: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Difference hashes of 64 bits; the right neighbour of the last column is the first."""
    is_larger = means > np.roll(means, -1, axis=2)
    return np.packbits(is_larger.reshape(len(means), GRID * GRID), axis=1).view(np.uint64)[:, 0]


def _candidates(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> tuple[_Indices, _Indices]:
    """Indices of pairs with nearly equal hashes, each pair once.

    Neighbours in four sortings, each by other leading bits: two hashes that differ in a few bits are near each other in one
    of them. The number of pairs is bounded also where all hashes are alike.
    """
    known, asked = (np.flatnonzero(np.bitwise_count(own) >= _DETAIL) for own in (first, second))
    offsets = np.arange(-_NEIGHBOURS, _NEIGHBOURS)
    pairs = []
    for rotation in range(0, 64, _ROTATION):
        left, right = (_rotated(own, rotation) for own in (first[known], second[asked]))
        order = np.argsort(left, kind="stable")
        places = np.searchsorted(left[order], right)[:, None] + offsets
        rows, columns = np.nonzero((places >= 0) & (places < len(known)))
        neighbours = order[places[rows, columns]]
        is_alike = np.bitwise_count(left[neighbours] ^ right[rows]) <= MOST_BITS
        pairs.append(known[neighbours[is_alike]] * len(second) + asked[rows[is_alike]])
    both = np.unique(np.concatenate(pairs))
    return both // len(second), both % len(second)


def _rotated(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    if bits == 0:
        return hashes
    return hashes << np.uint64(bits) | hashes >> np.uint64(64 - bits)


def _correlations(
    first: NDArray[np.generic], second: NDArray[np.generic], left: _Indices, right: _Indices
) -> NDArray[np.float32]:
    """Correlation of the grey pixels of each pair of images; 0 where one is of one colour all over."""
    found = np.empty(len(left), np.float32)
    for start in range(0, len(left), _CHUNK):
        own = slice(start, start + _CHUNK)
        found[own] = (_normalised(first[left[own]]) * _normalised(second[right[own]])).sum(axis=1)
    return found


def _normalised(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """Images as rows of mean 0 and length 1, channels added up."""
    grey = images.astype(np.float32)
    rows: NDArray[np.float32] = (grey.sum(axis=3) if grey.ndim == 4 else grey).reshape(len(images), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows
