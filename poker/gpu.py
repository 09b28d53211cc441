"""Solves thousands of rivers at once on a device of torch: the instructions of `poker.program` on tensors [B, W].

Each of B rows is a situation with a board of its own; W is the number of hands and one more, which has no mass. Hands
are in the order of their cards, and cards are counted among the 47 that the board leaves, so that which hands share a
card is the same on every board. Only their order of strength differs, and that is a table of places.

Showdowns, as `poker.kernels` has them: with S the sums over the hands from the weakest on, and C_c over those with
card c, what a hand of cards a and b wins less what it loses is S - C_a - C_b before its group of equals, plus the same
behind it, less the totals. Here one cumulative sum over the hands makes S, one over the 46 hands of each card all the
C, and each hand gathers two of the first and four of the second.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from poker.batches import Solved, Stop
from poker.betting import Betting, last_round
from poker.holdem import board_hands
from poker.program import CHOOSE, FOLD, ROOT_VALUE, SHOW, SPLIT, TOTAL, CompiledTree, compile_tree, stakes
from poker.sampling import Situation
from poker.schedules import Schedule
from poker.tree import Node

LIVE, OWN = 47, 46
"""Cards that a river board leaves, and hands that have one of them."""
HANDS = LIVE * OWN // 2
WIDTH = HANDS + 1
NOBODY = HANDS
"""Place of the hand without mass, which stands for the sum over none."""
PLAYERS = (0, 1)

PAIRS = np.array([(a, b) for a in range(LIVE) for b in range(a + 1, LIVE)])
"""Cards [HANDS, 2] of each hand, among those that the board leaves."""
HOLDS = (PAIRS[:, :, None] == np.arange(LIVE)).any(1)
"""Whether a hand has a card, bool [HANDS, LIVE]."""

SHARE = 0.75
"""Of the free memory of a GPU that is taken: evaluations, and what is smaller after some are done, take some more."""


@dataclass(frozen=True, slots=True)
class Order:
    """Places of the hands of a board, int64.

    Attributes:
        weakest_first: [HANDS], hands from the weakest to the strongest, as `poker.holdem.board_hands` has them.
        whole: [WIDTH], `NOBODY`, then the same.
        cards: [LIVE, LIVE], column c: `NOBODY`, then the hands with card c from the weakest to the strongest.
        whole_ends: [2, WIDTH], where each hand's group of equals begins and ends in sums over `whole`.
        card_ends: [4, WIDTH], the same in sums over `cards`, flat, for both cards of each hand.
    """

    weakest_first: np.ndarray
    whole: np.ndarray
    cards: np.ndarray
    whole_ends: np.ndarray
    card_ends: np.ndarray


@lru_cache(maxsize=64)
def order_of(board: tuple[int, ...]) -> Order:
    """Return the order of the hands of a river board."""
    hands = board_hands(board)
    place = np.argsort(hands.numbers)  # of each hand among the weakest first
    weakest_first = np.argsort(place)
    ends = hands.hands.boards[0].ends.astype(np.int64)
    begins = np.concatenate([[0], ends[:-1]])
    group = np.searchsorted(ends, place, side="right")
    begin, end = begins[group], ends[group]
    holds = HOLDS[weakest_first]
    passed = np.concatenate(
        [np.zeros((1, LIVE), np.int64), holds.cumsum(0)]
    )  # hands with each card before a place
    places_of_cards = np.nonzero(holds.T)[1].reshape(LIVE, OWN).T
    cards = np.concatenate([np.full((1, LIVE), NOBODY), weakest_first[places_of_cards]])
    card_ends = [passed[at, card] * LIVE + card for card in PAIRS.T for at in (begin, end)]
    padded = ((0, 0), (0, 1))
    return Order(
        weakest_first,
        np.concatenate([[NOBODY], weakest_first]),
        cards,
        np.pad(np.stack([begin, end]), padded),
        np.pad(np.stack(card_ends), padded),
    )


class Orders(NamedTuple):
    """Those of all rows, on the device: `whole` [B, WIDTH], `cards` [B, LIVE²], `whole_ends` [B, 2 · WIDTH],
    `card_ends` [B, 4 · WIDTH]. They are int64, which `gather` wants, or int32 where that is compiled.
    """

    whole: Tensor
    cards: Tensor
    whole_ends: Tensor
    card_ends: Tensor


def river(betting: Betting, pot_half: float) -> Node:
    """Return the tree of a river in units of `pot_half`."""
    return last_round(Betting(betting.stack / pot_half, betting.sizes), 1.0)


@lru_cache(maxsize=1 << 12)
def _stakes(betting: Betting, pot_half: float) -> np.ndarray:
    return stakes(river(betting, pot_half))


def split(
    source: Sequence[Tensor],
    reach: Tensor,
    into: Sequence[Tensor],
    average: Sequence[Tensor] | None,
    decay: Tensor,
    weight: Tensor,
) -> None:
    """Multiply a reach [B, W] by the strategy that `source` makes, and let `average` learn it."""
    parts = [row.clamp(min=0) for row in source]
    mass = _sum(parts)
    some = mass > 0
    scale = torch.where(some, reach / mass, 0.0)
    equal = torch.where(some, 0.0, reach / len(parts))
    for k, (part, to) in enumerate(zip(parts, into, strict=True)):
        to.copy_(torch.addcmul(equal, part, scale))
        if average is not None:
            average[k].mul_(decay).addcmul_(to, weight)


def choose(
    source: Sequence[Tensor],
    gains: Sequence[Tensor],
    learnt: Sequence[Tensor] | None,
    positive: Tensor,
    negative: Tensor,
    floor: bool,
) -> Tensor:
    """Return the value [B, W] of those of all actions by the strategy that `source` makes; `learnt` learns regrets."""
    parts = [row.clamp(min=0) for row in source]
    mass = _sum(parts)
    value = _sum([part * gain for part, gain in zip(parts, gains, strict=True)])
    value = torch.where(mass > 0, value / mass, _sum(gains) / len(parts))
    if learnt is not None:
        for row, gain, into in zip(source, gains, learnt, strict=True):
            kept = torch.addcmul(gain - value, row, torch.where(row > 0, positive, negative))
            into.copy_(kept.clamp(min=0) if floor else kept)
    return value


def compatible(reach: Tensor, hands_of_cards: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return [B, W]: for each hand the mass of the hands that share no card with it.

    Args:
        reach: [B, W].
        hands_of_cards: [LIVE · OWN], card after card.
        one, other: [W], cards of each hand.
    """
    totals = reach[:, hands_of_cards].view(-1, LIVE, OWN).sum(2)
    everything = totals.sum(1, keepdim=True) / 2  # each hand has two cards
    return everything + reach - totals[:, one] - totals[:, other]


def won(reach: Tensor, facing: Tensor, stake: Tensor, orders: Orders) -> Tensor:
    """Return [B, W]: `stake` times the mass of hands that each hand beats less that of those that beat it.

    Args:
        reach: [B, W].
        facing: [B, W], what `compatible` makes of it.
        stake: [B, 1].
        orders: of the hands.
    """
    whole, cards, whole_ends, card_ends = (places.long() for places in orders)
    passed = reach.gather(1, whole).cumsum(1).gather(1, whole_ends)
    of_cards = reach.gather(1, cards).view(-1, LIVE, LIVE).cumsum(1)
    blocked = of_cards.view(-1, LIVE * LIVE).gather(1, card_ends)
    twice = passed.view(-1, 2, WIDTH).sum(1) - blocked.view(-1, 4, WIDTH).sum(1)
    return (twice - (facing - reach)) * stake


def _sum(rows: Sequence[Tensor]) -> Tensor:
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total


class Operations(NamedTuple):
    """What instructions do, as written, or compiled."""

    split: Callable[..., None]
    choose: Callable[..., Tensor]
    compatible: Callable[..., Tensor]
    won: Callable[..., Tensor]


PLAIN = Operations(split, choose, compatible, won)


@cache
def _fused() -> Operations:
    """Return kernels that pass memory fewer times; torch compiles them when they are first called.

    It does so for eight kinds of calls each, numbers of actions among them, and carries out others as written.
    """
    return Operations(
        torch.compile(split, dynamic=True),
        torch.compile(choose, dynamic=True),
        torch.compile(compatible, dynamic=True),
        torch.compile(won, dynamic=True),
    )


class DeviceSolver:
    """River situations of one form of tree, one in each row; `poker.solver.Solver` for a device.

    Args:
        betting, pot_half: whose form of tree all have.
        schedule: by which they learn.
        rows: how many.
        most: iterations that a row may take.
        device: of torch.
        dtype: of all that is calculated.
        fused: whether torch compiles the operations, which wants a C++ compiler, or Triton on a GPU.
    """

    def __init__(
        self,
        betting: Betting,
        pot_half: float,
        schedule: Schedule,
        rows: int,
        most: int,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        fused: bool = False,
    ) -> None:
        self.compiled = compile_tree(river(betting, pot_half))
        self.betting, self.schedule = betting, schedule
        self.iterations = np.zeros(rows, np.int64)
        self._device, self._dtype = device, dtype
        known = [schedule.weights(t) for t in range(1, most + 1)]
        self._known = torch.tensor(known, dtype=dtype, device=device)
        self._ranges = torch.zeros(2, rows, WIDTH, dtype=torch.float64, device=device)
        self._mass = np.ones(rows)
        self._regrets, self._average = self._new(self.compiled.actions), self._new(self.compiled.actions)
        self._learnt = self._new(self.compiled.actions) if schedule.simultaneous else self._regrets
        self._work = self._new(self.compiled.slots)
        self._facing = dict(
            zip(totals_of(self.compiled), self._new(len(totals_of(self.compiled))), strict=True)
        )
        self._stakes = torch.zeros(
            2, _stakes(betting, pot_half).shape[1], rows, 1, dtype=dtype, device=device
        )
        self._taken = torch.zeros(rows, dtype=torch.int64, device=device)
        sizes = (WIDTH, LIVE * LIVE, 2 * WIDTH, 4 * WIDTH)
        places = torch.int32 if fused else torch.int64
        self._orders = Orders(*(self._taken.new_zeros(rows, size, dtype=places) for size in sizes))
        of_hands = np.pad(PAIRS, ((0, 1), (0, 0))).T
        self._cards = [self._sent(array) for array in (np.nonzero(HOLDS.T)[1], *of_hands)]
        self._do = _fused() if fused else PLAIN
        self._graph: torch.cuda.CUDAGraph | None = None
        self._may_capture = device.type == "cuda"

    @property
    def rows(self) -> int:
        return len(self.iterations)

    def begin(self, rows: Sequence[int], situations: Sequence[Situation]) -> None:
        """Put situations of the solver's form into rows, with nothing learnt."""
        at = torch.tensor(rows, device=self._device)
        for row in (*self._regrets, *self._average):
            row[at] = 0.0
        self._taken[at] = 0
        self.iterations[rows] = 0
        orders = [order_of(situation.board) for situation in situations]
        for into, name in zip(self._orders, Orders._fields, strict=True):
            into[at] = self._sent(np.stack([getattr(order, name).reshape(-1) for order in orders])).to(
                into.dtype
            )
        masses = np.zeros((2, len(rows), WIDTH))
        for k, (order, situation) in enumerate(zip(orders, situations, strict=True)):
            masses[:, k, order.weakest_first] = situation.masses
        ranges = self._sent(masses)
        self._ranges[:, at] = ranges
        for player in PLAYERS:
            self._work[player][at] = ranges[player].to(self._dtype)
        self._mass[rows] = (ranges[0] * compatible(ranges[1], *self._cards)).sum(1).cpu().numpy()
        ends = np.stack([_stakes(self.betting, situation.pot_half) for situation in situations], axis=2)[
            ..., None
        ]
        self._stakes[:, :, at] = self._sent(ends).to(self._dtype)

    def iterate(self, count: int) -> None:
        """Take so many iterations in every row."""
        self.iterations += count
        with torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext():
            for _ in range(count):
                if self._graph is not None:
                    self._graph.replay()
                    continue
                self._iteration()
                if self._may_capture:  # after the first, for that may still compile and choose kernels
                    self._capture()

    def values(self, rows: Sequence[int]) -> np.ndarray:
        """Return counterfactual values [2, rows, HANDS] of average strategies, as `board_hands` has the hands."""
        at = torch.tensor(rows, device=self._device)
        weakest_first = self._orders.whole[at, 1:].long().expand(2, -1, -1)
        return self._root_values(best=False)[:, at].gather(2, weakest_first).cpu().numpy()

    def exploitability(self) -> np.ndarray:
        """Return float64 [B]: the mean of what best answers would win more than average strategies do."""
        won = (self._ranges * self._root_values(best=True)).sum(2).cpu().numpy() / self._mass
        return np.maximum(won.sum(0) / 2, 0.0)

    def keep(self, rows: Sequence[int]) -> None:
        """Give up all rows but these, which become the first."""
        self._graph = None  # works on what is given up
        at = torch.tensor(rows, device=self._device)
        self.iterations, self._mass = self.iterations[rows], self._mass[rows]
        shared = self._learnt is self._regrets
        for tensors in (self._regrets, self._average, self._work, *([] if shared else [self._learnt])):
            tensors[:] = [tensor[at] for tensor in tensors]
        self._facing = {slot: tensor[at] for slot, tensor in self._facing.items()}
        self._orders = Orders(*(tensor[at] for tensor in self._orders))
        self._taken = self._taken[at]
        self._ranges, self._stakes = self._ranges[:, at], self._stakes[:, :, at]

    def _root_values(self, *, best: bool) -> Tensor:
        """Return counterfactual values [2, B, WIDTH] of average strategies, or of best answers to them."""
        found = []
        for player in PLAYERS:
            self._traverse(player, None, best=best)
            found.append(self._work[ROOT_VALUE].clone())
        return torch.stack(found)

    def _new(self, number: int) -> list[Tensor]:
        """Return so many zeros [B, WIDTH], each by itself: what is fused may not know which of a block it changes."""
        shape = (self.rows, WIDTH)
        return [torch.zeros(shape, dtype=self._dtype, device=self._device) for _ in range(number)]

    def _sent(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _capture(self) -> None:
        """Record an iteration as a CUDA graph, for its thousand kernels are shorter than the time to launch them."""
        self._may_capture = False
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._iteration()
        except RuntimeError as error:
            warnings.warn(f"goes on without a CUDA graph: {error}", stacklevel=2)
        else:
            self._graph, self._may_capture = graph, True

    def _iteration(self) -> None:
        """Let both players learn from each other once. It reads and writes the same tensors each time."""
        weights = self._known.index_select(0, self._taken.clamp(max=len(self._known) - 1))
        for player in PLAYERS:
            self._traverse(player, weights)
        if self.schedule.simultaneous:
            for row, learnt in zip(self._regrets, self._learnt, strict=True):
                row.copy_(learnt)
        self._taken.add_(1)

    def _traverse(self, player: int, weights: Tensor | None, *, best: bool = False) -> None:
        """Leave the values of a player in `ROOT_VALUE`: learning by weights [B, 4], or, without, of the average."""
        work, stake = self._work, self._stakes[player]
        for operation, a, b, c, d, e in self.compiled.programs[player].code.tolist():
            if operation == SPLIT:
                self._split_reach(slice(a, a + b), work[c], work[d : d + b], weights)
            elif operation == TOTAL:
                self._facing[a].copy_(self._do.compatible(work[a], *self._cards))
            elif operation == FOLD:
                _put(work[c], self._facing[a] * stake[b], d)
            elif operation == SHOW:
                _put(work[c], self._do.won(work[a], self._facing[a], stake[b], self._orders), d)
            elif operation == CHOOSE:
                gains = work[c : c + b]
                value = torch.stack(gains).amax(0) if best else self._value(slice(a, a + b), gains, weights)
                _put(work[d], value, e)
            else:
                raise AssertionError(f"a river has no instruction {operation}")

    def _split_reach(self, at: slice, reach: Tensor, into: list[Tensor], weights: Tensor | None) -> None:
        if weights is None:
            split(self._average[at], reach, into, None, reach, reach)
        else:
            self._do.split(
                self._regrets[at], reach, into, self._average[at], weights[:, 2:3], weights[:, 3:4]
            )

    def _value(self, at: slice, gains: list[Tensor], weights: Tensor | None) -> Tensor:
        if weights is None:
            return choose(self._average[at], gains, None, gains[0], gains[0], False)
        positive, negative = weights[:, 0:1], weights[:, 1:2]
        return self._do.choose(
            self._regrets[at], gains, self._learnt[at], positive, negative, self.schedule.floor
        )


def _put(to: Tensor, value: Tensor, add: int) -> None:
    """Store a value, or add it to what is there."""
    if add:
        to.add_(value)
    else:
        to.copy_(value)


def totals_of(compiled: CompiledTree) -> list[int]:
    """Return the slots of which either program wants sums."""
    codes = np.concatenate([program.code for program in compiled.programs])
    return np.unique(codes[codes[:, 0] == TOTAL, 1]).tolist()


def bytes_of_row(compiled: CompiledTree, schedule: Schedule) -> int:
    """Return about how many bytes of a device a situation takes in float32."""
    learnt = (3 if schedule.simultaneous else 2) * compiled.actions
    scratch = 32  # vectors of a decision or an end, and of evaluations in float64
    vectors = learnt + compiled.slots + len(totals_of(compiled)) + scratch
    return 4 * (WIDTH * vectors + 2 * LIVE * LIVE) + 8 * (7 * WIDTH + LIVE * LIVE)


def rows_that_fit(compiled: CompiledTree, schedule: Schedule, device: torch.device) -> int | None:
    """Return how many situations the free memory of a GPU takes, at least 1; None on a CPU, which is not asked."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(SHARE * free) // bytes_of_row(compiled, schedule))


def solve_on_device(
    situations: Sequence[Situation],
    betting: Betting,
    schedule: Schedule,
    stop: Stop,
    *,
    device: str | torch.device | None = None,
    most_together: int = 4096,
    fused: bool = False,
) -> Iterator[Solved]:
    """Yield what comes of river situations of one form, on any boards, in the order in which they are done.

    Those of a batch share nothing but the kernels. As in `poker.batches.solve_group` the next takes the row of one
    that is done; when none is left to come and half of the rows are done, the others move together.

    Args:
        situations, betting, schedule, stop: as `poker.batches.solve_group` takes them.
        device: of torch; None: a GPU if there is one.
        most_together: situations side by side; fewer where they do not fit.
        fused: whether torch compiles what is done at each node: a minute, for less than half of the memory traffic.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    pot_half = situations[0].pot_half
    fit = rows_that_fit(compile_tree(river(betting, pot_half)), schedule, device)
    rows = min(len(situations), most_together, fit or most_together)
    step = stop.every if stop.target is not None else stop.iterations
    most = stop.iterations + step
    solver = DeviceSolver(betting, pot_half, schedule, rows, most, device=device, fused=fused)
    waiting = list(situations)[::-1]
    held = _refill(solver, range(rows), waiting)
    while held:
        solver.iterate(step)
        reached = solver.exploitability() / 2
        exact = reached <= stop.target if stop.target is not None else np.ones(solver.rows, bool)
        done = [row for row in held if exact[row] or solver.iterations[row] >= stop.iterations]
        if not done:
            continue
        values = solver.values(done)
        for k, row in enumerate(done):
            yield Solved(
                held.pop(row),
                values[:, k].copy(),
                float(reached[row]),
                int(solver.iterations[row]),
                bool(exact[row]),
            )
        held |= _refill(solver, done, waiting)
        if 0 < 2 * len(held) <= solver.rows:
            solver.keep(list(held))
            held = dict(enumerate(held.values()))


def _refill(solver: DeviceSolver, rows: Sequence[int], waiting: list[Situation]) -> dict[int, Situation]:
    """Begin the next situations in rows, as many as are left, and return which is where."""
    new = {row: waiting.pop() for row in rows[: len(waiting)]}
    if new:
        solver.begin(list(new), list(new.values()))
    return new
