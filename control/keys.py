"""Keys: what is decided on, a game for a number of players, such as "hex5_2p"."""

import re
from dataclasses import dataclass

from core.errors import UsageError
from core.names import checked_name

_FORM = re.compile(r"(.+)_([1-9][0-9]?)p")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A game, as the catalog names it, for so many players."""

    game: str
    players: int = 2

    def __str__(self) -> str:
        return f"{self.game}_{self.players}p"


def parse_key(text: str) -> Key:
    """Return the key that `text` names, "<game>_<players>p".

    Raises:
        UsageError: when it has another form, or characters that no file name should have.
    """
    found = _FORM.fullmatch(checked_name(text, what="key"))
    if found is None:
        raise UsageError(
            f"{text!r} is no key",
            why="a key is a game and its number of players, <game>_<players>p",
            fix="write for example hex5_2p",
        )
    return Key(found[1], int(found[2]))
