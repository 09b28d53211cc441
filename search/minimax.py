"""Minimax with widths: a few plies deep, and at each position only the moves that the model likes best.

This is the strategy that Shannon (1950, "Programming a computer for playing chess") called type B. With widths
(w1, w2, …) the w1 best moves of the root are looked at, the w2 best behind each of them, and so on. A position
at the last level is worth what the model says of it, the end of a game what the rules say, and every other
position as much as the best of its moves that were looked at. All values are from the view of the player to
move in their own position, and change their sign wherever the turn does (negamax).

The levels are expanded one after the other, each for all games at once: one request about the roots, and one
for each level, holding its positions of all games. Each evaluation is used twice, its policy to choose the
moves that are looked at and its value where nothing is looked at behind. No request holds the end of a game,
nor one position of a game twice, and a position with a move that wins at once needs no other: a game whose
root has one asks no further. If the model is shown symmetries of a board, all positions of a search are shown
under the same one: equal positions stay equal inputs, and the values that are compared have the same bias.

A budget counts positions below the root. Where it is less than the widths come to, the widest level gives way
first, of equals the deepest: with (13, 8), which come to 117, a budget of 32 is spent as (5, 5), and one of 8
as (2, 2). The visits of a move are the positions that were looked at behind it, its own included.

The policy of a decision is that of Gumbel AlphaZero (see `search.gumbel`), softmax(log prior + sigma(completed
q)), where q is what a looked-at move came to; the value is the root's minimax value.

Shapes: `G` trees, `N` nodes of each, `K` nodes or positions, `A` actions, `L` levels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from configs.schema import SearchConfig, minimax_positions
from core.messages import Request, Steps
from games.game import Game, States
from search.contract import Decisions, ask
from search.distinct import distinct_rows
from search.gumbel import sigma_scale
from search.lockstep import Leaves, cut_leaves, draw_symmetries, new_leaves, place_logits, read_reply
from search.randomness import GUMBEL, gumbel

GREEDY_TEMPERATURE = 0.02
"""Up to this temperature the best moves are taken: logits divided by less leave nothing to luck."""

_FIRST_LEVEL_WITH_TRANSPOSITIONS = 3
"""Where players alternate, it takes three plies to reach a position by two ways: a, b, c and c, b, a."""

NODE = np.dtype(
    [
        ("value", "f4"),
        ("worth", "f4"),
        ("parent", "i4"),
        ("visits", "i4"),
        ("action", "i2"),
        ("player", "i1"),
        ("won", "?"),
    ],
    align=True,
)
"""One node. Values are from the view of its own player to move.

value: what the model or, at the end of a game, the rules say of it.
worth: its minimax value.
parent: a node.
visits: positions looked at from here on, its own included; 0 for a move that needed no look.
action: the move that led here.
player: who is to move.
won: whether one of its moves wins at once.
"""


class Trees(NamedTuple):
    """G trees. Node 0 is the root; the position of node n is in the state row root + n.

    Attributes:
        nodes: NODE [G, N], level by level, and within a level by their parents and the rank of their moves.
        sizes: int32 [G], nodes in use.
    """

    nodes: np.ndarray
    sizes: np.ndarray


class Frontier(NamedTuple):
    """Nodes of one level that are in play: node nodes[i] of tree trees[i], tree by tree. int32 [K] each."""

    trees: np.ndarray
    nodes: np.ndarray


class _Seen(NamedTuple):
    """What a model said of a frontier: logits [K, A] in the frames of views int16 [K], and its version."""

    logits: np.ndarray
    views: np.ndarray
    weights_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The positions to decide on, in state rows roots [B], and how model `model` is shown what follows them."""

    game: Game
    states: States
    roots: np.ndarray
    symmetries: np.ndarray
    model: str


class MinimaxSearch:
    """Minimax with widths for up to `games` games at once; holds their trees, so one `decide` at a time.

    Rows with `noise` or `sample` draw the root's w1 moves, without replacement, from softmax(logits /
    temperature); of what was drawn the best is played. The others, and all at a temperature of at most
    `GREEDY_TEMPERATURE`, take the w1 moves with the highest logits, as everyone does below the root. A root
    with no more than w1 legal moves leaves nothing to draw.
    """

    def __init__(self, config: SearchConfig, game: Game, *, games: int) -> None:
        widths = [min(width, game.num_actions) for width in config.minimax_widths]
        self._narrowings, self._positions = narrowings(widths)
        self._most_simulations = config.simulations
        most_positions = self._positions[self._positions <= config.simulations].max()
        self.rows_per_game = 1 + int(most_positions)
        self._value_scale = (config.gumbel_visit_offset, config.gumbel_value_scale)
        self._temperature = config.temperature
        self._num_symmetries = game.num_symmetries if config.root_symmetry else 1
        self._trees = Trees(np.zeros((games, self.rows_per_game), NODE), np.zeros(games, np.int32))

    def decide(
        self,
        game: Game,
        states: States,
        roots: np.ndarray,
        *,
        budgets: np.ndarray,
        keys: np.ndarray,
        model: str,
        noise: np.ndarray,
        sample: np.ndarray,
    ) -> Steps[Decisions]:
        """See `search.contract.Search`. Asks at most once more than there are widths."""
        trees, widths = self._trees, self._widths_within(budgets)
        frontier = Frontier(np.arange(len(roots), dtype=np.int32), np.zeros(len(roots), np.int32))
        symmetries = draw_symmetries(keys, *frontier, self._num_symmetries)
        batch = _Batch(game=game, states=states, roots=roots, symmetries=symmetries, model=model)
        _plant(trees, game.to_play(states, roots))
        seen = yield from _evaluate(trees, batch, frontier, level=0)
        logits, oldest = _place_logits(batch, frontier, seen), seen.weights_version
        priors = np.exp(logits)
        if self._temperature > GREEDY_TEMPERATURE:
            _draw(logits, keys, noise | sample, self._temperature)
        for level in range(1, widths.shape[1] + 1):
            leaves = _expand(trees, frontier, logits, widths[:, level - 1])
            frontier = _play(trees, batch, leaves)
            if not frontier.trees.size:
                break
            seen = yield from _evaluate(trees, batch, frontier, level=level)
            oldest = min(oldest, seen.weights_version)
            if not widths[:, level:].any():
                break
            logits = _place_logits(batch, frontier, seen)
        _back_up(trees, len(roots))
        return Decisions(*_conclude(trees, priors, self._value_scale), weights_version=oldest)

    def _widths_within(self, budgets: np.ndarray) -> np.ndarray:
        """Return int32 [B, L]: the widest widths that each budget allows, 0 at levels it does not reach."""
        # Kernels do not check bounds.
        if len(budgets) > len(self._trees.sizes):
            raise ValueError(f"{len(budgets)} games for a search that was made for {len(self._trees.sizes)}")
        if budgets.max() > self._most_simulations:
            raise ValueError(f"a budget of {budgets.max()} where the most is {self._most_simulations}")
        if budgets.min() < 1:
            raise ValueError(f"a budget of {budgets.min()} where the least is 1")
        return self._narrowings[np.searchsorted(self._positions, budgets, side="right") - 1]


def narrowings(widths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return what is made of `widths` by one narrowing after the other, the narrowest first.

    Returns:
        (int32 [S, L] the widths, 0 at levels that were given up; int64 [S] how many positions they come to)
    """
    steps, widths = [], list(widths)
    while widths[0] > 0:
        steps.append(tuple(widths))
        deepest_of_widest = max(range(len(widths)), key=lambda level: (widths[level], level))
        widths[deepest_of_widest] -= 1
    steps.reverse()
    return np.array(steps, np.int32), np.array([minimax_positions(step) for step in steps], np.int64)


def _play(trees: Trees, batch: _Batch, leaves: Leaves) -> Frontier:
    """Play the moves that lead to new nodes; return those about which the model is to be asked."""
    bases = batch.roots[leaves.trees]
    rows = bases + leaves.nodes
    batch.game.play(batch.states, bases + leaves.parents, leaves.actions, rows)
    ended, values = batch.game.outcome(batch.states, rows)
    return _settle(trees, leaves, batch.game.to_play(batch.states, rows), ended, values)


def _evaluate(trees: Trees, batch: _Batch, frontier: Frontier, *, level: int) -> Steps[_Seen]:
    """Ask about a frontier, and note its values.

    Raises:
        EvaluationError: when the evaluation failed twice, or is not one of this game.
    """
    game, rows = batch.game, batch.roots[frontier.trees] + frontier.nodes
    arrays, views = game.encode(batch.states, rows, batch.symmetries[frontier.trees])
    places = slice(None)
    if level >= _FIRST_LEVEL_WITH_TRANSPOSITIONS:
        firsts, places = distinct_rows(arrays, frontier.trees)
        arrays, rows = {name: array[firsts] for name, array in arrays.items()}, rows[firsts]
    (reply,) = yield from ask((Request(batch.model, arrays),))
    logits, values = read_reply(reply, game, rows, model=batch.model)
    trees.nodes["value"][frontier] = values[places]
    trees.nodes["visits"][frontier] = 1
    return _Seen(logits[places], views, reply.weights_version)


def _place_logits(batch: _Batch, frontier: Frontier, seen: _Seen) -> np.ndarray:
    """Return float32 [K, A]: the logits of the moves of a frontier; see `search.lockstep.place_logits`.

    A leaf's are not needed; not to bring them in halves the time that a search takes on 13×13 boards.
    """
    rows = batch.roots[frontier.trees] + frontier.nodes
    return place_logits(seen.logits, batch.game, batch.states, rows, seen.views, model=batch.model)


@njit(cache=True, nogil=True)
def _plant(trees, players):
    """Make tree i nothing but a root where players[i] is to move; int8 [B], B ≤ G."""
    for tree in range(len(players)):
        trees.sizes[tree] = 1
        root = trees.nodes[tree, 0]
        root.player = players[tree]
        root.won = False


@njit(cache=True, nogil=True)
def _draw(logits, keys, drawing, temperature):
    """Make the order of the roots' moves [B, A] a draw without replacement in the rows that are `drawing`.

    That is the order of logits / temperature + Gumbel noise (Kool, van Hoof and Welling 2019,
    "Stochastic beams and where to find them").
    """
    for i in range(len(logits)):
        if drawing[i]:
            for action in range(logits.shape[1]):
                luck = gumbel(keys[i], GUMBEL, action)
                logits[i, action] = np.float64(logits[i, action]) / temperature + luck


@njit(cache=True, nogil=True)
def _expand(trees, frontier, scores, widths):
    """Give the nodes of a frontier their best moves by scores [K, A], as many as the width [B] of their trees."""
    leaves, count = new_leaves(widths[frontier.trees].sum()), 0
    best = np.empty(widths.max(), np.int16)
    for i in range(len(frontier.trees)):
        tree, parent = frontier.trees[i], frontier.nodes[i]
        for rank in range(_find_best(scores[i], widths[tree], best)):
            node = trees.sizes[tree]
            trees.sizes[tree] = node + 1
            below = trees.nodes[tree, node]
            below.parent = parent
            below.action = best[rank]
            below.won = False
            leaves.trees[count] = tree
            leaves.parents[count] = parent
            leaves.actions[count] = best[rank]
            leaves.nodes[count] = node
            count += 1
    return cut_leaves(leaves, count)


@njit(cache=True, nogil=True)
def _find_best(scores, most, best):
    """Write the actions with the highest scores, up to `most`, to `best`, of equals the lowest first.

    Returns:
        How many there are; those of -inf are none.
    """
    count = 0
    if most == 0:
        return count
    for action in range(len(scores)):
        if scores[action] == -np.inf or (count == most and scores[action] <= scores[best[most - 1]]):
            continue
        if count < most:
            count += 1
        place = count - 1
        while place > 0 and scores[action] > scores[best[place - 1]]:
            best[place] = best[place - 1]
            place -= 1
        best[place] = action
    return count


@njit(cache=True, nogil=True)
def _settle(trees, leaves, players, ended, values):
    """Note what the rules say of new nodes; return those in play whose parents have no move that wins at once."""
    for i in range(len(leaves.nodes)):
        node = trees.nodes[leaves.trees[i], leaves.nodes[i]]
        parent = trees.nodes[leaves.trees[i], leaves.parents[i]]
        node.player = players[i]
        node.visits = ended[i]
        if ended[i]:
            node.value = values[i]
            if values[i] == (1.0 if node.player == parent.player else -1.0):
                parent.won = True
    in_play_trees, in_play_nodes = np.empty_like(leaves.trees), np.empty_like(leaves.nodes)
    count = 0
    for i in range(len(leaves.nodes)):
        if not ended[i] and not trees.nodes[leaves.trees[i], leaves.parents[i]].won:
            in_play_trees[count] = leaves.trees[i]
            in_play_nodes[count] = leaves.nodes[i]
            count += 1
    return Frontier(in_play_trees[:count], in_play_nodes[:count])


@njit(cache=True, nogil=True)
def _back_up(trees, num_trees):
    """Find the worth and the visits of every node, from the last level to the root."""
    for tree in range(num_trees):
        nodes = trees.nodes[tree]
        size = trees.sizes[tree]
        for index in range(size):
            nodes[index].worth = -np.inf
        for index in range(size - 1, -1, -1):
            node = nodes[index]
            if node.worth == -np.inf:
                node.worth = node.value
            if index > 0 and node.visits > 0:
                parent = nodes[node.parent]
                parent.visits += node.visits
                parent.worth = max(parent.worth, _to_parent(node, parent))


@njit(cache=True, nogil=True)
def _to_parent(node, parent):
    """Return what the move that led to `node` came to, from the view of the player who made it."""
    return node.worth if node.player == parent.player else -node.worth


@njit(cache=True, nogil=True)
def _conclude(trees, priors, value_scale):
    """Return (actions int16 [B], policies float32 [B, A], values float32 [B], visits int32 [B, A]).

    `priors` [B, A] are those of the root's moves, up to a factor. Of moves that came to the same the one that
    was ranked or drawn first is played.
    """
    num_trees, num_actions = priors.shape
    actions = np.empty(num_trees, np.int16)
    policies = np.empty((num_trees, num_actions), np.float32)
    values = np.empty(num_trees, np.float32)
    visits = np.zeros((num_trees, num_actions), np.int32)
    q = np.empty(num_actions)
    for tree in range(num_trees):
        nodes = trees.nodes[tree]
        root = nodes[0]
        values[tree] = root.worth
        actions[tree] = -1
        for index in range(1, trees.sizes[tree]):
            node = nodes[index]
            if node.parent != 0:
                break
            visits[tree, node.action] = node.visits
            if node.visits > 0:
                q[node.action] = _to_parent(node, root)
                if actions[tree] == -1 and q[node.action] == root.worth:
                    actions[tree] = node.action
        _improve(policies[tree], priors[tree], visits[tree], q, root.value, value_scale)
    return actions, policies, values, visits


@njit(cache=True, nogil=True)
def _improve(policy, priors, visits, q, value, value_scale):
    """Write pi' = softmax(log prior + sigma(completed q)) to `policy`; q [A] counts where there are visits.

    The other moves are taken to be worth the mixed value, of the model's `value` and the mean q by priors.
    """
    weighted = mass = 0.0
    total_visits = most = 0
    top = -1.0
    for action in range(len(priors)):
        if visits[action] > 0:
            weighted += priors[action] * q[action]
            mass += priors[action]
            total_visits += visits[action]
            most = max(most, visits[action])
            top = max(top, q[action])
    mixed = (value + total_visits * weighted / mass) / (1 + total_visits)
    scale = sigma_scale(value_scale, most)
    top = max(top, mixed)
    total = 0.0
    for action in range(len(priors)):
        completed = q[action] if visits[action] > 0 else mixed
        policy[action] = priors[action] * math.exp(scale * (completed - top)) if priors[action] > 0.0 else 0.0
        total += policy[action]
    for action in range(len(priors)):
        policy[action] /= total
