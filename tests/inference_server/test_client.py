"""The way to the brain in one process, and computations driven through any client."""

from collections.abc import Callable, Collection, Hashable, Iterator

import numpy as np
import pytest

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps, without_asking
from inference_server.client import InlineClient, drive, drive_all
from search.contract import ask
from tests.inference_server.brains import a_request


def echo(request: Request) -> Reply:
    return Reply(dict(request.arrays), weights_version=3)


def unless(bad: int) -> Callable[[Request], Reply]:
    """Return an evaluator that fails on one number."""

    def evaluate(request: Request) -> Reply:
        if bad in request.arrays["number"]:
            raise EvaluationError(f"not {bad}", why="this test wants it so", fix="none")
        return echo(request)

    return evaluate


def values(replies: tuple[Reply, ...]) -> list[int]:
    return [int(reply.arrays["number"][0]) for reply in replies]


def test_the_oldest_of_the_handles_is_answered_first() -> None:
    client = InlineClient(echo)
    first, second, third = (client.submit((a_request(value),)) for value in (1, 2, 3))

    answered = []
    for handles in ([second, third], [first, third], [third]):
        answer = client.wait_any(handles, timeout_seconds=0.0)
        assert answer is not None
        handle, replies = answer
        assert not isinstance(replies, EvaluationError)
        answered.append((handle, values(replies)))
    assert answered == [(second, [2]), (first, [1]), (third, [3])]


def test_requests_that_belong_together_come_back_together_in_their_order() -> None:
    client = InlineClient(echo)
    handle = client.submit((a_request(5), a_request(4), a_request(6)))
    answer = client.wait_any([handle], timeout_seconds=0.0)

    assert answer is not None
    assert not isinstance(answer[1], EvaluationError)
    assert values(answer[1]) == [5, 4, 6]


def test_nothing_asked_is_nothing_answered() -> None:
    client = InlineClient(echo)
    handle = client.submit((a_request(1),))
    assert client.wait_any([handle], timeout_seconds=0.0) is not None

    assert client.wait_any([handle], timeout_seconds=0.0) is None
    assert client.wait_any([], timeout_seconds=0.0) is None


def test_a_failed_request_fails_those_it_belongs_with_and_no_others() -> None:
    client = InlineClient(unless(2))
    bad, good = client.submit((a_request(1), a_request(2))), client.submit((a_request(3),))

    answers = [client.wait_any([bad, good], timeout_seconds=0.0) for _ in range(2)]
    assert [handle for handle, _ in filter(None, answers)] == [bad, good]
    assert [isinstance(reply, EvaluationError) for _, reply in filter(None, answers)] == [True, False]


def sum_of(*numbers: int) -> Steps[int]:
    """Ask for one number after the other, twice for one that fails, and add up the replies."""
    total = 0
    for number in numbers:
        (reply,) = yield from ask((a_request(number),))
        total += int(reply.arrays["number"].sum())
    return total


def never() -> bool:
    return False


def test_a_computation_is_driven_to_its_end() -> None:
    assert drive(sum_of(1, 2, 3), InlineClient(echo), should_stop=never) == 6


def test_a_computation_that_asks_nothing_is_driven_too() -> None:
    assert drive(sum_of(), InlineClient(echo), should_stop=never) == 0


def test_an_evaluation_that_fails_once_is_asked_again() -> None:
    failures = iter([True])

    def evaluate(request: Request) -> Reply:
        if next(failures, False):
            raise EvaluationError("not yet", why="this test wants it so", fix="ask again")
        return echo(request)

    assert drive(sum_of(1, 2), InlineClient(evaluate), should_stop=never) == 3


def test_an_evaluation_that_fails_twice_ends_the_computation_with_its_error() -> None:
    with pytest.raises(EvaluationError, match="not 2"):
        drive(sum_of(1, 2, 3), InlineClient(unless(2)), should_stop=never)


class SlowClient(InlineClient):
    """Answers only after it was asked `patience` times."""

    def __init__(self, patience: int) -> None:
        super().__init__(echo)
        self._patience = patience

    def wait_any(self, handles, *, timeout_seconds):
        self._patience -= 1
        return None if self._patience >= 0 else super().wait_any(handles, timeout_seconds=timeout_seconds)


def test_driving_waits_for_a_slow_brain() -> None:
    assert drive(sum_of(4), SlowClient(5), should_stop=never) == 4


def test_driving_stops_when_it_is_told_to_though_the_brain_is_silent() -> None:
    looks = iter([False, False, True])

    assert drive(sum_of(4), SlowClient(10**9), should_stop=lambda: next(looks)) is None


class AnyClient(InlineClient):
    """Answers the oldest request in flight, whoever waits for it, as the contract allows."""

    def wait_any(self, handles, *, timeout_seconds):
        return super().wait_any(range(1000), timeout_seconds=timeout_seconds)


def test_what_a_stopped_computation_left_in_flight_is_no_answer_to_the_next() -> None:
    client = AnyClient(echo)
    assert drive(sum_of(100), client, should_stop=lambda: True) is None

    assert drive(sum_of(1, 2), client, should_stop=never) == 3


def test_a_row_keeps_its_place_in_a_large_request() -> None:
    numbers = np.arange(100, dtype=np.int32)
    client = InlineClient(echo)
    handle = client.submit((Request("main", {"number": numbers}),))
    answer = client.wait_any([handle], timeout_seconds=0.0)

    assert answer is not None
    assert not isinstance(answer[1], EvaluationError)
    assert np.array_equal(answer[1][0].arrays["number"], numbers)


class WatchedClient(InlineClient):
    """Answers the youngest handle first, and knows how many were in flight at most."""

    def __init__(self, evaluate: Callable[[Request], Reply] = echo) -> None:
        super().__init__(evaluate)
        self.most = 0

    def wait_any(self, handles: Collection[Hashable], *, timeout_seconds: float):
        self.most = max(self.most, len(self._waiting))
        assert set(handles) == set(self._waiting)
        return super().wait_any([max(self._waiting)], timeout_seconds=timeout_seconds)


@pytest.mark.parametrize("together", [1, 2, 3, 100])
def test_computations_are_driven_so_many_at_a_time_and_all_results_come(together: int) -> None:
    client = WatchedClient()
    computations = [sum_of(*range(number)) for number in range(10)]
    found = list(drive_all(computations, client, together=together))
    assert sorted(found) == sorted(sum(range(number)) for number in range(10))
    assert client.most == min(together, 9)  # one asks nothing


def test_one_at_a_time_results_come_in_their_order() -> None:
    computations = [sum_of(3, 1), sum_of(), sum_of(5), sum_of(4, 2)]
    assert list(drive_all(computations, InlineClient(echo), together=1)) == [4, 0, 5, 6]


def test_computations_begin_when_there_is_room_for_them() -> None:
    begun: list[int] = []

    def all_of_them() -> Iterator[Steps[int]]:
        for number in range(6):
            begun.append(number)
            yield sum_of(1, 1)

    results = drive_all(all_of_them(), InlineClient(echo), together=2)
    assert begun == []
    assert next(results) == 2
    assert begun == [0, 1]
    assert list(results) == [2] * 5
    assert begun == [0, 1, 2, 3, 4, 5]


def test_nothing_is_driven_where_there_is_nothing() -> None:
    assert list(drive_all([], InlineClient(echo), together=2)) == []
    assert list(drive_all([sum_of(), sum_of()], InlineClient(echo), together=2)) == [0, 0]


def test_an_evaluation_that_fails_is_thrown_into_the_computation_that_asked() -> None:
    failures = iter([True])

    def evaluate(request: Request) -> Reply:
        if next(failures, False):
            raise EvaluationError("not yet", why="this test wants it so", fix="ask again")
        return echo(request)

    found = drive_all([sum_of(1, 2), sum_of(3, 4)], InlineClient(evaluate), together=2)
    assert sorted(found) == [3, 7]


def test_a_computation_may_end_of_an_evaluation_that_fails() -> None:
    def gives_up(number: int) -> Steps[int]:
        try:
            yield (a_request(number),)
        except EvaluationError:
            return -1
        return number

    found = drive_all(map(gives_up, range(4)), InlineClient(unless(2)), together=2)
    assert sorted(found) == [-1, 0, 1, 3]


def test_a_computation_that_gives_up_ends_all_of_them_with_its_error() -> None:
    results = drive_all([sum_of(1, 2), sum_of(5)], InlineClient(unless(2)), together=2)
    with pytest.raises(EvaluationError, match="not 2"):
        list(results)


def test_driving_many_waits_for_a_slow_brain() -> None:
    assert sorted(drive_all([sum_of(4), sum_of(5)], SlowClient(5), together=2)) == [4, 5]


def test_what_stopped_computations_left_in_flight_is_no_answer_to_those_driven_together() -> None:
    client = AnyClient(echo)
    assert drive(sum_of(100), client, should_stop=lambda: True) is None

    assert sorted(drive_all([sum_of(1, 2), sum_of(4)], client, together=2)) == [3, 4]


def test_what_asks_nothing_needs_nobody_to_answer() -> None:
    assert without_asking(sum_of()) == 0
    with pytest.raises(AssertionError, match="nobody to answer"):
        without_asking(sum_of(1))
