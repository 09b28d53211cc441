"""Carries out the instructions of `poker.program` for all hands, and for all lanes of `poker.rows`.

Showdowns. Hands are passed from the weakest to the strongest, with sums of what was passed: S over all, C_c over
those with card c, each begun at minus half of the total. Of a hand with cards a and b the difference S - C_a - C_b is
half of what it beats less half of what beats it, and that before and after its own group of equals together is what
it wins less what it loses, for its equals count once on each side. Hands are not compared one by one, so this takes
as many steps as there are hands.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from poker.hands import NO_CARD, HandSet
from poker.program import CHOOSE, CLEAR, DEAL, FOLD, LEAF, SHOW, SPLIT, TOTAL
from poker.rows import LANES, fma, load, maximum, restore, same, store, where_positive, without_denormals

UPDATE, LEARN, MEAN, BEST, REACH = range(5)
"""How decisions are taken: by regrets, which learn from it, and strategies go into the average; the same, but they do
not; by a given strategy; the other by that, the traversing player as well as can be. With REACH the other's reach of
leaves is found by a given strategy, and no values."""

EVERYTHING = NO_CARD + 1
WEIGHTS = 4
SUMS = NO_CARD + 2
"""Rows of sums: one for each card, one of zeros for the card that is none, one for all hands."""


class Tables(NamedTuple):
    """A hand set for kernels; P places on all boards together.

    Attributes:
        one, other: int64 [H], cards of each hand.
        hands: int64 [P], those of each board from the weakest to the strongest, board after board.
        hand_one, hand_other: int64 [P], their cards.
        ends: int64, where groups of equals end among the P, group after group.
        boards: int64 [boards + 1, 2], where the hands and the groups of each board begin.
        alive: bool [boards, H], which hands a board does not block.
        twice: 1.0 where hands have two cards, and are counted out twice when those with either card are; else 0.0.
    """

    one: np.ndarray
    other: np.ndarray
    hands: np.ndarray
    hand_one: np.ndarray
    hand_other: np.ndarray
    ends: np.ndarray
    boards: np.ndarray
    alive: np.ndarray
    twice: float


class Arrays(NamedTuple):
    """What a solve works on, rows of lanes or plain numbers.

    Attributes:
        regrets, average: [actions · H].
        work: [slots · H].
        totals: [slots · SUMS].
        sums: [SUMS].
        halves: [H], values of a group of equals that are half done.
        weights: [WEIGHTS]: factors of positive and of negative regrets, of the average, and of what is added to it.
    """

    regrets: np.ndarray
    average: np.ndarray
    work: np.ndarray
    totals: np.ndarray
    sums: np.ndarray
    halves: np.ndarray
    weights: np.ndarray


def tables(hands: HandSet) -> Tables:
    """Return a hand set as kernels take it."""
    none = np.zeros(0, np.int64)  # where there is no board there is nothing to concatenate
    order = np.concatenate([none, *(board.hands for board in hands.boards)]).astype(np.int64)
    sizes = np.cumsum([0, *(len(board.hands) for board in hands.boards)])
    groups = np.cumsum([0, *(len(board.ends) for board in hands.boards)])
    ends = [board.ends + size for board, size in zip(hands.boards, sizes, strict=False)]
    alive = np.zeros((len(hands.boards), hands.number), np.bool_)
    for row, board in zip(alive, hands.boards, strict=True):
        row[board.hands] = True
    one, other = np.ascontiguousarray(hands.cards.T.astype(np.int64))
    return Tables(
        one,
        other,
        order,
        one[order],
        other[order],
        np.concatenate([none, *ends]).astype(np.int64),
        np.stack([sizes, groups], axis=1).astype(np.int64),
        alive,
        float(hands.have_two_cards),
    )


def new_arrays(actions: int, slots: int, hands: int, *, lanes: bool) -> Arrays:
    """Return zeros."""
    sizes = (actions * hands, actions * hands, slots * hands, slots * SUMS, SUMS, hands, WEIGHTS)
    return Arrays(*(new_rows(size, lanes=lanes) for size in sizes))


def new_rows(number: int, *, lanes: bool) -> np.ndarray:
    """Return zeros: float32 [number, LANES], each row in a line of the cache, or float64 [number]."""
    if not lanes:
        return np.zeros(number)
    line = 4 * LANES
    memory = np.zeros(number * line + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + number * line].view(np.float32).reshape(number, LANES)


@njit(cache=True, nogil=True)
def iterate(codes, tables, arrays, learnt, stakes, leaves, weights, counted, simultaneous, floor):
    """Let both players learn from each other, player 0 first, once for each of `counted`.

    Args:
        weights: rows [iterations · WEIGHTS], of each iteration.
        counted: bool [iterations], whether its strategies go into the average of any lane.
    """
    regrets = arrays.regrets
    for at in range(len(counted)):
        for row in range(WEIGHTS):
            store(arrays.weights, row, load(weights, at * WEIGHTS + row))
        mode = UPDATE if counted[at] else LEARN
        for player in range(2):
            traverse(
                codes[player], tables, arrays, regrets, learnt, stakes[player], leaves[player], mode, floor
            )
        if simultaneous:
            for row in range(len(regrets)):
                store(regrets, row, load(learnt, row))


@njit(cache=True, nogil=True)
def traverse(code, tables, arrays, source, learnt, stakes, leaves, mode, floor):
    """Leave the values of a player in `ROOT_VALUE`; with REACH the other's reach in `leaves`.

    Args:
        code: of the player's program.
        source: regrets, or an average, from which strategies are made.
        learnt: where new regrets go; the regrets themselves, or a copy while the other player still needs the old.
        stakes: rows, what the player wins at each end.
        leaves: rows [leaves · H], values of leaves.
        mode: UPDATE, LEARN, MEAN, BEST or REACH.
        floor: whether regrets below 0 become 0.
    """
    hands = len(tables.one)
    state = without_denormals()
    for at in range(len(code)):
        operation, a, b, c, d, e = code[at]
        if operation == SPLIT:
            first, slot, to = a * hands, c * hands, d * hands
            if b == 2:  # with a number that is known loops are unrolled, and regrets stay in registers
                split(first, 2, slot, to, hands, source, arrays, mode)
            elif b == 3:
                split(first, 3, slot, to, hands, source, arrays, mode)
            elif b == 4:
                split(first, 4, slot, to, hands, source, arrays, mode)
            else:
                split(first, b, slot, to, hands, source, arrays, mode)
        elif operation == DEAL:
            deal(a * hands, b * hands, tables.alive[c], arrays)
        elif operation == LEAF:
            leaf(a * hands, b * hands, c * hands, d, hands, leaves, arrays, mode)
        elif mode == REACH:
            continue
        elif operation == TOTAL:
            total(a * hands, a * SUMS, tables, arrays)
        elif operation == FOLD:
            fold(a * hands, a * SUMS, b, c * hands, d, tables, arrays, stakes)
        elif operation == SHOW:
            show(a * hands, a * SUMS, b, c * hands, d, e, tables, arrays, stakes)
        elif operation == CHOOSE:
            first, slot, to = a * hands, c * hands, d * hands
            if mode == BEST:
                choose_best(b, slot, to, e, hands, arrays)
            elif b == 2:
                choose(first, 2, slot, to, e, hands, source, learnt, arrays, mode, floor)
            elif b == 3:
                choose(first, 3, slot, to, e, hands, source, learnt, arrays, mode, floor)
            elif b == 4:
                choose(first, 4, slot, to, e, hands, source, learnt, arrays, mode, floor)
            else:
                choose(first, b, slot, to, e, hands, source, learnt, arrays, mode, floor)
        elif operation == CLEAR:
            clear(a * hands, hands, arrays)
        else:
            gather(a * hands, b * hands, tables.alive[c], d, arrays)
    restore(state)


@njit(cache=True, nogil=True, forceinline=True)
def put(work, place, value, add):
    """Store a value, or add it to what is there."""
    if add:
        value = value + load(work, place)
    store(work, place, value)


@njit(cache=True, nogil=True, forceinline=True)
def split(first, count, at, to, hands, source, arrays, mode):
    """Multiply a reach by a strategy; with UPDATE that goes into the average too."""
    work, average = arrays.work, arrays.average
    zero, one, share = same(work, 0.0), same(work, 1.0), same(work, 1.0 / count)
    decay, weight = load(arrays.weights, 2), load(arrays.weights, 3)
    for h in range(hands):
        mass = zero
        for k in range(count):
            mass = mass + maximum(load(source, first + k * hands + h), zero)
        reach = load(work, at + h)
        scale = where_positive(mass, reach / where_positive(mass, mass, one), zero)
        equal = where_positive(mass, zero, reach * share)
        for k in range(count):
            place = first + k * hands + h
            store(work, to + k * hands + h, fma(maximum(load(source, place), zero), scale, equal))
        if mode == UPDATE:  # in a loop of its own, or each load would wait for the stores before it
            for k in range(count):
                place = first + k * hands + h
                part = load(work, to + k * hands + h)
                store(average, place, fma(load(average, place), decay, part * weight))


@njit(cache=True, nogil=True, forceinline=True)
def choose(first, count, at, to, add, hands, source, learnt, arrays, mode, floor):
    """Make one value of those of all actions by a strategy; with UPDATE and LEARN regrets learn from them."""
    work = arrays.work
    zero, one, share = same(work, 0.0), same(work, 1.0), same(work, 1.0 / count)
    positive, negative = load(arrays.weights, 0), load(arrays.weights, 1)
    for h in range(hands):
        mass, value, plain = zero, zero, zero
        for k in range(count):
            part = maximum(load(source, first + k * hands + h), zero)
            gain = load(work, at + k * hands + h)
            mass = mass + part
            value = fma(part, gain, value)
            plain = plain + gain
        value = where_positive(mass, value / where_positive(mass, mass, one), plain * share)
        if mode in (UPDATE, LEARN):
            for k in range(count):
                place = first + k * hands + h
                regret = load(source, place)
                gain = load(work, at + k * hands + h) - value
                kept = fma(regret, where_positive(regret, positive, negative), gain)
                store(learnt, place, maximum(kept, zero) if floor else kept)
        put(work, to + h, value, add)


@njit(cache=True, nogil=True)
def choose_best(count, at, to, add, hands, arrays):
    work = arrays.work
    for h in range(hands):
        best = load(work, at + h)
        for k in range(1, count):
            best = maximum(best, load(work, at + k * hands + h))
        put(work, to + h, best, add)


@njit(cache=True, nogil=True)
def total(at, to, tables, arrays):
    work, totals, one, other = arrays.work, arrays.totals, tables.one, tables.other
    zero = same(work, 0.0)
    everything = zero
    for card in range(SUMS):
        store(totals, to + card, zero)
    for h in range(len(one)):
        reach = load(work, at + h)
        everything = everything + reach
        store(totals, to + one[h], load(totals, to + one[h]) + reach)
        store(totals, to + other[h], load(totals, to + other[h]) + reach)
    store(totals, to + NO_CARD, zero)
    store(totals, to + EVERYTHING, everything)


@njit(cache=True, nogil=True)
def fold(at, totals_at, end, to, add, tables, arrays, stakes):
    work, totals, one, other = arrays.work, arrays.totals, tables.one, tables.other
    everything, won, twice = load(totals, totals_at + EVERYTHING), load(stakes, end), same(work, tables.twice)
    for h in range(len(one)):
        blocked = load(totals, totals_at + one[h]) + load(totals, totals_at + other[h])
        put(work, to + h, fma(load(work, at + h), twice, everything - blocked) * won, add)


@njit(cache=True, nogil=True)
def show(at, totals_at, end, to, add, board, tables, arrays, stakes):
    work, sums, halves, hands = arrays.work, arrays.sums, arrays.halves, tables.hands
    one, other, ends = tables.hand_one, tables.hand_other, tables.ends
    zero, half, won = same(work, 0.0), same(work, -0.5), load(stakes, end)
    for card in range(SUMS):
        store(sums, card, load(arrays.totals, totals_at + card) * half)
    passed = load(sums, EVERYTHING)
    begin = tables.boards[board, 0]
    for group in range(tables.boards[board, 1], tables.boards[board + 1, 1]):
        for k in range(begin, ends[group]):
            store(halves, k - begin, passed - (load(sums, one[k]) + load(sums, other[k])))
        for k in range(begin, ends[group]):
            reach = load(work, at + hands[k])
            passed = passed + reach
            store(sums, one[k], load(sums, one[k]) + reach)
            store(sums, other[k], load(sums, other[k]) + reach)
        store(sums, NO_CARD, zero)
        for k in range(begin, ends[group]):
            after = passed - (load(sums, one[k]) + load(sums, other[k]))
            put(work, to + hands[k], (load(halves, k - begin) + after) * won, add)
        begin = ends[group]


@njit(cache=True, nogil=True)
def leaf(at, place, to, add, hands, leaves, arrays, mode):
    for h in range(hands):
        if mode == REACH:
            store(leaves, place + h, load(arrays.work, at + h))
        else:
            put(arrays.work, to + h, load(leaves, place + h), add)


@njit(cache=True, nogil=True)
def clear(to, hands, arrays):
    for h in range(hands):
        store(arrays.work, to + h, same(arrays.work, 0.0))


@njit(cache=True, nogil=True)
def deal(at, to, alive, arrays):
    work = arrays.work
    for h in range(len(alive)):
        store(work, to + h, load(work, at + h) if alive[h] else same(work, 0.0))


@njit(cache=True, nogil=True)
def gather(at, to, alive, cards, arrays):
    work = arrays.work
    share = same(work, 1.0 / cards)
    for h in range(len(alive)):
        if alive[h]:
            store(work, to + h, fma(load(work, at + h), share, load(work, to + h)))
