"""A public tree as a list of instructions for one player's traversal, which `poker.kernels` carries out.

Vectors over all hands lie in slots: on the way down reaches of the other player, on the way up values of the
traversing one. Slot 0 and 1 hold the ranges of the players. An instruction is a row of int32, the operation and what
it works on:

    SPLIT   first, count, slot, to        the other player decides: his reach goes on into `count` slots from `to` on
    TOTAL   slot                          sums of a reach over all hands, and over those with each card
    FOLD    slot, end, to, add            values where nobody shows
    SHOW    slot, end, to, add, board     values where hands are compared
    CHOOSE  first, count, slot, to, add   the traversing player decides between `count` values from `slot` on
    CLEAR   to                            zeros
    DEAL    slot, to, board               the reach of hands that a new card does not block
    LEAF    slot, leaf, to, add           values that somebody else says, who is told the reach
    GATHER  slot, to, board, cards        adds the values of such hands, one of so many cards having been dealt

Where the other player decides, values are summed: all but the first that go `to` a slot `add` to what is there.
"""

from dataclasses import dataclass, field

import numpy as np

from poker.tree import Chance, Decision, Fold, Leaf, Node, Showdown, nodes

SPLIT, TOTAL, FOLD, SHOW, CHOOSE, CLEAR, DEAL, GATHER, LEAF = range(9)
WIDTH = 6
ROOT_VALUE, FREE = 2, 3


@dataclass(frozen=True, slots=True)
class Program:
    """What one player's traversal does.

    Attributes:
        code: int32 [instructions, WIDTH].
        slots: how many it needs; values are left in `ROOT_VALUE`.
    """

    code: np.ndarray
    slots: int


@dataclass(frozen=True, slots=True)
class CompiledTree:
    """A tree for both players.

    Attributes:
        programs: of player 0 and 1.
        first: of each decision, in the order of `poker.tree.nodes`, the number of its first action among all actions.
        actions: how many there are.
        leaves: how many there are, numbered in tree order.
        slots: that the greater program needs.
    """

    programs: tuple[Program, Program]
    first: tuple[int, ...]
    actions: int
    leaves: int

    @property
    def slots(self) -> int:
        return max(program.slots for program in self.programs)


def compile_tree(tree: Node) -> CompiledTree:
    """Return the programs of both players, which depend on the form of the tree and not on its stakes."""
    one, other = _Compiler(0), _Compiler(1)
    programs = one.program(tree), other.program(tree)
    return CompiledTree(programs, tuple(one.first), one.actions, one.leaves)


def stakes(tree: Node) -> np.ndarray:
    """Return float64 [2, ends]: what each player wins at each end; of a showdown what is won and lost there."""

    def of(node: Node) -> list[tuple[float, float]]:
        match node:
            case Fold(winner, stake):
                return [(stake, -stake) if winner == 0 else (-stake, stake)]
            case Showdown(stake=stake):
                return [(stake, stake)]
            case Leaf():
                return []
            case Decision(actions=children) | Chance(deals=children):
                return [end for _, child in children for end in of(child)]

    return np.array(of(tree)).reshape(-1, 2).T.copy()


def leaf_stakes(tree: Node) -> np.ndarray:
    """Return float64 [leaves]: what each player has put in at each."""
    return np.array([node.stake for node in nodes(tree) if isinstance(node, Leaf)])


@dataclass
class _Compiler:
    player: int
    code: list[tuple[int, ...]] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    actions: int = 0
    ends: int = 0
    leaves: int = 0
    slots: int = FREE
    summed: set[int] = field(default_factory=set)

    def program(self, tree: Node) -> Program:
        self._node(tree, reach=1 - self.player, to=ROOT_VALUE, free=FREE)
        code = np.zeros((len(self.code), WIDTH), np.int32)
        for row, instruction in zip(code, self.code, strict=True):
            row[: len(instruction)] = instruction
        return Program(code, self.slots)

    def _node(self, node: Node, *, reach: int, to: int, free: int, add: bool = False) -> None:
        """Emit: the values of a node into slot `to`, or added to those there. Slots from `free` on may be used."""
        match node:
            case Fold():
                self._end(FOLD, reach, to, add)
            case Showdown(board=board):
                self._end(SHOW, reach, to, add, board)
            case Leaf():
                self._emit(LEAF, reach, self.leaves, to, add)
                self.leaves += 1
            case Decision(player, actions):
                children = [child for _, child in actions]
                if player == self.player:
                    self._own_decision(children, reach=reach, to=to, free=free, add=add)
                else:
                    self._other_decision(children, reach=reach, to=to, free=free, add=add)
            case Chance(deals, cards):
                self._take(free + 2)
                if not add:
                    self._emit(CLEAR, to)
                for board, child in deals:
                    self._new_reach(free)
                    self._emit(DEAL, reach, free, board)
                    self._node(child, reach=free, to=free + 1, free=free + 2)
                    self._emit(GATHER, free + 1, to, board, cards)

    def _own_decision(self, children: list[Node], *, reach: int, to: int, free: int, add: bool) -> None:
        count, first = len(children), self._actions_of(children)
        self._take(free + count)
        for k, child in enumerate(children):
            self._node(child, reach=reach, to=free + k, free=free + count)
        self._emit(CHOOSE, first, count, free, to, add)

    def _other_decision(self, children: list[Node], *, reach: int, to: int, free: int, add: bool) -> None:
        count, first = len(children), self._actions_of(children)
        self._take(free + count)
        self._emit(SPLIT, first, count, reach, free)
        for k, child in enumerate(children):
            self._new_reach(free + k)
            self._node(child, reach=free + k, to=to, free=free + count, add=add or k > 0)

    def _actions_of(self, children: list[Node]) -> int:
        """Number the actions of a decision, and return the first number."""
        first, self.actions = self.actions, self.actions + len(children)
        self.first.append(first)
        return first

    def _end(self, operation: int, reach: int, to: int, add: bool, board: int = 0) -> None:
        if reach not in self.summed:  # once for all ends that the same reach comes to
            self.summed.add(reach)
            self._emit(TOTAL, reach)
        self._emit(operation, reach, self.ends, to, add, board)
        self.ends += 1

    def _new_reach(self, slot: int) -> None:
        self.summed.discard(slot)

    def _take(self, slots: int) -> None:
        self.slots = max(self.slots, slots)

    def _emit(self, *instruction: int) -> None:
        self.code.append(instruction)
