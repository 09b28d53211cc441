"""Learners that are of use only together get all their places or none, and who gets none is told what is missing."""

import pytest
import ray

from cluster.on_ray import reserved
from core.errors import ClusterError


def test_what_is_missing_is_named_and_nothing_stays_reserved(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserved, "RESERVE_SECONDS", 0.2)

    with pytest.raises(ClusterError) as refused:
        reserved.reserve_together(2, gpus=0.6)

    assert "each asks for 0.6 of a GPU" in refused.value.why
    assert "Ray counts 0 GPUs" in refused.value.why
    assert {each["state"] for each in ray.util.placement_group_table().values()} <= {"REMOVED"}
