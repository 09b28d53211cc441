"""What has to stand before ray, torch or numba are imported."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.environment import kernel_cache, prepare, prepare_ray, token_path

AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
KNOCKING = ("RAY_gcs_server_port_wait_time_s", "RAY_py_gcs_connect_timeout_s")


@pytest.fixture(autouse=True)
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin without any wish of the user about tokens; return where one would lie."""
    for name in [*AUTH, *KNOCKING]:
        # Set and deleted, so that what is set meanwhile is taken back too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    path = tmp_path / "secrets" / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_local_ray_always_has_a_token_that_only_its_owner_can_read(token: Path) -> None:
    before = os.umask(0)
    try:
        prepare_ray(None)
    finally:
        os.umask(before)

    assert token_path() == token
    assert mode(token) == 0o600
    assert len(token.read_text()) == 64
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_token_that_is_there_is_kept_and_closed_to_others(token: Path) -> None:
    token.parent.mkdir()
    token.write_text("mine")
    token.chmod(0o644)
    prepare_ray(None)

    assert token.read_text() == "mine"
    assert mode(token) == 0o600


def test_two_tokens_are_never_the_same(token: Path) -> None:
    prepare_ray(None)
    first = token.read_text()
    token.unlink()
    del os.environ["RAY_AUTH_MODE"]
    prepare_ray(None)

    assert token.read_text() != first


def test_what_the_user_says_about_tokens_counts(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    prepare_ray(None)

    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert not token.exists()


def test_a_token_in_the_environment_needs_no_file(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    prepare_ray(None)

    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert not token.exists()


def test_a_cluster_of_somebody_else_is_joined_without_a_token_unless_there_is_one(token: Path) -> None:
    prepare_ray("head:6379")
    assert "RAY_AUTH_MODE" not in os.environ
    assert not token.exists()

    token.parent.mkdir()
    token.write_text("theirs")
    prepare_ray("head:6379")
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_an_address_is_not_knocked_at_for_ever() -> None:
    prepare_ray(None)
    assert not any(name in os.environ for name in KNOCKING)
    prepare_ray("head:6379")
    times, seconds = (int(os.environ[name]) for name in KNOCKING)
    assert times * seconds <= 30


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    prepare()

    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["NUMBA_CACHE_DIR"] == "/somewhere"


def test_ray_does_not_print_errors_of_its_raylets_over_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_DEDUP_LOGS_SKIP_REGEX")
    told = """{"lines": ["a stack of C++"], "pid": "raylet", "is_err": False}"""
    shown = f"from ray._private.worker import print_to_stdstream as show; show({told}, ignore_prefix=False)"
    prepared = f"from cluster.environment import prepare; prepare(); {shown}"
    said = [subprocess.check_output([sys.executable, "-c", code], timeout=60) for code in (shown, prepared)]
    assert b"a stack" in said[0]
    assert said[1] == b""


def test_kernels_are_kept_apart_for_each_state_of_their_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.environment.CHECKOUT", tmp_path)
    (tmp_path / "games").mkdir()
    source = tmp_path / "games" / "hex.py"
    states = []
    for text in ("a", "b", "a"):
        source.write_text(f"@njit\n{text}")
        states.append(kernel_cache())

    assert states[0] == states[2] != states[1]
    assert all(tmp_path in state.parents for state in states)
    (tmp_path / "games" / "catalog.py").write_text("no kernel")
    assert kernel_cache() == states[2]
