"""Programs of others as players: what they are told, and what becomes of a match in which they fail."""

import contextlib
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from actors.arena import MatchResult, Tally, match
from actors.engine_player import EnginePlayer, GtpSeat, gtp_player, uci_player
from actors.openings import random_openings
from actors.players import RESIGNED, Player, PlayerSpec, make_player, parse_player
from configs.schema import SearchConfig
from core.errors import EvaluationError, UsageError
from core.messages import without_asking
from engines.errors import EngineFault
from engines.gtp_moves import vertices_of
from games.catalog import make_game
from games.game import Game, States
from search.drive import run
from search.hash_evaluator import HashEvaluator

GO = "open_spiel:go(board_size=9,komi=7.5)"
CHESS = "open_spiel:chess"
TIC_TAC_TOE = make_game("tic_tac_toe")


def small_engine(log: Path, *behaviour: str) -> tuple[str, ...]:
    return (sys.executable, str(Path(__file__).with_name("small_gtp_engine.py")), str(log), *behaviour)


def choose(
    player: Player, *histories: Sequence[int], keys: Sequence[int] = (), game: Game = TIC_TAC_TOE
) -> list[int]:
    """Let a player choose after each of the histories."""
    states, roots = game.new_states(len(histories)), np.arange(len(histories), dtype=np.int32)
    game.new(states, roots)
    for root, history in zip(roots[:, None], histories, strict=True):
        for action in history:
            game.play(states, root, np.array([action], np.int16), root)
    keys_ = np.array(keys or [0] * len(histories), np.uint64)
    return without_asking(player.choose(game, states, roots, histories=histories, keys=keys_)).tolist()


def told(log: Path) -> list[str]:
    """What an engine was told since it was set up."""
    lines = log.read_text().splitlines()
    return lines[lines.index("clear_board") + 1 :]


def test_of_one_game_only_what_is_new_is_told(tmp_path: Path):
    log = tmp_path / "log"
    player = gtp_player("small", TIC_TAC_TOE, small_engine(log))
    assert choose(player, [4], keys=[7]) == [0]
    assert choose(player, [4, 0, 8], keys=[2**31 + 9]) == [1]
    assert told(log) == [
        *("play black b2", "set_random_seed 7", "genmove white"),
        *("play black c3", "set_random_seed 9", "genmove white"),
    ]


def test_another_game_is_told_from_its_start(tmp_path: Path):
    log = tmp_path / "log"
    player = gtp_player("small", TIC_TAC_TOE, small_engine(log))
    assert choose(player, [], [4, 1]) == [0, 0]
    assert choose(player, [4, 1, 0, 2], keys=[1]) == [3]
    assert told(log) == [
        *("set_random_seed 0", "genmove black"),
        *("clear_board", "play black b2", "play white b1", "set_random_seed 0", "genmove black"),
        *("play white c1", "set_random_seed 1", "genmove black"),
    ]


def test_after_a_resignation_another_game_is_told_from_its_start(tmp_path: Path):
    log = tmp_path / "log"
    player = gtp_player("small", TIC_TAC_TOE, small_engine(log, "resign"))
    assert choose(player, [4], [4, 0, 1], [4, 0, 1, 2, 3]) == [RESIGNED] * 3
    assert told(log) == [
        *("play black b2", "set_random_seed 0", "genmove white"),
        *(
            "clear_board",
            "play black b2",
            "play white a1",
            "play black b1",
            "set_random_seed 0",
            "genmove white",
        ),
        *("clear_board", "play black b2", "play white a1", "play black b1", "play white c1", "play black a2"),
        *("set_random_seed 0", "genmove white"),
    ]


def test_after_a_command_that_failed_a_game_is_told_from_its_start(tmp_path: Path):
    log = tmp_path / "log"
    states, root = TIC_TAC_TOE.new_states(1), np.zeros(1, np.int32)
    TIC_TAC_TOE.new(states, root)
    seat = GtpSeat(small_engine(log, "refuses-once"), engine="small", vertices=vertices_of(TIC_TAC_TOE))
    with contextlib.closing(seat):
        with pytest.raises(EngineFault, match="not now"):
            seat.move(TIC_TAC_TOE, states, 0, [], 0)
        assert seat.move(TIC_TAC_TOE, states, 0, [], 0) == 0
    assert told(log) == [
        *("set_random_seed 0", "genmove black"),
        *("clear_board", "set_random_seed 0", "genmove black"),
    ]


def test_a_program_without_such_a_board_is_told_when_it_starts(tmp_path: Path):
    player = gtp_player("small", TIC_TAC_TOE, small_engine(tmp_path / "log", "no-board"))
    with pytest.raises(EngineFault, match="small refused a command") as refused:
        player.start()
    assert "to 'boardsize 3' it said 'unacceptable size'" in refused.value.why
    assert "--game" in refused.value.fix


@pytest.mark.parametrize(
    ("answer", "why"),
    [("(none)", "no move to play after startpos"), ("e2e5", "'e2e5', which is not legal after startpos")],
)
def test_of_a_chess_program_that_does_not_move_the_position_is_told(answer: str, why: str):
    code = (
        "import sys\nfor line in sys.stdin:\n"
        " said = {'uci': 'uciok', 'isready': 'readyok', 'go': 'bestmove ' + sys.argv[1]}\n"
        " print(said.get(line.split()[0], ''), flush=True)"
    )
    rules = make_game(CHESS)
    player = uci_player("fish", rules, (sys.executable, "-c", code, answer), depth=1)
    with pytest.raises(EvaluationError, match="fish") as failed:
        choose(player, [], game=rules)
    assert why in failed.value.why


def test_a_program_that_dies_once_is_started_again(tmp_path: Path):
    player = gtp_player("small", TIC_TAC_TOE, small_engine(tmp_path / "log", "dies-once"))
    assert choose(player, [4]) == [0]
    assert player.faults == {"died": 1}


@pytest.mark.parametrize(
    ("behaviour", "kind", "why"),
    [
        ("dies", "died", "it was not to be"),
        ("taken", "protocol", "'b2', which is not legal after b2"),
    ],
)
def test_a_program_that_fails_twice_leaves_its_games(tmp_path: Path, behaviour: str, kind: str, why: str):
    player = gtp_player("small", TIC_TAC_TOE, small_engine(tmp_path / "log", behaviour))
    with pytest.raises(EvaluationError, match="small") as failed:
        choose(player, [4])
    assert why in failed.value.why
    assert player.faults == {kind: 2}


def test_who_resigns_has_lost(tmp_path: Path):
    player = gtp_player("small", TIC_TAC_TOE, small_engine(tmp_path / "log", "resign"))
    assert choose(player, [4]) == [RESIGNED]
    result = play(TIC_TAC_TOE, player, player_of("random", TIC_TAC_TOE), games=4)
    assert (result.tally(), len(result.set_aside)) == (Tally(0, 0, 4), 0)
    assert [len(game.actions) for game in result.games] == [2, 3, 2, 3]
    assert [game.line[-1] for game in result.games] == ["o", "x", "o", "x"]


def test_its_games_are_set_aside_with_the_reason(tmp_path: Path):
    player = gtp_player("small", TIC_TAC_TOE, small_engine(tmp_path / "log", "dies"))
    result = play(TIC_TAC_TOE, player, player_of("random", TIC_TAC_TOE), games=4)
    assert len(result.set_aside) == 4
    assert all("it was not to be" in game.reason for game in result.set_aside)


def test_a_program_ends_with_its_player(tmp_path: Path):
    player = gtp_player("small", TIC_TAC_TOE, small_engine(tmp_path / "log"))
    choose(player, [4])
    assert len(programs(tmp_path)) == 2  # itself and its guard
    del player
    gc.collect()
    assert programs(tmp_path) == []


def programs(folder: Path) -> list[psutil.Process]:
    """Return the processes that have `folder` on their command lines."""
    return [
        one
        for one in psutil.Process().children(recursive=True)
        if any(str(folder) in word for word in _words(one))
    ]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


class Failing:
    """A seat that fails as often as it is told, and then plays the last legal move."""

    def __init__(self, failures: list[EngineFault]) -> None:
        self._failures = failures
        self.closed = False

    def move(self, game: Game, states: States, root: int, history: Sequence[int], key: int) -> int:
        assert not self.closed
        if self._failures:
            raise self._failures.pop()
        return int(np.flatnonzero(game.legal(states, np.array([root]))[0])[-1])

    def close(self) -> None:
        self.closed = True


def test_a_seat_that_failed_is_closed_and_another_is_opened():
    failures = [EngineFault("timeout", "seat", why="asleep")]
    seats: list[Failing] = []

    def open_seat() -> Failing:
        seats.append(Failing(failures))
        return seats[-1]

    player = EnginePlayer("seat", open_seat)
    assert choose(player, [], [0], [1]) == [8, 8, 8]
    assert [seat.closed for seat in seats] == [True, False]
    player.close()
    assert [seat.closed for seat in seats] == [True, True]


def player_of(text: str, game: Game) -> Player:
    return make_player(parse_player(text), game, settings=SearchConfig(), games=8)


def play(game: Game, first: Player, second: Player, *, games: int) -> MatchResult:
    openings = random_openings(game, pairs=games // 2, plies=2, seed=1)
    return run(match(game, first, second, openings=openings, seed=1), HashEvaluator(game.num_actions))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("gtp:gnugo", PlayerSpec("gtp", engine="gnugo")),
        ("gtp:gnugo:10", PlayerSpec("gtp", engine="gnugo", level=10)),
        (" uci:stockfish:4", PlayerSpec("uci", engine="stockfish", level=4)),
    ],
)
def test_an_engine_is_read_as_it_is_written(text: str, spec: PlayerSpec):
    assert parse_player(text) == spec
    assert parse_player(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gtp", "a player is"),
        ("gtp:", "1-64 letters"),
        ("gtp:gnugo --mode gtp", "1-64 letters"),
        ("gtp:/bin/sh", "1-64 letters"),
        ("uci:stockfish:0", "from 1 to 100, and '0'"),
        ("uci:stockfish:", "nothing was given"),
        ("uci:stockfish:4:5", "'4:5' was given"),
    ],
)
def test_a_command_is_no_player(text: str, why: str):
    with pytest.raises(UsageError) as refused:
        parse_player(text)
    assert why in refused.value.why


@pytest.mark.parametrize(
    ("text", "game", "mentions"),
    [
        ("gtp:mohex", "hex5", "--engine-command 'mohex="),
        ("uci:gnugo", CHESS, "gtp:gnugo, uci:stockfish"),
        ("gtp:gnugo", "hex5", "it plays open_spiel:go"),
        ("uci:stockfish", "open_spiel:breakthrough", "it plays open_spiel:chess"),
    ],
)
def test_a_program_that_is_on_no_list_is_not_started(text: str, game: str, mentions: str):
    with pytest.raises(UsageError) as refused:
        player_of(text, make_game(game))
    assert mentions in str(refused.value)


def test_a_program_is_refused_a_game_that_it_cannot_play():
    with pytest.raises(UsageError, match="GTP"):
        gtp_player("small", make_game(CHESS), ("true",))
    with pytest.raises(UsageError, match="UCI"):
        uci_player("fish", make_game("hex5"), ("true",), depth=1)


def test_a_command_that_a_person_gives_plays_at_its_level(tmp_path: Path):
    command = (*small_engine(tmp_path / "log-{level}"),)
    player = make_player(
        parse_player("gtp:own:7"), TIC_TAC_TOE, settings=SearchConfig(), games=2, command=command
    )
    assert choose(player, [4]) == [0]
    assert (tmp_path / "log-7").exists()


@pytest.mark.system
@pytest.mark.parametrize(
    ("text", "game", "opponent"), [("gtp:gnugo:1", GO, "random"), ("uci:stockfish:1", CHESS, "random")]
)
def test_games_against_a_real_program_run_through(text: str, game: str, opponent: str):
    rules = make_game(game)
    player: Any = player_of(text, rules)
    result = play(rules, player, player_of(opponent, rules), games=8)
    assert (len(result.set_aside), dict(player.faults)) == (0, {})
    assert result.score > 0.9


GIVES_UP = """
import subprocess, sys
pipe = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
gnugo = subprocess.Popen(["/usr/games/gnugo", "--mode", "gtp", "--chinese-rules", "--level", "1"], **pipe)
asked = 0
for line in sys.stdin:
    asked += "genmove" in line
    if "genmove" in line and asked % 9 == 1:
        print(f"={line.split()[0]} resign\\n", flush=True)
        continue
    gnugo.stdin.write(line)
    while (said := gnugo.stdout.readline()) != "\\n":
        print(said, end="")
    print(flush=True)
"""
"""GNU Go, which hardly ever resigns, behind somebody who does so at the first move and at each ninth after it."""


@pytest.mark.system
def test_games_that_a_real_program_gives_up_do_not_spoil_the_others():
    rules = make_game("open_spiel:go(board_size=5,komi=2.5)")
    player = gtp_player("gnugo", rules, (sys.executable, "-c", GIVES_UP))
    # It would refuse white's move on the board of the game before, where black has that point.
    given_up, played = choose(player, [12], [6, 12], game=rules)
    assert (given_up, played in (6, 12), dict(player.faults)) == (RESIGNED, False, {})
    result = play(rules, player, player_of("random", rules), games=8)
    assert (len(result.set_aside), dict(player.faults)) == (0, {})
    given_up = [game for game in result.games if game.actions[-2:] != (25, 25)]
    assert len(given_up) > 2
    assert all(game.points == 0 for game in given_up)
    assert result.tally().wins > 0


@pytest.mark.system
def test_a_real_program_plays_by_the_key_alone():
    rules = make_game(GO)
    openings = [tuple(opening) for opening in random_openings(rules, pairs=3, plies=4, seed=5)]
    together = choose(player_of("gtp:gnugo:1", rules), *openings, keys=[3, 4, 5], game=rules)
    alone = [
        choose(player_of("gtp:gnugo:1", rules), opening, keys=[key], game=rules)[0]
        for opening, key in zip(openings, [3, 4, 5], strict=True)
    ]
    assert together == alone
