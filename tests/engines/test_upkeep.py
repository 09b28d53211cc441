"""What is done about daemons follows from what happened and when, whatever that is."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from configs.engines import UpkeepConfig
from engines.upkeep import LEAST_JITTER, Action, Upkeep

CONFIG = UpkeepConfig(
    start_seconds=20.0,
    check_seconds=5.0,
    most_silences=3,
    first_delay_seconds=1.0,
    max_delay_seconds=8.0,
    window_seconds=100.0,
    max_failures=4,
)


def make(count: int = 1, spares: int = 0) -> Upkeep:
    return Upkeep(count, spares, CONFIG, random=Random(0))


def made_ready(upkeep: Upkeep, now: float) -> Upkeep:
    for action in upkeep.due(now):
        assert action.what == "start"
        upkeep.started(action.number, now)
    for action in upkeep.due(now):
        assert action.what == "ask"
        upkeep.answered(action.number, now)
    return upkeep


def test_a_daemon_that_answers_serves_and_is_asked_again_later() -> None:
    upkeep = made_ready(make(), 0.0)
    assert upkeep.serving() == [0]
    assert upkeep.due(4.9) == []
    assert upkeep.due(5.0) == [Action("ask", 0)]
    assert upkeep.due(6.0) == []  # that question is on its way


def test_a_spare_serves_at_once_when_another_is_gone_and_the_other_becomes_the_spare() -> None:
    upkeep = made_ready(make(count=2, spares=1), 0.0)
    assert upkeep.serving() == [0, 1]
    upkeep.ended(0, "it crashed", 1.0)
    assert upkeep.serving() == [1, 2]
    (start,) = upkeep.due(2.0)
    upkeep.started(start.number, 2.0)
    assert Action("ask", 0) in upkeep.due(2.0)
    upkeep.answered(0, 2.5)
    assert upkeep.serving() == [1, 2]
    assert upkeep.slots[0].restarts == 1
    assert upkeep.slots[0].trouble == "it crashed"


def test_one_that_is_of_no_use_is_killed_and_started_again_whether_it_was_ready_or_not() -> None:
    upkeep = make()
    upkeep.due(0.0)
    upkeep.started(0, 0.0)
    assert upkeep.due(0.0) == [Action("ask", 0)]
    upkeep.of_no_use(0, "another answers", 0.5)
    assert upkeep.due(0.5) == [Action("kill", 0)]
    upkeep.of_no_use(0, "too late to say", 0.6)
    upkeep.ended(0, "it was killed", 1.0)
    assert (upkeep.slots[0].state, upkeep.slots[0].trouble) == ("waiting", "another answers")
    made_ready(upkeep, 3.0).of_no_use(0, "games hang", 4.0)
    assert upkeep.due(4.0) == [Action("kill", 0)]


def test_one_that_is_silent_too_often_is_killed_and_started_again() -> None:
    upkeep, now = made_ready(make(), 0.0), 5.0
    for _ in range(CONFIG.most_silences):
        assert upkeep.due(now) == [Action("ask", 0)]
        upkeep.silent(0, "it hangs", now)
        now += 1.0
    assert upkeep.serving() == []
    assert upkeep.due(now) == [Action("kill", 0)]
    assert upkeep.due(now) == []
    assert upkeep.due(now + 1.0) == [Action("kill", 0)]  # until it is gone
    upkeep.ended(0, "it was ended by SIGKILL", now)
    assert upkeep.slots[0].trouble == "it hangs (3 times in a row)"
    assert upkeep.due(now + CONFIG.first_delay_seconds) == [Action("start", 0)]


def test_an_answer_in_between_forgives_silence() -> None:
    upkeep, now = made_ready(make(), 0.0), 5.0
    for _ in range(3 * CONFIG.most_silences):
        assert upkeep.due(now) == [Action("ask", 0)]
        upkeep.silent(0, "slow", now)
        assert upkeep.due(now + 1.0) == [Action("ask", 0)]
        upkeep.answered(0, now + 1.0)
        now += 6.0
    assert upkeep.serving() == [0]


def test_one_that_does_not_answer_in_time_after_its_start_is_killed() -> None:
    upkeep = make()
    assert upkeep.due(0.0) == [Action("start", 0)]
    upkeep.started(0, 0.0)
    now = 0.0
    while now < CONFIG.start_seconds:
        if upkeep.due(now):
            upkeep.silent(0, "Connection refused", now)
        now += 0.5
    assert upkeep.due(CONFIG.start_seconds) == [Action("kill", 0)]
    assert "Connection refused" in upkeep.slots[0].trouble


def test_delays_double_and_the_breaker_opens() -> None:
    upkeep, now, delays = make(), 0.0, []
    for _ in range(CONFIG.max_failures):
        assert upkeep.due(now) == [Action("start", 0)]
        upkeep.failed_to_start(0, "no port", now)
        delays.append(upkeep.slots[0].due - now)
        now = upkeep.slots[0].due
    for delay, full in zip(delays, (1.0, 2.0, 4.0, 8.0), strict=True):
        assert LEAST_JITTER * full <= delay <= full
    assert not upkeep.all_settled()
    assert upkeep.due(now) == [Action("start", 0)]
    upkeep.failed_to_start(0, "no port", now)
    assert upkeep.slots[0].state == "aside"
    assert upkeep.all_settled()
    assert upkeep.due(now + 1e6) == []


def test_one_that_was_taken_over_goes_on_as_it_was_and_is_asked_at_once() -> None:
    upkeep = make(count=1, spares=1)
    upkeep.taken_over(1, 0.0, ready=True, serving=True, restarts=7)
    upkeep.taken_over(0, 0.0, ready=True, serving=False, restarts=0)
    assert upkeep.due(0.0) == [Action("ask", 0), Action("ask", 1)]
    assert upkeep.serving() == [1]
    assert upkeep.slots[1].restarts == 7


class AnyDaemons(RuleBasedStateMachine):
    """Daemons that do as they like, under a loop that does what is due and reports what came of it."""

    @initialize(count=st.integers(1, 3), spares=st.integers(0, 2), seed=st.integers(0, 99))
    def begin(self, count: int, spares: int, seed: int) -> None:
        self.upkeep = Upkeep(count, spares, CONFIG, random=Random(seed))
        self.count = count
        self.now = 0.0
        self.running: set[int] = set()
        self.asked: set[int] = set()
        self.starts: dict[int, list[float]] = {slot.number: [] for slot in self.upkeep.slots}

    @rule(seconds=st.sampled_from((0.0, 0.2, 1.0, 5.0, 30.0, 200.0)))
    def go_on(self, seconds: float) -> None:
        self.now += seconds
        for what, number in self.upkeep.due(self.now):
            if what == "start":
                assert number not in self.running
                self.running.add(number)
                self.starts[number].append(self.now)
                self.upkeep.started(number, self.now)
            elif what == "ask":
                assert number in self.running
                assert number not in self.asked
                self.asked.add(number)
            else:
                assert number in self.running
                self.asked.discard(number)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), well=st.booleans())
    def answer(self, data: st.DataObject, well: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.asked)))
        self.asked.remove(number)
        if well:
            self.upkeep.answered(number, self.now)
        else:
            self.upkeep.silent(number, "hm", self.now)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(number)
        self.asked.discard(number)
        self.upkeep.ended(number, "it ended", self.now)

    @invariant()
    def as_many_serve_as_can_and_no_others(self) -> None:
        ready = [slot.number for slot in self.upkeep.slots if slot.state == "ready"]
        assert set(self.upkeep.serving()) <= set(ready)
        assert len(self.upkeep.serving()) == min(self.count, len(ready))

    @invariant()
    def what_runs_is_known_to_run(self) -> None:
        states = {slot.number for slot in self.upkeep.slots if slot.state in ("starting", "ready", "ending")}
        assert states == self.running

    @invariant()
    def starts_are_bounded(self) -> None:
        # One more than failures: the first start follows none.
        for starts in self.starts.values():
            recent = [at for at in starts if at > self.now - CONFIG.window_seconds]
            assert len(recent) <= CONFIG.max_failures + 1

    @invariant()
    def no_daemon_is_forgotten(self) -> None:
        for slot in self.upkeep.slots:
            if slot.state == "waiting":
                assert slot.due <= self.now + CONFIG.max_delay_seconds


AnyDaemons.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyDaemons = AnyDaemons.TestCase


@given(seeds=st.sets(st.integers(0, 1000), min_size=5, max_size=5))
def test_daemons_that_fail_together_are_not_started_together(seeds: set[int]) -> None:
    upkeep = Upkeep(4, 0, CONFIG, random=Random(min(seeds)))
    for slot in upkeep.slots:
        upkeep.failed_to_start(slot.number, "no memory", 0.0)
    assert len({slot.due for slot in upkeep.slots}) == 4
