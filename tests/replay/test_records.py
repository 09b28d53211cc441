"""The records, and the bytes of each of their versions.

When a version is raised, the golden file of the old one stays and a new one is written beside it, by
`(GOLDEN / "chunk_v2.bin").write_bytes(known_chunk().encode())`.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError
from games.hex import Hex
from replay import codec
from replay.archive import STORED_CHUNK_VERSION, StoredChunk
from replay.experience import BoardExperience, problems_of
from replay.ledger import LEDGER_VERSION, Ledger
from replay.records import (
    CHUNK_VERSION,
    GAME_RECORD_VERSION,
    PROVENANCE,
    Ack,
    Chunk,
    GameRecord,
    decode_columns,
)
from tests.replay.experience import GAME, a_chunk, a_game, same, with_column

GOLDEN = Path(__file__).parent / "golden"


def known_game() -> GameRecord:
    return GameRecord(
        run="golden",
        game="hex3",
        actor=2,
        epoch=1,
        seq=40,
        actions=np.array([4, 0, 8, 1, 7], np.int16),
        outcome=1.0,
        values=np.array([0, 0.25, -0.5, 0.75, 1], np.float32),
        recorded=np.array([False, True, False, True, False]),
        weights_versions=np.array([-1, 5, 5, 6, 6], np.int32),
        opening_plies=1,
    )


def known_chunk() -> Chunk:
    policy = np.zeros((2, 9), np.float16)
    policy[0, :2], policy[1, 8] = 0.5, 1
    return Chunk(
        run="golden",
        game="hex3",
        actor=2,
        epoch=1,
        games=(known_game(),),
        columns={
            "cells": np.array([[0, 0, 0, 0, -1, 0, 0, 0, 0], [-1, 0, 0, 0, 1, 0, 0, 0, 1]], np.int8),
            "policy": policy,
            "policy_weight": np.array([1, 0.5], np.float32),
            "outcome": np.array([-1, -1], np.float32),
            "search_value": np.array([0.25, 0.75], np.float32),
            "seq": np.array([40, 40], np.int64),
            "step": np.array([1, 3], np.int32),
            "weights_version": np.array([5, 6], np.int32),
        },
    )


def known_ledger() -> Ledger:
    ledger = Ledger(
        "golden",
        "hex3",
        first_epoch=1,
        next_number=8,
        total_rows=100,
        total_games=41,
        draws=3,
        sampled_rows=48,
    )
    ledger.seen.add(0, 0, [0, 1, 2, 5])
    ledger.enter(known_chunk())
    return ledger


def known_stored_chunk() -> StoredChunk:
    return StoredChunk(total_rows=100, total_games=41, draws=3, sampled_rows=48, chunk=b"a chunk")


KNOWN: dict[str, Callable[[], GameRecord | Chunk | Ledger | StoredChunk]] = {
    f"game_record_v{GAME_RECORD_VERSION}.bin": known_game,
    f"chunk_v{CHUNK_VERSION}.bin": known_chunk,
    f"ledger_v{LEDGER_VERSION}.bin": known_ledger,
    f"stored_chunk_v{STORED_CHUNK_VERSION}.bin": known_stored_chunk,
}


@pytest.mark.parametrize("name", KNOWN)
def test_golden_bytes_are_read_as_ever(name: str) -> None:
    known = KNOWN[name]()
    read = type(known).decode((GOLDEN / name).read_bytes(), source=name)
    # Encoded by the same compressor, equal records are equal bytes.
    assert read.encode() == known.encode()


@pytest.mark.parametrize("name", KNOWN)
def test_records_are_written_as_ever(name: str) -> None:
    """Another form under the same version would be misread by older releases; compression may differ."""
    written = codec.decode(KNOWN[name]().encode(), source="a test")
    assert same(written, codec.decode((GOLDEN / name).read_bytes(), source=name))


@pytest.mark.parametrize("name", KNOWN)
def test_a_file_cut_short_at_any_byte_is_damaged(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    for length in range(len(data)):
        with pytest.raises(DataError, match="is damaged"):
            type(KNOWN[name]()).decode(data[:length], source=name)


def test_the_golden_fields_are_what_they_say() -> None:
    game = GameRecord.decode((GOLDEN / "game_record_v1.bin").read_bytes())
    assert (game.run, game.game, game.actor, game.epoch, game.seq) == ("golden", "hex3", 2, 1, 40)
    assert (game.outcome, game.opening_plies) == (1.0, 1)
    assert game.actions.tolist() == [4, 0, 8, 1, 7]
    assert game.recorded.tolist() == [False, True, False, True, False]
    chunk = Chunk.decode((GOLDEN / "chunk_v2.bin").read_bytes())
    expected = {spec.name: spec for spec in BoardExperience(Hex(3)).columns}
    assert chunk.columns.keys() == expected.keys() | PROVENANCE.keys()
    assert all(spec.mismatch(chunk.columns[name]) is None for name, spec in expected.items())
    assert chunk.columns["search_value"].tolist() == [0.25, 0.75]


@pytest.mark.parametrize("name", KNOWN)
def test_other_versions_and_kinds_are_refused_by_name(name: str) -> None:
    known = KNOWN[name]()
    fields = codec.decode(known.encode(), source="a test")
    with pytest.raises(
        DataError,
        match=f"it is a {fields['record']} of version 77, this release reads version {fields['version']}",
    ):
        type(known).decode(codec.encode({**fields, "version": 77}), source="a test")
    with pytest.raises(DataError, match=f"x is not a {fields['record']}"):
        type(known).decode(codec.encode({**fields, "record": "cake"}), source="x")


@pytest.mark.parametrize(("name", "record"), [("chunk_v1.bin", Chunk), ("ledger_v1.bin", Ledger)])
def test_what_an_older_release_wrote_is_refused_by_its_version(
    name: str, record: type[Chunk | Ledger]
) -> None:
    with pytest.raises(DataError, match="of version 1, this release reads version 2"):
        record.decode((GOLDEN / name).read_bytes(), source=name)


def test_known_records_are_sound() -> None:
    assert known_game().check_valid() == []
    assert known_chunk().check_valid() == []
    assert a_chunk([3, 4, 5]).check_valid() == []


def test_a_chunk_may_have_games_and_no_rows() -> None:
    chunk = a_chunk([0, 1])
    empty = replace(chunk, columns={name: column[:0] for name, column in chunk.columns.items()})
    read = Chunk.decode(empty.encode())
    assert read.check_valid() == []
    assert (read.num_rows, len(read.games)) == (0, 2)
    assert read.columns["policy"].shape == (0, 9)


def test_a_whole_number_as_outcome_is_written_as_a_real_one() -> None:
    assert GameRecord.decode(replace(a_game(), outcome=1).encode()).outcome == 1.0


def test_training_columns_say_who_made_each_row() -> None:
    columns = decode_columns(a_chunk([7, 8], actor=3, epoch=2).encode())
    assert columns.keys() == a_chunk().columns.keys() | {"actor", "epoch"}
    assert columns["actor"].dtype == columns["epoch"].dtype == np.int32
    assert columns["actor"].tolist() == [3] * 6
    assert columns["epoch"].tolist() == [2] * 6


def test_a_chunk_can_be_narrowed_to_some_of_its_games() -> None:
    chunk = a_chunk([4, 5, 6, 7])
    part = chunk.only({5, 7})
    assert [game.seq for game in part.games] == [5, 7]
    assert part.columns["seq"].tolist() == [5, 5, 5, 7, 7, 7]
    assert np.array_equal(part.columns["cells"][3:], chunk.columns["cells"][9:])
    assert part.check_valid() == []


def test_an_actor_goes_on_after_a_chunk_that_was_refused() -> None:
    assert Ack.nothing().pause_seconds == 0


def spoilt(name: str, value: object, place: Any = 0) -> Callable[[], Chunk]:
    def chunk() -> Chunk:
        column = a_chunk().columns[name].copy()
        column[place] = value
        return with_column(a_chunk(), name, column)

    return chunk


def spoilt_game(**fields: Any) -> Callable[[], Chunk]:
    def chunk() -> Chunk:
        whole = a_chunk()
        return replace(whole, games=(replace(whole.games[0], **fields), whole.games[1]))

    return chunk


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (spoilt("cells", 2), "cells reaches from -1 to 2"),
        (spoilt("outcome", 1.5), "outcome reaches from"),
        (spoilt("outcome", np.nan), "outcome is not finite"),
        (spoilt("search_value", -np.inf), "search_value is not finite"),
        (spoilt("policy", np.nan, (0, 0)), "policy is not finite"),
        (spoilt("policy", -0.5, (0, 0)), "policy reaches from -0.5"),
        (spoilt("policy", 0), "a policy misses a sum of 1 by 1.0000"),
        (spoilt("policy_weight", -1), "policy_weight reaches from -1"),
        (spoilt("weights_version", -1), "weights_version reaches from -1"),
        (spoilt("seq", 99), "a row is cut from a game that is not in the chunk"),
        (spoilt("step", 5), "a row is cut from a ply that its game does not have"),
        (spoilt("step", -1), "step reaches from -1"),
        (lambda: with_column(a_chunk(), "step", np.zeros(5, np.int32)), "column step has 5 rows, seq has 6"),
        (lambda: replace(a_chunk(), games=()), "the seq of its rows does not rise"),
        (lambda: a_chunk([1, 0]), "the seq of its games does not rise"),
        (lambda: a_chunk([1, 1]), "the seq of its games does not rise"),
        (lambda: replace(a_chunk(), actor=-1), "actor is -1, allowed are 0 to 2147483647"),
        (lambda: replace(a_chunk(), epoch=2**31), "epoch is 2147483648"),
        (spoilt_game(actor=9), "game 0 is of another run, game, actor or epoch"),
        (spoilt_game(run="other"), "game 0 is of another run, game, actor or epoch"),
        (spoilt_game(seq=-1), "game -1: seq is -1"),
        (spoilt_game(seq=2**63), "seq is 9223372036854775808"),
        (spoilt_game(outcome=2.0), "game 0: outcome reaches from 2.0"),
        (spoilt_game(outcome=1e300), "game 0: outcome reaches"),
        (spoilt_game(outcome=float("nan")), "game 0: outcome is not finite"),
        (spoilt_game(opening_plies=6), "opening_plies is 6 of 5 plies"),
        (spoilt_game(values=np.zeros(4, np.float32)), "values has 4 entries for 5 actions"),
        (spoilt_game(recorded=np.zeros(6, bool)), "recorded has 6 entries for 5 actions"),
        (spoilt_game(values=np.full(5, 3, np.float32)), "values reaches from 3.0 to 3.0"),
        (spoilt_game(actions=np.full(5, -1, np.int16)), "actions reaches from -1"),
        (spoilt_game(weights_versions=np.full(5, -2, np.int32)), "weights_versions reaches from -2"),
    ],
)
def test_a_wrong_value_is_found_and_named(make: Callable[[], Chunk], problem: str) -> None:
    read = Chunk.decode(make().encode())
    found = problems_of(read, BoardExperience(GAME))
    assert any(problem in one for one in found), found


def test_a_row_without_a_policy_target_needs_no_policy() -> None:
    chunk = with_column(a_chunk(), "policy", np.zeros((6, 9), np.float16))
    chunk = with_column(chunk, "policy_weight", np.zeros(6, np.float32))
    assert problems_of(chunk, BoardExperience(GAME)) == []


def test_values_may_leave_their_range_by_rounding() -> None:
    chunk = spoilt("search_value", np.nextafter(np.float32(1), np.float32(2)))()
    assert problems_of(chunk, BoardExperience(GAME)) == []


@settings(max_examples=200)
@given(st.data())
def test_no_field_of_another_kind_gets_past_decoding(data: st.DataObject) -> None:
    """Whatever stands in a field, decoding and checking end in a DataError or in words, never otherwise."""
    fields = codec.decode(a_chunk().encode(), source="a test")
    holder = data.draw(st.sampled_from([fields, fields["games"][0], fields["columns"]]))
    key = data.draw(st.sampled_from(sorted(holder)))
    other = st.one_of(
        st.sampled_from(
            [None, True, -1, 2**63, 2**64 - 1, 1e300, float("nan"), "x", b"x", [], {}, [{}], [1]]
        ),
        st.sampled_from([np.zeros(0, np.int64), np.zeros((6, 9), np.float16), np.zeros((), np.int16)]),
        st.sampled_from([np.full(6, 2**63 - 1, np.int64), np.full(6, np.nan, np.float32)]),
    )
    if data.draw(st.booleans()):
        holder[key] = data.draw(other)
    else:
        del holder[key]
    with contextlib.suppress(DataError):
        problems_of(Chunk.decode(codec.encode(fields)), BoardExperience(GAME))
