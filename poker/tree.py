"""Public trees: who may do what, what is at stake at each end; hands are not known here.

A tree is built of five kinds of nodes. What players have put in is counted from the beginning of the hand, in chips,
so the loser of a hand loses what he has put in, and the other wins it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Fold:
    """One player gave up.

    Attributes:
        winner: 0 or 1.
        stake: what the other one has put in.
    """

    winner: int
    stake: float


@dataclass(frozen=True, slots=True)
class Showdown:
    """Hands are compared on board number `board`; the loser loses `stake`."""

    stake: float
    board: int = 0


@dataclass(frozen=True, slots=True)
class Leaf:
    """The tree ends here and the game does not: what hands are worth somebody else says. Each has put in `stake`."""

    stake: float


@dataclass(frozen=True, slots=True)
class Decision:
    """`player` chooses one of `actions`, each a (word, node)."""

    player: int
    actions: tuple[tuple[str, "Node"], ...]


@dataclass(frozen=True, slots=True)
class Chance:
    """A public card is dealt: `deals` are (board number, node), all equally likely for hands that they do not block.

    Attributes:
        cards: the number of cards from which one is dealt, when both hands are known.
    """

    deals: tuple[tuple[int, "Node"], ...]
    cards: int


Node: TypeAlias = Fold | Showdown | Leaf | Decision | Chance


def nodes(tree: Node) -> Iterator[Node]:
    """Yield all nodes, a node before those below it."""
    yield tree
    match tree:
        case Decision(actions=actions):
            for _, node in actions:
                yield from nodes(node)
        case Chance(deals=deals):
            for _, node in deals:
                yield from nodes(node)


def scaled(tree: Node, factor: float) -> Node:
    """Return the tree with all stakes multiplied by `factor`; its form and its words stay."""
    match tree:
        case Fold(winner, stake):
            return Fold(winner, stake * factor)
        case Showdown(stake, board):
            return Showdown(stake * factor, board)
        case Leaf(stake):
            return Leaf(stake * factor)
        case Decision(player, actions):
            return Decision(player, tuple((word, scaled(node, factor)) for word, node in actions))
        case Chance(deals, cards):
            return Chance(tuple((board, scaled(node, factor)) for board, node in deals), cards)
