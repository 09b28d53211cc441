"""The files that `ray up` and KubeRay read: what Ray itself makes of them, and what they must never say."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster" / "ray_up"
CLOUDS = ("aws-spot", "gcp-spot", "azure-spot")
MACHINES = (*CLOUDS, "on-prem")
SETUP = FOLDER / "setup_node.sh"
MARKET = "ray.io/market-type"


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def prepared(name: str) -> dict[str, Any]:
    """What Ray makes of the file before it asks a cloud for anything."""
    return prepare_config(load(name))


def commands(config: dict[str, Any]) -> list[str]:
    """Every command that runs on some machine."""
    found = [command for key in config if key.endswith("_commands") for command in config[key]]
    for kind in config.get("available_node_types", {}).values():
        found += [command for key in kind if key.endswith("_commands") for command in kind[key]]
    return found


def starts(config: dict[str, Any]) -> dict[str, str]:
    (head,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in config["worker_start_ray_commands"] if "ray start" in line]
    return {"head": head, "worker": worker}


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", MACHINES)
def test_ray_finds_nothing_wrong_with_it(name: str) -> None:
    validate_config(prepared(name))


@pytest.mark.parametrize("name", MACHINES)
def test_ray_would_find_a_typo(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute'"):
        validate_config(prepared(name) | {"idle_timeout_minute": 5})


@pytest.mark.parametrize("name", CLOUDS)
def test_the_head_stays_and_machines_beside_it_are_spot(name: str) -> None:
    kinds = prepared(name)["available_node_types"]
    assert {kind: value["labels"][MARKET] for kind, value in kinds.items()} == {
        "head": "on-demand",
        "spot": "spot",
        "gpu": "on-demand",
    }
    asks_for_spot = {
        "aws-spot": lambda node: node.get("InstanceMarketOptions", {}).get("MarketType") == "spot",
        "gcp-spot": lambda node: node.get("scheduling", {}).get("provisioningModel") == "SPOT",
        "azure-spot": lambda node: node["azure_arm_parameters"].get("priority") == "Spot",
    }[name]
    assert [kind for kind, value in kinds.items() if asks_for_spot(value["node_config"])] == ["spot"]


def test_machines_of_ones_own_say_what_they_are_when_ray_starts() -> None:
    # Ray refuses labels of machines in such a file.
    lines = starts(load("on-prem"))
    assert "RAY_NODE_MARKET_TYPE=on-demand" in lines["head"]
    assert "RAY_NODE_MARKET_TYPE=spot" in lines["worker"]


@pytest.mark.parametrize("name", CLOUDS)
def test_nobody_pays_for_more_than_was_said(name: str) -> None:
    config = prepared(name)
    kinds = config["available_node_types"]
    assert {kind: (value["min_workers"], value["max_workers"]) for kind, value in kinds.items()} == {
        "head": (0, 0),
        "spot": (4, 40),
        "gpu": (0, 0),
    }
    assert config["max_workers"] == 40
    # Stopped machines keep their disks, and those are paid for.
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("name", CLOUDS)
def test_disks_have_a_size(name: str) -> None:
    def size(node: dict[str, Any]) -> int:
        if name == "aws-spot":
            return node["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"]
        if name == "gcp-spot":
            return node["disks"][0]["initializeParams"]["diskSizeGb"]
        return node["azure_arm_parameters"]["osDiskSize"]

    kinds = load(name)["available_node_types"]
    assert {kind: size(value["node_config"]) for kind, value in kinds.items()} == {
        "head": 200,
        "spot": 50,
        "gpu": 200,
    }


@pytest.mark.parametrize("name", MACHINES)
def test_ray_starts_with_a_token_and_shows_its_dashboard_to_the_head_alone(name: str) -> None:
    config = prepared(name)
    for line in starts(config).values():
        assert "RAY_AUTH_MODE=token" in line.split("ray start")[0]
    assert "--dashboard-host=127.0.0.1" in starts(config)["head"]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in starts(config)["head"]
    assert "--address=$RAY_HEAD_IP:6379" in starts(config)["worker"]
    assert "0.0.0.0" not in (FOLDER / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", MACHINES)
def test_the_checkout_and_the_token_lie_at_the_same_place_everywhere(name: str) -> None:
    config = prepared(name)
    assert config["file_mounts"] == {"~/tamen": ".", "~/.ray/auth_token": "~/.ray/auth_token"}
    assert config["rsync_filter"] == [".gitignore"]
    assert {".venv/", "runs/"} <= set((ROOT / ".gitignore").read_text().split())
    for key in ("head_setup_commands", "worker_setup_commands"):
        assert config[key][0] == "~/tamen/cluster/ray_up/setup_node.sh cpu"


@pytest.mark.parametrize("name", MACHINES)
def test_nothing_of_rays_defaults_is_installed(name: str, pinned: dict[str, str]) -> None:
    # Those install a build of the night before.
    everything = "\n".join(commands(prepared(name)))
    assert "ray-wheels" not in everything
    assert "conda" not in everything
    for line in re.findall(r"pip install (.*)", everything):
        packages = [word for word in line.split() if not word.startswith("-")]
        assert [word for word in packages if "==" not in word] == []
        assert {word.split("==")[0] for word in packages}.isdisjoint(pinned)


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_it_holds_no_secret(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"AKIA[0-9A-Z]{16}|-----BEGIN|RAY_AUTH_TOKEN=|[0-9a-fA-F]{32,}|password", text) == []


@pytest.mark.parametrize("name", [*MACHINES, "kuberay"])
def test_what_a_person_has_to_fill_in_is_marked(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    left_open = [line for line in lines if "EDIT" in line.split("#")[0]]
    assert left_open
    assert [line for line in left_open if "# EDIT" not in line] == []


def programs(folder: Path, *, tmux: bool, known: bool = True) -> str:
    """Make a PATH of little but make and Python 3.11; its apt-get notes what it is asked for, into `folder`/asked.

    Args:
        known: whether apt has a Python 3.11.
    """
    folder.mkdir()
    tools = (
        "bash",
        "cat",
        "chmod",
        "dirname",
        "env",
        "grep",
        "id",
        "make",
        "mv",
        "sed",
        "sh",
        "touch",
        "timeout",
    )
    for name in tools:
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, line in {
        "python3.11": "exit 0",
        "sudo": 'shift; exec "$@"',
        "add-apt-repository": "exit 0",
        "apt-get": f'echo "$@" >> {folder / "asked"}',
        "apt-cache": f"exit {int(not known)}",
        **({"tmux": "exit 0"} if tmux else {}),
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def run_setup(checkout: Path, home: Path, *arguments: str, path: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [checkout / "cluster" / "ray_up" / "setup_node.sh", *arguments],
        env={"HOME": str(home), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose `make setup` only notes how it was called."""
    folder = tmp_path / "tamen"
    (folder / "cluster" / "ray_up").mkdir(parents=True)
    (folder / "Makefile").write_text("setup:\n\t@echo $(PYTHON) $$PIP_EXTRA_INDEX_URL >> made\n")
    script = folder / "cluster" / "ray_up" / SETUP.name
    script.write_bytes(SETUP.read_bytes())
    script.chmod(0o755)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a token that others could read."""
    folder = tmp_path / "home"
    (folder / ".ray").mkdir(parents=True)
    (folder / ".ray" / "auth_token").write_text("a token")
    (folder / ".ray" / "auth_token").chmod(0o644)
    (folder / ".bashrc").write_text('[ -z "$PS1" ] && return\n')
    return folder


def test_setup_is_done_by_make_and_can_be_done_again(checkout: Path, home: Path, tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", tmux=True)
    for build in ("cpu", "cuda"):
        done = run_setup(checkout, home, build, path=path)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "bin" / "asked").exists()
    assert (checkout / "made").read_text().splitlines() == [
        "python3.11 https://download.pytorch.org/whl/cpu",
        "python3.11",
    ]
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    # Before the line at which shells that nobody types into turn back, and once.
    first, *others = (home / ".bashrc").read_text().splitlines()
    assert f"PATH={checkout}/.venv/bin:$PATH RAY_AUTH_MODE=token" in first
    assert len(others) == 1


@pytest.mark.parametrize(
    ("arguments", "said"), [(("tpu",), "no build 'tpu'"), (("cpu",), "this machine has no token")]
)
def test_setup_says_in_three_lines_what_is_missing(
    checkout: Path, home: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (home / ".ray" / "auth_token").write_text("")
    result = run_setup(checkout, home, *arguments, path=programs(tmp_path / "bin", tmux=True))
    assert result.returncode == 1
    assert [line.split(":")[0].strip() for line in result.stderr.splitlines()] == ["error", "why", "do"]
    assert said in result.stderr
    assert not (checkout / "made").exists()


def test_a_machine_without_tmux_gets_it_for_runs_are_started_in_it(
    checkout: Path, home: Path, tmp_path: Path
) -> None:
    done = run_setup(checkout, home, path=programs(tmp_path / "bin", tmux=False))
    assert done.returncode == 0, done.stderr
    installed = (tmp_path / "bin" / "asked").read_text().splitlines()[-1]
    assert " tmux " in installed
    assert (checkout / "made").exists()


def test_a_release_without_python_3_11_is_told_in_three_lines(
    checkout: Path, home: Path, tmp_path: Path
) -> None:
    done = run_setup(checkout, home, path=programs(tmp_path / "bin", tmux=False, known=False))
    assert done.returncode == 1
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "why", "do"]
    assert "Debian 12" in done.stderr
    assert not (checkout / "made").exists()
