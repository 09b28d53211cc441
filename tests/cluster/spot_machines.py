"""A run on two machines, one of which its cloud takes away: to be run as a process of its own, prints JSON.

    python -m tests.cluster.spot_machines FOLDER

The cloud is a metadata service on loopback, the machines are Ray's on this one. Another comes in the place of the one
that left. The last line tells what came of it.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster.metadata_service import Service, serving
from tests.cluster.several_machines import HEALTH, NODE, Several, join, machines, what_is_left

NOTICE_SECONDS = 30.0


def play(folder: Path, service: Service) -> dict[str, Any]:
    import ray

    from cluster.machines.roster import draining
    from tests.cluster.tiny import games_on_disk

    run = Several(folder, learn=False)
    try:
        node = join(run)
        run.until(lambda: machines(run)[1]["watched_by"] != "", "it is watched")
        (before,) = machines(run)[1:]
        (actor,) = run.far("actor")
        leaves = datetime.fromtimestamp(time.time() + NOTICE_SECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        service.documents["meta-data/spot/instance-action"] = json.dumps(
            {"action": "terminate", "time": leaves}
        )
        parts, seen = run.engine.program.parts, {"games": 0, "draining": False}

        def gone() -> bool:
            seen["games"] = max(seen["games"], run.games([actor]))
            seen["draining"] = seen["draining"] or node.node_id in draining()
            return not any(part.node == node.node_id for part in parts.values())

        run.until(gone, "its parts have left")
        run.until(
            lambda: not any(each["Alive"] and each["NodeID"] == node.node_id for each in ray.nodes()),
            "Ray has ended there",
        )
        service.documents.clear()
        run.cluster.add_node(**NODE, labels={"tamen": "spot"})
        run.until(lambda: run.games(run.far("actor")) > 0, "another plays in its place")
        acknowledged, counters = run.acknowledged(), run.stats["machines"]
    finally:
        run.stop()
    delivered = sum(f"actor-{index}" == actor for index, _, _ in games_on_disk(run.folder))
    told = {"before": before, "finished": seen["games"], "delivered": delivered, "counters": counters}
    return what_is_left(run, acknowledged) | told | {"drained": seen["draining"]}


if __name__ == "__main__":
    os.environ.update(HEALTH)
    with serving(Service("aws")) as service:
        os.environ["TAMEN_METADATA_URL"] = service.url
        sys.stdout.write(json.dumps(play(Path(sys.argv[1]), service)) + "\n")
