"""Solving as the papers write it: every pair of hands is compared, every node visited by itself.

They share with the real solver nothing but the trees, the hands and the weights of a schedule.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, hstack

from poker.hands import NO_CARD, HandSet, order_by
from poker.schedules import Schedule, Weights
from poker.tree import Chance, Decision, Fold, Leaf, Node, Showdown

Path = tuple[int, ...]
"""Which child was taken at each node from the root on."""


class Pairs:
    """What becomes of each pair of hands.

    Attributes:
        meet: [H, H], 1 where two hands have no card in common.
        wins: of each board [H, H], 1 where the first beats the second, -1 where it loses, 0 for equals and where one
            of them is blocked or they do not meet.
        alive: of each board [H], 1 where it does not block a hand.
    """

    def __init__(self, hands: HandSet) -> None:
        held = [{card for card in row if card != NO_CARD} for row in hands.cards.tolist()]
        every = range(hands.number)
        self.meet = np.array([[float(not held[i] & held[j]) for j in every] for i in every])
        self.wins, self.alive = [], []
        for board in hands.boards:
            group, begin = dict[int, int](), 0
            for number, end in enumerate(board.ends.tolist()):
                group.update(dict.fromkeys(board.hands[begin:end].tolist(), number))
                begin = end
            wins = np.zeros((hands.number, hands.number))
            for i in group:
                for j in group:
                    if not held[i] & held[j]:
                        wins[i, j] = (group[i] > group[j]) - (group[i] < group[j])
            self.wins.append(wins)
            self.alive.append(np.array([float(i in group) for i in every]))


def places(tree: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yield all nodes with their paths, one before those below it."""
    yield path, tree
    match tree:
        case Decision(actions=children) | Chance(deals=children):
            for k, (_, child) in enumerate(children):
                yield from places(child, (*path, k))


def decisions(tree: Node) -> Iterator[tuple[Path, Decision]]:
    """Yield all decisions, one before those below it."""
    return ((path, node) for path, node in places(tree) if isinstance(node, Decision))


Play = Callable[[Path, np.ndarray], np.ndarray]
"""Returns the strategy [A, H] of the other player at a node that he reaches with [H]."""
Answer = Callable[[Path, np.ndarray], np.ndarray]
"""Returns the values [H] of a decision of which the actions have the values [A, H]."""
Says = Callable[[np.ndarray, float], np.ndarray]
"""Returns the values [2, H] of a leaf to which players come with masses [2, H], each having put in so much."""


def leaves_worth_nothing(masses: np.ndarray, stake: float) -> np.ndarray:
    return np.zeros_like(masses)


class SlowSolver:
    """Counterfactual regret minimisation in float64 with matrices of all pairs of hands."""

    def __init__(
        self, tree: Node, hands: HandSet, ranges: np.ndarray, says: Says = leaves_worth_nothing
    ) -> None:
        self.tree, self.pairs, self.ranges, self.says = tree, Pairs(hands), ranges, says
        self.leaf_values: dict[Path, np.ndarray] = {}
        self.regrets = {path: np.zeros((len(at.actions), hands.number)) for path, at in decisions(tree)}
        self.average = {path: np.zeros_like(regrets) for path, regrets in self.regrets.items()}
        self.mass = float(ranges[0] @ self.pairs.meet @ ranges[1])
        self.iterations = 0

    def iterate(self, schedule: Schedule, count: int) -> None:
        for _ in range(count):
            self.iterations += 1
            weights = schedule.weights(self.iterations)
            self._value_leaves(self.regrets)
            if schedule.simultaneous:
                before = dict(self.regrets)
                self._learn(0, before, weights, schedule.floor)
                self._learn(1, before, weights, schedule.floor)
            else:
                self._learn(0, self.regrets, weights, schedule.floor)
                self._learn(1, self.regrets, weights, schedule.floor)

    def values(self) -> np.ndarray:
        """Return [2, H] at the root when both play their average strategies."""
        self._value_leaves(self.average)
        return np.stack([self._values(player, self._mean) for player in (0, 1)])

    def best_values(self) -> np.ndarray:
        """Return those of the best answer of each; leaves are worth what they are under average strategies."""
        self._value_leaves(self.average)
        return np.stack([self._values(player, lambda path, gains: gains.max(0)) for player in (0, 1)])

    def leaf_masses(self, parts: dict[Path, np.ndarray]) -> dict[Path, np.ndarray]:
        """Return the masses [2, H] with which players who play by these parts come to each leaf."""
        found = dict[Path, np.ndarray]()
        for path, leaf in places(self.tree):
            if isinstance(leaf, Leaf):
                masses, node = self.ranges.copy(), self.tree
                for depth, k in enumerate(path):
                    match node:
                        case Decision(player, actions):
                            masses[player] *= matched(parts[path[:depth]])[k]
                            node = actions[k][1]
                        case Chance(deals=deals):
                            masses *= self.pairs.alive[deals[k][0]]
                            node = deals[k][1]
                found[path] = masses
        return found

    def _value_leaves(self, parts: dict[Path, np.ndarray]) -> None:
        stakes = {path: node.stake for path, node in places(self.tree) if isinstance(node, Leaf)}
        for path, masses in self.leaf_masses(parts).items():
            self.leaf_values[path] = self.says(masses, stakes[path])

    def _values(self, player: int, answer: Answer) -> np.ndarray:
        def play(path: Path, reach: np.ndarray) -> np.ndarray:
            return matched(self.average[path])

        return self._walk(self.tree, (), player, self.ranges[1 - player], play, answer)

    def _mean(self, path: Path, gains: np.ndarray) -> np.ndarray:
        return (matched(self.average[path]) * gains).sum(0)

    def _learn(self, player: int, regrets: dict[Path, np.ndarray], weights: Weights, floor: bool) -> None:
        def play(path: Path, reach: np.ndarray) -> np.ndarray:
            strategy = matched(regrets[path])
            self.average[path] = self.average[path] * weights.decay + weights.weight * reach * strategy
            return strategy

        def answer(path: Path, gains: np.ndarray) -> np.ndarray:
            old = regrets[path]
            value = (matched(old) * gains).sum(0)
            new = old * np.where(old > 0, weights.positive, weights.negative) + gains - value
            self.regrets[path] = np.maximum(new, 0) if floor else new
            return value

        self._walk(self.tree, (), player, self.ranges[1 - player], play, answer)

    def _walk(
        self, node: Node, path: Path, player: int, reach: np.ndarray, play: Play, answer: Answer
    ) -> np.ndarray:
        def below(k: int, child: Node, reach: np.ndarray) -> np.ndarray:
            return self._walk(child, (*path, k), player, reach, play, answer)

        match node:
            case Fold(winner, stake):
                return (stake if winner == player else -stake) * (self.pairs.meet @ reach)
            case Showdown(stake, board):
                return stake * (self.pairs.wins[board] @ reach)
            case Leaf():
                return self.leaf_values[path][player]
            case Chance(deals, cards):
                value = np.zeros_like(reach)
                for k, (board, child) in enumerate(deals):
                    alive = self.pairs.alive[board]
                    value += alive * below(k, child, alive * reach) / cards
                return value
            case Decision(mover, actions) if mover == player:
                return answer(
                    path, np.stack([below(k, child, reach) for k, (_, child) in enumerate(actions)])
                )
            case Decision(_, actions):
                strategy = play(path, reach)
                gains = [below(k, child, reach * strategy[k]) for k, (_, child) in enumerate(actions)]
                return np.sum(gains, axis=0)


def matched(parts: np.ndarray) -> np.ndarray:
    """Return [A, H]: the positive of the parts [A, H], as shares of their sum; equal shares where none is."""
    parts = np.maximum(parts, 0)
    mass = parts.sum(0)
    return np.where(mass > 0, parts / np.where(mass > 0, mass, 1), 1 / len(parts))


class SequenceForm:
    """The game as a linear program (Koller, Megiddo and von Stengel 1996).

    A sequence of a player is a hand and the last action that he took with it, and its weight is the probability of all
    his actions up to that one. The weights of what follows a decision add up to the weight of the sequence before it.
    """

    def __init__(self, tree: Node, hands: HandSet, ranges: np.ndarray) -> None:
        self.pairs = Pairs(hands)
        chances = ranges[0][:, None] * ranges[1] * self.pairs.meet
        self.chances = chances / chances.sum()
        self.sequences = [0, 0]
        self.rules: tuple[list[dict[int, float]], list[dict[int, float]]] = ([], [])
        self.payoffs: dict[tuple[int, int], float] = {}
        starts = [np.array([self._new(player) for _ in range(hands.number)]) for player in (0, 1)]
        for player in (0, 1):
            self.rules[player].extend({int(sequence): 1.0} for sequence in starts[player])
        self.hands = hands.number
        self._walk(tree, self.chances, starts[0], starts[1])

    def value(self) -> float:
        """Return what player 0 wins on average when both play as well as they can."""
        # Player 0 chooses weights x under his rules E x = e. What the best answer leaves him at each rule of player 1
        # is q, no more than any sequence there leaves: F' q ≤ A' x. The first q, one for each hand, make up the value.
        mine, his = self.sequences
        before, after = len(self.rules[0]), len(self.rules[1])
        equal, bounds = self._matrix(0), self._matrix(1)
        rows, columns = zip(*self.payoffs, strict=True)
        payoffs = csr_matrix((list(self.payoffs.values()), (columns, rows)), shape=(his, mine))
        above = np.zeros(mine + after)
        above[mine : mine + self.hands] = -1.0
        begins = np.zeros(before)
        begins[: self.hands] = 1.0
        found = linprog(
            above,
            A_ub=hstack([-payoffs, bounds.T]),
            b_ub=np.zeros(his),
            A_eq=hstack([equal, csr_matrix((before, after))]),
            b_eq=begins,
            bounds=[(0, None)] * mine + [(None, None)] * after,
            method="highs",
        )
        assert found.success, found.message
        return -float(found.fun)

    def _new(self, player: int) -> int:
        self.sequences[player] += 1
        return self.sequences[player] - 1

    def _walk(self, node: Node, chances: np.ndarray, mine: np.ndarray, his: np.ndarray) -> None:
        match node:
            case Fold(winner, stake):
                self._pay(chances * (stake if winner == 0 else -stake), mine, his)
            case Showdown(stake, board):
                self._pay(chances * stake * self.pairs.wins[board], mine, his)
            case Chance(deals, cards):
                for board, child in deals:
                    alive = self.pairs.alive[board]
                    self._walk(child, chances * alive[:, None] * alive / cards, mine, his)
            case Decision(player, actions):
                before = (mine, his)[player]
                after = np.array([[self._new(player) for _ in range(self.hands)] for _ in actions])
                for hand in range(self.hands):
                    rule = {int(before[hand]): -1.0}
                    self.rules[player].append(rule | {int(sequence): 1.0 for sequence in after[:, hand]})
                for own, (_, child) in zip(after, actions, strict=True):
                    self._walk(child, chances, *((own, his) if player == 0 else (mine, own)))

    def _pay(self, gains: np.ndarray, mine: np.ndarray, his: np.ndarray) -> None:
        for i, j in np.argwhere(gains).tolist():
            place = int(mine[i]), int(his[j])
            self.payoffs[place] = self.payoffs.get(place, 0.0) + gains[i, j]

    def _matrix(self, player: int) -> csr_matrix:
        entries = [(row, *entry) for row, rule in enumerate(self.rules[player]) for entry in rule.items()]
        rows, columns, values = zip(*entries, strict=True)
        return csr_matrix((values, (rows, columns)), shape=(len(self.rules[player]), self.sequences[player]))


def mirrored(tree: Node) -> Node:
    """Return a tree in which the players have changed places."""
    match tree:
        case Fold(winner, stake):
            return Fold(1 - winner, stake)
        case Showdown() | Leaf():
            return tree
        case Chance(deals, cards):
            return Chance(tuple((board, mirrored(child)) for board, child in deals), cards)
        case Decision(player, actions):
            return Decision(1 - player, tuple((word, mirrored(child)) for word, child in actions))


def picked(hands: HandSet, chosen: Sequence[int]) -> HandSet:
    """Return the hand set of only some hands, in the order in which they are named."""
    place = {hand: k for k, hand in enumerate(chosen)}
    boards = []
    for board in hands.boards:
        strength = np.zeros(len(chosen), np.int64)
        begin, alive = 0, []
        for group, end in enumerate(board.ends.tolist()):
            for hand in board.hands[begin:end].tolist():
                if hand in place:
                    strength[place[hand]] = group
                    alive.append(place[hand])
            begin = end
        boards.append(order_by(strength, np.array(sorted(alive), np.int64)))
    return HandSet(hands.cards[list(chosen)], tuple(boards))


@dataclass(frozen=True)
class Situation:
    """A tree, hands and ranges [2, H]."""

    tree: Node
    hands: HandSet
    ranges: np.ndarray


CARDS = 9
"""Of the decks of random situations."""


@st.composite
def hand_sets(draw: st.DrawFn) -> HandSet:
    """Hands of one card or of two; the first board blocks none, each other those with one card; many are equal."""
    number = draw(st.integers(1, 2))
    every = (
        [(card, NO_CARD) for card in range(CARDS)]
        if number == 1
        else [(a, b) for a in range(CARDS) for b in range(a + 1, CARDS)]
    )
    cards = np.array(draw(st.lists(st.sampled_from(every), min_size=1, max_size=12, unique=True)), np.int32)
    blocking = draw(st.lists(st.integers(0, CARDS - 1), max_size=3, unique=True))
    boards = []
    for card in [-1, *blocking]:
        strengths = draw(st.lists(st.integers(0, 4), min_size=len(cards), max_size=len(cards)))
        boards.append(order_by(np.array(strengths), np.flatnonzero((cards != card).all(1))))
    return HandSet(cards, tuple(boards))


stakes = st.floats(0.25, 16)
masses = st.one_of(st.just(0.0), st.floats(1e-12, 1), st.floats(0.5, 1))


@st.composite
def trees(draw: st.DrawFn, boards: int, *, depth: int = 3, board: int = 0, leaves: bool = False) -> Node:
    """Trees in which a card is dealt once at most, and up to five actions are to choose from."""
    deals = board == 0 and boards > 1
    ends = ["fold", "show", *(["leaf"] * 2 if leaves else [])]
    kinds = [*ends, *(["deal"] if deals else []), *(["decide"] * 3 if depth else [])]
    match draw(st.sampled_from(kinds)):
        case "fold":
            return Fold(draw(st.integers(0, 1)), draw(stakes))
        case "show":
            return Showdown(draw(stakes), board)
        case "leaf":
            return Leaf(draw(stakes))
        case "deal":
            below = [
                (number, draw(trees(boards, depth=min(depth, 2), board=number, leaves=leaves)))
                for number in range(1, boards)
            ]
            return Chance(tuple(below), cards=draw(st.integers(boards - 1, CARDS)))
        case _:
            count = draw(st.sampled_from([1, 2, 2, 2, 3, 3, 4, 5]))
            below = [
                (str(k), draw(trees(boards, depth=depth - 1, board=board, leaves=leaves)))
                for k in range(count)
            ]
            return Decision(draw(st.integers(0, 1)), tuple(below))


@st.composite
def situations(draw: st.DrawFn, *, leaves: bool = False) -> Situation:
    hands = draw(hand_sets())
    parts = draw(st.lists(masses, min_size=2 * hands.number, max_size=2 * hands.number))
    return Situation(draw(trees(len(hands.boards), leaves=leaves)), hands, np.array(parts).reshape(2, -1))
