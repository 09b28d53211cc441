"""Names of runs and models become folder and file names, so only plain ones pass."""

import re

from core.errors import UsageError

_ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def checked_name(name: str, *, what: str) -> str:
    """Return `name` if it is plain; `what` names its role in the error ("run", "model").

    Raises:
        UsageError: when it is empty, longer than 64 characters, starts with a dot or dash,
            holds anything but letters, digits, `.`, `_`, `-`, or holds `..`.
    """
    if _ALLOWED.fullmatch(name) is None or ".." in name:
        raise UsageError(
            f"{what} name {name!r} is not allowed",
            why="a name has 1-64 letters, digits, '.', '_' or '-', starts with a letter or digit, without '..'",
            fix=f"choose a plain name such as 'hex5-first' for the {what}",
        )
    return name
