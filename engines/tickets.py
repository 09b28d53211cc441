"""What goes between a book of games and who plays them: tickets, and what became of each."""

from dataclasses import dataclass
from typing import TypeAlias

from engines.errors import FaultKind
from engines.journal import Entry
from engines.timings import Ending


@dataclass(frozen=True, slots=True)
class Ticket:
    """A game to be played: its `attempt`-th try, from 1 on."""

    number: int
    attempt: int
    decks: tuple[str, str]
    seed: int


@dataclass(frozen=True, slots=True)
class Played:
    """A game came to its end, after `seconds` in the daemon; `record` names the file that has its decisions."""

    number: int
    attempt: int
    ending: Ending
    seconds: float
    record: str = ""

    def entry(self) -> Entry:
        """Return its line of a journal."""
        entry: Entry = {"game": self.number, "attempt": self.attempt, "ending": self.ending}
        entry["seconds"] = round(self.seconds, 6)
        return entry | ({"record": self.record} if self.record else {})


@dataclass(frozen=True, slots=True)
class Failed:
    """A try came to nothing; `is_final` when no other would come to more."""

    number: int
    attempt: int
    kind: FaultKind
    why: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Returned:
    """A ticket was not used: no try of its game."""

    number: int
    attempt: int


End: TypeAlias = Played | Failed | Returned


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a holder gets for what it has brought.

    Attributes:
        tickets: for it to play.
        is_over: whether every game is finished or set aside.
    """

    tickets: tuple[Ticket, ...]
    is_over: bool
