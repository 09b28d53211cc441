"""Trees of betting rounds in no-limit hold'em between two players."""

from collections.abc import Sequence
from dataclasses import dataclass

from poker.tree import Decision, Fold, Node, Showdown

ALL_IN = "all-in"


@dataclass(frozen=True, slots=True)
class Betting:
    """Which bets there are.

    Attributes:
        stack: what each player had at the beginning of the hand, in chips.
        sizes: of bets and raises in parts of the pot after a call; all-in is always one more.
    """

    stack: float
    sizes: tuple[float, ...] = (1.0,)


def last_round(betting: Betting, pot_half: float, *, board: int = 0) -> Node:
    """Return the tree of a round that a showdown ends, both players having put in `pot_half`; player 0 begins."""
    return _decision(betting, (pot_half, pot_half), player=0, checked=False, board=board)


def _decision(
    betting: Betting, put_in: tuple[float, float], *, player: int, checked: bool, board: int
) -> Node:
    mine, his = put_in[player], put_in[1 - player]
    actions: list[tuple[str, Node]] = []
    if his > mine:
        actions.append(("fold", Fold(1 - player, mine)))
        actions.append(("call", Showdown(his, board)))
    elif checked:
        actions.append(("check", Showdown(his, board)))
    else:
        actions.append(("check", _decision(betting, put_in, player=1 - player, checked=True, board=board)))
    if his < betting.stack:
        for name, amount in _raises(betting, his):
            after = (amount, his) if player == 0 else (his, amount)
            actions.append((name, _decision(betting, after, player=1 - player, checked=False, board=board)))
    return Decision(player, tuple(actions)) if len(actions) > 1 else actions[0][1]


def _raises(betting: Betting, his: float) -> Sequence[tuple[str, float]]:
    """Return (word, what the player has put in then) of each bet or raise, the smallest first."""
    amounts = {his + 2 * his * size for size in betting.sizes}
    below = sorted(amount for amount in amounts if his < amount < betting.stack)
    return [*((f"to {amount:g}", amount) for amount in below), (ALL_IN, betting.stack)]
