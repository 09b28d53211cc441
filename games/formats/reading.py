"""One text, whatever its form."""

import re

from games.formats.hexworld import read_hexworld, write_hexworld
from games.formats.record import Form, GameText, GameTextError, Reason
from games.formats.sgf import read_sgf, write_sgf
from games.formats.trmph import read_trmph, write_trmph

_READERS = {"trmph": read_trmph, "hexworld": read_hexworld, "sgf": read_sgf}
_WRITERS = {"trmph": write_trmph, "hexworld": write_hexworld, "sgf": write_sgf}
_COMMENT = re.compile(r"\s#(?:\s.*)?$", re.DOTALL)
_HASH = re.compile(r"#[0-9]")
# What only HexWorld writes behind the size: 14x10, a way to show the board, a word, a part after the cursor.
_HEXWORLD_HASH = re.compile(r"#[0-9]+(?:[xrmnc]|$)|#[0-9]+,[^\s,:]*[:,]")


def is_header(line: str) -> bool:
    """Whether a line that is not blank speaks about games instead of being one: `# Model: …`."""
    return line.startswith("#") and not _HASH.match(line)


def form_of(text: str) -> Form | None:
    """Return the form that `text` begins in, None where it is none of them.

    `#11,a1b2` may be of either site and means the same; it is taken for .trmph.
    """
    if text.startswith("("):
        return "sgf"
    if text.startswith("#"):
        return "hexworld" if _HEXWORLD_HASH.match(text) else "trmph" if _HASH.match(text) else None
    site = text.partition("#")[0]
    return "hexworld" if "hexworld.org/" in site else "trmph" if "trmph.com/" in site else None


def read_game(text: str) -> GameText:
    """Return what a text of any form says; blanks around it and ` # …` behind it are passed over.

    Raises:
        GameTextError: when it is no game.
    """
    text = text.strip()
    if not text.startswith("("):
        text = _COMMENT.sub("", text) if " #" in text or "\t#" in text else text
    form = form_of(text)
    if form is None:
        raise GameTextError(
            Reason.NOT_A_GAME, "it is neither .trmph (#5,c3b2 b), nor a link of HexWorld, nor SGF", text
        )
    return _READERS[form](text)


def write_game(game: GameText, form: Form) -> str:
    """Return `game` as one line of `form`. Raises DataError when the form cannot say it."""
    return _WRITERS[form](game)
