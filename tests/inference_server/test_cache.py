import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_server.cache import EvaluationCache, distinct, hash_rows


def boards(rows: list[int]) -> dict[str, np.ndarray]:
    """Boards of 11 cells that differ exactly where `rows` do."""
    digits = np.array([[(row >> bit) & 1 for bit in range(11)] for row in rows], np.int8)
    return {"cells": digits.reshape(len(rows), 11)}


def test_equal_rows_have_equal_hashes_and_other_rows_others():
    hashes = hash_rows(boards([3, 5, 3]))

    assert (hashes[0] == hashes[2]).all()
    assert len(np.unique(hash_rows(boards(list(range(2048)))), axis=0)) == 2048


def test_the_hash_sees_every_array_of_a_request():
    cells = boards([1, 1])["cells"]
    hashes = hash_rows({"cells": cells, "komi": np.array([0.5, 7.5], np.float32)})

    assert (hashes[0] != hashes[1]).any()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_distinct_keeps_the_first_of_equals_and_maps_everyone_back(rows):
    hashes = hash_rows(boards(rows))
    first, inverse = distinct(hashes)

    assert (hashes[first][inverse] == hashes).all()
    assert len(first) == len(set(rows))
    assert list(first) == sorted(first)


def test_what_was_inserted_is_found_until_the_weights_change():
    cache = EvaluationCache(64)
    hashes = hash_rows(boards([1, 2, 3]))
    cache.insert(hashes, {"value": np.array([0.1, 0.2, 0.3], np.float32)})

    assert (cache.read(cache.lookup(hashes))["value"] == np.array([0.1, 0.2, 0.3], np.float32)).all()

    cache.clear()

    assert (cache.lookup(hashes) == -1).all()


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 2000), min_size=1, max_size=50, unique=True), max_size=12))
def test_a_full_cache_forgets_but_never_mixes_up(batches):
    cache = EvaluationCache(32)
    for batch in batches:
        hashes = hash_rows(boards(batch))
        absent = np.flatnonzero(cache.lookup(hashes) < 0)
        if len(absent):
            cache.insert(hashes[absent], {"value": np.array(batch, np.float32)[absent]})
        places = cache.lookup(hashes)
        known = places >= 0
        if known.any():
            assert (cache.read(places[known])["value"] == np.array(batch, np.float32)[known]).all()
