"""The image, and what Kubernetes is asked to run it in: checked against KubeRay's own schemas."""

import fnmatch
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.training.jobs import GRACE_SECONDS, short_grace
from configs.schema import MirrorConfig

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS: dict[str, Any] = json.loads(gzip.decompress((ROOT / "tests/data/kuberay_crds.json.gz").read_bytes()))


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    text = (ROOT / "cluster" / "ray_up" / "kuberay.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture
def pods(documents: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods' specifications, by group."""
    spec = documents["RayCluster"]["spec"]
    groups = {"head": spec["headGroupSpec"]} | {
        group["groupName"]: group for group in spec["workerGroupSpecs"]
    }
    return {name: group["template"]["spec"] for name, group in groups.items()}


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, rest in lines]


def unknown(value: Any, schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Keys that the operator would drop without a word, since its schema has no such field."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from unknown(item, schema.get("items", {}), f"{where}[{number}]")
    elif isinstance(value, dict) and "properties" in schema:
        for key, item in value.items():
            if key in schema["properties"]:
                yield from unknown(item, schema["properties"][key], f"{where}.{key}")
            elif where:  # apiVersion, kind and metadata belong to Kubernetes
                yield f"{where}.{key}"


def gibibytes(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(Gi|Mi)", text).groups()  # pyright: ignore
    return float(number) / (1 if unit == "Gi" else 1024)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_kuberay_knows_every_field(kind: str, documents: dict[str, dict[str, Any]]) -> None:
    jsonschema.validate(documents[kind], SCHEMAS[kind])
    assert list(unknown(documents[kind], SCHEMAS[kind])) == []


def test_a_wrong_field_would_be_found(documents: dict[str, dict[str, Any]]) -> None:
    cluster = documents["RayCluster"]
    cluster["spec"]["workerGroupSpecs"][0]["replica"] = 4
    cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    assert list(unknown(cluster, SCHEMAS["RayCluster"])) == [
        ".spec.headGroupSpec.template.spec.containers[0].volumeMount",
        ".spec.workerGroupSpecs[0].replica",
    ]
    cluster["spec"]["authOptions"]["mode"] = "tokens"
    with pytest.raises(jsonschema.ValidationError, match="tokens"):
        jsonschema.validate(cluster, SCHEMAS["RayCluster"])


def test_versions_are_those_of_the_lock(documents: dict[str, dict[str, Any]], pinned: dict[str, str]) -> None:
    assert documents["RayCluster"]["spec"]["rayVersion"] == pinned["ray"]
    (made_with,) = re.findall(r"\(Python ([0-9.]+)\)", (ROOT / "requirements.lock").read_text())
    assert instructions()[0] == ("FROM", f"python:{made_with}-slim-bookworm")


def test_nobody_gets_in_without_the_token_that_the_operator_made(
    documents: dict[str, dict[str, Any]],
) -> None:
    spec = documents["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "Secret" not in documents


def test_pods_have_labels_shared_memory_and_no_rights(pods: dict[str, dict[str, Any]]) -> None:
    (user,) = {re.findall(r"--uid ([0-9]+)", text)[0] for word, text in instructions() if "useradd" in text}
    for name, pod in pods.items():
        (container,) = pod["containers"]
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert variables["RAY_NODE_MARKET_TYPE"] == ("spot" if name == "spot" else "on-demand")
        assert container["resources"]["requests"] == container["resources"]["limits"]
        (shm,) = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
        assert shm["emptyDir"]["medium"] == "Memory"
        # Ray takes 30 % of the memory for objects, and goes to the disk where /dev/shm is smaller.
        memory = gibibytes(container["resources"]["limits"]["memory"])
        assert 0.3 * memory < gibibytes(shm["emptyDir"]["sizeLimit"]) < 0.5 * memory
        assert {"mountPath": "/dev/shm", "name": "shm"} in container["volumeMounts"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == int(user)
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert pod["terminationGracePeriodSeconds"] > 30  # for which Ray drains itself


def kept_by_kubernetes(cores: int, gib: float) -> tuple[float, float]:
    """Cores and GiB of a node that pods do not get on GKE, which keeps the most (its page "Plan node sizes").

    6 % of the first core, 1 % of the next, 0.5 % of two more and 0.25 % of the others; 25 % of the first 4 GiB, 20 % of
    the next 4, 10 % of the next 8, 6 % of the others, and 100 MiB from where pods are ended. The small pods that are on
    every node ask for some half a core and half a GiB.
    """
    of_cores = 0.06 + 0.01 + 2 * 0.005 + 0.0025 * (cores - 4)
    of_memory = 0.25 * 4 + 0.2 * 4 + 0.1 * 8 + 0.06 * (gib - 16) + 100 / 1024
    return of_cores + 0.5, of_memory + 0.5


def test_pods_fit_on_the_nodes_that_the_page_asks_for(pods: dict[str, dict[str, Any]]) -> None:
    page = " ".join((ROOT / "docs" / "cluster.md").read_text().split())
    asked = re.search(
        r"a node of ([0-9]+) cores and ([0-9]+) GiB for the head and spot nodes of ([0-9]+) cores and ([0-9]+) GiB,"
        r" of which pods ask for ([0-9]+) and ([0-9]+), and ([0-9]+) and ([0-9]+)",
        page,
    )
    assert asked is not None
    numbers = [int(number) for number in asked.groups()]
    for name, node, told in (("head", numbers[:2], numbers[4:6]), ("spot", numbers[2:4], numbers[6:])):
        requests = pods[name]["containers"][0]["resources"]["requests"]
        wanted = [float(requests["cpu"]), gibibytes(requests["memory"])]
        assert wanted == told
        kept = kept_by_kubernetes(*node)
        assert all(want <= has - keeps for want, has, keeps in zip(wanted, node, kept, strict=True)), name


def test_a_job_that_is_stopped_has_time_to_save(documents: dict[str, dict[str, Any]]) -> None:
    # KubeRay stops the job when a RayJob is deleted; Ray's own grace is 3 s.
    variables = yaml.safe_load(documents["RayJob"]["spec"]["runtimeEnvYAML"])["env_vars"]
    as_in_a_job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", **variables}
    assert all(isinstance(value, str) for value in variables.values())  # or Ray refuses them
    assert short_grace(as_in_a_job) is None
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) >= GRACE_SECONDS + MirrorConfig().finish_seconds


def test_the_job_runs_on_that_cluster(documents: dict[str, dict[str, Any]]) -> None:
    cluster, job = documents["RayCluster"], documents["RayJob"]
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    mounts = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert f"--runs {mounts[-1]['mountPath']} " in job["spec"]["entrypoint"]


def test_the_image_is_made_of_the_lock_and_runs_without_rights() -> None:
    steps = instructions()
    assert [text for word, text in steps if word == "USER"] == ["tamen"]
    assert all(word != "ADD" for word, _ in steps)
    after = [text for word, text in steps[[word for word, _ in steps].index("USER") :] if word == "RUN"]
    assert any("-r requirements.lock" in text for text in after)
    assert any("cluster.warm" in text for text in after)
    for text in (text for word, text in steps if word == "COPY"):
        for name in text.split()[1:-1]:
            assert (ROOT / name).exists()


def test_the_image_gets_nothing_that_git_ignores() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for pattern in (ROOT / ".gitignore").read_text().split():
        name = pattern.rstrip("/").replace("*", "x")
        assert any(fnmatch.fnmatch(name, rule.removeprefix("**/")) for rule in ignored), pattern
