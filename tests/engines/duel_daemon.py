"""A daemon of the mode "interact" in a thread, over a game of bolts: who has no life left has lost.

Each seat in turn bolts the other, waits (which gives it a life), or passes. What goes wrong in a game is its mood.
"""

import json
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Mood = Literal["well", "over", "closed", "garbled", "unreadable", "timeout", "error", "refused", "silent"]
LIFE = 3
KINDS_OF_ACTIONS = ("Bolt", "Wait")


def player_json(seat: int, *, deck: str, **changes: Any) -> dict[str, Any]:
    """Return a player as a daemon tells of one, with all that is secret."""
    return {
        "name": f"Agent({seat + 1})-{deck}",
        "life": LIFE,
        "hand_size": 1,
        "hand": [{"name": "Bolt", "id": 10 + seat}],
        "library_size": 30,
        "battlefield": [],
        "mana_pool": {"total": 1},
        **changes,
    }


def decision_json(kind: str, seat: int, *, players: list[dict[str, Any]], **details: Any) -> dict[str, Any]:
    return {
        "decision_type": kind,
        "decision_id": 0,
        "player": players[seat]["name"],
        "turn": 1,
        "phase": "MAIN1",
        "game_state": {
            "is_game_over": False,
            "active_player": players[0]["name"],
            "players": players,
            "stack": [],
        },
        **details,
    }


def action_json(index: int, card: str) -> dict[str, Any]:
    text = f"{card} - does it" if card else "Pass priority"
    return {
        "index": index,
        "description": text,
        "card": card,
        "mana_cost": "{1}{R}" if card else "",
        "is_land": False,
    }


@dataclass
class DuelDaemon:
    """What the games did and are to do.

    Attributes:
        moods: of the games to come; those after the last go well.
        commands: that came.
        replies: of each game, in order.
    """

    port: int = 0
    moods: list[Mood] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    replies: list[list[str]] = field(default_factory=list)

    def serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # closed: the test is over
                return
            threading.Thread(target=self.play, args=(connection,), daemon=True).start()

    def play(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw", newline="\n") as lines:
            command = lines.readline().split()
            mood = self.moods.pop(0) if self.moods else "well"
            self.commands.append(" ".join(command))
            replies: list[str] = []
            self.replies.append(replies)
            try:
                for line in self.lines(command, mood, replies, lines):
                    lines.write(line + "\n")
                    lines.flush()
            except OSError:  # the game was given up
                return

    def lines(
        self, command: list[str], mood: Mood, replies: list[str], lines: Any
    ) -> Generator[str, None, None]:
        if mood == "refused":
            yield f"ERROR: Could not load deck: {command[1]}"
            return
        if mood == "silent":
            lines.readline()
            return
        decks, life = command[1:3], [LIFE, LIFE]
        yield f"SEED: {command[command.index('-s') + 1]}"
        yield f"GAME_START: {decks[0]} vs {decks[1]}"
        turn = 0
        while min(life) > 0 and mood != "over":
            seat = turn % 2
            players = [player_json(each, deck=decks[each], life=life[each]) for each in (0, 1)]
            actions = [action_json(k, card) for k, card in enumerate(KINDS_OF_ACTIONS)] + [
                action_json(-1, "")
            ]
            decision = decision_json("choose_action", seat, players=players, turn=turn, actions=actions)
            if turn == 2 and mood == "closed":
                return
            if turn == 2 and mood == "garbled":
                yield "DECISION:{"
                return
            if turn == 2 and mood == "unreadable":
                players[0]["life"] = "three"
            yield f"DECISION:{json.dumps(decision)}"
            if turn == 2 and mood == "timeout":
                yield "GAME_TIMEOUT: Game exceeded 1 seconds"
                yield "GAME_RESULT: Draw in 1000ms"
            reply = lines.readline().strip()
            if turn == 2 and mood == "timeout":
                return
            if turn == 2 and mood == "error":
                yield "GAME_ERROR: it fell over"
                yield "GAME_RESULT: Draw in 5ms"
                return
            if not reply:
                return
            replies.append(reply)
            life[1 - seat] -= reply == "0"
            life[seat] += reply == "1"
            turn += 1
        winner = 0 if life[1] <= 0 else 1
        yield "GAME_RESULT: " + (
            f"Agent({winner + 1})-{decks[winner]} won in {turn}ms" if turn else "Draw in 1ms"
        )


@contextmanager
def duel_daemon(*moods: Mood, port: int = 0) -> Generator[DuelDaemon, None, None]:
    """Serve games until the test is over."""
    with socket.create_server(("127.0.0.1", port)) as server:
        daemon = DuelDaemon(server.getsockname()[1], list(moods))
        thread = threading.Thread(target=daemon.serve, args=(server,), daemon=True)
        thread.start()
        yield daemon
        server.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)
