"""Finished games as chunks: what the replay takes in is what was played."""

from dataclasses import replace

import numpy as np
import pytest

from actors.harvest import FinishedGame, GameHarvest
from core.metrics import NoMetrics
from games.catalog import make_game
from games.game import Game
from replay.buffer import LocalObjects, ReplayBuffer
from replay.experience import BoardExperience
from replay.records import Chunk
from tests.actors.playing import play_games
from tests.replay.experience import CONFIG


def a_harvest(game: Game) -> GameHarvest:
    return GameHarvest(game.board, run="test", game=game.name, actor=3, epoch=5, metrics=NoMetrics())


def chunk_of(game: Game, games: list[FinishedGame]) -> Chunk:
    harvest = a_harvest(game)
    for one in games:
        harvest.add(one)
    chunk = harvest.take_chunk()
    assert chunk is not None
    return chunk


@pytest.mark.parametrize("name", ["tic_tac_toe", "hex3-swap"])
def test_a_chunk_of_played_games_is_sound_and_survives_the_journey(name: str) -> None:
    game = make_game(name)
    games = play_games(name, 10, random_opening_plies=2)
    chunk = Chunk.decode(chunk_of(game, games).encode())

    assert chunk.check_valid() == []
    assert (chunk.run, chunk.game, chunk.actor, chunk.epoch) == ("test", name, 3, 5)
    assert [record.actions.tolist() for record in chunk.games] == [one.actions for one in games]
    assert [record.outcome for record in chunk.games] == [one.outcome for one in games]
    assert [record.opening_plies for record in chunk.games] == [one.opening_plies for one in games]


def test_the_outcome_of_a_row_is_that_of_its_player_to_move() -> None:
    games = play_games("hex3", 10)
    chunk = chunk_of(make_game("hex3"), games)
    rows = [(game, row) for game in games for row in game.rows]

    assert {game.outcome for game in games} == {1.0, -1.0}
    assert chunk.columns["outcome"].tolist() == [
        game.outcome * (1 if row.ply % 2 == 0 else -1) for game, row in rows
    ]


def test_every_row_points_at_its_game_and_ply() -> None:
    games = play_games("tic_tac_toe", 10, random_opening_plies=2)
    chunk = chunk_of(make_game("tic_tac_toe"), games)
    rows = [(seq, game, row) for seq, game in enumerate(games) for row in game.rows]

    columns = chunk.columns
    assert chunk.num_rows == len(rows) == sum(sum(game.recorded) for game in games)
    assert columns["seq"].tolist() == [seq for seq, _, _ in rows]
    assert columns["step"].tolist() == [row.ply for _, _, row in rows]
    assert columns["search_value"].tolist() == [np.float32(game.values[row.ply]) for _, game, row in rows]
    assert columns["weights_version"].tolist() == [game.versions[row.ply] for _, game, row in rows]
    for k, (_, _, row) in enumerate(rows):
        assert np.array_equal(columns["cells"][k], row.inputs["cells"])
        assert np.array_equal(columns["policy"][k], row.policy)


def test_games_are_numbered_in_the_order_in_which_they_leave() -> None:
    harvest = a_harvest(make_game("tic_tac_toe"))
    games = play_games("tic_tac_toe", 5)
    seqs = []
    for part in (games[:2], [], games[2:]):
        for one in part:
            harvest.add(one)
        chunk = harvest.take_chunk()
        seqs.append([record.seq for record in chunk.games] if chunk else None)

    assert seqs == [[0, 1], None, [2, 3, 4]]


def test_the_counters_tell_what_waits_and_what_was_played() -> None:
    harvest = a_harvest(make_game("tic_tac_toe"))
    games = play_games("tic_tac_toe", 4)
    for one in games:
        harvest.add(one)
    rows = sum(len(one.rows) for one in games)
    assert (harvest.games_waiting, harvest.rows_waiting) == (4, rows)
    harvest.take_chunk()

    assert (harvest.games_waiting, harvest.rows_waiting) == (0, 0)
    assert (harvest.games, harvest.plies) == (4, sum(len(one.actions) for one in games))


def test_games_without_a_row_are_kept_too(tmp_path) -> None:
    game = make_game("tic_tac_toe")
    bare = [replace(one, rows=[], recorded=[False] * len(one.actions)) for one in play_games(game.name, 3)]
    chunk = chunk_of(game, bare)
    assert chunk.num_rows == 0
    assert chunk.check_valid() == []

    buffer = ReplayBuffer(
        tmp_path, CONFIG, run="test", experience=BoardExperience(game), seed=0, objects=LocalObjects()
    )
    assert buffer.add(chunk.encode()).accepted == 3


def test_the_replay_takes_a_harvest_in_once(tmp_path) -> None:
    game = make_game("hex3-swap")
    data = chunk_of(game, play_games(game.name, 6)).encode()
    buffer = ReplayBuffer(
        tmp_path, CONFIG, run="test", experience=BoardExperience(game), seed=0, objects=LocalObjects()
    )

    assert buffer.add(data).accepted == 6
    assert buffer.add(data).duplicates == 6
    assert len((tmp_path / "games" / "00000000.trmph").read_text().splitlines()) == 7
