"""Alerts open, escalate, ease and resolve; all who want to be told are, each in his own time."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.alerts import ATTEMPTS, CHANGES_KEPT, TABLES, AlertBook, Condition, Severity
from control.database import Database
from control.keys import Key

KEY, OTHER = Key("hex5"), Key("connect_four")
KEPT = 3


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "control.sqlite", TABLES)


@pytest.fixture
def book(database: Database) -> AlertBook:
    return AlertBook(database)


def found(kind: str = "failures", severity: Severity = "warning", key: Key = KEY) -> Condition:
    return Condition(key, kind, severity, f"{kind} is {severity}")


def settle(
    database: Database, *conditions: Condition, now: float = 0.0, keys: Sequence[Key] = (KEY,)
) -> None:
    with database.write() as connection:
        AlertBook(database).update(connection, keys, conditions, now=now, kept=KEPT)


def happened(book: AlertBook, name: str = "everybody") -> list[tuple[str, str]]:
    return [(change.happened, change.severity) for change in book.pending(name)]


def test_an_alert_opens_escalates_eases_and_resolves_as_one(database: Database, book: AlertBook) -> None:
    assert book.pending("everybody") == []
    steps: list[Severity] = ["warning", "warning", "critical", "warning"]
    for now, severity in enumerate(steps):
        settle(database, found(severity=severity), now=now)
        (alert,) = book.active()
        assert (alert.severity, alert.opened, alert.message) == (severity, 0.0, f"failures is {severity}")
    settle(database, now=9.0)

    assert book.active() == []
    (resolved,) = book.history(KEY)
    assert (resolved.opened, resolved.resolved) == (0.0, 9.0)
    assert happened(book) == [
        ("opened", "warning"),
        ("escalated", "critical"),
        ("eased", "warning"),
        ("resolved", "warning"),
    ]
    assert {change.alert for change in book.pending("everybody")} == {resolved.number}


def test_only_alerts_of_the_keys_that_were_judged_change(database: Database, book: AlertBook) -> None:
    settle(database, found(), found(key=OTHER), keys=(KEY, OTHER))
    settle(database, keys=(KEY,))
    assert [alert.key for alert in book.active()] == [OTHER]


def test_critical_alerts_are_told_first(database: Database, book: AlertBook) -> None:
    settle(database, found("stale_data"), found("stalled_training", "critical"), found("stale_model"))
    assert [alert.kind for alert in book.active()] == ["stalled_training", "stale_data", "stale_model"]


def test_what_comes_back_is_another_alert(database: Database, book: AlertBook) -> None:
    settle(database, found())
    (first,) = book.active()
    settle(database)
    settle(database, found())
    assert book.active()[0].number > first.number


def test_open_alerts_and_listeners_survive_a_restart(database: Database) -> None:
    settle(database, found(severity="critical"))
    (change,) = AlertBook(database).pending("mail")
    AlertBook(database).told("mail", change)
    database.close()

    again = AlertBook(Database(database.path, TABLES))
    assert [(alert.kind, alert.severity) for alert in again.active()] == [("failures", "critical")]
    assert again.pending("mail") == []


def test_of_each_key_a_bounded_number_of_alerts_is_remembered(database: Database, book: AlertBook) -> None:
    settle(database, found(key=OTHER), keys=(OTHER,))
    settle(database, keys=(OTHER,))
    for now in range(10):
        settle(database, found(), now=now)
        settle(database, now=now)
    assert [alert.opened for alert in book.history(KEY)] == [9.0, 8.0, 7.0]
    assert len(book.history(OTHER)) == 1
    assert len(book.history()) == 4
    assert len(book.history(limit=2)) == 2


def test_a_bounded_number_of_changes_is_kept_and_the_newest_of_each_open_alert(
    database: Database, book: AlertBook
) -> None:
    book.pending("behind")
    settle(database, found(key=OTHER), keys=(OTHER,))
    with database.write() as connection:
        for _ in range(CHANGES_KEPT // 2 + 10):
            book.update(connection, [KEY], [found()], now=0.0, kept=KEPT)
            book.update(connection, [KEY], [], now=0.0, kept=KEPT)
    behind = book.pending("behind")
    assert len(behind) == CHANGES_KEPT + 1
    assert behind[0].key == OTHER


def test_a_new_listener_is_told_what_is_wrong_now_and_not_what_was(
    database: Database, book: AlertBook
) -> None:
    settle(database, found("stale_data"))
    settle(database)
    assert book.pending("late") == []
    settle(database, found("stale_model"))
    assert [change.kind for change in book.pending("later")] == ["stale_model"]
    assert [change.kind for change in book.pending("late")] == ["stale_model"]


def test_each_listener_is_told_everything_once_whatever_others_were_told(
    database: Database, book: AlertBook
) -> None:
    settle(database, found())
    (opened,) = book.pending("a")
    assert book.pending("b") == [opened]
    book.told("a", opened)
    settle(database)
    assert happened(book, "a") == [("resolved", "warning")]
    assert happened(book, "b") == [("opened", "warning"), ("resolved", "warning")]


def test_a_change_that_cannot_be_told_is_tried_again_and_given_up_in_the_end(
    database: Database, book: AlertBook
) -> None:
    settle(database, found())
    (change,) = book.pending("mail")
    settle(database)
    for _ in range(ATTEMPTS - 1):
        assert book.not_told("mail", change, "no network") is False
        assert book.pending("mail")[0] == change
    assert book.not_told("mail", change, "no network") is True
    assert happened(book, "mail") == [("resolved", "warning")]
    listener = book.listener("mail")
    assert (listener.failures, listener.given_up, listener.last_failure) == (ATTEMPTS, 1, "no network")


def test_attempts_are_counted_for_each_change_anew(database: Database, book: AlertBook) -> None:
    settle(database, found())
    (first,) = book.pending("mail")
    settle(database)
    book.not_told("mail", first, "no network")
    book.told("mail", first)
    (second,) = book.pending("mail")
    given_up = [book.not_told("mail", second, "no network") for _ in range(ATTEMPTS)]
    assert given_up == [False] * (ATTEMPTS - 1) + [True]


KINDS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["warning", "critical"]))


@settings(max_examples=40)
@given(st.lists(KINDS, max_size=12))
def test_open_alerts_are_the_conditions_and_changes_lead_to_them(
    tmp_path_factory: pytest.TempPathFactory, moments: list[dict[str, Severity]]
) -> None:
    database = Database(tmp_path_factory.mktemp("alerts") / "control.sqlite", TABLES)
    book = AlertBook(database)
    assert book.pending("onlooker") == []
    followed: dict[str, str] = {}
    for now, moment in enumerate(moments):
        settle(database, *(found(kind, severity) for kind, severity in moment.items()), now=now)
        assert {alert.kind: alert.severity for alert in book.active()} == moment
        for change in book.pending("onlooker"):
            if change.happened == "resolved":
                del followed[change.kind]
            else:
                assert followed.get(change.kind) != change.severity
                followed[change.kind] = change.severity
            book.told("onlooker", change)
        assert followed == moment
    database.close()
