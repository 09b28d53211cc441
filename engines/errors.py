"""What may be wrong with an engine, by kind, so that losses can be counted by their cause.

An engine is somebody else's program. Whatever it does against its protocol is an `EngineFault` that names the engine,
what came from it (the first characters) and what was expected.
"""

from typing import Any, Literal, TypeAlias

from core.errors import TamenError

FaultKind: TypeAlias = Literal["timeout", "closed", "garbled", "too long", "refused", "died", "protocol"]

SHOWN_CHARACTERS = 100

_PHRASES: dict[FaultKind, tuple[str, str]] = {
    "timeout": ("did not answer in time", "raise its time limit, or look into its log for what holds it up"),
    "closed": ("closed the connection", "look into its log; the game may be tried again"),
    "garbled": ("sent bytes that are not UTF-8", "look into its log; it may be set to another encoding"),
    "too long": (
        "sent a line that does not end",
        "check that this is the engine that the protocol is meant for",
    ),
    "refused": ("refused a command", "mend what it names and send the command again"),
    "died": ("is not running", "look into its log, and start it again"),
    "protocol": ("broke its protocol", "check that this is the engine that the protocol is meant for"),
}
"""For each kind: what happened, and what to do where nothing better is known."""


class EngineFault(TamenError):  # noqa: N818 - the engine's, not an error of ours
    """An engine failed, or said what its protocol does not allow.

    Args:
        kind: under which it is counted. After `refused` the engine is as good as before; after any other the
            connection is not to be used again.
        engine: which one, for a person: "daemon 127.0.0.1:17171", "gnugo".
        why: what came and what was expected; see `shown`.
        fix: what to do, where more is known than the kind says.
        is_final: whether the same command would fail the same way again.
    """

    def __init__(
        self, kind: FaultKind, engine: str, *, why: str, fix: str | None = None, is_final: bool = False
    ) -> None:
        phrase, usual_fix = _PHRASES[kind]
        super().__init__(f"{engine} {phrase}", why=why, fix=fix or usual_fix)
        self.kind: FaultKind = kind
        self.engine = engine
        self.is_final = is_final

    def __reduce__(self) -> tuple[Any, Any]:
        return _rebuild, (self.kind, self.engine, self.why, self.fix, self.is_final)


def _rebuild(kind: FaultKind, engine: str, why: str, fix: str, is_final: bool) -> EngineFault:
    return EngineFault(kind, engine, why=why, fix=fix, is_final=is_final)


def shown(text: str | bytes) -> str:
    """Return the beginning of what an engine sent, quoted and escaped, fit for a message."""
    head = repr(text[:SHOWN_CHARACTERS])
    return head if len(text) <= SHOWN_CHARACTERS else f"{head} and {len(text) - SHOWN_CHARACTERS} more"


def unexpected(engine: str, line: str | None, *, expected: str) -> EngineFault:
    """Return the fault of an engine that sent `line` (None: closed) where `expected` was due."""
    if line is None:
        return EngineFault("closed", engine, why=f"it ended where {expected} was expected")
    return EngineFault("protocol", engine, why=f"it sent {shown(line)} where {expected} was expected")
