"""The trees of many games, in arrays that are allocated once.

Shapes: `G` trees, `N` nodes of each, `A` actions. Node 0 of a tree is its root. The position of a tree's
node n is in the state row root + n, so that one number finds what is known of a position and the position
itself.

A move is *open* when it is legal and has no node yet. Whatever the rule by which a search selects moves, of
two open moves it prefers the one with the higher prior. So a node keeps its best open move at hand, and a
selection looks at that one and at the children there are, not at all A moves; these are gone through once a
simulation.

What a simulation calls many times is inlined into the kernels: left to itself the compiler hands the arrays
over on the stack, and a selection takes longer.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

NO_NODE = 0
"""Ends a list of children: the root is nobody's child."""

NO_ACTION = -1

CACHE_LINE_BYTES = 64

NODE = np.dtype(
    [
        ("value_sum", "f8"),
        ("open_mass", "f8"),
        ("q", "f8"),
        ("weight", "f8"),
        ("value", "f4"),
        ("prior", "f4"),
        ("visits", "i4"),
        ("parent", "u4"),
        ("first_child", "u4"),
        ("next_sibling", "u4"),
        ("best_open", "i2"),
        ("action", "i2"),
        ("player", "i1"),
        ("ended", "?"),
    ],
    align=True,
)
"""One node, as long as one line of a processor's cache. Values are from the view of its own player to move.

value_sum: of the simulations that went through it, its own evaluation included.
open_mass: sum of the priors of its open moves.
q: mean value of the move that led here, from the view of the player who made it.
weight: free for a selection to use.
value: what the model or, at the end of a game, the rules say of it.
prior: of the move that led here.
visits: simulations that went through it; at the root, one more for its own evaluation.
parent, first_child, next_sibling: nodes; the children are listed from the newest to the oldest.
best_open: the open move with the highest prior, of equals the lowest; NO_ACTION if no move is open.
action: the move that led here.
player: who is to move.
ended: whether the game is over here.
"""


class Trees(NamedTuple):
    """G trees.

    Attributes:
        nodes: NODE [G, N].
        open_priors: float32 [G, N, A], the prior of each open move, 0 for every other.
        sizes: int32 [G], nodes in use.
    """

    nodes: np.ndarray
    open_priors: np.ndarray
    sizes: np.ndarray


def make_trees(count: int, *, max_nodes: int, num_actions: int) -> Trees:
    """Allocate `count` trees; what is in them is undefined until `plant`."""
    return Trees(
        nodes=_in_cache_lines(count, max_nodes),
        open_priors=np.zeros((count, max_nodes, num_actions), np.float32),
        sizes=np.zeros(count, np.int32),
    )


def _in_cache_lines(count: int, max_nodes: int) -> np.ndarray:
    """Return NODE [count, max_nodes] of zeros, no node of which stands in two lines of the cache."""
    size = count * max_nodes * NODE.itemsize
    raw = np.zeros(size + CACHE_LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE_BYTES
    return raw[start : start + size].view(NODE).reshape(count, max_nodes)


@njit(cache=True, nogil=True)
def plant(trees, players):
    """Make tree i nothing but a root, not evaluated, where players[i] is to move; int8 [B], B ≤ G."""
    for tree in range(len(players)):
        trees.sizes[tree] = 1
        root = trees.nodes[tree, 0]
        root.parent = NO_NODE
        root.action = NO_ACTION
        root.prior = 1.0
        root.player = players[tree]
        root.ended = False
        _make_fresh(root)


@njit(cache=True, nogil=True, forceinline=True)
def add_child(trees, tree, parent, action):
    """Give the open move `action` of `parent` a node, whose position is not looked at yet, and return it."""
    child = trees.sizes[tree]
    trees.sizes[tree] = child + 1
    above, below = trees.nodes[tree, parent], trees.nodes[tree, child]
    below.parent = parent
    below.action = action
    below.prior = trees.open_priors[tree, parent, action]
    below.next_sibling = above.first_child
    above.first_child = child
    _make_fresh(below)
    trees.open_priors[tree, parent, action] = 0.0
    survey_open_moves(trees, tree, parent)
    return child


@njit(cache=True, nogil=True, forceinline=True)
def _make_fresh(node):
    node.visits = 0
    node.value_sum = 0.0
    node.first_child = NO_NODE


@njit(cache=True, nogil=True, forceinline=True, fastmath={"reassoc"})
def survey_open_moves(trees, tree, node):
    """Find the best open move of `node` and the mass of all of them.

    The mass is added up in the order that the compiler finds fastest; one after the other, each addition waits
    for the one before.
    """
    highest, mass = np.int32(0), 0.0
    for action in range(trees.open_priors.shape[2]):
        prior = trees.open_priors[tree, node, action]
        mass += prior
        highest = _higher(highest, prior)
    trees.nodes[tree, node].open_mass = mass
    trees.nodes[tree, node].best_open = _first_with(trees, tree, node, highest)


@njit(cache=True, nogil=True, forceinline=True)
def _higher(highest, prior):
    """Return the bits of the higher prior, given one by its bits: numbers ≥ 0 are in the order of their bits.

    Of integers the compiler finds the highest by vectors, of numbers that may be NaN it does not.
    """
    bits = np.float32(prior).view(np.int32)
    return bits if bits > highest else highest


@njit(cache=True, nogil=True, forceinline=True)
def _first_with(trees, tree, node, bits):
    """Return the first action with this prior, given by its bits; NO_ACTION if that is 0."""
    if bits == 0:
        return NO_ACTION
    action = 0
    while np.float32(trees.open_priors[tree, node, action]).view(np.int32) != bits:
        action += 1
    return action


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy", fastmath={"reassoc"})
def open_moves(trees, tree, node, weights, row):
    """Make the moves of a new node open: those with a weight > 0 in weights[row], some of float32 [K, A] are.

    Their priors are their shares of the weights.
    """
    total = 0.0
    for action in range(weights.shape[1]):
        total += weights[row, action]
    highest = np.int32(0)
    for action in range(weights.shape[1]):
        prior = np.float32(weights[row, action] / total)
        trees.open_priors[tree, node, action] = prior
        highest = _higher(highest, prior)
    trees.nodes[tree, node].best_open = _first_with(trees, tree, node, highest)


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy")
def back_up(trees, tree, leaf, value):
    """Count one simulation for `leaf`, to whose player it was worth `value`, and for all nodes above it."""
    index, child = leaf, trees.nodes[tree, leaf]
    while True:
        child.visits += 1
        child.value_sum += value
        if index == 0:
            break
        index = child.parent
        parent = trees.nodes[tree, index]
        if parent.player != child.player:
            value = -value
            child.q = -child.value_sum / child.visits
        else:
            child.q = child.value_sum / child.visits
        child = parent


@njit(cache=True, nogil=True)
def count_visits(trees, num_trees):
    """Return int32 [num_trees, A]: simulations that went through each move of each root."""
    visits = np.zeros((num_trees, trees.open_priors.shape[2]), np.int32)
    for tree in range(num_trees):
        child = trees.nodes[tree, 0].first_child
        while child != NO_NODE:
            node = trees.nodes[tree, child]
            visits[tree, node.action] = node.visits
            child = node.next_sibling
    return visits
