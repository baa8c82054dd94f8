"""Measures of a confusion matrix: scikit-learn's values, and the noise of simulated validation sets."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score
from sklearn.metrics import confusion_matrix as sklearn_matrix

from search.training.measures import (
    MEASURES,
    confusion_matrix,
    constant_guess,
    effective_images,
    measure_all,
    other_measures,
    recalls,
)

THEIRS = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "macro_f1": lambda labels, predicted: f1_score(labels, predicted, average="macro", zero_division=0),
}


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels, predictions and the number of classes, of which some may occur in neither."""
    classes, images = draw(st.integers(2, 7)), draw(st.integers(1, 80))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = random.dirichlet([draw(st.sampled_from([0.2, 1, 10]))] * classes)
    labels = random.choice(classes, images, p=shares)
    is_right = random.random(images) < draw(st.floats(0, 1))
    return labels, np.where(is_right, labels, random.integers(0, classes, images)), classes


@given(predictions())
def test_every_measure_is_that_of_scikit_learn(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    labels, predicted, classes = case
    confusion = confusion_matrix(labels, predicted, classes)
    assert np.array_equal(confusion, sklearn_matrix(labels, predicted, labels=range(classes)))
    measured = measure_all(confusion)
    assert measured.keys() == THEIRS.keys() == MEASURES.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs warns of classes that are predicted and have no images
        for name, theirs in THEIRS.items():
            assert measured[name] == pytest.approx(theirs(labels, predicted), abs=1e-12), name
    present = sorted(set(labels.tolist()))
    ours = recalls(confusion)
    assert [ours[label] for label in present] == pytest.approx(recall_score(labels, predicted, labels=present, average=None))
    assert all(ours[label] is None for label in range(classes) if label not in present)


@given(predictions())
def test_the_effective_number_of_images_is_possible(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    labels, predicted, classes = case
    confusion = confusion_matrix(labels, predicted, classes)
    assert effective_images("accuracy", confusion) == len(labels)
    for name in MEASURES:
        assert 1 <= effective_images(name, confusion) <= len(labels), name


@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1"])
def test_a_measure_varies_as_an_accuracy_on_its_effective_number_of_images(name: str) -> None:
    """Two thousand validation sets of the same classes, whose predictions are drawn anew."""
    random, counts = np.random.default_rng(0), (300, 60, 30)
    shares = ((0.9, 0.05, 0.05), (0.3, 0.6, 0.1), (0.2, 0.1, 0.7))
    drawn = [random.multinomial(count, share, 2000) for count, share in zip(counts, shares, strict=True)]
    confusions = list(np.stack(drawn, axis=1))
    values = np.array([MEASURES[name].compute(confusion) for confusion in confusions])
    simulated = values.mean() * (1 - values.mean()) / values.var()
    estimated = np.mean([effective_images(name, confusion) for confusion in confusions[:200]])
    assert simulated == pytest.approx(estimated, rel=0.15)
    assert simulated < 250, "of 390 images"


@pytest.mark.parametrize("name", list(MEASURES))
def test_the_gradient_is_that_of_finite_differences_where_class_sizes_are_fixed(name: str) -> None:
    confusion, measure, step = np.array([[30.0, 5, 1], [4, 9, 2], [1, 2, 3]]), MEASURES[name], 1e-6
    gradient = measure.gradient(confusion)
    for truth in range(3):
        for first, second in ((0, 1), (1, 2)):  # images move from one predicted class to another
            moved = confusion.copy()
            moved[truth, first] -= step
            moved[truth, second] += step
            difference = (measure.compute(moved) - measure.compute(confusion)) / step
            assert difference == pytest.approx(gradient[truth, second] - gradient[truth, first], abs=1e-6)


def test_few_images_without_an_error_are_no_certainty() -> None:
    assert effective_images("balanced_accuracy", np.diag([700, 10, 10])) < 60
    assert effective_images("macro_f1", np.diag([700, 10, 10])) < 60


def test_always_guessing_the_commonest_class() -> None:
    labels = np.repeat([0, 1, 2], [8, 1, 1])
    for name, theirs in THEIRS.items():
        guess = constant_guess(name, 0.8, 3)
        assert guess == pytest.approx(theirs(labels, np.zeros(10, int)))
    assert constant_guess("balanced_accuracy", 0.8, 3) == pytest.approx(1 / 3)


def test_labels_in_texts() -> None:
    assert [measure.with_article for measure in MEASURES.values()] == ["an accuracy", "a balanced accuracy", "a macro F1"]
    assert other_measures({"accuracy": 0.9, "macro_f1": 0.8}, "macro_f1") == {"accuracy": 0.9}
