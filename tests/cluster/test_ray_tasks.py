"""A pipeline's tasks on Ray do what they do elsewhere."""

import pytest

from cluster.ray_tasks import RayTasks
from tests.pipeline.executor_contract import WorkersBeside


@pytest.mark.usefixtures("local_ray")
class TestRayTasks(WorkersBeside):
    @pytest.fixture
    def executor(self) -> RayTasks:
        return RayTasks()
