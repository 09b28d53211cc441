"""Solvers on Ray ask one server for hands' values, which says what the network says, also after it was killed."""

from pathlib import Path

import numpy as np
import pytest

from cluster.hands.networks import Here, find_networks, served
from cluster.run.parts import MODEL, make_store
from cluster.run.run_folder import RunFolder
from configs.schema import NetworkConfig
from core.hands import HandValueSpec
from core.messages import Request, Steps
from inference_server.client import drive_all
from networks.build import new_net, to_weights
from poker.leaves import ask

ROWS = 5


def request_of(spec: HandValueSpec, seed: int) -> Request:
    rng = np.random.default_rng(seed)
    masses = rng.dirichlet(np.ones(spec.hands), (ROWS, 2))
    return ask(MODEL, rng.uniform(0.01, 0.9, ROWS), masses, rng.uniform(-1, 1, masses.shape))


def asking(request: Request) -> Steps[np.ndarray]:
    (reply,) = yield (request,)
    return reply.arrays["values"]


@pytest.mark.usefixtures("local_ray")
def test_a_server_answers_as_the_network_does_and_again_after_it_was_killed(tmp_path: Path) -> None:
    import ray

    spec = HandValueSpec("turn_end")
    net = new_net(spec, NetworkConfig(layers=(8,), precision="fp32"), seed=3)
    make_store(RunFolder(tmp_path / "net")).publish(to_weights(net, model=MODEL, version=7, game="holdem"))
    network = find_networks(["net"], tmp_path)["turn_end"]
    requests = [request_of(spec, seed) for seed in range(6)]
    wanted = list(drive_all(map(asking, requests), Here(network)(), together=1))
    said: list[str] = []
    with served(network, say=said.append) as servers:
        client = servers()
        first = list(drive_all(map(asking, requests[:3]), client, together=1))
        ray.kill(servers.handles[0], no_restart=False)
        second = list(drive_all(map(asking, requests[3:]), client, together=1))
    for found, own in zip([*first, *second], wanted, strict=True):
        assert found.dtype == np.float16
        assert np.allclose(found.astype(np.float64), own.astype(np.float64), rtol=2e-3, atol=2e-3)
