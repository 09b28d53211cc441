"""`split` cuts requests into pieces, and nobody but the one who answers notices."""

from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps
from search.contract import ask
from search.split import split

T = TypeVar("T")


def request(start: int, count: int, *, model: str = "m") -> Request:
    numbers = np.arange(start, start + count)
    return Request(model, {"x": numbers, "pair": np.stack([numbers, -numbers], axis=1)})


def echo(one: Request, *, version: int = 1) -> Reply:
    return Reply({"y": one.arrays["x"] * 10, "sum": one.arrays["pair"].sum(axis=1)}, version)


def failure() -> EvaluationError:
    return EvaluationError("no answer", why="it is a test", fix="nothing")


def asker(shapes: list[list[int]]) -> Steps[list[list[int]]]:
    """Ask one step for each list of `shapes`, requests of these numbers of rows; return all that was answered."""
    heard = []
    for turn, counts in enumerate(shapes):
        replies = yield from ask(tuple(request(100 * turn, n, model=str(i)) for i, n in enumerate(counts)))
        heard += [reply.arrays["y"].tolist() for reply in replies]
    return heard


def drive(steps: Steps[T], answer=echo) -> tuple[T, list[list[tuple[str, int]]]]:
    """Run `steps`; return the result and, step by step, the models asked and numbers of rows."""
    asked = []
    try:
        requests = next(steps)
        while True:
            asked.append([(one.model, one.num_rows) for one in requests])
            try:
                replies = tuple(answer(one) for one in requests)
            except EvaluationError as error:
                requests = steps.throw(error)
            else:
                requests = steps.send(replies)
    except StopIteration as stop:
        return stop.value, asked


@given(
    shapes=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), max_size=4),
    max_rows=st.integers(1, 10),
    sequential=st.booleans(),
)
def test_the_answers_are_those_to_whole_requests(shapes, max_rows, sequential):
    whole, _ = drive(asker(shapes))

    cut, asked = drive(split(asker(shapes), max_rows=max_rows, sequential=sequential))

    assert cut == whole
    assert all(1 <= num_rows <= max_rows for step in asked for _, num_rows in step)
    assert sum(num_rows for step in asked for _, num_rows in step) == sum(map(sum, shapes))
    if sequential:
        assert all(len(step) == 1 for step in asked)
    else:
        assert len(asked) == len(shapes)


def test_pieces_are_as_large_as_they_may_be():
    together = drive(split(asker([[5, 2]]), max_rows=2))[1]
    in_turn = drive(split(asker([[5, 2]]), max_rows=2, sequential=True))[1]

    assert together == [[("0", 2), ("0", 2), ("0", 1), ("1", 2)]]
    assert in_turn == [[("0", 2)], [("0", 2)], [("0", 1)], [("1", 2)]]


def test_the_oldest_weights_of_the_pieces_are_told():
    versions = iter([7, 5, 6])

    def steps() -> Steps[int]:
        (reply,) = yield (request(0, 3),)
        return reply.weights_version

    assert drive(split(steps(), max_rows=1), lambda one: echo(one, version=next(versions)))[0] == 5


@pytest.mark.parametrize("sequential", [False, True])
def test_a_piece_that_failed_once_changes_no_answer(sequential):
    calls = 0

    def answer(one: Request) -> Reply:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise failure()
        return echo(one)

    heard, _ = drive(split(asker([[3]]), max_rows=1, sequential=sequential), answer)
    assert heard == [[0, 10, 20]]
    assert calls == 5


def test_a_failure_that_is_not_forgiven_comes_out():
    def answer(one: Request) -> Reply:
        raise failure()

    with pytest.raises(EvaluationError, match="no answer"):
        drive(split(asker([[3]]), max_rows=1), answer)


def test_what_is_given_up_is_closed():
    closed = []

    def careful() -> Steps[None]:
        try:
            yield (request(0, 2),)
        finally:
            closed.append(True)

    steps = split(careful(), max_rows=1)
    next(steps)
    steps.close()
    assert closed == [True]


def test_pieces_of_no_rows_are_refused():
    with pytest.raises(ValueError, match="pieces of 0 rows"):
        next(split(asker([[1]]), max_rows=0))
