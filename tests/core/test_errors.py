import copy
import multiprocessing
import pickle
from multiprocessing.connection import Connection

import pytest

from core.errors import ClusterError, DataError, EvaluationError, TamenError, UsageError

KINDS = [TamenError, UsageError, DataError, EvaluationError, ClusterError]


def an_error(kind: type[TamenError]) -> TamenError:
    return kind("batch_rows is 0", why="at least 1 is needed", fix="set learner.batch_rows=256")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_three_lines(kind: type[TamenError]) -> None:
    assert str(an_error(kind)).splitlines() == [
        "batch_rows is 0",
        "  why: at least 1 is needed",
        "  do:  set learner.batch_rows=256",
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.deepcopy])
def test_an_error_stays_whole_when_copied(kind: type[TamenError], copied) -> None:
    error = copied(an_error(kind))
    assert type(error) is kind
    assert (error.what, error.why, error.fix) == (
        "batch_rows is 0",
        "at least 1 is needed",
        "set learner.batch_rows=256",
    )
    assert str(error) == str(an_error(kind))


def test_an_error_stays_whole_between_processes() -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_fail_and_tell, args=(theirs,))
    process.start()
    assert ours.poll(30)
    error = ours.recv()
    process.join(30)
    assert isinstance(error, DataError)
    assert str(error) == str(an_error(DataError))


def _fail_and_tell(pipe: Connection) -> None:
    try:
        raise an_error(DataError)
    except DataError as error:
        pipe.send(error)


def test_only_usage_errors_are_the_users_and_exit_with_two() -> None:
    assert {kind: kind.exit_code for kind in KINDS} == {
        TamenError: 1,
        UsageError: 2,
        DataError: 1,
        EvaluationError: 1,
        ClusterError: 1,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_can_be_caught_as_one_of_ours(kind: type[TamenError]) -> None:
    with pytest.raises(TamenError, match="batch_rows is 0"):
        raise an_error(kind)
