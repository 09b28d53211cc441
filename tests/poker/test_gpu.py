"""What is solved on a device is what the float64 solver finds, whatever lies beside it.

Where a hand has no positive regret but that of a rounding error strategies jump, in float64 too, and other iterations
lead to the same play. So single values are compared after a past without such hands, and later exploitability and the
mean over hands.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch

from poker.batches import Solved, Stop
from poker.betting import Betting
from poker.gpu import (
    HANDS,
    PLAIN,
    DeviceSolver,
    bytes_of_row,
    order_of,
    river,
    rows_that_fit,
    solve_on_device,
)
from poker.holdem import board_hands
from poker.program import compile_tree
from poker.sampling import Law, Situation, draw_group
from poker.schedules import make_schedule
from poker.solver import Solver

BETTING = Betting(20_000.0)
CPU = torch.device("cpu")
LAW = Law(seed=1, group=3, pots=((4000, 6500),))
VARIANTS = pytest.mark.parametrize("variant", ["cfr", "dcfr6", "dcfr+"])
"""One that forgets nothing, the default, and one that cuts regrets and lets both players learn at once."""
STOP = Stop(target=0.005)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@cache
def form_of(pot_half: int) -> bytes:
    return compile_tree(river(BETTING, pot_half)).programs[0].code.tobytes()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def mixed() -> list[Situation]:
    """Situations of one form on three boards."""
    return [situation for group in range(3) for situation in draw_group(LAW, group, form_of)]


def begun(
    situations: Sequence[Situation],
    variant: str,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> DeviceSolver:
    schedule, pot_half = make_schedule(variant), situations[0].pot_half
    solver = DeviceSolver(BETTING, pot_half, schedule, len(situations), 500, device=device, dtype=dtype)
    solver.begin(range(len(situations)), situations)
    return solver


def plainly(situation: Situation, variant: str, iterations: int) -> Solver:
    """Return the float64 solver of a situation after so many iterations."""
    tree = river(BETTING, situation.pot_half)
    solver = Solver(tree, board_hands(situation.board).hands, lanes=False)
    solver.begin(0, tree, situation.masses)
    solver.iterate(make_schedule(variant), iterations)
    return solver


def all_values(solver: DeviceSolver) -> np.ndarray:
    return solver.values(range(solver.rows))


@pytest.mark.parametrize(
    "board", [(0, 5, 10, 15, 16), (0, 4, 8, 12, 51), (32, 36, 40, 44, 48), (1, 2, 3, 20, 33)]
)
def test_showdowns_and_folds_are_those_of_hand_against_hand(board: tuple[int, ...]) -> None:
    hands, order = board_hands(board), order_of(board)
    cards, ends = hands.hands.cards, hands.hands.boards[0].ends
    apart = ~(cards[:, None, :, None] == cards[None, :, None, :]).any((2, 3))
    group = np.searchsorted(ends, np.arange(HANDS), side="right")
    beats = np.sign(group[:, None] - group[None])
    masses = np.random.default_rng(1).random(HANDS) ** 8
    situation = Situation(0, board, 5000, np.stack([masses, masses]) * HANDS)
    for dtype, close in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        solver = begun([situation], "cfr", dtype)
        reach = solver._work[0]
        facing = PLAIN.compatible(reach, *solver._cards)
        won = PLAIN.won(reach, facing, torch.ones(1, 1, dtype=dtype), solver._orders)
        for found, wanted in ((facing, apart @ masses), (won, (apart * beats) @ masses)):
            error = np.abs(found[0, order.weakest_first].numpy() - wanted)
            assert error.max() < close * masses.sum()


@VARIANTS
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_iterations_are_those_of_the_float64_solver(
    variant: str, dtype: torch.dtype, close: float, mixed: list[Situation]
) -> None:
    situations, done, rng = mixed[::3], 120, np.random.default_rng(1)
    solver = begun(situations, variant, dtype)
    plains = [plainly(situation, variant, 0) for situation in situations]
    solver.iterations[:], solver._taken[:] = done, done
    for row, (situation, plain) in enumerate(zip(situations, plains, strict=True)):
        plain.iterations[:] = done
        regrets = rng.normal(size=(solver.compiled.actions, HANDS))
        regrets[list(solver.compiled.first)] = rng.random((len(solver.compiled.first), HANDS)) + 0.5
        if solver.schedule.floor:
            regrets = np.maximum(regrets, 0)
        remember(plain._arrays.regrets, solver._regrets, regrets, row, situation)
        remember(plain._arrays.average, solver._average, rng.random(regrets.shape), row, situation)
    solver.iterate(3)
    values, gaps = all_values(solver), solver.exploitability()
    for row, (situation, plain) in enumerate(zip(situations, plains, strict=True)):
        plain.iterate(solver.schedule, 3)
        most = BETTING.stack / situation.pot_half * situation.masses.sum(1)[::-1, None]
        assert (np.abs(values[:, row] - plain.values()[:, :, 0]) < close * most).all()
        assert gaps[row] == pytest.approx(plain.exploitability()[0], abs=10 * close)


def remember(
    plain: np.ndarray, actions: list[torch.Tensor], learnt: np.ndarray, row: int, situation: Situation
) -> None:
    """Put what was learnt [actions, HANDS] into the float64 solver and into a row."""
    plain[:] = learnt.reshape(-1)
    hands = torch.from_numpy(order_of(situation.board).weakest_first)
    for action, of_hands in zip(actions, learnt, strict=True):
        action[row, hands] = torch.from_numpy(of_hands).to(action.dtype)


@VARIANTS
def test_float32_finds_the_same_play(variant: str, mixed: list[Situation]) -> None:
    situations = mixed[::3]
    solver = begun(situations, variant)
    solver.iterate(150)
    values, gaps = all_values(solver), solver.exploitability()
    for row, situation in enumerate(situations):
        plain = plainly(situation, variant, 150)
        assert abs(gaps[row] - plain.exploitability()[0]) < 1e-3
        error = np.abs(values[:, row] - plain.values()[:, :, 0]) * situation.masses
        assert (error.sum(1) < 5e-3).all()


def solved(
    situations: Sequence[Situation], stop: Stop = STOP, *, together: int = 4096, variant: str = "dcfr6"
) -> dict[int, Solved]:
    found = solve_on_device(
        situations, BETTING, make_schedule(variant), stop, device="cpu", most_together=together
    )
    return {each.situation.number: each for each in found}


@VARIANTS
def test_each_is_as_exact_as_wanted(variant: str, mixed: list[Situation]) -> None:
    stop = Stop(target=0.01)
    found = solved(mixed, stop, together=4, variant=variant)
    assert sorted(found) == [situation.number for situation in mixed]
    for each in found.values():
        assert each.exact
        assert 0 <= each.exploitability <= 0.01
        assert each.iterations % stop.every == 0
        assert (each.values.shape, each.values.dtype) == ((2, HANDS), np.float32)
        one, other = (each.values.astype(np.float64) * each.situation.masses).sum(1)
        assert abs(one + other) < 1e-4


def test_exploitability_is_that_of_the_strategies_that_were_found(mixed: list[Situation]) -> None:
    solver = begun(mixed, "dcfr6")
    solver.iterate(200)
    gaps = solver.exploitability()
    for row, situation in enumerate(mixed):
        plain = plainly(situation, "dcfr6", 0)
        hands = torch.from_numpy(order_of(situation.board).weakest_first)
        plain._arrays.average[:] = torch.cat([action[row][hands] for action in solver._average]).numpy()
        assert plain.exploitability()[0] == pytest.approx(gaps[row], abs=1e-5)
        assert plain.exploitability()[0] / 2 < STOP.target


def test_what_comes_of_one_does_not_depend_on_its_neighbours(mixed: list[Situation]) -> None:
    together = solved(mixed)
    for some, rows in ((mixed, 2), (mixed[::-1], 3), (mixed[1:2], 1)):
        for number, alone in solved(some, together=rows).items():
            assert alone.iterations == together[number].iterations
            assert alone.exploitability == pytest.approx(together[number].exploitability, abs=1e-5)
            assert np.abs(alone.values - together[number].values).max() < 1e-5


def test_what_is_not_exact_in_time_says_so(mixed: list[Situation]) -> None:
    for each in solved(mixed[:3], Stop(target=1e-9, iterations=40), together=2).values():
        assert (each.exact, each.iterations, each.exploitability > 1e-9) == (False, 40, True)


def test_a_number_of_iterations_may_be_given(mixed: list[Situation]) -> None:
    for each in solved(mixed[:3], Stop(target=None, iterations=30), together=2).values():
        assert (each.iterations, each.exact) == (30, True)


def test_a_row_with_nothing_in_it_stays_quiet(mixed: list[Situation]) -> None:
    solver = DeviceSolver(BETTING, mixed[0].pot_half, make_schedule("dcfr6"), 2, 20, device=CPU)
    solver.begin([1], mixed[:1])
    solver.iterate(20)
    assert not all_values(solver)[:, 0].any()
    assert solver.exploitability()[0] == 0


def test_memory_is_about_what_is_said(mixed: list[Situation]) -> None:
    for variant in ("dcfr6", "dcfr+"):
        solver = begun(mixed, variant)
        kept = {
            tensor.data_ptr(): tensor.nbytes
            for part in (solver._regrets, solver._learnt, solver._average, solver._work, solver._orders)
            for tensor in (*part, *solver._facing.values())
        }
        said = bytes_of_row(solver.compiled, solver.schedule) * len(mixed)
        assert 0.6 * said < sum(kept.values()) < said
    assert rows_that_fit(solver.compiled, solver.schedule, CPU) is None


def test_iterations_go_on_where_none_can_be_recorded(
    mixed: list[Situation], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("no graphs here")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", refuse)
    one, other = begun(mixed[:2], "dcfr6"), begun(mixed[:2], "dcfr6")
    one._may_capture = True
    with pytest.warns(UserWarning, match="goes on without a CUDA graph: no graphs here"):
        one.iterate(5)
    other.iterate(5)
    assert (all_values(one) == all_values(other)).all()


@needs_gpu
@pytest.mark.parametrize("fused", [False, True])
@VARIANTS
def test_a_gpu_finds_the_same_play(variant: str, fused: bool, mixed: list[Situation]) -> None:
    stop = Stop(target=0.01)
    found = solve_on_device(
        mixed, BETTING, make_schedule(variant), stop, device="cuda", most_together=4, fused=fused
    )
    for each in found:
        plain = plainly(each.situation, variant, each.iterations)
        assert each.exact
        assert abs(plain.exploitability()[0] / 2 - each.exploitability) < 1e-3
        error = np.abs(each.values - plain.values()[:, :, 0]) * each.situation.masses
        assert (error.sum(1) < 5e-3).all()


@needs_gpu
def test_a_graph_takes_the_iterations_that_were_recorded(mixed: list[Situation]) -> None:
    cuda = torch.device("cuda")
    graph, eager = (begun(mixed, "dcfr+", torch.float64, cuda) for _ in range(2))
    eager._may_capture = False
    for solver in (graph, eager):
        solver.iterate(30)
        solver.keep([1, 2])
        solver.iterate(30)
    assert graph._graph is not None
    assert np.abs(all_values(graph) - all_values(eager)).max() < 1e-6
