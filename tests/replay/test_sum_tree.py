import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.seeds import derive_rng
from replay.sum_tree import SumTree

# Whole numbers, so that every sum is exact in whatever order it is made.
changes = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 9)), max_size=30)


def found_slowly(weights: np.ndarray, mass: float) -> int:
    """Return the first slot at which the running sum of weights is above `mass`."""
    running = 0.0
    for slot, weight in enumerate(weights):
        running += weight
        if running > mass:
            return slot
    return int(np.flatnonzero(weights)[-1])


def test_weights_by_hand() -> None:
    tree = SumTree(np.array([1.0, 0.0, 4.0, 2.0]))
    assert (tree.size, tree.total) == (4, 7.0)
    assert tree.find(np.array([0.0, 0.9, 1.0, 4.9, 5.0, 6.9])).tolist() == [0, 0, 2, 2, 3, 3]
    tree.set(np.array([1, 2]), np.array([3.0, 0.5]))
    assert tree.total == 6.5
    assert tree.get(np.array([2, 0])).tolist() == [0.5, 1.0]
    assert tree.find(np.array([3.9, 4.0, 4.5])).tolist() == [1, 2, 3]


def test_a_single_slot_is_a_tree() -> None:
    tree = SumTree(np.zeros(1))
    tree.set(np.array([0]), np.array([2.0]))
    assert tree.total == 2.0
    assert tree.find(np.array([0.0, 1.5])).tolist() == [0, 0]


@given(st.lists(changes, max_size=5), st.integers(0, 2**32))
def test_after_any_changes_it_finds_what_a_walk_over_all_weights_finds(
    batches: list[list[tuple[int, int]]], seed: int
) -> None:
    weights = np.zeros(16)
    tree = SumTree(weights)
    for batch in batches:
        tree.set(np.array([slot for slot, _ in batch], np.int64), np.array([w for _, w in batch], np.float64))
        for slot, weight in batch:
            weights[slot] = weight
        assert tree.check_valid() == []
        assert tree.total == weights.sum()
        assert tree.get(np.arange(16)).tolist() == weights.tolist()
        if tree.total:
            masses = derive_rng(seed).random(20) * tree.total
            assert tree.find(masses).tolist() == [found_slowly(weights, mass) for mass in masses]


def test_sums_depend_on_the_weights_alone_and_not_on_what_they_were() -> None:
    rng = derive_rng(0)
    tree = SumTree(np.zeros(64))
    for _ in range(200):
        slots = rng.integers(64, size=10)
        tree.set(slots, rng.random(10) * 10.0 ** rng.integers(-12, 12, size=10))
    last = rng.random(64)
    tree.set(np.arange(64), last)
    assert tree.total == SumTree(last).total
    tree.set(np.arange(64), np.zeros(64))
    assert tree.total == 0.0


@given(st.integers(0, 2**32), st.integers(1, 15))
def test_a_slot_without_weight_is_never_found_however_the_mass_is_rounded(seed: int, weighty: int) -> None:
    rng = derive_rng(seed)
    weights = np.zeros(16)
    weights[rng.permutation(16)[:weighty]] = rng.random(weighty) * 10.0 ** rng.integers(-9, 9, size=weighty)
    tree = SumTree(weights)
    masses = np.array([0.0, tree.total, np.nextafter(tree.total, np.inf), *np.cumsum(weights)])
    assert (weights[tree.find(masses)] > 0).all()


def test_slots_are_found_in_proportion_to_their_weights() -> None:
    weights = np.arange(32.0)
    tree = SumTree(weights)
    found = np.bincount(tree.find(derive_rng(1).random(100_000) * tree.total), minlength=32)
    expected = 100_000 * weights / weights.sum()
    statistic = ((found - expected)[1:] ** 2 / expected[1:]).sum()
    # Chi-square with 30 degrees of freedom: mean 30, variance 60; five standard deviations above.
    assert statistic < 30 + 5 * 60**0.5
    assert found[0] == 0


def test_a_broken_tree_is_found_out() -> None:
    tree = SumTree(np.ones(4))
    tree._nodes[2] = 5.0
    assert tree.check_valid() == ["a node is not the sum of its children"]
    tree = SumTree(np.array([1.0, np.nan, 1.0, 1.0]))
    assert tree.check_valid() == ["a weight is negative or not finite"]
