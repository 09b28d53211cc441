"""Monte Carlo tree search with random games in the place of a model: UCT.

After Kocsis and Szepesvári (2006), "Bandit based Monte-Carlo planning": every move of a node is tried once,
in random order, then the one with the highest Q(a) + c · sqrt(ln(visits of the node) / N(a)). A new
position is worth what one game of random moves from there comes to. The strength of this opponent is its
simulations alone.
"""

import math
from functools import partial

import numpy as np
from numba import njit

from core.messages import Steps
from games.game import Game, States
from search.contract import Decisions
from search.lockstep import Batch, cut_leaves, find_leaves, new_leaves
from search.puct import conclude_by_visits
from search.random_play import draw_legal
from search.randomness import ORDER, ROLLOUT, uniform
from search.tree import (
    NO_ACTION,
    NO_NODE,
    add_child,
    back_up,
    make_trees,
    plant,
    share_out,
)

EXPLORATION = math.sqrt(2.0)


class RolloutSearch:
    """UCT for up to `games` games at once with up to `simulations` each; asks no model and takes no noise.

    A row with `sample` draws its move from the share of visits.
    """

    def __init__(self, game: Game, *, simulations: int, games: int) -> None:
        # The last row of each game's block is where its random games are played.
        self.rows_per_game = simulations + 2
        self._trees = make_trees(games, max_nodes=simulations + 1, num_actions=game.num_actions)

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
        """See `search.contract.Search`."""
        yield from ()
        trees = self._trees
        batch = Batch(game=game, states=states, roots=roots, budgets=budgets, keys=keys, trees=trees)
        plant(trees, game.to_play(states, roots))
        everyone = np.arange(len(roots), dtype=np.int32)
        self._evaluate(batch, everyone, np.zeros_like(everyone))
        select = partial(_select, trees)
        left = batch.simulations()
        while left.any():
            self._evaluate(batch, *find_leaves(batch, left, select))
        return conclude_by_visits(trees, keys, sample, temperature=1.0, weights_version=-1)

    def _evaluate(self, batch: Batch, trees: np.ndarray, nodes: np.ndarray) -> None:
        """Open the moves of nodes [K] and back up what a random game from each came to."""
        legal = batch.game.legal(batch.states, batch.roots[trees] + nodes)
        values = _play_out(batch, trees, nodes, spare=self.rows_per_game - 1)
        _take_in(batch.trees, trees, nodes, batch.keys, legal, values)


def _play_out(batch: Batch, trees: np.ndarray, nodes: np.ndarray, *, spare: int) -> np.ndarray:
    """Return float32 [K]: the outcome of a random game from each of the nodes, from the view of its player.

    All games advance by one ply a round, each in row `spare` of its block.
    """
    game, states, bases = batch.game, batch.states, batch.roots[trees]
    rows, keys = bases + spare, batch.keys[trees]
    game.copy(states, bases + nodes, rows)
    players = game.to_play(states, rows)
    values = np.zeros(len(rows), np.float32)
    playing = np.arange(len(rows))
    counters = nodes.astype(np.int64) * game.max_plies
    while playing.size:
        here = rows[playing]
        actions = draw_legal(game.legal(states, here), keys[playing], ROLLOUT, counters[playing])
        game.play(states, here, actions, here)
        ended, outcomes = game.outcome(states, here)
        over = playing[ended]
        same_player = game.to_play(states, here[ended]) == players[over]
        values[over] = np.where(same_player, outcomes[ended], -outcomes[ended])
        playing = playing[~ended]
        counters += 1
    return values


@njit(cache=True, nogil=True)
def _take_in(trees, which, nodes, keys, legal, values):
    """Open the moves of the nodes, with random priors for a random order, and back their values up."""
    num_actions = legal.shape[1]
    for i in range(len(which)):
        tree, node = which[i], nodes[i]
        for action in range(num_actions):
            luck = uniform(keys[tree], ORDER, node * num_actions + action) if legal[i, action] else 0.0
            trees.open_priors[tree, node, action] = luck
        share_out(trees, tree, node)
        back_up(trees, tree, node, values[i])


@njit(cache=True, nogil=True)
def _select(trees, searching, left):
    """Select a leaf in each of the trees; see `search.lockstep.Select`."""
    leaves, count = new_leaves(len(searching)), 0
    for tree in searching:
        while left[tree] > 0:
            left[tree] -= 1
            parent = 0
            action, child = _choose(trees, tree, parent)
            while child != NO_NODE and not trees.nodes[tree, child].ended:
                parent = child
                action, child = _choose(trees, tree, parent)
            if child != NO_NODE:
                back_up(trees, tree, child, trees.nodes[tree, child].value)
                continue
            leaves.trees[count] = tree
            leaves.parents[count] = parent
            leaves.actions[count] = action
            leaves.nodes[count] = add_child(trees, tree, parent, action)
            count += 1
            break
    return cut_leaves(leaves, count)


@njit(cache=True, nogil=True)
def _choose(trees, tree, index):
    """Return (action, child or NO_NODE): a move not tried yet, else the one with the highest upper bound."""
    node = trees.nodes[tree, index]
    if node.best_open != NO_ACTION:
        return node.best_open, NO_NODE
    log_visits = math.log(node.visits)
    best_action, best_child, best_score = NO_ACTION, NO_NODE, -np.inf
    child = node.first_child
    while child != NO_NODE:
        below = trees.nodes[tree, child]
        score = below.q + EXPLORATION * math.sqrt(log_visits / below.visits)
        if score > best_score or (score == best_score and below.action < best_action):
            best_action, best_child, best_score = below.action, child, score
        child = below.next_sibling
    return best_action, best_child
