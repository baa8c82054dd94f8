"""Errors that end a trial."""

from __future__ import annotations

import pytest

from search.training.result import Outcome, TrialOver, memory_ends_the_trial

NO_MEMORY = [
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1610612736 bytes."),  # JAX
    RuntimeError("OOM when allocating tensor with shape[512,64,64,64] and type float"),  # TensorFlow
    RuntimeError("INTERNAL: CUDNN_STATUS_ALLOC_FAILED in cudnnCreate"),
    RuntimeError("could not create cublas handle: CUBLAS_STATUS_ALLOC_FAILED"),
    RuntimeError("failed to allocate 2.00GiB (2147483648 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    type("ResourceExhaustedError", (Exception,), {})("graph execution error"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: f"{type(error).__name__} {str(error)[:20]}")
def test_want_of_memory_ends_the_trial(error: Exception) -> None:
    with pytest.raises(TrialOver, match="out of memory at batch size 64") as over, memory_ends_the_trial(64):
        raise error
    assert over.value.outcome == Outcome.OUT_OF_MEMORY


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="shapes do not match"), memory_ends_the_trial(64):
        raise ValueError("shapes do not match")
