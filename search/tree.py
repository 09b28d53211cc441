"""The trees of many games, in arrays that are allocated once.

Shapes: `G` trees, `N` nodes of each, `A` actions. Node 0 of a tree is its root. The position of a tree's
node n is in the state row root + n, so that one number finds what is known of a position and the position
itself.

A move is *open* when it is legal and has no node yet. Whatever the rule by which a search selects moves, of
two open moves it prefers the one with the higher prior. So a node keeps its best open move at hand, and a
selection looks at that one and at the children there are, not at all A moves; these are gone through once a
simulation.

A new node is *closed*: what the model said of its moves is kept as it came, and made priors when the node is
selected again. Most nodes never are.

What a simulation calls many times is inlined into the kernels: left to itself the compiler hands the arrays
over on the stack, and a selection takes longer.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from search.exponential import exp_single
from search.prefetch import prefetch

NO_NODE = 0
"""Ends a list of children: the root is nobody's child."""

NO_ACTION = -1

_CLOSED = -2
"""The best open move of a node whose moves have not been opened yet."""

LOWEST_LOGIT = np.float32(-69.0)
"""A legal move's logit counts as at most this far below the best, that its prior, 1e-30, is not 0."""

# Of integers the compiler finds the highest by vectors, of numbers that may be NaN it does not.
_MAGNITUDE = np.int32(0x7FFFFFFF)
LOWEST_PLACE = np.int32(-(2**31))
NEVER = np.float32(-np.inf)
"""The logit of a move that is not legal."""

CACHE_LINE_BYTES = 64

_MOST_PREFETCHED = 40
"""Nodes of one tree; more would push each other out of the cache."""


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
best_open: the open move with the highest prior, of equals the lowest; NO_ACTION if no move is open, or a mark that the
    node is closed.
action: the move that led here.
player: who is to move.
ended: whether the game is over here.
"""


class Trees(NamedTuple):
    """G trees.

    Attributes:
        nodes: NODE [G, N].
        open_priors: float32 [G, N, A], the prior of each open move, 0 for every other; of a closed node the
            logits of its moves, NEVER where they are illegal.
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
def prefetch_tree(trees, tree):
    """Ask for the nodes of a tree that is next; of a large one for the oldest, which are looked at most."""
    for node in range(min(trees.sizes[tree], _MOST_PREFETCHED)):
        prefetch(trees.nodes, tree, node)


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


@njit(cache=True, nogil=True, forceinline=True)
def leave_closed(trees, tree, node):
    """Note that where the priors of a new node's moves will be, their logits are."""
    trees.nodes[tree, node].best_open = _CLOSED


@njit(cache=True, nogil=True, forceinline=True)
def is_closed(node):
    """Tell whether the moves of a node, given by its record, have not been opened yet."""
    return node.best_open == _CLOSED


@njit(cache=True, nogil=True)
def open_roots(trees, num_trees):
    """Open the moves of the roots of the first `num_trees` trees."""
    for tree in range(num_trees):
        open_moves(trees, tree, 0)


@njit(cache=True, nogil=True, forceinline=True)
def in_order(bits):
    """Return an integer that is ordered as the float32 of these bits is; undoes itself."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & _MAGNITUDE))


@njit(cache=True, nogil=True, forceinline=True, fastmath={"reassoc"})
def open_moves(trees, tree, node):
    """Make priors of the logits of a closed node's moves: their softmax."""
    priors = trees.open_priors
    highest = LOWEST_PLACE
    for action in range(priors.shape[2]):
        place = in_order(np.float32(priors[tree, node, action]).view(np.int32))
        highest = place if place > highest else highest
    top = np.int32(in_order(highest)).view(np.float32)
    for action in range(priors.shape[2]):
        logit = priors[tree, node, action]
        below = np.float32(logit - top)
        at_least = LOWEST_LOGIT if logit > NEVER else NEVER
        priors[tree, node, action] = exp_single(below if below > at_least else at_least)
    share_out(trees, tree, node)


@njit(cache=True, nogil=True, forceinline=True, error_model="numpy", fastmath={"reassoc"})
def share_out(trees, tree, node):
    """Make shares of the weights that stand where the priors of a new node's moves will; some are above 0."""
    priors = trees.open_priors
    total = 0.0
    for action in range(priors.shape[2]):
        total += priors[tree, node, action]
    share, highest = 1.0 / total, np.int32(0)
    for action in range(priors.shape[2]):
        prior = np.float32(priors[tree, node, action] * share)
        priors[tree, node, action] = prior
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
