"""`together` runs computations that ask side by side."""

from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps
from search.contract import ask
from search.together import together

T = TypeVar("T")


def request(model: str, value: int) -> Request:
    return Request(model, {"x": np.array([value])})


def echo(requests: tuple[Request, ...]) -> tuple[Reply, ...]:
    """Answer each request with its own array times ten."""
    return tuple(Reply({"y": one.arrays["x"] * 10}, weights_version=1) for one in requests)


def failure(model: str = "all") -> EvaluationError:
    return EvaluationError(f"{model} did not answer", why="it is a test", fix="nothing")


def counter(model: str, rounds: int, *, width: int = 1) -> Steps[list[int]]:
    """Ask `rounds` times, `width` requests each, and return all that was answered."""
    heard = []
    for turn in range(rounds):
        replies = yield from ask(tuple(request(model, turn * width + i) for i in range(width)))
        assert len(replies) == width
        heard += [int(reply.arrays["y"][0]) for reply in replies]
    return heard


def drive(steps: Steps[T], answer) -> tuple[T, list[tuple[str, ...]]]:
    """Run `steps`, where `answer` gives replies or an error; return its result and the models asked."""
    asked = []
    try:
        requests = next(steps)
        while True:
            asked.append(tuple(one.model for one in requests))
            replies = answer(requests)
            requests = steps.throw(replies) if isinstance(replies, EvaluationError) else steps.send(replies)
    except StopIteration as stop:
        return stop.value, asked


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=5))
def test_each_computation_hears_its_own_replies_whatever_their_lengths(shapes):
    steps = together(*(counter(str(i), rounds, width=width) for i, (rounds, width) in enumerate(shapes)))

    results, asked = drive(steps, echo)

    assert results == [[10 * i for i in range(rounds * width)] for rounds, width in shapes]
    assert len(asked) == max([rounds for rounds, _ in shapes], default=0)


def test_a_step_holds_the_requests_of_all_that_still_run():
    _, asked = drive(together(counter("a", 1), counter("b", 3), counter("c", 2)), echo)

    assert asked == [("a", "b", "c"), ("b", "c"), ("b",)]


def test_one_failure_is_asked_again_and_changes_no_result():
    failures = iter([failure()])

    results, asked = drive(
        together(counter("a", 2), counter("b", 1)), lambda requests: next(failures, None) or echo(requests)
    )

    assert results == [[0, 10], [0]]
    assert asked == [("a", "b"), ("a",), ("b",), ("a",)]


def test_a_model_that_never_answers_fails_its_own_computation_only():
    def answer(requests):
        return failure("bad") if "bad" in [one.model for one in requests] else echo(requests)

    results, _ = drive(together(counter("good", 3), counter("bad", 3), counter("fine", 1)), answer)

    assert results[0] == [0, 10, 20]
    assert isinstance(results[1], EvaluationError)
    assert results[2] == [0]


def test_a_computation_that_returns_none_still_counts():
    def silent() -> Steps[None]:
        return None
        yield

    assert drive(together(silent(), silent()), echo)[0] == [None, None]


def test_a_defect_in_one_computation_ends_all_and_closes_them():
    closed = []

    def careful() -> Steps[None]:
        try:
            yield (request("a", 1),)
        finally:
            closed.append(True)

    def broken() -> Steps[None]:
        yield (request("b", 1),)
        raise ZeroDivisionError

    waiting = careful()
    with pytest.raises(ZeroDivisionError):
        drive(together(broken(), waiting), echo)
    assert closed == [True]
