"""PUCT, the search of AlphaZero.

After Silver et al. (2018), "A general reinforcement learning algorithm that masters chess, shogi, and Go
through self-play". Until it meets a new position, a simulation follows the moves with the highest

    Q(a) + c · P(a) · sqrt(visits of the node) / (1 + N(a))

P is the model's policy; at the root of a row with `noise` it is mixed with Dirichlet noise. The policy of a
decision is the share of visits; a row with `sample` draws its move from visits^(1/temperature).

Two deviations: c is constant, for its logarithmic growth shows beyond some thousand visits. And a move
without visits is not worth a draw or a loss but what its node is, less 0.2 · sqrt(prior mass of the moves
with visits); at a root with noise, what its node is. That is KataGo's first-play urgency (Wu 2019, arXiv
1902.10565), which with few simulations decides how wide a search is.
"""

import math
from functools import partial

import numpy as np
from numba import njit

from configs.schema import SearchConfig
from core.messages import Steps
from games.game import Game, States
from search.contract import Decisions
from search.lockstep import Batch, cut_leaves, evaluate_roots, new_leaves, simulate
from search.randomness import DIRICHLET, MOVE, dirichlet, draw, uniform
from search.tree import (
    NO_ACTION,
    NO_NODE,
    Trees,
    add_child,
    back_up,
    count_visits,
    is_closed,
    make_trees,
    open_moves,
    survey_open_moves,
)

FIRST_PLAY_REDUCTION = 0.2


class PuctSearch:
    """PUCT for up to `games` games at once; holds their trees, so one `decide` at a time."""

    def __init__(self, config: SearchConfig, game: Game, *, games: int) -> None:
        self.rows_per_game = config.simulations + 1
        self._config = config
        self._num_symmetries = game.num_symmetries if config.root_symmetry else 1
        self._trees = make_trees(games, max_nodes=self.rows_per_game, num_actions=game.num_actions)

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
        config, trees = self._config, self._trees
        batch = Batch(
            game=game,
            states=states,
            roots=roots,
            budgets=budgets,
            keys=keys,
            trees=trees,
            num_symmetries=self._num_symmetries,
        )
        root_version = yield from evaluate_roots(batch, model)
        _add_noise(trees, keys, noise, config.dirichlet_alpha, config.dirichlet_share)
        select = partial(_select, trees, config.puct_exploration, noise)
        oldest = yield from simulate(batch, model, select, root_version=root_version)
        return conclude_by_visits(trees, keys, sample, temperature=config.temperature, weights_version=oldest)


def conclude_by_visits(
    trees: Trees, keys: np.ndarray, sample: np.ndarray, *, temperature: float, weights_version: int
) -> Decisions:
    """Decide each root by its visits: the most visited move, or one drawn from visits^(1/temperature).

    Of moves with the same visits the one with the better value is taken, then the lower.
    """
    visits = count_visits(trees, len(keys))
    # Relative to the most visited move, lest high powers underflow.
    weights = visits / visits.max(axis=1, keepdims=True)
    if temperature > 0.0:
        weights **= 1.0 / temperature
    actions, values = _conclude(trees, weights, keys, sample & (temperature > 0.0))
    policies = (visits / visits.sum(axis=1, keepdims=True)).astype(np.float32)
    return Decisions(actions, policies, values, visits, weights_version)


@njit(cache=True, nogil=True)
def _add_noise(trees, keys, noise, concentration, share):
    """Mix Dirichlet noise into the priors of freshly evaluated roots."""
    for tree in range(len(keys)):
        if not noise[tree]:
            continue
        priors = trees.open_priors[tree, 0]
        legal = np.flatnonzero(priors)
        spice = dirichlet(keys[tree], DIRICHLET, concentration, len(legal))
        for i in range(len(legal)):
            priors[legal[i]] = (1.0 - share) * priors[legal[i]] + share * spice[i]
        survey_open_moves(trees, tree, 0)


@njit(cache=True, nogil=True)
def _select(trees, exploration, noise, searching, left):
    """Select a leaf in each of the trees; see `search.lockstep.Select`."""
    leaves, count = new_leaves(len(searching)), 0
    for tree in searching:
        root_reduction = 0.0 if noise[tree] else FIRST_PLAY_REDUCTION
        while left[tree] > 0:
            left[tree] -= 1
            parent = 0
            action, child = _choose(trees, exploration, root_reduction, tree, parent)
            while child != NO_NODE and not trees.nodes[tree, child].ended:
                parent = child
                action, child = _choose(trees, exploration, FIRST_PLAY_REDUCTION, tree, parent)
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
def _choose(trees, exploration, reduction, tree, index):
    """Return (action, child or NO_NODE) of the move with the highest score; of equals the lowest."""
    node = trees.nodes[tree, index]
    if is_closed(node):
        open_moves(trees, tree, index)
    bonus = exploration * math.sqrt(node.visits)
    best_action, best_child, best_score = NO_ACTION, NO_NODE, -np.inf
    visited_mass = 0.0
    child = node.first_child
    while child != NO_NODE:
        below = trees.nodes[tree, child]
        score = below.q + bonus * below.prior / (1 + below.visits)
        if score > best_score or (score == best_score and below.action < best_action):
            best_action, best_child, best_score = below.action, child, score
        visited_mass += below.prior
        child = below.next_sibling
    if node.best_open != NO_ACTION:
        first_play = node.value_sum / node.visits - reduction * math.sqrt(visited_mass)
        score = first_play + bonus * trees.open_priors[tree, index, node.best_open]
        if score > best_score or (score == best_score and node.best_open < best_action):
            return node.best_open, NO_NODE
    return best_action, best_child


@njit(cache=True, nogil=True)
def _conclude(trees, weights, keys, sample):
    """Return (actions int16 [B], values float32 [B])."""
    actions = np.empty(len(keys), np.int16)
    values = np.empty(len(keys), np.float32)
    for tree in range(len(keys)):
        root = trees.nodes[tree, 0]
        values[tree] = root.value_sum / root.visits
        if sample[tree]:
            actions[tree] = draw(weights[tree], uniform(keys[tree], MOVE, 0))
        else:
            actions[tree] = _most_visited(trees, tree)
    return actions, values


@njit(cache=True, nogil=True)
def _most_visited(trees, tree):
    root = trees.nodes[tree, 0]
    best = trees.nodes[tree, root.first_child]
    child = best.next_sibling
    while child != NO_NODE:
        node = trees.nodes[tree, child]
        if node.visits > best.visits:
            best = node
        elif node.visits == best.visits:
            ahead = node.q - best.q
            if ahead > 0.0 or (ahead == 0.0 and node.action < best.action):
                best = node
        child = node.next_sibling
    return best.action
