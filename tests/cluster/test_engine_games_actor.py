"""Games of engines under Ray: whoever is killed, every game is finished once."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import engine_games_actor
from cluster.engine_games import play_games, watch
from cluster.engine_games_actor import PLAYER, RayPlayers, ray_players
from cluster.engines import engines_folder
from cluster.engines_actor import NAMESPACE
from cluster.stopping import StopRequest
from core.errors import ClusterError, UsageError
from engines.watched_games import counted_games
from tests.cluster.test_engine_games import cards, numbers, order
from tests.engines.supervising import nothing_left

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("local_ray")]


def test_games_are_played_on_each_machine_and_nothing_is_left(tmp_path: Path) -> None:
    given = order(tmp_path, cards(count=2), 100, mode="observe")
    result = play_games(given, engine="ray", quiet=True)
    assert (result["finished"], result["retried"], result["duplicates"]) == (100, {}, 0)
    assert numbers(tmp_path / "out") == list(range(100))
    assert sorted(number for number, _ in counted_games(tmp_path / "out")) == list(range(100))
    assert nothing_left(engines_folder(tmp_path / "runs", "cards"))


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
