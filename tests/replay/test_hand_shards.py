import json
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError
from core.files import digest
from core.hands import BOARD_CARDS, STREETS, Street
from poker.cards import live_hands
from replay.hand_shards import (
    HAND_COLUMNS,
    check_valid,
    hands_on,
    is_complete,
    load_hand_info,
    read_hand_shard,
    write_hand_shard,
)
from replay.npz import sidecar_of
from tests.replay.hand_rows import about, some_samples, stored


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "samples_0000.npz"
    write_hand_shard(path, some_samples(3), about())
    return path


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


@pytest.mark.parametrize("street", STREETS)
def test_samples_come_back_as_they_were_written(tmp_path: Path, street: Street) -> None:
    rows = some_samples(4, street=street)
    info = write_hand_shard(tmp_path / "a.npz", rows, about(street, seed=3, law={"pots": [100, 200]}))
    assert same(read_hand_shard(tmp_path / "a.npz"), rows)
    assert load_hand_info(tmp_path / "a.npz") == info
    assert (info.street, info.count, info.stack, info.bet_sizes) == (street, 4, 20_000.0, (1.0,))
    assert info.about == {"seed": 3, "law": {"pots": [100, 200]}}


def test_so_many_hands_are_live() -> None:
    assert {street: hands_on(street) for street in STREETS} == {
        "river": 1081,
        "turn_end": 1128,
        "turn": 1128,
        "flop_end": 1176,
        "flop": 1176,
        "preflop_end": 1326,
    }
    for street in STREETS:
        assert hands_on(street) == len(live_hands(range(BOARD_CARDS[street])))


def test_numpy_alone_reads_it(shard: Path) -> None:
    with np.load(shard, allow_pickle=False) as file:
        assert same({name: file[name] for name in file}, read_hand_shard(shard))
    said = json.loads(sidecar_of(shard).read_text())
    assert list(said) == ["schema", "street", "count", "size", "digest", "stack", "bet_sizes", "about"]


def test_no_samples_are_samples_and_equal_ones_are_equal_bytes(tmp_path: Path) -> None:
    none = {name: column[:0] for name, column in some_samples(1).items()}
    write_hand_shard(tmp_path / "none.npz", none, about())
    assert same(read_hand_shard(tmp_path / "none.npz"), none)
    for name in ("a", "b"):
        write_hand_shard(tmp_path / name, some_samples(2), about())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sidecar_of(tmp_path / "a").read_bytes() == sidecar_of(tmp_path / "b").read_bytes()


def test_facts_read_back_equal_though_json_has_no_tuples(tmp_path: Path) -> None:
    info = write_hand_shard(tmp_path / "a.npz", some_samples(1), about(sizes=(1, 2)))
    assert load_hand_info(tmp_path / "a.npz") == info


@pytest.mark.parametrize("fact", [float("nan"), np.float32(1), {1, 2}])
def test_what_json_cannot_say_is_refused_before_anything_is_written(tmp_path: Path, fact: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_hand_shard(tmp_path / "a.npz", some_samples(1), about(fact=fact))
    assert list(tmp_path.iterdir()) == []


def test_a_range_of_a_single_hand_can_be_stored(tmp_path: Path) -> None:
    rows = some_samples(1)
    rows["ranges"][0] = stored(np.eye(1081)[:2])
    write_hand_shard(tmp_path / "a.npz", rows, about())
    assert read_hand_shard(tmp_path / "a.npz")["ranges"][0, 1, 1] == 1081


def test_every_altered_byte_is_found(shard: Path) -> None:
    data = shard.read_bytes()
    for position in np.linspace(0, len(data) - 1, 40).astype(int).tolist():
        shard.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(DataError, match=r"samples_0000\.npz cannot be read"):
            read_hand_shard(shard)


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_shard_cut_short_is_found_and_is_not_complete(shard: Path, length: int) -> None:
    assert is_complete(shard)
    shard.write_bytes(shard.read_bytes()[:length])
    assert not is_complete(shard)
    with pytest.raises(DataError, match="its digest is"):
        read_hand_shard(shard)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": 1, "street": "river"}', "\0\xff", pytest.param("[" * 10**5, id="deep")],
)
def test_a_sidecar_that_says_nothing_is_found(shard: Path, text: str) -> None:
    sidecar_of(shard).write_text(text)
    with pytest.raises(DataError, match=r"samples_0000\.npz\.json cannot be read"):
        read_hand_shard(shard)
    assert not is_complete(shard)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": 2}, "another release"),
        ({"street": "preflop"}, "no object"),
        ({"bet_sizes": ["pot"]}, "no object"),
    ],
)
def test_a_sidecar_of_something_else_is_refused(shard: Path, change: dict[str, object], problem: str) -> None:
    said = json.loads(sidecar_of(shard).read_text())
    sidecar_of(shard).write_text(json.dumps(said | change))
    with pytest.raises(DataError, match=problem):
        read_hand_shard(shard)


@pytest.mark.parametrize("gone", [lambda shard: shard, sidecar_of])
def test_what_is_not_there_is_told(shard: Path, gone) -> None:
    gone(shard).unlink()
    assert not is_complete(shard)
    with pytest.raises(DataError, match="No such file"):
        read_hand_shard(shard)


def test_a_foreign_archive_under_a_true_digest_is_refused(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.npz", some_samples(2)
    info = write_hand_shard(path, rows, about())
    for wrong, problem in (
        ({"number": rows["number"].astype(np.int32)}, "number"),
        ({"values": rows["values"][:, :, :1000]}, "values"),
        ({"board": None}, "board"),
        ({name: column[:1] for name, column in rows.items()}, "1 samples instead of 2"),
    ):
        columns = {name: column for name, column in (rows | wrong).items() if column is not None}
        np.savez(path, allow_pickle=False, **columns)
        said = json.loads(info.to_json()) | {"digest": digest(path.read_bytes())}
        sidecar_of(path).write_text(json.dumps(said))
        with pytest.raises(DataError, match=problem):
            read_hand_shard(path)


@pytest.mark.parametrize(
    ("column", "place", "value", "problem"),
    [
        ("board", (1, 0), 52, "from 0 to 51"),
        ("board", (1, slice(0, 2)), 7, "twice"),
        ("pot_half", 1, 0, "pot_half is not between"),
        ("pot_half", 1, 20_000, "pot_half is not between"),
        ("pot_half", 1, np.nan, "pot_half is not between"),
        ("ranges", (1, 0, 5), -1, "at least 0"),
        ("ranges", (1, 0, 5), np.inf, "at least 0"),
        ("ranges", (1, 1), 0, "no mass"),
        ("ranges", (1, 1), 1 / 1081, "units of its mean"),
        ("values", (1, 0, 5), np.nan, "value is not finite"),
        ("values", (1, 0, 5), 300, "more than a stack"),
        ("exploitability", 1, -0.1, "exploitability"),
        ("exploitability", 1, np.nan, "exploitability"),
        ("iterations", 1, -1, "iterations"),
    ],
)
def test_unsound_samples_are_not_written(
    tmp_path: Path, column: str, place, value: float, problem: str
) -> None:
    rows = some_samples(3)
    assert check_valid(rows, about()) == []
    rows[column][place] = value
    with pytest.raises(ValueError, match=rf"{problem}.*row 1"):
        write_hand_shard(tmp_path / "a.npz", rows, about())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("street", STREETS)
def test_only_where_a_street_ends_may_nothing_have_been_solved(tmp_path: Path, street: Street) -> None:
    rows = some_samples(3, street=street)
    rows["exploitability"][1], rows["iterations"][1] = np.nan, 0
    if street.endswith("_end"):
        assert check_valid(rows, about(street)) == []
        write_hand_shard(tmp_path / "a.npz", rows, about(street))
        assert np.isnan(read_hand_shard(tmp_path / "a.npz")["exploitability"]).tolist() == [
            False,
            True,
            False,
        ]
        rows["exploitability"][2] = np.inf
        problem = "exploitability.*row 2"
    else:
        problem = "exploitability.*row 1"
    with pytest.raises(ValueError, match=problem):
        write_hand_shard(tmp_path / "b.npz", rows, about(street))


def test_before_the_flop_a_board_has_no_cards(tmp_path: Path) -> None:
    rows = some_samples(3, street="preflop_end")
    assert rows["board"].shape == (3, 0)
    write_hand_shard(tmp_path / "a.npz", rows, about("preflop_end"))
    assert same(read_hand_shard(tmp_path / "a.npz"), rows)
    none = {name: column[:0] for name, column in rows.items()}
    write_hand_shard(tmp_path / "none.npz", none, about("preflop_end"))
    assert same(read_hand_shard(tmp_path / "none.npz"), none)
    assert check_valid(rows | {"board": np.zeros((3, 3), np.uint8)}, about("preflop_end"))


@pytest.mark.parametrize("street", STREETS)
def test_unsound_samples_of_any_street_are_not_written(street: Street) -> None:
    for column, value, problem in (
        ("ranges", np.inf, "at least 0"),
        ("values", np.nan, "value is not finite"),
        ("values", 300, "more than a stack"),
    ):
        rows = some_samples(3, street=street)
        rows[column][1, 0, -1] = value
        assert problem in "; ".join(check_valid(rows, about(street)))


def test_samples_of_another_street_are_not_sound() -> None:
    assert check_valid(some_samples(1, street="turn"), about("river"))
    assert check_valid({"number": np.zeros(1, np.int64)}, about()) == [
        f"it has no column {', '.join(name for name in HAND_COLUMNS if name != 'number')}"
    ]


@pytest.mark.parametrize("street", STREETS)
def test_streets_are_told_apart_by_their_cards_or_by_what_a_sidecar_says(
    tmp_path: Path, street: Street
) -> None:
    rows = some_samples(2, street=street)
    for other in STREETS:
        alike = BOARD_CARDS[other] == BOARD_CARDS[street]
        assert (check_valid(rows, about(other)) == []) == alike
    write_hand_shard(tmp_path / "a.npz", rows, about(street))
    assert load_hand_info(tmp_path / "a.npz").street == street
