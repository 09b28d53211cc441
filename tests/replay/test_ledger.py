import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from replay import codec
from replay.ledger import Ledger, SeenGames
from tests.replay.experience import a_chunk

deliveries = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1), st.lists(st.integers(0, 25), max_size=6)), max_size=12
)


@given(deliveries)
def test_seen_games_are_those_of_a_plain_set(added: list[tuple[int, int, list[int]]]) -> None:
    seen, expected = SeenGames(), set()
    for actor, epoch, seqs in added:
        seen.add(actor, epoch, seqs)
        expected |= {(actor, epoch, seq) for seq in seqs}
    places = [(actor, epoch, seq) for actor in range(3) for epoch in range(2) for seq in range(28)]
    assert {place for place in places if seen.has(*place)} == expected
    last = {}
    for actor, epoch, seq in expected:
        last[actor, epoch] = max(seq, last.get((actor, epoch), 0))
    assert seen.missing() == sum(last.values()) + len(last) - len(expected)

    copied = SeenGames()
    copied.add_array(seen.to_array())
    assert {place for place in places if copied.has(*place)} == expected
    assert seen.check_valid() == copied.check_valid() == []


@given(deliveries)
def test_a_ledger_is_read_as_it_was_written(added: list[tuple[int, int, list[int]]]) -> None:
    ledger = Ledger("test", "tic_tac_toe")
    for actor, epoch, seqs in added:
        ledger.seen.add(actor, epoch, seqs)
        ledger.next_epochs[actor] = max(ledger.next_epochs.get(actor, 0), epoch + 1)
    read = Ledger.decode(ledger.encode(), source="a test")

    assert read.seen.to_array().tolist() == ledger.seen.to_array().tolist()
    assert (read.seen.missing(), read.next_epochs) == (ledger.seen.missing(), ledger.next_epochs)
    assert read.check_valid() == []


def test_games_in_order_take_one_range_however_many() -> None:
    seen = SeenGames()
    for first in range(0, 10_000, 10):
        seen.add(4, 1, range(first, first + 10))
    assert seen.to_array().tolist() == [[4, 1, 0, 9_999]]
    assert seen.missing() == 0


def test_no_life_is_given_out_twice() -> None:
    ledger = Ledger("test", "tic_tac_toe")
    assert [ledger.new_epoch(0), ledger.new_epoch(0), ledger.new_epoch(1)] == [0, 1, 0]
    ledger.enter(a_chunk(actor=1, epoch=7))
    assert ledger.new_epoch(1) == 8
    ledger.first_epoch = 100
    assert [ledger.new_epoch(0), ledger.new_epoch(0), ledger.new_epoch(2)] == [100, 101, 100]


def test_a_ledger_of_another_form_is_refused() -> None:
    fields = codec.decode(Ledger("test", "hex5").encode(), source="a test")
    for change in ({"seen": np.zeros((1, 3), np.int64)}, {"seen": np.zeros((1, 4))}, {"draws": "1"}):
        with pytest.raises(DataError, match=r"run/ledger\.sealed is no replay ledger"):
            Ledger.decode(codec.encode({**fields, **change}), source="run/ledger.sealed")


def test_an_inconsistent_ledger_is_found_out() -> None:
    ledger = Ledger("test", "tic_tac_toe", total_rows=4)
    ledger.seen.add(2, 5, [0, 1, 4])
    assert ledger.check_valid() == ["actor 2 could be given its life 5 again"]
    ledger.first_epoch = 6
    assert ledger.check_valid() == []
    ledger.seen._ranges[2, 5] = [(0, 4), (4, 6)]
    ranges, missing = ledger.check_valid()
    assert "actor 2 in its life 5 are no rising ranges" in ranges
    assert missing == "the games that are missing were counted wrong"
    assert Ledger("test", "tic_tac_toe", next_number=-1).check_valid() == ["a counter is below 0"]
