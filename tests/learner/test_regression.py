"""Counterfactual values: what players win from each other cancels, and what is masked does not matter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.regression import masked_huber_losses
from networks.hand_values import zero_sum
from tests.learner import oracles

HANDS = 6


def random_values(rows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return values and ranges [R, 2, H] with blocked hands, and targets that are no numbers where masked."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (rows, 2, HANDS)).astype(np.float32)
    live = np.repeat(rng.random((rows, 1, HANDS)) < 0.7, 2, axis=1)
    live[:, :, 0] = True
    ranges = rng.random((rows, 2, HANDS)) * live
    ranges = (ranges / ranges.sum(axis=2, keepdims=True)).astype(np.float32)
    mask = live.reshape(rows, 2 * HANDS)
    targets = {
        "values": np.where(mask, rng.normal(0, 1, mask.shape), np.nan).astype(np.float32),
        "mask": mask,
        "weight": rng.uniform(0.5, 2.0, rows).astype(np.float32),
    }
    return values, ranges, targets


def run(
    values: torch.Tensor, targets: oracles.Arrays, *, delta: float, batch_entries: int | None = None
) -> dict[str, torch.Tensor]:
    return masked_huber_losses(
        {"values": values},
        {name: torch.from_numpy(column) for name, column in targets.items()},
        delta=delta,
        batch_entries=batch_entries or int(targets["mask"].sum()),
    )


@settings(max_examples=30)
@given(rows=st.integers(1, 6), seed=st.integers(0, 2**32), mass=st.sampled_from([1.0, 0.25, 3.0]))
def test_what_one_player_wins_the_other_loses(rows: int, seed: int, mass: float) -> None:
    values, ranges, _ = random_values(rows, seed=seed)
    ranges[:, 1] *= mass
    fair = zero_sum(torch.from_numpy(values), torch.from_numpy(ranges)).numpy()
    np.testing.assert_allclose((fair * ranges).sum(axis=(1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(fair, oracles.zero_sum(values, ranges), rtol=1e-4, atol=1e-5)


def test_with_ranges_that_sum_to_one_half_of_the_excess_is_taken_as_deepstack_does() -> None:
    values = torch.tensor([[[1.0, 3.0], [0.0, 4.0]]])
    ranges = torch.tensor([[[0.5, 0.5], [0.75, 0.25]]])
    assert zero_sum(values, ranges).tolist() == [[[-0.5, 1.5], [-1.5, 2.5]]]


def test_values_that_are_fair_already_and_rows_without_hands_stay_as_they_are() -> None:
    values, ranges, _ = random_values(2, seed=1)
    ranges[1] = 0.0
    first = zero_sum(torch.from_numpy(values), torch.from_numpy(ranges))
    again = zero_sum(first, torch.from_numpy(ranges))
    torch.testing.assert_close(again, first)
    assert first[1].tolist() == values[1].tolist()


def test_the_gradient_flows_through_the_zero_sum_layer() -> None:
    values, ranges, _ = random_values(3, seed=2)
    assert torch.autograd.gradcheck(
        zero_sum,
        (
            torch.from_numpy(values).double().requires_grad_(),
            torch.from_numpy(ranges).double().requires_grad_(),
        ),
    )


@settings(max_examples=30)
@given(rows=st.integers(1, 6), seed=st.integers(0, 2**32), delta=st.sampled_from([0.1, 1.0, 10.0]))
def test_huber_losses_are_what_the_formula_says(rows: int, seed: int, delta: float) -> None:
    values, _, targets = random_values(rows, seed=seed)
    flat = values.reshape(rows, -1)
    found = {name: float(loss) for name, loss in run(torch.from_numpy(flat), targets, delta=delta).items()}
    assert found == pytest.approx(oracles.masked_huber_losses(flat, targets, delta=delta), rel=1e-4, abs=1e-6)


def test_gradients_through_both_are_those_of_finite_differences() -> None:
    values, ranges, targets = random_values(4, seed=3)
    live = torch.from_numpy(values).requires_grad_()
    run(zero_sum(live, torch.from_numpy(ranges)).flatten(1), targets, delta=0.5)["loss"].backward()

    def plain(values: np.ndarray) -> float:
        fair = oracles.zero_sum(values, ranges).reshape(len(values), -1)
        return oracles.masked_huber_losses(fair, targets, delta=0.5)["loss"]

    np.testing.assert_allclose(live.grad, oracles.slope(plain, values), rtol=1e-3, atol=1e-6)


def test_a_masked_entry_gets_no_gradient_even_beside_the_zero_sum_layer() -> None:
    values, ranges, targets = random_values(5, seed=4)
    live = torch.from_numpy(values).requires_grad_()
    run(zero_sum(live, torch.from_numpy(ranges)).flatten(1), targets, delta=1.0)["loss"].backward()
    assert live.grad is not None
    assert not targets["mask"].all()
    assert (live.grad.flatten(1) != 0).tolist() == targets["mask"].tolist()


@settings(max_examples=20)
@given(cut=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_the_shares_of_two_parts_add_up_to_the_whole(cut: int, seed: int) -> None:
    values, _, targets = random_values(6, seed=seed)
    flat, entries = torch.from_numpy(values).flatten(1), int(targets["mask"].sum())
    whole = run(flat, targets, delta=1.0)
    shares = [
        run(
            flat[rows],
            {name: column[rows] for name, column in targets.items()},
            delta=1.0,
            batch_entries=entries,
        )
        for rows in (slice(0, cut), slice(cut, None))
    ]
    for name, loss in whole.items():
        assert float(shares[0][name] + shares[1][name]) == pytest.approx(float(loss), rel=1e-5, abs=1e-6)
