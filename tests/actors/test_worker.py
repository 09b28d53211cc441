"""The inner loop against fakes of the brain and the replay."""

from collections.abc import Callable, Generator
from itertools import pairwise

import pytest

from actors.worker import FIRST_REST_SECONDS, LONGEST_REST_SECONDS, Worker
from core.errors import EvaluationError
from core.messages import Reply, Request
from replay.records import Ack

PAUSE = Ack(accepted=0, duplicates=0, rows=0, pause_seconds=0.5, total_rows=0)
GO_ON = Ack(accepted=0, duplicates=0, rows=0, pause_seconds=0.0, total_rows=0)


class FakeClock:
    """Seconds that pass when somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert 0 <= seconds < float("inf")
        self.now += seconds


class FakeClient:
    """Answers the oldest request, or fails it when `failing`; an answer is of use if its `version` is not negative."""

    def __init__(self):
        self.submitted = 0
        self.streams = []
        self.waiting = []
        self.failing = False
        self.version = 7
        self.timeouts = []

    def submit(self, requests, *, stream=0):
        assert requests == REQUESTS
        self.submitted += 1
        self.streams.append(stream)
        self.waiting.append(self.submitted)
        return self.submitted

    def wait_any(self, handles, *, timeout_seconds):
        self.timeouts.append(timeout_seconds)
        handle = self.waiting.pop(0)
        assert handle in handles
        if self.failing:
            return handle, EvaluationError("no answer", why="test", fix="none")
        return handle, (Reply({}, self.version),)


class FakeDelivery:
    """Acknowledges what it was sent when `acknowledgement` is set."""

    def __init__(self, sleep):
        self.sleep = sleep
        self.busy = False
        self.sent = []
        self.acknowledgement = GO_ON
        self.answer_seconds = 0.0

    def send(self, chunk):
        assert not self.busy
        self.busy = True
        self.sent.append(chunk)

    def poll(self, timeout_seconds):
        if self.acknowledgement is None or timeout_seconds < self.answer_seconds:
            self.sleep(timeout_seconds)
            return None
        self.sleep(self.answer_seconds)
        self.busy = False
        return self.acknowledgement


class FakeChunk:
    def __init__(self, rows):
        self.num_rows = rows
        self.seqs = list(range(rows // 5))

    def encode(self):
        return b"chunk"


class FakeHarvest:
    """Two more games of five rows for every reply that a group was sent."""

    def __init__(self):
        self.rows_waiting = 0

    @property
    def games_waiting(self):
        return self.rows_waiting // 5

    def take_chunk(self):
        if not self.rows_waiting:
            return None
        chunk, self.rows_waiting = FakeChunk(self.rows_waiting), 0
        return chunk


REQUESTS = (Request("main", {}),)


def group(harvest: FakeHarvest, log: list) -> Generator[tuple[Request, ...], tuple[Reply, ...], None]:
    """Ask for ever; give the games up after a reply of version -1, which is of no use."""
    while True:
        try:
            replies = yield REQUESTS
        except EvaluationError as error:
            log.append(error.why)
            continue
        log.append(replies[0].weights_version)
        if replies[0].weights_version < 0:
            assert (yield ()) == ()
        else:
            harvest.rows_waiting += 10


def worker(*, chunk_rows=20, groups=2, clock=None):
    clock = clock or FakeClock()
    harvest, delivery, client, log = FakeHarvest(), FakeDelivery(clock.sleep), FakeClient(), []
    made = Worker(
        [group(harvest, log) for _ in range(groups)],
        client,
        harvest,
        delivery,
        chunk_rows=chunk_rows,
        flush_seconds=1e9,
        clock=clock,
        sleep=clock.sleep,
    )
    return made, harvest, delivery, client, log


def step_until(made: Worker, happened: Callable[[], bool]) -> None:
    for _ in range(100):
        if happened():
            return
        made.step(0.1)
    pytest.fail("it never happened")


def test_every_group_has_one_request_in_flight():
    made, _, _, client, _ = worker(groups=3)

    made.step(0.1)
    made.step(0.1)

    assert client.submitted == 3 + 2
    assert len(client.waiting) == 3


def test_every_request_tells_which_group_asks_whether_it_rested_or_not():
    clock = FakeClock()
    made, _, _, client, _ = worker(groups=3, clock=clock)
    made.step(0.1)
    client.failing = True
    for _ in range(3):
        made.step(0.1)
    client.failing = False
    clock.now = 10.0
    made.step(0.1)

    assert client.streams == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_chunk_leaves_when_enough_rows_wait():
    made, _, delivery, _, _ = worker(chunk_rows=20)

    made.step(0.1)
    assert delivery.sent == []
    made.step(0.1)

    assert delivery.sent == [b"chunk"]


def test_a_failed_evaluation_is_thrown_into_its_group():
    made, _, _, client, log = worker()
    client.failing = True

    made.step(0.1)

    assert log == ["test"]


@pytest.mark.parametrize(
    "trouble", [{"failing": True}, {"version": -1}], ids=["no answer", "an answer of no use"]
)
def test_a_brain_that_fails_at_once_is_asked_ever_more_seldom(trouble):
    clock = FakeClock()
    made, _, _, client, _ = worker(groups=1, clock=clock)
    vars(client).update(trouble)
    asked = [0.0]
    while len(asked) < 10:
        submitted = client.submitted
        made.step(1.0)
        if client.submitted > max(submitted, 1):
            asked.append(clock.now)
    pauses = [later - earlier for earlier, later in pairwise(asked)]

    assert pauses[:4] == pytest.approx([FIRST_REST_SECONDS * 2**k for k in range(4)])
    assert pauses[-2:] == pytest.approx([LONGEST_REST_SECONDS] * 2)


@pytest.mark.parametrize(
    "trouble", [{"failing": True}, {"version": -1}], ids=["no answer", "an answer of no use"]
)
def test_the_first_answer_of_use_ends_the_doubling(trouble):
    clock = FakeClock()
    made, _, _, client, log = worker(groups=1, clock=clock)
    vars(client).update(trouble)
    while clock.now < 10.0:
        made.step(1.0)
    vars(client).update(failing=False, version=7)
    while log[-1] != 7:
        made.step(10.0)
    client.failing = True
    made.step(10.0)
    began, submitted = clock.now, client.submitted
    while client.submitted == submitted:
        made.step(10.0)

    assert clock.now - began == pytest.approx(FIRST_REST_SECONDS)


def test_while_one_group_rests_the_others_are_answered():
    clock = FakeClock()
    made, _, _, client, log = worker(groups=2, clock=clock)
    client.failing = True
    made.step(1.0)
    client.failing = False
    for _ in range(5):
        made.step(1.0)

    assert log == ["test", 7, 7, 7, 7, 7]
    assert clock.now == 0.0
    assert client.timeouts[1:] == pytest.approx([FIRST_REST_SECONDS] * 5)


def test_an_actor_plays_on_while_a_chunk_is_on_its_way_but_only_one_chunk_ahead():
    made, harvest, delivery, client, _ = worker(chunk_rows=20)
    delivery.acknowledgement = None
    for _ in range(50):
        made.step(0.1)

    assert delivery.sent == [b"chunk"]
    assert harvest.rows_waiting == 2 * 20

    delivery.acknowledgement = GO_ON
    played = client.submitted
    for _ in range(2):
        made.step(0.1)

    assert client.submitted > played


def test_an_actor_ahead_of_the_learner_asks_again_until_it_may_go_on():
    made, _, delivery, client, _ = worker(chunk_rows=10)
    delivery.acknowledgement = PAUSE
    for _ in range(10):
        made.step(0.1)
    played = client.submitted
    for _ in range(10):
        made.step(0.1)

    assert client.submitted == played
    assert delivery.sent[-1] is None

    delivery.acknowledgement = GO_ON
    for _ in range(10):
        made.step(0.1)

    assert client.submitted > played


@pytest.mark.parametrize("answer_seconds", [0.0, 0.1])
def test_an_actor_that_is_held_back_asks_as_often_as_it_was_told_to(answer_seconds):
    clock = FakeClock()
    made, _, delivery, _, _ = worker(chunk_rows=10, clock=clock)
    delivery.acknowledgement, delivery.answer_seconds = PAUSE, answer_seconds
    for _ in range(300):
        made.step(0.1)

    assert clock.now > 20.0
    assert delivery.sent.count(None) == pytest.approx(
        clock.now / (PAUSE.pause_seconds + answer_seconds), abs=2
    )
    assert made.spent.held_back == pytest.approx(clock.now, abs=0.3)


def test_an_actor_waits_for_the_answer_to_its_question_instead_of_asking_again():
    clock = FakeClock()
    made, _, delivery, _, _ = worker(chunk_rows=10, clock=clock)
    delivery.acknowledgement = PAUSE
    step_until(made, lambda: None in delivery.sent)
    delivery.acknowledgement = None
    for _ in range(20):
        made.step(0.1)

    assert delivery.sent.count(None) == 1
    assert made.spent.held_back == pytest.approx(PAUSE.pause_seconds + 20 * 0.1)


def test_stopping_delivers_what_is_finished():
    made, harvest, delivery, _, _ = worker(chunk_rows=1000)
    steps = iter([False, False, False, True])

    made.run(lambda: next(steps))

    assert delivery.sent == [b"chunk"]
    assert harvest.rows_waiting == 0
    assert made.undelivered_games == 0


def test_games_that_nobody_acknowledged_before_the_end_are_counted_and_told_of(caplog):
    made, _, delivery, _, _ = worker(chunk_rows=20)
    delivery.acknowledgement = None
    steps = iter([False, False, False, True])

    made.run(lambda: next(steps))

    assert delivery.sent == [b"chunk"]
    assert made.undelivered_games == 4 + 2
    assert "6 finished games with 30 rows were not acknowledged" in caplog.text

    delivery.acknowledgement = GO_ON

    assert made.flush(1.0)
    assert made.undelivered_games == 0


def test_a_question_without_an_answer_loses_no_game(caplog):
    made, harvest, delivery, _, _ = worker(chunk_rows=10)
    delivery.acknowledgement = PAUSE
    step_until(made, lambda: None in delivery.sent)
    delivery.acknowledgement = None

    made.run(lambda: True)

    assert (made.undelivered_games, harvest.games_waiting, caplog.text) == (0, 0, "")


def games_left(groups, harvest, number):
    """Ask until somebody has set how often group `number` still may."""
    while groups[number]:
        yield REQUESTS
        harvest.rows_waiting += 5
        groups[number] -= 1


def leaving(left, clock):
    harvest, delivery, client = FakeHarvest(), FakeDelivery(clock.sleep), FakeClient()
    groups = [games_left(left, harvest, number) for number in range(len(left))]
    options = {"chunk_rows": 10, "flush_seconds": 1e9, "clock": clock, "sleep": clock.sleep}
    return Worker(groups, client, harvest, delivery, **options), delivery, client


def test_an_actor_that_leaves_ends_when_all_of_its_games_are_over_and_delivered():
    made, delivery, client = leaving([3, 7], FakeClock())
    made.leave(1000.0)
    made.run(lambda: False)

    assert client.waiting == []
    assert sum(chunk is not None for chunk in delivery.sent) >= 4
    assert made.undelivered_games == 0


def test_an_actor_that_leaves_ends_in_time_whatever_is_in_play():
    clock = FakeClock()
    made, delivery, client = leaving([10**6], clock)
    answer = client.wait_any

    def slowly(handles, *, timeout_seconds):
        clock.sleep(0.1)
        return answer(handles, timeout_seconds=timeout_seconds)

    client.wait_any = slowly
    made.leave(5.0)
    made.run(lambda: False)

    assert clock.now == pytest.approx(5.0, abs=0.2)
    assert delivery.sent
    assert made.undelivered_games == 0


def test_an_actor_that_leaves_is_not_held_back_by_the_learner():
    made, delivery, client = leaving([50], FakeClock())
    delivery.acknowledgement = PAUSE
    step_until(made, lambda: None in delivery.sent)
    played = client.submitted
    made.leave(1000.0)
    made.run(lambda: False)

    assert client.submitted == 50 > played
