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
    place = {_name_of_this_node(): 0.001} | ({"GPU": gpus} if gpus else {})
    group = placement_group([place] * count, strategy="STRICT_PACK")
    if group.wait(RESERVE_SECONDS):
        return group
    remove_placement_group(group)
    raise ClusterError(
        f"there are no places for {count} learners",
        why=f"{place} for each were not free within {RESERVE_SECONDS} s",
        fix="lower learner.num_learners, or stop what else Ray runs here (`ray status`)",
    )


def _name_of_this_node() -> str:
    """Return the resource that Ray gives to this machine alone."""
    here = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return next(name for name in resources if name.startswith("node:") and not name.startswith("node:__"))
