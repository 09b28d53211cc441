"""What would go wrong with a file for `ray up`, found before a machine is there."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.doctor.launch_file import examine_launch_file
from cluster.doctor.machine import Finding
from tests.cluster.commands import run_here

ROOT = Path(__file__).resolve().parents[3]
FILLED_IN = {
    "ami-EDIT": "ami-1",
    "project-EDIT": "p",
    "subscription-EDIT": "s",
    ".EDIT": "",
    "user-EDIT": "u",
}


@pytest.fixture(autouse=True)
def at_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who has a token and stands in the checkout's folder."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a token")
    (tmp_path / ".ray" / "auth_token").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)


def text_of(name: str) -> str:
    text = (ROOT / "cluster" / "ray_up" / f"{name}.yaml").read_text()
    for left_open, filled_in in FILLED_IN.items():
        text = text.replace(left_open, filled_in)
    return text


def found(folder: Path, text: str) -> dict[str, Finding]:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return {finding.subject: finding for finding in examine_launch_file(path)}


def bad(findings: dict[str, Finding]) -> dict[str, str]:
    assert all((finding.verdict == "ok") == (finding.fix == "") for finding in findings.values())
    return {subject: finding.said for subject, finding in findings.items() if finding.verdict != "ok"}


@pytest.mark.parametrize("name", ["aws-spot", "gcp-spot", "azure-spot", "on-prem"])
def test_our_own_files_are_fine_once_they_are_filled_in(name: str, tmp_path: Path) -> None:
    assert bad(found(tmp_path, text_of(name))) == {}
    left_open = found(tmp_path, (ROOT / "cluster" / "ray_up" / f"{name}.yaml").read_text())
    assert list(bad(left_open)) == ["left open"]


def test_without_a_limit_ray_has_its_own(tmp_path: Path) -> None:
    text = (
        text_of("aws-spot").replace("max_workers: 40 #", "#").replace("min_workers: 4 #", "min_workers: 1 #")
    )

    assert bad(found(tmp_path, text)) == {"limit": "none: Ray takes 2"}


@pytest.mark.parametrize(
    ("of", "by", "subject", "said"),
    [
        (
            "idle_timeout_minutes",
            "idle_timeout_minute",
            "file",
            "idle_timeout_minute: did you mean idle_timeout_minutes",
        ),
        ("    max_workers: 40\n", "    max_worker: 40\n", "file", "did you mean max_workers"),
        (
            "    min_workers: 4 #",
            "    min_workers: 41 #",
            "file",
            "spot: min_workers, 41, is more than max_workers, 40",
        ),
        ("provider:\n", "provider:\n  # AKIAABCDEFGHIJKLMNOP\n", "secrets", "line 11"),
        (
            "ssh_user: ubuntu",
            "ssh_user: ubuntu\n  ssh_public_key: '-----BEGIN PRIVATE KEY-----'",
            "secrets",
            "looks like",
        ),
        ("    max_workers: 40\n", "    max_workers: many\n", "file", "'many' is not of type 'integer'"),
        ("head_node_type: head", "head_node_type: haed", "file", "head_node_type"),
        ("provider:", "povider:", "file", "no section `provider`"),
        ("RAY_AUTH_MODE=token ", "", "authentication", "without the token"),
        ("=127.0.0.1", "=0.0.0.0", "authentication", "listens to everybody"),
        (
            "ray start --address",
            "ray strat --address",
            "start",
            "worker_start_ray_commands has no `ray start`",
        ),
        (
            "ray start --head",
            "ray start --haed",
            "start",
            "head_start_ray_commands: `ray start` has no --haed",
        ),
        ("$RAY_HEAD_IP:6379", "$RAY_HEAD_PI:6379", "start", "workers look for the head at $RAY_HEAD_PI:6379"),
        ("--port=6379", "--port 6380", "start", "at $RAY_HEAD_IP:6379, and it listens on port 6380"),
        ("  ~/.ray/auth_token: ~/.ray/auth_token\n", "", "token", "is not copied"),
        ("~/tamen: .", "~/tamen: tests", "copied", "is no checkout"),
        ("~/tamen: .", "~/tamen: ./nowhere", "copied", "nowhere is not here"),
        (
            "setup_node.sh cpu",
            "setup_nod.sh cpu",
            "set up",
            "~/tamen/cluster/ray_up/setup_nod.sh is called, and",
        ),
        ("head_setup_commands: []", "head_setup_commands: [pip install boto3]", "versions", "boto3"),
        ("setup_commands:\n  - ~/tamen/cluster/ray_up/setup_node.sh cpu\n", "", "versions", "ray-wheels"),
        (
            "head_setup_commands: []",
            "head_setup_commands: [pip install a==1 && pip install b; pip3 install c==1]",
            "versions",
            "any version is taken of b",
        ),
        ("    labels: {ray.io/market-type: spot}\n", "", "spot", "without a label"),
        (
            "      InstanceMarketOptions:",
            "      InstanceMarketOption:",
            "file",
            "spot.node_config: AWS knows no InstanceMarketOption; did you mean InstanceMarketOptions",
        ),
        (
            "Ebs: {VolumeSize: 50,",
            "Ebs: {Volumesize: 50,",
            "file",
            "spot.node_config.BlockDeviceMappings[0].Ebs: AWS knows no Volumesize; did you mean VolumeSize",
        ),
        (
            "        MarketType: spot",
            "        MarketType: interruptible-capacity-reservation",
            "spot",
            "is spot, and it asks for machines at the full",
        ),
        (
            "  region: us-west-2",
            "  regoin: us-west-2",
            "file",
            "provider has no region; is regoin what was meant?",
        ),
        (
            "      InstanceType: c6i",
            "      InstanceTyp: c6i",
            "file",
            "spot.node_config has no InstanceType; is InstanceTyp what was meant?",
        ),
        ("  type: aws", "  type: asw", "file", "provider.type: Ray knows no 'asw'; did you mean aws"),
        (
            "  region: us-west-2",
            "  region: eu-west-1",
            "file",
            "us-west-2a is no zone of the region eu-west-1",
        ),
        ("  type: aws", "  typ: aws", "file", "provider has no type; is typ what was meant?"),
        (
            "resources: {} # as",
            "resources: [] # as",
            "file",
            "head.resources: a list, where Ray takes names with",
        ),
        (
            "[.gitignore]",
            "{.gitignore: x}",
            "file",
            "rsync_filter: names with values, where Ray takes a list",
        ),
        ("    min_workers: 4 #", "    min_workers: -4 #", "file", "spot: min_workers, -4, is less than none"),
        ("    min_workers: 4 #", "     min_workers: 4 #", "file", "line 36: "),
        ("    min_workers: 4 #", "    max_workers: 4 #", "file", "line 37: max_workers stands twice"),
    ],
)
def test_what_is_wrong_is_said(of: str, by: str, subject: str, said: str, tmp_path: Path) -> None:
    text = text_of("aws-spot")
    assert of in text
    complaints = bad(found(tmp_path, text.replace(of, by)))
    assert list(complaints) == [subject]
    assert said in complaints[subject]


def test_an_image_that_a_command_did_not_tell_is_missed_before_a_machine_is_asked_for(tmp_path: Path) -> None:
    text = (ROOT / "cluster" / "ray_up" / "aws-spot.yaml").read_text().replace("ami-EDIT", "")
    (said,) = bad(found(tmp_path, text)).values()
    assert said.startswith("without a value: head.ImageId, spot.ImageId, ")


def test_an_image_that_is_named_by_its_digest_is_no_secret(tmp_path: Path) -> None:
    docker = "docker: {container_name: ray, image: 'a.io/ray@sha256:%s'}\nprovider:" % ("0a" * 32)
    assert "secrets" not in bad(found(tmp_path, text_of("aws-spot").replace("provider:", docker)))
    assert "secrets" in bad(
        found(tmp_path, text_of("aws-spot").replace("provider:", f"# {'0a' * 32}\nprovider:"))
    )


@pytest.mark.parametrize("name", ["aws-spot", "gcp-spot", "azure-spot"])
def test_a_head_that_may_be_taken_away_is_bad(name: str, tmp_path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(text_of(name))
    kinds = config["available_node_types"]
    kinds["head"]["node_config"] = kinds["spot"]["node_config"]
    assert bad(found(tmp_path, yaml.safe_dump(config))) == {"head": "may be taken away, and the run with it"}


def test_a_token_that_is_missing_or_open_is_bad(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.chmod(0o640)
    assert bad(found(tmp_path, text_of("on-prem"))) == {"token": f"{token} has mode 640"}
    token.unlink()
    assert bad(found(tmp_path, text_of("on-prem"))) == {"token": f"{token} is not there"}


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "\x00", "cluster_name: x\nprovider: {type: moon}\n"])
def test_what_is_no_such_file_is_one_finding(text: str, tmp_path: Path) -> None:
    assert list(bad(found(tmp_path, text))) == ["file"]
    assert [finding.subject for finding in examine_launch_file(tmp_path / "nowhere")] == ["file"]


def test_the_command_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text_of("gcp-spot"))
    said = run_here(capsys, "doctor", "--launch", path)
    assert said.code == 0
    assert said.out.splitlines()[-1] == f"next: ray up --yes {path}"

    path.write_text((ROOT / "cluster" / "ray_up" / "gcp-spot.yaml").read_text())
    said = run_here(capsys, "doctor", "--launch", path, "--json")
    assert said.code == 3
    assert [item["subject"] for item in json.loads(said.out) if item["verdict"] == "bad"] == ["left open"]
