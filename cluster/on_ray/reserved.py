"""Places for actors that are of use only together, reserved on the driver's machine."""

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from core.errors import ClusterError

RESERVE_SECONDS = 30


def reserve_together(count: int, *, gpus: float) -> PlacementGroup:
    """Reserve places for actors that are of use only together, all on this machine.

    Args:
        count: of them.
        gpus: for each.

    Raises:
        ClusterError: when this machine has not that many free.
    """
    here = _resources_here()
    name = next(name for name in here if name.startswith("node:") and not name.startswith("node:__"))
    place = {name: 0.001} | ({"GPU": gpus} if gpus else {})
    group = placement_group([place] * count, strategy="STRICT_PACK")
    if group.wait(RESERVE_SECONDS):
        return group
    remove_placement_group(group)
    raise ClusterError(
        f"there are no places for {count} learners",
        why=f"each asks for {gpus:g} of a GPU, and within {RESERVE_SECONDS} s they were not free together; Ray counts "
        f"{here.get('GPU', 0):g} GPUs on this machine",
        fix="lower learner.num_learners, start Ray here with --num-gpus, or stop what else it runs here (`ray status`)",
    )


def _resources_here() -> dict[str, float]:
    """Return what Ray counts on this machine; "node:" and its address is what no other machine has."""
    here = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return resources
