"""Which batch is best, given what batches of each size were measured to do."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.bench.inference import NEARLY_BEST, best_batch_rows, in_words, record_best_batch
from cluster.bench.rig import best_rates
from cluster.run.machine_file import machine_file, read_tunings
from configs.schema import RunConfig

RATES = {16: 1000.0, 32: 1900.0, 64: 1960.0, 128: 2000.0}


def test_the_smallest_of_those_that_are_nearly_the_best_is_taken() -> None:
    assert best_batch_rows(RATES, latency_ms=1000.0) == 64


def test_a_bound_on_latency_rules_out_larger_ones() -> None:
    assert best_batch_rows(RATES, latency_ms=20.0) == 32
    assert best_batch_rows(RATES, latency_ms=16.0) == 16


def test_where_nothing_is_soon_enough_the_smallest_is_taken() -> None:
    assert best_batch_rows(RATES, latency_ms=0.1) == 16


@given(
    st.dictionaries(st.integers(1, 4096), st.floats(1.0, 1e6), min_size=1, max_size=12),
    st.floats(0.01, 1e6),
)
def test_no_smaller_batch_is_nearly_as_good_and_no_other_is_much_better(
    rates: dict[int, float], latency_ms: float
) -> None:
    chosen = best_batch_rows(rates, latency_ms=latency_ms)

    soon = {rows: rate for rows, rate in rates.items() if 1000 * rows / rate <= latency_ms}
    if not soon:
        assert chosen == min(rates)
        return
    assert chosen in soon
    assert soon[chosen] >= NEARLY_BEST * max(soon.values())
    assert all(rate < NEARLY_BEST * max(soon.values()) for rows, rate in soon.items() if rows < chosen)


def test_rates_are_those_of_the_fastest_mode_of_a_server_and_medians() -> None:
    rounds = [
        {"eager-16": eager, "winograd-16": 30.0, "eager-32": 50.0, "winograd-32": 40.0, "compiled-32": 99.0}
        for eager in (10.0, 35.0, 31.0)
    ]

    assert best_rates(rounds) == {16: 31.0, 32: 50.0}


def test_what_is_found_is_recorded_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMEN_MACHINE_FILE", str(tmp_path / "machine.json"))
    result = {"raw_rates": RATES, "precision": "fp32"}

    tuning = record_best_batch(RunConfig(game="hex5"), result, latency_ms=1000.0)

    assert read_tunings(machine_file()) == (tuning,)
    assert (tuning.batch_rows, tuning.rates) == (64, RATES)
    assert tuning.versions["torch"]
    assert "batches of 64 rows" in in_words(tuning)
    assert str(machine_file()) in in_words(tuning)
