"""OpenSpiel's chess as UCI writes it: "e1g1" castles, "a7a8q" promotes."""

from typing import Any

from core.errors import UsageError
from games.game import Game

CHESS = "open_spiel:chess"


def check_chess(game: Game) -> None:
    """Raise UsageError unless `game` is orthodox chess."""
    if game.name != CHESS:
        raise UsageError(
            f"UCI engines do not play {game.name}", why=f"they play {CHESS}", fix=f"add --game {CHESS}"
        )


def position_text(state: Any) -> str:
    """Return what UCI's `position` is told of a `pyspiel.ChessState`: the moves from the start.

    With the moves an engine sees which positions have come before.
    """
    moves = " ".join(move.to_lan() for move in state.moves_history())
    return f"startpos moves {moves}" if moves else "startpos"


def moves_by_name(state: Any) -> dict[str, int]:
    """Return the action of each legal move of a `pyspiel.ChessState`, by the move's long algebraic form."""
    from pyspiel import chess  # noqa: PLC0415 (an optional dependency)

    board = state.board()
    return {chess.action_to_move(action, board).to_lan(): action for action in state.legal_actions()}
