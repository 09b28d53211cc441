"""aws-spot.yaml against an AWS of this machine (moto): what is asked for, and that nothing is left.

No machine comes of it, and nobody calls the addresses that are made up: ssh gets `false` for a way there.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")
REGION = "us-west-2"
PATIENCE_SECONDS = 120.0
MARKET = "ray.io/market-type"


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """EC2 as its client sees it, with an account of its own; the home holds a token, the folder a small checkout."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    request = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(request, timeout=30).close()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "a secret",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(tmp_path),
        # Ray keeps what it has found out about an account by the file's content, for whoever asks next.
        "TMPDIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a token")
    (tmp_path / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    yield boto3.client("ec2", REGION)
    server.stop()


@pytest.fixture
def config(aws: Any) -> dict[str, Any]:
    """aws-spot.yaml with an image that this AWS has."""
    image = aws.describe_images()["Images"][0]["ImageId"]
    text = (ROOT / "cluster" / "ray_up" / "aws-spot.yaml").read_text()
    config = yaml.safe_load(text.replace("ami-EDIT", image))
    config["auth"]["ssh_proxy_command"] = "false"
    Path("aws.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return config


def instances(aws: Any, kind: str, *states: str) -> list[dict[str, Any]]:
    """Return the instances that Ray has marked as head or worker."""
    filters = [
        {"Name": "tag:ray-node-type", "Values": [kind]},
        {
            "Name": "instance-state-name",
            "Values": list(states or ("pending", "running", "stopping", "stopped")),
        },
    ]
    answer = aws.describe_instances(Filters=filters)
    return [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]


def until(reached: Callable[[], object], what: str, output: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline, f"{what} did not come to pass: {output.read_text()}"
        time.sleep(0.5)


def test_ray_up_asks_for_a_head_on_demand_and_ray_down_ends_it(
    aws: Any, config: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file:
        up = subprocess.Popen(
            [RAY, "up", "--yes", "aws.yaml"], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        until(
            lambda: "SSH still not available" in output.read_text(), "a head that Ray wants to reach", output
        )
    finally:
        os.killpg(up.pid, signal.SIGKILL)
        up.wait(PATIENCE_SECONDS)

    (head,) = instances(aws, "head")
    assert head["InstanceType"] == "m6i.2xlarge"
    assert "InstanceLifecycle" not in head  # which only those have that may be taken away
    assert "ray-autoscaler-v1" in head["IamInstanceProfile"]["Arn"]
    (group,) = aws.describe_security_groups(GroupIds=[head["SecurityGroups"][0]["GroupId"]])["SecurityGroups"]
    from_outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in from_outside] == [(22, 22)]
    assert instances(aws, "worker") == []  # the head asks for those
    (key,) = (tmp_path / ".ssh").glob("*.pem")
    assert key.stat().st_mode & 0o777 == 0o600

    down = subprocess.run(
        [RAY, "down", "--yes", "aws.yaml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert down.returncode == 0, down.stdout + down.stderr
    assert instances(aws, "head") == []
    assert len(instances(aws, "head", "terminated")) == 1


def test_rays_own_provider_gets_spot_machines_and_gives_them_back(aws: Any, config: dict[str, Any]) -> None:
    # As the head does it, with what `ray up` has made of the file.
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler._private.util import prepare_config
    from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

    full = _bootstrap_config(prepare_config(config), no_config_cache=True)
    provider = _get_node_provider(full["provider"], full["cluster_name"], use_cache=False)
    asked: list[dict[str, Any]] = []
    provider.ec2_fail_fast.meta.client.meta.events.register(
        "provide-client-params.ec2.RunInstances", lambda params, **_: asked.append(dict(params))
    )
    kind = full["available_node_types"]["spot"]
    assert kind["resources"]["CPU"] == 16
    assert kind["labels"] == {MARKET: "spot"}
    tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: "spot"}
    for missing in range(
        kind["min_workers"], 0, -1
    ):  # this AWS gives one at a time, as one that is short may
        provider.create_node_with_resources_and_labels(
            kind["node_config"], tags, missing, kind["resources"], kind["labels"]
        )

    assert [request["MaxCount"] for request in asked] == [4, 3, 2, 1]
    request = asked[0]
    assert request["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
    }
    assert request["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"]
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    machines = instances(aws, "worker")
    assert [machine["InstanceLifecycle"] for machine in machines] == ["spot"] * 4
    assert {machine["InstanceType"] for machine in machines} == {"c6i.4xlarge"}
    names = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: "worker"})
    assert sorted(names) == sorted(machine["InstanceId"] for machine in machines)

    provider.terminate_nodes(names)
    assert instances(aws, "worker") == []
    assert len(instances(aws, "worker", "terminated")) == 4
