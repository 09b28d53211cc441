"""`tamen gtp`: models and other players behind the Go Text Protocol."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.matches.gtp import ContenderMind, serve_player
from cluster.matches.match import answer_here, find_contender, play_match
from cluster.run.run_folder import open_run, run_folder
from core.errors import UsageError
from core.messages import Reply, Request
from engines.dialogue import Dialogue
from engines.gtp import GtpEngine
from engines.gtp_moves import vertices_of
from engines.gtp_table import GameTable
from games.catalog import make_game
from inference_server.weights_store import WeightsStore
from tests.cluster.tiny import tiny_config
from tests.engines.gtp_parties import end_of
from tests.inference_server.brains import some_weights

ROOT = Path(__file__).parents[3]
PROGRAM = (
    f"import sys, typer; sys.path.insert(0, {str(ROOT)!r}); from cluster import environment; environment.prepare(); "
    "from cluster.verbs.gtp import gtp; from cluster.cli.verbs import add_verb; "
    "app = typer.Typer(); add_verb(app, gtp); app()"
)
"""The verb as a program of its own."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run called "model" of hex4 with one version."""
    folder = tmp_path_factory.mktemp("runs")
    run = run_folder(folder, "model")
    open_run(run, tiny_config(game="hex4")).release()
    WeightsStore(run.models).publish(some_weights(version=1, game="hex4"))
    return folder


@pytest.fixture
def table(runs: Path) -> GameTable:
    return GameTable(make_game("hex4"), mind_of("model", runs))


def mind_of(text: str, runs: Path, game: str = "hex4", *, seed: int = 0) -> ContenderMind:
    contender = find_contender(text, simulations=16, runs=runs)
    return ContenderMind(contender, game, answer_here((contender,)), seed=seed)


def never() -> bool:
    return False


def answered(text: str, commands: str, runs: Path, **given: object) -> list[str]:
    """Serve a player on pipes; return its responses."""
    to_server, from_server = os.pipe(), os.pipe()
    os.write(to_server[1], commands.encode())
    os.close(to_server[1])
    told = {"game": None, "simulations": 16, "seed": 0} | given
    try:
        serve_player(text, runs=runs, source=to_server[0], sink=from_server[1], **told)
    finally:
        os.close(from_server[1])
        end_of()
        with os.fdopen(from_server[0], "rb") as file:
            responses = file.read().decode()
        os.close(to_server[0])
    return responses.split("\n\n")[:-1]


def test_a_model_plays_and_says_what_it_thinks(table: GameTable):
    glance = table.think(search=False, hurried=never)
    thought = table.think(search=True, hurried=never)
    assert glance.visits.sum() == 0
    assert 16 <= thought.visits.sum() + 1 <= 18
    for one in (glance, thought):
        assert one.policy.sum() == pytest.approx(1, abs=1e-3)
        assert one.value is not None
        assert -1 <= one.value <= 1
    assert glance.action == int(np.argmax(glance.policy))
    move = table.generate(0, play=True, hurried=never)
    assert move not in table.legal()


def test_a_hurried_search_is_given_up_for_a_glance(runs: Path):
    contender = find_contender("model", simulations=16, runs=runs)
    answer, asked = answer_here((contender,)), []

    def evaluate(request: Request) -> Reply:
        asked.append(request.num_rows)
        return answer(request)

    table = GameTable(make_game("hex4"), ContenderMind(contender, "hex4", evaluate, seed=0))
    hurried = table.think(search=True, hurried=lambda: len(asked) > 1)
    assert len(asked) == 3  # two of the search, and the glance
    assert hurried.visits.sum() == 0
    glance = table.think(search=False, hurried=never)
    assert (hurried.action, hurried.value) == (glance.action, glance.value)


@pytest.mark.parametrize("text", ["random", "mcts:20", "solver", "open_spiel_mcts:5"])
def test_other_players_play_too(text: str, runs: Path):
    table = GameTable(make_game("hex3"), mind_of(text, runs, "hex3"))
    player = 0
    while not table.terminal:
        assert table.generate(1 if player else 0, play=True, hurried=never)
        player = 1 - player
    assert table.winner() is not None


def test_who_goes_by_the_moves_of_a_game_says_so_where_turns_were_left_out(runs: Path):
    for text in ("solver", "open_spiel_mcts:5"):
        table = GameTable(make_game("hex3"), mind_of(text, runs, "hex3"))
        with pytest.raises(UsageError, match="two moves of one colour came in a row"):
            [table.generate(0, play=True, hurried=never) for _ in range(2)]
    table = GameTable(make_game("hex4"), mind_of("model", runs))
    assert len({table.generate(0, play=True, hurried=never) for _ in range(3)}) == 3


def test_a_player_without_an_opinion_says_so(runs: Path):
    table = GameTable(make_game("hex3"), mind_of("solver", runs, "hex3"))
    thought = table.think(search=True, hurried=never)
    assert (thought.value, thought.policy[thought.action]) == (None, 1)


def test_moves_depend_on_the_seed_and_the_number_of_the_move_alone(runs: Path):
    def game(seed: int) -> list[str]:
        table = GameTable(make_game("hex4"), mind_of("random", runs, seed=seed))
        table.play(0, "a1")
        table.undo()
        return [table.generate(1 if ply % 2 else 0, play=True, hurried=never) for ply in range(6)]

    assert game(1) == game(1)
    assert len({tuple(game(seed)) for seed in range(5)}) > 1


def test_hexgui_is_served(runs: Path):
    greeting = "name\nversion\nhexgui-analyze_commands\nboardsize 4 4\nclear_board\n"
    responses = answered("model", f"{greeting}play black a1\ngenmove white\nquit\n", runs)
    assert responses[0] == "= tamen model@1:16 at hex4"
    assert [response[0] for response in responses] == ["="] * 8
    assert responses[6].removeprefix("= ") in vertices_of(make_game("hex4")).names[1:]


def test_a_board_of_another_size_is_refused(runs: Path):
    assert answered("model", "boardsize 11 11\n", runs)[0].startswith("? unacceptable size")


@pytest.mark.parametrize(
    ("text", "game"), [("nobody", None), ("model", "hex5"), ("random", None), ("random", "open_spiel:chess")]
)
def test_who_cannot_be_served_is_told_before_anything_is_answered(text: str, game: str | None, runs: Path):
    with pytest.raises(UsageError):
        answered(text, "name\n", runs, game=game)


def test_who_does_not_read_ends_it_quietly(runs: Path):
    to_server, from_server = os.pipe(), os.pipe()
    os.close(from_server[0])
    os.write(to_server[1], b"name\n" * 3)
    try:
        serve_player(
            "random", game="hex3", simulations=1, seed=0, runs=runs, source=to_server[0], sink=from_server[1]
        )
    finally:
        os.close(to_server[1])
        end_of()
        os.close(to_server[0])
        os.close(from_server[1])


def test_a_program_that_a_person_names_plays_a_match(runs: Path, tmp_path: Path):
    command = shlex.join(
        [sys.executable, str(ROOT / "tests/actors/small_gtp_engine.py"), str(tmp_path / "log")]
    )
    result = play_match(
        "gtp:small:3",
        "model",
        game="hex4",
        games=4,
        simulations=2,
        opening_plies=1,
        seed=0,
        engine="local",
        address=None,
        runs=runs,
        quiet=True,
        engine_commands=[f"small={command}"],
    )
    assert (result["first"], result["games"], result["set_aside"]) == ("gtp:small:3", 4, 0)
    assert "boardsize 4 4" in (tmp_path / "log").read_text()


@pytest.fixture
def program(runs: Path) -> Iterator[GtpEngine]:
    """The model as a program of its own, at the other end of pipes."""
    command = [sys.executable, "-c", PROGRAM, "model", "--simulations", "8", "--runs", str(runs)]
    with Dialogue(command, engine="tamen gtp") as dialogue:
        yield GtpEngine(dialogue, seconds=120.0)


@pytest.mark.system
def test_the_program_plays_a_game_with_itself(program: GtpEngine):
    program.set_up(vertices_of(make_game("hex4")))
    for ply in range(16):
        program.generate(1 if ply % 2 else 0)
        if program.ask("all_legal_moves") == "":
            break
    assert program.final_score() in ("B+", "W+")
    program.quit()


@pytest.mark.system
def test_an_error_is_three_lines_and_no_response(runs: Path):
    command = [sys.executable, "-c", PROGRAM, "nobody", "--runs", str(runs)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, input="name\n")
    assert (said.returncode, said.stdout) == (2, "")
    assert [line.split(":")[0].strip() for line in said.stderr.splitlines()] == ["error", "why", "do"]


def test_what_is_printed_meanwhile_does_not_come_between_responses():
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from cluster.matches.gtp import own_output\n"
        "with own_output() as sink: print('stray'); os.write(sink, b'= 1')\n"
        "print(' after')"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert (said.stdout, said.stderr) == ("= 1 after\n", "stray\n")
