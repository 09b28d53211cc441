"""What was decided in a game comes back as it was, once for each game that counts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, UsageError
from engines.book import GameBook, Plan
from engines.decision_records import game_number
from engines.forge_decisions import Choice, Decision
from engines.forge_protocol import Outcome
from engines.tickets import Failed, Played, Ticket
from engines.watched_games import counted_games, counted_shards, game_line, read_shard, write_shard

CHOICES: st.SearchStrategy[Choice] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 9),
    st.lists(st.integers(0, 9)).map(tuple),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1).map(tuple),
)


def outcome_of(*choices: Choice, winner: int | None = 1) -> Outcome:
    decisions = tuple(
        Decision("choose_cards", number, 0, 3, "MAIN1", {"players": [{"life": 20}]}, {"min": 0}, choice)
        for number, choice in enumerate(choices)
    )
    return Outcome(
        winner=0 if winner == 0 else 1 if winner == 1 else None,
        milliseconds=7,
        seed=-5,
        timed_out=False,
        error=None,
        decisions=decisions,
    )


def play(folder: Path, *shards: tuple[str, list[tuple[int, Outcome]]], counted: dict[int, str]) -> None:
    """Write shards, and a book in which games are finished whose decisions are in the shards that `counted` names."""
    for name, games in shards:
        write_shard(folder, name, [game_line(Ticket(number, 1, ("a", "b"), 1), end) for number, end in games])
    with GameBook(folder, Plan(games=10, decks=("a", "b"), mode="observe")) as book:
        ends = [Played(number, 1, "draw", 0.1, record=record) for number, record in counted.items()]
        book.exchange("here", 1, [*ends, Failed(9, 1, "died", "gone")], want=0, hold_seconds=1)


@given(choices=st.lists(CHOICES, max_size=5), winner=st.sampled_from([0, 1, None]))
def test_an_outcome_comes_back(
    choices: list[Choice], winner: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, outcome = tmp_path_factory.mktemp("run"), outcome_of(*choices, winner=winner)
    play(folder, ("one", [(3, outcome)]), counted={3: "one"})
    ((number, found),) = counted_games(folder)
    assert (number, found) == (3, outcome)
    assert game_number(found) == game_number(outcome)


def test_a_game_counts_where_the_book_says_and_no_other(tmp_path: Path) -> None:
    first, second = outcome_of(1), outcome_of(2)
    play(tmp_path, ("one", [(0, first), (1, first)]), ("two", [(0, second), (2, second)]), counted={0: "two"})
    assert list(counted_games(tmp_path)) == [(0, second)]


@pytest.mark.parametrize("damage", [b"", b"no gzip"])
def test_a_damaged_or_missing_shard_is_told(tmp_path: Path, damage: bytes) -> None:
    play(tmp_path, ("one", [(0, outcome_of())]), counted={0: "one"})
    path = tmp_path / "decisions" / "one.jsonl.gz"
    path.write_bytes(damage or path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"one\.jsonl\.gz cannot be read"):
        list(counted_games(tmp_path))
    path.unlink()
    with pytest.raises(DataError, match=r"one\.jsonl\.gz cannot be read"):
        list(counted_games(tmp_path))


@pytest.mark.parametrize("changed", [b"", b"\0", b"\0" * 40])
def test_a_fingerprint_is_of_whole_files_and_of_the_games_that_count(tmp_path: Path, changed: bytes) -> None:
    games = [(0, outcome_of(1)), (1, outcome_of(2))]
    for name, counted in (
        ("all", {0: "one", 1: "one"}),
        ("some", {0: "one"}),
        ("same", {0: "one", 1: "one"}),
    ):
        play(tmp_path / name, ("one", games), counted=counted)
    (every,), (some,), (same,) = (counted_shards(tmp_path / name) for name in ("all", "some", "same"))
    assert every.fingerprint() == same.fingerprint() != some.fingerprint()
    data = every.path.read_bytes()
    every.path.write_bytes(data[:30] + changed + data[30 + max(1, len(changed)) :])
    with pytest.raises(DataError, match=r"one\.jsonl\.gz cannot be read"):
        every.fingerprint()


def test_a_folder_without_decisions_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no games"):
        counted_shards(tmp_path / "nothing")
    play(tmp_path, counted={})
    with pytest.raises(UsageError, match="no game is finished"):
        counted_shards(tmp_path)
    with GameBook(tmp_path, Plan(games=10, decks=("a", "b"), mode="observe")) as book:
        book.exchange("here", 1, [Played(0, 1, "draw", 0.1)], want=0, hold_seconds=1)
    with pytest.raises(UsageError, match="1 games were played without --observe"):
        counted_shards(tmp_path)


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no name of a shard"):
        list(read_shard(tmp_path, "../other"))
