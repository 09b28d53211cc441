"""Trees of betting rounds in no-limit hold'em between two players."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import UsageError
from poker.tree import Chance, Decision, Fold, Leaf, Node, Showdown

ALL_IN = "all-in"
MOST_ACTIONS = 100_000
"""In a tree: with all hands a solver keeps about 2 GB for so many."""
_MOST_RAISES = 200
"""One after the other, for trees are walked by recursion."""
_HOLE_CARDS = 4


@dataclass(frozen=True, slots=True)
class Betting:
    """Which bets there are.

    Attributes:
        stack: what each player had at the beginning of the hand, in chips.
        sizes: of bets and raises in parts of the pot after a call; all-in is always one more.
        later_sizes: those of the rounds after the first, where they are others.
    """

    stack: float
    sizes: tuple[float, ...] = (1.0,)
    later_sizes: tuple[float, ...] | None = None


def last_round(betting: Betting, pot_half: float, *, board: int = 0) -> Node:
    """Return the tree of a round that a showdown ends, both players having put in `pot_half`; player 0 begins.

    Raises:
        UsageError: when it would have more than `MOST_ACTIONS`.
    """
    return _Builder(betting).round(pot_half, lambda stake: Showdown(stake, board))


def one_round(betting: Betting, pot_half: float) -> Node:
    """Return the tree of a round with leaves where the next card would be dealt.

    Raises:
        UsageError: when it would have more than `MOST_ACTIONS`.
    """
    return _Builder(betting).round(pot_half, Leaf)


def two_rounds(betting: Betting, pot_half: float, *, boards: int) -> Node:
    """Return the tree of a round after which one of `boards` cards is dealt, and the last round played.

    Who is all-in does not bet any more: cards are dealt and hands compared.

    Raises:
        UsageError: when it would have more than `MOST_ACTIONS`.
    """
    builder = _Builder(betting)
    later = betting.sizes if betting.later_sizes is None else betting.later_sizes

    def river(stake: float, board: int) -> Node:
        return builder.round(stake, lambda at_the_end: Showdown(at_the_end, board), sizes=later)

    def deal(stake: float) -> Node:
        deals = tuple((board, river(stake, board)) for board in range(boards))
        return Chance(deals, cards=boards - _HOLE_CARDS)

    return builder.round(pot_half, deal)


class _Builder:
    """Builds rounds, and counts their actions.

    Args:
        betting: of all of them.
    """

    def __init__(self, betting: Betting) -> None:
        self._betting = betting
        self._actions = 0

    def round(
        self, pot_half: float, after: Callable[[float], Node], *, sizes: tuple[float, ...] | None = None
    ) -> Node:
        """Return a round; `after` makes what follows when both have put in as much."""
        if pot_half >= self._betting.stack:
            return after(pot_half)
        own = self._betting if sizes is None else Betting(self._betting.stack, sizes)
        return self._decision(own, (pot_half, pot_half), after, player=0, checked=False, raises=0)

    def _decision(
        self,
        betting: Betting,
        put_in: tuple[float, float],
        after: Callable[[float], Node],
        *,
        player: int,
        checked: bool,
        raises: int,
    ) -> Node:
        mine, his = put_in[player], put_in[1 - player]
        bets = _raises(betting, his) if his < betting.stack else ()
        self._count((2 if his > mine else 1) + len(bets), raises)
        actions: list[tuple[str, Node]] = []
        if his > mine:
            actions += [("fold", Fold(1 - player, mine)), ("call", after(his))]
        elif checked:
            actions.append(("check", after(his)))
        else:
            other = self._decision(betting, put_in, after, player=1 - player, checked=True, raises=raises)
            actions.append(("check", other))
        for name, amount in bets:
            raised = (amount, his) if player == 0 else (his, amount)
            answer = self._decision(
                betting, raised, after, player=1 - player, checked=False, raises=raises + 1
            )
            actions.append((name, answer))
        return Decision(player, tuple(actions))

    def _count(self, actions: int, raises: int) -> None:
        self._actions += actions
        if self._actions > MOST_ACTIONS or raises > _MOST_RAISES:
            sizes = ", ".join(f"{size:g}" for size in self._betting.sizes)
            raise UsageError(
                f"bets of {sizes} pots make too large a tree",
                why=f"it would have more than {MOST_ACTIONS:,} actions, or {_MOST_RAISES} raises in a row",
                fix="give fewer or larger bets, or a smaller stack for this pot",
            )


def _raises(betting: Betting, his: float) -> Sequence[tuple[str, float]]:
    """Return (word, what the player has put in then) of each bet or raise, the smallest first."""
    amounts = {his + 2 * his * size for size in betting.sizes}
    below = sorted(amount for amount in amounts if his < amount < betting.stack)
    return [*((f"to {amount:.12g}", amount) for amount in below), (ALL_IN, betting.stack)]
