"""The model of tests and benchmarks depends on what it is shown, and on nothing else."""

import numpy as np

from core.messages import Reply, Request
from search.hash_evaluator import HashEvaluator


def ask(evaluate: HashEvaluator, boards: np.ndarray) -> Reply:
    return evaluate(Request("hash", {"cells": boards}))


def boards() -> np.ndarray:
    return np.random.default_rng(0).integers(-1, 2, (500, 9)).astype(np.int8)


def test_a_row_is_evaluated_the_same_beside_any_others() -> None:
    evaluate = HashEvaluator(9)
    whole, part = ask(evaluate, boards()), ask(evaluate, boards()[::7])
    np.testing.assert_array_equal(part.arrays["policy"], whole.arrays["policy"][::7])
    np.testing.assert_array_equal(part.arrays["value"], whole.arrays["value"][::7])


def test_rows_salts_and_array_contents_matter() -> None:
    values = ask(HashEvaluator(9), boards()).arrays["value"]
    assert len(np.unique(values)) == len(np.unique(boards(), axis=0))
    assert not (ask(HashEvaluator(9, salt=1), boards()).arrays["value"] == values).any()
    both = HashEvaluator(9)(Request("hash", {"cells": boards(), "plies": np.arange(500, dtype=np.int16)}))
    assert len(np.unique(both.arrays["value"])) == 500


def test_values_and_logits_spread_over_their_ranges() -> None:
    arrays = ask(HashEvaluator(9), boards()).arrays
    assert (arrays["policy"].dtype, arrays["policy"].shape) == (np.float16, (500, 9))
    assert abs(arrays["value"]).max() < 1
    assert abs(arrays["value"].mean()) < 0.1
    assert -2 <= arrays["policy"].min() < -1.9
    assert 1.9 < arrays["policy"].max() <= 2
