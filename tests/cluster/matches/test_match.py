"""How contenders are found, agree on a game, and meet in this process."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.main import app
from cluster.matches.match import Contender, agree_on_game, find_contender, play_match
from cluster.run.run_folder import open_run, run_folder
from core.errors import TamenError, UsageError
from inference_server.weights_store import WeightsStore
from tests.cluster.tiny import tiny_config
from tests.inference_server.brains import some_weights


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs called "first" and "second" of tic-tac-toe and "third" of hex3, each with versions 0 and 1."""
    for name, game in (("first", "tic_tac_toe"), ("second", "tic_tac_toe"), ("third", "hex3")):
        folder = run_folder(tmp_path, name)
        open_run(folder, tiny_config(game=game)).release()
        for version in (0, 1):
            WeightsStore(folder.models).publish(some_weights(version=version, game=game))
    return tmp_path


def contender(text: str, runs: Path) -> Contender:
    return find_contender(text, simulations=16, runs=runs)


@pytest.mark.parametrize(
    ("text", "label", "simulations"),
    [
        ("first", "first@1:16", 16),
        ("first@0", "first@0:16", 16),
        ("model:first", "first@1:16", 16),
        ("model:first@0:8", "first@0:8", 8),
        ("model:first:policy", "first@1:policy", 0),
    ],
)
def test_a_run_is_a_player_with_the_simulations_that_it_does_not_name(
    text: str, label: str, simulations: int, runs: Path
) -> None:
    found = contender(text, runs)

    assert (found.label, found.spec.simulations) == (label, simulations)
    assert found.model is not None


@pytest.mark.parametrize("text", ["random", "mcts:40", "solver"])
def test_other_players_have_no_model(text: str, runs: Path) -> None:
    found = contender(text, runs)

    assert (found.label, found.model) == (text, None)


@pytest.mark.parametrize("text", ["nobody", "model:nobody", "no/such.safetensors", "first@9", "a b"])
def test_who_is_not_there_cannot_play(text: str, runs: Path) -> None:
    with pytest.raises(UsageError):
        contender(text, runs)


def test_who_is_not_there_is_answered_with_those_who_are(runs: Path) -> None:
    with pytest.raises(UsageError) as caught:
        contender("secnd", runs)

    assert "holds first, second, third; players without a run are random" in caught.value.why
    assert caught.value.fix == "did you mean second?"


def test_the_models_tell_the_game_and_must_agree(runs: Path) -> None:
    first, second, third, random = (contender(text, runs) for text in ("first", "second", "third", "random"))

    assert agree_on_game((first, random), None) == "tic_tac_toe"
    assert agree_on_game((first, second), "tic_tac_toe") == "tic_tac_toe"
    assert agree_on_game((random, random), "hex5") == "hex5"
    with pytest.raises(UsageError, match="which game"):
        agree_on_game((random, random), None)
    with pytest.raises(UsageError, match=r"different games[\s\S]*third@1:16 plays hex3"):
        agree_on_game((first, third), None)
    with pytest.raises(UsageError, match="different games"):
        agree_on_game((first, random), "hex5")


def play(first: str, second: str, runs: Path, **changed: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "game": None,
        "games": 10,
        "simulations": 4,
        "opening_plies": 2,
        "seed": 0,
        "engine": "local",
        "address": None,
        "quiet": True,
    }
    return play_match(first, second, runs=runs, **told | changed)


def test_a_match_is_told_in_plain_numbers_that_json_can_say(runs: Path) -> None:
    result = play("first", "second", runs)

    assert (result["first"], result["second"], result["game"]) == ("first@1:4", "second@1:4", "tic_tac_toe")
    assert result["games"] == result["wins"] + result["draws"] + result["losses"] == 10
    assert result["score"] == pytest.approx((result["wins"] + result["draws"] / 2) / 10)
    assert result["score_low"] <= result["score"] <= result["score_high"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_same_seed_is_the_same_match(runs: Path) -> None:
    results = [play("first", "random", runs, seed=seed, games=40) | {"seconds": 0} for seed in (1, 1, 2)]

    assert results[0] == results[1] != results[2]


def test_who_wins_every_game_has_an_infinite_elo_which_is_told_as_none(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # With this seed; a random second player beats the solver now and then.
    result = play("solver", "random", runs, game="hex3", opening_plies=0, games=2, seed=1, quiet=False)

    assert (result["score"], result["elo"]) == (1.0, None)
    assert "+∞" in capsys.readouterr().out


def small_engine(folder: Path, *behaviour: str) -> list[str]:
    program = Path(__file__).parents[2] / "actors" / "small_gtp_engine.py"
    return [f"small={shlex.join([sys.executable, str(program), str(folder / 'log'), *behaviour])}"]


def test_a_match_in_which_no_game_counts_says_why(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"game": "tic_tac_toe", "games": 4, "engine_commands": small_engine(tmp_path, "dies")}
    result = play("gtp:small", "random", runs, quiet=False, **given)

    said = " ".join(capsys.readouterr().out.split())
    assert [result[key] for key in ("games", "score", "score_low", "elo_high")] == [0, None, None, None]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert [told["games"] for told in result["reasons"]] == [4]
    assert "gtp:small is not running" in result["reasons"][0]["reason"]
    assert "it was not to be" in result["reasons"][0]["reason"]
    assert "no game counts, so there is no score" in said
    assert "it was not to be" in said
    assert "nan" not in said


def test_a_program_that_failed_and_did_better_is_told(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"game": "tic_tac_toe", "games": 4, "engine_commands": small_engine(tmp_path, "dies-once")}
    result = play("gtp:small", "random", runs, quiet=False, **given)

    assert (result["games"], result["reasons"], result["faults"]) == (4, [], {"gtp:small died": 1})
    assert "started again: gtp:small died 1 ×" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "behaviour", "why"),
    [("gtp:gnugo", "", "it plays open_spiel:go"), ("gtp:small", "no-board", "unacceptable size")],
)
def test_a_program_that_does_not_play_the_game_is_refused_before_any_is_played(
    first: str, behaviour: str, why: str, runs: Path, tmp_path: Path
) -> None:
    with pytest.raises(TamenError) as refused:
        play(first, "random", runs, game="tic_tac_toe", engine_commands=small_engine(tmp_path, behaviour))
    assert why in refused.value.why


@pytest.mark.parametrize("json_", [[], ["--json"]])
def test_a_match_without_a_game_that_counts_is_a_failure(
    json_: list[str], runs: Path, tmp_path: Path
) -> None:
    words = ["match", "gtp:small", "random", "--game", "tic_tac_toe", "--games", "2", "--engine", "local"]
    given = [*words, "--engine-command", *small_engine(tmp_path, "dies"), "--runs", str(runs), *json_]
    ended = CliRunner().invoke(app, given)

    assert ended.exit_code == 1
    assert "it was not to be" in " ".join(ended.output.split())
    assert not json_ or json.loads(ended.output.splitlines()[-1])["score"] is None


def test_an_odd_number_of_games_is_made_even_and_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    play("random", "random", runs, game="tic_tac_toe", games=4, quiet=False)
    assert "both sides" not in capsys.readouterr().out
    assert play("random", "random", runs, game="tic_tac_toe", games=5, quiet=False)["games"] == 6
    assert "6 games are played: each opening from both sides" in capsys.readouterr().out
