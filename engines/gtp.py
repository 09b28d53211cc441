"""A client of the Go Text Protocol: plays against any engine that speaks it over pipes, Go and (as HTP) Hex.

    with Dialogue(["gnugo", "--mode", "gtp"], engine="gnugo") as dialogue:
        engine = GtpEngine(dialogue)
        engine.set_up(vertices_of(game))
        engine.play(0, "e5")
        answer = engine.generate(1)

Source: Farnebäck, *Specification of the Go Text Protocol*, version 2, draft 2.
"""

import contextlib
import re
import time
from collections.abc import Sequence

from engines.dialogue import Dialogue
from engines.errors import EngineFault, shown, unexpected
from engines.gtp_moves import PASS, RESIGN, SWAP, Vertices
from engines.gtp_text import COLOURS, Player, parse_head

HANDSHAKE_SECONDS = 30.0
MOVE_SECONDS = 120.0
_NEEDED = frozenset(("boardsize", "clear_board", "play", "genmove"))
_AT_ONCE = 64
"""Commands that are sent before their responses are read: few enough that neither pipe is ever full."""
_MOST_LINES = 4096
"""Of one response."""
_MOVE = re.compile(r"[a-z]?[1-9][0-9]?")
"""A point; a column alone in connect four, where stones drop."""
_WORDS = {PASS: PASS, RESIGN: RESIGN, SWAP: SWAP, "swap": SWAP, "pss": PASS}
"""What a move may be besides a point; `pss` is what some Hex programs say."""


class GtpEngine:
    """An engine that has shaken hands.

    A fault other than `refused` leaves it in a state that nobody knows: close its dialogue, and start another.

    Args:
        dialogue: with the program; who made it closes it.
        seconds: for each command but `genmove`.
        move_seconds: for `genmove`.

    Attributes:
        name, version: as it says.
        commands: those that it knows.

    Raises:
        EngineFault: when it is none that plays by this protocol.
    """

    def __init__(
        self, dialogue: Dialogue, *, seconds: float = HANDSHAKE_SECONDS, move_seconds: float = MOVE_SECONDS
    ) -> None:
        self._dialogue = dialogue
        self._seconds = seconds
        self._move_seconds = move_seconds
        self._last_id = 0
        self.commands = frozenset(self.ask("list_commands").split())
        if missing := _NEEDED - self.commands:
            raise EngineFault(
                "protocol",
                dialogue.engine,
                why=f"it does not know {', '.join(sorted(missing))}, which a game needs",
            )
        protocol = self.ask("protocol_version") if "protocol_version" in self.commands else "2"
        if protocol.strip() != "2":
            raise EngineFault(
                "protocol", dialogue.engine, why=f"it speaks version {shown(protocol)}, 2 was expected"
            )
        self.name = self.ask("name") if "name" in self.commands else dialogue.engine
        self.version = self.ask("version") if "version" in self.commands else ""

    def ask(self, command: str, *, seconds: float | None = None) -> str:
        """Send one command and return the text of the response.

        Raises:
            EngineFault: `refused` with its message, or another when it breaks the protocol, is late or dies.
            UsageError: when `command` is no single line; nothing is sent.
        """
        return self.ask_all([command], seconds=seconds)[0]

    def ask_all(self, commands: Sequence[str], *, seconds: float | None = None) -> list[str]:
        """Send several commands without waiting for each, and return the texts of the responses.

        Raises:
            EngineFault: as for `ask`; of the first command that failed, after the responses to all were read.
        """
        seconds = self._seconds if seconds is None else seconds
        texts: list[str] = []
        refusal: EngineFault | None = None
        for start in range(0, len(commands), _AT_ONCE):
            part = commands[start : start + _AT_ONCE]
            first_id = self._last_id + 1
            self._last_id += len(part)
            numbered = [f"{first_id + place} {command}" for place, command in enumerate(part)]
            self._dialogue.send(numbered, seconds=seconds)
            for number, command in zip(range(first_id, self._last_id + 1), part, strict=True):
                accepted, text = self._response(number, command, time.monotonic() + seconds)
                if not accepted and refusal is None:
                    why = f"to {shown(command)} it said {shown(text)}"
                    refusal = EngineFault("refused", self._dialogue.engine, why=why)
                texts.append(text)
            if refusal is not None:
                raise refusal
        return texts

    def set_up(self, vertices: Vertices) -> None:
        """Begin a game on the board of `vertices`. Raises EngineFault: `refused` when it has no such board."""
        commands = [f"boardsize {vertices.board_size}", "clear_board"]
        if vertices.komi is not None and "komi" in self.commands:
            commands.append(f"komi {vertices.komi:g}")
        self.ask_all(commands)

    def play(self, player: Player, move: str) -> None:
        """Tell it of a move. Raises EngineFault: `refused` when it holds the move to be illegal."""
        self.ask(play_command(player, move))

    def generate(self, player: Player) -> str:
        """Return its move for `player`, written small: a point, "pass", "resign" or "swap-pieces"; it has played it.

        Raises:
            EngineFault: as for `ask`; `protocol` when what it says is no move.
        """
        command = f"genmove {COLOURS[player]}"
        told = self.ask(command, seconds=self._move_seconds).strip().lower()
        if told in _WORDS:
            return _WORDS[told]
        if _MOVE.fullmatch(told) is None:
            raise unexpected(self._dialogue.engine, told, expected=f"a move after {command}")
        return told

    def undo(self) -> None:
        """Take back the last move of either side."""
        self.ask("undo")

    def final_score(self) -> str:
        """Return the score as it counts: "B+3.5", "W+R", "0"."""
        return self.ask("final_score").strip()

    def board(self) -> str:
        """Return the board as it draws it."""
        return self.ask("showboard")

    def quit(self) -> None:
        """Say goodbye, which no engine need answer; its dialogue is still to be closed."""
        with contextlib.suppress(EngineFault):  # it may go without a word
            self.ask("quit", seconds=1.0)

    def _response(self, number: int, command: str, deadline: float) -> tuple[bool, str]:
        """Read the response to the command with this number: whether it was accepted, and the text."""
        expected = f"the response to {shown(command)}"
        while not (line := self._dialogue.read_line(deadline, expected=expected)).strip():
            pass
        head = parse_head(line)
        if head is None or head.id != str(number):
            raise unexpected(self._dialogue.engine, line, expected=f"{expected}, ={number} or ?{number},")
        lines = [head.text]
        while (line := self._dialogue.read_line(deadline, expected=f"the end of {expected}")).strip():
            lines.append(line)
            if len(lines) > _MOST_LINES:
                why = f"{expected} has more than {_MOST_LINES} lines"
                raise EngineFault("too long", self._dialogue.engine, why=why)
        return head.accepted, "\n".join(lines)


def play_command(player: Player, move: str) -> str:
    """Return the command that tells of a move."""
    return f"play {COLOURS[player]} {move}"
