"""The table of leases, on a clock that the test holds."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control import leases
from control.database import Database
from control.leases import LeaseTable
from control.locks import UnreachableError
from tests.control.lock_contract import AnyBackend

NAME = "training:hex5_2p"


@dataclasses.dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def table(folder: Path, clock: Callable[[], float], wall: Callable[[], float] = lambda: 0.0) -> LeaseTable:
    return LeaseTable(Database(folder / "control.sqlite", leases.TABLES), clock, wall)


class TestLeaseTable(AnyBackend):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> LeaseTable:
        return LeaseTable(Database(tmp_path / "control.sqlite", leases.TABLES))


def test_a_lease_ends_with_its_ttl_and_not_before(tmp_path: Path) -> None:
    clock = Clock()
    kept = table(tmp_path, clock)
    assert kept.try_acquire(NAME, "a", ttl_seconds=10, above=0) == 1
    clock.now = 9.0
    assert kept.renew(NAME, "a")
    clock.now = 18.9
    assert kept.try_acquire(NAME, "b", ttl_seconds=10, above=0) is None
    clock.now = 19.0
    assert not kept.renew(NAME, "a")
    assert kept.holders() == []
    assert kept.try_acquire(NAME, "b", ttl_seconds=10, above=0) == 2


def test_the_next_table_goes_on_with_greater_numbers_and_the_same_holders(tmp_path: Path) -> None:
    clock = Clock(1e6)
    before = table(tmp_path, clock)
    before.try_acquire(NAME, "a", ttl_seconds=10, above=0)
    before.try_acquire("other", "b", ttl_seconds=10, above=41)
    before.release("other", "b")
    rebooted = Clock(3.0)
    after = table(tmp_path, rebooted)
    assert after.epoch == before.epoch + 1
    assert [(held.name, held.owner, held.number) for held in after.holders()] == [(NAME, "a", 1)]
    assert after.try_acquire("other", "c", ttl_seconds=10, above=0) == 43
    rebooted.now = 12.9
    assert after.try_acquire(NAME, "c", ttl_seconds=10, above=0) is None
    assert after.renew(NAME, "a")
    rebooted.now = 23.0
    assert after.try_acquire(NAME, "c", ttl_seconds=10, above=0) == 2


def test_a_table_that_was_replaced_gives_and_renews_nothing(tmp_path: Path) -> None:
    clock = Clock()
    before = table(tmp_path, clock)
    before.try_acquire(NAME, "a", ttl_seconds=10, above=0)
    after = table(tmp_path, clock)
    for act in (
        lambda: before.renew(NAME, "a"),
        lambda: before.release(NAME, "a"),
        lambda: before.try_acquire("other", "b", ttl_seconds=10, above=0),
    ):
        with pytest.raises(UnreachableError, match="replaced"):
            act()
    assert after.renew(NAME, "a")


def test_the_wall_clock_changes_nothing(tmp_path: Path) -> None:
    clock, wall = Clock(), Clock()
    kept = table(tmp_path, clock, wall)
    kept.try_acquire(NAME, "a", ttl_seconds=10, above=0)
    for jump in (1e9, -1e9, 0.0):
        wall.now = jump
        assert kept.renew(NAME, "a")
        assert kept.try_acquire(NAME, "b", ttl_seconds=10, above=0) is None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["acquire", "renew", "release"]), st.sampled_from("abc")),
            st.tuples(st.just("wait"), st.sampled_from([0.4, 1.0])),
            st.tuples(st.just("restart"), st.none()),
        ),
        max_size=40,
    )
)
def test_whatever_happens_numbers_rise_and_nobody_loses_what_is_renewed_in_time(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    folder, clock = tmp_path_factory.mktemp("leases"), Clock()
    kept, numbers, holder, good_until = table(folder, clock), [0], None, 0.0
    for step, given_ in steps:
        if step == "wait":
            clock.now += float(str(given_))
        elif step == "restart":
            kept, clock.now = table(folder, clock), clock.now + 0.1
        elif step == "acquire":
            number = kept.try_acquire(NAME, str(given_), ttl_seconds=1, above=0)
            free = clock.now >= good_until or holder in (None, given_)
            assert number is not None or not free or numbers[-1] > 0
            if number is not None:
                assert free
                assert number > numbers[-1] or (holder == given_ and number == numbers[-1])
                numbers.append(number)
                holder, good_until = given_, clock.now + 1
        elif step == "renew":
            if kept.renew(NAME, str(given_)):
                assert given_ == holder
                good_until = clock.now + 1
            else:
                assert given_ != holder or clock.now >= good_until
        else:
            kept.release(NAME, str(given_))
            holder = None if given_ == holder else holder
    assert len(kept.holders()) <= 1
