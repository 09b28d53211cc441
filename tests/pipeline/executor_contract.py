"""What every executor does; a subclass says by its fixture which."""

import os
from pathlib import Path

import pytest

from core.errors import ClusterError, DataError
from pipeline.contract import Executor
from tests.pipeline.tasks import Work, die_always, die_once, refuse_three, slowly, square


def works(folder: Path, count: int) -> list[Work]:
    return [Work(number, str(folder)) for number in range(count)]


def done(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class AnyExecutor:
    """Tests of who runs tasks, wherever."""

    def test_each_result_comes_once_with_the_number_of_its_argument(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        results = list(executor.run(square, works(tmp_path, 9)))
        assert sorted(results) == [(number, number**2) for number in range(9)]

    def test_without_arguments_there_is_nothing_to_do(self, executor: Executor) -> None:
        assert list(executor.run(square, [])) == []

    def test_it_can_be_used_again(self, executor: Executor, tmp_path: Path) -> None:
        for _ in range(2):
            assert sum(result for _, result in executor.run(square, works(tmp_path, 3))) == 5

    def test_an_error_of_a_task_is_raised_as_it_was_and_the_rest_is_not_begun(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match="3 is damaged") as caught:
            list(executor.run(refuse_three, works(tmp_path, 30)))
        assert caught.value.why == "a test"
        assert {"0", "1", "2"} <= done(tmp_path)
        assert len(done(tmp_path)) <= 3 + 2 * executor.workers

    def test_closing_it_lets_what_runs_come_to_its_end_and_begins_no_more(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        running = executor.run(slowly, works(tmp_path, 30))
        next(running)
        running.close()  # pyright: ignore[reportAttributeAccessIssue]
        after = done(tmp_path)
        assert 1 <= len(after) <= 2 * executor.workers + 1
        assert sorted(executor.run(square, works(tmp_path / "next", 2))) == [(0, 0), (1, 1)]
        assert done(tmp_path) - {"next"} == after


class WorkersBeside(AnyExecutor):
    """Tests of executors whose workers are not this process."""

    def test_its_workers_are_other_processes(self, executor: Executor, tmp_path: Path) -> None:
        list(executor.run(slowly, works(tmp_path, 6)))
        workers = {int(path.read_text()) for path in tmp_path.iterdir()}
        assert os.getpid() not in workers
        assert len(workers) == executor.workers == 2

    def test_the_task_of_a_worker_that_dies_is_tried_again(self, executor: Executor, tmp_path: Path) -> None:
        results = list(executor.run(die_once, works(tmp_path, 5)))
        assert sorted(results) == [(number, number**2) for number in range(5)]

    def test_a_task_that_no_worker_survives_is_an_error(self, executor: Executor, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="died 2 times") as caught:
            list(executor.run(die_always, works(tmp_path, 5)))
        assert "number=2" in caught.value.why
        assert sorted(executor.run(square, works(tmp_path, 2))) == [(0, 0), (1, 1)]
