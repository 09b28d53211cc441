"""Games that were watched, without a daemon: who has little life throws the bolt that is at hand, else passes."""

from pathlib import Path
from typing import Any

import numpy as np

from configs.engines import EngineConfig, EnginesConfig
from configs.loading import dump
from engines.book import GameBook, Plan
from engines.forge_decisions import Decision, read_decision
from engines.forge_protocol import Mode, Outcome
from engines.tickets import Played, Ticket
from engines.watched_games import game_line, write_shard
from tests.engines.duel_daemon import action_json, decision_json, player_json
from tests.engines.forge_texts import text

BOLT = {"card": "Bolt", "description": "Bolt - does it", "is_land": False}
PASS = {"action": "pass"}


def observed(seat: int, chosen: dict[str, Any], **own: Any) -> Decision:
    """Return a decision of the observation mode, with its label; `own` is of the first seat."""
    players = [player_json(0, deck="Red", **own), player_json(1, deck="Blue")]
    for player in players:
        player["name"] = player["name"].replace("Agent", "AiObs")
    actions = [action_json(0, "Bolt"), action_json(1, "Wait"), action_json(-1, "")]
    message = decision_json("choose_action", seat, players=players, actions=actions, ai_choice=chosen)
    return read_decision(text(message), "daemon")


def watched_game(number: int, decisions: int = 8) -> Outcome:
    """Return a game of the first seat."""
    lives = np.random.default_rng(number).integers(1, 21, decisions).tolist()
    return Outcome(
        winner=0 if number % 2 else 1,
        milliseconds=5,
        seed=number,
        timed_out=False,
        error=None,
        decisions=tuple(observed(0, BOLT if life <= 8 else PASS, life=life) for life in lives),
    )


def watch(
    folder: Path, games: range, *, jar: str = "cards.jar", mode: Mode = "observe", shard_games: int = 8
) -> None:
    """Leave what `tamen engines play` does of these games; more of them may follow."""
    (folder / "config.yaml").parent.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump(EnginesConfig(engine=EngineConfig(jar=jar))))
    ends = []
    for start in range(games.start, games.stop, shard_games):
        some, name = range(start, min(start + shard_games, games.stop)), f"here-{start:06}"
        if mode == "observe":
            lines = [game_line(Ticket(one, 1, ("a", "b"), one), watched_game(one)) for one in some]
            write_shard(folder, name, lines)
        record = name if mode == "observe" else ""
        ends += [Played(one, 1, "draw", 0.1, record=record) for one in some]
    with GameBook(folder, Plan(games=1000, decks=("a", "b"), mode=mode)) as book:
        book.exchange("here", 1, ends, want=0, hold_seconds=1)
