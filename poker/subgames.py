"""What is played from a situation on: to the end of the deal, or to the end of a street, where a network goes on."""

from dataclasses import dataclass, replace
from functools import lru_cache

from core.hands import BOARD_CARDS, NUM_CARDS, STREETS, Street
from poker.betting import Betting, last_round, one_round, two_rounds
from poker.program import compile_tree
from poker.tree import Node


@dataclass(frozen=True, slots=True)
class Subgame:
    """A street's betting, and what follows it.

    Attributes:
        street: "river", "turn" or "flop".
        betting: stacks and bets.
        to_the_end: whether all cards to come are dealt and bet on; a flop is too large for that. Else the street ends
            in leaves.
    """

    street: Street
    betting: Betting
    to_the_end: bool = True

    def __post_init__(self) -> None:
        if self.street == "flop" and self.to_the_end:
            raise ValueError("a flop is too large to be solved to the end")

    def tree(self, pot_half: float) -> Node:
        """Return its tree in units of `pot_half`. Raises UsageError when it would be too large."""
        betting = replace(self.betting, stack=self.betting.stack / pot_half)
        return replace(self, betting=betting).tree_in_chips(1.0)

    def tree_in_chips(self, pot_half: float) -> Node:
        """Return its tree in chips, as its actions are called. Raises UsageError when it would be too large."""
        if not self.to_the_end:
            return one_round(self.betting, pot_half)
        if self.street == "turn":
            return two_rounds(self.betting, pot_half, boards=NUM_CARDS - BOARD_CARDS["turn"])
        return last_round(self.betting, pot_half)

    def form(self, pot_half: int) -> bytes:
        """Return what the tree looks like, whatever its stakes."""
        return _form(self, pot_half)


def street_after(street: Street) -> Street | None:
    """Return where hands are valued next, in the course of a deal; None on a river, after which there is nothing."""
    return STREETS[STREETS.index(street) - 1] if street != "river" else None


@lru_cache(maxsize=1 << 15)
def _form(subgame: Subgame, pot_half: int) -> bytes:
    if subgame.street == "turn" and subgame.betting.later_sizes is None:
        # Bets multiply what is at stake by the same numbers in both rounds, so the first, which is compiled sooner,
        # tells of both.
        subgame = replace(subgame, to_the_end=False)
    return compile_tree(subgame.tree(pot_half)).programs[0].code.tobytes()
