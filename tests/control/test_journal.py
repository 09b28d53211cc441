"""What has happened to each key is kept, shared, bounded, and what the decisions are made of."""

import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from configs.control import RecentConfig, TriggersConfig
from control.curriculum import KeyFacts, MatchResult
from control.database import Database
from control.journal import RESULTS_KEPT, SILENT_SECONDS, TABLES, Journal
from control.keys import Key
from control.triggers import decide
from core.errors import DataError, UsageError

KEY, OTHER, THIRD = Key("hex5"), Key("tic_tac_toe"), Key("square8", 4)
NOW = 1_000_000.0
RECENT = RecentConfig()
STARTERS = 6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = Database(path, TABLES)
    yield opened
    opened.close()


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal(database)


def facts_of(journal: Journal, key: Key = KEY, now: float = NOW) -> KeyFacts:
    return journal.facts(RECENT, now=now)[key]


def test_what_is_noted_is_known_to_who_opens_the_file_later(journal: Journal, path: Path) -> None:
    journal.record_data(KEY, 700, moves_per_game=15.5)
    journal.record_models(KEY, 3)
    journal.record_result(KEY, MatchResult(NOW - 10, wins=12, draws=2, losses=6, elo=1500.0))
    database = Database(path, TABLES)
    facts = facts_of(Journal(database))
    database.close()

    assert (facts.games, facts.models, facts.moves_per_game) == (700, 3, 15.5)
    assert (facts.recent.games, facts.recent.win_rate) == (20, pytest.approx(0.65))


def test_facts_are_of_all_keys_or_of_those_asked_for(journal: Journal) -> None:
    for key in (OTHER, KEY):
        journal.record_result(key, MatchResult(NOW, wins=10))
    assert list(journal.facts(RECENT, now=NOW)) == [KEY, OTHER]
    for asked in ([OTHER], [OTHER, KEY]):
        found = journal.facts(RECENT, now=NOW, keys=asked)
        assert list(found) == asked
        assert all(facts.recent.games == 10 for facts in found.values())
    assert journal.facts(RECENT, now=NOW, keys=[THIRD]) == {THIRD: KeyFacts()}
    assert journal.facts(RECENT, now=NOW, keys=[]) == {}


def test_a_match_that_is_recorded_again_counts_once(journal: Journal) -> None:
    result = MatchResult(NOW, wins=10)
    assert journal.record_result(KEY, result, match="v7 against v6")
    assert not journal.record_result(KEY, result, match="v7 against v6")
    assert journal.record_result(OTHER, result, match="v7 against v6")
    assert journal.record_result(KEY, result)
    assert journal.record_result(KEY, result)
    assert facts_of(journal).recent.games == 30


def test_old_results_are_pruned_key_by_key(journal: Journal, path: Path) -> None:
    journal.record_result(OTHER, MatchResult(NOW, wins=1))
    for k in range(RESULTS_KEPT + 20):
        journal.record_result(KEY, MatchResult(NOW - k, wins=1, elo=float(k)))
    database = Database(path, TABLES)
    rows = database.read("SELECT key, count(*), min(elo) FROM journal_results GROUP BY key ORDER BY key")
    database.close()
    assert [tuple(row) for row in rows] == [("hex5_2p", RESULTS_KEPT, 20.0), ("tic_tac_toe_2p", 1, None)]


def test_after_a_success_the_games_that_were_there_when_it_began_are_trained_on(journal: Journal) -> None:
    journal.record_data(KEY, 500)
    assert journal.start_training(KEY, owner="a", most=3, now=NOW)
    journal.record_data(KEY, 620)
    assert journal.end_training(KEY, owner="a", success=True, now=NOW + 60)

    facts = facts_of(journal)
    assert (facts.games_trained_on, facts.new_games, facts.failures) == (500, 120, 0)
    assert (facts.last_trained, facts.last_attempt) == (NOW + 60, NOW + 60)


def test_after_a_failure_the_games_are_new_still_and_the_interval_holds(journal: Journal) -> None:
    journal.record_data(KEY, 500)
    for k in range(2):
        journal.start_training(KEY, owner="a", most=3, now=NOW + k)
        journal.end_training(KEY, owner="a", success=False, now=NOW + k)
    facts = facts_of(journal)
    assert (facts.new_games, facts.failures, facts.last_trained) == (500, 2, None)
    assert decide(facts, TriggersConfig(), now=NOW + 2).rule == "interval"

    journal.start_training(KEY, owner="a", most=3, now=NOW + 3)
    journal.end_training(KEY, owner="a", success=True, now=NOW + 4)
    assert facts_of(journal).failures == 0


def test_where_data_is_deleted_games_that_come_from_then_on_are_new(journal: Journal) -> None:
    journal.record_data(KEY, 500)
    journal.start_training(KEY, owner="a", most=3, now=NOW)
    journal.end_training(KEY, owner="a", success=True, now=NOW)
    journal.record_data(KEY, 100)
    journal.record_data(KEY, 130)
    assert facts_of(journal).new_games == 30


def test_no_more_are_trained_than_may_be(journal: Journal) -> None:
    assert journal.start_training(KEY, owner="a", most=2, now=NOW)
    assert journal.start_training(OTHER, owner="b", most=2, now=NOW)
    assert not journal.start_training(THIRD, owner="c", most=2, now=NOW)
    assert sorted(journal.running(now=NOW)) == [KEY, OTHER]
    assert journal.end_training(OTHER, owner="b", success=True, now=NOW)
    assert journal.start_training(THIRD, owner="c", most=2, now=NOW)


def test_a_place_is_free_once_its_owner_is_silent_and_taken_while_he_beats(journal: Journal) -> None:
    journal.start_training(KEY, owner="a", most=1, now=NOW)
    later = NOW + SILENT_SECONDS
    assert journal.beat(KEY, owner="a", now=later - 1)
    assert not journal.start_training(OTHER, owner="b", most=1, now=later + 1)

    much_later = later + SILENT_SECONDS + 1
    assert journal.running(now=much_later) == {}
    assert journal.start_training(OTHER, owner="b", most=1, now=much_later)


@pytest.mark.parametrize(("ahead", "counts"), [(10, True), (3600, False)])
def test_an_owner_seen_far_in_the_future_holds_no_place_until_then(
    journal: Journal, ahead: float, counts: bool
) -> None:
    journal.start_training(KEY, owner="a", most=1, now=NOW + ahead)
    assert (KEY in journal.running(now=NOW)) == counts
    assert journal.start_training(OTHER, owner="b", most=1, now=NOW) != counts


@pytest.mark.parametrize(
    ("table", "column", "nonsense"),
    [
        ("journal_keys", "last_trained", "x"),
        ("journal_keys", "games", -5),
        ("journal_keys", "key", "../x"),
        ("journal_results", "elo", "x"),
        ("journal_results", "wins", -1),
    ],
)
def test_nonsense_in_the_file_is_told_in_three_lines(
    journal: Journal, database: Database, table: str, column: str, nonsense: object
) -> None:
    journal.record_data(KEY, 10)
    journal.record_result(KEY, MatchResult(NOW, 1, 0, 0, 10.0))
    with database.write() as connection:
        connection.execute(f"UPDATE {table} SET {column} = ?", (nonsense,))
    with pytest.raises(DataError, match="cannot be read"):
        journal.facts(RecentConfig(), now=NOW)


def test_who_takes_a_training_over_goes_on_with_its_games_and_the_other_notes_nothing(
    journal: Journal,
) -> None:
    journal.record_data(KEY, 500)
    journal.start_training(KEY, owner="dead", most=1, now=NOW)
    journal.record_data(KEY, 900)
    assert journal.start_training(KEY, owner="heir", most=1, now=NOW + 100)

    assert journal.running(now=NOW + 100)[KEY].owner == "heir"
    assert journal.running(now=NOW + 100)[KEY].began == NOW
    assert not journal.beat(KEY, owner="dead", now=NOW + 101)
    assert not journal.end_training(KEY, owner="dead", success=False, now=NOW + 101)
    assert journal.end_training(KEY, owner="heir", success=True, now=NOW + 102)
    assert not journal.end_training(KEY, owner="heir", success=True, now=NOW + 103)
    facts = facts_of(journal)
    assert (facts.games_trained_on, facts.failures, facts.last_trained) == (500, 0, NOW + 102)


def start(path: Path, name: str, most: int, begin: Barrier) -> None:
    database = Database(path, TABLES)
    begin.wait(60)
    Journal(database).start_training(Key(name), owner=name, most=most, now=NOW)
    database.close()


def test_the_limit_holds_among_processes_that_start_at_once(journal: Journal, path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(STARTERS)
    starters = [context.Process(target=start, args=(path, f"g{k}", 2, begin)) for k in range(STARTERS)]
    for each in starters:
        each.start()
    for each in starters:
        each.join(120)
    assert [each.exitcode for each in starters] == [0] * STARTERS
    assert len(journal.running(now=NOW)) == 2


def test_a_key_that_is_forgotten_is_as_if_it_had_never_been(journal: Journal) -> None:
    journal.record_data(KEY, 5)
    journal.record_result(KEY, MatchResult(NOW, wins=10))
    journal.forget(KEY)
    assert journal.facts(RECENT, now=NOW) == {}


def test_settings_are_kept_and_the_last_ones_count(journal: Journal) -> None:
    assert journal.settings() is None
    journal.save_settings({"triggers": {"freshness_games": 5}})
    journal.save_settings({"triggers": {"freshness_games": 7}})
    assert journal.settings() == {"triggers": {"freshness_games": 7}}


@pytest.mark.parametrize("damage", ["{", "[1, 2]", '"text"', "5"])
def test_damaged_settings_are_said_to_be_so(journal: Journal, path: Path, damage: str) -> None:
    journal.save_settings({})
    database = Database(path, TABLES)
    with database.write() as connection:
        connection.execute("UPDATE journal_settings SET text = ?", (damage,))
    database.close()
    with pytest.raises(DataError, match="damaged"):
        journal.settings()


@pytest.mark.parametrize("number", [-1, float("nan"), 1.5, True])
def test_counts_that_are_none_are_refused(journal: Journal, number: int) -> None:
    with pytest.raises(UsageError):
        journal.record_data(KEY, number)
    with pytest.raises(UsageError):
        journal.record_models(KEY, number)
    assert journal.facts(RECENT, now=NOW) == {}


def test_to_go_on_with_a_training_whose_owner_died_is_no_new_attempt(journal: Journal) -> None:
    journal.start_training(KEY, owner="a", most=1, now=NOW)
    journal.pause_training(KEY, owner="a", now=NOW + 10, failed=True)
    journal.start_training(KEY, owner="b", most=1, now=NOW + 100)
    journal.start_training(KEY, owner="c", most=1, now=NOW + 200)
    assert facts_of(journal, now=NOW + 200).last_attempt == NOW + 10
    journal.end_training(KEY, owner="c", success=True, now=NOW + 300)
    journal.start_training(KEY, owner="c", most=1, now=NOW + 400)
    assert facts_of(journal, now=NOW + 400).last_attempt == NOW + 400
