"""The fence: a smaller token is refused in the transaction that would write, after any restart."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control import fencing
from control.database import Database
from control.fencing import Fence
from control.locks import FencingToken, LockLostError
from core.errors import UsageError

NAME = "training:hex5_2p"
TABLES = fencing.TABLES + "CREATE TABLE IF NOT EXISTS written (number INTEGER NOT NULL);"


def opened(folder: Path) -> Database:
    return Database(folder / "control.sqlite", TABLES)


def write(fence: Fence, number: int, name: str = NAME) -> None:
    with fence.write(FencingToken(name, number)) as connection:
        connection.execute("INSERT INTO written VALUES (?)", (number,))


def written(database: Database) -> list[int]:
    return [row["number"] for row in database.read("SELECT number FROM written ORDER BY rowid")]


@given(st.lists(st.tuples(st.sampled_from(["admit", "write"]), st.integers(1, 9)), max_size=30))
def test_no_write_follows_a_greater_token(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    database = opened(tmp_path_factory.mktemp("fence"))
    fence, highest, accepted = Fence(database), 0, []
    for step, number in steps:
        if step == "admit":
            assert fence.admit(FencingToken(NAME, number)) == (number > highest)
        elif number < highest:
            with pytest.raises(LockLostError):
                write(fence, number)
            continue
        else:
            write(fence, number)
            accepted.append(number)
        highest = max(highest, number)
        assert fence.highest(NAME) == highest
    assert written(database) == accepted
    database.close()


def test_what_is_refused_writes_nothing_and_says_why(tmp_path: Path) -> None:
    database = opened(tmp_path)
    fence = Fence(database)
    write(fence, 5)
    with pytest.raises(LockLostError, match="another's by now") as caught:
        write(fence, 4)
    assert written(database) == [5]
    assert "token 4" in caught.value.why
    assert "5 has been given" in caught.value.why


def test_a_token_that_was_seen_is_seen_after_a_restart(tmp_path: Path) -> None:
    database = opened(tmp_path)
    Fence(database).admit(FencingToken(NAME, 8))
    database.close()
    with pytest.raises(LockLostError):
        write(Fence(opened(tmp_path)), 7)


def test_a_write_that_fails_takes_back_what_its_token_raised(tmp_path: Path) -> None:
    fence = Fence(opened(tmp_path))

    def fail() -> None:
        with fence.write(FencingToken(NAME, 9)):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert fence.highest(NAME) == 0


def test_a_number_is_admitted_once(tmp_path: Path) -> None:
    fences = [Fence(opened(tmp_path)) for _ in range(2)]
    assert [fence.admit(FencingToken(NAME, 3)) for fence in fences] == [True, False]


def test_names_have_fences_of_their_own(tmp_path: Path) -> None:
    fence = Fence(opened(tmp_path))
    fence.admit(FencingToken("a", 9))
    assert fence.admit(FencingToken("b", 1))


def test_who_is_outrun_writes_no_more(tmp_path: Path) -> None:
    fence = Fence(opened(tmp_path))
    fence.admit(FencingToken(NAME, 3))
    assert fence.outrun(NAME) == 4
    with pytest.raises(LockLostError):
        write(fence, 3)


@pytest.mark.parametrize("number", [0, -1, 2**53, 1.5, True, None, float("nan")])
def test_what_is_no_token_is_refused(number: int) -> None:
    with pytest.raises(UsageError, match="no fencing token"):
        FencingToken(NAME, number)
