import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.seeds import derive_rng
from replay.splitting import is_validation

numbers = hnp.arrays(np.uint64, st.integers(0, 50))
shares = st.floats(0, 1)


@given(numbers, shares, st.randoms())
def test_a_game_is_on_one_side_whatever_lies_beside_it(games: np.ndarray, share: float, rng) -> None:
    order = rng.sample(range(len(games)), len(games))
    assert np.array_equal(is_validation(games, share)[order], is_validation(games[order], share))
    alone = [is_validation(games[k : k + 1], share)[0] for k in range(len(games))]
    assert is_validation(games, share).tolist() == alone


@given(numbers, shares, shares)
def test_a_greater_share_keeps_the_same_games_and_more(games: np.ndarray, one: float, other: float) -> None:
    small, great = sorted([one, other])
    assert not (is_validation(games, small) & ~is_validation(games, great)).any()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("kind", ["digests", "counted"])
def test_the_share_is_kept(share: float, kind: str) -> None:
    """Also of games that are numbered one by one; within four deviations of a binomial."""
    count = 100_000
    rng = derive_rng(1, "games")
    games = (
        np.arange(count, dtype=np.uint64) if kind == "counted" else rng.integers(0, 2**64, count, np.uint64)
    )
    found = is_validation(games, share).mean()
    assert abs(found - share) <= 4 * np.sqrt(share * (1 - share) / count)


def test_the_split_of_this_release_is_that_of_every_release() -> None:
    """The games of an old data set stay on their sides."""
    games = np.arange(40, dtype=np.uint64)
    assert np.flatnonzero(is_validation(games, 0.1)).tolist() == [3, 7, 9]
