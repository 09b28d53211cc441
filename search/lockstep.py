"""What searches that grow trees have in common: many trees take their next simulation at the same time.

One step selects a move in every tree, plays them all, asks the model about the new positions in one request,
and backs the values up. `K` is the number of trees that take part in something, `A` that of actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numba import njit

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps
from games.game import Game, States
from search.contract import ask
from search.half import to_float32
from search.prefetch import prefetch
from search.randomness import SYMMETRY, random_bits
from search.tree import (
    LOWEST_LOGIT,
    LOWEST_PLACE,
    NEVER,
    Trees,
    back_up,
    in_order,
    leave_closed,
    open_roots,
    plant,
)

_ROUNDS_PER_STEP = 4
"""How often a tree may begin anew within a step because its simulation met the end of a game, and"""
_LEAST_SHARE_PER_ROUND = 0.25
"""which share of the trees must do so. More would fill requests better, but a round costs the calls of a whole step."""

AHEAD = 4
"""How many trees ahead the processor is asked for what will be needed; that makes a search a fifteenth faster."""

_EXPONENT = np.int32(0x7F800000)
"""The bits that are all set where a float32 is not finite."""


class Leaves(NamedTuple):
    """New nodes: in trees[i], actions[i] of node parents[i] leads to nodes[i]. int32 [K], actions int16."""

    trees: np.ndarray
    parents: np.ndarray
    actions: np.ndarray
    nodes: np.ndarray


@njit(cache=True, nogil=True)
def new_leaves(most):
    """Return room for up to `most` leaves."""
    return Leaves(
        np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int16), np.empty(most, np.int32)
    )


@njit(cache=True, nogil=True)
def cut_leaves(leaves, count):
    """Return the first `count` leaves."""
    return Leaves(leaves.trees[:count], leaves.parents[:count], leaves.actions[:count], leaves.nodes[:count])


Select: TypeAlias = Callable[[np.ndarray, np.ndarray], Leaves]
"""Takes (trees int32 [K], simulations left int32 [B]); gives a new leaf for each tree, counts `left` down.

A simulation that ends in a node where the game is known to be over is backed up and counted on the way, and
the next one is tried; a tree that has none left then has no leaf.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Positions that are searched in lockstep; tree i grows from the position in row roots[i].

    Attributes:
        game, states: the rules and the pool.
        roots: int32 [B].
        budgets: int32 [B], simulations.
        keys: uint64 [B].
        trees: at least B trees, of at least one node more than the highest budget.
        num_symmetries: the model is shown a position under one of these, drawn for each node; 1 turns it off.
    """

    game: Game
    states: States
    roots: np.ndarray
    budgets: np.ndarray
    keys: np.ndarray
    trees: Trees
    num_symmetries: int = 1

    def __post_init__(self) -> None:
        # Kernels do not check bounds.
        games, max_nodes = self.trees.nodes.shape
        if len(self.roots) > games:
            raise ValueError(f"{len(self.roots)} games for a search that was made for {games}")
        if self.budgets.max() >= max_nodes:
            raise ValueError(f"a budget of {self.budgets.max()} where the most is {max_nodes - 1}")

    def simulations(self) -> np.ndarray:
        """Return a copy of the budgets, to be counted down."""
        if self.budgets.min() < 1:
            raise ValueError(f"a budget of {self.budgets.min()} where the least is 1")
        return self.budgets.astype(np.int32)


def evaluate_roots(batch: Batch, model: str) -> Steps[int]:
    """Plant the trees and ask about their roots; return the version of the weights."""
    plant(batch.trees, batch.game.to_play(batch.states, batch.roots))
    everyone = np.arange(len(batch.roots), dtype=np.int32)
    version = yield from evaluate(batch, model, everyone, np.zeros_like(everyone))
    open_roots(batch.trees, len(everyone))
    return version


def simulate(batch: Batch, model: str, select: Select, *, root_version: int) -> Steps[int]:
    """Spend the budgets on evaluated roots; return the oldest version of the weights that took part."""
    left = batch.simulations()
    oldest = root_version
    while _some_left(left):
        trees, nodes = find_leaves(batch, left, select)
        if trees.size:
            version = yield from evaluate(batch, model, trees, nodes)
            oldest = min(oldest, version)
    return oldest


def find_leaves(batch: Batch, left: np.ndarray, select: Select) -> tuple[np.ndarray, np.ndarray]:
    """Begin a simulation in every tree that has some `left`; return (trees, nodes) int32 [K] to be evaluated.

    A simulation that ends the game is backed up at once, and its tree begins the next: requests stay full.
    """
    game, states, roots = batch.game, batch.states, batch.roots
    searching = np.arange(len(roots), dtype=np.int32)  # those that have none left are passed over
    trees, nodes = [], []
    for _ in range(_ROUNDS_PER_STEP):
        leaves = select(searching, left)
        if not leaves.trees.size:
            break
        parents, rows = _state_rows_of(roots, leaves)
        game.play(states, parents, leaves.actions, rows)
        ended, values = game.outcome(states, rows)
        players = game.to_play(states, rows)
        in_play_trees, in_play_nodes, searching = _settle(batch.trees, leaves, players, ended, values, left)
        trees.append(in_play_trees)
        nodes.append(in_play_nodes)
        if len(searching) < _LEAST_SHARE_PER_ROUND * len(roots):
            break
    if len(trees) == 1:
        return trees[0], nodes[0]
    nobody = np.empty(0, np.int32)
    return np.concatenate([nobody, *trees]), np.concatenate([nobody, *nodes])


def evaluate(batch: Batch, model: str, trees: np.ndarray, nodes: np.ndarray) -> Steps[int]:
    """Ask about nodes [K], open their moves and back their values up; return the version of the weights.

    Raises:
        EvaluationError: when the evaluation failed twice, or is not one of this game.
    """
    game, states = batch.game, batch.states
    rows = state_rows(batch.roots, trees, nodes)
    arrays, views = game.encode(states, rows, draw_symmetries(batch.keys, trees, nodes, batch.num_symmetries))
    (reply,) = yield from ask((Request(model, arrays),))
    logits, values = read_reply(reply, game, rows, model=model)
    logits, legal = to_float32(logits), game.legal(states, rows)
    if not _take_in(batch.trees, trees, nodes, logits, game.views.view(np.uint16), views, legal, values):
        # Which may be of illegal moves; if not, they are refused.
        place_logits(logits, game, states, rows, views, model=model)
    return reply.weights_version


def read_reply(reply: Reply, game: Game, rows: np.ndarray, *, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (logits [K, A], as they came; values float32 [K]) of a reply about the positions in rows [K].

    Raises:
        EvaluationError: when its arrays have other names or shapes, or a value is not in [-1, 1].
    """
    shapes = {name: array.shape for name, array in reply.arrays.items()}
    expected = {"policy": (len(rows), game.num_actions), "value": (len(rows),)}
    if shapes != expected:
        raise _foreign(model, f"it gave arrays of {shapes} where {expected} was expected")
    values = np.ascontiguousarray(reply.arrays["value"], np.float32)
    if not _all_within_one(values):
        usable = abs(values) <= 1.0
        raise _foreign(model, f"values must be in [-1, 1], in state rows {rows[~usable]} they are not")
    return reply.arrays["policy"], values


def place_logits(
    logits: np.ndarray, game: Game, states: States, rows: np.ndarray, views: np.ndarray, *, model: str
) -> np.ndarray:
    """Bring logits [K, A] about the positions in `rows` from their views into the game's order of actions.

    Returns:
        float32 [K, A]: how far those of legal moves are below the best, down to LOWEST_LOGIT; -inf for others.

    Raises:
        EvaluationError: when that of a legal move is not finite.
    """
    placed, usable = _place(to_float32(logits), game.views.view(np.uint16), views, game.legal(states, rows))
    if not np.logical_and.reduce(usable):
        raise _foreign(model, f"logits must be finite, in state rows {rows[~usable]} they are not")
    return placed


def _foreign(model: str, why: str) -> EvaluationError:
    return EvaluationError(
        f"what model {model!r} said cannot be used",
        why=why,
        fix="check that the model was trained for this game, and that its training did not diverge",
    )


@njit(cache=True, nogil=True)
def state_rows(roots, trees, nodes):
    """Return int32 [K]: the rows of nodes[i] of trees[i]. In numpy these were two calls, and dearer."""
    rows = np.empty(len(nodes), np.int32)
    for i in range(len(nodes)):
        rows[i] = roots[trees[i]] + nodes[i]
    return rows


@njit(cache=True, nogil=True)
def _state_rows_of(roots, leaves):
    """Return (int32 [K], int32 [K]): the rows of the parents of leaves, and their own, in one call."""
    parents, rows = np.empty_like(leaves.trees), np.empty_like(leaves.trees)
    for i in range(len(rows)):
        root = roots[leaves.trees[i]]
        parents[i] = root + leaves.parents[i]
        rows[i] = root + leaves.nodes[i]
    return parents, rows


@njit(cache=True, nogil=True)
def _some_left(left):
    """Tell whether a tree has simulations left; numpy takes four times as long to be asked."""
    most = np.int32(0)
    for tree in range(len(left)):
        most = max(most, left[tree])
    return most > 0


@njit(cache=True, nogil=True)
def _all_within_one(values):
    """Tell whether all are in [-1, 1]; NaN is not."""
    outside = 0
    for i in range(len(values)):
        outside += not abs(values[i]) <= 1.0
    return outside == 0


@njit(cache=True, nogil=True)
def draw_symmetries(keys, trees, nodes, count):
    """Return int8 [K]: for each of nodes [K] one of `count` symmetries; the identity if there is no other."""
    symmetries = np.zeros(len(trees), np.int8)
    if count > 1:
        for i in range(len(trees)):
            symmetries[i] = random_bits(keys[trees[i]], SYMMETRY, nodes[i]) % np.uint64(count)
    return symmetries


@njit(cache=True, nogil=True)
def _settle(trees, leaves, players, ended, values, left):
    """Note what the rules say of the leaves, and back up those where the game is over.

    Returns:
        (trees, nodes) of those where it is not, and the trees of the others that have simulations left.
    """
    in_play_trees = np.empty_like(leaves.trees)
    in_play_nodes = np.empty_like(leaves.nodes)
    again = np.empty_like(leaves.trees)
    num_in_play = num_again = 0
    for i in range(len(leaves.trees)):
        tree = leaves.trees[i]
        node = trees.nodes[tree, leaves.nodes[i]]
        node.player = players[i]
        node.ended = ended[i]
        if not ended[i]:
            in_play_trees[num_in_play] = tree
            in_play_nodes[num_in_play] = leaves.nodes[i]
            num_in_play += 1
            continue
        node.value = values[i]
        back_up(trees, tree, leaves.nodes[i], values[i])
        if left[tree] > 0:
            again[num_again] = tree
            num_again += 1
    return in_play_trees[:num_in_play], in_play_nodes[:num_in_play], again[:num_again]


@njit(cache=True, nogil=True)
def _place(logits, places, views, legal):
    """Bring logits from the views into the game's order of actions, and check them.

    Returns:
        (float32 [K, A]: how far the logits of legal moves are below the best, -inf for the others;
        bool [K]: whether those of the legal moves are finite).
    """
    placed = np.empty(legal.shape, np.float32)
    usable = np.empty(len(legal), np.bool_)
    for i in range(len(legal)):
        view, num_legal = views[i], 0
        for action in range(legal.shape[1]):
            logit = logits[i, places[view, action]]
            placed[i, action] = logit if legal[i, action] else NEVER
            num_legal += legal[i, action]
        highest, num_finite = LOWEST_PLACE, np.int32(0)
        for action in range(legal.shape[1]):
            bits = np.float32(placed[i, action]).view(np.int32)
            place = in_order(bits)
            highest = place if place > highest else highest
            num_finite += np.int32(bits & _EXPONENT != _EXPONENT)
        top = np.int32(in_order(highest)).view(np.float32)
        for action in range(legal.shape[1]):
            below = np.float32(placed[i, action] - top)
            at_least = LOWEST_LOGIT if placed[i, action] > NEVER else NEVER
            placed[i, action] = below if below > at_least else at_least
        usable[i] = num_finite == num_legal
    return placed, usable


@njit(cache=True, nogil=True)
def _take_in(trees, which, nodes, logits, places, views, legal, values):
    """Note what was said of the moves of new nodes [K], and back their values up.

    The moves are opened when the node is selected again, which most nodes never are.

    Returns:
        Whether all logits are finite.
    """
    bits, num_finite = logits.reshape(-1).view(np.int32), 0
    for k in range(len(bits)):
        num_finite += bits[k] & _EXPONENT != _EXPONENT
    for i in range(len(which)):
        tree, node, view = which[i], nodes[i], views[i]
        ahead = min(i + AHEAD, len(which) - 1)
        prefetch(trees.nodes, which[ahead], 0)
        prefetch(trees.nodes, which[ahead], nodes[ahead])
        for action in range(legal.shape[1]):
            logit = logits[i, places[view, action]]
            trees.open_priors[tree, node, action] = logit if legal[i, action] else NEVER
        leave_closed(trees, tree, node)
        trees.nodes[tree, node].value = values[i]
        back_up(trees, tree, node, values[i])
    return num_finite == len(bits)
