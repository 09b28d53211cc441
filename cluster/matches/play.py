"""`tamen play`: a person against a player, move by move, in the terminal."""

from collections.abc import Callable

import numpy as np

from actors.players import RESIGNED, Player
from core.errors import UsageError
from core.messages import Reply, Request
from core.seeds import mix_keys
from games.game import Game
from search.drive import run

Say = Callable[[str], None]
Ask = Callable[[str], str]


def play_game(
    game: Game,
    opponent: Player,
    evaluate: Callable[[Request], Reply],
    *,
    person: int,
    seed: int,
    say: Say,
    ask: Ask,
) -> float | None:
    """Play one game and return its outcome from the person's view; None when the person leaves.

    Args:
        person: 0 to move first, 1 to move second.
        say: shows lines of text.
        ask: shows a prompt and returns what was typed; EOFError and "quit" leave.
    """
    states = game.new_states(opponent.rows_per_game)
    root = np.zeros(1, np.int32)
    game.new(states, root)
    keys = mix_keys(np.full(game.max_plies, seed, np.uint64), np.arange(game.max_plies))
    history: list[int] = []
    while not game.outcome(states, root)[0][0]:
        if game.to_play(states, root)[0] == person:
            say(game.render(states, 0))
            action = _ask_move(game, states, say=say, ask=ask)
            if action is None:
                return None
        else:
            moves = opponent.choose(game, states, root, histories=[history], keys=keys[len(history)][None])
            action = int(run(moves, evaluate)[0])
            if action == RESIGNED:
                say(f"{opponent.name} resigns")
                return 1.0
            say(f"{opponent.name} plays {game.action_name(action)}")
        game.play(states, root, np.array([action], np.int16), root)
        history.append(action)
    say(game.render(states, 0))
    value = float(game.outcome(states, root)[1][0])
    return value if game.to_play(states, root)[0] == person else -value


def _ask_move(game: Game, states: object, *, say: Say, ask: Ask) -> int | None:
    """Ask until the answer is a legal move; None when the person leaves."""
    legal = game.legal(states, np.zeros(1, np.int32))[0]
    while True:
        try:
            text = ask("your move: ").strip()
        except EOFError:
            return None
        if text in ("quit", "q", "exit"):
            return None
        try:
            action = game.parse_action(text)
        except UsageError as error:
            say(str(error))
            continue
        if legal[action]:
            return action
        say(
            f"{text} is not legal here; legal are {' '.join(game.action_name(int(a)) for a in np.flatnonzero(legal))}"
        )
