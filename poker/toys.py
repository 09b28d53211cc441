"""Kuhn's poker and Leduc hold'em: games whose values are known, for the same solver."""

import numpy as np

from poker.hands import NO_CARD, HandSet, order_by
from poker.tree import Chance, Decision, Fold, Node, Showdown

KUHN_VALUE, LEDUC_VALUE = -1 / 18, -0.0856
"""What the first player wins on average, in antes: of Kuhn's poker exactly, of Leduc to its last digit."""


def kuhn() -> tuple[Node, HandSet]:
    """Three cards, an ante of 1, one bet of 1 (Kuhn 1950)."""
    alive = np.arange(3)
    hands = HandSet(_single_cards(3), (order_by(alive, alive),))
    after_bet = Decision(1, (("fold", Fold(0, 1)), ("call", Showdown(2))))
    after_check = Decision(0, (("fold", Fold(1, 1)), ("call", Showdown(2))))
    checked = Decision(1, (("check", Showdown(1)), ("bet", after_check)))
    return Decision(0, (("check", checked), ("bet", after_bet))), hands


def leduc() -> tuple[Node, HandSet]:
    """Six cards of three ranks, an ante of 1, raises of 2 and, once a card lies open, of 4; two raises a round.

    The rules are those of Southey et al. 2005 (arXiv 1207.1411). A pair with the open card wins, else the higher rank.
    """
    cards = np.arange(6)
    ranks = cards // 2
    boards = tuple(order_by(np.where(ranks == ranks[card], 9, ranks), cards[cards != card]) for card in cards)

    def second(put_in: int) -> Node:
        deals = tuple(
            (board, _limit_round((put_in, put_in), 4, lambda stake, b=board: Showdown(stake, b)))
            for board in range(len(cards))
        )
        return Chance(deals, cards=4)

    return _limit_round((1, 1), 2, second), HandSet(_single_cards(6), boards)


def _limit_round(put_in, raise_by, after, *, player=0, raises=0, moved=0) -> Node:
    """Return a round of betting with two raises at most; `after` makes what follows when both have put in as much."""
    mine, his = put_in[player], put_in[1 - player]
    actions: list[tuple[str, Node]] = []
    if his > mine:
        actions += [("fold", Fold(1 - player, mine)), ("call", after(his))]
    elif moved:
        actions.append(("check", after(mine)))
    else:
        actions.append(("check", _limit_round(put_in, raise_by, after, player=1 - player, moved=1)))
    if raises < 2:
        raised = (his + raise_by, his) if player == 0 else (his, his + raise_by)
        following = _limit_round(raised, raise_by, after, player=1 - player, raises=raises + 1, moved=1)
        actions.append(("raise", following))
    return Decision(player, tuple(actions))


def _single_cards(number: int) -> np.ndarray:
    return np.stack([np.arange(number), np.full(number, NO_CARD)], axis=1).astype(np.int32)
