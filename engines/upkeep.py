"""What to do about daemons that have to run: pure policy, given what happened and when. It knows no process.

    state      what it waits for                     leaves it by
    waiting    its time to be started                `started`, `failed_to_start`, or `taken_over`
    starting   its first answer                      `answered`: ready; silent too long, or `of_no_use`: ending; `ended`
    ready      questions now and then                silent too often, or `of_no_use`: ending; `ended`
    ending     that the process is gone              `ended`
    aside      nothing: it failed too often          -

`due` says what has to be done now, each thing once; the rest are told what came of it. Of the daemons that are ready
`count` serve, and those above are spares, which serve at once when another is gone. Times are seconds of one monotonic
clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple, TypeAlias

from configs.engines import UpkeepConfig
from core.restarts import RestartPolicy

State: TypeAlias = Literal["waiting", "starting", "ready", "ending", "aside"]
What: TypeAlias = Literal["start", "ask", "kill"]
START_LOOK_SECONDS = 0.2
"""Between two questions to a daemon that has not answered yet."""
AGAIN_SECONDS = 1.0
"""After which a ready daemon that was silent is asked again, and one that cannot be killed is killed again."""
LEAST_JITTER = 0.5
"""A restart's delay is drawn between this share of it and all of it, so that daemons that failed together part."""


class Action(NamedTuple):
    """Something to be done about the daemon `number`."""

    what: What
    number: int


@dataclass(slots=True)
class Slot:
    """The place of one daemon.

    Attributes:
        since: when it came into its state.
        due: when something has to be done next.
        asking: whether a question is on its way.
        silences: questions in a row without a proper answer.
        restarts: of its process, not counting the first start.
        silence: why its last question was not answered, in words.
        trouble: why it was last lost, in words; stays when it is back.
    """

    number: int
    policy: RestartPolicy
    state: State = "waiting"
    since: float = 0.0
    due: float = 0.0
    serving: bool = False
    asking: bool = False
    silences: int = 0
    restarts: int = 0
    silence: str = ""
    trouble: str = ""
    started: bool = False

    def enter(self, state: State, now: float, *, due: float) -> None:
        self.state, self.since, self.due = state, now, due
        self.asking = False


class Upkeep:
    """The policy for `count` daemons that serve and `spares` that stand by.

    Args:
        random: for the jitter of restarts.
    """

    def __init__(self, count: int, spares: int, config: UpkeepConfig, *, random: Random) -> None:
        self.count = count
        self._config = config
        self._random = random
        self.slots = [Slot(number, self._new_policy()) for number in range(count + spares)]

    def due(self, now: float) -> list[Action]:
        """Return what has to be done now. A process is to be killed until it has ended, now and then."""
        actions = [action for slot in self.slots if (action := self._due(slot, now)) is not None]
        self._allot()
        return actions

    def serving(self) -> list[int]:
        """Return the numbers of the daemons that serve."""
        return [slot.number for slot in self.slots if slot.serving]

    def started(self, number: int, now: float) -> None:
        """Note that its process was started."""
        slot = self.slots[number]
        slot.enter("starting", now, due=now)
        slot.silences, slot.silence = 0, ""
        slot.restarts += slot.started
        slot.started = True

    def taken_over(self, number: int, now: float, *, ready: bool, serving: bool, restarts: int) -> None:
        """Note, before anything else, that its process runs since before, and how it stood."""
        self.started(number, now)
        slot = self.slots[number]
        slot.restarts = restarts
        if ready:  # a question to it is due at once
            slot.enter("ready", now, due=now)
            slot.serving = serving

    def failed_to_start(self, number: int, why: str, now: float) -> None:
        """Note that no process could be started."""
        self._lose(self.slots[number], why, now)

    def answered(self, number: int, now: float) -> None:
        """Note that it has answered as it should."""
        slot = self.slots[number]
        slot.asking, slot.silences = False, 0
        if slot.state == "starting":
            slot.enter("ready", now, due=now + self._config.check_seconds)
            self._allot()
        elif slot.state == "ready":
            slot.due = now + self._config.check_seconds

    def silent(self, number: int, why: str, now: float) -> None:
        """Note that it has not answered in time, or not as it should."""
        slot = self.slots[number]
        slot.asking = False
        if slot.state == "starting":
            slot.due, slot.silence = now + START_LOOK_SECONDS, why
        elif slot.state == "ready":
            slot.silences += 1
            slot.due, slot.silence = now + AGAIN_SECONDS, why
            if slot.silences >= self._config.most_silences:
                self._give_up(slot, f"{why} ({slot.silences} times in a row)", now)

    def of_no_use(self, number: int, why: str, now: float) -> None:
        """Note that it answers and is no good all the same."""
        slot = self.slots[number]
        if slot.state in ("starting", "ready"):
            self._give_up(slot, why, now)

    def ended(self, number: int, why: str, now: float) -> None:
        """Note that its process is gone; `why` counts unless it was to be killed."""
        slot = self.slots[number]
        self._lose(slot, slot.trouble if slot.state == "ending" else why, now)

    def all_settled(self) -> bool:
        """Whether each daemon is ready, or set aside: nothing is to be waited for."""
        return all(slot.state in ("ready", "aside") for slot in self.slots)

    def _due(self, slot: Slot, now: float) -> Action | None:
        if slot.state == "starting" and now - slot.since >= self._config.start_seconds:
            waited = f"it did not answer STATUS within {self._config.start_seconds:g} s of its start"
            self._give_up(slot, f"{waited}: {slot.silence}" if slot.silence else waited, now)
        if slot.state == "aside" or slot.asking or now < slot.due:
            return None
        if slot.state == "waiting":
            return Action("start", slot.number)
        if slot.state == "ending":
            slot.due = now + AGAIN_SECONDS
            return Action("kill", slot.number)
        slot.asking = True
        return Action("ask", slot.number)

    def _give_up(self, slot: Slot, why: str, now: float) -> None:
        slot.trouble = why
        slot.enter("ending", now, due=now)
        self._allot()

    def _lose(self, slot: Slot, why: str, now: float) -> None:
        slot.trouble = why
        delay = slot.policy.failed(now)
        if delay is None:
            slot.enter("aside", now, due=now)
        else:
            slot.enter("waiting", now, due=now + delay * self._random.uniform(LEAST_JITTER, 1.0))
        self._allot()

    def _allot(self) -> None:
        """Let those serve that are ready, those that do already first, until there are enough."""
        for slot in self.slots:
            slot.serving = slot.serving and slot.state == "ready"
        free = self.count - sum(slot.serving for slot in self.slots)
        for slot in _first(free, (slot for slot in self.slots if slot.state == "ready" and not slot.serving)):
            slot.serving = True

    def _new_policy(self) -> RestartPolicy:
        config = self._config
        return RestartPolicy(
            config.first_delay_seconds, config.max_delay_seconds, config.window_seconds, config.max_failures
        )


def _first(count: int, slots: Iterable[Slot]) -> list[Slot]:
    return list(slots)[: max(0, count)]
