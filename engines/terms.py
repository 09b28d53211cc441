"""By which program games are played and how it is asked, so that a folder tells when that changed between its games."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from configs.engines import EnginesConfig
from core.files import digest, file_digest

Told: TypeAlias = dict[str, Any]
"""Terms, as they stand in a file."""
MOST_CHANGES = 20
_SHOWN_CHARACTERS, _DIGEST_DIGITS = 120, 12


@dataclass(frozen=True, slots=True)
class Terms:
    """How games are asked for, and of what.

    Attributes:
        program: with its arguments; of files the name without the path, as they may be moved.
        program_digest: of these words, and of the files among them.
        extra: options behind each request.
        game_seconds: after which a game is broken off.
        decision_seconds: that a decision may take.
    """

    program: str
    program_digest: str
    extra: tuple[str, ...]
    game_seconds: int
    decision_seconds: int

    def told(self) -> Told:
        return {
            "program": self.program,
            "program_digest": self.program_digest,
            "extra": list(self.extra),
            "game_seconds": self.game_seconds,
            "decision_seconds": self.decision_seconds,
        }


def terms_of(config: EnginesConfig) -> Terms:
    """Return the terms of games of `config`, whose program is there. Raises OSError when it cannot be read."""
    engine, games = config.engine, config.games
    words = engine.command if engine.jar is None else (engine.jar, *engine.arguments)
    names, contents = [], []
    for word in words:
        # A jar is sought where the command is typed, a word of a command where the program works.
        path = Path(word) if engine.jar is not None else Path(engine.folder or ".") / word
        is_file = len(word) < _SHOWN_CHARACTERS * 8 and path.is_file()
        names.append(path.name if is_file else word)
        contents.append(file_digest(path)[0] if is_file else word)
    return Terms(
        program=" ".join(names)[:_SHOWN_CHARACTERS],
        program_digest=digest("\0".join([*names, *contents]).encode())[:_DIGEST_DIGITS],
        extra=games.extra,
        game_seconds=games.game_seconds,
        decision_seconds=games.decision_seconds,
    )


class TermsHistory:
    """The terms of a folder's games, one after the other.

    Attributes:
        last: those of the newest games; None where they were not told.
        changes: in words, the newest last, at most MOST_CHANGES.
    """

    def __init__(self, last: Told | None = None, changes: Iterable[str] = ()) -> None:
        self.last = last
        self.changes = list(changes)

    def add(self, told: Told, *, games: int) -> None:
        """Take in what holds from now on, when some games are finished."""
        if self.last is not None and told != self.last:
            what = "; ".join(
                f"{name} {self.last.get(name)}, then {value}"
                for name, value in told.items()
                if value != self.last.get(name)
            )
            self.changes = [*self.changes, f"after {games:,} games: {what}"][-MOST_CHANGES:]
        self.last = told
