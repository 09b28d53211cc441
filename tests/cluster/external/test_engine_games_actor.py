"""Games of engines under Ray: whoever is killed, every game is finished once."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.cli.stopping import StopRequest
from cluster.external import games_actor as engine_games_actor
from cluster.external import games_checks as engine_games_checks
from cluster.external.engines import bring_up, engines_folder, show_engines, take_down
from cluster.external.engines_actor import NAMESPACE
from cluster.external.games import play_games, watch
from cluster.external.games_actor import PLAYER, RayPlayers, ray_players
from core.errors import ClusterError, TamenError, UsageError
from engines.watched_games import counted_games
from tests.cluster.external.test_engine_games import cards, numbers, order, until_played
from tests.engines.supervising import fakes, nothing_left

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("local_ray")]


def test_games_are_played_on_each_machine_and_nothing_is_left(tmp_path: Path) -> None:
    given = order(tmp_path, cards(count=2), 100, mode="observe")
    result = play_games(given, engine="ray", quiet=True)
    assert (result["finished"], result["retried"], result["duplicates"]) == (100, {}, 0)
    assert numbers(tmp_path / "out") == list(range(100))
    assert sorted(number for number, _ in counted_games(tmp_path / "out")) == list(range(100))
    assert nothing_left(engines_folder(tmp_path / "runs", "cards"))


def test_engines_that_are_up_without_ray_are_used_and_stay_up(tmp_path: Path) -> None:
    given = order(tmp_path, fakes(base_port=34_100), 50)
    before = bring_up(given.config, given.runs, quiet=True)
    try:
        assert play_games(given, engine="ray", quiet=True)["finished"] == 50
        (after,) = show_engines(given.runs, None, quiet=True)
        assert after["supervised"]
        assert after["daemons"][0]["pid"] == before["daemons"][0]["pid"]
        other = order(tmp_path, fakes("--mood", "well", base_port=34_100), 60)
        with pytest.raises(UsageError, match="other engines are up"):
            play_games(other, engine="ray", quiet=True)
    finally:
        take_down(given.runs, None, quiet=True)
    assert nothing_left(engines_folder(given.runs, "engines"))


def test_games_on_engines_of_other_games_end_when_those_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_games_checks, "GONE_SECONDS", 1.0)
    given = order(tmp_path, fakes(base_port=34_200), 1_000_000)
    guest = replace(given, folder=tmp_path / "guest")
    with ExitStack() as first:
        until_played(first.enter_context(ray_players(given, None)), 20)
        with ray_players(guest, None) as players:
            until_played(players, 20)
            looks = itertools.count()

            def end_first() -> None:
                if next(looks) == 10:  # by then their engines have been seen
                    first.close()

            with pytest.raises(ClusterError, match="are gone") as caught:
                watch(players, guest, StopRequest(), None, meanwhile=end_first)
            assert "with the games for which they were brought up" in caught.value.why
    assert nothing_left(engines_folder(given.runs, "engines"))


def test_killed_players_and_a_killed_book_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    given = order(tmp_path, cards("--wait-ms", "20", name="killed"), 1500)

    def killed(pid: Callable[[], int]) -> Callable[[], None]:
        def kill() -> None:
            os.kill(pid(), signal.SIGKILL)

        return kill

    with ray_players(given, None) as players:
        due = [
            (100, killed(lambda: players.parts()[0]["pid"])),
            (400, killed(lambda: players.book()["pid"])),
            (700, killed(lambda: players.parts()[0]["pid"])),
        ]

        def kill_when_due() -> None:
            if due and players.book()["finished"] >= due[0][0]:
                due.pop(0)[1]()

        result = watch(players, given, StopRequest(), None, meanwhile=kill_when_due)
    assert not due
    assert (result["finished"], result["set_aside"]) == (1500, 0)
    assert set(result["retried"]) <= {"died"}
    assert numbers(tmp_path / "out") == list(range(1500))
    assert nothing_left(engines_folder(tmp_path / "runs", "killed"))


def test_a_folder_whose_games_are_played_or_are_others_is_refused(tmp_path: Path) -> None:
    given = order(tmp_path, cards(name="refused"), 1)
    with ray_players(given, None), pytest.raises(UsageError, match="are being played"):
        RayPlayers(given)
    with pytest.raises(UsageError, match="has other games"):
        RayPlayers(order(tmp_path, cards(name="refused"), 1, seed=1))


def test_when_the_only_player_is_gone_for_good_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_games_actor, "GONE_SECONDS", 1.0)
    given = order(tmp_path, cards("--wait-ms", "20", name="gone"), 5000)
    with ray_players(given, None) as players:
        known: Any = ray.util.list_named_actors(all_namespaces=True)
        name = next(each["name"] for each in known if each["name"].startswith(PLAYER))

        def end_player() -> None:
            if players.book()["finished"] >= 20:
                with suppress(ValueError):
                    ray.kill(ray.get_actor(name, namespace=NAMESPACE))

        with pytest.raises(ClusterError, match="games are left, and nobody plays them"):
            watch(players, given, StopRequest(), None, meanwhile=end_player)
        assert players.book()["out"] == 0


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Let `folder` be a disk of its own, of that size."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if (
        not sys.platform.startswith("linux")
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("needs Linux with leave to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("mode", ["result", "observe"])
def test_a_full_disk_ends_the_run_with_its_name_and_without_restarts(tmp_path: Path, mode: Any) -> None:
    given = order(tmp_path, fakes(base_port=34_000), 1_000_000, mode=mode)
    if mode == "observe":
        (tmp_path / "out").mkdir()
        full = tmp_path / "out" / "decisions"
    else:
        full = tmp_path / "out"
    lives: set[int] = set()
    with small_disk(full, 64), ray_players(given, None) as players:

        def note_lives() -> None:
            lives.add(players.book()["pid"])
            lives.update(part["pid"] for part in players.parts() if "pid" in part)

        with pytest.raises(TamenError, match=f"{full}.* could not be read or written") as caught:
            watch(players, given, StopRequest(), None, meanwhile=note_lives)
    assert "No space left on device" in caught.value.why
    assert len(lives) <= 2
