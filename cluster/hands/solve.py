"""`tamen solve`: how two players who make no mistakes play a river, a turn, or with a network's help a flop."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.cli.stopping import stop_request
from cluster.cli.terminal import console
from cluster.hands.solve_display import PLAYERS, SolveDisplay, show_solution
from core.errors import UsageError
from core.hands import Street
from core.messages import Steps
from inference_server.client import Client, drive_all
from poker.betting import Betting
from poker.cards import card_name, hand_name, parse_cards
from poker.lines import Reached, reached_decisions
from poker.ranges import parse_range
from poker.schedules import Schedule, make_schedule
from poker.solver import Solver
from poker.subgames import Subgame, street_after
from poker.tree import scaled

if TYPE_CHECKING:
    from poker.holdem import BoardHands
    from poker.leaves import NetworkLeaves

MOST_ITERATIONS = 10_000
TARGET_PCT = 0.1
_CHECK_ITERATIONS = 20
_CHUNK_SECONDS = 0.3
"""For which the solver does not look up; an iteration may take longer."""
_FLOP, _TURN, _RIVER = 3, 4, 5
_STREETS: dict[int, Street] = {_FLOP: "flop", _TURN: "turn", _RIVER: "river"}
_MOST_POTS = 1_000_000
_SEEN_POTS = 200
_LARGEST_BET = 50.0
_NO_BETS = "none"
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Situation:
    """What is to be solved.

    Attributes:
        hands: of a board.
        pot_half: what each player has put in.
        subgame: what is played from now on.
        ranges: float64 [2, H], of the player who begins and of the other.
    """

    hands: "BoardHands"
    pot_half: float
    subgame: Subgame
    ranges: np.ndarray


@dataclass(frozen=True, slots=True)
class Until:
    """When to stop: at an exploitability, in parts of the pot, where one is given, or after so many iterations."""

    target: float | None
    iterations: int


def solve(
    *,
    board: str,
    pot_half: float,
    stack: float,
    ranges: tuple[str, str],
    bets: str,
    target_pct: float | None,
    iterations: int | None,
    variant: str,
    values: str | None = None,
    runs: Path = Path("runs"),
    quiet: bool = False,
) -> tuple[dict[str, Any], int]:
    """Solve a situation, and print the solution unless `quiet`.

    Args:
        board: cards of a turn or a river, or with `values` of a flop.
        pot_half: what each player has put in, in chips.
        stack: what each had at the beginning of the hand.
        ranges: of the player who begins and of the other, see `poker.ranges`.
        bets: in parts of the pot after a call, between commas, or "none"; all-in is always one more.
        target_pct: the exploitability at which to stop, in percent of the pot (default: `TARGET_PCT`).
        iterations: how many to take, whatever the exploitability; excludes `target_pct`.
        variant: one of `poker.schedules.VARIANTS`.
        values: a run whose network says what hands are worth at the end of the street; None: solve to the end. Then
            exploitability is that of the street alone, see `poker.batches.Solved`.
        runs: folder of runs.
        quiet: whether the caller prints what is returned; then only progress is shown.

    Returns:
        The solution, and the exit code: 1 when `MOST_ITERATIONS` did not reach the target, 130 when asked to stop;
        then the solution is what was reached.

    Raises:
        UsageError: when an argument is out of its range, or no hands of the two ranges go together.
    """
    began = time.monotonic()
    situation = _read_situation(board, pot_half, stack, ranges, bets, by_network=values is not None)
    schedule, until = make_schedule(variant), _read_until(target_pct, iterations)
    asked = None
    if values is not None:
        schedule = replace(schedule, simultaneous=True)  # both players' leaves are asked for at once
        asked = _network(values, runs, situation)
    tree = situation.subgame.tree_in_chips(pot_half)
    unit = scaled(tree, 1 / pot_half)
    solver = Solver(unit, situation.hands.hands, lanes=False)
    solver.begin(0, unit, situation.ranges)
    leaves = asked and _Leaves(solver, *asked, stack / pot_half)
    with stop_request() as stop, SolveDisplay(console(stderr=True), until.target) as display:
        share = _learn(solver, schedule, until, leaves, should_stop=lambda: stop.requested, display=display)
        was_stopped = stop.requested
    ev_oop = float(solver.expected(solver.values())[0, 0]) * pot_half
    solution = {
        "board": "".join(map(card_name, situation.hands.board)),
        "pot_half": pot_half,
        "stack": stack,
        "variant": variant,
        "values": values,
        "ev_oop": ev_oop,
        "ev_ip": 0.0 - ev_oop,
        "exploitability_pct": 100 * share,
        "target_pct": None if until.target is None else 100 * until.target,
        "target_reached": None if until.target is None else share <= until.target,
        "iterations": int(solver.iterations[0]),
        "stopped": was_stopped,
        "seconds": round(time.monotonic() - began, 3),
    }
    decisions = reached_decisions(tree, solver, situation.ranges)
    if quiet:
        solution["strategy"] = list(_told(decisions, situation.hands.numbers))
    else:
        show_solution(solution, next(decisions), situation.hands.numbers)
    return solution, 130 if was_stopped else 1 if solution["target_reached"] is False else 0


class _Leaves:
    """Has a network say what the leaves of a solver are worth.

    Args:
        solver: of one situation.
        network: what is asked.
        client: the way to it.
        stack: in the unit of the solver's stakes.
    """

    def __init__(self, solver: Solver, network: "NetworkLeaves", client: Client, stack: float) -> None:
        self._solver = solver
        self._network = network
        self._client = client
        self._stacks = np.array([stack])

    def value(self, *, mean: bool) -> None:
        """Give the solver values for the strategies of its next iteration, or for average ones."""
        for _ in drive_all([self._steps(mean)], self._client, together=1):
            pass

    def _steps(self, mean: bool) -> Steps[None]:
        solver = self._solver
        masses = solver.leaf_masses(mean=mean).astype(np.float32)
        solver.set_leaf_values((yield from self._network.values(masses, solver.leaf_stakes, self._stacks)))


def _network(name: str, runs: Path, situation: Situation) -> "tuple[NetworkLeaves, Client]":
    """Return who says what leaves are worth. Raises UsageError when that network is for something else."""
    from cluster.hands.networks import Here, find_networks
    from poker.leaves import NetworkLeaves

    stack = situation.subgame.betting.stack
    if situation.pot_half < stack / _SEEN_POTS:
        raise UsageError(
            f"--pot-half {situation.pot_half:.12g} is too small for --values",
            why=f"networks have seen pots from a {_SEEN_POTS}th of the stack on, here {stack / _SEEN_POTS:.12g}",
            fix="give a smaller --stack, or a larger --pot-half",
        )
    found = find_networks([name], runs)
    wanted = street_after(situation.subgame.street)
    if wanted not in found:
        raise UsageError(
            f"the network of run {name!r} is no help on the {situation.subgame.street}",
            why=f"it is for the {next(iter(found))}, and the {wanted} is what is asked for",
            fix=f"name a run of `tamen train {wanted}_values`" if wanted != "river" else "leave --values out",
        )
    return NetworkLeaves(situation.hands, "main"), Here(found[wanted])()


def _learn(
    solver: Solver,
    schedule: Schedule,
    until: Until,
    leaves: _Leaves | None,
    *,
    should_stop: Callable[[], bool],
    display: SolveDisplay,
) -> float:
    """Iterate, and return the exploitability that was reached, in parts of the pot."""

    def exploitability() -> float:
        if leaves is not None:
            leaves.value(mean=True)
        return float(solver.exploitability()[0]) / 2  # the pot is two halves

    done, at_once, share = 0, 1, None
    while done < until.iterations and not should_stop():
        count = min(at_once, _CHECK_ITERATIONS - done % _CHECK_ITERATIONS, until.iterations - done)
        began = time.monotonic()
        if leaves is None:
            solver.iterate(schedule, count)
        else:
            for _ in range(count):
                leaves.value(mean=False)
                solver.iterate(schedule, 1)
        seconds = (time.monotonic() - began) / count
        done += count
        at_once = max(1, int(_CHUNK_SECONDS / max(seconds, 1e-9)))
        share = None
        if until.target is not None and done % _CHECK_ITERATIONS == 0:
            share = exploitability()
            if share <= until.target:
                break
        display.show(done, until.iterations, share)
    return exploitability() if share is None else share


def _told(decisions: Iterator[Reached], numbers: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield decisions as JSON has them, the first with its hands."""
    for place, decision in enumerate(decisions):
        overall = decision.frequencies
        told = {
            "line": list(decision.line),
            "player": PLAYERS[decision.player],
            "actions": list(decision.actions),
            "reached": round(decision.often, _DIGITS),
            "frequencies": None if overall is None else overall.round(_DIGITS).tolist(),
        }
        if place == 0:
            held = np.flatnonzero(decision.weights > 0)
            shares = decision.strategy[:, held].T.round(_DIGITS).tolist()
            told["hands"] = dict(zip(map(hand_name, numbers[held].tolist()), shares, strict=True))
        yield told


def _read_situation(
    board: str, pot_half: float, stack: float, ranges: tuple[str, str], bets: str, *, by_network: bool
) -> Situation:
    cards = _read_board(board, by_network=by_network)
    _check_chips(pot_half, stack)
    betting = Betting(stack, _read_bets(bets))
    weights = np.stack([parse_range(text, cards) for text in ranges])
    from poker.holdem import board_hands

    hands = board_hands(cards)
    own = weights[:, hands.numbers]
    held = (own > 0).astype(np.float64)  # whole numbers are counted exactly
    if not held[0] @ hands.hands.compatible(held[1]):
        raise UsageError(
            "no hand of --range1 goes together with one of --range2",
            why="any two of them share a card",
            fix="give one of the players more hands",
        )
    own /= own.sum(axis=1, keepdims=True)  # only their proportions count
    subgame = Subgame(_STREETS[len(cards)], betting, to_the_end=not by_network)
    return Situation(hands, pot_half, subgame, own)


def _read_board(text: str, *, by_network: bool) -> tuple[int, ...]:
    cards = parse_cards(text)
    if len(cards) == _FLOP and not by_network:
        raise UsageError(
            f"the flop {text!r} cannot be solved to the end",
            why="there are too many ways to go on: a value network has to say what hands are worth at its end",
            fix=f"give --values RUN with one, or the turn too, such as --board {_example(cards, _TURN)}",
        )
    if len(cards) == _RIVER and by_network:
        raise UsageError(
            f"no network is asked on the river {text!r}",
            why="nothing comes after it, so it is solved to the end",
            fix="leave --values out",
        )
    if len(cards) not in (_FLOP, _TURN, _RIVER):
        raise UsageError(
            f"{text!r} is no board, with {len(cards)} {'card' if len(cards) == 1 else 'cards'}",
            why=f"a flop has {_FLOP} cards, a turn {_TURN}, a river {_RIVER}",
            fix=f"give for example --board {_example(cards[:_RIVER], _RIVER)}",
        )
    return cards


def _example(cards: tuple[int, ...], length: int) -> str:
    """Return a board that begins like `cards`."""
    others = [card for card in parse_cards("Td9d6hQc3s2c4h5s7d8c") if card not in cards]
    return "".join(map(card_name, (*cards, *others)[:length]))


def _check_chips(pot_half: float, stack: float) -> None:
    if not 0 < stack < math.inf:
        raise UsageError(
            f"a stack of {stack:.12g} chips is out of range",
            why="it is what each player had at the beginning of the hand, above 0",
            fix="give for example --stack 20000",
        )
    if pot_half == stack:
        raise UsageError(
            f"with --pot-half {pot_half:.12g} both players are all-in already",
            why=f"that is their whole stack of {stack:.12g}, so there is nothing to decide",
            fix="give a smaller --pot-half, or a larger --stack",
        )
    least = stack / _MOST_POTS
    if not least <= pot_half < stack:
        raise UsageError(
            f"--pot-half {pot_half:.12g} is out of range",
            why=f"each player has put in from {least:.12g} to less than his stack of {stack:.12g}",
            fix=f"give for example --pot-half {stack / 200:.12g}",
        )


def _read_bets(text: str) -> tuple[float, ...]:
    if text.strip().lower() == _NO_BETS:
        return ()
    sizes = []
    for part in text.split(","):
        try:
            size = float(part)
        except ValueError:
            size = math.nan
        if not 0 < size <= _LARGEST_BET:
            raise UsageError(
                f"a bet of {part.strip()!r} pots is out of range",
                why=f"bets are numbers above 0 and at most {_LARGEST_BET:g}, or {_NO_BETS} for all-in alone",
                fix="give for example --bets 0.5,1",
            )
        sizes.append(size)
    return tuple(sizes)


def _read_until(target_pct: float | None, iterations: int | None) -> Until:
    if iterations is not None:
        if target_pct is not None:
            raise UsageError(
                f"--iterations {iterations} and --target-pct {target_pct:g} exclude each other",
                why="either a number of iterations is taken, or as many as the target needs",
                fix="give one of them",
            )
        if iterations < 1:
            raise UsageError(
                f"--iterations {iterations} is out of range",
                why="at least 1 is taken",
                fix="give for example --iterations 500",
            )
        return Until(None, iterations)
    target = TARGET_PCT if target_pct is None else target_pct
    if not 0 < target <= 100:
        raise UsageError(
            f"--target-pct {target:g} is out of range",
            why="it is in percent of the pot, above 0 and at most 100",
            fix=f"give for example --target-pct {TARGET_PCT:g}",
        )
    return Until(target / 100, MOST_ITERATIONS)
