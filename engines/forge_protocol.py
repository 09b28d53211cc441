"""What is said to a Forge daemon and what it says, line by line; no socket is touched here.

One connection carries one command:

    NEWGAME deck1 deck2 -q …   SEED: n, GAME_START: a vs b (both only without -q), DECISION:{…} (with -o or -i),
                               GAME_TIMEOUT: …, GAME_ERROR: …, and at last GAME_RESULT: <who> won in <n>ms, or Draw
    STATUS                     five lines
    SHUTDOWN                   one line; the daemon ends when the next connection has come

A result follows after GAME_TIMEOUT and GAME_ERROR too. ERROR: … instead of a game's first line is a refusal, after
which nothing comes. `GameInProgress` takes the lines of one game and knows which may come when.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from core.errors import UsageError
from engines.errors import EngineFault, shown, unexpected
from engines.forge_decisions import Choice, Decision, Seat, read_decision, reply_line

Mode: TypeAlias = Literal["result", "observe", "interact"]
"""The daemon's AI plays and tells the result; or each of its decisions too; or we decide for both seats."""

STATUS_LINES = 5
MAX_DECISIONS, MAX_DECISION_CHARACTERS = 20_000, 1 << 26
"""Of one game, in all. A long game of Magic has some hundreds, of some ten thousand characters each."""

_MODES: dict[Mode, tuple[str, str]] = {
    "result": ("", "Ai"),
    "observe": ("-o", "AiObs"),
    "interact": ("-i", "Agent"),
}
"""For each mode, its option and how the daemon's names of players begin."""
_DECK = re.compile(r"[^\s\x00-\x1f\x7f-]\S{0,199}")
_WORD = re.compile(r"[A-Za-z0-9=.,_:-]{1,64}")
_WON = re.compile(r"(Ai|AiObs|Agent)\(([12])\)-(.*) won in ([0-9]{1,10})ms")
_DRAW = re.compile(r"Draw in ([0-9]{1,10})ms")
_LONG = 2**63


def checked_deck(deck: str) -> str:
    """Return the name or path of a deck, if a daemon can be told it.

    Raises:
        UsageError: when it is empty, longer than 200 characters, begins with a dash, or holds a space or line break:
            the daemon splits its command there.
    """
    if _DECK.fullmatch(deck) is None or not deck.isprintable():
        raise UsageError(
            f"deck {shown(deck)} cannot be asked for",
            why="a daemon splits its command at spaces, so a deck has 1-200 characters without any, and no dash first",
            fix="rename the deck's file, without spaces",
        )
    return deck


@dataclass(frozen=True, slots=True)
class GameRequest:
    """A game to be played.

    Attributes:
        decks: of the first and the second seat, by name or path.
        mode: see `Mode`.
        game_seconds: after which the daemon calls the game a draw.
        decision_seconds: which the daemon's AI may take for a decision.
        seed: of the game; None leaves it to the daemon. A daemon whose games share one generator repeats a game only
            when it plays one at a time.
        quiet: without the lines of seed and decks, which cost little and tell of mix-ups.
        extra: options that this daemon knows beside the protocol's, one word each.

    Raises:
        UsageError: when one of them cannot be told to a daemon.
    """

    decks: tuple[str, str]
    mode: Mode = "result"
    game_seconds: int = 120
    decision_seconds: int = 5
    seed: int | None = None
    quiet: bool = True
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for deck in self.decks:
            checked_deck(deck)
        numbers_fit = 0 < self.game_seconds <= 86_400 and 0 < self.decision_seconds <= 86_400
        seed_fits = self.seed is None or -_LONG <= self.seed < _LONG
        if not numbers_fit or not seed_fits or not all(_WORD.fullmatch(word) for word in self.extra):
            raise UsageError(
                f"no daemon can be asked for {self}",
                why="times are 1-86400 s, a seed has 64 bits, an extra option is one plain word",
                fix="correct the one that is not so",
            )

    def line(self) -> str:
        """Return the command."""
        words = ["NEWGAME", *self.decks, _MODES[self.mode][0], "-q" if self.quiet else ""]
        words += ["-c", str(self.game_seconds), "-t", str(self.decision_seconds)]
        words += [] if self.seed is None else ["-s", str(self.seed)]
        return " ".join(word for word in [*words, *self.extra] if word)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A game that is over.

    Attributes:
        winner: seat, or None for a draw, which a game that was broken off counts as.
        milliseconds: that the game took in the daemon.
        seed: that the daemon named, or else the one that was asked for.
        timed_out: whether the daemon broke it off for its time.
        error: what the daemon says broke the game.
        decisions: that were made, each with its choice; in the mode "result" none.
    """

    winner: Seat | None
    milliseconds: int
    seed: int | None
    timed_out: bool
    error: str | None
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """What a daemon says of itself; memory in megabytes."""

    active_games: int
    games_played: int
    memory_used: int
    memory_max: int
    max_concurrent: int


class GameInProgress:
    """One game on its way, from the lines that belong to it.

    Args:
        request: what was asked for.
        engine: the daemon's name in errors.
    """

    def __init__(self, request: GameRequest, engine: str) -> None:
        self.outcome: Outcome | None = None
        self._request = request
        self._engine = engine
        self._seed: int | None = None
        self._decks: str | None = None
        self._timed_out = False
        self._error: str | None = None
        self._decisions: list[Decision] = []
        self._characters = 0

    def take(self, line: str) -> Decision | None:
        """Take the next line; return the decision that waits for `answer`, if it is one.

        When the line was the last, `outcome` is there.

        Raises:
            EngineFault: `refused` when there is no such game to be had, `protocol` when the line may not come now.
        """
        head, separator, rest = line.partition(":")
        rest = rest.removeprefix(" ")
        if not separator or self.outcome is not None:
            raise unexpected(self._engine, line, expected=self._expected())
        match head:
            case "DECISION" if self._request.mode != "result":
                return self._take_decision(rest)
            case "GAME_RESULT":
                self.outcome = self._read_result(rest)
            case "GAME_TIMEOUT" if not self._timed_out:
                self._timed_out = True
            case "GAME_ERROR" if self._error is None:
                self._error = rest
            case "SEED" if self._seed is None and not self._has_begun():
                self._seed = self._read_seed(rest)
            case "GAME_START" if not self._has_begun() and " vs " in rest:
                self._decks = rest
            case "ERROR" if not self._has_begun() and self._seed is None:
                fix = _mend(rest)
                raise EngineFault(
                    "refused", self._engine, why=f"it says {shown(rest)}", fix=fix, is_final=fix is not None
                )
            case _:
                raise unexpected(self._engine, line, expected=self._expected())
        return None

    def answer(self, decision: Decision, choice: Choice) -> str | None:
        """Note what was chosen, and return the line to send, or None where none is waited for.

        Raises:
            UsageError: when the decision does not allow `choice`.
        """
        line = reply_line(decision, choice)
        self._decisions.append(replace(decision, choice=choice))
        return line

    def _take_decision(self, text: str) -> Decision | None:
        self._characters += len(text)
        if len(self._decisions) >= MAX_DECISIONS or self._characters > MAX_DECISION_CHARACTERS:
            most = f"{MAX_DECISIONS} decisions of {MAX_DECISION_CHARACTERS} characters together"
            raise EngineFault("protocol", self._engine, why=f"a game has at most {most}, and it sent more")
        decision = read_decision(text, self._engine)
        if self._timed_out or self._error is not None:
            return None  # the daemon does not stop the game that it has broken off; nobody reads an answer
        if self._request.mode == "interact" and decision.kind != "reveal":
            return decision
        self._decisions.append(decision)
        return None

    def _read_result(self, text: str) -> Outcome:
        winner: Seat | None = None
        if (draw := _DRAW.fullmatch(text)) is not None:
            milliseconds = int(draw[1])
        elif (won := _WON.fullmatch(text)) is not None and self._may_win(
            prefix=won[1], seat=won[2], deck=won[3]
        ):
            milliseconds = int(won[4])
            winner = 0 if won[2] == "1" else 1
        else:
            raise unexpected(self._engine, f"GAME_RESULT: {text}", expected=self._expected())
        return Outcome(
            winner=winner,
            milliseconds=milliseconds,
            seed=self._request.seed if self._seed is None else self._seed,
            timed_out=self._timed_out,
            error=self._error,
            decisions=tuple(self._decisions),
        )

    def _may_win(self, *, prefix: str, seat: str, deck: str) -> bool:
        """Whether a winner is one of this game's players, as far as it is known who they are."""
        if prefix != _MODES[self._request.mode][1]:
            return False
        if self._decks is None:
            return True
        return self._decks.startswith(f"{deck} vs ") if seat == "1" else self._decks.endswith(f" vs {deck}")

    def _read_seed(self, text: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,19}", text) is None or self._request.seed not in (None, int(text)):
            raise unexpected(self._engine, f"SEED: {text}", expected=f"the seed {self._request.seed}")
        return int(text)

    def _has_begun(self) -> bool:
        return bool(self._decisions or self._decks or self._timed_out or self._error is not None)

    def _expected(self) -> str:
        if self.outcome is not None:
            return "nothing after the result"
        decks = f"of {self._decks}" if self._decks else "of a game"
        return f"a line {decks} in the mode {self._request.mode!r}"


def read_status(lines: list[str], engine: str) -> Status:
    """Read the five lines that answer STATUS.

    Raises:
        EngineFault: `protocol`.
    """
    text = "\n".join(line.strip() for line in lines)
    pattern = (
        r"[^\n]*\bSTATUS\nActive games: ([0-9]{1,9})\nTotal games played: ([0-9]{1,18})\n"
        r"Memory: ([0-9]{1,9})MB / ([0-9]{1,18})MB\nMax concurrent: ([0-9]{1,9})"
    )
    if (found := re.fullmatch(pattern, text)) is None:
        raise unexpected(engine, text, expected="the five lines of a daemon's status")
    return Status(*map(int, found.groups()))


def _mend(refusal: str) -> str | None:
    """Return what to do about a refusal that we know, and that comes again unless it is done."""
    if "Could not load deck" in refusal:
        return "give the path of a .dck file, or a name that the daemon finds in its folder of decks"
    return None
