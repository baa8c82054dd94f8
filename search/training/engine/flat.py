"""The weights of a Keras model in a few long vectors, which an optimizer updates in as few operations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from search.training.engine.base import UNDECAYED, Arrays, is_decayed


class FlatWeights:
    """Vectors of the trainable weights with and without weight decay, and of the rest: batch norm's moving averages.

    A step on `eip-b` updates 38 tensors, each by some 15 operations of the optimizer; of the vectors there are two. The
    model's own weights keep their initial values.
    """

    def __init__(self, model: keras.Model) -> None:
        trainable = model.trainable_variables
        groups = {
            "kernels": [weight for weight in trainable if is_decayed(weight)],
            "_".join(UNDECAYED): [weight for weight in trainable if not is_decayed(weight)],
            "rest": model.non_trainable_variables,
        }
        self.members = [members for members in groups.values() if members]
        self.vectors = [
            keras.Variable(_joined(members), dtype="float32", trainable=name != "rest", name=name)
            for name, members in groups.items()
            if members
        ]
        self.trainable = [vector for vector in self.vectors if vector.trainable]
        self._model = model

    def tensors(self) -> tuple[list[Any], list[Any]]:
        """Trainable and other weights as parts of the vectors, for `keras.Model.stateless_call`."""
        parts = dict[int, Any]()
        for vector, members in zip(self.vectors, self.members, strict=True):
            lengths = [math.prod(member.shape) for member in members]
            for member, part in zip(members, tf.split(vector.value, lengths), strict=True):
                parts[id(member)] = tf.reshape(part, member.shape) if len(member.shape) > 1 else part
        model = self._model
        trainable, rest = model.trainable_variables, model.non_trainable_variables
        return [parts[id(weight)] for weight in trainable], [parts[id(weight)] for weight in rest]

    def assign_rest(self, values: Sequence[Any]) -> None:
        """Store the weights that are not trained, from the result of `keras.Model.stateless_call`."""
        if values:
            self.vectors[-1].assign(tf.concat([tf.reshape(value, [-1]) for value in values], axis=0))

    def split(self, vectors: Sequence[Any]) -> Arrays:
        """Arrays of the weights, in the order of the model's `get_weights()`, from vectors such as `self.vectors`."""
        parts = self._parts(vectors)
        return [parts[id(weight)] for weight in self._model.weights]

    def join(self, arrays: Arrays) -> list[npt.NDArray[Any]]:
        """The inverse of `split`."""
        by_weight = {id(weight): array for weight, array in zip(self._model.weights, arrays, strict=True)}
        return [_joined([by_weight[id(member)] for member in members]) for members in self.members]

    def split_slots(self, variables: Sequence[Any]) -> Arrays:
        """An optimizer's variables of the trainable vectors as Keras orders them for single weights.

        Of each weight in turn: its momentum and, with Adam, its velocity.
        """
        count = len(variables) // len(self.trainable)
        slots = [self._parts(variables[slot::count]) for slot in range(count)]
        return [parts[id(weight)] for weight in self._model.trainable_variables for parts in slots]

    def join_slots(self, arrays: Arrays) -> list[npt.NDArray[Any]]:
        """The inverse of `split_slots`."""
        weights = self._model.trainable_variables
        count = len(arrays) // len(weights)
        slots = [{id(weight): arrays[index * count + slot] for index, weight in enumerate(weights)} for slot in range(count)]
        trained = self.members[: len(self.trainable)]
        return [_joined([parts[id(member)] for member in members]) for members in trained for parts in slots]

    def _parts(self, vectors: Sequence[Any]) -> dict[int, npt.NDArray[Any]]:
        """Arrays by the identity of their weight; only the trainable ones if only their vectors are given."""
        parts = dict[int, npt.NDArray[Any]]()
        for vector, members in zip(vectors, self.members, strict=False):
            ends = itertools.accumulate(math.prod(member.shape) for member in members)
            for member, part in zip(members, np.split(to_array(vector), list(ends)[:-1]), strict=True):
                parts[id(member)] = part.reshape(member.shape)
        return parts


def _joined(arrays: Sequence[Any]) -> npt.NDArray[Any]:
    return np.concatenate([np.ravel(to_array(array)) for array in arrays])


def to_array(value: Any) -> npt.NDArray[Any]:
    """Copy a variable of Keras or TensorFlow, or an array, to the host."""
    if isinstance(value, np.ndarray):
        return value.copy()
    variable = value.value if isinstance(value, keras.Variable) else value
    return np.array(variable.numpy())
