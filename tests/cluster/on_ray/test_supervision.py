"""When a part is started again, and when the run gives up on it."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.on_ray.supervision import Attendance
from core.restarts import RestartPolicy


def test_the_delay_doubles_up_to_its_maximum() -> None:
    policy = RestartPolicy(first_delay_seconds=1.0, max_delay_seconds=5.0, max_failures=10)

    assert [policy.failed(now) for now in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_part_that_held_out_for_a_window_begins_with_the_first_delay_again() -> None:
    policy = RestartPolicy(first_delay_seconds=1.0, window_seconds=100.0)
    for now in (0.0, 1.0, 2.0):
        policy.failed(now)

    assert policy.failed(103.0) == 1.0


def test_a_part_that_held_out_for_a_while_does_not_fail_in_a_row_but_is_counted() -> None:
    policy = RestartPolicy(first_delay_seconds=1.0, max_failures=4, window_seconds=300.0, steady_seconds=20.0)

    assert [policy.failed(now) for now in (0.0, 3.0, 24.0, 49.0)] == [1.0, 2.0, 4.0, 1.0]
    assert policy.failed(100.0) is None


def test_one_failure_too_many_within_the_window_is_the_end() -> None:
    policy = RestartPolicy(max_failures=3, window_seconds=100.0)
    delays = [policy.failed(now) for now in (0.0, 1.0, 2.0, 3.0)]

    assert None not in delays[:3]
    assert delays[3] is None


def test_failures_that_are_far_apart_never_end_a_run() -> None:
    policy = RestartPolicy(max_failures=2, window_seconds=10.0)

    assert all(policy.failed(now) is not None for now in range(0, 1000, 6))


@given(st.lists(st.floats(0, 50), max_size=60))
def test_a_delay_is_never_negative_nor_longer_than_its_maximum(pauses: list[float]) -> None:
    policy, now = RestartPolicy(), 0.0
    for pause in pauses:
        now += pause
        delay = policy.failed(now)
        assert delay is None or 0.0 < delay <= policy.max_delay_seconds


def test_a_part_that_always_fails_at_once_is_given_up_within_two_minutes() -> None:
    policy, now = RestartPolicy(), 0.0
    while (delay := policy.failed(now)) is not None:
        now += delay

    assert 30.0 < now < 120.0


def test_a_process_that_was_never_heard_of_is_given_up_when_patience_ends() -> None:
    attendance = Attendance(patience_seconds=100.0)
    for second in range(101):
        attendance.missed(float(second))
        assert not attendance.given_up(float(second))

    assert attendance.given_up(101.0)


def test_processes_that_only_ever_show_up_for_a_moment_are_given_up_too() -> None:
    attendance, now = Attendance(settled_seconds=5.0, patience_seconds=100.0), 0.0
    while not attendance.given_up(now):
        now += 2.0
        attendance.answered(int(now) // 4, now)
        assert now < 120.0

    assert now > 100.0


def test_a_process_that_stays_ends_the_waiting() -> None:
    attendance = Attendance(settled_seconds=5.0, patience_seconds=100.0)
    attendance.answered(1, 0.0)
    attendance.missed(10.0)
    for second in (60.0, 66.0):
        attendance.answered(2, second)

    assert not attendance.given_up(1000.0)


def test_another_process_is_noticed_once() -> None:
    attendance = Attendance()

    assert [attendance.answered(pid, 0.0) for pid in (1, 1, 2, 2, 3)] == [False, False, True, False, True]


def test_time_in_which_nobody_could_listen_is_not_silence() -> None:
    attendance = Attendance(patience_seconds=100.0)
    attendance.missed(0.0)
    attendance.forgive(500.0)

    assert not attendance.given_up(600.0)
    assert attendance.given_up(601.0)
