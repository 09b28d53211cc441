"""`tamen engines play` on this machine, with the reference daemon: what is told, resumed, and left behind."""

import errno
import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.cli.stopping import StopRequest
from cluster.external import games_checks as engine_games_checks
from cluster.external.engines import bring_up, engines_folder, take_down
from cluster.external.games import Order, Players, local_engines, play_games, players_of, watch
from cluster.verbs.engines import engines
from configs.engines import EngineConfig, EnginesConfig, GamesConfig, JavaConfig, UpkeepConfig
from configs.loading import dump
from core.errors import ClusterError, UsageError
from engines.book import GameBook, Plan
from engines.journal import read_journal
from engines.reference.compile import compiled
from engines.supervised import read_state
from engines.supervisor import Supervisor
from engines.watched_games import counted_games
from tests.engines.supervising import PATIENCE_SECONDS, fakes, nothing_left

DECKS = ("aggro", "control")


def cards(
    *flags: str, count: int = 1, name: str = "cards", games: GamesConfig | None = None
) -> EnginesConfig:
    """Return reference daemons."""
    return EnginesConfig(
        engine=EngineConfig(
            name=name,
            jar=str(compiled()),
            arguments=("daemon", "-p", "{port}", *flags),
            count=count,
            base_port=25_500,
        ),
        java=JavaConfig(preset="none"),
        games=games or GamesConfig(game_seconds=5, slack_seconds=5.0),
    )


def order(folder: Path, config: EnginesConfig, games: int, **plan: Any) -> Order:
    return Order(
        config=config,
        plan=Plan(games=games, decks=plan.pop("decks", DECKS), **plan),
        folder=folder / "out",
        runs=folder / "runs",
    )


def until_played(players: Players, games: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while players.book()["finished"] < games:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def numbers(folder: Path) -> list[int]:
    return sorted(line["game"] for line in read_journal(folder / "games.jsonl") if "ending" in line)


@pytest.mark.system
def test_games_are_played_and_more_of_them_later_and_nothing_is_left(tmp_path: Path) -> None:
    config = cards(count=2)
    first = play_games(order(tmp_path, config, 40), engine="local", quiet=True)
    assert (first["finished"], first["waiting"], first["set_aside"], first["stopped"]) == (40, 0, 0, False)
    assert first["games_per_s"] > 0
    assert 0 < first["p50_s"] <= first["p95_s"] <= first["p99_s"]
    assert numbers(tmp_path / "out") == list(range(40))
    second = play_games(order(tmp_path, config, 60), engine="local", quiet=True)
    assert second["finished"] == 60
    assert numbers(tmp_path / "out") == list(range(60))
    assert nothing_left(engines_folder(tmp_path / "runs", "cards"))


@pytest.mark.system
def test_what_is_stopped_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = order(tmp_path, cards("--wait-ms", "20"), 400, mode="observe")
    stop = StopRequest()

    def stop_soon() -> None:
        stop.requested = stop.requested or players.book()["finished"] >= 10

    with players_of(given, "local", None) as players:
        result = watch(players, given, stop, None, meanwhile=stop_soon)
    assert result["stopped"]
    assert 10 <= result["finished"] < 400
    assert (result["out"], result["retried"]) == (0, {})
    done = play_games(given, engine="local", quiet=False, plain=True)
    assert done["finished"] == 400
    games = dict(counted_games(tmp_path / "out"))
    assert sorted(games) == list(range(400))
    assert all(outcome.decisions for outcome in games.values())
    said = capsys.readouterr().out
    assert "400 of 400 games are finished" in said
    assert f"next: tamen engines imitate {tmp_path / 'out'} --name cards" in said


@pytest.mark.system
def test_engines_that_are_up_are_used_and_stay_up(tmp_path: Path) -> None:
    config, runs = cards(), tmp_path / "runs"
    bring_up(config, runs, quiet=True)
    try:
        before = read_state(engines_folder(runs, "cards"))
        assert play_games(order(tmp_path, config, 20), engine="local", quiet=True)["finished"] == 20
        after = read_state(engines_folder(runs, "cards"))
        assert before is not None
        assert after is not None
        assert after.daemons[0].process == before.daemons[0].process
        other = cards("--wait-ms", "1")
        with pytest.raises(UsageError, match="other engines are up"), local_engines(other, runs):
            pass
    finally:
        take_down(runs, "cards", quiet=True)


@pytest.mark.system
@pytest.mark.parametrize("games", [2, 10_000])
def test_a_deck_that_there_is_not_ends_the_run_with_what_the_daemon_says(tmp_path: Path, games: int) -> None:
    with pytest.raises(ClusterError, match="none of these games can be played") as caught:
        play_games(order(tmp_path, cards(), games, decks=("no.dck", "aggro")), engine="local", quiet=True)
    assert "Could not load deck" in caught.value.why
    assert "path of a .dck file" in caught.value.why


@pytest.mark.system
def test_a_folder_that_another_program_goes_on_with_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play_games(order(tmp_path, cards(), 5), engine="local", quiet=True)
    other = order(tmp_path, cards("--wait-ms", "1"), 10, mode="result")
    assert play_games(other, engine="local", quiet=False, plain=True)["finished"] == 10
    said = capsys.readouterr()
    assert "are played alike: after 5 games: program" in said.err
    assert "not all of them were played alike: after 5 games" in said.out
    assert "next:" not in said.out


def test_engines_that_are_taken_down_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_games_checks, "GONE_SECONDS", 0.5)
    given = order(tmp_path, fakes(base_port=26_000), 1_000_000)
    bring_up(given.config, given.runs, quiet=True)

    def take_down_soon() -> None:
        if players.book()["finished"] >= 20:
            take_down(given.runs, None, quiet=True)

    with players_of(given, "local", None) as players, pytest.raises(ClusterError, match="are gone"):
        watch(players, given, StopRequest(), None, meanwhile=take_down_soon)
    assert nothing_left(engines_folder(given.runs, "engines"))


def test_a_program_that_answers_its_status_and_nothing_else_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_games_checks, "STANDSTILL_SECONDS", 1.0)
    with pytest.raises(ClusterError, match="can be played with") as caught:
        play_games(order(tmp_path, fakes("--greets", base_port=26_100), 10), engine="local", quiet=True)
    assert "'220 hello'" in caught.value.why


def test_a_disk_that_takes_nothing_ends_the_run_with_the_name_of_the_file(tmp_path: Path) -> None:
    given = order(tmp_path, fakes(base_port=26_200), 1_000_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with players_of(given, "local", None) as players:
        until_played(players, 20)
        # As a full disk does, it lets what is written end before its end.
        size = (tmp_path / "out" / "games.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, before[1]))
        try:
            with pytest.raises(OSError, match=r"out/games\.jsonl"):
                watch(players, given, StopRequest(), None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with GameBook(tmp_path / "out", given.plan) as book:
        assert book.stats()["finished"] == len(numbers(tmp_path / "out")) >= 20


def test_engines_of_which_none_stays_up_end_the_run(tmp_path: Path) -> None:
    config = EnginesConfig(
        engine=EngineConfig(
            name="broken", command=("sh", "-c", "echo no cards >&2; exit 3", "{port}"), count=1
        ),
        upkeep=UpkeepConfig(first_delay_seconds=0.01, max_delay_seconds=0.01, max_failures=1),
    )
    with pytest.raises(ClusterError, match="stays up") as caught:
        play_games(order(tmp_path, config, 10), engine="local", quiet=True)
    assert "no cards" in caught.value.why


@pytest.mark.system
def test_what_ends_the_supervision_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(supervisor: Supervisor) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(Supervisor, "step", broken)
    with pytest.raises(OSError, match="too many open files"):
        play_games(order(tmp_path, cards(), 10), engine="local", quiet=True)
    assert nothing_left(engines_folder(tmp_path / "runs", "cards"))


@pytest.mark.system
def test_the_verb_prints_counts_and_fails_when_games_were_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text(dump(cards("--fault", "close", "--every", "5", games=GamesConfig(tries=1, batch=1))))
    command = ["play", str(file), "--games", "40", "--decks", "aggro,control", "--out", str(tmp_path / "out")]
    command += ["--engine", "local", "--runs", str(tmp_path / "runs"), "--json"]
    done = CliRunner().invoke(engines, command)
    result = json.loads(done.output.splitlines()[-1])
    assert result["finished"] + result["set_aside"] == 40
    assert result["set_aside_by"].keys() == {"closed"}
    assert done.exit_code == 1


@pytest.mark.system
def test_a_folder_with_other_games_is_refused(tmp_path: Path) -> None:
    play_games(order(tmp_path, cards(), 2), engine="local", quiet=True)
    with pytest.raises(UsageError, match="has other games"):
        play_games(order(tmp_path, cards(), 2, seed=1), engine="local", quiet=True)
