"""Gumbel AlphaZero: a search that improves the policy even with two simulations.

After Danihelka, Guez, Schrittwieser and Silver (2022), "Policy improvement by planning with Gumbel"
(https://openreview.net/forum?id=bERaNdoegnO), and mctx's `gumbel_muzero_policy`:

1. The root's moves are scored by g + log prior, g being Gumbel noise, and the best m of them are considered.
2. Sequential halving shares the simulations evenly among these, drops the worse half by g + log prior +
   sigma(q), and so on. The move to play is the best of those with the most visits.
3. Below the root, a simulation follows the move whose visits lag most behind the improved policy.
4. The improved policy is pi' = softmax(log prior + sigma(completed q)). A move without visits is taken to
   be worth the mixed value: that of the model, and those of the visited moves weighted by their priors.

Here sigma(q) = (c_visit + most visits of a move) · c_scale · q with q moved from [-1, 1] to [0, 1], where
the paper's c_visit = 50 and c_scale = 1 belong. mctx stretches the values of each node to fill that interval
and takes c_scale = 0.1; where a value is the chance to win, this makes much of the smallest differences.

The value of a decision is that of pi', the sum of pi'(a) · completed q(a). mctx gives the mean of all
simulations, which the visits that halving owes to bad moves pull down.

Shapes: `G` trees, `M` considered moves, `A` actions, `S` simulations.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from numba import njit

from configs.schema import SearchConfig
from core.messages import Steps
from games.game import Game, States
from search.contract import Decisions
from search.lockstep import AHEAD, Batch, cut_leaves, evaluate_roots, new_leaves, simulate
from search.prefetch import prefetch
from search.randomness import GUMBEL, uniform
from search.tree import (
    NO_ACTION,
    NO_NODE,
    add_child,
    back_up,
    count_visits,
    is_closed,
    make_trees,
    open_moves,
    prefetch_tree,
)

_NO_LUCK = math.exp(-1.0)
"""The number of (0, 1) of which Gumbel noise of 0 is made."""
_A_LITTLE_LESS = 1.0 - 1e-9
"""More than rounding takes away."""


class Halving(NamedTuple):
    """Sequential halving at the roots of G trees.

    Attributes:
        counts: int32 [G], moves considered.
        actions: int16 [G, M], the considered moves by their scores, best first.
        scores: float64 [G, M], g + log prior.
        children: uint32 [G, M], their nodes, NO_NODE before the first visit.
        visits: int32 [G, M], simulations that went through them, the one that is under way included. The nodes
            know it too, but stand in a line of the cache each.
        schedule: int32 [G, S], the visits a move must have had to be selected by the root's simulation s.
    """

    counts: np.ndarray
    actions: np.ndarray
    scores: np.ndarray
    children: np.ndarray
    visits: np.ndarray
    schedule: np.ndarray


class GumbelSearch:
    """Gumbel AlphaZero for up to `games` games at once; holds their trees, so one `decide` at a time.

    Both `noise` and `sample` draw Gumbel noise. A row with neither takes g = 0: the best move it can find.
    """

    def __init__(self, config: SearchConfig, game: Game, *, games: int) -> None:
        self.rows_per_game = config.simulations + 1
        self._value_scale = (config.gumbel_visit_offset, config.gumbel_value_scale)
        self._num_symmetries = game.num_symmetries if config.root_symmetry else 1
        self._trees = make_trees(games, max_nodes=self.rows_per_game, num_actions=game.num_actions)
        considered = min(config.gumbel_considered_actions, game.num_actions)
        self._halving = Halving(
            counts=np.zeros(games, np.int32),
            actions=np.zeros((games, considered), np.int16),
            scores=np.zeros((games, considered)),
            children=np.zeros((games, considered), np.uint32),
            visits=np.zeros((games, considered), np.int32),
            schedule=np.zeros((games, config.simulations), np.int32),
        )

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
        trees, halving = self._trees, self._halving
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
        _consider(trees, halving, keys, noise | sample, budgets)
        select = partial(_select, trees, halving, self._value_scale, budgets)
        version = yield from simulate(batch, model, select, root_version=root_version)
        actions, policies, values = _conclude(trees, halving, self._value_scale, len(roots))
        return Decisions(
            actions=actions,
            policies=policies,
            values=values,
            visits=count_visits(trees, len(roots)),
            weights_version=version,
        )


@njit(cache=True, nogil=True)
def fill_schedule(schedule, considered, simulations):
    """Write into schedule[:simulations] the visits a move must have had to be selected by each simulation.

    Each of the ⌈log2 considered⌉ phases has the same number of simulations, shared evenly by its moves. The
    half that is dropped needs no list: it is the moves that are left behind at a lower count.
    """
    phases = max(1, math.ceil(math.log2(considered)))
    done = visits = 0
    while done < simulations:
        for _ in range(max(1, simulations // (phases * considered))):
            end = min(done + considered, simulations)
            schedule[done:end] = visits
            done = end
            visits += 1
        considered = min(considered, max(2, considered // 2))


@njit(cache=True, nogil=True)
def _consider(trees, halving, keys, noise, budgets):
    """Choose the considered moves of every freshly evaluated root, and plan their visits."""
    most = halving.scores.shape[1]
    for tree in range(len(keys)):
        count, least = 0, 0.0
        for action in range(trees.open_priors.shape[2]):
            prior = np.float64(trees.open_priors[tree, 0, action])
            luck = uniform(keys[tree], GUMBEL, action) if noise[tree] else _NO_LUCK
            # prior / -log(luck) is exp(score), and at most prior / (1 - luck): that spares most moves of large
            # boards three logarithms.
            if prior == 0.0 or prior < least * (1.0 - luck):
                continue
            count = _rank(halving, tree, count, action, math.log(prior) - math.log(-math.log(luck)))
            if count == most:
                least = _A_LITTLE_LESS * math.exp(halving.scores[tree, most - 1])
        halving.counts[tree] = count
        halving.children[tree, :] = NO_NODE
        halving.visits[tree, :] = 0
        fill_schedule(halving.schedule[tree], count, budgets[tree])


@njit(cache=True, nogil=True)
def _rank(halving, tree, count, action, score):
    """Put a move where it belongs among the best ones so far, of which there are `count`; return how many then."""
    most = halving.scores.shape[1]
    if count == most:
        if score <= halving.scores[tree, most - 1]:
            return count
        count -= 1
    rank = count
    while rank > 0 and score > halving.scores[tree, rank - 1]:
        halving.scores[tree, rank] = halving.scores[tree, rank - 1]
        halving.actions[tree, rank] = halving.actions[tree, rank - 1]
        rank -= 1
    halving.scores[tree, rank] = score
    halving.actions[tree, rank] = action
    return count + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _select(trees, halving, value_scale, budgets, searching, left):
    """Select a leaf in each of the trees; see `search.lockstep.Select`."""
    leaves, count = new_leaves(len(searching)), 0
    for i in range(len(searching)):
        ahead = searching[min(i + AHEAD, len(searching) - 1)]
        prefetch_tree(trees, ahead)
        prefetch(halving.scores, ahead, 0)
        prefetch(halving.children, ahead, 0)
        prefetch(halving.visits, ahead, 0)
        tree = searching[i]
        while left[tree] > 0:
            visits = halving.schedule[tree, budgets[tree] - left[tree]]
            left[tree] -= 1
            rank = _choose_considered(trees, halving, value_scale, tree, visits)
            halving.visits[tree, rank] += 1
            parent, action, child = 0, halving.actions[tree, rank], halving.children[tree, rank]
            while child != NO_NODE and not trees.nodes[tree, child].ended:
                parent = child
                action, child = _choose_below_root(trees, value_scale, tree, parent)
            if child != NO_NODE:
                back_up(trees, tree, child, trees.nodes[tree, child].value)
                continue
            child = add_child(trees, tree, parent, action)
            if parent == 0:
                halving.children[tree, rank] = child
            leaves.trees[count] = tree
            leaves.parents[count] = parent
            leaves.actions[count] = action
            leaves.nodes[count] = child
            count += 1
            break
    return cut_leaves(leaves, count)


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def _choose_considered(trees, halving, value_scale, tree, visits):
    """Return the rank of the best considered move of those that have had this many visits."""
    most = 0
    for rank in range(halving.counts[tree]):
        most = max(most, halving.visits[tree, rank])
    scale = sigma_scale(value_scale, most)
    best, best_score = -1, -np.inf
    for rank in range(halving.counts[tree]):
        if halving.visits[tree, rank] != visits:
            continue
        score = halving.scores[tree, rank]
        if visits > 0:
            score += scale * trees.nodes[tree, halving.children[tree, rank]].q
        if score > best_score:
            best, best_score = rank, score
    return best


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def _choose_below_root(trees, value_scale, tree, index):
    """Return (action, child or NO_NODE) with the highest pi'(a) - N(a) / (1 + N): visits follow pi'."""
    node = trees.nodes[tree, index]
    if is_closed(node):
        open_moves(trees, tree, index)
        return node.best_open, NO_NODE
    open_weight, total, _ = _improve(trees, value_scale, tree, index)
    best_action, best_child, best_score = node.best_open, NO_NODE, -np.inf
    if best_action != NO_ACTION:
        best_score = trees.open_priors[tree, index, best_action] * open_weight / total
    child = node.first_child
    while child != NO_NODE:
        below = trees.nodes[tree, child]
        score = below.weight / total - below.visits / node.visits
        if score > best_score or (score == best_score and below.action < best_action):
            best_action, best_child, best_score = below.action, child, score
        child = below.next_sibling
    return best_action, best_child


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def _improve(trees, value_scale, tree, index):
    """Compute the improved policy pi' = softmax(log prior + sigma(completed q)) of a node that has children.

    Every child gets a `weight`, which divided by the total is its pi'.

    Returns:
        (x, total, mixed value): prior · x / total is pi' of an open move.
    """
    node = trees.nodes[tree, index]
    weighted = mass = 0.0
    most, top = 0, -1.0
    child = node.first_child
    while child != NO_NODE:
        below = trees.nodes[tree, child]
        weighted += below.prior * below.q
        mass += below.prior
        most = max(most, below.visits)
        top = max(top, below.q)
        child = below.next_sibling
    # The visits of a node are those of its children and the one of its own evaluation.
    mixed = (node.value + (node.visits - 1) * weighted / mass) / node.visits
    if node.best_open != NO_ACTION:
        top = max(top, mixed)
    # exp(log prior + sigma(q)), relative to the best value: that cannot overflow, and needs no logarithm.
    scale = sigma_scale(value_scale, most)
    open_weight = math.exp(scale * (mixed - top)) if node.best_open != NO_ACTION else 0.0
    total = node.open_mass * open_weight
    child = node.first_child
    while child != NO_NODE:
        below = trees.nodes[tree, child]
        below.weight = below.prior * math.exp(scale * (below.q - top))
        total += below.weight
        child = below.next_sibling
    return open_weight, total, mixed


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def sigma_scale(value_scale, most_visits):
    """Return what a q of [-1, 1] is multiplied by in sigma(q), up to a constant that no choice depends on."""
    visit_offset, scale = value_scale
    return 0.5 * (visit_offset + most_visits) * scale


@njit(cache=True, nogil=True)
def _conclude(trees, halving, value_scale, num_trees):
    """Return (actions int16 [B], policies float32 [B, A], values float32 [B]) of finished searches."""
    actions = np.empty(num_trees, np.int16)
    policies = np.empty((num_trees, trees.open_priors.shape[2]), np.float32)
    values = np.empty(num_trees, np.float32)
    for tree in range(num_trees):
        root = trees.nodes[tree, 0]
        open_weight, total, mixed = _improve(trees, value_scale, tree, 0)
        for action in range(policies.shape[1]):
            policies[tree, action] = trees.open_priors[tree, 0, action] * open_weight / total
        value = root.open_mass * open_weight / total * mixed
        most = 0
        child = root.first_child
        while child != NO_NODE:
            node = trees.nodes[tree, child]
            policies[tree, node.action] = node.weight / total
            value += node.weight / total * node.q
            most = max(most, node.visits)
            child = node.next_sibling
        actions[tree] = halving.actions[tree, _choose_considered(trees, halving, value_scale, tree, most)]
        values[tree] = min(max(value, -1.0), 1.0)
    return actions, policies, values
