"""Copies: images that are equal to the pixel, within a part of a data set, across its parts, and under two classes.

A copy of a training image among the validation or test images flatters every network that has learnt it by heart; equal
pixels under two classes cannot both be classified correctly.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from search.data.splits import Split

PARTS = {"train": "training", "val": "validation", "test": "test"}  # in words

_CHUNK = 1024  # images of which the words are in memory at a time

_KEPT_FIRST = ("test", "val", "train")  # where one copy of several is kept: the images that measure stay as they are


@dataclass(frozen=True)
class Copies:
    """Counts of images that are copies."""

    within: int = 0  # beyond the first of each, in the same part
    across: Mapping[tuple[str, str], int] = field(default_factory=dict)  # of the second part, equal to one of the first
    contradicting: int = 0  # that have the pixels of an image of another class
    dropped: int = 0  # that were left out for it

    def __bool__(self) -> bool:
        return bool(self.within or self.across or self.contradicting)

    def describe(self) -> str:
        """All counts in words; empty where there are no copies."""
        counts = [
            f"{count:,} {PARTS[second]} image{_s(count)} equal{_s(count, verb=True)} a {PARTS[first]} image"
            for (first, second), count in self.across.items()
        ]
        if self.within:
            counts.append(f"{self.within:,} repeat{_s(self.within, verb=True)} an image of the same part")
        if self.contradicting:
            counts.append(f"{self.contradicting:,} contradict each other (equal pixels, different classes)")
        text = f"copies: {', '.join(counts)}" if counts else ""
        return f"{text}; {self.dropped:,} of them dropped" if self.dropped else text


def _s(count: int, *, verb: bool = False) -> str:
    return "s" if (count == 1) == verb else ""


def find_copies(splits: Mapping[str, Split]) -> tuple[Copies, dict[str, NDArray[np.bool_]]]:
    """Count the copies, and mark in each part the images to keep without them.

    Of equal images of one class one is kept: the first in the test part, else in the validation part, else in the training
    part. Of equal images of several classes none is kept, as nothing tells which class is right.
    """
    order = [part for part in _KEPT_FIRST if part in splits]
    part_of = np.repeat(np.arange(len(order)), [len(splits[part].y) for part in order])
    labels = np.concatenate([splits[part].y for part in order])
    group = _groups([splits[part].x for part in order])
    _, first, sizes = np.unique(group, return_index=True, return_counts=True)
    keep = np.zeros(len(labels), np.bool_)
    keep[first] = True
    within = contradicting = 0
    across: dict[tuple[str, str], int] = {}
    repeated = np.flatnonzero(sizes[group] > 1)
    repeated = repeated[np.argsort(group[repeated], kind="stable")]
    ends = np.flatnonzero(np.diff(group[repeated])) + 1
    for members in np.split(repeated, ends) if len(repeated) else []:
        counts = {order[part]: int(count) for part, count in enumerate(np.bincount(part_of[members])) if count}
        within += sum(count - 1 for count in counts.values())
        for pair in (("train", "val"), ("train", "test"), ("val", "test")):
            if counts.keys() >= {*pair}:
                across[pair] = across.get(pair, 0) + counts[pair[1]]
        if len(set(labels[members].tolist())) > 1:
            contradicting += len(members)
            keep[members] = False
    masks = {part: keep[part_of == index] for index, part in enumerate(order)}
    ordered = {pair: across[pair] for pair in (("train", "val"), ("train", "test"), ("val", "test")) if pair in across}
    return Copies(within, ordered, contradicting), masks


def _groups(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """The number of a group for each image of the parts (n, height, width, channels); equal images are one group.

    Only images whose checksum repeats are compared in full: a digest of every image took a second of each worker's start.
    """
    _, group, sizes = np.unique(np.concatenate([_checksums(x) for x in parts]), return_inverse=True, return_counts=True)
    position, digests = 0, dict[tuple[int, bytes], int]()
    for x in parts:
        for index in np.flatnonzero(sizes[group[position : position + len(x)]] > 1):
            digest = hashlib.blake2b(x[index].tobytes(), digest_size=16).digest()
            key = (int(group[position + index]), digest)
            group[position + index] = digests.setdefault(key, len(sizes) + len(digests))
        position += len(x)
    return np.unique(group, return_inverse=True)[1]


def _checksums(x: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A sum of the 8-byte words of each image times random odd numbers; equal images have equal sums."""
    images = x.reshape(len(x), math.prod(x.shape[1:]))
    words = -(-images.shape[1] // 8)
    factors = np.random.default_rng(0).integers(0, 2**63, words, np.uint64) * np.uint64(2) + np.uint64(1)
    sums = np.empty(len(x), np.uint64)
    for start in range(0, len(x), _CHUNK):
        chunk = images[start : start + _CHUNK]
        if images.shape[1] % 8 or not chunk.flags.c_contiguous:
            padded = np.zeros((len(chunk), 8 * words), np.uint8)
            padded[:, : images.shape[1]] = chunk
            chunk = padded
        sums[start : start + _CHUNK] = chunk.view(np.uint64) @ factors
    return sums
