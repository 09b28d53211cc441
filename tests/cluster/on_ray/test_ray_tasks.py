"""A pipeline's tasks on Ray do what they do elsewhere."""

from pathlib import Path

import pytest

from cluster.on_ray import tasks as ray_tasks
from cluster.on_ray.tasks import RayTasks
from tests.pipeline.executor_contract import WorkersBeside, works
from tests.pipeline.tasks import slowly


@pytest.mark.usefixtures("local_ray")
class TestRayTasks(WorkersBeside):
    @pytest.fixture
    def executor(self) -> RayTasks:
        return RayTasks()

    def test_no_more_are_in_flight_however_long_they_take(
        self, executor: RayTasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray_tasks, "WAIT_SECONDS", 0.01)
        results = executor.run(slowly, works(tmp_path, 12))
        next(results)
        results.close()  # pyright: ignore - it is a generator
        assert len(list(tmp_path.iterdir())) <= executor.workers + 1
