"""Each stage of a training is done once, and only by who holds the lock."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from control import fencing, trainings
from control.database import Database
from control.keys import Key
from control.locks import FencingToken, LockLostError
from control.trainings import Trainings, lock_of
from core.errors import DataError

KEY, OTHER = Key("hex5"), Key("hex7")
TABLES = fencing.TABLES + trainings.TABLES


def token(number: int, key: Key = KEY) -> FencingToken:
    return FencingToken(lock_of(key), number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sqlite"


@pytest.fixture
def kept(path: Path) -> Iterator[Trainings]:
    database = Database(path, TABLES)
    yield Trainings(database, wall_clock=lambda: 100.0, clock=lambda: 5.0)
    database.close()


def test_a_stage_that_is_written_down_is_not_done_again(kept: Trainings, path: Path) -> None:
    training = kept.begin(KEY, token(1), reason="600 new games")
    done: list[str] = []

    def work() -> dict[str, int]:
        done.append("export")
        return {"rows": 7}

    first = kept.once(training, token(1), "export", work)
    again = Trainings(Database(path, TABLES))  # as after a restart
    resumed = again.begin(KEY, token(2), reason="something else")
    assert again.once(resumed, token(2), "export", work) == first == {"rows": 7, "seconds": 0.0}
    assert done == ["export"]
    assert (resumed.number, resumed.reason) == (training.number, "600 new games")


def test_a_stage_that_fails_is_done_again(kept: Trainings) -> None:
    training = kept.begin(KEY, token(1), reason="")

    def fail() -> dict[str, int]:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        kept.once(training, token(1), "train", fail)
    assert kept.once(training, token(1), "train", lambda: {"steps": 3})["steps"] == 3


def test_who_lost_the_lock_writes_nothing(kept: Trainings) -> None:
    late = kept.begin(KEY, token(1), reason="")

    def work_while_another_takes_over() -> dict[str, str]:
        kept.begin(KEY, token(2), reason="")
        return {"by": "the late one"}

    with pytest.raises(LockLostError):
        kept.once(late, token(1), "train", work_while_another_takes_over)
    with pytest.raises(LockLostError):
        kept.end(late, token(1), success=True, message="")
    with pytest.raises(LockLostError):
        kept.begin(KEY, token(1), reason="")
    assert (kept.get(late.number).made, kept.get(late.number).ended) == ({}, None)


def test_a_key_has_one_training_at_a_time_and_then_another(kept: Trainings) -> None:
    first, other = (kept.begin(key, token(1, key), reason="") for key in (KEY, OTHER))
    assert [each.number for each in kept.under_way()] == [first.number, other.number]
    ended = kept.end(first, token(1), success=False, message="the disk was full")
    assert (ended.success, ended.message, ended.ended) == (False, "the disk was full", 100.0)
    second = kept.begin(KEY, token(2), reason="")
    assert second.number > other.number
    assert [each.number for each in kept.newest(5, KEY)] == [second.number, first.number]
    with pytest.raises(DataError, match="has ended"):
        kept.once(first, token(2), "export", dict)
